//! What travels: payloads, messages, and the rows that answer them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind},
    options::Cursor,
};

/// How a payload's bytes are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ContentType {
    /// A JSON value, UTF-8.
    #[default]
    Json = 0,
    /// UTF-8 text.
    Text = 1,
    /// Bytes as they are.
    Bytes = 2,
}

impl ContentType {
    /// From its number on the wire; `None` for one that this version does not know.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Json),
            1 => Some(Self::Text),
            2 => Some(Self::Bytes),
            _ => None,
        }
    }

    /// `"json"`, `"text"` or `"bytes"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Bytes => "bytes",
        }
    }
}

/// Encoded bytes together with how to read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload<B = Bytes> {
    /// How to read `bytes`.
    pub content_type: ContentType,
    /// The encoded value.
    pub bytes: B,
}

impl Payload {
    /// A payload that is already JSON text.
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Payload { content_type: ContentType::Json, bytes: bytes.into() }
    }
    /// UTF-8 text.
    pub fn text(text: impl Into<String>) -> Self {
        Payload { content_type: ContentType::Text, bytes: Bytes::from(text.into()) }
    }
    /// Bytes as they are.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Payload { content_type: ContentType::Bytes, bytes: bytes.into() }
    }
}

/// What a publisher may add to a message; absent on most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Name-value pairs, in the publisher's order. `traceparent` carries trace context.
    pub headers: Vec<(String, String)>,
    /// The publisher's own message id.
    pub id: Option<String>,
    /// How long the message is worth delivering.
    pub ttl: Option<Duration>,
    /// Who may have it: client ids, and `principal:NAME` for an authenticated principal; `None`:
    /// everybody. Subscribers are not told.
    pub to: Option<Vec<String>>,
    /// Never written to disk, neither by the broker nor by the publisher, and quoted nowhere.
    pub private: bool,
    /// What becomes of it where a party is offline.
    pub offline: Offline,
}

impl Extras {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.id.is_none() && self.ttl.is_none() && self.is_plain()
    }

    /// Whether any server does what it asks for: it is for everybody and without a policy.
    pub(crate) fn is_plain(&self) -> bool {
        self.to.is_none() && !self.has_policy()
    }

    /// Whether it is private, or has an offline policy other than the default.
    pub(crate) fn has_policy(&self) -> bool {
        self.private || self.offline != Offline::Keep
    }

    /// Whether a client with this id and this authenticated name may have the message.
    pub(crate) fn admits(&self, id: &str, principal: Option<&str>) -> bool {
        self.to.as_ref().is_none_or(|to| {
            to.iter().any(|entry| match entry.strip_prefix(PRINCIPAL) {
                Some(name) => principal == Some(name),
                None => entry == id,
            })
        })
    }

    /// About how many bytes it takes in memory.
    pub(crate) fn cost(&self) -> usize {
        let records = self.headers.len() * size_of::<(String, String)>();
        let audience = self.to.as_ref().map_or(0, |to| to.len() * size_of::<String>());
        size_of::<Extras>() + records + audience + self.text_bytes()
    }

    /// Bytes of the headers', the id's and the audience's text.
    pub(crate) fn text_bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        let audience = self.to.iter().flatten().map(String::len);
        headers.sum::<usize>() + self.id.as_ref().map_or(0, String::len) + audience.sum::<usize>()
    }
}

/// Why a publish that is to be retained has no recipients or offline policy of its own.
pub(crate) const RETAINED_IS_FOR_ALL: &str = "a retained message is for whoever comes later; leave out `to`, `private` and `offline`, or do not retain it";

/// Begins an entry of [`Extras::to`] that names a principal instead of a client.
pub const PRINCIPAL: &str = "principal:";

/// Entries of [`Extras::to`] at most.
pub const MAX_AUDIENCE: usize = 64;

/// What becomes of a message where a party is offline: a subscription whose client has no
/// connection, or the publisher itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Offline {
    /// It waits, as far as the subscription's bounds, or the outbox', allow.
    #[default]
    Keep = 0,
    /// It is for those who are there: a subscription misses it with a gap, a publisher refuses it.
    Drop = 1,
    /// Only the newest of its topic waits; older ones are missed with a gap.
    Latest = 2,
}

