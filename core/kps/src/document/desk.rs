//! An open document: what is in memory, what of it is stored, and who is told.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use kps_proto::ErrorKind;

#[cfg(feature = "yjs")]
use super::{
    engine::Change,
    yjs::{Peer, Peers},
};
use super::{
    engine::{Applied, Code, DocumentEvent, Kind, Level, Operation, Outcome, Reject, Version},
    held::Held,
    options::DocumentOptions,
    shelf::{Name, Run, Shelf, Stored, Writing},
};
use crate::capability::Failure;

/// Segments after which all is stored as one.
const MANY_SEGMENTS: usize = 64;
/// The pause after a store that failed, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Tells a document's topic, in order.
pub(crate) type Teller = Arc<dyn Fn(&Name, &DocumentEvent) + Send + Sync>;

/// An open document.
pub(super) struct Desk {
    name: Name,
    pub(super) document: Held,
    durable: bool,
    teller: Teller,
    /// What the stored base is known by; `None`: nothing is stored.
    mark: Option<String>,
    base: Version,
    segments: BTreeSet<Version>,
    stored: Version,
    run: Run,
    /// Whether `run` is stored as one that is open.
    pub(super) is_announced: bool,
    unstored: usize,
    /// Operations that are applied and not stored, oldest first.
    applied: VecDeque<Mine>,
    /// What is stored may not be what was thought: all of it is written again.
    is_doubtful: bool,
    dirty_since: Option<u64>,
    pub(super) used: u64,
    failing: Option<Failing>,
    /// Yjs editors that are connected.
    #[cfg(feature = "yjs")]
    pub(super) peers: Peers,
    /// Updates of editors, which have no ids.
    #[cfg(feature = "yjs")]
    merged: u64,
}

/// An operation whose author is told once it is stored.
struct Mine {
    op_id: Arc<str>,
    author: Arc<str>,
    version: Version,
}

struct Failing {
    code: &'static str,
    again: u64,
    pause: Duration,
}

/// What is stored, once it is.
pub(super) struct Plan {
    writing: Writing,
    version: Version,
    base: Option<Version>,
    segment: Option<Version>,
    count: usize,
}

impl Plan {
    pub(super) fn take_writing(&mut self) -> Writing {
        std::mem::take(&mut self.writing)
    }
}

impl Desk {
    /// What is stored, or if nothing is a new document of this kind.
    pub(super) fn open(
        name: &Name,
        stored: Stored,
        kind: Option<Kind>,
        shelf: &dyn Shelf,
        options: &DocumentOptions,
        teller: Teller,
    ) -> Result<Desk, Failure> {
        let now = (options.now)();
        let limits = options.limits.clone();
        let held = Held::restored(&stored, limits.clone()).map_err(|error| {
            let sentence = format!("what is stored of document {:?} is damaged: {error}", name.1);
            Failure::new(ErrorKind::StoreCorrupt, sentence)
        })?;
        let mut document = match held {
            Some(held) => held,
            None => {
                let kind = kind.ok_or_else(|| {
                    let sentence =
                        format!("there is no document {:?}; document.open makes one", name.1);
                    Failure::new(ErrorKind::NotFound, sentence)
                })?;
                let lineage = format!("{:016x}", getrandom::u64().unwrap_or(now));
                Held::new(kind, lineage.into(), limits)?
            }
        };
        let last = document.version();
        let pending = options.limits.pending as u64;
        let start = match stored.run {
            None => Version(0),
            Some(run) if run.closed => last.max(run.start),
            // It ended without a goodbye: versions that were told are not given again.
            Some(run) => Version(last.max(run.start).0 + pending),
        };
        document.reserve(start);
        let durable = shelf.is_durable();
        if durable {
            document.stored(last);
        }
        Ok(Desk {
            name: name.clone(),
            base: document.oldest(),
            document,
            durable,
            teller,
            mark: stored.mark,
            segments: stored.segments.into_keys().collect(),
            stored: last,
            run: Run { start, closed: false },
            is_announced: false,
            unstored: 0,
            applied: VecDeque::new(),
            is_doubtful: false,
            dirty_since: None,
            used: now,
            failing: None,
            #[cfg(feature = "yjs")]
            peers: Peers::default(),
            #[cfg(feature = "yjs")]
            merged: 0,
        })
    }

