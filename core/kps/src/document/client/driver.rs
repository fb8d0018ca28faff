//! The task that looks after an open document: hears what the server tells, sends what was edited, and opens
//! it again when something was lost.

use std::{sync::Arc, time::Duration};

use kps_proto::{ErrorKind, message::GapReason};
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    call,
    opening::{Known, Opening},
    state::{Lost, Phase, RESUMED, Shared, closed},
    told::telling,
};
use crate::{
    capability::{Failure, Map, Outcome, Value},
    client::{Received, Subscription},
    document::engine::Outgoing,
};

/// Operations in one batch, and bytes of their edits.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 256 << 10;
/// How long the answer to a batch is awaited before it is sent again.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before something that failed is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often one's presence is told again: the server forgets it after 30 s.
const PRESENCE: Duration = Duration::from_secs(10);

pub(super) struct Driver {
    shared: Arc<Shared>,
    subscription: Subscription,
    calls: JoinSet<Called>,
    tells_presence: bool,
    present_again: Instant,
    pause: Duration,
    /// Nothing is sent before.
    paused_until: Option<Instant>,
    /// What was opened did not follow from what is here.
    is_astray: bool,
    /// Operations in the next batch: one alone after a batch that the server did not even look at.
    batch: usize,
}

enum Called {
    Edits(Arc<str>, usize, Outcome),
    Presence(Outcome),
}