impl Offline {
    /// From its number on the wire; `None` for one that this version does not know.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Keep),
            1 => Some(Self::Drop),
            2 => Some(Self::Latest),
            _ => None,
        }
    }

    /// The policy as every language spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::Latest => "latest",
        }
    }

    /// From how every language spells it.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let known = (0..3).filter_map(Self::from_number).find(|known| known.as_str() == name);
        known.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("offline is {name:?}; it is \"keep\", \"drop\" or \"latest\""),
            )
        })
    }
}

/// Who published: the client's id (set by the broker) and the origin its message ids start with.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    /// The client's id.
    pub id: String,
    /// Random, chosen by the client for one session; makes `origin-number` a unique message id.
    pub origin: String,
}

/// A message as a subscriber receives it. Cloning shares the payload.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it was published.
    pub topic: Arc<str>,
    /// The payload.
    pub payload: Payload,
    /// Who published it.
    pub sender: Arc<Sender>,
    /// The publisher's number for it.
    pub number: u64,
    /// Consecutive within (topic, epoch).
    pub seq: u64,
    /// The broker's run that numbered it.
    pub epoch: u64,
    /// When the broker accepted it, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// Sent again after the broker lost the publisher's session: it may have been delivered before.
    pub maybe_duplicate: bool,
    /// Delivered because it was retained: it is the topic's last known value and was published before
    /// the subscription was made. False for what is delivered live.
    pub retained: bool,
    /// Headers, the publisher's own id, time to live. What [`Extras::to`], [`Extras::private`] and
    /// [`Extras::offline`] said is not told to subscribers.
    pub extras: Option<Box<Extras>>,
    /// The place behind it, if its topic has history: a subscription may start there.
    pub cursor: Option<Cursor>,
}

impl Message {
    /// The publisher's own id, else `origin-number`.
    pub fn id(&self) -> String {
        match self.extras.as_ref().and_then(|extras| extras.id.as_ref()) {
            Some(id) => id.clone(),
            None => format!("{}-{}", self.sender.origin, self.number),
        }
    }

    /// The headers, in the publisher's order.
    pub fn headers(&self) -> &[(String, String)] {
        self.extras.as_ref().map_or(&[], |extras| &extras.headers)
    }
}

/// How one recipient of an acknowledged message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RowStatus {
    /// The handler finished.
    Acked = 0,
    /// The handler raised, or answered with `fail`.
    Failed = 1,
    /// The client has no handler for the message.
    NoHandler = 2,
    /// The client's connection was lost before it answered.
    Disconnected = 3,
    /// Its queue's overflow policy dropped the message.
    Dropped = 4,
    /// No answer in time.
    Timeout = 5,
    /// The publisher cancelled.
    Cancelled = 6,
}

impl RowStatus {
    /// From its number on the wire; `None` for one that this version does not know.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Acked),
            1 => Some(Self::Failed),
            2 => Some(Self::NoHandler),
            3 => Some(Self::Disconnected),
            4 => Some(Self::Dropped),
            5 => Some(Self::Timeout),
            6 => Some(Self::Cancelled),
            _ => None,
        }
    }

    /// The status as every language spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Failed => "failed",
            Self::NoHandler => "no_handler",
            Self::Disconnected => "disconnected",
            Self::Dropped => "dropped",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// The error an unsuccessful row stands for.
    pub const fn error_kind(self) -> Option<ErrorKind> {
        match self {
            Self::Acked => None,
            Self::Failed => Some(ErrorKind::HandlerFailed),
            Self::NoHandler => Some(ErrorKind::NoResponders),
            Self::Disconnected => Some(ErrorKind::Disconnected),
            Self::Dropped => Some(ErrorKind::SlowConsumer),
            Self::Timeout => Some(ErrorKind::Timeout),
            Self::Cancelled => Some(ErrorKind::Cancelled),
        }
    }
}

/// A handler's error: its type's name and its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandlerError {
    /// e.g. `ValueError`.
    pub kind: String,
    /// What it says.
    pub text: String,
}

/// What a subscriber answers to a message that wants an ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The handler finished and returned this (`null` JSON for nothing).
    Acked(Payload),
    /// The handler raised.
    Failed(HandlerError),
    /// As `Failed`; a message of a durable is handed out again after this time, at most
    /// [`MAX_RETRY_DELAY`](crate::options::MAX_RETRY_DELAY), whatever it failed before.
    Retry(HandlerError, Duration),
    /// There is no handler.
    NoHandler,
}

