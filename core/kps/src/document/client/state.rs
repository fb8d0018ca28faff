//! What the handles of an open document and its driver share.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kps_proto::ErrorKind;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    OpenDocument,
    courtesy::Courtesy,
    drafts::{Claim, Drafts},
    edits::{Edited, Refused},
    opening::{Opening, Way},
    presence::{Presence, Present},
    told::{Listeners, Telling, telling},
};
use crate::{
    capability::Failure,
    document::engine::{
        DocumentEvent, Edit, Level, Manners, News, Opened, Reject, Replica, Version,
    },
};

/// Operations that wait for the server.
const MOST: usize = 10_000;
/// Bytes of them, after which no further one is taken.
const MOST_BYTES: usize = 64 << 20;

/// Why a document is opened again although no message is missing: the server may have started again, and its document
/// lost what its topic has.
pub(super) const RESUMED: &str = "resumed";

/// The event that tells who is there.
const PRESENCE: &str = "presence";

/// Called with what became of an operation.
pub(super) type Waiter = Box<dyn FnOnce(Result<Edited, Refused>) + Send>;

pub(super) struct Shared {
    pub(super) id: Arc<str>,
    pub(super) author: Arc<str>,
    pub(super) options: OpenDocument,
    /// If what is edited is kept on disk as well.
    pub(super) claim: Mutex<Option<Claim>>,
    pub(super) opening: Opening,
    pub(super) state: Mutex<State>,
    pub(super) listeners: Listeners,
    /// The driver is to look what there is to do.
    pub(super) wake: Notify,
    /// Counts what happened, for those who wait for something.
    progress: watch::Sender<u64>,
    op_ids: (String, AtomicU64),
}

pub(super) struct State {
    pub(super) replica: Replica,
    pub(super) presence: Presence,
    pub(super) courtesy: Courtesy,
    pub(super) phase: Phase,
    /// What is here does not lead to what the server has: it is opened again. What was lost, if that was told.
    pub(super) lost: Option<Lost>,
    waiters: HashMap<Arc<str>, Waiter>,
}

#[derive(Debug)]
pub(super) enum Phase {
    Open,
    /// No handle is left; what is pending is sent until then.
    Leaving(Instant),
    Over(Failure),
}

/// Why a document is opened again.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Lost {
    pub(super) reason: &'static str,
    pub(super) count: Option<u64>,
}

/// What an event is about. Of those about operations of others, which are most of them, nothing else is read.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    op_id: Option<Cow<'a, str>>,
}

/// What is to be told when the state is unlocked.
#[derive(Default)]
pub(super) struct Out {
    pub(super) told: Vec<Telling>,
    answers: Vec<(Waiter, Result<Edited, Refused>)>,
    /// Operations that need not be kept on disk any more.
    done: Vec<Arc<str>>,
}

impl Shared {
    pub(super) fn new(
        id: &str,
        author: String,
        options: OpenDocument,
        opening: Opening,
        way: Way,
        kept: Drafts,
    ) -> Shared {
        let rebases = if options.rebase { options.rebases.max(1) } else { 0 };
        let mut parts = way.parts.into_iter();
        let first = parts.next().expect("a way has one part at least");
        let (replica, news) = Replica::with_drafts(first, rebases, kept.all);
        let state = State {
            replica,
            presence: Presence::default(),
            courtesy: Courtesy::default(),
            phase: Phase::Open,
            lost: None,
            waiters: HashMap::new(),
        };
        // Without a source of chance ids are unique among this process' alone.
        let prefix = format!("{:016x}", getrandom::u64().unwrap_or_default());
        let shared = Shared {
            id: id.into(),
            author: author.into(),
            options,
            claim: Mutex::new(kept.claim),
            opening,
            state: Mutex::new(state),
            listeners: Listeners::default(),
            wake: Notify::new(),
            progress: watch::Sender::new(0),
            op_ids: (prefix, AtomicU64::new(0)),
        };
        shared.with(|state, out| {
            state.take(id, news, None, out);
            state.follow(id, parts, way.present, out);
        });
        shared
    }

