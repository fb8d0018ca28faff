//! The face for Rust programs: what the bindings offer their languages, as async Rust.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use kps_proto::{
    Result,
    message::{AckRow, Extras, Payload, ReceiptLevel},
    options::{Cursor, SubscribeOptions},
    session::{Ledger, Moment},
};
use tokio::sync::oneshot;

use super::{
    Ack, Bridge, CloseReport, ConnectOptions, FlushHint, Subscription,
    ack::Table,
    desk::{Desk, Feed, closed, outcome},
    outlets::NATIVE,
    payload::IntoPayload,
};
use crate::{
    events::{AckRequest, ClientState, Event, PublishOptions, Room, SubId, To},
    net::BoxFuture,
};

/// How long acks and requests wait by default: kps' design.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A client. Clones are handles of the same one; it closes when the last is dropped.
///
/// ```
/// # async fn run() -> kps::Result<()> {
/// let server = kps::Server::start(kps::ServerOptions::listen("127.0.0.1:0"))?;
/// let client = kps::Client::connect(kps::ConnectOptions::new(server.url())).await?;
///
/// let mut temperatures = client.subscribe("sensors.*.temp").await?;
/// client.publish("sensors.42.temp", kps::Json(21.5))?;
///
/// let message = temperatures.message().await.expect("the subscription is open");
/// assert_eq!(&*message.topic, "sensors.42.temp");
/// assert_eq!(message.json::<f64>()?, 21.5);
/// client.close().await;
/// # Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone)]
pub struct Client {
    bridge: Bridge,
}

impl Client {
    /// Connects and waits for the handshake, unless [`ConnectOptions::wait`] is off.
    ///
    /// # Errors
    /// As [`Bridge::start`] and [`Bridge::ready`].
    pub async fn connect(options: ConnectOptions) -> Result<Client> {
        let wait = options.wait;
        let client = Client::from(Bridge::start(options)?);
        if wait {
            client.bridge.ready().await?;
        }
        Ok(client)
    }

    /// The synchronous face of the same client.
    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// Subscribes to a topic or pattern; resolves when the server has confirmed it.
    ///
    /// # Errors
    /// `invalid_topic`, `unauthorized`, `limit_exceeded`, `closed`.
    pub async fn subscribe(&self, pattern: &str) -> Result<Subscription> {
        self.subscribe_with(pattern, SubscribeOptions::default()).await
    }

