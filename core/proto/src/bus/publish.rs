//! A message's way in: checked, perhaps parked, accepted, routed.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;

use super::{
    Bus, Grants, Notice, PortKind, Published, Relay, Route,
    queue::{OVERHEAD, Pushed},
    routes::{Group, TopicKey},
    state::{Alias, Parked, ParkedOn, PortId, SessionKey, SubKey},
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    message::{
        Extras, GapReason, MAX_AUDIENCE, Offline, PRINCIPAL, Payload, RETAINED_IS_FOR_ALL,
        RowStatus,
    },
    options::{Limits, Overflow},
    topic,
    wire::frame::{Destination, Extensions, Name, Publish},
};

/// How long what may be said later waits for something to travel with.
pub(super) const LAZY: Duration = Duration::from_millis(20);

/// A publish that was checked and not routed yet.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) to: To,
    payload: Payload<Box<[u8]>>,
    pub(super) number: u64,
    prompt: bool,
    maybe_duplicate: bool,
    /// Boxed because most have none and every move copies it.
    terms: Option<Box<Terms>>,
}

/// What only some publishes ask for.
#[derive(Debug, Default)]
struct Terms {
    ack: Option<AckRequest>,
    extras: Option<Box<Extras>>,
    expires: Option<Time>,
    /// The topic is to have it as its last value.
    retain: bool,
}

impl Draft {
    /// What it is charged against queues' and the server's bounds: as much as what becomes of it.
    pub(super) fn cost(&self) -> usize {
        self.payload.bytes.len() + OVERHEAD + self.extras().map_or(0, Extras::cost)
    }

    /// Bytes that were certainly sent for it.
    pub(super) fn sent_bytes(&self) -> usize {
        self.payload.bytes.len() + self.extras().map_or(0, Extras::text_bytes)
    }