    pub(super) fn new_op_id(&self) -> Arc<str> {
        let (prefix, last) = &self.op_ids;
        format!("{prefix}-{}", last.fetch_add(1, Ordering::Relaxed) + 1).into()
    }

    /// Changes the state, and tells what came of it.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State, &mut Out) -> T) -> T {
        let mut out = Out::default();
        let result = change(&mut self.state.lock(), &mut out);
        self.tell(out);
        result
    }

    fn tell(&self, out: Out) {
        self.forget(&out.done);
        self.listeners.tell(&self.id, &out.told);
        for (waiter, answer) in out.answers {
            waiter(answer);
        }
        self.progress.send_modify(|count| *count += 1);
    }

    /// Waits until `is_so`.
    pub(super) async fn until(&self, is_so: impl Fn(&State) -> bool) -> Result<(), Failure> {
        let mut progress = self.progress.subscribe();
        loop {
            {
                let state = self.state.lock();
                if let Phase::Over(failure) = &state.phase {
                    return Err(failure.clone());
                }
                if is_so(&state) {
                    return Ok(());
                }
            }
            // Its sender is right here.
            let _ = progress.changed().await;
        }
    }

    /// Nobody has it any more: the driver ends when everything is sent.
    pub(super) fn leave(&self, within: Duration) {
        self.set_presence(None);
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Open) {
            let timer = crate::runtime::now() + within;
            state.phase = Phase::Leaving(crate::runtime::instant(timer));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// It is over: who waits is told why.
    pub(super) fn end(&self, why: Failure) {
        self.with(|state, out| state.end(&self.id, why, out));
        self.claim.lock().take();
        self.wake.notify_one();
    }

    /// Everything up to this version is in the server's store.
    pub(super) fn stored(&self, version: Version) {
        self.with(|state, out| {
            // One that is opened again hears of it then: what it asked for begins at what it knows now.
            if state.lost.is_none() {
                let news = state.replica.stored(version);
                state.take(&self.id, news, None, out);
            }
        });
    }
}

impl State {
    /// Whether nothing is known to be missing here.
    pub(super) fn is_in_step(&self) -> bool {
        self.lost.is_none() && matches!(self.phase, Phase::Open)
    }

    pub(super) fn check_open(&self) -> Result<(), Failure> {
        match &self.phase {
            Phase::Over(failure) => Err(failure.clone()),
            Phase::Open | Phase::Leaving(_) => Ok(()),
        }
    }

    /// Whether one more may wait for the server.
    pub(super) fn check_room(&self) -> Result<(), Failure> {
        self.check_open()?;
        let (count, bytes) = (self.replica.count_pending(), self.replica.weigh_pending());
        if count < MOST && bytes < MOST_BYTES {
            return Ok(());
        }
        let sentence = format!(
            "{count} operations of {bytes} bytes wait for the server; wait for some of them"
        );
        Err(Failure::new(ErrorKind::OutboxFull, sentence))
    }

    pub(super) fn edit(
        &mut self,
        op_id: Arc<str>,
        edits: Vec<Edit>,
        manners: Manners,
        waiter: Waiter,
    ) -> Result<(), Reject> {
        self.replica.edit(op_id.clone(), edits, manners)?;
        self.waiters.insert(op_id, waiter);
        Ok(())
    }

    /// An edit of just now was none.
    pub(super) fn take_back(&mut self, op_id: &str) {
        self.waiters.remove(op_id);
        self.replica.take_back(op_id);
    }

