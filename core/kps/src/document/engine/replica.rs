//! A client's side of a document: what the server has, what was edited here and the server does not have
//! yet, and what both come to.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use ropey::Rope;
use serde::{Deserialize, Serialize};

use super::{
    Change,
    content::{Content, Kind, Snapshot},
    edit::{Edit, Place, Range},
    event::{DocumentEvent, Level},
    json,
    operation::Applied,
    reject::{Code, Reject},
    splice::{Splice, retraction, transform},
    version::Version,
};

/// What the server says when a document is opened, or opened again.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) kind: Kind,
    pub(crate) lineage: Arc<str>,
    pub(crate) version: Version,
    /// Everything up to here is in the server's store.
    pub(crate) checkpointed: Version,
    /// Whether the server's store outlives the server.
    pub(crate) durable: bool,
    /// A version that the client said it knows, and all operations after it.
    pub(crate) since: Option<(Version, Vec<Applied>)>,
    /// The content, unless `since` begins with the version that the client has.
    pub(crate) snapshot: Option<Snapshot>,
}

/// What happened, for the program.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    /// The content the server has changed; `own`: by this client.
    Changed { applied: Applied, own: bool },
    /// An operation of this client is in the document.
    Acked { op_id: Arc<str>, version: Version, level: Level },
    /// An operation of this client was made for a version that is not the server's any more; `rebased`: it
    /// is sent again.
    Conflict { op_id: Arc<str>, server_version: Version, rebased: bool },
    /// An operation of this client will never be in the document.
    Failed { op_id: Arc<str>, code: String, message: String },
    /// What the server told does not fit what is here: the document is to be opened again.
    OutOfStep,
}

/// An operation to send. The one after it follows from it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) op_id: Arc<str>,
    /// `None`: it follows the one before in its batch.
    pub(crate) base: Option<(Version, Arc<str>)>,
    pub(crate) edits: Vec<Edit>,
}

/// How an edit behaves among those of others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    /// At the same place its text comes first, not theirs.
    pub(crate) sticks: bool,
    /// Conflicts after which it is given up, if they are not the replica's own.
    pub(crate) rebases: Option<u32>,
}

/// An operation as it is kept for another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Draft {
    op_id: Arc<str>,
    /// What it was made for: that version, and the operations that were kept before it.
    pub(crate) base: Version,
    pub(crate) lineage: Arc<str>,
    edits: Vec<Edit>,
    splices: Vec<Splice>,
}

/// An operation that the server is not known to have.
#[derive(Clone, Debug)]
struct Pending {
    op_id: Arc<str>,
    edits: Vec<Edit>,
    /// What they do to the text before them; empty for JSON.
    splices: Vec<Splice>,
    manners: Manners,
    /// Bytes of its edits, when they were made.
    weight: usize,
    is_sent: bool,
    conflicts: u32,
    /// The version and lineage it was made for, from which no way leads to the server's.
    stranded: Option<(Version, Arc<str>)>,
}

/// A document as a client has it.
#[derive(Debug)]
pub(crate) struct Replica {
    lineage: Arc<str>,
    version: Version,
    /// What the server has at the version.
    content: Content,
    /// The same with all that is pending, unless it is stale.
    view: Content,
    is_stale: bool,
    pending: VecDeque<Pending>,
    checkpointed: Version,
    durable: bool,
    /// What happened after `checkpointed`, and whether by this client: a server that crashes forgets it.
    recent: VecDeque<(Applied, bool)>,
    /// Conflicts after which an operation is given up; 0: whatever others do before it is one.
    rebases: u32,
    /// Places in the view, which move with what others do.
    marks: BTreeMap<u64, usize>,
    last_mark: u64,
}