    fn is_retained(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.retain)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.payload.bytes.is_empty()
    }

    fn extras(&self) -> Option<&Extras> {
        self.terms.as_ref()?.extras.as_deref()
    }

    /// The publisher's own id for it.
    fn id(&self) -> Option<&str> {
        self.extras()?.id.as_deref()
    }

    fn is_for_some(&self) -> bool {
        self.extras().is_some_and(|extras| extras.to.is_some())
    }

    fn offline(&self) -> Offline {
        self.extras().map_or(Offline::Keep, |extras| extras.offline)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct AckRequest {
    pub(super) timeout: Duration,
    pub(super) request: bool,
}

#[derive(Debug)]
pub(super) enum To {
    Topic(TopicKey, Arc<Route>),
    Client(Box<str>),
    Server(Box<str>),
}

type Targets = SmallVec<[SubKey; 8]>;

impl Bus {
    pub(super) fn publish(
        &mut self,
        now: Time,
        port: PortId,
        key: SessionKey,
        frame: &Publish<'_>,
    ) -> Result<()> {
        if let Some(count) = settled(frame) {
            return self.skip(now, key, frame, count);
        }
        let session = &mut self.sessions[key];
        if frame.number <= session.arrived {
            return Ok(());
        }
        if frame.number != session.arrived + 1 {
            return Err(hole(frame.number, session.arrived));
        }
        session.arrived = frame.number;
        let waiting = !session.parked.is_empty();
        if waiting
            && self.ports[port].kind == PortKind::Native
            && session.is_beyond_window(&self.config.limits)
        {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "more was published than the window in WELCOME allows; wait for ACCEPTED",
            ));
        }
        if let Err(error) = self.check(now, port, key, frame, waiting) {
            self.refuse(key, frame.number, discreet(frame, error));
            if waiting {
                self.sessions[key].parked.push_back(Parked::Number(frame.number));
            } else {
                self.dealt_with(now, key, frame.number, 0, true);
            }
        }
        Ok(())
    }

    /// Numbers of which nothing else is to come: `count` of them, from the frame's on. Some may have
    /// arrived before.
    #[cold]
    fn skip(&mut self, now: Time, key: SessionKey, frame: &Publish<'_>, count: u64) -> Result<()> {
        let session = &mut self.sessions[key];
        let last = frame.number.saturating_add(count - 1);
        if last <= session.arrived {
            return Ok(());
        }
        if frame.number > session.arrived + 1 {
            return Err(hole(frame.number, session.arrived));
        }
        if last > LAST_NUMBER {
            return Err(Error::new(ErrorKind::Protocol, "publish numbers are below 2^53"));
        }
        session.arrived = last;
        if session.parked.is_empty() {
            self.dealt_with(now, key, last, 0, frame.prompt);
            return Ok(());
        }
        match session.parked.back_mut() {
            Some(Parked::Number(number)) => *number = last,
            _ => session.parked.push_back(Parked::Number(last)),
        }
        Ok(())
    }

    /// Whether publishes of this connection wait for room. A driver without credit (KPS JSON)
    /// stops reading meanwhile; the connection becomes ready when it may go on.
    pub fn is_paused(&self, port: PortId) -> bool {
        let session = self.ports.get(port).and_then(|port| self.sessions.get(port.session));
        session.is_some_and(|session| !session.parked.is_empty())
    }

    pub(super) fn alias(&mut self, port: PortId, number: u32, name: &str) -> Result<()> {
        if number as usize >= self.config.limits.aliases {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("alias {number} is not below the limit in WELCOME"),
            ));
        }
        topic::check_name(name)?;
        let session = &self.sessions[self.ports[port].session];
        let space = &mut self.spaces[session.space];
        let topic = space.topic(name);
        let route = session.route(space.name(topic).clone(), &self.released);
        let aliases = &mut self.ports[port].aliases;
        let place = number as usize;
        if aliases.len() <= place {
            aliases.resize(place + 1, None);
        }
        aliases[place] = Some(Alias { topic, route });
        Ok(())
    }

    pub(super) fn unalias(&mut self, port: PortId, number: u32) {
        if let Some(alias) = self.ports[port].aliases.get_mut(number as usize) {
            *alias = None;
        }
    }

    /// Accepts a publish, or parks it behind others. An error refuses it.
    fn check(
        &mut self,
        now: Time,
        port: PortId,
        key: SessionKey,
        frame: &Publish<'_>,
        waiting: bool,
    ) -> Result<()> {
        let limit = self.config.limits.payload;
        let size = frame.payload.len();
        if size > limit {
            return Err(Error::new(
                ErrorKind::PayloadTooLarge,
                format!(
                    "the payload is {size} bytes; the limit is {limit} \
                     (send a reference, or raise the limit)"
                ),
            ));
        }
        let to = match frame.to {
            Destination::Topic(name) => self.resolve(port, name)?,
            Destination::Client(id) => To::Client(id.into()),
            Destination::Server(address) => To::Server(address.into()),
        };
        if let Some(extensions) = &frame.extensions {
            check_policies(extensions, &to, frame.request)?;
        }
        let terms = match (frame.ack, &frame.extensions) {
            (false, None) => None,
            _ => Some(self.terms(now, key, frame)?),
        };
        let retain = frame.extensions.as_ref().is_some_and(|extensions| extensions.retained);
        if retain && (frame.request || !matches!(to, To::Topic(..))) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "only what is published to a topic is retained, and no request",
            ));
        }
        let draft = Draft {
            to,
            payload: Payload { content_type: frame.content_type, bytes: frame.payload.into() },
            number: frame.number,
            prompt: frame.prompt,
            maybe_duplicate: frame.maybe_duplicate,
            terms,
        };
        if waiting {
            let session = &mut self.sessions[key];
            session.parked_bytes += draft.sent_bytes();
            session.parked.push_back(Parked::Message(Box::new(draft)));
        } else {
            self.accept(now, key, draft);
        }
        Ok(())
    }

    fn terms(&self, now: Time, key: SessionKey, frame: &Publish<'_>) -> Result<Box<Terms>> {
        let mut terms = Terms::default();
        if frame.ack {
            let timeout = frame.extensions.as_ref().and_then(|ext| ext.ack_timeout_ms);
            let timeout = timeout.map_or(self.config.timings.ack_timeout, Duration::from_millis);
            if self.sessions[key].acks.len() >= self.config.limits.acks {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    "too many acks are unfinished; wait for some",
                ));
            }
            if frame.request {
                terms.expires = Some(now + timeout);
            }
            terms.ack = Some(AckRequest { timeout, request: frame.request });
        }
        if let Some(extensions) = &frame.extensions {
            if let Some(ttl) = extensions.ttl_ms {
                let expires = now + Duration::from_millis(ttl);
                terms.expires = Some(terms.expires.map_or(expires, |other| other.min(expires)));
            }
            terms.extras = extras(extensions, &self.config.limits)?;
            terms.retain = extensions.retained;
        }
        Ok(Box::new(terms))
    }

    fn resolve(&mut self, port: PortId, name: Name<'_>) -> Result<To> {
        let port = &self.ports[port];
        let session = &self.sessions[port.session];
        match name {
            Name::Inline(name) => {
                topic::check_name(name)?;
                session.principal.check_publish(name)?;
                let space = &mut self.spaces[session.space];
                let topic = space.topic(name);
                let route = session.route(space.name(topic).clone(), &self.released);
                Ok(To::Topic(topic, route))
            }
            Name::Alias(number) => {
                let alias = port.aliases.get(number as usize);
                let Some(Alias { topic, route }) = alias.and_then(Option::as_ref) else {
                    return Err(Error::new(
                        ErrorKind::InvalidTopic,
                        format!("alias {number} stands for nothing on this connection"),
                    ));
                };
                session.principal.check_publish(&route.topic)?;
                Ok(To::Topic(*topic, route.clone()))
            }
        }
    }

    /// Routes `draft`, or parks it until what it is for has room: full `block` subscriptions, or the
    /// store.
    pub(super) fn accept(&mut self, now: Time, key: SessionKey, draft: Draft) {
        if draft.maybe_duplicate
            && let Some(id) = draft.id()
        {
            self.end_former_session(key, id);
        }
        let is_retained = draft.is_retained();
        if is_retained {
            if self.config.history.on_disk
                && (self.history.error().is_some() || self.history.is_behind())
            {
                return self.wait_for_store(now, key, draft);
            }
            if let Err(error) = self.check_retained(now, key, &draft) {
                self.refuse(key, draft.number, error);
                return self.dealt_with(now, key, draft.number, 0, true);
            }
        }
        let mut targets = Targets::new();
        let cost = draft.cost();
        let room = self.memory() + cost <= self.config.limits.server_bytes;
        let session = &self.sessions[key];
        let (space, is_restricted) = (session.space, session.principal.is_restricted());
        let (mut place, mut is_awaited) = (None, false);
        let (sessions, subscriptions) = (&self.sessions, &self.subscriptions);
        let admitted = draft.extras().filter(|_| draft.is_for_some());
        let admits = |sub: SubKey| {
            admitted.is_none_or(|extras| {
                let session = &sessions[subscriptions[sub].session];
                extras.admits(&session.id, session.principal.name.as_deref())
            })
        };
        let offline = draft.offline();
        let is_full = |key: SubKey, topic: &str| {
            let sub = &subscriptions[key];
            let away = offline != Offline::Keep && sessions[sub.session].port.is_none();
            // What does not wait for whoever is offline makes nobody wait either.
            sub.queue.blocks(room, cost) && !(away && sub.queue.needs_no_room(offline, topic))
        };
        let seq = match &draft.to {
            To::Topic(topic, route) => {
                let routes = &mut self.spaces[space];
                let topic = routes.routes(*topic, &route.topic, subscriptions);
                match admitted {
                    None => targets.extend_from_slice(&topic.direct),
                    Some(_) => {
                        targets.extend(topic.direct.iter().copied().filter(|sub| admits(*sub)))
                    }
                }
                if topic.has_history {
                    // What was not committed before is not known to be kept.
                    if self.history.error().is_some() {
                        return self.wait_for_store(now, key, draft);
                    }
                    let id = draft.id();
                    let (time_ms, again) = (self.config.wall_ms(now), draft.maybe_duplicate);
                    let living = |origin: &str| {
                        let session = self.origins.get(origin)?;
                        Some(self.sessions.get(*session)?.kept)
                    };
                    if id.is_some_and(|id| self.history.has(space, id, again, time_ms, living)) {
                        return self.repeated(now, key, &draft);
                    }
                    if self.history.is_behind() {
                        return self.wait_for_store(now, key, draft);
                    }
                    place = Some(Box::new(self.history.next_place(self.config.epoch)));
                    // They get it from there.
                    targets.retain(|sub| subscriptions[*sub].replay.is_none());
                }
                for group in &mut topic.groups {
                    targets.extend(group.choose(|sub| {
                        if !admits(sub) {
                            return None;
                        }
                        let sub = &subscriptions[sub];
                        let connected = sessions[sub.session].port.is_some();
                        Some((room && sub.queue.has_room(cost), connected, sub.queue.messages()))
                    }));
                }
                // Subscriptions that are to get the topic's last value yet get it first.
                is_awaited = topic.is_retained && self.walking > 0;
                let full = |sub: &SubKey| is_full(*sub, &route.topic) && admits(*sub);
                // Nearly always none is, for whatever message.
                let blocks = |sub: &SubKey| subscriptions[*sub].queue.blocks(room, cost);
                if targets.iter().any(blocks) && targets.iter().any(full) {
                    let full = all_full(&targets, &topic.groups, full);
                    return self.park(now, key, draft, &full);
                }
                if let Some(place) = &place {
                    topic.last = place.position;
                }
                &mut topic.seq
            }
            To::Client(id) => {
                let Some(recipient) = self.spaces[space].clients.get(&**id).copied() else {
                    return self.unknown_client(now, key, &draft, id);
                };
                let direct = sessions[recipient].direct;
                targets.push(direct);
                if is_full(direct, subscriptions[direct].pattern.as_str()) {
                    return self.park(now, key, draft, &targets);
                }
                &mut self.sessions[recipient].direct_seq
            }
            To::Server(address) => {
                self.notices.push_back(Notice::PublishToServer {
                    relay: Relay { publisher: key, number: draft.number },
                    address: address.to_string(),
                    payload: Payload {
                        content_type: draft.payload.content_type,
                        bytes: draft.payload.bytes.into(),
                    },
                });
                return self.dealt_with(now, key, draft.number, cost, draft.prompt);
            }
        };
        *seq += 1;
        let seq = *seq;
        let route = match draft.to {
            To::Topic(_, route) => route,
            // The only target is its recipient's subscription to its own direct messages.
            _ => {
                let topic = self.subscriptions[targets[0]].pattern.text().clone();
                self.sessions[key].route(topic, &self.released)
            }
        };
        let mut terms = draft.terms.map_or_else(Terms::default, |terms| *terms);
        if is_restricted && route.topic.starts_with(topic::DOCUMENT_CALLS) {
            Grants::of(&self.sessions[key].principal).vouch(&mut terms.extras);
        }
        let published = Arc::new(Published {
            route,
            payload: draft.payload,
            number: draft.number,
            seq,
            time: now,
            request: terms.ack.is_some_and(|ack| ack.request),
            maybe_duplicate: draft.maybe_duplicate,
            extras: terms.extras,
            expires: terms.expires,
            place,
            queues: u32::try_from(targets.len()).unwrap_or(u32::MAX),
        });
        self.charged += published.charge() as u64;
        self.observe_message(&published);
        let is_kept = published.place.is_some();
        if is_kept {
            self.keep(now, space, &published);
        }
        if is_awaited {
            self.hasten_retained(now, space, &published.topic, &targets, room);
        }
        if is_retained {
            self.retain(now, space, &published);
        }
        match terms.ack {
            None => {
                if let Some((last, others)) = targets.split_last() {
                    for sub in others {
                        self.enqueue(now, *sub, published.clone(), None, room);
                    }
                    self.enqueue(now, *last, published, None, room);
                }
            }
            Some(ack) => self.open_ack(now, key, ack, &published, &targets, room),
        }
        self.dealt_with(now, key, draft.number, cost, draft.prompt);
        if is_kept {
            self.sessions[key].kept = draft.number;
            self.confirm_stored(key, draft.number);
        }
    }

    /// The store is behind, or has failed.
    #[cold]
    fn wait_for_store(&mut self, now: Time, key: SessionKey, draft: Draft) {
        if let Some(error) = self.store_error() {
            self.refuse(key, draft.number, error);
            return self.dealt_with(now, key, draft.number, 0, true);
        }
        self.history.wait(key);
        self.sessions[key].park(ParkedOn::Store, draft);
    }

    /// A publish of what is kept already: accepted, and delivered to nobody.
    fn repeated(&mut self, now: Time, key: SessionKey, draft: &Draft) {
        if draft.terms.as_ref().is_some_and(|terms| terms.ack.is_some()) {
            self.report_no_recipients(now, key, draft.number);
        }
        self.dealt_with(now, key, draft.number, 0, draft.prompt);
        self.confirm_stored(key, draft.number);
    }

    /// Nobody has this id: an ack without recipients is complete, a plain message is refused.
    fn unknown_client(&mut self, now: Time, key: SessionKey, draft: &Draft, id: &str) {
        let number = draft.number;
        if draft.terms.as_ref().is_some_and(|terms| terms.ack.is_some()) {
            self.report_no_recipients(now, key, number);
        } else {
            let error = Error::new(ErrorKind::NotFound, format!("no client has the id {id:?}"));
            let is_private = draft.extras().is_some_and(|extras| extras.private);
            self.refuse(key, number, if is_private { error.without_quotes() } else { error });
        }
        self.dealt_with(now, key, number, 0, true);
    }

    pub(super) fn enqueue(
        &mut self,
        now: Time,
        key: SubKey,
        published: Arc<Published>,
        delivery: Option<u64>,
        room: bool,
    ) {
        let offline = published.offline();
        if offline != Offline::Keep {
            let pushed = self.push_with(now, key, offline, published, delivery, room);
            return self.pushed(now, key, pushed, delivery);
        }
        let sub = &mut self.subscriptions[key];
        sub.count.accepted += 1;
        match sub.queue.push(published, delivery, room) {
            Pushed::Queued if sub.scheduled => {}
            pushed => self.pushed(now, key, pushed, delivery),
        }
    }

    /// What comes of a message that was offered to a queue.
    fn pushed(&mut self, now: Time, key: SubKey, pushed: Pushed, delivery: Option<u64>) {
        let sub = &mut self.subscriptions[key];
        match pushed {
            Pushed::Queued => {}
            Pushed::Replaced(old, reason) => {
                sub.count.dropped += 1;
                let session = sub.session;
                self.observe_drop(now, key, 1, reason);
                if let Some(old) = old {
                    self.settle_delivery(now, session, old, RowStatus::Dropped);
                }
            }
            Pushed::Dropped(reason) => {
                sub.count.dropped += 1;
                let session = sub.session;
                self.observe_drop(now, key, 1, reason);
                if let Some(delivery) = delivery {
                    self.settle_delivery(now, session, delivery, RowStatus::Dropped);
                }
            }
            Pushed::Overflowed => {
                sub.count.dropped += 1;
                let session = sub.session;
                self.observe_drop(now, key, 1, GapReason::SlowConsumer);
                if let Some(delivery) = delivery {
                    self.settle_delivery(now, session, delivery, RowStatus::Dropped);
                }
                self.close_slow(now, key);
                return;
            }
            Pushed::Spilled(position) => {
                // Counted when it is read.
                sub.count.accepted -= 1;
                let session = sub.session;
                self.spill(key, position);
                if let Some(delivery) = delivery {
                    self.settle_delivery(now, session, delivery, RowStatus::Dropped);
                }
                return;
            }
        }
        self.schedule(key);
    }

    /// Queues a message with an offline policy.
    #[cold]
    fn push_with(
        &mut self,
        now: Time,
        key: SubKey,
        offline: Offline,
        published: Arc<Published>,
        delivery: Option<u64>,
        room: bool,
    ) -> Pushed {
        let sub = &mut self.subscriptions[key];
        sub.count.accepted += 1;
        let session = sub.session;
        let is_away = self.sessions[session].port.is_none();
        let displaced = match offline {
            Offline::Latest if is_away => sub.queue.displace(&published.topic),
            _ => None,
        };
        if let Some(old) = displaced {
            sub.count.dropped += 1;
            self.observe_drop(now, key, 1, GapReason::Offline);
            if let Some(old) = old {
                self.settle_delivery(now, session, old, RowStatus::Dropped);
            }
        }
        let sub = &mut self.subscriptions[key];
        sub.queue.push_with(offline, is_away, published, delivery, room)
    }

    pub(super) fn close_slow(&mut self, now: Time, key: SubKey) {
        let sub = &mut self.subscriptions[key];
        if sub.number == 0 {
            // Direct messages cannot be closed: the oldest go, with a gap, until it moves again.
            sub.queue.set_overflow(Overflow::DropOldest);
            sub.stalled_since = None;
            for waiter in std::mem::take(&mut sub.waiters) {
                self.unpark(now, waiter, ParkedOn::Sub(key));
            }
            return;
        }
        let error = Error::new(
            ErrorKind::SlowConsumer,
            format!(
                "the subscription {:?} was closed: its queue was full and it took nothing; \
                 handle messages faster, or choose another overflow policy",
                sub.pattern.as_str()
            ),
        );
        self.close_subscription(now, key, error, GapReason::SlowConsumer);
    }

    /// The publish with this number is accepted or refused.
    pub(super) fn dealt_with(
        &mut self,
        now: Time,
        key: SessionKey,
        number: u64,
        bytes: usize,
        prompt: bool,
    ) {
        let session = &mut self.sessions[key];
        session.published = number;
        let Some(id) = session.port else { return };
        let port = &mut self.ports[id];
        port.untold_bytes += bytes as u64;
        let limits = &self.config.limits;
        if prompt
            || number - port.told_published >= limits.publish_window / 2
            || port.untold_bytes >= limits.publish_window_bytes / 2
        {
            self.mark_ready(id);
        } else if !port.lazy {
            self.say_later(now, id);
        }
    }
}

