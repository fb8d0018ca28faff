//! A client's side of a document: what the server has, what was edited here and the server does not have
//! yet, and what both come to.

mod pending;
mod reopening;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

pub(crate) use self::pending::{Draft, Manners, Outgoing};
use self::pending::{Pending, positional};
use super::{
    Change,
    content::{Content, Kind, Snapshot},
    edit::Edit,
    event::{DocumentEvent, Level},
    operation::Applied,
    reject::{Code, Reject},
    splice::{Splice, retraction},
    version::Version,
};

/// Bytes of what is not stored that are kept, if they are others': as many as a server keeps, by default.
const RECENT: usize = 16 << 20;

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
    /// A version, and all operations after it: one that the client said it knows, or the one that is stored.
    pub(crate) since: Option<(Version, Vec<Applied>)>,
    /// The content at `version`, unless `since` begins with the version that the client has.
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
    /// What happened after `floor`, and whether by this client: a server that crashes forgets it.
    recent: VecDeque<(Applied, bool)>,
    recent_bytes: usize,
    /// Own ones that the server has not stored, and that came with a content and not by themselves: with the versions
    /// they made. As if they were made for the content.
    loose: VecDeque<(Version, Pending)>,
    /// The checkpoint, or the earliest version after it from which on everything is known here.
    floor: Version,
    /// Conflicts after which an operation is given up; 0: whatever others do before it is one.
    rebases: u32,
    /// Places in the view, which move with what others do.
    marks: BTreeMap<u64, usize>,
    last_mark: u64,
}

