//! The task that looks after an open Yjs document: hears what the server tells, and sends what was done here.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    state::{Phase, closed},
    told::{Telling, telling},
    yjs::{Shared, State, is_worth_trying},
};
use crate::{
    capability::{Failure, Outcome, Value},
    client::{Received, Subscription},
    document::{
        engine::{Applied, Change, DocumentEvent, Level, Version},
        yjs::replica::Sending,
    },
};

/// The pause before something that failed is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often one's presence is told again.
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
    /// What was sent and not answered is sent again.
    again: bool,
}

enum Called {
    Update(Sending, Outcome),
    Presence(Outcome),
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
            again: false,
        }
    }

    pub(super) async fn run(mut self) {
        while !self.is_over() {
            if self.shared.state.lock().is_lost {
                self.sync().await;
                continue;
            }
            self.paused_until = self.paused_until.filter(|until| *until > Instant::now());
            if self.paused_until.is_none() {
                self.send();
                self.tell_presence();
            }
            let leaving = match self.shared.state.lock().phase {
                Phase::Leaving(until) => Some(until),
                _ => None,
            };
            let until = [Some(self.present_again), self.paused_until, leaving];
            let until = until.into_iter().flatten().min().unwrap_or(self.present_again);
            tokio::select! {
                received = self.subscription.batch() => match received {
                    Some(received) => self.received(received),
                    None => self.shared.end(closed()),
                },
                Some(Ok(called)) = self.calls.join_next() => self.called(called),
                () = self.shared.wake.notified() => {}
                () = time::sleep_until(until) => {}
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

    async fn sync(&mut self) {
        let shared = self.shared.clone();
        let failure = tokio::select! {
            synced = shared.sync() => match synced {
                Ok(()) => {
                    (self.pause, self.paused_until, self.again) = (FIRST_PAUSE, None, false);
                    return;
                }
                Err(failure) => failure,
            },
            () = self.ended() => return,
        };
        if !is_worth_trying(&failure) {
            return shared.end(failure);
        }
        tracing::debug!(%failure, id = %shared.id, "syncing a document");
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
                Phase::Open => Instant::now() + PRESENCE,
                Phase::Leaving(until) => until,
                Phase::Over(_) => return,
            };
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = time::sleep_until(until) => if self.is_over() { return },
            }
        }
    }

    fn received(&mut self, all: Vec<Received>) {
        let shared = &self.shared;
        let mut ended = None;
        shared.with(|state, told| {
            for received in all {
                match received {
                    Received::Message(message) => hear(shared, state, &message.payload.bytes, told),
                    Received::Gap(gap) => {
                        #[derive(serde::Serialize)]
                        struct Gap<'a> {
                            reason: &'a str,
                            count: Option<u64>,
                        }
                        state.is_lost = true;
                        let gap = Gap { reason: gap.reason.as_str(), count: gap.count };
                        told.push(telling("gap", &shared.id, gap));
                    }
                    Received::Resumed(replayed) => {
                        #[derive(serde::Serialize)]
                        struct Resumed {
                            replayed: u64,
                        }
                        told.push(telling("resumed", &shared.id, Resumed { replayed }));
                    }
                    Received::Closed(error) => ended = Some(Failure::from(error)),
                }
            }
        });
        if let Some(failure) = ended {
            shared.end(failure);
        }
    }

    fn send(&mut self) {
        let shared = &self.shared;
        let sending = {
            let mut state = shared.state.lock();
            match std::mem::take(&mut self.again) {
                true => state.replica.again(),
                false => state.replica.outgoing(|| shared.new_op_id()),
            }
        };
        let Some(sending) = sending else { return };
        let shared = self.shared.clone();
        self.calls.spawn(async move {
            let fields = [
                ("op_id", Value::from(&*sending.op_id)),
                ("author", Value::from(&*shared.author)),
                ("update", Value::from(sending.update.clone())),
            ];
            let outcome = shared.call("update", fields).await;
            Called::Update(sending, outcome)
        });
    }

    fn called(&mut self, called: Called) {
        let shared = self.shared.clone();
        match called {
            Called::Presence(outcome) => {
                self.tells_presence = false;
                if outcome.is_err_and(|failure| is_worth_trying(&failure)) {
                    shared.state.lock().presence.again();
                    self.wait_a_little();
                }
            }
            Called::Update(sending, Ok(answer)) => {
                self.pause = FIRST_PAUSE;
                let Some(event) = first(&answer) else { return };
                shared.with(|state, told| settle(&shared, state, &sending, event, told));
            }
            Called::Update(sending, Err(failure)) if is_worth_trying(&failure) => {
                let mut state = shared.state.lock();
                // A server that does not know the document any more gets all of it.
                state.is_lost |= failure.kind == kps_proto::ErrorKind::NotFound;
                self.again = state.replica.again().is_some_and(|it| it.op_id == sending.op_id);
                drop(state);
                self.wait_a_little();
            }
            Called::Update(sending, Err(failure)) => shared.with(|state, told| {
                state.replica.over(&sending.op_id);
                told.push(failed(&shared, &sending, failure.code(), &failure.message));
            }),
        }
    }

    fn wait_a_little(&mut self) {
        self.paused_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn tell_presence(&mut self) {
        if self.tells_presence {
            return;
        }
        let again = Instant::now() >= self.present_again;
        if again {
            self.present_again = Instant::now() + PRESENCE;
        }
        let Some(told) = self.shared.state.lock().presence.take_due(again) else { return };
        let shared = self.shared.clone();
        self.tells_presence = true;
        self.calls.spawn(async move {
            let state = Value::from_json(told.to_string().as_bytes()).unwrap_or_default();
            let fields = [("author", Value::from(&*shared.author)), ("state", state)];
            Called::Presence(shared.call("presence", fields).await)
        });
    }
}

fn first(answer: &Value) -> Option<DocumentEvent> {
    let Some(Value::List(results)) = answer.get("results") else { return None };
    super::call::plain(results.first()?)
}

/// What became of what was sent.
fn settle(
    shared: &Shared,
    state: &mut State,
    sending: &Sending,
    event: DocumentEvent,
    told: &mut Vec<Telling>,
) {
    match event {
        DocumentEvent::Ack { op_id, version, .. } => state.replica.acked(&op_id, version),
        DocumentEvent::Rejected { code, message, .. } => {
            state.replica.over(&sending.op_id);
            told.push(failed(shared, sending, &code, &message));
        }
        _ => {}
    }
}

fn failed(shared: &Shared, sending: &Sending, code: &str, message: &str) -> Telling {
    #[derive(serde::Serialize)]
    struct Failed<'a> {
        op_id: &'a str,
        code: &'a str,
        message: &'a str,
    }
    telling("failed", &shared.id, Failed { op_id: &sending.op_id, code, message })
}

/// An event of the document's topic.
fn hear(shared: &Shared, state: &mut State, json: &bytes::Bytes, told: &mut Vec<Telling>) {
    let Ok(event) = serde_json::from_slice::<DocumentEvent>(json) else { return };
    told.push((event.name().into(), json.clone()));
    match event {
        DocumentEvent::Change { applied, .. } => {
            let Applied { version, change: Change::Update(update), .. } = applied else { return };
            state.replica.heard(version);
            match update.is_empty() {
                // It was too large for an event.
                true => state.is_lost = true,
                false => shared.take(state, &update, told),
            }
        }
        DocumentEvent::Checkpoint { version, level: Level::Checkpointed, .. } => {
            state.replica.stored(version);
        }
        DocumentEvent::Presence { .. } => state.presence.hear_json(json, Version::default()),
        _ => {}
    }
}
