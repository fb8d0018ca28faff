//! `storage.watch` of the server's storage: its changes come as messages on [`CHANGES`].

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
    message::{Gap, Message},
    options::{Overflow, SubscribeOptions},
    topic::CHANGES,
};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{
    CallTarget, Callback, DispatchOptions, Failure, Fields, Map, Outcome, Value, deadline, missing,
    remote,
    router::{Core, Route},
};
use crate::{
    client::{Received, Subscription},
    runtime,
};

/// Watches of one client.
const MOST: usize = 4096;
/// How the names of these watches begin.
const SERVER: &str = "server-";
/// The pause before the server is asked again to tell of changes.
const AGAIN: Duration = Duration::from_millis(500);

/// A client's watches of the server's storage.
#[derive(Default)]
pub(super) struct Watches {
    last: AtomicU64,
    open: Mutex<BTreeMap<u64, JoinHandle<()>>>,
}

/// Whether the call is about a watch of the server's storage.
pub(super) fn is_ours(to: &Route<'_>, payload: &Value) -> bool {
    if to.capability != "storage" {
        return false;
    }
    match (to.operation, &to.options.target) {
        ("watch" | "unwatch", CallTarget::Server) => true,
        ("unwatch", CallTarget::Nearest | CallTarget::Local) => {
            matches!(payload.get("watch"), Some(Value::Text(id)) if id.starts_with(SERVER))
        }
        _ => false,
    }
}

/// Does it.
pub(super) async fn call(
    core: &Arc<Core>,
    to: Route<'_>,
    payload: Value,
    attempt: u32,
    at: Instant,
) -> Outcome {
    if to.operation == "unwatch" {
        return unwatch(core, payload).await;
    }
    let work = watch(core, to, payload, attempt, at);
    match deadline::until(at, work).await {
        Some(outcome) => outcome,
        None => Err(remote::missed(&core.client()?, to)),
    }
}

async fn watch(
    core: &Arc<Core>,
    to: Route<'_>,
    payload: Value,
    attempt: u32,
    at: Instant,
) -> Outcome {
    let mut fields = Fields::of(payload)?;
    let prefix = fields.optional_text("prefix")?.unwrap_or_default();
    let callback = fields.callback("callback")?.ok_or_else(|| missing("callback"))?;
    fields.done()?;
    let full = || {
        let sentence = format!("this client has {MOST} watches of the server's storage, the limit");
        Failure::new(ErrorKind::LimitExceeded, sentence)
    };
    if core.watches.open.lock().len() >= MOST {
        return Err(full());
    }
    // A slow watcher loses changes, and is told so; nobody waits for it.
    let options =
        SubscribeOptions { overflow: Overflow::DropOldest, ..SubscribeOptions::default() };
    let subscription = core.client()?.subscribe_with(CHANGES, options).await?;
    let asked = Value::map([("prefix", (&*prefix).into())]);
    remote::call(core, to, asked, attempt, at).await.0?;
    let id = core.watches.last.fetch_add(1, Ordering::Relaxed) + 1;
    let watch = Watch { core: Arc::downgrade(core), id, prefix, callback };
    let mut open = core.watches.open.lock();
    if open.len() >= MOST {
        return Err(full());
    }
    open.insert(id, runtime::spawn(watch.run(subscription)));
    Ok(Value::map([("watch", format!("{SERVER}{id}").into())]))
}

async fn unwatch(core: &Arc<Core>, payload: Value) -> Outcome {
    let mut fields = Fields::of(payload)?;
    let id = fields.text("watch")?;
    fields.done()?;
    let id = id.strip_prefix(SERVER).and_then(|number| number.parse().ok());
    let found = id.and_then(|id: u64| core.watches.open.lock().remove(&id));
    let ended = found.is_some();
    if let Some(task) = found {
        end(task).await;
    }
    Ok(Value::map([("unwatched", ended.into())]))
}

/// No callback is called any more when this returns.
async fn end(task: JoinHandle<()>) {
    task.abort();
    // An error says that it was ended: that is what was wanted.
    let _ = task.await;
}

impl Watches {
    /// Ends all.
    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut *self.open.lock());
        for task in all.into_values() {
            end(task).await;
        }
    }
}

struct Watch {
    core: Weak<Core>,
    id: u64,
    prefix: String,
    callback: Callback,
}

impl Watch {
    async fn run(self, subscription: Subscription) {
        self.listen(subscription).await;
        if let Some(core) = self.core.upgrade() {
            core.watches.open.lock().remove(&self.id);
        }
    }

    async fn listen(&self, mut subscription: Subscription) {
        while let Some(received) = subscription.next().await {
            match received {
                Received::Message(message) => {
                    if let Some(change) = self.change(&message) {
                        self.callback.call(change);
                    }
                }
                Received::Gap(gap) => {
                    // The server may be another one: only when it tells of changes again does it
                    // help to look what has changed.
                    if let Err(failure) = self.ask_again().await {
                        return self.tell_closed(failure);
                    }
                    self.tell_gap(&gap);
                }
                Received::Closed(error) => self.tell_closed(Failure::from(error)),
                Received::Resumed(_) => {}
            }
        }
    }

    /// What the callback is told, if it is about a key that is watched.
    fn change(&self, message: &Message) -> Option<Value> {
        let change = Value::from_json(&message.payload.bytes).ok()?;
        let is_gap = change.get("event") == Some(&"gap".into());
        let is_ours =
            matches!(change.get("key"), Some(Value::Text(key)) if key.starts_with(&self.prefix));
        (is_ours || is_gap).then_some(change)
    }

    /// Asks the server to tell of changes, until it does or will not.
    async fn ask_again(&self) -> Result<(), Failure> {
        let options = DispatchOptions { target: CallTarget::Server, ..DispatchOptions::default() };
        loop {
            let closed = || Failure::from(Error::new(ErrorKind::Closed, "the client is closed"));
            let core = self.core.upgrade().ok_or_else(closed)?;
            let id = core.new_id();
            let (capability, operation) = ("storage", "watch");
            let (action, options) = ("storage.watch", &options);
            let to = Route { id: &id, action, capability, operation, options };
            let at = Instant::now() + options.timeout;
            match remote::call(&core, to, Value::Null, 1, at).await.0 {
                Ok(_) => return Ok(()),
                Err(failure) if !failure.retry && failure.kind != ErrorKind::Unavailable => {
                    return Err(failure);
                }
                Err(_) => {}
            }
            drop(core);
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn tell_gap(&self, gap: &Gap) {
        let mut told = Map::default();
        told.push("event", "gap");
        told.push("reason", gap.reason.as_str());
        told.push("count", gap.count);
        self.callback.call(told.into());
    }

    fn tell_closed(&self, failure: Failure) {
        let closed = Value::map([("event", "closed".into()), ("error", failure.into_value())]);
        self.callback.call(closed);
    }
}
