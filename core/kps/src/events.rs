//! One vocabulary of events: what a client's session tells, and what a server tells its host.

use std::{sync::Arc, time::Duration};

use kps_proto::{
    Error,
    message::{AckRow, Extras, Gap, Message, ReceiptLevel},
};

/// A client's number in this process, to tell the events of several clients in one mailbox apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub u32);

/// What a mailbox carries.
#[derive(Debug)]
pub struct Item {
    /// Whose event.
    pub client: ClientKey,
    /// What happened.
    pub event: Event,
}

/// The mailbox of one host loop.
pub type HostMailbox = crate::mailbox::Mailbox<Item>;

/// A shared [`HostMailbox`].
pub type MailboxRef = Arc<HostMailbox>;

/// Which mailbox an event goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target(pub u32);

/// The number a client gave a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubId(pub u32);

/// A client's connection as its user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientState {
    /// The first attempt is under way.
    Connecting,
    /// Connected and welcomed.
    Connected,
    /// Lost; trying again.
    Reconnecting,
    /// Over.
    Closed,
}

impl ClientState {
    /// The state as every language spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Closed => "closed",
        }
    }
}

/// Whether more may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Below the soft bound.
    Free,
    /// Above it: await receipts before publishing more.
    Soft,
    /// At the hard bound: `publish` fails with `outbox_full`.
    Hard,
}

/// What an acknowledged publish wants.
#[derive(Clone, Copy, Debug)]
pub struct AckRequest {
    /// How long rows are awaited.
    pub timeout: Duration,
    /// A request: the first success is enough.
    pub request: bool,
}

/// How to publish.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions<'a> {
    /// Headers, own id, time to live.
    pub extras: Option<&'a Extras>,
    /// Fail at once if this level cannot be reached.
    pub receipt: Option<ReceiptLevel>,
    /// Wait for rows.
    pub ack: Option<AckRequest>,
    /// Where this publish's events go.
    pub target: Target,
    /// Whether an [`Event::Receipt`] is wanted.
    pub watch: bool,
}

/// What happened at a client.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The connection's state changed.
    State {
        /// The new state.
        state: ClientState,
        /// Why, if there is a reason.
        error: Option<Error>,
    },
    /// The broker confirmed the subscription.
    Subscribed {
        /// Which.
        sub: SubId,
    },
    /// The broker refused it.
    SubscribeFailed {
        /// Which.
        sub: SubId,
        /// Why.
        error: Error,
    },
    /// It has ended; nothing more follows for it.
    Unsubscribed {
        /// Which.
        sub: SubId,
    },
    /// The broker closed it.
    SubscriptionClosed {
        /// Which.
        sub: SubId,
        /// Why.
        error: Error,
    },
    /// A message.
    Message {
        /// The subscription; 0: a direct message.
        sub: SubId,
        /// The message.
        message: Message,
        /// If set, an answer with this number is awaited.
        delivery: Option<u64>,
        /// A request.
        request: bool,
    },
    /// Messages are missing here.
    Gap {
        /// The subscription.
        sub: SubId,
        /// Which are missing.
        gap: Gap,
    },
    /// After a reconnect the subscription goes on without loss.
    Resumed {
        /// The subscription.
        sub: SubId,
        /// How many messages follow that were sent meanwhile.
        replayed: u64,
    },
    /// The publisher does not wait any more.
    CancelDelivery {
        /// The subscription.
        sub: SubId,
        /// The delivery.
        delivery: u64,
    },
    /// A watched publish reached a level.
    Receipt {
        /// The publish.
        number: u64,
        /// The level.
        level: ReceiptLevel,
    },
    /// A publish was refused.
    PublishFailed {
        /// The publish.
        number: u64,
        /// Why.
        error: Error,
    },
    /// There is room again below the soft bound.
    Room,
    /// The recipients of an acknowledged publish are known.
    Recipients {
        /// The publish.
        ack: u64,
        /// Their ids.
        clients: Vec<Arc<str>>,
    },
    /// A row is final.
    Row {
        /// The publish.
        ack: u64,
        /// The row.
        row: AckRow,
    },
    /// All rows are final.
    AckDone {
        /// The publish.
        ack: u64,
    },
    /// A request is answered, or cannot be any more.
    RequestDone {
        /// The publish.
        ack: u64,
        /// The first successful row, or why there is none.
        result: Result<AckRow, Error>,
    },
    /// What [`flush_event`](crate::Bridge::flush_event) asked for: everything published before it
    /// was accepted or refused.
    Flushed {
        /// The number that `flush_event` returned.
        token: u64,
    },
}