enum Happened {
    Received(Option<Vec<Received>>),
    Called(Called),
    Woken,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, subscription: Subscription) -> Driver {
        Driver {
            shared,
            subscription,
            calls: JoinSet::new(),
            tells_presence: false,
            present_again: Instant::now() + PRESENCE,
            pause: FIRST_PAUSE,
            paused_until: None,
            is_astray: false,
            batch: BATCH,
        }
    }

    pub(super) async fn run(mut self) {
        while !self.is_over() {
            if self.shared.state.lock().lost.is_some() {
                self.reopen().await;
                continue;
            }
            let until = self.send();
            self.tell_presence();
            match self.happening(until).await {
                Happened::Received(Some(received)) => self.received(received),
                Happened::Received(None) => self.shared.end(closed()),
                Happened::Called(called) => self.called(called),
                Happened::Woken => {}
            }
        }
    }

    /// Whether there is nothing left to do, or no time for it.
    fn is_over(&self) -> bool {
        let state = self.shared.state.lock();
        match state.phase {
            Phase::Open => false,
            Phase::Leaving(until) => {
                let is_sent = state.replica.count_pending() == 0 && !state.presence.is_due;
                let is_over = (is_sent && !self.tells_presence) || Instant::now() >= until;
                drop(state);
                if is_over {
                    self.shared.end(closed());
                }
                is_over
            }
            Phase::Over(_) => true,
        }
    }

    async fn happening(&mut self, until: Option<Instant>) -> Happened {
        let leaving = match self.shared.state.lock().phase {
            Phase::Leaving(until) => Some(until),
            _ => None,
        };
        let until = [Some(self.present_again), until, leaving].into_iter().flatten().min();
        let until = until.unwrap_or(self.present_again);
        tokio::select! {
            received = self.subscription.batch() => Happened::Received(received),
            Some(called) = self.calls.join_next() => match called {
                Ok(called) => Happened::Called(called),
                Err(_) => Happened::Woken,
            },
            () = self.shared.wake.notified() => Happened::Woken,
            () = time::sleep_until(until) => Happened::Woken,
        }
    }

    fn received(&mut self, all: Vec<Received>) {
        let shared = &self.shared;
        let mut ended = None;
        shared.with(|state, out| {
            for received in all {
                match received {
                    Received::Message(message) => {
                        state.hear(&shared.id, &message.payload.bytes, out);
                    }
                    Received::Gap(gap) => {
                        let lost = state.lost.get_or_insert_default();
                        lost.reason = gap.reason.as_str();
                        lost.count = gap.count.or(lost.count);
                    }
                    Received::Resumed(replayed) => {
                        #[derive(serde::Serialize)]
                        struct Resumed {
                            replayed: u64,
                        }
                        out.told.push(telling("resumed", &shared.id, Resumed { replayed }));
                        state.lost.get_or_insert(Lost { reason: RESUMED, count: None });
                    }
                    Received::Closed(error) => ended = Some(Failure::from(error)),
                }
            }
            state.replica.freshen();
        });
        if let Some(failure) = ended {
            shared.end(failure);
        }
    }

    /// Sends what is there; if it is not the time for it, says when it is.
    fn send(&mut self) -> Option<Instant> {
        self.paused_until = self.paused_until.filter(|until| *until > Instant::now());
        if self.paused_until.is_some() {
            return self.paused_until;
        }
        let shared = &self.shared;
        let mut state = shared.state.lock();
        if let Some(own) = state.replica.next_conflicts()
            && let Some(until) = state.courtesy.wait(own)
        {
            return Some(until);
        }
        let batch = state.replica.outgoing(self.batch, BATCH_BYTES);
        drop(state);
        let (first, count) = (batch.first()?.op_id.clone(), batch.len());
        let lineage = batch[0].base.as_ref().map(|(_, lineage)| lineage.clone());
        let operations = batch.into_iter().map(written).collect();
        let (id, author) = (shared.id.clone(), shared.author.clone());
        let work =
            Opening::send(shared.opening.router.clone(), id, author, lineage, operations, PATIENCE);
        self.calls.spawn(async move { Called::Edits(first, count, work.await) });
        None
    }

    fn called(&mut self, called: Called) {
        let shared = self.shared.clone();
        match called {
            Called::Presence(outcome) => {
                self.tells_presence = false;
                if let Err(failure) = outcome
                    && is_passing(&failure)
                {
                    shared.state.lock().presence.again();
                    self.wait_a_little();
                }
            }
            Called::Edits(_, _, Ok(_)) => {
                (self.pause, self.batch) = (FIRST_PAUSE, BATCH);
            }
            Called::Edits(first, count, Err(failure)) => shared.with(|state, out| {
                if !state.replica.is_sent(&first) {
                    return;
                }
                if failure.kind == ErrorKind::NotFound {
                    // The server does not have the document any more.
                    state.replica.lost();
                    state.lost.get_or_insert(Lost { reason: "new_epoch", count: None });
                } else if is_passing(&failure) {
                    state.replica.lost();
                    self.wait_a_little();
                } else if count > 1 {
                    state.replica.lost();
                    self.batch = 1;
                } else {
                    let news = state.replica.refused(failure.code(), &failure.message);
                    state.take(&shared.id, news, None, out);
                }
            }),
        }
    }

    fn wait_a_little(&mut self) {
        self.paused_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn tell_presence(&mut self) {
        if self.tells_presence || self.paused_until.is_some() {
            return;
        }
        let shared = &self.shared;
        let again = Instant::now() >= self.present_again;
        if again {
            self.present_again = Instant::now() + PRESENCE;
        }
        let Some(told) = shared.state.lock().presence.take_due(again) else { return };
        let (router, id, timeout) =
            (shared.opening.router.clone(), shared.id.clone(), shared.options.timeout);
        let state = Value::from_json(told.to_string().as_bytes()).unwrap_or_default();
        let fields = [("author", Value::from(&*shared.author)), ("state", state)];
        self.tells_presence = true;
        self.calls.spawn(async move {
            Called::Presence(call::call(&router, "presence", &id, fields, timeout).await)
        });
    }

    async fn reopen(&mut self) {
        let shared = self.shared.clone();
        let known = {
            let replica = &shared.state.lock().replica;
            let (lineage, versions) = replica.known();
            // What leads from what is here did not fit: the content does.
            let versions = if self.is_astray { Vec::new() } else { versions };
            Known { lineage, versions, has_own: replica.has_own() }
        };
        let opened = tokio::select! {
            opened = shared.opening.ask(Some(known)) => opened,
            () = self.ended() => return,
        };
        match opened {
            Ok(way) => {
                let came = self.subscription.waiting();
                if came.iter().any(is_new_line) {
                    // Nobody knows which server answered, the one before or the one after. What the one before said of
                    // operations must not be taken for what the other one does with them.
                    return self.received(came);
                }
                let is_in_step = shared.with(|state, out| {
                    state.reopened(&shared.id, way, out);
                    state.lost.is_none()
                });
                self.is_astray = !is_in_step;
                self.received(came);
                if is_in_step {
                    (self.pause, self.paused_until) = (FIRST_PAUSE, None);
                    return;
                }
            }
            Err(failure) if !is_passing(&failure) => return shared.end(failure),
            Err(failure) => tracing::debug!(%failure, id = %shared.id, "opening a document again"),
        }
        tokio::select! {
            () = time::sleep(self.pause) => {}
            () = self.ended() => {}
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Resolves when it is over meanwhile.
    async fn ended(&self) {
        loop {
            let until = match self.shared.state.lock().phase {
                Phase::Open => None,
                Phase::Leaving(until) => Some(until),
                Phase::Over(_) => return,
            };
            let until = until.unwrap_or_else(|| Instant::now() + PRESENCE);
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = time::sleep_until(until) => if self.is_over() { return },
            }
        }
    }
}

/// Whether the server may have started again here.
fn is_new_line(received: &Received) -> bool {
    match received {
        Received::Gap(gap) => {
            matches!(gap.reason, GapReason::NewEpoch | GapReason::SessionExpired)
        }
        Received::Resumed(_) | Received::Closed(_) => true,
        Received::Message(_) => false,
    }
}

/// Whether it may be better the next time.
pub(super) fn is_passing(failure: &Failure) -> bool {
    use ErrorKind as E;
    failure.retry
        || matches!(
            failure.kind,
            E::Timeout
                | E::Unavailable
                | E::NotConnected
                | E::Disconnected
                | E::SessionLost
                | E::OutboxFull
                | E::NoResponders
                | E::StoreFailed
                | E::QuotaExceeded
        )
}

/// An operation as it travels.
fn written(outgoing: Outgoing) -> Map {
    let mut map = Map::default();
    map.push("op_id", &*outgoing.op_id);
    if let Some((version, _)) = outgoing.base {
        map.push("base_version", version.to_string());
    }
    let edits: Vec<Value> = outgoing.edits.iter().map(|edit| edit.to_value()).collect();
    map.push("edit", edits);
    map
}
