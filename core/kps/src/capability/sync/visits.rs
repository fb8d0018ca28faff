//! The channels that a client is present in. The server has the truth; here is what to tell it again when
//! the connection was lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kps_proto::ErrorKind;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{
    Asking, channel_of,
    presence::{key_of, meta_of},
    table::value,
};
use crate::{
    capability::{Call, Failure, Fields, Map, Outcome, Value, backoff},
    events::{ClientState, Event},
    net::BoxFuture,
    runtime,
};

/// A call without a deadline, and one made again after a reconnect, waits so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where this client is present.
#[derive(Default)]
pub(super) struct Visits {
    /// By channel; `None`: it was left, but the server may not know.
    joined: Mutex<BTreeMap<String, Option<Visit>>>,
    /// Changes go to the server one after the other: an old one never overtakes a new one.
    turn: tokio::sync::Mutex<()>,
    is_watched: AtomicBool,
}

#[derive(Clone)]
struct Visit {
    key: Option<String>,
    /// JSON text.
    meta: Arc<str>,
}

impl Visits {
    pub(super) fn call(self: Arc<Self>, asking: Asking, call: Call) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            let deadline = deadline(&call);
            let mut fields = Fields::of(call.payload)?;
            let channel = channel_of(&mut fields)?;
            match &*call.operation {
                "join" => {
                    let visit = Visit { key: key_of(&mut fields)?, meta: meta_of(&mut fields)? };
                    fields.done()?;
                    self.join(&asking, channel, |_| Ok(visit), deadline).await
                }
                "update" => {
                    let meta = meta_of(&mut fields)?;
                    fields.done()?;
                    let change = |before: Option<&Visit>| match before {
                        Some(before) => Ok(Visit { key: before.key.clone(), meta }),
                        None => Err(Failure::new(
                            ErrorKind::NotFound,
                            "this client is not in the channel: sync.join it first",
                        )),
                    };
                    self.join(&asking, channel, change, deadline).await
                }
                _ => {
                    fields.done()?;
                    self.leave(&asking, channel, deadline).await
                }
            }
        })
    }

    async fn join(
        self: &Arc<Self>,
        asking: &Asking,
        channel: String,
        change: impl FnOnce(Option<&Visit>) -> Result<Visit, Failure>,
        deadline: Instant,
    ) -> Outcome {
        asking.client()?;
        self.watch(asking)?;
        let _turn = self.turn.lock().await;
        let before = self.joined.lock().get(&channel).cloned().flatten();
        let visit = change(before.as_ref())?;
        let payload = visit.payload(&channel);
        self.joined.lock().insert(channel.clone(), Some(visit));
        let mut undo = Undo { visits: self, asking, channel: &channel, before, is_open: true };
        let outcome = asking.server("join", payload, deadline).await;
        undo.is_open = outcome.as_ref().is_err_and(is_unknown);
        if outcome.is_err() && !undo.is_open {
            // Refused: the server has what it had before.
            self.put(&channel, undo.before.take());
        }
        outcome
    }

    async fn leave(
        self: &Arc<Self>,
        asking: &Asking,
        channel: String,
        deadline: Instant,
    ) -> Outcome {
        asking.client()?;
        self.watch(asking)?;
        let _turn = self.turn.lock().await;
        // Until it is known that the server did it, it is told so after a reconnect.
        self.joined.lock().insert(channel.clone(), None);
        let payload = Value::map([("channel", (&*channel).into())]);
        let outcome = asking.server("leave", payload, deadline).await;
        if !outcome.as_ref().is_err_and(is_unknown) {
            self.put(&channel, None);
        }
        outcome
    }

    fn put(&self, channel: &str, visit: Option<Visit>) {
        let mut joined = self.joined.lock();
        match visit {
            Some(visit) => joined.insert(channel.to_owned(), Some(visit)),
            None => joined.remove(channel),
        };
    }

    /// From now on the server is told again after every reconnect: it may be another one, or have
    /// missed this client for too long. Where it knows, nothing happens.
    fn watch(self: &Arc<Self>, asking: &Asking) -> Result<(), Failure> {
        if self.is_watched.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let mut events = asking.core.client()?.events();
        let (visits, core) = (Arc::downgrade(self), Arc::downgrade(&asking.core));
        let presence = asking.presence.clone();
        runtime::spawn(async move {
            while let Some(event) = events.next().await {
                if !matches!(event, Event::State { state: ClientState::Connected, .. }) {
                    continue;
                }
                let (Some(visits), Some(core)) = (visits.upgrade(), core.upgrade()) else { return };
                let asking = Asking { core, presence: presence.clone(), call_id: "rejoin".into() };
                visits.again(Arc::new(asking)).await;
            }
        });
        Ok(())
    }

    /// Tells the server of all channels again, as long as there is a connection.
    async fn again(self: &Arc<Self>, asking: Arc<Asking>) {
        let mut attempt = 0;
        let mut left: Vec<String> = self.joined.lock().keys().cloned().collect();
        while !left.is_empty() && asking.client().is_ok() {
            if attempt > 0 {
                tokio::time::sleep(backoff::pause(attempt)).await;
            }
            attempt += 1;
            let _turn = self.turn.lock().await;
            let mut calls = JoinSet::new();
            for channel in left.drain(..) {
                let (visits, asking) = (self.clone(), asking.clone());
                calls.spawn(async move {
                    visits
                        .settle(&asking, &channel)
                        .await
                        .is_err_and(|it| it.retry)
                        .then_some(channel)
                });
            }
            while let Some(called) = calls.join_next().await {
                left.extend(called.ok().flatten());
            }
        }
    }

    /// Tells the server what is so in a channel now. For who has the turn.
    async fn settle(&self, asking: &Asking, channel: &str) -> Result<(), Failure> {
        let Some(visit) = self.joined.lock().get(channel).cloned() else { return Ok(()) };
        let (operation, payload) = match &visit {
            Some(visit) => ("join", visit.payload(channel)),
            None => ("leave", Value::map([("channel", channel.into())])),
        };
        let outcome = asking.server(operation, payload, Instant::now() + PATIENCE).await;
        match outcome {
            Ok(_) if visit.is_some() => {}
            Err(failure) if is_unknown(&failure) => return Err(failure),
            done => {
                if let Err(failure) = done {
                    tracing::warn!(%failure, channel, "not present there any more");
                }
                self.put(channel, None);
            }
        }
        Ok(())
    }
}