impl Replica {
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
        (self.lineage.clone(), vec![self.version, self.floor])
    }

    /// Whether there are own operations that may have to be moved over what happened.
    pub(crate) fn has_own(&self) -> bool {
        let is_any = !self.pending.is_empty() || !self.loose.is_empty();
        is_any || self.recent.iter().any(|(_, own)| *own)
    }

    /// Own operations that a crash of the server now would lose, oldest first.
    pub(crate) fn unsynced(&self) -> Vec<Arc<str>> {
        let loose = self.loose.iter().map(|(_, it)| &it.op_id);
        let recent = self.recent.iter().filter(|(_, own)| *own).map(|(it, _)| &it.op_id);
        loose.chain(recent).chain(self.pending.iter().map(|it| &it.op_id)).cloned().collect()
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

    /// Whether the server is not known to have this own operation.
    pub(crate) fn is_pending(&self, op_id: &str) -> bool {
        self.pending.iter().any(|it| *it.op_id == *op_id)
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
        self.pending.push_back(Pending { manners, ..Pending::new(op_id, edits, splices) });
        Ok(())
    }

    /// The operation of just now was none.
    pub(crate) fn take_back(&mut self, op_id: &str) {
        self.pending.retain(|it| *it.op_id != *op_id);
        self.look();
    }

    /// The operation that was edited last.
    pub(crate) fn draft(&self) -> Option<Draft> {
        let mut latest = self.pending.iter().rev();
        let (last, before) = (latest.next()?, latest.next());
        let after = before.map(|it| it.op_id.clone());
        Some(last.draft(self.version, self.lineage.clone(), after))
    }

    /// Whether a crash of the server now would lose this own operation.
    pub(crate) fn is_unsynced(&self, op_id: &str) -> bool {
        self.is_pending(op_id)
            || self.loose.iter().any(|(_, it)| *it.op_id == *op_id)
            || self.recent.iter().any(|(it, own)| *own && *it.op_id == *op_id)
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
            bytes += super::json::weight(&pending.edits);
            if !batch.is_empty() && (pending.stranded.is_some() || bytes > most_bytes) {
                break;
            }
            pending.is_sent = true;
            let made_for = || match &pending.stranded {
                Some(stranded) => (stranded.version, stranded.lineage.clone()),
                None => (self.version, self.lineage.clone()),
            };
            let base = batch.is_empty().then(made_for);
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
            DocumentEvent::Ack { op_id, version, level, .. } => {
                self.acked(&op_id, version, level, &mut news);
            }
            DocumentEvent::Conflict {
                op_id, base_version, server_version, missing_ops, ..
            } => {
                let missing = missing_ops.map(|missing| (base_version, missing));
                self.conflict(&op_id, server_version, missing, &mut news);
            }
            DocumentEvent::Rejected { op_id, code, message, version, .. } => {
                self.rejected(&op_id, code, message, version, &mut news);
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
            for pending in self.pending.iter_mut().filter(|it| !it.was_applied) {
                pending.strand(before, &self.lineage, true);
            }
        }
        let Change::Splices(splices) = &applied.change else {
            own.map(|place| self.pending.remove(place));
            return own.is_some();
        };
        // Those after it were made with it, also if nobody kept it because it is stored.
        let is_after = |it: &Pending| it.after.as_ref() == Some(&applied.op_id);
        let made_with = own.or_else(|| self.pending.iter().position(is_after));
        let moved = made_with.unwrap_or(self.pending.len());
        self.loose.iter_mut().for_each(|(_, loose)| drop(loose.meet(splices)));
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
        if !self.durable {
            return;
        }
        self.recent_bytes += applied.weight();
        self.recent.push_back((applied.clone(), own));
        // What a server cannot store for long is not kept for ever: there is no way back to before it.
        while self.recent_bytes > RECENT
            && let Some((applied, _)) = pop_if(&mut self.recent, |(_, own)| !*own)
        {
            self.recent_bytes -= applied.weight();
            self.floor = applied.version;
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
            let Ok(change) = pending.change(&self.view) else { continue };
            if self.view.apply(&change, usize::MAX).is_ok()
                && let Change::Splices(splices) = change
            {
                pending.splices = splices;
            }
        }
    }

    fn acked(&mut self, op_id: &Arc<str>, version: Version, level: Level, news: &mut Vec<News>) {
        let Some(place) = self.pending.iter().position(|it| it.op_id == *op_id) else { return };
        if version > self.version {
            // It was applied, and not heard of.
            self.pending[place].is_sent = false;
            news.push(News::OutOfStep);
            return;
        }
        // The content has it, and came without a word of it.
        let pending = self.withdraw(place);
        if level == Level::Applied && self.durable && version > self.checkpointed {
            let again = |it| Pending { is_sent: false, stranded: None, was_applied: true, ..it };
            self.loose.extend(pending.map(|it| (version, again(it))));
        }
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
        let stranded = pending.stranded.take();
        let was_stranded = stranded.is_some();
        let is_lost = stranded.is_some_and(|it| !it.is_moved) && pending.is_positional();
        if was_stranded && pending.is_positional() {
            pending.edits = positional(&pending.splices);
        }
        let most = match self.rebases {
            // Its author was told that it is applied.
            0 if pending.was_applied => u32::MAX,
            0 => 0,
            most => pending.manners.rebases.unwrap_or(most),
        };
        let rebased = !is_lost && pending.conflicts <= most;
        news.push(News::Conflict { op_id: op_id.clone(), server_version, rebased });
        if !rebased {
            let message = "others changed the document meanwhile; look at it and edit again";
            self.give_up(place, "conflict", message, news);
        }
        match missing {
            Some((mut previous, missing)) if previous <= self.version => {
                for applied in missing {
                    let version = applied.version;
                    self.change(previous, applied, news);
                    previous = version;
                }
            }
            // The server does not know what it was made for.
            _ if server_version > self.version || !was_stranded => news.push(News::OutOfStep),
            _ => {}
        }
    }

    fn rejected(
        &mut self,
        op_id: &Arc<str>,
        code: String,
        message: String,
        version: Version,
        news: &mut Vec<News>,
    ) {
        let Some(place) = self.pending.iter().position(|it| it.op_id == *op_id) else { return };
        if code == Code::Skipped.as_str() {
            self.pending[place].is_sent = false;
        } else if code == Code::OpIdReused.as_str() {
            // Ids are used once here: it is this one, as it was before it was moved.
            self.acked(op_id, version, Level::Applied, news);
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
            if let Some(pending) = self.withdraw(place) {
                news.insert(at, failed(pending.op_id));
            }
        }
    }

    /// It is not pending any more. What was edited after it was made with it, and is made without it now.
    fn withdraw(&mut self, place: usize) -> Option<Pending> {
        let pending = self.pending.remove(place)?;
        let mut theirs = retraction(&pending.splices);
        for later in self.pending.iter_mut().skip(place) {
            theirs = later.meet(&theirs);
        }
        self.move_marks(&theirs);
        self.look();
        Some(pending)
    }

    fn checkpoint(&mut self, version: Version, news: &mut Vec<News>) {
        self.checkpointed = self.checkpointed.max(version);
        self.floor = self.floor.max(version.min(self.version));
        let level = Level::Checkpointed;
        while let Some((_, it)) = pop_if(&mut self.loose, |(made, _)| *made <= version) {
            news.push(News::Acked { op_id: it.op_id, version, level });
        }
        while let Some((applied, own)) = pop_if(&mut self.recent, |(it, _)| it.version <= version) {
            self.recent_bytes -= applied.weight();
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
            if let Ok(change) = pending.change(&view) {
                // As above.
                let _ = view.apply(&change, usize::MAX);
            }
        }
        view
    }
}

/// The first one, if it is so.
fn pop_if<T>(queue: &mut VecDeque<T>, is_so: impl FnOnce(&T) -> bool) -> Option<T> {
    queue.front().is_some_and(is_so).then(|| queue.pop_front())?
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

fn acked(applied: &Applied) -> News {
    let (op_id, version) = (applied.op_id.clone(), applied.version);
    News::Acked { op_id, version, level: Level::Applied }
}
