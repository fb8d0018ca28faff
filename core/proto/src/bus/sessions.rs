//! Connections come, go, come back, and take over.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Bus, Notice, Output, Principal,
    queue::Bounds,
    routes::Space,
    state::{Awaited, Port, PortId, Reports, Session, SessionKey, Timer},
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    message::{RowStatus, Sender},
    options::Overflow,
    topic::Pattern,
    wire::frame::REPORTS,
};

/// Direct messages: sent beyond the last consumed one.
const DIRECT_WINDOW: usize = 1024;
const DIRECT_WINDOW_BYTES: usize = 4 << 20;

/// How a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// kps.v1: credit, and a session that outlives the connection.
    Native,
    /// KPS JSON: what is handed to the socket counts as consumed, and the client ends with its
    /// connection.
    KpsJson,
}

/// A connection that asks for its place.
#[derive(Debug)]
pub struct Attach<'a> {
    /// On whose behalf.
    pub principal: Principal,
    /// How it speaks.
    pub kind: PortKind,
    /// The id wanted; empty: the bus makes one.
    pub client_id: &'a str,
    /// See [`Sender::origin`].
    pub origin: &'a str,
    /// The secret of the session to resume; empty: none.
    pub session: &'a [u8],
    /// See [`crate::wire::frame::Hello::received`].
    pub received: &'a [(u32, u64)],
    /// Random bytes nobody can guess: the new session's secret, then the made id.
    pub entropy: [u8; 24],
}

/// A connection's place.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Names it in every further call.
    pub port: PortId,
    /// The client's id.
    pub client_id: Arc<str>,
    /// The session's secret.
    pub session: [u8; 16],
    /// Whether the session asked for goes on.
    pub resumed: bool,
    /// The last publish number accepted or refused.
    pub published: u64,
    /// The last answer number taken.
    pub answered: u64,
}

impl Bus {
    /// Gives a connection its place. An error is fatal for the connection.
    pub fn attach(&mut self, now: Time, attach: Attach<'_>) -> Result<Attached> {
        let attached = self.try_attach(now, attach);
        self.end_doomed(now);
        attached
    }

    fn try_attach(&mut self, now: Time, attach: Attach<'_>) -> Result<Attached> {
        let space = self.space_of(&attach.principal.namespace);
        if let Some(key) = self.resumable(space, &attach) {
            return Ok(self.resume(now, key, &attach));
        }
        let id = self.choose_id(space, &attach)?;
        if let Some(key) = self.spaces[space].clients.get(&*id).copied() {
            self.check_takeover(key, &attach.principal, &id)?;
            self.end_session(now, key, Some(replaced(&id)));
        }
        let (secret, _) = attach.entropy.split_first_chunk::<16>().expect("24 bytes hold 16");
        let key = self.insert_session(space, id.clone(), *secret, &attach);
        let port = self.insert_port(key, attach.kind);
        self.notices.push_back(Notice::Connected {
            port,
            namespace: attach.principal.namespace,
            client_id: id.clone(),
        });
        Ok(Attached {
            port,
            client_id: id,
            session: *secret,
            resumed: false,
            published: 0,
            answered: 0,
        })
    }

    /// A connection is gone. With `keep` (it was lost) its session waits for the resume window;
    /// without (it said goodbye) it ends.
    pub fn detach(&mut self, now: Time, port: PortId, keep: bool) {
        let Some(record) = self.ports.remove(port) else { return };
        let Some(session) = self.sessions.get_mut(record.session) else { return };
        if session.port != Some(port) {
            return;
        }
        session.port = None;
        if !keep || record.kind == PortKind::KpsJson {
            self.end_session(now, record.session, None);
            return self.end_doomed(now);
        }
        let expires = now + self.config.timings.resume_window;
        session.expires = Some(expires);
        self.timers.insert((expires, Timer::Expiry(record.session)));
        self.fail_rows(now, record.session);
        for sub in record.sendable {
            if let Some(sub) = self.subscriptions.get_mut(sub) {
                sub.scheduled = false;
            }
        }
    }