/// Undoes a join of which nobody knows whether the server did it.
struct Undo<'a> {
    visits: &'a Arc<Visits>,
    asking: &'a Asking,
    channel: &'a str,
    before: Option<Visit>,
    is_open: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        self.visits.joined.lock().insert(self.channel.to_owned(), self.before.take());
        let (visits, asking) = (self.visits.clone(), self.asking.clone());
        let channel = self.channel.to_owned();
        runtime::spawn(async move {
            let _turn = visits.turn.lock().await;
            // Without a connection it is done after the reconnect.
            let _ = visits.settle(&asking, &channel).await;
        });
    }
}

impl Visit {
    fn payload(&self, channel: &str) -> Value {
        let mut map = Map::default();
        map.push("channel", channel);
        map.push("key", self.key.clone());
        map.push("meta", value(&self.meta));
        map.into()
    }
}

/// Whether the server may have done it all the same.
fn is_unknown(failure: &Failure) -> bool {
    failure.retry || failure.kind == ErrorKind::Timeout || failure.kind == ErrorKind::Closed
}

fn deadline(call: &Call) -> Instant {
    call.deadline.unwrap_or_else(|| Instant::now() + PATIENCE)
}

/// Who is in a channel, page by page.
pub(super) async fn presence(asking: Asking, call: Call) -> Outcome {
    let deadline = deadline(&call);
    let mut fields = Fields::of(call.payload)?;
    let channel = channel_of(&mut fields)?;
    fields.done()?;
    let (mut members, mut after) = (Vec::new(), Value::Null);
    loop {
        let payload = Value::map([("channel", (&*channel).into()), ("after", after)]);
        let mut page = Fields::of(asking.server("presence", payload, deadline).await?)?;
        members.append(&mut page.list("members")?);
        match page.given("next") {
            Some(next) => after = next,
            None => break,
        }
    }
    Ok(Value::map([("channel", channel.into()), ("members", members.into())]))
}