    /// An event of the document's topic.
    pub(super) fn hear(&mut self, id: &str, json: &Bytes, out: &mut Out) {
        let Ok(head) = serde_json::from_slice::<Head>(json) else { return };
        out.told.push((head.event.as_ref().into(), json.clone()));
        let op_id = head.op_id.as_deref().unwrap_or_default();
        match &*head.event {
            PRESENCE => return self.presence.hear_json(json, self.replica.version()),
            "conflict" if !self.replica.is_pending(op_id) => return self.courtesy.conflict(op_id),
            "ack" | "rejected" => {
                self.courtesy.over(op_id);
                if !self.replica.is_pending(op_id) {
                    return;
                }
            }
            _ => {}
        }
        if self.lost.is_some() {
            // What is opened has it already; or it is what a server lost that is there no more.
            return;
        }
        // One that newer servers tell changes nothing of the content.
        let Ok(event) = serde_json::from_slice::<DocumentEvent>(json) else { return };
        let about = event.op_id().cloned();
        let news = self.replica.hear(event);
        self.take(id, news, about.map(|op_id| (op_id, json.clone())), out);
    }

    /// What came of what was heard; `about`: the operation that the server's event was about, and the event.
    pub(super) fn take(
        &mut self,
        id: &str,
        news: Vec<News>,
        about: Option<(Arc<str>, Bytes)>,
        out: &mut Out,
    ) {
        for news in news {
            match news {
                News::Changed { applied, .. } => self.presence.changed(&applied),
                News::Acked { op_id, version, level: Level::Applied } => {
                    if !self.replica.is_unsynced(&op_id) {
                        out.done.push(op_id.clone());
                    }
                    if let Some(waiter) = self.waiters.remove(&op_id) {
                        let edited = Edited { op_id, version, level: Level::Applied };
                        out.answers.push((waiter, Ok(edited)));
                    }
                }
                News::Failed { op_id, code, message } => {
                    #[derive(Serialize)]
                    struct Failed<'a> {
                        op_id: &'a str,
                        code: &'a str,
                        message: &'a str,
                    }
                    let failed = Failed { op_id: &op_id, code: &code, message: &message };
                    out.told.push(telling("failed", id, failed));
                    out.done.push(op_id.clone());
                    // Those after a conflict fail with it.
                    let event = about.as_ref().map(|(_, json)| json.clone());
                    if let Some(waiter) = self.waiters.remove(&op_id) {
                        out.answers.push((waiter, Err(Refused { code, message, event })));
                    }
                }
                News::OutOfStep => {
                    self.lost.get_or_insert(Lost { reason: "overflow", count: None });
                }
                News::Acked { op_id, level: Level::Checkpointed, .. } => out.done.push(op_id),
                News::Conflict { .. } => {}
            }
        }
    }

    /// It was opened again.
    pub(super) fn reopened(&mut self, id: &str, way: Way, out: &mut Out) {
        let lost = self.lost.take();
        self.follow(id, way.parts, way.present, out);
        if self.lost.is_none()
            && let Some(lost) = lost
            && lost.reason != RESUMED
        {
            #[derive(Serialize)]
            struct Gap {
                #[serde(flatten)]
                lost: Lost,
                version: Version,
            }
            out.told.push(telling("gap", id, Gap { lost, version: self.replica.version() }));
        }
    }

    fn follow(
        &mut self,
        id: &str,
        parts: impl IntoIterator<Item = Opened>,
        present: Vec<Present>,
        out: &mut Out,
    ) {
        for opened in parts {
            let news = self.replica.reopened(opened);
            self.take(id, news, None, out);
        }
        self.presence.opened(present, self.replica.version());
    }

    fn end(&mut self, id: &str, why: Failure, out: &mut Out) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        let waiting = std::mem::take(&mut self.waiters).into_values();
        out.answers.extend(waiting.map(|waiter| (waiter, Err(why.clone().into()))));
        #[derive(Serialize)]
        struct Closed<'a> {
            code: &'a str,
            message: &'a str,
        }
        let closed = Closed { code: why.code(), message: &why.message };
        out.told.push(telling("closed", id, closed));
        self.phase = Phase::Over(why);
    }
}

pub(super) fn closed() -> Failure {
    Failure::new(ErrorKind::Closed, "the document is closed; open it again")
}
