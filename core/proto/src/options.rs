//! Settings, each with its default and where the number comes from.

use std::{fmt, sync::Arc, time::Duration};

use crate::error::{Error, ErrorKind, Result};

/// What happens to a message for a subscription whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Overflow {
    /// The publishers pause. The only policy that slows anybody else.
    #[default]
    Block = 0,
    /// The oldest waiting message is dropped.
    DropOldest = 1,
    /// The new message is dropped.
    DropNewest = 2,
    /// Only the newest message of each topic waits.
    Latest = 3,
    /// The subscription is closed.
    Disconnect = 4,
    /// What does not fit stays in history and is read when there is room; for topics with history. What
    /// is spilled has a row `dropped` in a publisher's ack.
    Spill = 5,
}

impl Overflow {
    /// From its number on the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Block),
            1 => Some(Self::DropOldest),
            2 => Some(Self::DropNewest),
            3 => Some(Self::Latest),
            4 => Some(Self::Disconnect),
            5 => Some(Self::Spill),
            _ => None,
        }
    }

    /// The policy as every language spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
            Self::Latest => "latest",
            Self::Disconnect => "disconnect",
            Self::Spill => "spill",
        }
    }

    /// From how every language spells it.
    pub fn from_name(name: &str) -> Option<Self> {
        (0..6).filter_map(Self::from_number).find(|overflow| overflow.as_str() == name)
    }
}

/// How a subscription receives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Members of a group share the messages: each goes to one of them.
    pub group: Option<String>,
    /// What a full queue does.
    pub overflow: Overflow,
    /// Messages the queue holds, in the broker and on the way; `None`: bounded by bytes alone
    /// ([`Limits::queue_bytes`]).
    pub capacity: Option<u32>,
    /// Where to begin; a durable that exists already goes on where it was.
    pub start: StartAt,
    /// The name under which the broker keeps its progress: at least once, over reconnects and
    /// restarts, for as many clients as take part.
    pub durable: Option<String>,
    /// Of a durable.
    pub redelivery: Redelivery,
}

/// Where a subscription begins. All but [`StartAt::New`] and [`StartAt::Last`] need history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// With what is published from now on.
    #[default]
    New,
    /// With each topic's retained message, or its newest one in history if that is newer.
    Last,
    /// With all history.
    All,
    /// Behind the message that had this cursor.
    Cursor(Cursor),
    /// With what was accepted from then on, milliseconds since the Unix epoch.
    Time(u64),
}

impl StartAt {
    /// From how every language spells it: `new`, `last`, `all`, or a cursor's text.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else.
    pub fn parse(text: &str) -> Result<StartAt> {
        match text {
            "new" => Ok(StartAt::New),
            "last" => Ok(StartAt::Last),
            "all" => Ok(StartAt::All),
            _ if text.starts_with('@') => Cursor::parse(text).map(StartAt::Cursor),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "start is {text:?}; it is \"new\", \"last\", \"all\", a message's cursor, or a time"
                ),
            )),
        }
    }
}

/// A place in a stream to come back to, as a broker gave it. Its text is `@` and hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor(Arc<[u8]>);

impl Cursor {
    /// Bytes of the longest one.
    pub const MAX_LENGTH: usize = 64;

    /// From a broker's bytes; `None` if they are too many.
    pub fn new(bytes: &[u8]) -> Option<Cursor> {
        (bytes.len() <= Cursor::MAX_LENGTH).then(|| Cursor(bytes.into()))
    }