    /// Gives a KPS JSON client another id.
    pub fn rename(&mut self, now: Time, port: PortId, id: &str) -> Result<()> {
        let key = self.ports[port].session;
        let session = &self.sessions[key];
        if &*session.id == id {
            return Ok(());
        }
        self.check_id(id)?;
        let space = session.space;
        if let Some(other) = self.spaces[space].clients.get(id).copied() {
            let principal = session.principal.clone();
            self.check_takeover(other, &principal, id)?;
            self.end_session(now, other, Some(replaced(id)));
            self.end_doomed(now);
        }
        let session = &mut self.sessions[key];
        let new: Arc<str> = id.into();
        let old = std::mem::replace(&mut session.id, new.clone());
        let sender = Sender { id: id.to_owned(), origin: session.sender.origin.clone() };
        session.sender = Arc::new(sender);
        for alias in self.ports[port].aliases.iter_mut().flatten() {
            alias.route = session.route(alias.route.topic.clone(), &self.released);
        }
        self.spaces[space].clients.remove(&old);
        self.spaces[space].clients.insert(new, key);
        Ok(())
    }

    /// The id of the client behind a connection.
    pub fn client_id(&self, port: PortId) -> Option<&Arc<str>> {
        Some(&self.sessions.get(self.ports.get(port)?.session)?.id)
    }

    /// The namespace of the client behind a connection.
    pub fn namespace(&self, port: PortId) -> Option<&Arc<str>> {
        let session = self.sessions.get(self.ports.get(port)?.session)?;
        Some(&self.spaces[session.space].name)
    }

    pub(super) fn space_of(&mut self, namespace: &str) -> usize {
        let place = self.spaces.iter().position(|space| &*space.name == namespace);
        place.unwrap_or_else(|| {
            self.spaces.push(Space::new(namespace, self.config.history.rules.clone()));
            self.spaces.len() - 1
        })
    }

    fn resumable(&self, space: usize, attach: &Attach<'_>) -> Option<SessionKey> {
        if attach.kind != PortKind::Native || attach.session.is_empty() {
            return None;
        }
        let key = self.spaces[space].clients.get(attach.client_id).copied()?;
        constant_time_eq(&self.sessions[key].secret, attach.session).then_some(key)
    }

