//! What a session tells its host.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    message::{AckRow, Gap, Message, ReceiptLevel},
};

/// Events in the order they happened, each with the mailbox it is for.
pub type Events = Vec<(Target, Event)>;

/// Which of the host's mailboxes an event is for. Chosen by the host, carried back by the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target(pub u32);

/// A subscription's number. [`SubId::DIRECT`] is the implicit one for messages to this client's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubId(pub u32);

impl SubId {
    /// Messages published to this client's id.
    pub const DIRECT: SubId = SubId(0);
}

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not connected yet.
    Connecting,
    /// The handshake is done.
    Connected,
    /// The connection was lost and is being made again.
    Reconnecting,
    /// Over, for good.
    Closed,
}

impl State {
    /// The state as every language spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::Connected => "connected",
            State::Reconnecting => "reconnecting",
            State::Closed => "closed",
        }
    }
}

/// How full the outbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Below the soft bound.
    Free,
    /// Above the soft bound: wait for [`Event::Room`].
    Soft,
    /// At the hard bound: `publish` fails.
    Hard,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The connection's state changed.
    State {
        /// To this.
        state: State,
        /// Why, unless all is well.
        error: Option<Error>,
        /// With `Connected`: the server still knew the session.
        resumed: bool,
    },
    /// The server confirmed the subscription for the first time.
    Subscribed {
        /// Which.
        sub: SubId,
    },
    /// The server refused the subscription; it is gone.
    SubscribeFailed {
        /// Which.
        sub: SubId,
        /// Why.
        error: Error,
    },
    /// The subscription ended as asked. Its messages that still wait in a mailbox count as
    /// cancelled.
    Unsubscribed {
        /// Which.
        sub: SubId,
    },
    /// The subscription was ended by the server or with the session. Messages before this event
    /// are still to be handled.
    SubscriptionClosed {
        /// Which.
        sub: SubId,
        /// Why.
        error: Error,
    },
    /// A message.
    Message {
        /// For this subscription.
        sub: SubId,
        /// The message.
        message: Message,
        /// Set if an answer is awaited.
        delivery: Option<u64>,
        /// Whether the publisher waits for the first answer only.
        request: bool,
    },
    /// Messages are missing here in the subscription's stream.
    Gap {
        /// Which.
        sub: SubId,
        /// What is missing.
        gap: Gap,
    },
    /// After a reconnect the subscription goes on without a gap.
    Resumed {
        /// Which.
        sub: SubId,
        /// Messages that waited or were under way and follow.
        replayed: u64,
    },
    /// Nobody waits for this delivery's answer any more.
    CancelDelivery {
        /// Of this subscription.
        sub: SubId,
        /// The delivery.
        delivery: u64,
    },
    /// A watched publish reached the level.
    Receipt {
        /// What `publish` returned.
        number: u64,
        /// The level.
        level: ReceiptLevel,
    },
    /// A publish was refused, or abandoned with the session.
    PublishFailed {
        /// What `publish` returned.
        number: u64,
        /// The message's id.
        id: String,
        /// Why.
        error: Error,
    },
    /// The outbox fell below its soft bound.
    Room,
    /// All that was published before the call to `flush` is accepted or refused.
    Flushed {
        /// Set if the session was closed before.
        error: Option<Error>,
    },
    /// What had waited for the connection is accepted or refused.
    OutboxFlushed {
        /// So many messages.
        count: u64,
    },
    /// The recipients of an acknowledged publish, frozen.
    Recipients {
        /// What `publish` returned.
        ack: u64,
        /// Their ids.
        clients: Arc<[Arc<str>]>,
    },
    /// One recipient's row, final.
    Row {
        /// What `publish` returned.
        ack: u64,
        /// The row.
        row: AckRow,
    },
    /// The ack is over and forgotten.
    AckDone {
        /// What `publish` returned.
        ack: u64,
        /// Set if its recipients never became known (refused, lost or timed out on the way), or the
        /// client was closed.
        error: Option<Error>,
    },
    /// A request's outcome, all that is told of it: the first successful row, or why there is none.
    RequestDone {
        /// What `publish` returned.
        ack: u64,
        /// The outcome.
        result: Result<AckRow>,
    },
    /// A publish was accepted; only if [`Session::tell_published`](super::Session::tell_published)
    /// asked.
    MessagePublished {
        /// What `publish` returned.
        number: u64,
        /// The message's id.
        id: String,
    },
    /// The outbox rose above its soft bound, or fell below it again.
    Backpressure {
        /// Whether it is above.
        on: bool,
    },
    /// The server reported something that concerns neither a publish nor a subscription.
    Error {
        /// What.
        error: Error,
    },
    /// The server will close the connection; the session reconnects.
    Goaway {
        /// For people.
        reason: String,
    },
}