    /// The broker's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From its text.
    ///
    /// # Errors
    /// `InvalidArgument` if `text` is none.
    pub fn parse(text: &str) -> Result<Cursor> {
        let digits = text.strip_prefix('@').filter(|digits| digits.len().is_multiple_of(2));
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> =
            digits.and_then(|digits| digits.as_bytes().chunks(2).map(byte).collect());
        bytes.as_deref().and_then(Cursor::new).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{text:?} is no cursor; one is what a message with history has in `cursor`"
                ),
            )
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(1 + 2 * self.0.len());
        text.push('@');
        for byte in &*self.0 {
            let halves = [byte >> 4, byte & 15];
            text.extend(halves.map(|half| char::from(DIGITS[usize::from(half)])));
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a durable subscription's messages that are not acked are handed out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redelivery {
    /// A client that has messages of the subscription and answers none for so long loses them: they
    /// are handed out again.
    pub ack_wait: Duration,
    /// How long a message waits after its handler failed; twice as long after each further failure,
    /// up to 64 times.
    pub retry_delay: Duration,
    /// Handed out so often without an ack, a message goes to the dead-letter topic; 0: never.
    pub max_attempts: u32,
}

impl Default for Redelivery {
    fn default() -> Self {
        Redelivery {
            ack_wait: Duration::from_secs(30),
            retry_delay: Duration::from_secs(1),
            max_attempts: 5,
        }
    }
}

/// Bounds that a broker enforces; the client learns its share in `WELCOME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one payload. 1 MiB: kps' design.
    pub payload: usize,
    /// Bytes of a topic or pattern.
    pub topic: usize,
    /// Bytes of a client id or group name.
    pub id: usize,
    /// Bytes of all headers of one message.
    pub headers: usize,
    /// Subscriptions of one client.
    pub subscriptions: usize,
    /// Numbered topic names of one connection, each way.
    pub aliases: usize,
    /// Unfinished acks of one client.
    pub acks: usize,
    /// Bytes one subscription's queue holds. 32 MiB: kps' design.
    pub queue_bytes: usize,
    /// Topics with a retained message, of all namespaces.
    pub retained: usize,
    /// Bytes of all retained messages, with their records and topics' names.
    pub retained_bytes: usize,
    /// Bytes all queues together hold.
    pub server_bytes: usize,
    /// Messages a client may have sent beyond the last accepted one.
    pub publish_window: u64,
    /// Bytes a client may have sent beyond the last accepted message.
    pub publish_window_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            payload: 1 << 20,
            topic: 1024,
            id: 256,
            headers: 64 << 10,
            subscriptions: 10_000,
            aliases: 4096,
            acks: 1 << 20,
            queue_bytes: 32 << 20,
            retained: 1 << 16,
            retained_bytes: 64 << 20,
            server_bytes: 1 << 30,
            publish_window: 1 << 16,
            publish_window_bytes: 8 << 20,
        }
    }
}

/// Times that shape a connection's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between pings on a quiet connection. 8 s: kps' design.
    pub heartbeat: Duration,
    /// A connection this long silent is dead. 20 s: kps' design.
    pub silence: Duration,
    /// How long the broker keeps a lost connection's session. 30 s: kps' design.
    pub resume_window: Duration,
    /// A `block` subscription that takes nothing for so long is closed. 10 s: kps' design.
    pub stall_timeout: Duration,
    /// A publish waiting for its own publisher's full subscription is refused after so long
    /// without progress.
    pub self_stall_timeout: Duration,
    /// The timeout of acks that carry none (KPS JSON). 30 s: kps' design.
    pub ack_timeout: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            heartbeat: Duration::from_secs(8),
            silence: Duration::from_secs(20),
            resume_window: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(10),
            self_stall_timeout: Duration::from_secs(1),
            ack_timeout: Duration::from_secs(30),
        }
    }
}

/// The longest delay that a failed message of a durable may ask for: a day.
pub const MAX_RETRY_DELAY: Duration = Duration::from_secs(86_400);

/// What a publish does when the outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboxOverflow {
    /// It fails with `outbox_full`, and nothing is queued.
    #[default]
    Refuse,
    /// The oldest messages that are not on their way make room for it: each fails with `outbox_full`,
    /// and is named. It fails itself only if there are none.
    DropOldest,
}

impl OutboxOverflow {
    /// The one of this name: `refuse` or `drop_oldest`.
    pub fn from_name(name: &str) -> Option<OutboxOverflow> {
        match name {
            "refuse" => Some(OutboxOverflow::Refuse),
            "drop_oldest" => Some(OutboxOverflow::DropOldest),
            _ => None,
        }
    }
}