    fn resume(&mut self, now: Time, key: SessionKey, attach: &Attach<'_>) -> Attached {
        if let Some(old) = self.sessions[key].port {
            // The new connection is faster than the news that the old one is dead.
            self.ports[old].controls.push_back(Output::Close(replaced(attach.client_id)));
            self.mark_ready(old);
            self.sessions[key].port = None;
            self.fail_rows(now, key);
            for sub in std::mem::take(&mut self.ports[old].sendable) {
                if let Some(sub) = self.subscriptions.get_mut(sub) {
                    sub.scheduled = false;
                }
            }
        }
        let subs: Vec<_> = self.sessions[key].subs.values().copied().collect();
        for sub in subs {
            if let Some(member) = &self.subscriptions[sub].member {
                self.joined_durable(member.durable);
            }
        }
        let port = self.insert_port(key, PortKind::Native);
        let session = &mut self.sessions[key];
        if let Some(expires) = session.expires.take() {
            self.timers.remove(&(expires, Timer::Expiry(key)));
        }
        session.port = Some(port);
        session.joined = self.history.last();
        let received = |number: u32| {
            let found = attach.received.iter().find(|(sub, _)| *sub == number);
            found.map(|(_, count)| *count)
        };
        session.reports.release(received(REPORTS).unwrap_or(0));
        session.reports.sent = 0;
        let has_reports = !session.reports.log.is_empty();
        let record = &mut self.ports[port];
        // Parked publishes are not confirmed yet, nor are those whose refusal is still to be told;
        // sent again, they are ignored as repeats.
        let refused = session.reports.log.iter().find_map(Output::refused);
        let published =
            refused.map_or(session.published, |number| session.published.min(number - 1));
        let answered = session.answered;
        record.told_published = published;
        record.told_answered = answered;
        let (session_id, secret) = (session.id.clone(), session.secret);
        let mut subs: Vec<_> = session.subs.iter().map(|(number, sub)| (*number, *sub)).collect();
        subs.sort_unstable();
        subs.push((0, session.direct));
        for (number, sub) in subs {
            let Some(count) = received(number).or((number == 0).then_some(0)) else {
                self.sessions[key].subs.remove(&number);
                self.remove_subscription(now, sub, RowStatus::NoHandler);
                continue;
            };
            let replayed = self.subscriptions[sub].queue.rewind(count);
            if number != 0 {
                self.ports[port].controls.push_back(Output::Resumed { sub: number, replayed });
                self.mark_ready(port);
            }
            self.schedule(sub);
            self.go_on(now, sub);
        }
        for (number, _) in attach.received {
            let gone =
                *number != REPORTS && *number != 0 && !self.sessions[key].subs.contains_key(number);
            if gone {
                // Only a full queue makes the broker end a subscription by itself, and the client
                // had taken the end of its stream before the connection was lost.
                let error = Error::new(ErrorKind::Closed, "the subscription had been closed");
                let reference = crate::wire::frame::Reference::Subscription(*number);
                self.ports[port].controls.push_back(Output::Error { reference, error });
                self.mark_ready(port);
            }
        }
        if has_reports || self.sessions[key].stored > 0 {
            self.mark_ready(port);
        }
        Attached {
            port,
            client_id: session_id,
            session: secret,
            resumed: true,
            published,
            answered,
        }
    }

    fn choose_id(&self, space: usize, attach: &Attach<'_>) -> Result<Arc<str>> {
        if !attach.client_id.is_empty() {
            self.check_id(attach.client_id)?;
            return Ok(attach.client_id.into());
        }
        let random = u64::from_be_bytes(*attach.entropy.last_chunk().expect("24 bytes hold 8"));
        let mut id = format!("c-{random:016x}");
        while self.spaces[space].clients.contains_key(&*id) {
            id.push('x');
        }
        Ok(id.into())
    }