impl Replica {
    /// What was opened; `rebases`: how often an operation is sent again after a conflict.
    pub(crate) fn new(opened: Opened, rebases: u32) -> Replica {
        let content = opened.snapshot.map_or_else(|| Content::empty(opened.kind), Content::from);
        Replica {
            lineage: opened.lineage,
            version: opened.version,
            view: content.clone(),
            is_stale: false,
            content,
            pending: VecDeque::new(),
            checkpointed: opened.checkpointed,
            durable: opened.durable,
            recent: VecDeque::new(),
            rebases,
            marks: BTreeMap::new(),
            last_mark: 0,
        }
    }

    /// The content, own edits that are pending included.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.current().snapshot()
    }

    /// The server's version, as far as it is known.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The versions that the server may be asked to begin with, the best first.
    pub(crate) fn known(&self) -> (Arc<str>, Vec<Version>) {
        (self.lineage.clone(), vec![self.version, self.checkpointed])
    }

    /// Own operations that a crash of the server now would lose, oldest first.
    pub(crate) fn unsynced(&self) -> Vec<Arc<str>> {
        let applied = self.recent.iter().filter(|(_, own)| *own).map(|(it, _)| &it.op_id);
        applied.chain(self.pending.iter().map(|it| &it.op_id)).cloned().collect()
    }

    /// Everything up to here is in the server's store.
    pub(crate) fn checkpointed(&self) -> Version {
        self.checkpointed
    }

    /// Everything up to this version is in the server's store.
    pub(crate) fn stored(&mut self, version: Version) -> Vec<News> {
        let mut news = Vec::new();
        if version <= self.version {
            self.checkpoint(version, &mut news);
        }
        news
    }

    /// How often the operation to send next was in conflict; `None`: nothing is to be sent.
    pub(crate) fn next_conflicts(&self) -> Option<u32> {
        self.pending.front().filter(|it| !it.is_sent).map(|it| it.conflicts)
    }

    /// Whether this operation was sent, and nothing heard of it yet.
    pub(crate) fn is_sent(&self, op_id: &str) -> bool {
        self.pending.iter().any(|it| it.is_sent && *it.op_id == *op_id)
    }

    /// How many operations are pending.
    pub(crate) fn count_pending(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of what is pending, about.
    pub(crate) fn weigh_pending(&self) -> usize {
        self.pending.iter().map(|it| it.weight).sum()
    }

    /// Code points of the text with all that is pending.
    pub(crate) fn length(&self) -> usize {
        match &self.current() {
            Content::Text(text) => text.len_chars(),
            Content::Json(_) => 0,
        }
    }

    /// What leads from the server's content to the view.
    pub(crate) fn own_splices(&self) -> impl DoubleEndedIterator<Item = &Splice> {
        self.pending.iter().flat_map(|it| &it.splices)
    }

    /// Code points from the start to what `edits` would do to the view first.
    ///
    /// # Errors
    /// What the server would say of them.
    pub(crate) fn place_of(&self, edits: &[Edit]) -> Result<usize, Reject> {
        match self.current().resolve(edits)? {
            Change::Splices(splices) => Ok(splices.first().map_or(0, |splice| splice.at)),
            Change::Changes(_) | Change::Update(_) => Ok(0),
        }
    }

    /// A place in the view that moves with what others do.
    pub(crate) fn mark(&mut self, place: usize) -> u64 {
        self.last_mark += 1;
        self.marks.insert(self.last_mark, place);
        self.last_mark
    }

    /// Where it is now.
    pub(crate) fn marked(&self, mark: u64) -> usize {
        self.marks.get(&mark).copied().unwrap_or(0).min(self.length())
    }

    /// It is somewhere else.
    pub(crate) fn move_mark(&mut self, mark: u64, place: usize) {
        self.marks.insert(mark, place);
    }

    /// It is not needed any more.
    pub(crate) fn unmark(&mut self, mark: u64) {
        self.marks.remove(&mark);
    }

    /// Edits the view; the operation is pending from now on.
    ///
    /// # Errors
    /// What the server would say of it.
    pub(crate) fn edit(
        &mut self,
        op_id: Arc<str>,
        mut edits: Vec<Edit>,
        manners: Manners,
    ) -> Result<(), Reject> {
        self.freshen();
        let change = self.view.resolve(&edits)?;
        self.view.apply(&change, usize::MAX)?;
        let splices = match change {
            Change::Splices(splices) => splices,
            Change::Changes(_) | Change::Update(_) => Vec::new(),
        };
        if edits.iter().any(Edit::is_positional) && !edits.iter().all(Edit::is_positional) {
            // Numbers count what the others do: they can only be moved together.
            edits = positional(&splices);
        }
        self.pending.push_back(Pending {
            op_id,
            weight: json::weight(&edits),
            edits,
            splices,
            manners,
            is_sent: false,
            conflicts: 0,
            stranded: None,
        });
        Ok(())
    }

    /// The operation of just now was none.
    pub(crate) fn take_back(&mut self, op_id: &str) {
        self.pending.retain(|it| *it.op_id != *op_id);
        self.look();
    }

    /// The operation that was edited last.
    pub(crate) fn draft(&self) -> Option<Draft> {
        let last = self.pending.back()?;
        Some(Draft {
            op_id: last.op_id.clone(),
            base: self.version,
            lineage: self.lineage.clone(),
            edits: last.edits.clone(),
            splices: last.splices.clone(),
        })
    }

    /// What another process left is pending again, oldest first. `since`: what the server did since the first of
    /// them was made.
    pub(crate) fn restore(
        &mut self,
        drafts: Vec<Draft>,
        since: Option<(Version, Vec<Applied>)>,
    ) -> Vec<News> {
        let mut news = Vec::new();
        let from = since.as_ref().map(|(from, _)| *from);
        let (mut at, missing) = since.unwrap_or_default();
        let mut missing = missing.into_iter().peekable();
        let mut pass = |this: &mut Self, applied: Applied| {
            let own = this.absorb(&applied, Some(at));
            at = applied.version;
            this.note(&applied, own);
            news.extend(own.then(|| acked(&applied)));
        };
        for draft in drafts {
            while let Some(applied) = missing.next_if(|it| it.version <= draft.base) {
                pass(self, applied);
            }
            let is_known = draft.lineage == self.lineage && from.is_some_and(|it| it <= draft.base);
            let mut pending = Pending {
                op_id: draft.op_id,
                weight: json::weight(&draft.edits),
                edits: draft.edits,
                splices: if is_known { draft.splices } else { Vec::new() },
                manners: Manners::default(),
                is_sent: false,
                conflicts: 0,
                stranded: None,
            };
            if !is_known && pending.is_positional() {
                pending.stranded = Some((draft.base, draft.lineage));
            }
            self.pending.push_back(pending);
        }
        missing.for_each(|applied| pass(self, applied));
        self.checkpoint(self.checkpointed, &mut news);
        self.look();
        news
    }

    /// Whether a crash of the server now would lose this own operation.
    pub(crate) fn is_unsynced(&self, op_id: &str) -> bool {
        self.recent.iter().any(|(it, own)| *own && *it.op_id == *op_id)
            || self.pending.iter().any(|it| *it.op_id == *op_id)
    }

    /// Whether all of it could be edited, one after the other.
    ///
    /// # Errors
    /// What the server would say of the first that cannot.
    pub(crate) fn check<'a>(
        &self,
        operations: impl IntoIterator<Item = &'a Vec<Edit>>,
    ) -> Result<(), Reject> {
        let mut view = self.current();
        for edits in operations {
            let change = view.resolve(edits)?;
            view.apply(&change, usize::MAX)?;
        }
        Ok(())
    }

    /// What to send now: nothing while something is on its way.
    pub(crate) fn outgoing(&mut self, most: usize, most_bytes: usize) -> Vec<Outgoing> {
        if self.pending.iter().any(|it| it.is_sent) {
            return Vec::new();
        }
        let mut bytes = 0;
        let mut batch = Vec::new();
        for pending in self.pending.iter_mut().take(most.max(1)) {
            bytes += json::weight(&pending.edits);
            if !batch.is_empty() && (pending.stranded.is_some() || bytes > most_bytes) {
                break;
            }
            pending.is_sent = true;
            let now = || (self.version, self.lineage.clone());
            let is_first = batch.is_empty();
            let base = is_first.then(|| pending.stranded.clone().unwrap_or_else(now));
            let (op_id, edits) = (pending.op_id.clone(), pending.edits.clone());
            batch.push(Outgoing { op_id, base, edits });
            if pending.stranded.is_some() {
                break;
            }
        }
        batch
    }

    /// Nobody knows what became of what was sent: it is sent again.
    pub(crate) fn lost(&mut self) {
        self.pending.iter_mut().for_each(|it| it.is_sent = false);
    }

    /// The server did not even look at what was sent: the first of it will never be in the document.
    pub(crate) fn refused(&mut self, code: &str, message: &str) -> Vec<News> {
        let mut news = Vec::new();
        let first = self.pending.iter().position(|it| it.is_sent);
        self.lost();
        if let Some(place) = first {
            self.give_up(place, code, message, &mut news);
        }
        news
    }

    /// The server told something.
    pub(crate) fn hear(&mut self, event: DocumentEvent) -> Vec<News> {
        let mut news = Vec::new();
        match event {
            DocumentEvent::Change { previous, applied, .. } => {
                self.change(previous, applied, &mut news);
            }
            DocumentEvent::Ack { op_id, version, .. } => self.acked(&op_id, version, &mut news),
            DocumentEvent::Conflict {
                op_id, base_version, server_version, missing_ops, ..
            } => {
                let missing = missing_ops.map(|missing| (base_version, missing));
                self.conflict(&op_id, server_version, missing, &mut news);
            }
            DocumentEvent::Rejected { op_id, code, message, .. } => {
                self.rejected(&op_id, code, message, &mut news);
            }
            // One who has not heard what is stored does not know either whether its own is among it: after a crash it
            // is not.
            DocumentEvent::Checkpoint { version, level: Level::Checkpointed, .. }
                if version > self.version =>
            {
                news.push(News::OutOfStep);
            }
            DocumentEvent::Checkpoint { version, level: Level::Checkpointed, .. } => {
                self.checkpoint(version, &mut news);
            }
            DocumentEvent::Checkpoint { .. }
            | DocumentEvent::StoreFailed { .. }
            | DocumentEvent::Presence { .. } => {}
        }
        news
    }

    /// The document was opened again, after a connection or messages were lost.
    pub(crate) fn reopened(&mut self, opened: Opened) -> Vec<News> {
        let mut news = Vec::new();
        self.lost();
        let is_same = opened.lineage == self.lineage;
        let since = opened.since.filter(|_| is_same);
        match (since, opened.snapshot) {
            (Some((from, missing)), _) if from == self.version => {
                for applied in missing {
                    let previous = self.version;
                    self.change(previous, applied, &mut news);
                }
            }
            (since, Some(snapshot)) => {
                let before = self.current();
                match since {
                    Some((from, missing)) if from == self.checkpointed => {
                        self.rewind();
                        for applied in &missing {
                            let own = self.absorb(applied, None);
                            news.push(News::Changed { applied: applied.clone(), own });
                            news.extend(own.then(|| acked(applied)));
                            self.note(applied, own);
                        }
                    }
                    _ if self.is_new() && !is_same => self.follow(&snapshot),
                    _ => self.strand(),
                }
                self.lineage = opened.lineage;
                self.content = snapshot.into();
                self.version = opened.version;
                self.look();
                self.marks_after(&before);
            }
            _ => return vec![News::OutOfStep],
        }
        self.durable = opened.durable;
        self.checkpoint(opened.checkpointed, &mut news);
        self.look();
        news
    }

    fn change(&mut self, previous: Version, applied: Applied, news: &mut Vec<News>) {
        if applied.version <= self.version {
            return;
        }
        if previous != self.version || self.content.apply(&applied.change, usize::MAX).is_err() {
            news.push(News::OutOfStep);
            return;
        }
        self.version = applied.version;
        let own = self.absorb(&applied, Some(previous));
        self.note(&applied, own);
        if !own || self.pending.is_empty() {
            self.look();
        }
        news.extend(own.then(|| acked(&applied)));
        news.push(News::Changed { applied, own });
    }

    /// What the server did is under what is pending now, or is one of them. Returns whether it is.
    /// `before`: the version that pending ones were made for.
    fn absorb(&mut self, applied: &Applied, before: Option<Version>) -> bool {
        let own = self.pending.iter().position(|it| it.op_id == applied.op_id);
        if let Some(before) = before.filter(|_| self.rebases == 0 && own.is_none()) {
            // They say so to the server, and hear from it what they missed.
            for pending in &mut self.pending {
                pending.stranded.get_or_insert_with(|| (before, self.lineage.clone()));
            }
        }
        let Change::Splices(splices) = &applied.change else {
            own.map(|place| self.pending.remove(place));
            return own.is_some();
        };
        // Those after it were made with it.
        let moved = own.unwrap_or(self.pending.len());
        let mut theirs = splices.clone();
        for pending in self.pending.iter_mut().take(moved) {
            theirs = pending.meet(&theirs);
        }
        match own {
            Some(place) => drop(self.pending.remove(place)),
            None => self.move_marks(&theirs),
        }
        own.is_some()
    }

    fn move_marks(&mut self, splices: &[Splice]) {
        for place in self.marks.values_mut() {
            *place = moved_place(*place, splices);
        }
    }

    fn note(&mut self, applied: &Applied, own: bool) {
        if self.durable {
            self.recent.push_back((applied.clone(), own));
        }
    }

    /// The view, again.
    fn look(&mut self) {
        self.is_stale = true;
    }

    /// Makes the view, if that is to be done: once after however much was heard.
    pub(crate) fn freshen(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        self.view = self.content.clone();
        for pending in &mut self.pending {
            // What does not fit any more the server will reject.
            let Ok(change) = self.view.resolve(&pending.edits) else { continue };
            if self.view.apply(&change, usize::MAX).is_ok()
                && let Change::Splices(splices) = change
            {
                pending.splices = splices;
            }
        }
    }

    fn acked(&mut self, op_id: &Arc<str>, version: Version, news: &mut Vec<News>) {
        let Some(place) = self.pending.iter().position(|it| it.op_id == *op_id) else { return };
        if version > self.version {
            // It was applied, and not heard of.
            self.pending[place].is_sent = false;
            news.push(News::OutOfStep);
            return;
        }
        self.pending.remove(place);
        self.look();
        news.push(News::Acked { op_id: op_id.clone(), version, level: Level::Applied });
    }

    fn conflict(
        &mut self,
        op_id: &Arc<str>,
        server_version: Version,
        missing: Option<(Version, Vec<Applied>)>,
        news: &mut Vec<News>,
    ) {
        let Some(place) = self.pending.iter().position(|it| it.op_id == *op_id) else { return };
        let pending = &mut self.pending[place];
        pending.is_sent = false;
        pending.conflicts += 1;
        let is_lost = pending.stranded.take().is_some() && pending.is_positional();
        let most = match self.rebases {
            0 => 0,
            most => pending.manners.rebases.unwrap_or(most),
        };
        let rebased = !is_lost && pending.conflicts <= most;
        news.push(News::Conflict { op_id: op_id.clone(), server_version, rebased });
        if !rebased {
            let message = "others changed the document meanwhile; look at it and edit again";
            self.give_up(place, "conflict", message, news);
        }
        if server_version > self.version {
            match missing {
                Some((mut previous, missing)) if previous <= self.version => {
                    for applied in missing {
                        let version = applied.version;
                        self.change(previous, applied, news);
                        previous = version;
                    }
                }
                _ => news.push(News::OutOfStep),
            }
        }
    }

    fn rejected(&mut self, op_id: &Arc<str>, code: String, message: String, news: &mut Vec<News>) {
        let Some(place) = self.pending.iter().position(|it| it.op_id == *op_id) else { return };
        if code == Code::Skipped.as_str() {
            self.pending[place].is_sent = false;
        } else if code == Code::OpIdReused.as_str() {
            // Ids are used once here: it is this one, as it was before it was moved.
            let op_id = op_id.clone();
            self.pending.remove(place);
            self.look();
            news.push(News::Acked { op_id, version: self.version, level: Level::Applied });
        } else {
            self.give_up(place, &code, &message, news);
        }
    }

    /// What was edited after it was made with it: it is made without it now, or if nothing is to be rebased
    /// given up as well.
    fn give_up(&mut self, place: usize, code: &str, message: &str, news: &mut Vec<News>) {
        let failed = |op_id| News::Failed { op_id, code: code.into(), message: message.into() };
        let last = if self.rebases == 0 { self.pending.len() } else { place + 1 };
        let at = news.len();
        for place in (place..last).rev() {
            let Some(pending) = self.pending.remove(place) else { continue };
            let mut theirs = retraction(&pending.splices);
            for later in self.pending.iter_mut().skip(place) {
                theirs = later.meet(&theirs);
            }
            self.move_marks(&theirs);
            news.insert(at, failed(pending.op_id));
        }
        self.look();
    }

    fn checkpoint(&mut self, version: Version, news: &mut Vec<News>) {
        self.checkpointed = self.checkpointed.max(version);
        while self.recent.front().is_some_and(|(applied, _)| applied.version <= version)
            && let Some((applied, own)) = self.recent.pop_front()
        {
            let level = Level::Checkpointed;
            news.extend(own.then_some(News::Acked { op_id: applied.op_id, version, level }));
        }
    }

    /// The view as it would be made now.
    fn current(&self) -> Content {
        if !self.is_stale {
            return self.view.clone();
        }
        let mut view = self.content.clone();
        for pending in &self.pending {
            if let Ok(change) = view.resolve(&pending.edits) {
                // As above.
                let _ = view.apply(&change, usize::MAX);
            }
        }
        view
    }

    /// Where marks are, if nobody knows how the view came from what it was `before`.
    fn marks_after(&mut self, before: &Content) {
        if self.marks.is_empty() {
            return;
        }
        self.freshen();
        if let (Content::Text(before), Content::Text(after)) = (before, &self.view) {
            let splice = difference(before, after);
            self.move_marks(&[splice]);
        }
    }

    /// The server has forgotten what happened after the checkpoint. What was done here is pending again, made
    /// for the content of the checkpoint; what others did they will do again.
    fn rewind(&mut self) {
        let mut again = VecDeque::new();
        // Leads from what there was to what there would be without the others.
        let mut without: Vec<Splice> = Vec::new();
        for (applied, own) in std::mem::take(&mut self.recent) {
            let (splices, edits) = match applied.change {
                Change::Splices(splices) => (splices, None),
                Change::Changes(changes) => (Vec::new(), Some(json_edits(changes))),
                Change::Update(_) => continue,
            };
            if !own {
                without = [retraction(&splices), without].concat();
                continue;
            }
            let (splices, after) = transform(&splices, &without);
            without = after;
            again.push_back(Pending {
                op_id: applied.op_id,
                weight: 0,
                edits: edits.unwrap_or_else(|| positional(&splices)),
                splices,
                manners: Manners::default(),
                is_sent: false,
                conflicts: 0,
                stranded: None,
            });
        }
        for pending in &mut self.pending {
            without = pending.meet(&without);
        }
        again.append(&mut self.pending);
        self.pending = again;
    }

    /// Whether what is pending was made for a document that nobody had edited, and may be moved.
    fn is_new(&self) -> bool {
        self.version == Version(0) && self.rebases > 0
    }

    /// Nobody had edited the document that is gone, as far as is known here: what was made for it was made for
    /// nothing, which comes after all that is there now.
    fn follow(&mut self, snapshot: &Snapshot) {
        let Snapshot::Text(text) = snapshot else { return };
        let mut theirs = vec![Splice { at: 0, delete: 0, insert: text.clone() }];
        for pending in &mut self.pending {
            theirs = pending.meet(&theirs);
        }
    }

    /// No way leads from what is here to what the server has. What was made by numbers is sent once more as
    /// it was: the server may have it already.
    fn strand(&mut self) {
        let from = (self.version, self.lineage.clone());
        for (applied, _) in
            std::mem::take(&mut self.recent).into_iter().filter(|(_, own)| *own).rev()
        {
            let edits = match applied.change {
                Change::Splices(splices) => positional(&splices),
                Change::Changes(changes) => json_edits(changes),
                Change::Update(_) => continue,
            };
            self.pending.push_front(Pending {
                op_id: applied.op_id,
                weight: 0,
                edits,
                splices: Vec::new(),
                manners: Manners::default(),
                is_sent: false,
                conflicts: 0,
                stranded: None,
            });
        }
        for pending in &mut self.pending {
            if pending.is_positional() && pending.stranded.is_none() {
                pending.stranded = Some(from.clone());
            }
        }
    }
}

