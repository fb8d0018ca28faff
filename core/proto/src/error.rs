//! One error type for every room: a stable kind, what happened, and what to do.

use std::{borrow::Cow, fmt};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $code:literal;)*) => {
        /// What went wrong, as programs match on it. Its [`code`](ErrorKind::code) is the same in
        /// every language, its [`number`](ErrorKind::number) travels in `ERROR` frames.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// Every kind, for tables and tests.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$name,)*];

            /// The stable code, e.g. `payload_too_large`.
            pub const fn code(self) -> &'static str {
                match self { $(ErrorKind::$name => $code,)* }
            }

            /// The number that stands for the code in kps.v1.
            pub const fn number(self) -> u16 {
                match self { $(ErrorKind::$name => $number,)* }
            }

            /// The kind a peer's number stands for; one from a newer peer becomes `Internal`.
            pub fn from_number(number: u16) -> ErrorKind {
                match number { $($number => ErrorKind::$name,)* _ => ErrorKind::Internal }
            }
        }
    };
}

kinds! {
    /// Something inside kps failed that should not have.
    Internal = 0, "internal";
    /// No answer within the time given.
    Timeout = 1, "timeout";
    /// The operation needs a connection and there is none.
    NotConnected = 2, "not_connected";
    /// The client, subscription or server was closed.
    Closed = 3, "closed";
    /// The server could not be reached.
    ConnectFailed = 4, "connect_failed";
    /// The principal may not do this, or the token is wrong.
    Unauthorized = 5, "unauthorized";
    /// The payload is over the server's limit.
    PayloadTooLarge = 6, "payload_too_large";
    /// The topic is empty, over-long, reserved, or a pattern where a name is needed.
    InvalidTopic = 7, "invalid_topic";
    /// An argument has the wrong value.
    InvalidArgument = 8, "invalid_argument";
    /// The payload cannot be encoded or decoded.
    InvalidPayload = 9, "invalid_payload";
    /// The outbox is at its hard bound; nothing was queued.
    OutboxFull = 10, "outbox_full";
    /// The client id belongs to a live client.
    IdInUse = 11, "id_in_use";
    /// Another connection took over this client's id.
    Replaced = 12, "replaced";
    /// The topic cannot reach this receipt level.
    ReceiptUnavailable = 13, "receipt_unavailable";
    /// Nobody subscribes to the request's topic.
    NoResponders = 14, "no_responders";
    /// The subscription did not take its messages in time and was closed.
    SlowConsumer = 15, "slow_consumer";
    /// The publisher's own subscription is full and does not move: waiting would never end.
    WouldDeadlock = 16, "would_deadlock";
    /// A limit of the server was reached.
    LimitExceeded = 17, "limit_exceeded";
    /// Bytes from the peer are not the protocol.
    Protocol = 18, "protocol";
    /// The peer speaks no common protocol version or lacks a feature.
    Unsupported = 19, "unsupported";
    /// The operation was cancelled.
    Cancelled = 20, "cancelled";
    /// The handler that answered failed.
    HandlerFailed = 21, "handler_failed";
    /// The recipient disconnected before it answered.
    Disconnected = 22, "disconnected";
    /// No such ack, subscription or client.
    NotFound = 23, "not_found";
    /// An action before the handshake.
    NotRegistered = 24, "not_registered";
    /// The action or frame is unknown.
    UnknownAction = 25, "unknown_action";
    /// The `Origin` or `Host` is not allowed.
    ForbiddenOrigin = 26, "forbidden_origin";
    /// The address may not be reached from this server.
    ForbiddenAddress = 27, "forbidden_address";
    /// The listening address cannot be used.
    BindFailed = 28, "bind_failed";
    /// The session is unknown to this server: it expired or the server restarted.
    SessionLost = 29, "session_lost";
    /// The store cannot write or read: full disk, no permission, in use by another process.
    StoreFailed = 30, "store_failed";
    /// The store's file is damaged: what it says cannot be trusted.
    StoreCorrupt = 31, "store_corrupt";
    /// Nobody offers the capability.
    UnknownCapability = 32, "unknown_capability";
    /// The capability has no such operation.
    UnknownOperation = 33, "unknown_operation";
    /// Who should do it is not there or went away; trying again may help.
    Unavailable = 34, "unavailable";
    /// The state is not the one that was asked for: another ETag, a name that is taken.
    Conflict = 35, "conflict";
    /// A value, key or number is over its limit.
    TooLarge = 36, "too_large";
    /// There is no more room of what was granted.
    QuotaExceeded = 37, "quota_exceeded";
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An [`ErrorKind`] with a sentence that says what happened and what to do.
///
/// One pointer wide: results travel in registers, and only failures pay.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Told>);

#[derive(Clone, PartialEq, Eq)]
struct Told {
    kind: ErrorKind,
    message: Cow<'static, str>,
}

impl Error {
    /// An error of `kind`; `message` is for people.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Told { kind, message: message.into() }))
    }

    /// What programs match on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Shorthand for `kind().code()`.
    pub fn code(&self) -> &'static str {
        self.kind().code()
    }

    /// The sentence alone, without the code.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The error of a private message: without the names that its sentence may quote.
    pub(crate) fn without_quotes(self) -> Self {
        match self.kind() {
            kind @ (ErrorKind::InvalidTopic | ErrorKind::Unauthorized | ErrorKind::NotFound) => {
                let sentence = "a private message was refused; it is not quoted, so look at where it \
                                was published, and to whom";
                Error::new(kind, sentence)
            }
            _ => self,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { kind, message } = &*self.0;
        f.debug_struct("Error").field("kind", kind).field("message", message).finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind(), self.message())
    }
}

impl std::error::Error for Error {}
