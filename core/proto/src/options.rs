//! Settings, each with its default and where the number comes from.

use std::time::Duration;

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
        }
    }

    /// From how every language spells it.
    pub fn from_name(name: &str) -> Option<Self> {
        (0..5).filter_map(Self::from_number).find(|overflow| overflow.as_str() == name)
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
