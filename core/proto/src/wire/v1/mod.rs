//! kps.v1: frames as bytes. `PROTOCOL.md` one floor up is its specification.
//!
//! Encoding cannot fail and what it writes can always be read; decoding trusts nothing, borrows
//! everything, and allocates only for lists and extensions, never more than the bytes at hand
//! allow.

mod decode;
mod encode;
mod reader;
mod sink;

pub use decode::Frames;
pub use encode::{encode, encode_message_head, encode_publish};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "kps.v1";

/// The version that `HELLO` and `WELCOME` agree on.
pub const VERSION: u32 = 1;

/// The first byte of each frame.
mod types {
    pub(super) const HELLO: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const AUTH: u8 = 3;
    pub(super) const SUB: u8 = 4;
    pub(super) const SUBSCRIBED: u8 = 5;
    pub(super) const UNSUB: u8 = 6;
    pub(super) const UNSUBSCRIBED: u8 = 7;
    pub(super) const PUB: u8 = 8;
    pub(super) const MSG: u8 = 9;
    pub(super) const CREDIT: u8 = 10;
    pub(super) const ACCEPTED: u8 = 11;
    pub(super) const STORED: u8 = 12;
    pub(super) const RECIPIENTS: u8 = 13;
    pub(super) const ROW: u8 = 14;
    pub(super) const ANSWER: u8 = 15;
    pub(super) const CANCEL: u8 = 16;
    pub(super) const GAP: u8 = 17;
    pub(super) const RESUMED: u8 = 18;
    pub(super) const PING: u8 = 19;
    pub(super) const PONG: u8 = 20;
    pub(super) const ERROR: u8 = 21;
    pub(super) const GOAWAY: u8 = 22;
    pub(super) const ALIAS: u8 = 23;
    pub(super) const UNALIAS: u8 = 24;

    const NAMES: [&str; 24] = [
        "HELLO",
        "WELCOME",
        "AUTH",
        "SUB",
        "SUBSCRIBED",
        "UNSUB",
        "UNSUBSCRIBED",
        "PUB",
        "MSG",
        "CREDIT",
        "ACCEPTED",
        "STORED",
        "RECIPIENTS",
        "ROW",
        "ANSWER",
        "CANCEL",
        "GAP",
        "RESUMED",
        "PING",
        "PONG",
        "ERROR",
        "GOAWAY",
        "ALIAS",
        "UNALIAS",
    ];

    /// What error sentences call a frame.
    pub(super) fn name(number: u8) -> &'static str {
        NAMES.get(usize::from(number).wrapping_sub(1)).copied().unwrap_or("unknown")
    }
}

/// Flags of `PUB`.
mod publish {
    pub(super) const ACK: u8 = 1;
    pub(super) const REQUEST: u8 = 1 << 1;
    pub(super) const MAYBE_DUPLICATE: u8 = 1 << 2;
    pub(super) const COMPRESSED: u8 = 1 << 3;
    pub(super) const EXTENSIONS: u8 = 1 << 4;
    pub(super) const PROMPT: u8 = 1 << 5;
    pub(super) const TO_SHIFT: u32 = 6;
    pub(super) const TO_ALIAS: u8 = 0;
    pub(super) const TO_TOPIC: u8 = 1;
    pub(super) const TO_CLIENT: u8 = 2;
    pub(super) const TO_SERVER: u8 = 3;
}

/// Flags of `MSG`.
mod message {
    pub(super) const DELIVERY: u8 = 1;
    pub(super) const ATTEMPT: u8 = 1 << 1;
    pub(super) const MAYBE_DUPLICATE: u8 = 1 << 2;
    pub(super) const COMPRESSED: u8 = 1 << 3;
    pub(super) const EXTENSIONS: u8 = 1 << 4;
    pub(super) const TOPIC_INLINE: u8 = 1 << 5;
    pub(super) const SENDER_INLINE: u8 = 1 << 6;
    pub(super) const REQUEST: u8 = 1 << 7;
}

/// Keys of the extensions of `PUB` and `MSG`.
mod extension {
    pub(super) const HEADER: u64 = 1;
    pub(super) const ID: u64 = 2;
    pub(super) const TTL_MS: u64 = 3;
    pub(super) const ACK_TIMEOUT_MS: u64 = 4;
    pub(super) const CURSOR: u64 = 5;
    pub(super) const EARLIER: u64 = 6;
    pub(super) const SETTLED: u64 = 7;
    pub(super) const TO: u64 = 8;
    pub(super) const POLICY: u64 = 9;
    pub(super) const RETAINED: u64 = 10;
}

/// The value of the extension `policy`.
mod policy {
    pub(super) const PRIVATE: u64 = 1;
    pub(super) const OFFLINE_SHIFT: u32 = 1;
    pub(super) const OFFLINE_MASK: u64 = 0b11;
}

/// Flags of `WELCOME` and of what it says about history.
mod welcome {
    pub(super) const RESUMED: u8 = 1;
    pub(super) const ON_DISK: u8 = 1;
}

/// Flags of `SUB` and numbers of its start.
mod subscribe {
    pub(super) const AGAIN: u8 = 1;
    pub(super) const RETAINED: u8 = 1 << 1;
    pub(super) const EPOCH: u8 = 1 << 2;
    pub(super) const START_NEW: u8 = 0;
    pub(super) const START_LAST: u8 = 1;
    pub(super) const START_ALL: u8 = 2;
    pub(super) const START_CURSOR: u8 = 3;
    pub(super) const START_TIME: u8 = 4;
}

/// Flags of `ROW` and `ANSWER`; the last one is `ANSWER`'s.
mod outcome {
    pub(super) const MORE: u8 = 1;
    pub(super) const ERROR: u8 = 1 << 1;
    pub(super) const DATA: u8 = 1 << 2;
    pub(super) const RETRY_DELAY: u8 = 1 << 3;
}

/// Flags of `GAP`.
mod gap {
    pub(super) const COUNT: u8 = 1;
    pub(super) const RANGE: u8 = 1 << 1;
}

/// Flags of `ERROR` and numbers of its reference.
mod error {
    pub(super) const FATAL: u8 = 1;
    pub(super) const CONNECTION: u8 = 0;
    pub(super) const SUBSCRIPTION: u8 = 1;
    pub(super) const PUBLISH: u8 = 2;
    pub(super) const DELIVERY: u8 = 3;
}