impl Group {
    /// The next member in turn, of those that fit best: with room, connected, least queued. `None` if
    /// none may have the message.
    fn choose(
        &mut self,
        fitness: impl Fn(SubKey) -> Option<(bool, bool, usize)>,
    ) -> Option<SubKey> {
        let count = self.members.len();
        self.turn = (self.turn + 1) % count;
        let mut best: Option<(SubKey, (bool, bool, usize))> = None;
        for step in 0..count {
            let candidate = self.members[(self.turn + step) % count];
            let Some(fit) = fitness(candidate) else { continue };
            let is_better = best.is_none_or(|(_, best)| {
                let better = (fit.0, fit.1).cmp(&(best.0, best.1));
                better.then(best.2.cmp(&fit.2)).is_gt()
            });
            if is_better {
                best = Some((candidate, fit));
            }
        }
        best.map(|(member, _)| member)
    }
}

/// Publish numbers go up to this one, which every language can hold.
const LAST_NUMBER: u64 = (1 << 53) - 1;

/// How many numbers the publish takes, if that is all it does.
fn settled(frame: &Publish<'_>) -> Option<u64> {
    frame.extensions.as_ref().map(|extensions| extensions.settled).filter(|count| *count > 0)
}

#[cold]
fn hole(number: u64, arrived: u64) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("publish {number} came after {arrived}; publishes are numbered without holes"),
    )
}