    /// [`subscribe`](Self::subscribe) with a group, an overflow policy or a capacity.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe), and `invalid_argument`.
    pub async fn subscribe_with(
        &self,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription> {
        self.open_subscription(pattern, options, None).await
    }

    /// [`subscribe_with`](Self::subscribe_with) for one who had the same subscription before, with a client
    /// that is gone, and came as far as `cursor`, if it had one: its stream says first whether something
    /// is missing since.
    pub(crate) async fn subscribe_again(
        &self,
        pattern: &str,
        options: SubscribeOptions,
        cursor: Option<Cursor>,
    ) -> Result<Subscription> {
        self.open_subscription(pattern, options, Some(cursor)).await
    }

    async fn open_subscription(
        &self,
        pattern: &str,
        options: SubscribeOptions,
        had: Option<Option<Cursor>>,
    ) -> Result<Subscription> {
        let feed = Arc::<Feed>::default();
        let subscription = {
            let mut desks = self.desk().0.lock();
            let sub = self.bridge.subscribe_to(NATIVE, pattern, options, had)?;
            desks.feeds.insert(sub, feed.clone());
            // Made now, so that giving up waiting ends it.
            Subscription::new(self.bridge.clone(), sub, feed.clone())
        };
        match feed.next().await {
            Some(Event::Subscribed { .. }) => Ok(subscription),
            Some(Event::SubscribeFailed { error, .. }) => Err(error),
            _ => Err(closed()),
        }
    }

    /// The messages sent to this client's id. The last call's stream gets them.
    pub fn direct(&self) -> Subscription {
        let feed = Arc::<Feed>::default();
        self.desk().0.lock().feeds.insert(SubId::DIRECT, feed.clone());
        self.bridge.direct_to_native();
        Subscription::new(self.bridge.clone(), SubId::DIRECT, feed)
    }

    /// Publishes to a topic, at once.
    ///
    /// # Errors
    /// `outbox_full`, `payload_too_large`, `invalid_topic`, `invalid_payload`, `closed`: nothing
    /// was queued.
    pub fn publish(&self, topic: &str, data: impl IntoPayload) -> Result<Receipt> {
        self.send(To::Topic(topic), data.into_payload()?, &Extras::default(), None, false)
    }

    /// As [`publish`](Self::publish); the server keeps the message as the topic's retained one, which
    /// subscriptions get that begin with [`StartAt::Last`](crate::options::StartAt::Last). An empty
    /// payload removes the one there is.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and `unsupported` by an older server; the receipt fails with
    /// `limit_exceeded` when the server retains as much as it may.
    pub fn publish_retained(&self, topic: &str, data: impl IntoPayload) -> Result<Receipt> {
        self.publish_retained_with(topic, data, &Extras::default(), None)
    }

    /// [`publish_retained`](Self::publish_retained) with headers, an own id or a time to live, after
    /// which the message is not retained any more, and with a receipt level to await.
    ///
    /// # Errors
    /// As [`publish_retained`](Self::publish_retained), and `receipt_unavailable`.
    pub fn publish_retained_with(
        &self,
        topic: &str,
        data: impl IntoPayload,
        extras: &Extras,
        receipt: Option<ReceiptLevel>,
    ) -> Result<Receipt> {
        self.send(To::Topic(topic), data.into_payload()?, extras, receipt, true)
    }

    /// [`publish`](Self::publish) with headers, an own id or a time to live, and with a receipt
    /// level to await.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and `receipt_unavailable`.
    pub fn publish_with(
        &self,
        to: To<'_>,
        data: impl IntoPayload,
        extras: &Extras,
        receipt: Option<ReceiptLevel>,
    ) -> Result<Receipt> {
        self.send(to, data.into_payload()?, extras, receipt, false)
    }

    /// Publishes to the client with this id.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_to_id(&self, client_id: &str, data: impl IntoPayload) -> Result<Receipt> {
        self.send(To::Client(client_id), data.into_payload()?, &Extras::default(), None, false)
    }

