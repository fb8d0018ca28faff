//! How far a call in another process is, on its way back to who called.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kps_proto::{message::Extras, topic::CALLS};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{Callback, Failure, Value, router::Core};
use crate::{
    client::{Client, Json, Subscription},
    events::To,
    runtime,
};

/// Calls whose progress this client hears, on a topic of its own.
#[derive(Default)]
pub(super) struct Progress {
    listeners: Arc<Mutex<HashMap<Arc<str>, Callback>>>,
    topic: OnceCell<String>,
}

/// A call that is listened to, until this is dropped.
pub(super) struct Listening {
    pub(super) topic: String,
    listeners: Arc<Mutex<HashMap<Arc<str>, Callback>>>,
    id: Arc<str>,
}

/// News may come a little after the answer: they took another way.
const LINGER: Duration = Duration::from_secs(1);

impl Drop for Listening {
    fn drop(&mut self) {
        let (listeners, id) = (self.listeners.clone(), self.id.clone());
        runtime::spawn(async move {
            tokio::time::sleep(LINGER).await;
            listeners.lock().remove(&id);
        });
    }
}

impl Progress {
    /// From now on `callback` hears how far the call `id` is.
    pub(super) async fn listen(
        &self,
        client: &Client,
        id: &Arc<str>,
        callback: Callback,
    ) -> Result<Listening, Failure> {
        let topic = self.topic.get_or_try_init(|| self.subscribe(client)).await?;
        self.listeners.lock().insert(id.clone(), callback);
        let listeners = self.listeners.clone();
        Ok(Listening { topic: topic.clone(), listeners, id: id.clone() })
    }

    async fn subscribe(&self, client: &Client) -> Result<String, Failure> {
        let secret = getrandom::u64().unwrap_or_default();
        let topic = format!("{CALLS}kps.progress.{secret:016x}");
        let subscription = client.subscribe(&topic).await?;
        runtime::spawn(hear(subscription, self.listeners.clone()));
        Ok(topic)
    }
}

async fn hear(mut subscription: Subscription, listeners: Arc<Mutex<HashMap<Arc<str>, Callback>>>) {
    while let Some(message) = subscription.message().await {
        let Ok(mut value) = Value::from_json(&message.payload.bytes) else { continue };
        let Value::Map(map) = &mut value else { continue };
        if let (Some(Value::Text(id)), Some(how_far)) = (map.remove("id"), map.remove("progress")) {
            let callback = listeners.lock().get(&*id).cloned();
            if let Some(callback) = callback {
                callback.call(how_far);
            }
        }
    }
}

/// What tells the caller `to` how far its call is.
pub(super) fn teller(
    core: &Arc<Core>,
    topic: String,
    to: String,
    id: Arc<str>,
) -> Option<Callback> {
    if !topic.starts_with(CALLS) {
        return None;
    }
    let core = Arc::downgrade(core);
    let extras = Extras { to: Some(vec![to]), ..Extras::default() };
    Some(Callback::new(move |how_far| {
        let Some(client) = core.upgrade().and_then(|core| core.client().ok()) else { return };
        let news = Value::map([("id", (&*id).into()), ("progress", how_far)]);
        // News that is lost is followed by newer ones, or by the answer.
        let _ = client.publish_with(To::Topic(&topic), Json(&news), &extras, None);
    }))
}