/// What `to`, `private` and `retained` ask for must be possible.
#[cold]
fn check_policies(extensions: &Extensions<'_>, destination: &To, request: bool) -> Result<()> {
    if extensions.retained && (request || !matches!(destination, To::Topic(..))) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "only what is published to a topic is retained, and no request",
        ));
    }
    let to = extensions.to.as_ref();
    let is_for_some = to.is_some() || extensions.private || extensions.offline != Offline::Keep;
    if extensions.retained && is_for_some {
        return Err(Error::new(ErrorKind::InvalidArgument, RETAINED_IS_FOR_ALL));
    }
    if to.is_some_and(Vec::is_empty) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "`to` names nobody; name a client or principal, or leave it out",
        ));
    }
    if to.is_some() && !matches!(destination, To::Topic(..)) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "`to` chooses among a topic's subscribers; this message has one recipient already",
        ));
    }
    if extensions.private && matches!(destination, To::Server(_)) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "a private message stays with this server; it cannot be passed on to another one",
        ));
    }
    Ok(())
}

/// The error without what it quotes of a private message.
#[cold]
fn discreet(frame: &Publish<'_>, error: Error) -> Error {
    let is_private = frame.extensions.as_ref().is_some_and(|extensions| extensions.private);
    if is_private { error.without_quotes() } else { error }
}

