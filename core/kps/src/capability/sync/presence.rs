//! The server's side of `sync`: it keeps who is in which channel, and tells the channel what changes.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use kps_proto::{ErrorKind, topic::CHANNELS};
use parking_lot::Mutex;

use super::{
    channel_of,
    table::{Join, News, Table},
    text_of,
};
use crate::{
    capability::{Call, Failure, Fields, Map, Outcome, Value, router::Core, unknown_operation},
    client::{Client, Json, WeakBridge},
    runtime,
};

/// Longest key, in bytes.
pub(super) const MAX_KEY: usize = 256;
/// Longest metadata, in bytes of its JSON.
pub(super) const MAX_META: usize = 16 << 10;

/// Who is where, on a server. A client's own one stays empty.
#[derive(Default)]
pub(crate) struct Presence {
    table: Mutex<Tellers>,
    server: OnceLock<Watch>,
}

#[derive(Default)]
struct Tellers {
    table: Table,
    /// The server's own client of each namespace, through which changes are told.
    tellers: HashMap<Arc<str>, WeakBridge>,
}

/// Whether a namespace's client has a connection.
type IsConnected = dyn Fn(&str, &str) -> bool + Send + Sync;

/// What the server knows of its clients.
struct Watch {
    is_connected: Box<IsConnected>,
    grace: Duration,
}

/// On whose behalf something is done.
pub(super) struct Who {
    pub(super) namespace: Arc<str>,
    pub(super) client_id: Arc<str>,
}

impl Presence {
    /// Makes it a server's: `is_connected` knows whether a namespace's client has a connection, and one
    /// that loses it is missed after `grace`.
    pub(crate) fn attach(
        &self,
        grace: Duration,
        is_connected: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
    ) {
        self.server.get_or_init(|| Watch { is_connected: Box::new(is_connected), grace });
    }

    /// Whether it is a server's.
    pub(super) fn is_server(&self) -> bool {
        self.server.get().is_some()
    }

    /// A client's connection ended; `at_once`: it said goodbye, or was missed for long enough.
    pub(crate) fn connection_ended(
        self: &Arc<Self>,
        namespace: &str,
        client_id: &str,
        at_once: bool,
    ) {
        self.away(namespace, client_id, at_once, false);
    }

    /// A client's session ended: what it was in is not what its successor under the same id is in, unless
    /// that joins again.
    pub(crate) fn session_ended(self: &Arc<Self>, namespace: &str, client_id: &str) {
        self.away(namespace, client_id, false, true);
    }

    fn away(self: &Arc<Self>, namespace: &str, client_id: &str, at_once: bool, is_over: bool) {
        let Some(server) = self.server.get() else { return };
        let grace = if at_once { Duration::ZERO } else { server.grace };
        let until = Instant::now() + grace;
        if !self.table.lock().table.away(namespace, client_id, until, is_over) {
            return;
        }
        if grace.is_zero() {
            return self.expire(namespace, client_id);
        }
        let (this, who) = (Arc::downgrade(self), (namespace.to_owned(), client_id.to_owned()));
        runtime::spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            if let Some(this) = this.upgrade() {
                this.expire(&who.0, &who.1);
            }
        });
    }

    fn expire(&self, namespace: &str, client_id: &str) {
        let is_connected = self.is_connected(namespace, client_id);
        let mut tellers = self.table.lock();
        let news = tellers.table.expire(namespace, client_id, Instant::now(), is_connected);
        tellers.tell(namespace, news);
    }

    fn is_connected(&self, namespace: &str, client_id: &str) -> bool {
        self.server.get().is_some_and(|server| (server.is_connected)(namespace, client_id))
    }

    /// A client asks for one of the server's operations.
    pub(super) fn call(self: &Arc<Self>, core: &Core, who: Who, call: Call) -> Outcome {
        let mut fields = Fields::of(call.payload)?;
        match &*call.operation {
            "join" => self.join(core, who, fields),
            "leave" => {
                let channel = channel_of(&mut fields)?;
                fields.done()?;
                let mut tellers = self.table.lock();
                let news = tellers.table.leave(&who.namespace, &who.client_id, &channel);
                let left = news.is_some();
                tellers.tell(&who.namespace, news.into_iter().collect());
                Ok(Value::map([("channel", channel.into()), ("left", left.into())]))
            }
            "presence" => {
                let channel = channel_of(&mut fields)?;
                let after = fields.optional_text("after")?;
                fields.done()?;
                let tellers = self.table.lock();
                let page = tellers.table.page(&who.namespace, &channel, after.as_deref());
                let mut answer = Map::default();
                answer.push("channel", channel);
                answer.push("members", page.members);
                if let Some(next) = page.next {
                    answer.push("next", &*next);
                }
                Ok(answer.into())
            }
            other => Err(unknown_operation(other, &["join", "leave", "presence"])),
        }
    }

    fn join(self: &Arc<Self>, core: &Core, who: Who, mut fields: Fields) -> Outcome {
        let channel = channel_of(&mut fields)?;
        let key = key_of(&mut fields)?.unwrap_or_else(|| who.client_id.to_string());
        let meta = meta_of(&mut fields)?;
        fields.done()?;
        let mut tellers = self.table.lock();
        let news = tellers.table.join(Join {
            namespace: &who.namespace,
            client_id: &who.client_id,
            channel: &channel,
            key: &key,
            meta: &meta,
            now_ms: now_ms(),
        })?;
        tellers.tellers.entry(who.namespace.clone()).or_insert_with(|| core.weak_client());
        tellers.tell(&who.namespace, news);
        drop(tellers);
        // Its connection may have ended while the call was on its way.
        if !self.is_connected(&who.namespace, &who.client_id) {
            self.away(&who.namespace, &who.client_id, false, false);
        }
        Ok(Value::map([
            ("channel", channel.into()),
            ("key", key.into()),
            ("client_id", (&*who.client_id).into()),
        ]))
    }
}

impl Tellers {
    /// Under the table's lock, so that the order told is the order in which it happened.
    fn tell(&self, namespace: &str, news: Vec<News>) {
        // A server that closes has closed its own client first: nobody is told that everybody left.
        let teller = self.tellers.get(namespace).and_then(WeakBridge::upgrade);
        let Some(client) = teller.map(Client::from) else { return };
        for news in news {
            let topic = format!("{CHANNELS}{}{}", news.channel, kps_proto::topic::PRESENCE);
            match client.publish(&topic, Json(news.into_value())) {
                Err(error) if error.kind() != ErrorKind::Closed => {
                    tracing::warn!(%error, namespace, topic, "a change of presence was not told");
                }
                _ => {}
            }
        }
    }
}

/// The key a payload gives.
pub(super) fn key_of(fields: &mut Fields) -> Result<Option<String>, Failure> {
    let Some(key) = fields.optional_text("key")? else { return Ok(None) };
    text_of("key", &key, MAX_KEY)?;
    Ok(Some(key))
}

/// The metadata a payload gives, as JSON text.
pub(super) fn meta_of(fields: &mut Fields) -> Result<Arc<str>, Failure> {
    let meta = fields.any("meta").unwrap_or_default();
    let text = meta.to_json().map_err(|error| Failure::field("meta", format!("meta: {error}")))?;
    if text.len() > MAX_META {
        return Err(super::too_large("meta", text.len(), MAX_META));
    }
    let text = String::from_utf8(text).expect("JSON is text");
    Ok(text.into())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