impl Pending {
    /// Moves it over what others did before it; returns what they did, for what comes after it.
    fn meet(&mut self, theirs: &[Splice]) -> Vec<Splice> {
        let (splices, theirs) = if self.manners.sticks {
            let (theirs, splices) = transform(theirs, &self.splices);
            (splices, theirs)
        } else {
            transform(&self.splices, theirs)
        };
        self.splices = splices;
        if self.is_positional() && self.stranded.is_none() {
            self.edits = positional(&self.splices);
        }
        theirs
    }

    fn is_positional(&self) -> bool {
        self.edits.iter().any(Edit::is_positional)
    }
}

/// A place in a text after `splices`. It stays where it is if something is inserted right there.
pub(crate) fn moved_place(mut place: usize, splices: &[Splice]) -> usize {
    for splice in splices {
        let end = splice.at + splice.delete;
        if place > splice.at {
            let inserted = splice.insert.chars().count();
            place = if place < end { splice.at } else { place - splice.delete + inserted };
        }
    }
    place
}

/// One splice that leads from one text to the other.
fn difference(before: &Rope, after: &Rope) -> Splice {
    let same = |(a, b): &(char, char)| a == b;
    let start = before.chars().zip(after.chars()).take_while(same).count();
    let most = before.len_chars().min(after.len_chars()) - start;
    let (from, to) = (before.len_chars(), after.len_chars());
    let backwards = before.chars_at(from).reversed().zip(after.chars_at(to).reversed());
    let end = backwards.take(most).take_while(same).count();
    let insert = after.slice(start..to - end).to_string();
    Splice { at: start, delete: from - end - start, insert }
}

fn acked(applied: &Applied) -> News {
    let (op_id, version) = (applied.op_id.clone(), applied.version);
    News::Acked { op_id, version, level: Level::Applied }
}

/// The same by numbers alone.
fn positional(splices: &[Splice]) -> Vec<Edit> {
    let edit = |splice: &Splice| {
        let (position, length, text) = (splice.at, splice.delete, splice.insert.clone());
        match (length, text.is_empty()) {
            (0, _) => Edit::Insert { place: Place::At { position }, text },
            (_, true) => Edit::Delete { range: Range::At { position, length } },
            (_, false) => Edit::Replace { range: Range::At { position, length }, text },
        }
    };
    splices.iter().map(edit).collect()
}

fn json_edits(changes: Vec<super::JsonChange>) -> Vec<Edit> {
    let edit = |change| match change {
        super::JsonChange::Patch(patch) => Edit::Patch { patch },
        super::JsonChange::Merge(merge) => Edit::Merge { merge },
    };
    changes.into_iter().map(edit).collect()
}
