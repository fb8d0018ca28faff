//! What a broker with history keeps, in the words that the bus and a store share.
//!
//! The bus says what to write, in order ([`Write`]), and asks for what it needs to read ([`Query`]);
//! a store does both and says how far it has come. Every message that is kept has a *position*: its
//! place in the store's one sequence, consecutive from 1 over all topics and all epochs, below 2^53.

use std::{sync::Arc, time::Duration};

use crate::{
    message::{Extras, Payload, Sender},
    topic::Pattern,
};

/// Which topics have history, and how much of it. Of several rules that match a topic the first holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRule {
    /// The topics.
    pub pattern: Pattern,
    /// Older messages are removed.
    pub max_age: Option<Duration>,
    /// Messages that all topics of the rule hold together; the oldest are removed.
    pub max_count: Option<u64>,
    /// Payload bytes that all topics of the rule hold together; the oldest are removed.
    pub max_bytes: Option<u64>,
}

/// A message as history keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the store.
    pub position: u64,
    /// The broker's run that accepted it.
    pub epoch: u64,
    /// Whose topic it is.
    pub namespace: Arc<str>,
    /// Where it was published.
    pub topic: Arc<str>,
    /// Consecutive within (topic, epoch).
    pub seq: u64,
    /// Who published it.
    pub sender: Arc<Sender>,
    /// The publisher's number for it.
    pub number: u64,
    /// When it was accepted, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Sent again after the publisher's session was lost.
    pub maybe_duplicate: bool,
    /// The payload.
    pub payload: Payload,
    /// Headers, the publisher's own id, time to live.
    pub extras: Option<Box<Extras>>,
    /// Not to be delivered from then on, milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
}

/// A publisher's session, kept with its messages so that a restarted broker knows what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// See [`Sender::origin`].
    pub origin: String,
    /// Where its topics are.
    pub namespace: String,
    /// The client's id.
    pub client_id: String,
    /// Who shows it continues the session.
    pub secret: [u8; 16],
    /// The last publish number dealt with.
    pub published: u64,
}

/// How far a durable subscription has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where its topics are.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it subscribes to.
    pub pattern: String,
    /// Every message up to this position is done with.
    pub done: u64,
    /// Positions above `done` that are done with as well, ascending.
    pub beyond: Vec<u64>,
    /// Positions handed out more than once, with how often.
    pub attempts: Vec<(u64, u32)>,
}

/// Something to write. What is written together is committed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A message; positions come in order.
    Record(Box<Record>),
    /// A session's state; replaces the older one of the same origin.
    Session(KeptSession),
    /// The session of this origin is over.
    SessionEnded(String),
    /// A durable subscription's state; replaces the older one of the same namespace and name.
    Progress(Progress),
    /// This durable subscription (namespace, name) is no more.
    DurableEnded(String, String),
}

/// What a store knows when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last position written.
    pub position: u64,
    /// The epoch that begins: the one wished for, or a higher one if the clock was set back.
    pub epoch: u64,
    /// Epochs in order, each with the last position it wrote (0: none); the one that begins is the
    /// last of them.
    pub epochs: Vec<(u64, u64)>,
    /// Publishers' own ids seen inside the window for duplicates, oldest first: (namespace, id, when
    /// in milliseconds since the Unix epoch).
    pub ids: Vec<(String, String, u64)>,
    /// Sessions that may still be continued.
    pub sessions: Vec<KeptSession>,
    /// Every durable subscription.
    pub progress: Vec<Progress>,
}

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Behind a position.
    After(u64),
    /// At the first message accepted at or after a time, milliseconds since the Unix epoch.
    Time(u64),
    /// At the newest message of each topic.
    Last,
}

/// Asks for the next messages of the topics that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Whose topics.
    pub namespace: String,
    /// Which topics.
    pub pattern: Pattern,
    /// From where on.
    pub from: ReadFrom,
    /// At most so many messages.
    pub max_count: usize,
    /// Not many more payload bytes than that; at least one message if there is one.
    pub max_bytes: usize,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages, by position.
    pub records: Vec<Record>,
    /// Every matching message up to this position is in `records` or came before; what is committed
    /// lies behind it only if `more`. Never above the last committed position.
    pub through: u64,
    /// There is more to read behind `through`.
    pub more: bool,
    /// Matching messages behind the position asked for were removed by the rules' limits before they
    /// could be read.
    pub removed: bool,
}
