//! A client's subscriptions to channels, and what it broadcasts.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kps_proto::{
    Error, ErrorKind,
    message::{Message, Payload},
    topic::{CHANNELS, PRESENCE},
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{Asking, channel_of, check_channel, ready, text_of};
use crate::{
    capability::{Call, Callback, Failure, Fields, Map, Outcome, Value, missing, wrong},
    client::{Client, Received, Subscription},
    events::ClientState,
    net::BoxFuture,
    runtime,
};

/// Subscriptions of one client.
const MOST: usize = 4096;
/// How topics end on which programs broadcast.
const EVENT: &str = ".event";
/// A call without a deadline waits so long for confirmations.
const PATIENCE: Duration = Duration::from_secs(5);

/// The subscriptions of a client.
#[derive(Default)]
pub(super) struct Channels {
    last: AtomicU64,
    open: Mutex<BTreeMap<u64, Open>>,
}

struct Open {
    channel: Arc<str>,
    task: JoinHandle<()>,
}

/// A subscription, as its task sees it.
struct Listener {
    id: u64,
    channels: Weak<Channels>,
    client: Client,
    channel: Arc<str>,
    callback: Callback,
    echo: bool,
}

impl Channels {
    pub(super) fn subscribe(
        self: &Arc<Self>,
        asking: &Asking,
        call: Call,
    ) -> BoxFuture<'static, Outcome> {
        let (listener, is_online) = match self.listener(asking, call) {
            Ok(listener) => listener,
            Err(failure) => return ready(Err(failure)),
        };
        let (id, channel) = (listener.id, listener.channel.clone());
        let answer = Value::map([("subscribed", id.into()), ("channel", (&*channel).into())]);
        let (confirm, confirmed) = oneshot::channel();
        {
            // Its task finds itself here.
            let mut open = self.open.lock();
            let task = runtime::spawn(listener.run(confirm));
            open.insert(id, Open { channel, task });
        }
        if !is_online {
            return ready(Ok(answer));
        }
        let mut given_up = EndOnDrop(Some((self.clone(), id)));
        Box::pin(async move {
            let confirmed = confirmed.await;
            given_up.keep();
            match confirmed {
                Ok(Ok(())) => Ok(answer),
                Ok(Err(error)) => Err(refused(error)),
                Err(_) => Err(Failure::new(ErrorKind::Closed, "the client is closed")),
            }
        })
    }

    fn listener(
        self: &Arc<Self>,
        asking: &Asking,
        call: Call,
    ) -> Result<(Listener, bool), Failure> {
        let mut fields = Fields::of(call.payload)?;
        let channel = channel_of(&mut fields)?.into();
        let callback = fields.callback("callback")?.ok_or_else(|| missing("callback"))?;
        let echo = echo_of(&mut fields)?;
        fields.done()?;
        let client = asking.core.client()?;
        let state = client.state();
        if state == ClientState::Closed {
            return Err(Failure::new(ErrorKind::Closed, "the client is closed; connect a new one"));
        }
        let count = self.open.lock().len();
        if count >= MOST {
            let sentence = format!("this client has {count} subscriptions to channels, the limit");
            return Err(Failure::new(ErrorKind::QuotaExceeded, sentence));
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let channels = Arc::downgrade(self);
        let listener = Listener { id, channels, client, channel, callback, echo };
        Ok((listener, state == ClientState::Connected))
    }

    pub(super) fn unsubscribe(self: &Arc<Self>, call: Call) -> BoxFuture<'static, Outcome> {
        let ended = match self.take(call) {
            Ok(ended) => ended,
            Err(failure) => return ready(Err(failure)),
        };
        Box::pin(async move {
            let count = ended.len();
            end(ended).await;
            Ok(Value::map([("unsubscribed", count.into())]))
        })
    }

    fn take(&self, call: Call) -> Result<Vec<Open>, Failure> {
        let mut fields = Fields::of(call.payload)?;
        let (id, channel) = (fields.count("id")?, fields.optional_text("channel")?);
        fields.done()?;
        let mut open = self.open.lock();
        let ended: Vec<Open> = match (id, channel) {
            (Some(id), None) => open.remove(&id).into_iter().collect(),
            (None, Some(channel)) => {
                check_channel(&channel)?;
                let of_channel = open.iter().filter(|(_, it)| *it.channel == *channel);
                let ids: Vec<u64> = of_channel.map(|(id, _)| *id).collect();
                ids.iter().filter_map(|id| open.remove(id)).collect()
            }
            (None, None) => return Err(missing("id")),
            (Some(_), Some(_)) => {
                return Err(Failure::field("channel", "say id or channel, not both"));
            }
        };
        if ended.is_empty() {
            return Err(Failure::new(ErrorKind::NotFound, "there is no such subscription"));
        }
        Ok(ended)
    }

    /// Ends all.
    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut *self.open.lock());
        end(all.into_values().collect()).await;
    }
}

/// No callback is called any more when this returns.
async fn end(ended: Vec<Open>) {
    ended.iter().for_each(|open| open.task.abort());
    for open in ended {
        // An error says that it was ended: that is what was wanted.
        let _ = open.task.await;
    }
}

/// Whoever gave up waiting for a subscription does not have it.
struct EndOnDrop(Option<(Arc<Channels>, u64)>);

impl EndOnDrop {
    fn keep(&mut self) {
        self.0 = None;
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some((channels, id)) = self.0.take()
            && let Some(open) = channels.open.lock().remove(&id)
        {
            open.task.abort();
        }
    }
}