    /// Publishes to another server, by address.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_to_server(&self, address: &str, data: impl IntoPayload) -> Result<Receipt> {
        self.send(To::Server(address), data.into_payload()?, &Extras::default(), None, false)
    }

    /// Publishes to a topic and follows what each recipient makes of it.
    ///
    /// ```
    /// # async fn run() -> kps::Result<()> {
    /// # let server = kps::Server::start(kps::ServerOptions::listen("127.0.0.1:0"))?;
    /// # let client = kps::Client::connect(kps::ConnectOptions::new(server.url())).await?;
    /// let jobs = client.subscribe("jobs").await?;
    /// let work = jobs.serve(1, async |job| Ok::<_, kps::Error>(kps::Json(job.json::<u32>()? * 2)));
    /// let ack = client.publish_with_ack("jobs", kps::Json(21), kps::client::DEFAULT_TIMEOUT)?;
    ///
    /// tokio::select! {
    ///     () = work => unreachable!("the subscription stays open"),
    ///     rows = ack.wait() => {
    ///         let row = rows?.into_values().next().expect("there is one subscriber");
    ///         assert_eq!(row.data, Some(kps::message::Payload::json("42")));
    ///     }
    /// }
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and `limit_exceeded` for too many unfinished acks.
    pub fn publish_with_ack(
        &self,
        topic: &str,
        data: impl IntoPayload,
        timeout: Duration,
    ) -> Result<Ack> {
        self.publish_with_ack_with(To::Topic(topic), data, timeout, &Extras::default())
    }

    /// [`publish_with_ack`](Self::publish_with_ack) to whatever destination, with headers, an own id, a
    /// time to live or policies. Who may not have the message is no recipient: it has no row.
    ///
    /// # Errors
    /// As [`publish_with_ack`](Self::publish_with_ack), and `unsupported` by an older server.
    pub fn publish_with_ack_with(
        &self,
        to: To<'_>,
        data: impl IntoPayload,
        timeout: Duration,
        extras: &Extras,
    ) -> Result<Ack> {
        self.follow(to, data.into_payload()?, timeout, extras)
    }

    /// As [`publish_with_ack`](Self::publish_with_ack), to the client with this id.
    ///
    /// # Errors
    /// As [`publish_with_ack`](Self::publish_with_ack).
    pub fn publish_to_id_with_ack(
        &self,
        client_id: &str,
        data: impl IntoPayload,
        timeout: Duration,
    ) -> Result<Ack> {
        self.publish_with_ack_with(To::Client(client_id), data, timeout, &Extras::default())
    }

    /// Asks a topic's subscribers and returns the first successful answer. Dropping the future
    /// cancels the request.
    ///
    /// # Errors
    /// `no_responders` at once, `handler_failed` and the like when no answer can be successful any
    /// more, `timeout`.
    pub async fn request(
        &self,
        topic: &str,
        data: impl IntoPayload,
        timeout: Duration,
    ) -> Result<Payload> {
        self.request_with(topic, data, timeout, &Extras::default()).await
    }

    /// [`request`](Self::request) with headers, an own id, a time to live or policies. The request is
    /// not handed over after its timeout, nor after its time to live.
    ///
    /// # Errors
    /// As [`request`](Self::request), and `unsupported` by an older server.
    pub async fn request_with(
        &self,
        topic: &str,
        data: impl IntoPayload,
        timeout: Duration,
        extras: &Extras,
    ) -> Result<Payload> {
        let row = self.request_row_with(topic, data, timeout, extras).await?;
        Ok(row.data.unwrap_or_else(|| Payload::json("null")))
    }

    /// [`request`](Self::request) with who answered and how fast.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn request_row(
        &self,
        topic: &str,
        data: impl IntoPayload,
        timeout: Duration,
    ) -> Result<AckRow> {
        self.request_row_with(topic, data, timeout, &Extras::default()).await
    }

    /// [`request_row`](Self::request_row) with headers, an own id, a time to live or policies.
    ///
    /// # Errors
    /// As [`request_with`](Self::request_with).
    pub async fn request_row_with(
        &self,
        topic: &str,
        data: impl IntoPayload,
        timeout: Duration,
        extras: &Extras,
    ) -> Result<AckRow> {
        let payload = data.into_payload()?;
        let (waiter, answer) = oneshot::channel();
        let number = {
            let mut desks = self.desk().0.lock();
            let number = self.publish_acked(To::Topic(topic), &payload, timeout, true, extras)?;
            desks.requests.insert(number, waiter);
            number
        };
        let mut cancel = CancelOnDrop(Some((self, number)));
        let result = outcome(answer).await;
        cancel.0 = None;
        result
    }

    /// Waits until everything published so far was accepted or refused.
    ///
    /// # Errors
    /// `closed` if it never will be.
    pub async fn flush(&self) -> Result<()> {
        let (waiter, flushed) = oneshot::channel();
        {
            let mut desks = self.desk().0.lock();
            match self.bridge.flush_to(NATIVE) {
                (_, Some(result)) => return result,
                (token, None) => desks.flushes.insert(token, waiter),
            };
        }
        outcome(flushed).await
    }

    /// Closes within 5 s; see [`close_within`](Self::close_within).
    pub async fn close(&self) -> CloseReport {
        self.close_within(Duration::from_secs(5)).await
    }

    /// Flushes, says goodbye, and reports what was flushed and what was abandoned.
    pub async fn close_within(&self, timeout: Duration) -> CloseReport {
        self.bridge.close(timeout).await
    }

    /// News of this client from now on: changes of its state, refused publishes, back-pressure,
    /// errors, and accepted publishes if [`Bridge::tell_published`] asked for them.
    pub fn events(&self) -> Events {
        let feed = Arc::<Feed>::default();
        self.desk().0.lock().listeners.push(Arc::downgrade(&feed));
        if self.state() == ClientState::Closed {
            feed.end();
        }
        Events(feed)
    }

    /// Where the connection stands.
    pub fn state(&self) -> ClientState {
        self.bridge.state()
    }

    /// The id; `None` before the first handshake if the server makes it.
    pub fn id(&self) -> Option<String> {
        self.bridge.id()
    }

    /// What became of every message, counted.
    pub fn ledger(&self) -> Ledger {
        self.bridge.ledger()
    }

    /// The last things that happened, oldest first, each with how long ago it was.
    pub fn timeline(&self) -> Vec<(Duration, Moment)> {
        self.bridge.timeline()
    }

    fn desk(&self) -> &Desk {
        self.bridge.desk()
    }

    fn send(
        &self,
        to: To<'_>,
        payload: Payload,
        extras: &Extras,
        receipt: Option<ReceiptLevel>,
        retain: bool,
    ) -> Result<Receipt> {
        let extras = (!extras.is_empty()).then_some(extras);
        let options =
            PublishOptions { extras, receipt, target: NATIVE, retain, ..PublishOptions::default() };
        let mut desks = self.desk().0.lock();
        let (content_type, bytes) = (payload.content_type, &payload.bytes);
        let number = self.bridge.publish(to, content_type, bytes, options, FlushHint::Now)?;
        let reached = receipt.filter(|level| *level > ReceiptLevel::Queued).map(|_| {
            let (waiter, reached) = oneshot::channel();
            desks.receipts.insert(number, waiter);
            reached
        });
        let id = extras.and_then(|extras| extras.id.clone());
        Ok(Receipt { client: self.clone(), number, id, reached })
    }

    fn follow(
        &self,
        to: To<'_>,
        payload: Payload,
        timeout: Duration,
        extras: &Extras,
    ) -> Result<Ack> {
        let table = Arc::<Table>::default();
        let mut desks = self.desk().0.lock();
        let number = self.publish_acked(to, &payload, timeout, false, extras)?;
        desks.acks.insert(number, table.clone());
        Ok(Ack::new(self.bridge.clone(), number, extras.id.clone(), table))
    }

    fn publish_acked(
        &self,
        to: To<'_>,
        payload: &Payload,
        timeout: Duration,
        request: bool,
        extras: &Extras,
    ) -> Result<u64> {
        let ack = Some(AckRequest { timeout, request, target: NATIVE });
        let extras = (!extras.is_empty()).then_some(extras);
        let options = PublishOptions { ack, extras, target: NATIVE, ..PublishOptions::default() };
        self.bridge.publish(to, payload.content_type, &payload.bytes, options, FlushHint::Now)
    }
}

