//! One vocabulary of events: what a client's session tells, and what a server tells its host.

mod server;
pub mod vocabulary;

use std::sync::Arc;

use kps_proto::{
    Error, Result,
    message::{AckRow, Gap, Message, Payload, ReceiptLevel},
    session,
};

pub use self::server::{Place, ServerEvent, Value};
pub use kps_proto::session::{
    AckRequest, Destination as To, PublishOptions, Room, State as ClientState, SubId, Target,
};

/// A client's number in this process, to tell the events of several clients in one mailbox apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub u32);

/// What a mailbox carries.
#[derive(Clone, Debug)]
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

/// What happened at a client, or at the server whose own client it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The connection's state changed.
    State {
        /// The new state.
        state: ClientState,
        /// Why, unless all is well.
        error: Option<Error>,
        /// With `Connected`: the server still knew the session.
        resumed: bool,
    },
    /// The server confirmed the subscription.
    Subscribed {
        /// Which.
        sub: SubId,
    },
    /// The server refused it; it is gone.
    SubscribeFailed {
        /// Which.
        sub: SubId,
        /// Why.
        error: Error,
    },
    /// It ended as asked; nothing more follows for it.
    Unsubscribed {
        /// Which.
        sub: SubId,
    },
    /// The server, or the end of the client, closed it. What came before is still to be handled.
    SubscriptionClosed {
        /// Which.
        sub: SubId,
        /// Why.
        error: Error,
    },
    /// A message.
    Message {
        /// The subscription; [`SubId::DIRECT`]: sent to this client's id.
        sub: SubId,
        /// The message.
        message: Message,
        /// If set, an answer with this number is awaited.
        delivery: Option<u64>,
        /// Whether the publisher waits for the first answer only.
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
    /// Nobody waits for this delivery's answer any more.
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
    /// A publish was refused, or abandoned with the client. Told in every attached mailbox.
    PublishFailed {
        /// The publish.
        number: u64,
        /// The message's id.
        id: String,
        /// Why.
        error: Error,
    },
    /// The outbox fell below its soft bound.
    Room,
    /// What had waited for the connection is accepted or refused. Told in every attached mailbox.
    OutboxFlushed {
        /// So many messages.
        count: u64,
    },
    /// The recipients of an acknowledged publish, frozen.
    Recipients {
        /// The publish.
        ack: u64,
        /// Their ids.
        clients: Arc<[Arc<str>]>,
    },
    /// A row is final.
    Row {
        /// The publish.
        ack: u64,
        /// The row.
        row: AckRow,
    },
    /// The ack is over.
    AckDone {
        /// The publish.
        ack: u64,
        /// Set if its recipients never became known: refused, lost or timed out on the way.
        error: Option<Error>,
    },
    /// A request's outcome, all that is told of it.
    RequestDone {
        /// The publish.
        ack: u64,
        /// The first successful row, or why there is none.
        result: Result<AckRow>,
    },
    /// What [`Bridge::flush_event`](crate::Bridge::flush_event) asked for: everything published
    /// before it was accepted or refused, or never will be.
    Flushed {
        /// The number that `flush_event` returned.
        token: u64,
        /// Set if the client was closed first.
        error: Option<Error>,
    },
    /// The server will close the connection; the client reconnects.
    Goaway {
        /// For people.
        reason: String,
    },
    /// The server accepted a message; only if [`Bridge::tell_published`](crate::Bridge::tell_published)
    /// asked. Told in every attached mailbox, as what follows.
    MessagePublished {
        /// The publish.
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
    /// At a server: what happened there.
    Server {
        /// What.
        event: Arc<ServerEvent>,
        /// Held until the host has dealt with it.
        place: Place,
    },
    /// At a server: another server, or a client, sent this to the server itself.
    ServerMessage {
        /// Who sent it.
        from: Arc<str>,
        /// What.
        payload: Payload,
    },
}

impl From<session::Event> for Event {
    #[inline]
    fn from(event: session::Event) -> Self {
        use session::Event as From;
        match event {
            From::Message { sub, message, delivery, request } => {
                Event::Message { sub, message, delivery, request }
            }
            From::State { state, error, resumed } => Event::State { state, error, resumed },
            From::Subscribed { sub } => Event::Subscribed { sub },
            From::SubscribeFailed { sub, error } => Event::SubscribeFailed { sub, error },
            From::Unsubscribed { sub } => Event::Unsubscribed { sub },
            From::SubscriptionClosed { sub, error } => Event::SubscriptionClosed { sub, error },
            From::Gap { sub, gap } => Event::Gap { sub, gap },
            From::Resumed { sub, replayed } => Event::Resumed { sub, replayed },
            From::CancelDelivery { sub, delivery } => Event::CancelDelivery { sub, delivery },
            From::Receipt { number, level } => Event::Receipt { number, level },
            From::PublishFailed { number, id, error } => Event::PublishFailed { number, id, error },
            From::Room => Event::Room,
            From::OutboxFlushed { count } => Event::OutboxFlushed { count },
            From::Recipients { ack, clients } => Event::Recipients { ack, clients },
            From::Row { ack, row } => Event::Row { ack, row },
            From::AckDone { ack, error } => Event::AckDone { ack, error },
            From::RequestDone { ack, result } => Event::RequestDone { ack, result },
            From::MessagePublished { number, id } => Event::MessagePublished { number, id },
            From::Backpressure { on } => Event::Backpressure { on },
            From::Error { error } => Event::Error { error },
            From::Goaway { reason } => Event::Goaway { reason },
            From::Flushed { error } => Event::Flushed { token: 0, error },
        }
    }
}
