//! The broker as a state machine: routing, queues, credit, acks, sessions.
//!
//! A driver [attaches](Bus::attach) a connection, [handles](Bus::handle) its frames, asks which
//! connections became [ready](Bus::take_ready) and [pulls](Bus::pull) what they are to send:
//!
//! ```text
//! bytes → decode → lock { handle each frame; take_ready; pull each } → encode → bytes
//! ```
//!
//! Pulling is the back-pressure: what a socket cannot take yet stays in its subscriptions' bounded
//! queues. Codecs, sockets and host calls stay outside the lock.

mod acks;
mod durable;
mod grants;
mod history;
mod ledger;
mod observe;
mod output;
mod parking;
mod principal;
mod publish;
mod pull;
mod queue;
mod replay;
mod retained;
mod routes;
mod sessions;
mod state;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use slotmap::SlotMap;

use self::{
    acks::AckEntry,
    durable::Durable,
    history::History,
    observe::Observed,
    routes::Space,
    state::{AckKey, DurableKey, Port, Session, SessionKey, SubKey, Subscription, Timer},
};
pub use self::{
    durable::DEAD_LETTERS,
    grants::Grants,
    history::HistoryConfig,
    ledger::Ledger,
    output::{Notice, Output, Place, Published, Reader, Relay, Route},
    principal::Principal,
    sessions::{Attach, Attached, PortKind},
    state::PortId,
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    options::{Limits, Timings},
    wire::frame::Frame,
};

/// Answers that may wait for a connection which does not read.
const MAX_CONTROLS: usize = 1 << 16;

/// What a bus is made with.
#[derive(Clone, Debug, Default)]
pub struct BusConfig {
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timings: Timings,
    /// Refuse subscriptions with `overflow="block"`.
    pub forbid_block: bool,
    /// This run of the broker; below 2^53, larger at every start.
    pub epoch: u64,
    /// What [`Time::ZERO`] is, in milliseconds since the Unix epoch.
    pub time_base_ms: u64,
    /// What is kept.
    pub history: HistoryConfig,
}

impl BusConfig {
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self, time: Time) -> u64 {
        self.time_base_ms.saturating_add(time.as_micros() / 1000)
    }

    /// The inverse of [`BusConfig::wall_ms`]; what was before the start is at the start.
    fn time_at(&self, wall_ms: u64) -> Time {
        Time::from_micros(wall_ms.saturating_sub(self.time_base_ms).saturating_mul(1000))
    }
}

/// The broker. See the [module](self) for how it is driven.
#[derive(Debug)]
pub struct Bus {
    config: BusConfig,
    /// One per namespace; only ever a handful, and never removed.
    spaces: Vec<Space>,
    ports: SlotMap<PortId, Port>,
    sessions: SlotMap<SessionKey, Session>,
    /// Sessions by what their message ids begin with.
    origins: HashMap<String, SessionKey>,
    subscriptions: SlotMap<SubKey, Subscription>,
    acks: SlotMap<AckKey, AckEntry>,
    durables: SlotMap<DurableKey, Durable>,
    durable_names: HashMap<(usize, Arc<str>), DurableKey>,
    history: History,
    /// Subscriptions that walk over retained messages.
    walking: usize,
    timers: BTreeSet<(Time, Timer)>,
    ready: Vec<PortId>,
    notices: VecDeque<Notice>,
    observed: Observed,
    /// Sessions that end with the current call, and what their connections are told.
    ending: Vec<(SessionKey, Option<Error>)>,
    /// Bytes of all messages ever, and of those that are gone, wherever they were dropped.
    charged: u64,
    released: Arc<AtomicU64>,
    closed: Ledger,
}

impl Bus {
    /// An empty bus.
    pub fn new(config: BusConfig) -> Bus {
        let mut bus = Bus {
            history: History::new(&config.history),
            config,
            spaces: Vec::new(),
            ports: SlotMap::with_key(),
            sessions: SlotMap::with_key(),
            origins: HashMap::default(),
            subscriptions: SlotMap::with_key(),
            acks: SlotMap::with_key(),
            durables: SlotMap::with_key(),
            durable_names: HashMap::default(),
            walking: 0,
            timers: BTreeSet::new(),
            ready: Vec::new(),
            notices: VecDeque::new(),
            observed: Observed::default(),
            ending: Vec::new(),
            charged: 0,
            released: Arc::default(),
            closed: Ledger::default(),
        };
        bus.recover_ids();
        bus.recover_durables();
        bus.recover_retained();
        bus
    }

    /// What it was made with.
    pub fn config(&self) -> &BusConfig {
        &self.config
    }