impl From<Bridge> for Client {
    fn from(bridge: Bridge) -> Self {
        Client { bridge }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bridge.fmt(f)
    }
}

struct CancelOnDrop<'a>(Option<(&'a Client, u64)>);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some((client, number)) = self.0 {
            client.desk().0.lock().requests.remove(&number);
            client.bridge.cancel_ack(number);
        }
    }
}

/// What `publish` returns: the message's id, and something to await that may be ignored.
///
/// Awaiting it gives the level that was asked for, when it is reached. Without one it gives
/// `Queued`, at once, or above the outbox's soft bound when there is room again.
#[derive(Debug)]
pub struct Receipt {
    client: Client,
    number: u64,
    id: Option<String>,
    reached: Option<oneshot::Receiver<Result<ReceiptLevel>>>,
}

impl Receipt {
    /// The message's id.
    pub fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.client.bridge.message_id(self.number))
    }

    /// The client's number for it: 1, 2, 3, …
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl IntoFuture for Receipt {
    type Output = Result<ReceiptLevel>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if let Some(reached) = self.reached {
                return outcome(reached).await;
            }
            while self.client.bridge.room() != Room::Free {
                let (waiter, room) = oneshot::channel();
                {
                    let mut desks = self.client.desk().0.lock();
                    if self.client.bridge.watch_room(NATIVE) {
                        break;
                    }
                    desks.room.push(waiter);
                }
                if room.await.is_err() {
                    return Err(closed());
                }
            }
            Ok(ReceiptLevel::Queued)
        })
    }
}

/// A stream of [news](Client::events).
#[derive(Debug)]
pub struct Events(Arc<Feed>);

impl Events {
    /// The next piece of news; `None` after the client has closed.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.next().await
    }
}
