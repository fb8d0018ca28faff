//! The frames of kps.v1 as values, borrowed from the bytes they were read from.
//!
//! `PROTOCOL.md` beside this file says how each is written; the names of its fields are these.

use crate::{
    error::ErrorKind,
    message::{ContentType, GapReason, Offline, RowStatus},
    options::{Overflow, Redelivery},
};

/// In `CREDIT` and `HELLO.received`: the stream of reports (`RECIPIENTS`, `ROW` and
/// `ERROR` about a publish) instead of a subscription's.
pub const REPORTS: u32 = u32::MAX;

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame<'a> {
    /// Client → server, first: who I am, what I speak, what I resume.
    Hello(Hello<'a>),
    /// Server → client, first: what we speak, your id, your session, the limits.
    Welcome(Welcome<'a>),
    /// Client → server: a renewed token.
    Auth {
        /// The token.
        token: &'a str,
    },
    /// Client → server: a subscription.
    Subscribe(Subscribe<'a>),
    /// Server → client: the subscription is in force.
    Subscribed {
        /// The client's number for it.
        sub: u32,
        /// Where its stream begins, to come back to; empty: there is no history of it.
        cursor: &'a [u8],
    },
    /// Client → server: end it.
    Unsubscribe {
        /// The client's number for it.
        sub: u32,
    },
    /// Server → client: it has ended; no `MSG` for it follows.
    Unsubscribed {
        /// The client's number for it.
        sub: u32,
    },
    /// Client → server: a message.
    Publish(Publish<'a>),
    /// Server → client: a message.
    Message(MessageFrame<'a>),
    /// Client → server: the first `consumed` frames of this stream are done with.
    Credit {
        /// The client's number for the subscription, or [`REPORTS`].
        sub: u32,
        /// Cumulative count of `MSG`, `GAP` and closing `ERROR` (or of reports), from the
        /// stream's start in this session.
        consumed: u64,
    },
    /// Server → client: cumulative confirmation of `PUB`s and `ANSWER`s.
    Accepted {
        /// Every publish up to this number is accepted (or was refused by an `ERROR`).
        published: u64,
        /// Every answer up to this number is taken.
        answered: u64,
    },
    /// Server → client: every publish up to this number whose topic has history is stored.
    Stored {
        /// The publish number.
        published: u64,
    },
    /// Server → client: who the recipients of an acknowledged publish are, frozen.
    Recipients {
        /// The publish number.
        number: u64,
        /// The recipients' ids; rows refer to them by position.
        clients: Vec<&'a str>,
    },
    /// Server → client: one recipient's row, final when `more` is false.
    Row(Row<'a>),
    /// Client → server: the answer to a delivery that wants one.
    Answer(AnswerFrame<'a>),
    /// Client → server: stop waiting for the ack of publish `number`.
    /// Server → client: stop handling the delivery `number`.
    Cancel {
        /// Publish number, or delivery number.
        number: u64,
    },
    /// Server → client: messages are missing here.
    Gap(GapFrame<'a>),
    /// Server → client, after a resume: the subscription goes on where it stopped.
    Resumed {
        /// The client's number for the subscription.
        sub: u32,
        /// Messages that waited or were in flight and follow now.
        replayed: u64,
    },
    /// Either way: answer with a `PONG` of the same nonce.
    Ping {
        /// Any number.
        nonce: u64,
    },
    /// Either way.
    Pong {
        /// The ping's.
        nonce: u64,
    },
    /// Something was refused, or (fatal) the connection ends.
    Error(ErrorFrame<'a>),
    /// The sender will close: finish and reconnect after the delay.
    Goaway {
        /// Milliseconds to wait before reconnecting.
        delay_ms: u64,
        /// For people.
        reason: &'a str,
    },
    /// From now on, in this direction and connection, `number` stands for `name`
    /// (a topic, or server → client also a sender as `origin/id`).
    Alias {
        /// Below [`crate::options::Limits::aliases`].
        number: u32,
        /// What it stands for.
        name: &'a str,
    },
    /// The number stands for nothing any more.
    Unalias {
        /// The number.
        number: u32,
    },
}

/// `HELLO`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hello<'a> {
    /// Lowest and highest protocol version spoken. Today both 1.
    pub versions: (u32, u32),
    /// Bits of [`features`].
    pub features: u64,
    /// The id wanted; empty: the server makes one.
    pub client_id: &'a str,
    /// See [`crate::message::Sender::origin`].
    pub origin: &'a str,
    /// The namespace wanted; empty: the principal's own.
    pub namespace: &'a str,
    /// Empty: none.
    pub token: &'a str,
    /// Name and version of the program, for people.
    pub agent: &'a str,
    /// The secret from an earlier `WELCOME`; empty: a new session.
    pub session: &'a [u8],
    /// For each confirmed subscription of the resumed session, and for [`REPORTS`]: how many
    /// frames of its stream were received, counted as in `CREDIT`.
    pub received: Vec<(u32, u64)>,
}

/// Feature bits of `HELLO` and `WELCOME`; both sides use what both set.
pub mod features {
    /// Payloads may be compressed (flag `COMPRESSED`). Not offered by this version.
    pub const COMPRESSION: u64 = 1;
    /// Rows may stream (`ROW.more`).
    pub const STREAMED_ROWS: u64 = 1 << 1;
    /// `STORED` and cursors.
    pub const HISTORY: u64 = 1 << 2;
    /// Extensions `to` and `policy`: messages for some, private ones, and offline policies.
    pub const POLICIES: u64 = 1 << 3;
    /// Retained messages.
    pub const RETAINED: u64 = 1 << 4;
    /// One settled `PUB` may take many numbers.
    pub const SKIPS: u64 = 1 << 5;
}

/// `WELCOME`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Welcome<'a> {
    /// The version both speak.
    pub version: u32,
    /// Bits of [`features`].
    pub features: u64,
    /// The client's id from now on.
    pub client_id: &'a str,
    /// Secret: whoever shows it in `HELLO` continues this session.
    pub session: &'a [u8],
    /// Whether the session shown in `HELLO` goes on. If not, nothing of it is known.
    pub resumed: bool,
    /// The broker's run; below 2^53.
    pub epoch: u64,
    /// Zero of `MSG.time`, milliseconds since the Unix epoch; also the server's clock for `doctor`.
    pub time_base_ms: u64,
    /// Between pings on a quiet connection.
    pub heartbeat_ms: u64,
    /// How long the session is kept after the connection is lost.
    pub resume_window_ms: u64,
    /// The last publish number the broker has.
    pub published: u64,
    /// The last answer number the broker has.
    pub answered: u64,
    /// Largest payload, in bytes.
    pub max_payload: u64,
    /// Publishes that may be under way beyond the last accepted one.
    pub publish_window: u64,
    /// Bytes of payload that may be under way beyond the last accepted one.
    pub publish_window_bytes: u64,
    /// Alias numbers are below this, each way.
    pub aliases: u32,
    /// Name and version of the server, for people.
    pub server: &'a str,
    /// With [`features::HISTORY`]: what is kept.
    pub history: HistoryFrame<'a>,
}

/// What a server keeps, as `WELCOME` tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryFrame<'a> {
    /// It survives the server's end: publishes reach the receipt `stored`.
    pub on_disk: bool,
    /// Topics that match one of these patterns have history.
    pub patterns: Vec<&'a str>,
}

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Start<'a> {
    /// With what is published from now on.
    #[default]
    New,
    /// With the last message of each topic, retained or in history.
    Last,
    /// With all history.
    All,
    /// After this opaque cursor.
    Cursor(&'a [u8]),
    /// With messages accepted at or after this time, milliseconds since the Unix epoch.
    Time(u64),
}

/// `SUB`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscribe<'a> {
    /// The client's number for it, not 0 and not in use.
    pub sub: u32,
    /// Topic or pattern.
    pub pattern: &'a str,
    /// Empty: none.
    pub group: &'a str,
    /// Empty: none.
    pub durable: &'a str,
    /// What a full queue does.
    pub overflow: Overflow,
    /// Messages the queue holds; 0: bounded by bytes alone.
    pub capacity: u32,
    /// Messages that may be sent beyond the last consumed one.
    pub window: u32,
    /// Bytes of payload that may be sent beyond the last consumed one.
    pub window_bytes: u64,
    /// A subscription of a lost session made again: the broker says `GAP` after `SUBSCRIBED`.
    pub again: bool,
    /// With `again`: the broker's run in which its stream last began; `None`: not told.
    pub epoch: Option<u64>,
    /// With `again` and a cursor: it began with [`Start::Last`], so behind the `GAP` come the retained
    /// messages of topics without history.
    pub retained: bool,
    /// Where to start.
    pub start: Start<'a>,
    /// With `durable`: how messages that are not acked are handed out again.
    pub redelivery: Redelivery,
}

/// A name, or the number an `ALIAS` gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// The number.
    Alias(u32),
    /// The name.
    Inline(&'a str),
}

/// Where a `PUB` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// To the subscribers of a topic.
    Topic(Name<'a>),
    /// To the client with this id.
    Client(&'a str),
    /// To another server, by address.
    Server(&'a str),
}

/// Skippable fields of `PUB` and `MSG`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extensions<'a> {
    /// Name-value pairs.
    pub headers: Vec<(&'a str, &'a str)>,
    /// The publisher's own id.
    pub id: Option<&'a str>,
    /// `PUB`: time to live. `MSG`: what is left of it; of a request, what is left of its timeout.
    pub ttl_ms: Option<u64>,
    /// `PUB` with `ack`: how long rows are awaited.
    pub ack_timeout_ms: Option<u64>,
    /// `PUB`: a lost session dealt with it, or it was given up; it only takes its number, or with
    /// [`features::SKIPS`] so many from its number on. 0: not settled.
    pub settled: u64,
    /// `PUB`: the topic's retained message from now on; with an empty payload it has none any more. `MSG`:
    /// delivered because it was retained.
    pub retained: bool,
    /// `MSG` of a topic with history: the place behind it, opaque.
    pub cursor: Option<&'a [u8]>,
    /// `MSG` from history, accepted by an earlier run of the broker.
    pub earlier: Option<Earlier>,
    /// `PUB`, with [`features::POLICIES`]: who may have it; `None`: everybody.
    pub to: Option<Vec<&'a str>>,
    /// `PUB`, with [`features::POLICIES`]: not to be written to disk, nor quoted.
    pub private: bool,
    /// `PUB`, with [`features::POLICIES`]: what becomes of it where a party is offline.
    pub offline: Offline,
}

/// When a message was accepted, if the broker was started again since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The run that accepted it.
    pub epoch: u64,
    /// When, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl Extensions<'_> {
    /// Whether the block can be left out.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
            && self.id.is_none()
            && self.ttl_ms.is_none()
            && self.ack_timeout_ms.is_none()
            && self.settled == 0
            && !self.retained
            && self.cursor.is_none()
            && self.earlier.is_none()
            && !self.needs_policies()
    }

    /// Whether only a server with [`features::POLICIES`] does what it asks for.
    pub fn needs_policies(&self) -> bool {
        self.to.is_some() || self.private || self.offline != Offline::Keep
    }
}

/// `PUB`.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish<'a> {
    /// The session's next number, from 1. The broker ignores repeats.
    pub number: u64,
    /// Where to.
    pub to: Destination<'a>,
    /// Rows are wanted.
    pub ack: bool,
    /// With `ack`: a request, which expires with its timeout instead of being handed over late.
    pub request: bool,
    /// The publisher waits for `ACCEPTED`: do not hold it back.
    pub prompt: bool,
    /// Sent again after a lost session.
    pub maybe_duplicate: bool,
    /// How to read the payload.
    pub content_type: ContentType,
    /// Boxed: most messages have none.
    pub extensions: Option<Box<Extensions<'a>>>,
    /// The payload.
    pub payload: &'a [u8],
}

/// `MSG`.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageFrame<'a> {
    /// The client's number for the subscription; 0: a direct message.
    pub sub: u32,
    /// The topic; `kps.id.<client id>` for a direct message.
    pub topic: Name<'a>,
    /// `origin/id` of the publisher.
    pub sender: Name<'a>,
    /// Consecutive within (topic, epoch).
    pub seq: u64,
    /// The publisher's number; with the origin the message's id.
    pub number: u64,
    /// Milliseconds after `WELCOME.time_base_ms`.
    pub time: u64,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// If set, an `ANSWER` with this number is awaited.
    pub delivery: Option<u64>,
    /// A request.
    pub request: bool,
    /// Sent again after a lost session.
    pub maybe_duplicate: bool,
    /// How to read the payload.
    pub content_type: ContentType,
    /// Boxed: most messages have none.
    pub extensions: Option<Box<Extensions<'a>>>,
    /// The payload.
    pub payload: &'a [u8],
}

/// `ROW`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'a> {
    /// The publish number.
    pub number: u64,
    /// Position in `RECIPIENTS`.
    pub recipient: u32,
    /// More of this row follows (streamed answers).
    pub more: bool,
    /// How it ended.
    pub status: RowStatus,
    /// Microseconds from acceptance to the answer.
    pub latency_us: u64,
    /// Type and text, when not acked.
    pub error: Option<(&'a str, &'a str)>,
    /// What the handler returned.
    pub data: Option<(ContentType, &'a [u8])>,
}

/// `ANSWER`.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerFrame<'a> {
    /// The session's next answer number, from 1. The broker ignores repeats.
    pub number: u64,
    /// From `MSG`.
    pub delivery: u64,
    /// More of this answer follows (streamed answers).
    pub more: bool,
    /// `Acked`, `Failed` or `NoHandler`.
    pub status: RowStatus,
    /// Type and text, when failed.
    pub error: Option<(&'a str, &'a str)>,
    /// What the handler returned.
    pub data: Option<(ContentType, &'a [u8])>,
    /// Failed: when to hand a durable's message out again, in milliseconds.
    pub retry_delay_ms: Option<u64>,
}

/// `GAP`.
#[derive(Clone, Debug, PartialEq)]
pub struct GapFrame<'a> {
    /// The client's number for the subscription.
    pub sub: u32,
    /// A topic, or the subscription's pattern.
    pub topic: &'a str,
    /// How many; `None`: nobody can know.
    pub count: Option<u64>,
    /// `seq` of the first and last one missing.
    pub range: Option<(u64, u64)>,
    /// Why.
    pub reason: GapReason,
}

/// What an `ERROR` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The connection.
    Connection,
    /// The subscription with this number. It is (or stays) closed.
    Subscription(u32),
    /// The publish with this number. It was not accepted and will not be.
    Publish(u64),
    /// The delivery with this number.
    Delivery(u64),
}

/// `ERROR`.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorFrame<'a> {
    /// Stands for the code.
    pub kind: ErrorKind,
    /// What it is about.
    pub reference: Reference,
    /// The sender closes the connection after this frame.
    pub fatal: bool,
    /// What happened and what to do.
    pub message: &'a str,
}