    /// Takes one frame of a connection. An error is fatal: send it, close the connection and
    /// [`Bus::detach`] it. Anything less is answered with an `ERROR` among the outputs.
    pub fn handle(&mut self, now: Time, port: PortId, frame: &Frame<'_>) -> Result<()> {
        // What comes late over a connection that was given up must not mix with what comes over
        // the new one.
        let current = |record: &&Port| {
            self.sessions.get(record.session).is_some_and(|session| session.port == Some(port))
        };
        let Some(record) = self.ports.get(port).filter(current) else {
            return Err(Error::new(ErrorKind::Closed, "the connection was closed by the server"));
        };
        if record.controls.len() > MAX_CONTROLS {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "the client sends but does not read what it is answered",
            ));
        }
        let session = record.session;
        let result = self.handle_frame(now, port, session, frame);
        self.end_doomed(now);
        result
    }

    fn handle_frame(
        &mut self,
        now: Time,
        port: PortId,
        session: SessionKey,
        frame: &Frame<'_>,
    ) -> Result<()> {
        match frame {
            Frame::Publish(publish) => self.publish(now, port, session, publish),
            Frame::Credit { sub, consumed } => {
                self.credit(now, session, *sub, *consumed);
                Ok(())
            }
            Frame::Answer(answer) => self.answer(now, port, session, answer),
            Frame::Subscribe(subscribe) => self.subscribe(now, port, session, subscribe),
            Frame::Unsubscribe { sub } => {
                self.unsubscribe(now, port, session, *sub);
                Ok(())
            }
            Frame::Cancel { number } => {
                self.cancel_ack(now, session, *number);
                Ok(())
            }
            Frame::Alias { number, name } => self.alias(port, *number, name),
            Frame::Unalias { number } => {
                self.unalias(port, *number);
                Ok(())
            }
            // The driver answers it; whoever asks gets with the answer what was held back.
            Frame::Ping { .. } => {
                self.say_now(port);
                Ok(())
            }
            Frame::Hello(_) => {
                Err(Error::new(ErrorKind::Protocol, "HELLO came twice; it opens a connection once"))
            }
            // Heartbeats, renewed tokens and complaints are the driver's business; the rest is
            // what only a server says.
            _ => Ok(()),
        }
    }

    /// The connections that have something to send since they last were drained by
    /// [`Bus::pull`]. Each is named once until then.
    pub fn take_ready(&mut self, out: &mut Vec<PortId>) {
        out.append(&mut self.ready);
    }

    /// What the driver is to know or do, oldest first.
    pub fn take_notices(&mut self) -> impl Iterator<Item = Notice> + '_ {
        self.notices.drain(..)
    }

    /// When to call [`Bus::tick`].
    pub fn deadline(&self) -> Option<Time> {
        self.timers.first().map(|(time, _)| *time)
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Time) {
        while let Some((time, timer)) = self.timers.first().copied() {
            if time > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Ack(ack) => self.ack_timed_out(now, ack),
                Timer::Lazy(port) => self.lazy_due(port),
                Timer::Stall(sub) => self.check_stall(now, sub),
                Timer::SelfStall(session) => self.check_self_stall(now, session),
                Timer::Expiry(session) => self.session_expired(now, session),
                Timer::AckWait(sub) => self.check_ack_wait(now, sub),
                Timer::Retry(durable) => self.retry_due(now, durable),
                Timer::Survey => self.survey(now),
            }
        }
        self.end_doomed(now);
    }

    /// Ends what the current call has doomed: not sooner, for what is under way may still need it.
    pub(super) fn end_doomed(&mut self, now: Time) {
        while let Some((session, told)) = self.ending.pop() {
            self.end_session(now, session, told);
        }
    }

    /// Connected clients of a namespace.
    pub fn count_clients(&self, namespace: &str) -> usize {
        let Some(space) = self.space(namespace) else { return 0 };
        space.clients.values().filter(|key| self.sessions[**key].port.is_some()).count()
    }

    /// Whether a client has a connection now.
    pub fn is_connected(&self, namespace: &str, client_id: &str) -> bool {
        let key = self.space(namespace).and_then(|space| space.clients.get(client_id));
        key.is_some_and(|key| self.sessions[*key].port.is_some())
    }

    /// Subscriptions that a message on `topic` would reach (all members of a group counted).
    pub fn count_subscribers(&self, namespace: &str, topic: &str) -> usize {
        self.space(namespace).map_or(0, |space| space.count(topic))
    }

    fn space(&self, namespace: &str) -> Option<&Space> {
        self.spaces.iter().find(|space| &*space.name == namespace)
    }

    /// Bytes of all messages the bus holds, with their records.
    pub fn memory(&self) -> usize {
        let bytes = self.charged - self.released.load(Ordering::Relaxed);
        usize::try_from(bytes).expect("it is in memory")
    }

    /// The sum over all subscriptions, closed ones included.
    pub fn ledger(&self) -> Ledger {
        self.subscriptions.values().fold(self.closed, |sum, sub| sum + sub.ledger())
    }

    /// Whether no client, subscription, ack or timer is left.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
            && self.sessions.is_empty()
            && self.subscriptions.is_empty()
            && self.acks.is_empty()
            && self.timers.is_empty()
    }
}