/// The full `block` subscriptions among `targets`, with all of a full one's group, since room in
/// any of them is enough.
#[cold]
fn all_full(targets: &Targets, groups: &[Group], is_full: impl Fn(&SubKey) -> bool) -> Targets {
    let mut full: Targets = targets.iter().copied().filter(&is_full).collect();
    for group in groups {
        if group.members.iter().any(|member| full.contains(member)) {
            full.extend(group.members.iter().copied().filter(&is_full));
        }
    }
    full
}

fn extras(extensions: &Extensions<'_>, limits: &Limits) -> Result<Option<Box<Extras>>> {
    let headers = extensions.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let id = extensions.id.map_or(0, str::len);
    let to = extensions.to.as_deref().unwrap_or_default();
    let longest = to.iter().map(|entry| entry.len()).max().unwrap_or(0);
    if to.len() > MAX_AUDIENCE {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!(
                "`to` names {}; the limit is {MAX_AUDIENCE}: use a topic of their own",
                to.len()
            ),
        ));
    }
    if to.iter().any(|entry| entry.is_empty() || *entry == PRINCIPAL) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "`to` names a client or principal without a name",
        ));
    }
    for (what, size, limit) in [
        ("headers", headers, limits.headers),
        ("id", id, limits.id),
        ("longest entry of `to`", longest, limits.id),
    ] {
        if size > limit {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("the message's {what}: {size} bytes; the limit is {limit}"),
            ));
        }
    }
    let extras = Extras {
        headers: extensions
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        id: extensions.id.map(str::to_owned),
        ttl: extensions.ttl_ms.map(Duration::from_millis),
        to: extensions.to.as_ref().map(|to| to.iter().map(|entry| (*entry).to_owned()).collect()),
        private: extensions.private,
        offline: extensions.offline,
    };
    Ok((!extras.is_empty()).then(|| Box::new(extras)))
}