    /// What has to be stored before the first operation: that there are versions which may be told and lost.
    pub(super) fn announcement(&self) -> Writing {
        let writing =
            Writing { mark: self.mark.clone(), run: Some(self.run), ..Writing::default() };
        // A new one is stored with it: after a crash it is the same one still, and not another of its name.
        let base = self.is_new().then(|| self.document.saved_base());
        Writing { base: base.flatten().map(Into::into), ..writing }
    }

    /// It is stored.
    pub(super) fn announced(&mut self, mark: Option<String>) {
        self.mark = mark;
        self.is_announced = true;
    }

    /// Whether nothing of it is stored.
    pub(super) fn is_new(&self) -> bool {
        self.mark.is_none()
    }

    /// How safe everything up to a version is.
    pub(super) fn level(&self, version: Version) -> Level {
        if self.durable && version <= self.stored { Level::Checkpointed } else { Level::Applied }
    }

    /// Up to which version everything is stored.
    pub(super) fn stored(&self) -> Version {
        self.stored
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Whether something of it is not stored: it must stay in memory.
    pub(super) fn is_busy(&self) -> bool {
        self.unstored > 0 || self.is_announced
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// Applies an operation and tells everybody; returns what was told who asked.
    pub(super) fn apply(
        &mut self,
        operation: &Operation,
        options: &DocumentOptions,
    ) -> DocumentEvent {
        let now = (options.now)();
        let outcome = match self.unstored < options.limits.pending {
            true => self.document.apply(operation, now),
            false => self.too_many_pending(),
        };
        let base = operation.base_version;
        self.settle(outcome, &operation.op_id, &operation.author, base, now)
    }

    /// Takes back an author's last operations.
    pub(super) fn undo(
        &mut self,
        op_id: &Arc<str>,
        author: &Arc<str>,
        count: usize,
        options: &DocumentOptions,
    ) -> DocumentEvent {
        let now = (options.now)();
        let base = self.document.version();
        let outcome = self.document.undo(op_id, author, count, now);
        self.settle(outcome, op_id, author, base, now)
    }

    /// Merges an update and tells everybody; returns what was told who asked.
    #[cfg(feature = "yjs")]
    pub(super) fn update(
        &mut self,
        op_id: &Arc<str>,
        author: &Arc<str>,
        update: &[u8],
        options: &DocumentOptions,
    ) -> DocumentEvent {
        let now = (options.now)();
        let outcome = match (&mut self.document, self.unstored < options.limits.pending) {
            (Held::Yjs(document), true) => document.apply(op_id, author, update, now),
            (Held::Versioned(_), _) => {
                let sentence = "only a Yjs document takes updates; this one is changed by edit";
                Outcome::Rejected(Reject::new(Code::WrongKind, sentence))
            }
            (_, false) => self.too_many_pending(),
        };
        let base = self.document.version();
        self.settle(outcome, op_id, author, base, now)
    }

    /// Merges an editor's update and tells everybody; what is told of it has an id of its own.
    #[cfg(feature = "yjs")]
    pub(super) fn merge(
        &mut self,
        peer: &Peer,
        author: &Arc<str>,
        update: &[u8],
        options: &DocumentOptions,
    ) -> Result<(), Reject> {
        let now = (options.now)();
        self.merged += 1;
        // Each run begins at another version.
        let op_id: Arc<str> = format!("yjs-{}-{}", self.run.start.0, self.merged).into();
        let outcome = match (&mut self.document, self.unstored < options.limits.pending) {
            (Held::Yjs(document), true) => document.merge(&op_id, author, update, now),
            _ => self.too_many_pending(),
        };
        match outcome {
            Outcome::Applied(previous, applied) => {
                self.unstored += 1;
                self.dirty_since.get_or_insert(now);
                self.changed(previous, applied, Some(peer.id()));
                Ok(())
            }
            Outcome::Rejected(reject) => Err(reject),
            Outcome::Repeated(_) | Outcome::Conflict { .. } => Ok(()),
        }
    }

    /// Tells the bus which editors came, changed or left.
    #[cfg(feature = "yjs")]
    pub(super) fn tell_present(&mut self) {
        for (client, state) in self.peers.awareness.news() {
            let client: Arc<str> = editor(client).into();
            let state = state.and_then(|state| serde_json::from_str(&state).ok());
            let (id, author) = (self.name.1.clone(), client.clone());
            self.tell(&DocumentEvent::Presence { id, client, author, state });
        }
    }

    fn too_many_pending(&self) -> Outcome {
        let sentence = format!("{} operations wait to be stored; try again later", self.unstored);
        Outcome::Rejected(Reject::new(Code::TooManyPending, sentence))
    }

    /// Keeps so many operations alone, if all are stored.
    pub(super) fn compact(&mut self, keep: usize, options: &DocumentOptions) {
        let before = self.document.oldest();
        self.document.compact(keep);
        if self.document.oldest() > before {
            self.unstored += 1;
            self.dirty_since.get_or_insert((options.now)());
        }
    }

    /// Tells that an operation is rejected.
    pub(super) fn reject(
        &self,
        op_id: &Arc<str>,
        author: &Arc<str>,
        reject: Reject,
    ) -> DocumentEvent {
        let event = DocumentEvent::Rejected {
            id: self.name.1.clone(),
            op_id: op_id.clone(),
            author: author.clone(),
            code: reject.code.to_string(),
            message: reject.message,
            version: self.document.version(),
        };
        self.tell(&event);
        event
    }

    fn settle(
        &mut self,
        outcome: Outcome,
        op_id: &Arc<str>,
        author: &Arc<str>,
        base_version: Version,
        now: u64,
    ) -> DocumentEvent {
        let (id, op_id, author) = (self.name.1.clone(), op_id.clone(), author.clone());
        let event = match outcome {
            Outcome::Applied(previous, applied) => {
                let version = applied.version;
                self.unstored += 1;
                self.dirty_since.get_or_insert(now);
                if self.durable {
                    let (op_id, author) = (op_id.clone(), author.clone());
                    self.applied.push_back(Mine { op_id, author, version });
                }
                self.changed(previous, applied, None);
                DocumentEvent::Ack { id, op_id, author, version, level: Level::Applied }
            }
            Outcome::Repeated(version) => {
                DocumentEvent::Ack { id, op_id, author, version, level: self.level(version) }
            }
            Outcome::Conflict { server_version, missing_ops, snapshot } => {
                DocumentEvent::Conflict {
                    id,
                    op_id,
                    author,
                    base_version,
                    server_version,
                    missing_ops,
                    snapshot,
                }
            }
            Outcome::Rejected(reject) => return self.reject(&op_id, &author, reject),
        };
        self.tell(&event);
        event
    }

    /// Tells of a change; `from`: the editor that made it knows.
    fn changed(&mut self, previous: Version, applied: Applied, from: Option<u64>) {
        #[cfg(feature = "yjs")]
        if let (Change::Update(update), Held::Yjs(document)) = (&applied.change, &self.document) {
            self.peers.updated(update, from, document.is_waiting());
        }
        #[cfg(not(feature = "yjs"))]
        let _ = from;
        self.tell(&DocumentEvent::Change { id: self.name.1.clone(), previous, applied });
    }

    fn tell(&self, event: &DocumentEvent) {
        (self.teller)(&self.name, event);
    }

    /// Whether so many more are too many to be lost at once: those that there are have to be stored first.
    pub(super) fn is_crowded(&self, count: usize, options: &DocumentOptions) -> bool {
        let is_over = self.unstored + count > options.checkpoint_operations;
        self.durable && self.unstored > 0 && is_over && self.failing.is_none()
    }

    /// Whether it is time to store.
    pub(super) fn is_due(&self, options: &DocumentOptions) -> bool {
        let Some(since) = self.dirty_since else { return false };
        let now = (options.now)();
        if let Some(failing) = &self.failing {
            return now >= failing.again;
        }
        let every = u64::try_from(options.checkpoint_every.as_millis()).unwrap_or(u64::MAX);
        self.unstored >= options.checkpoint_operations || now.saturating_sub(since) >= every
    }

    /// What to store; `None` if there is nothing. `close`: with the note that nothing is missing then.
    pub(super) fn plan(&mut self, close: bool) -> Option<Plan> {
        let run = (close && self.is_announced).then_some(Run { closed: true, ..self.run });
        // Whatever comes from now on announces itself again.
        self.is_announced &= run.is_none();
        if self.unstored == 0 {
            let writing = Writing { run: Some(run?), ..Writing::default() };
            let version = self.stored;
            return Some(Plan { writing, version, base: None, segment: None, count: 0 });
        }
        let (version, mark) = (self.document.version(), self.mark.clone());
        // Folded is what was stored as operations, or never was.
        let is_whole = self.is_doubtful
            || self.mark.is_none()
            || self.document.oldest() > self.base
            || self.segments.len() >= MANY_SEGMENTS;
        let mut writing = Writing { mark, run, ..Writing::default() };
        let mut base = None;
        let from = if is_whole {
            base = Some(self.document.oldest());
            writing.base = Some(self.document.saved_base()?.into());
            writing.gone = self.segments.iter().copied().collect();
            self.document.oldest()
        } else {
            self.stored
        };
        let segment = self.document.saved_since(from);
        let first = segment.as_ref().map(|(first, _)| *first);
        writing.segment = segment.map(|(first, bytes)| (first, bytes.into()));
        Some(Plan { writing, version, base, segment: first, count: self.unstored })
    }

    /// What was planned is stored.
    pub(super) fn done(&mut self, plan: Plan, mark: Option<String>, now: u64) {
        if plan.count > 0 {
            self.mark = mark;
        }
        if let Some(base) = plan.base {
            self.base = base;
            self.segments.clear();
        }
        self.segments.extend(plan.segment);
        (self.failing, self.is_doubtful) = (None, false);
        self.unstored -= plan.count;
        self.dirty_since = (self.unstored > 0).then_some(now);
        if plan.version > self.stored {
            self.stored = plan.version;
            if self.durable {
                self.document.stored(plan.version);
            }
            self.tell_stored();
        }
    }

    fn tell_stored(&mut self) {
        let (id, level) = (self.name.1.clone(), self.level(self.stored));
        while self.applied.front().is_some_and(|it| it.version <= self.stored)
            && let Some(Mine { op_id, author, version }) = self.applied.pop_front()
        {
            let id = id.clone();
            self.tell(&DocumentEvent::Ack { id, op_id, author, version, level });
        }
        self.tell(&DocumentEvent::Checkpoint { id, version: self.stored, level });
    }

    /// Somebody stored it meanwhile, or nobody knows whether what was written last is there. If what is there
    /// is this document, all of it is written in its place; an empty one is no document's.
    pub(super) fn look_again(&mut self, stored: Stored) {
        let is_this = stored.base.as_ref().is_some_and(|base| self.document.is_stored_as(base));
        if is_this {
            self.mark = stored.mark;
            self.segments = stored.segments.into_keys().collect();
            self.is_doubtful = true;
        }
    }

    /// It could not be stored: it stays in memory, and is tried again.
    pub(super) fn failed(&mut self, failure: &Failure, now: u64) {
        let before = self.failing.as_ref();
        let pause = before.map_or(FIRST_PAUSE, |it| (it.pause * 2).min(LONGEST_PAUSE));
        let is_new = before.is_none_or(|it| it.code != failure.code());
        let again = now + pause.as_millis() as u64;
        self.failing = Some(Failing { code: failure.code(), again, pause });
        if is_new {
            let (namespace, id) = &self.name;
            tracing::warn!(%failure, %namespace, %id, "a document could not be stored; it is kept in memory");
            self.tell(&DocumentEvent::StoreFailed {
                id: id.clone(),
                version: self.stored,
                code: failure.code().into(),
                message: failure.message.clone(),
            });
        }
    }

    /// Why it is not stored, if that was tried.
    pub(super) fn failing(&self) -> Option<&'static str> {
        self.failing.as_ref().map(|failing| failing.code)
    }
}

/// How the bus calls an editor.
#[cfg(feature = "yjs")]
pub(super) fn editor(client: u64) -> String {
    format!("yjs:{client}")
}
