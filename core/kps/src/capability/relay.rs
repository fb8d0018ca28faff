//! Changes of the server's storage on their way to clients: published on [`CHANGES`] in a namespace for as
//! long as somebody there subscribes.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use kps_proto::{
    ErrorKind,
    message::{GapReason, Payload},
    topic::CHANGES,
};
use parking_lot::Mutex;

use super::{Call, Callback, Failure, Fields, Outcome, Value, router::Core, storage::Storage};
use crate::{events::ClientState, runtime};

/// The pause before it is said again that changes were lost.
const AGAIN: Duration = Duration::from_millis(100);

/// What is known of who listens in one namespace.
#[derive(Default)]
pub(super) struct Relay(Mutex<State>);

#[derive(Default)]
struct State {
    /// The storage's watch, while somebody listens.
    watch: Option<String>,
    /// Changes could not be published, and nobody was told yet.
    lost: bool,
}

/// `storage.watch` over the bus: its caller has subscribed to [`CHANGES`]. Answers the topic.
pub(super) fn watch(core: &Arc<Core>, call: Call) -> Outcome {
    let mut fields = Fields::of(call.payload)?;
    fields.optional_text("prefix")?;
    fields.done()?;
    let storage = core.builtins.storage()?;
    let mut state = core.relay.0.lock();
    if state.watch.is_none() {
        let (weak, watched) = (Arc::downgrade(core), storage.clone());
        let callback = Callback::new(move |change| {
            if let Some(core) = weak.upgrade() {
                core.relay.tell(&core, &watched, change);
            }
        });
        state.watch = Some(storage.watch_all(core.namespace(), callback)?);
    }
    Ok(Value::map([("topic", CHANGES.into())]))
}

/// `storage.unwatch` over the bus.
pub(super) fn unwatch() -> Failure {
    let sentence = "over the bus a watch ends with its subscription";
    Failure::new(ErrorKind::Unsupported, sentence)
}

impl Relay {
    /// On the storage's thread: in order.
    fn tell(&self, core: &Arc<Core>, storage: &Storage, change: Value) {
        let mut state = self.0.lock();
        if core.count_subscribers(CHANGES) == 0 {
            // Under the lock: who subscribed meanwhile calls `watch` after this.
            if let Some(watch) = state.watch.take() {
                storage.unwatch(&core.namespace(), &watch);
            }
            return;
        }
        // What follows a loss is not told before the loss.
        if state.lost || !publish(core, &change) {
            let is_first = !std::mem::replace(&mut state.lost, true);
            if is_first {
                runtime::spawn(tell_lost(Arc::downgrade(core)));
            }
        }
    }
}

async fn tell_lost(core: Weak<Core>) {
    let gap = || {
        let reason = GapReason::Overflow.as_str();
        Value::map([("event", "gap".into()), ("reason", reason.into()), ("count", Value::Null)])
    };
    loop {
        tokio::time::sleep(AGAIN).await;
        let Some(core) = core.upgrade() else { return };
        let is_over = core.client().is_ok_and(|client| client.state() == ClientState::Closed);
        let mut state = core.relay.0.lock();
        if is_over || publish(&core, &gap()) {
            state.lost = false;
            return;
        }
    }
}

/// Whether the bus took it.
fn publish(core: &Core, change: &Value) -> bool {
    let Ok(client) = core.client() else { return false };
    let text = change.to_json().unwrap_or_default();
    client.publish(CHANGES, Payload::json(text)).is_ok()
}