impl Listener {
    async fn run(self, confirm: oneshot::Sender<Result<(), Error>>) {
        // Who is there and what happens come in one order: they are one subscription.
        let pattern = format!("{CHANNELS}{}.*", self.channel);
        match self.client.subscribe_with(&pattern, Default::default()).await {
            Ok(subscription) => {
                // Nobody may wait: then it was made offline.
                let _ = confirm.send(Ok(()));
                self.listen(subscription).await;
            }
            Err(error) => {
                if let Err(Err(error)) = confirm.send(Err(error)) {
                    self.tell_closed(error);
                }
            }
        }
        if let Some(channels) = self.channels.upgrade() {
            channels.open.lock().remove(&self.id);
        }
    }

    async fn listen(&self, mut subscription: Subscription) {
        while let Some(received) = subscription.next().await {
            match received {
                Received::Message(message) => {
                    if let Some(record) = self.record(&message) {
                        self.callback.call(record);
                    }
                }
                Received::Gap(gap) => {
                    let mut record = self.begin("gap");
                    record.push("count", gap.count);
                    self.callback.call(record.into());
                }
                Received::Closed(error) => self.tell_closed(error),
                Received::Resumed(_) => {}
            }
        }
    }

    fn begin(&self, kind: &str) -> Map {
        let mut record = Map::default();
        record.push("kind", kind);
        record.push("channel", &*self.channel);
        record
    }

    fn tell_closed(&self, error: Error) {
        let mut record = self.begin("closed");
        record.push("error", refused(error).into_value());
        self.callback.call(record.into());
    }

    /// What the callback is told; the topic says what it is, not what somebody wrote into it. `None` for
    /// what nobody's `sync` wrote.
    fn record(&self, message: &Message) -> Option<Value> {
        let is_presence = message.topic.ends_with(PRESENCE);
        if !is_presence && !message.topic.ends_with(EVENT) {
            return None;
        }
        let Ok(Value::Map(mut told)) = Value::from_json(&message.payload.bytes) else {
            return None;
        };
        let event = told.remove("event")?;
        let mut record = self.begin(if is_presence { "presence" } else { "event" });
        record.push("event", event);
        if is_presence {
            for name in ["key", "client_id", "meta", "clients"] {
                record.push(name, told.remove(name).unwrap_or_default());
            }
        } else {
            let may_echo = self.echo && told.remove("echo") != Some(Value::Bool(false));
            if !may_echo && self.client.id().as_deref() == Some(&message.sender.id) {
                return None;
            }
            record.push("data", told.remove("data").unwrap_or_default());
            record.push("from", &*message.sender.id);
        }
        record.push("time", message.time_ms);
        Some(record.into())
    }
}

pub(super) fn broadcast(asking: &Asking, call: Call) -> BoxFuture<'static, Outcome> {
    let (client, topic, payload, confirm) = match prepare(asking, call.payload) {
        Ok(prepared) => prepared,
        Err(failure) => return ready(Err(failure)),
    };
    if !confirm {
        let sent = client.publish(&topic, payload).map_err(refused);
        return ready(sent.map(|_| Value::map([("sent", true.into())])));
    }
    let left = call.deadline.map(|at| at.saturating_duration_since(Instant::now()));
    Box::pin(async move {
        // A little earlier than the call's own deadline, so that its answer says who did not confirm.
        let patience = left.map_or(PATIENCE, |left| left.mul_f64(0.9));
        let ack = client.publish_with_ack(&topic, payload, patience).map_err(refused)?;
        let rows = ack.wait().await.map_err(refused)?;
        let confirmed = rows.values().filter(|row| row.success()).count();
        Ok(Value::map([
            ("sent", true.into()),
            ("recipients", rows.len().into()),
            ("confirmed", confirmed.into()),
        ]))
    })
}

fn prepare(asking: &Asking, payload: Value) -> Result<(Client, String, Payload, bool), Failure> {
    let mut fields = Fields::of(payload)?;
    let channel = channel_of(&mut fields)?;
    let event = fields.text("event")?;
    text_of("event", &event, super::MAX_NAME)?;
    let data = fields.any("data").unwrap_or_default();
    let echo = echo_of(&mut fields)?;
    let confirm = fields.flag("confirm")?;
    fields.done()?;
    let client = asking.client()?;
    let mut told = Map::default();
    told.push("event", event);
    told.push("data", data);
    if !echo {
        told.push("echo", false);
    }
    let text = Value::Map(told).to_json();
    let text = text.map_err(|error| Failure::field("data", format!("data: {error}")))?;
    Ok((client, format!("{CHANNELS}{channel}{EVENT}"), Payload::json(text), confirm))
}

/// `true` unless it says `false`.
fn echo_of(fields: &mut Fields) -> Result<bool, Failure> {
    match fields.given("echo") {
        None => Ok(true),
        Some(Value::Bool(echo)) => Ok(echo),
        Some(other) => Err(wrong("echo", &other, "true or false")),
    }
}

/// Why the bus took it not, as those who call see it.
fn refused(error: Error) -> Failure {
    let message = error.message().to_owned();
    match error.kind() {
        ErrorKind::PayloadTooLarge => Failure::new(ErrorKind::TooLarge, message),
        ErrorKind::LimitExceeded => Failure::new(ErrorKind::QuotaExceeded, message),
        ErrorKind::OutboxFull | ErrorKind::SessionLost | ErrorKind::NotConnected => {
            Failure::new(ErrorKind::Unavailable, message).retryable()
        }
        _ => Failure::from(error),
    }
}