    fn check_id(&self, id: &str) -> Result<()> {
        let limit = self.config.limits.id;
        if id.is_empty() || id.len() > limit || id.chars().any(char::is_control) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("a client id has 1 to {limit} bytes and no control characters"),
            ));
        }
        Ok(())
    }

    /// Taking over an id needs the same authenticated principal; among anonymous clients the
    /// newer connection wins.
    fn check_takeover(&self, holder: SessionKey, asks: &Principal, id: &str) -> Result<()> {
        if self.sessions[holder].principal.name == asks.name {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::IdInUse,
            format!("the id {id:?} belongs to another client; choose another id"),
        ))
    }

    fn insert_session(
        &mut self,
        space: usize,
        id: Arc<str>,
        secret: [u8; 16],
        attach: &Attach<'_>,
    ) -> SessionKey {
        let limits = &self.config.limits;
        let origin: String = attach.origin.chars().take(32).collect();
        let sender = Sender { id: id.to_string(), origin };
        let sender = Arc::new(sender);
        let principal = Arc::new(attach.principal.clone());
        let bounds = Bounds {
            overflow: Overflow::Block,
            messages: usize::MAX,
            bytes: limits.queue_bytes,
            window: DIRECT_WINDOW,
            window_bytes: DIRECT_WINDOW_BYTES,
        };
        let shortened: String = id.chars().take(200).collect();
        let pattern = Pattern::parse(&format!("kps.id.{shortened}"))
            .or_else(|_| Pattern::parse("kps.id"))
            .expect("a short name without wildcards is a topic");
        let key = self.sessions.insert_with_key(|_| Session {
            id: id.clone(),
            sender,
            secret,
            principal,
            space,
            port: None,
            joined: self.history.last(),
            expires: None,
            subs: Default::default(),
            direct: Default::default(),
            direct_seq: 0,
            arrived: 0,
            published: 0,
            parked: VecDeque::new(),
            parked_bytes: 0,
            parked_on: None,
            kept: 0,
            stored: 0,
            answered: 0,
            acks: Default::default(),
            deliveries: Default::default(),
            next_delivery: 1,
            reports: Reports::default(),
        });
        let origin = self.sessions[key].sender.origin.clone();
        // Who speaks KPS JSON has none, and sends nothing again.
        if !origin.is_empty() {
            self.origins.entry(origin).or_insert(key);
        }
        self.sessions[key].direct = self.insert_subscription(key, 0, pattern, None, bounds);
        self.spaces[space].clients.insert(id, key);
        key
    }

    fn insert_port(&mut self, session: SessionKey, kind: PortKind) -> PortId {
        let port = self.ports.insert(Port {
            session,
            kind,
            controls: VecDeque::new(),
            sendable: VecDeque::new(),
            ready: false,
            lazy: false,
            aliases: Vec::new(),
            told_published: 0,
            told_answered: 0,
            told_stored: 0,
            untold_bytes: 0,
        });
        self.sessions[session].port = Some(port);
        port
    }

    /// A recipient's connection is lost: its rows fail at once, though it may come back and
    /// still get the messages. A durable waits for it.
    fn fail_rows(&mut self, now: Time, key: SessionKey) {
        let rows = self.sessions[key].deliveries.iter();
        let rows = rows.filter(|(_, awaited)| matches!(awaited, Awaited::Row { .. }));
        let mut deliveries: Vec<u64> = rows.map(|(delivery, _)| *delivery).collect();
        deliveries.sort_unstable();
        for delivery in deliveries {
            self.settle_delivery(now, key, delivery, RowStatus::Disconnected);
        }
    }

    pub(super) fn session_expired(&mut self, now: Time, key: SessionKey) {
        self.end_session(now, key, None);
    }

    /// Forgets a client. If it is connected, `told` is what its connection is closed with.
    pub(super) fn end_session(&mut self, now: Time, key: SessionKey, told: Option<Error>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(expires) = session.expires.take() {
            self.timers.remove(&(expires, Timer::Expiry(key)));
        }
        session.forget_parked();
        let port = session.port.take();
        // From here on it is nobody: what its subscriptions' end sets going must not reach it.
        let space = &mut self.spaces[session.space];
        if space.clients.get(&session.id) == Some(&key) {
            space.clients.remove(&session.id);
        }
        // Sorted by number, so that one run is like the other.
        let mut subs: Vec<_> = session.subs.drain().chain([(0, session.direct)]).collect();
        subs.sort_unstable();
        let mut acks: Vec<_> = session.acks.drain().collect();
        acks.sort_unstable();
        self.fail_rows(now, key);
        for (_, sub) in subs {
            self.remove_subscription(now, sub, RowStatus::Disconnected);
        }
        for (_, ack) in acks {
            self.drop_ack(now, ack);
        }
        let session = self.sessions.remove(key).expect("looked up above");
        if self.origins.get(&session.sender.origin) == Some(&key) {
            self.origins.remove(&session.sender.origin);
        }
        self.remember_origin(&session.sender.origin, session.kept);
        let space = &self.spaces[session.space];
        self.notices.push_back(Notice::Disconnected {
            namespace: space.name.to_string(),
            client_id: session.id,
        });
        if let (Some(port), Some(told)) = (port, told) {
            self.ports[port].controls.push_back(Output::Close(told));
            self.mark_ready(port);
        }
    }
}

fn replaced(id: &str) -> Error {
    Error::new(
        ErrorKind::Replaced,
        format!("a newer connection took over the id {id:?}; give each client its own id"),
    )
}

/// Takes the same time wherever the first difference is.
fn constant_time_eq(secret: &[u8; 16], shown: &[u8]) -> bool {
    secret.len() == shown.len()
        && secret.iter().zip(shown).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}