/// One recipient's final line in an ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckRow {
    /// Whose line.
    pub client_id: Arc<str>,
    /// How it ended.
    pub status: RowStatus,
    /// Set when `status` is not `Acked`.
    pub error: Option<HandlerError>,
    /// What the handler returned.
    pub data: Option<Payload>,
    /// From acceptance by the broker to the broker's receipt of the answer.
    pub latency: Duration,
}

impl AckRow {
    /// Whether the recipient acked.
    pub fn success(&self) -> bool {
        self.status == RowStatus::Acked
    }

    /// The row as an error; `None` if it succeeded.
    pub fn to_error(&self) -> Option<Error> {
        let kind = self.status.error_kind()?;
        let message = match &self.error {
            Some(error) if error.kind.is_empty() => error.text.clone(),
            Some(error) => format!("{}: {}", error.kind, error.text),
            None => format!("{} did not answer: {}", self.client_id, self.status.as_str()),
        };
        Some(Error::new(kind, message))
    }
}

/// How far a published message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ReceiptLevel {
    /// In the outbox, in memory.
    Queued = 0,
    /// In the outbox file; fsync returned.
    QueuedOnDisk = 1,
    /// The broker has it and routed it.
    Accepted = 2,
    /// In the broker's history; fsync returned.
    Stored = 3,
    /// On a majority of the cluster.
    Replicated = 4,
}

impl ReceiptLevel {
    /// Every level, lowest first.
    pub(crate) const ALL: [ReceiptLevel; 5] =
        [Self::Queued, Self::QueuedOnDisk, Self::Accepted, Self::Stored, Self::Replicated];

    /// The level as every language spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::QueuedOnDisk => "queued_on_disk",
            Self::Accepted => "accepted",
            Self::Stored => "stored",
            Self::Replicated => "replicated",
        }
    }
}

/// Why messages are missing from a subscription's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum GapReason {
    /// The queue was full and its policy dropped.
    Overflow = 0,
    /// The subscription was closed because it took nothing for `stall_timeout`.
    SlowConsumer = 1,
    /// The broker does not know the session any more: `resume_window` passed.
    SessionExpired = 2,
    /// The broker was restarted: a new epoch.
    NewEpoch = 3,
    /// The history asked for was removed by its limits.
    HistoryExpired = 4,
    /// Time to live ran out in the queue.
    Expired = 5,
    /// A private message was published before: history has only its place.
    Private = 6,
    /// The message was not to wait for whoever is offline.
    Offline = 7,
}

impl GapReason {
    /// Every reason, by its number.
    pub const ALL: [GapReason; 8] = [
        Self::Overflow,
        Self::SlowConsumer,
        Self::SessionExpired,
        Self::NewEpoch,
        Self::HistoryExpired,
        Self::Expired,
        Self::Private,
        Self::Offline,
    ];

    /// From its number on the wire; unknown ones read as `Overflow`.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::SlowConsumer,
            2 => Self::SessionExpired,
            3 => Self::NewEpoch,
            4 => Self::HistoryExpired,
            5 => Self::Expired,
            6 => Self::Private,
            7 => Self::Offline,
            _ => Self::Overflow,
        }
    }

    /// The reason as every language spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::SlowConsumer => "slow_consumer",
            Self::SessionExpired => "session_expired",
            Self::NewEpoch => "new_epoch",
            Self::HistoryExpired => "history_expired",
            Self::Expired => "expired",
            Self::Private => "private",
            Self::Offline => "offline",
        }
    }
}

/// Messages missing from a subscription's stream, told in the stream itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The topic, or the subscription's pattern when several are concerned.
    pub topic: Arc<str>,
    /// How many are missing; `None` when nobody can know (the broker lost the session).
    pub count: Option<u64>,
    /// `seq` of the first one missing, where known.
    pub first: Option<u64>,
    /// `seq` of the last one missing, where known.
    pub last: Option<u64>,
    /// Why.
    pub reason: GapReason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_among_all() {
        for number in 0..=u8::MAX {
            assert!(GapReason::ALL.contains(&GapReason::from_number(number)), "{number}");
        }
        for (number, reason) in (0..).zip(GapReason::ALL) {
            assert_eq!((reason as u8, GapReason::from_number(number)), (number, reason));
        }
    }
}
