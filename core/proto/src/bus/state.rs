//! The records the bus keeps, and the keys that name them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::AtomicU64},
};

use slotmap::new_key_type;

use super::{
    Published,
    durable::Member,
    ledger::Ledger,
    output::{Output, Route},
    principal::Principal,
    publish::Draft,
    queue::Queue,
    replay::Replay,
    retained::Walk,
    routes::TopicKey,
    sessions::PortKind,
};
use crate::{clock::Time, message::Sender, topic::Pattern};

new_key_type! {
    /// A connection's place at the bus.
    pub struct PortId;
    pub(super) struct SessionKey;
    pub(super) struct SubKey;
    pub(super) struct AckKey;
    pub(super) struct DurableKey;
}

/// What may fall due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The rows of an ack still open time out.
    Ack(AckKey),
    /// What was held back to travel with something else travels alone.
    Lazy(PortId),
    /// A `block` subscription with publishers waiting must have moved.
    Stall(SubKey),
    /// A publish waits for its own publisher's subscription.
    SelfStall(SessionKey),
    /// The resume window ends.
    Expiry(SessionKey),
    /// A client of a durable must have answered something.
    AckWait(SubKey),
    /// Failed messages of a durable are handed out again.
    Retry(DurableKey),
    /// What is merged before it is told: see [`super::observe`].
    Survey,
}

/// What a parked publish waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParkedOn {
    /// Room in a `block` subscription.
    Sub(SubKey),
    /// The store, which is behind.
    Store,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) session: SessionKey,
    pub(super) kind: PortKind,
    pub(super) controls: VecDeque<Output>,
    /// Subscriptions with something to send, each once, in turn.
    pub(super) sendable: VecDeque<SubKey>,
    /// Named in [`super::Bus::take_ready`] and not drained since.
    pub(super) ready: bool,
    /// Something lazy waits and [`Timer::Lazy`] is set.
    pub(super) lazy: bool,
    /// The client's topic numbers.
    pub(super) aliases: Vec<Option<Alias>>,
    /// What `ACCEPTED` said last.
    pub(super) told_published: u64,
    pub(super) told_answered: u64,
    /// What `STORED` said last.
    pub(super) told_stored: u64,
    /// Payload bytes accepted since then.
    pub(super) untold_bytes: u64,
}

/// What a topic number of a connection stands for.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    pub(super) topic: TopicKey,
    pub(super) route: Arc<Route>,
}

/// A client, connected or within its resume window.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: Arc<str>,
    pub(super) sender: Arc<Sender>,
    pub(super) secret: [u8; 16],
    pub(super) principal: Arc<Principal>,
    pub(super) space: usize,
    pub(super) port: Option<PortId>,
    /// The last position given when it connected or was resumed: what was accepted up to there was
    /// accepted without it.
    pub(super) joined: u64,
    pub(super) expires: Option<Time>,
    pub(super) subs: HashMap<u32, SubKey>,
    /// Number 0: direct messages.
    pub(super) direct: SubKey,
    pub(super) direct_seq: u64,
    /// The last publish number that arrived, and the last one dealt with.
    pub(super) arrived: u64,
    pub(super) published: u64,
    /// Publishes that arrived and wait for a `block` subscription's room.
    pub(super) parked: VecDeque<Parked>,
    /// At least so many bytes were sent for them.
    pub(super) parked_bytes: usize,
    /// What the first parked one waits for.
    pub(super) parked_on: Option<ParkedOn>,
    /// The last publish whose message was kept, and the last of those that is committed.
    pub(super) kept: u64,
    pub(super) stored: u64,
    pub(super) answered: u64,
    /// Unfinished acks by publish number.
    pub(super) acks: HashMap<u64, AckKey>,
    /// Deliveries whose answer is awaited from this client.
    pub(super) deliveries: HashMap<u64, Awaited>,
    pub(super) next_delivery: u64,
    pub(super) reports: Reports,
}

impl Session {
    /// Whether it may have the message.
    pub(super) fn may_have(&self, published: &Published) -> bool {
        published.admits(&self.id, self.principal.name.as_deref())
    }

    /// What its messages on `topic` share.
    pub(super) fn route(&self, topic: Arc<str>, released: &Arc<AtomicU64>) -> Arc<Route> {
        Arc::new(Route { topic, sender: self.sender.clone(), released: released.clone() })
    }
}

/// An answer awaited.
#[derive(Clone, Copy, Debug)]
pub(super) enum Awaited {
    /// For a publisher's ack.
    Row { ack: AckKey, row: u32, sub: SubKey },
    /// For a durable's progress.
    Progress { durable: DurableKey, position: u64, sub: SubKey },
}

/// A publish that arrived behind one that waits for room.
#[derive(Debug)]
pub(super) enum Parked {
    /// It is routed when its turn comes.
    Message(Box<Draft>),
    /// It was refused or settled already; only its number waits its turn.
    Number(u64),
}

/// Reports to a publisher, kept until it says that it has them.
#[derive(Debug, Default)]
pub(super) struct Reports {
    pub(super) log: VecDeque<Output>,
    pub(super) sent: usize,
    pub(super) received: u64,
    bytes: usize,
}

impl Reports {
    /// Adds one; returns the bytes that are kept now.
    pub(super) fn push(&mut self, report: Output) -> usize {
        self.bytes += report.size();
        self.log.push_back(report);
        self.bytes
    }

    /// The client has the first `received` reports.
    pub(super) fn release(&mut self, received: u64) {
        while self.received < received && self.sent > 0 {
            let Some(report) = self.log.pop_front() else { break };
            self.bytes -= report.size();
            self.sent -= 1;
            self.received += 1;
        }
        if self.log.is_empty() && self.log.capacity() > 256 {
            self.log = VecDeque::new();
        }
    }
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) session: SessionKey,
    pub(super) number: u32,
    pub(super) pattern: Pattern,
    pub(super) group: Option<Arc<str>>,
    pub(super) queue: Queue,
    /// In its port's `sendable`.
    pub(super) scheduled: bool,
    /// Closed by the broker; it stays until the client has taken the end of its stream.
    pub(super) closing: bool,
    /// Publishers that wait for room.
    pub(super) waiters: Vec<SessionKey>,
    /// Since when publishers wait for it and it took nothing.
    pub(super) stalled_since: Option<Time>,
    /// It reads history and is not live yet.
    pub(super) replay: Option<Box<Replay>>,
    /// It is to get retained messages yet.
    pub(super) walk: Option<Box<Walk>>,
    /// It is a client of a durable, which alone gives it messages.
    pub(super) member: Option<Box<Member>>,
    pub(super) count: Ledger,
}

impl Subscription {
    /// Its columns, with what is in the queue as pending.
    pub(super) fn ledger(&self) -> Ledger {
        Ledger { pending: self.queue.messages() as u64, ..self.count }
    }
}
