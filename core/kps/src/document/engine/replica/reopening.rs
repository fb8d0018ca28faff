//! Opening a document, with what another process left or after a connection, messages, or the server itself were
//! lost: what was edited here finds its place in what the server has now.

use std::collections::VecDeque;

use ropey::Rope;

use super::{
    super::{
        Change,
        content::{Content, Snapshot},
        operation::Applied,
        splice::{Splice, retraction, transform},
        version::Version,
    },
    Draft, News, Opened, Pending, Replica, acked,
};

impl Replica {
    /// What was opened, and nothing is pending.
    #[cfg(test)]
    pub(crate) fn new(opened: Opened, rebases: u32) -> Replica {
        Replica::with_drafts(opened, rebases, Vec::new()).0
    }

    /// What was opened, and what another process left is pending again: `drafts`, oldest first. `rebases`: how often an
    /// operation is sent again after a conflict.
    pub(crate) fn with_drafts(
        opened: Opened,
        rebases: u32,
        drafts: Vec<Draft>,
    ) -> (Replica, Vec<News>) {
        let content = opened.snapshot.map_or_else(|| Content::empty(opened.kind), Content::from);
        let (from, missing) = opened.since.unwrap_or((opened.version, Vec::new()));
        let mut replica = Replica {
            lineage: opened.lineage,
            version: opened.version,
            view: content.clone(),
            is_stale: false,
            content,
            pending: VecDeque::new(),
            checkpointed: Version(0),
            durable: opened.durable,
            recent: VecDeque::new(),
            recent_bytes: 0,
            loose: VecDeque::new(),
            floor: from,
            rebases,
            marks: Default::default(),
            last_mark: 0,
        };
        let mut news = replica.restore(drafts, from, missing);
        replica.checkpoint(opened.checkpointed, &mut news);
        (replica, news)
    }

    /// `missing`: what the server did since `at`.
    fn restore(&mut self, drafts: Vec<Draft>, mut at: Version, missing: Vec<Applied>) -> Vec<News> {
        let mut news = Vec::new();
        let mut missing = missing.into_iter().peekable();
        let mut pass = |this: &mut Self, at: &mut Version, applied: Applied| {
            let own = this.absorb(&applied, Some(*at));
            *at = applied.version;
            this.note(&applied, own);
            news.extend(own.then(|| acked(&applied)));
        };
        // Leads from what a draft was made with to what is here, without those of which nobody knows where they were.
        let mut without: Vec<Splice> = Vec::new();
        for draft in drafts {
            let is_same = draft.lineage == self.lineage;
            while let Some(applied) = missing.next_if(|it| is_same && it.version <= draft.base) {
                pass(self, &mut at, applied);
            }
            if draft.after.is_none() {
                without.clear();
            }
            if is_same && draft.base == at {
                let mut pending = Pending::kept(draft);
                without = pending.meet(&without);
                self.pending.push_back(pending);
            } else {
                without.splice(..0, retraction(&draft.splices));
                self.pending.push_back(Pending::adrift(draft));
            }
        }
        missing.for_each(|applied| pass(self, &mut at, applied));
        self.look();
        news
    }

    /// The document was opened again.
    pub(crate) fn reopened(&mut self, opened: Opened) -> Vec<News> {
        let mut news = Vec::new();
        self.lost();
        let is_same = opened.lineage == self.lineage;
        match (opened.since, opened.snapshot) {
            (Some((from, missing)), _) if is_same && from == self.version => {
                for applied in missing {
                    let previous = self.version;
                    self.change(previous, applied, &mut news);
                }
            }
            (since, Some(snapshot)) => {
                let (from, missing) = since.unwrap_or((opened.version, Vec::new()));
                let is_way = is_same && from == self.floor;
                if is_way {
                    self.rewind()
                } else {
                    self.jump(&snapshot, is_same)
                }
                (self.lineage, self.floor) = (opened.lineage, from);
                (self.content, self.version) = (snapshot.into(), opened.version);
                let mut previous = from;
                for applied in missing {
                    let own = match is_way {
                        true => self.absorb(&applied, Some(previous)),
                        false => self.withdraw_by_id(&applied.op_id),
                    };
                    previous = applied.version;
                    news.extend(own.then(|| acked(&applied)));
                    self.note(&applied, own);
                    news.push(News::Changed { applied, own });
                }
            }
            _ => return vec![News::OutOfStep],
        }
        self.durable = opened.durable;
        self.checkpoint(opened.checkpointed, &mut news);
        self.look();
        news
    }

    fn withdraw_by_id(&mut self, op_id: &str) -> bool {
        let place = self.pending.iter().position(|it| *it.op_id == *op_id);
        place.is_some_and(|place| self.withdraw(place).is_some())
    }

    /// The server has forgotten what happened after the floor. What was done here is pending again, made for the
    /// content of the floor; what others did they will do again.
    fn rewind(&mut self) {
        let mut again = VecDeque::new();
        // Leads from what there was to what there would be without the others …
        let mut without: Vec<Splice> = Vec::new();
        // … and before it comes the undoing of what they did since the last own one.
        let mut theirs: Vec<Change> = Vec::new();
        let undone = |theirs: &mut Vec<Change>| -> Vec<Splice> {
            theirs.drain(..).rev().flat_map(|change| retraction(splices_of(&change))).collect()
        };
        self.recent_bytes = 0;
        for (applied, own) in std::mem::take(&mut self.recent) {
            if !own {
                theirs.push(applied.change);
                continue;
            }
            without.splice(..0, undone(&mut theirs));
            let (splices, after) = transform(splices_of(&applied.change), &without);
            without = after;
            again.extend(Pending::again(applied.op_id, applied.change, splices));
        }
        without.splice(..0, undone(&mut theirs));
        for pending in &mut self.pending {
            without = pending.meet(&without);
        }
        self.move_marks(&without);
        again.append(&mut self.pending);
        self.pending = again;
    }

    /// No known operations lead from what is here to what the server has. What was edited is sent once more as it was, one
    /// after the other: the content may have it already. If not, it belongs where a comparison of the two contents says.
    fn jump(&mut self, to: &Snapshot, is_same: bool) {
        // What was made for a document that nobody had edited was made for nothing, and comes after all there is.
        let is_new = self.version == Version(0) && self.rebases > 0 && !is_same;
        let difference = match (&self.content, to) {
            (Content::Text(before), Snapshot::Text(after)) => {
                vec![difference(before, &Rope::from_str(after))]
            }
            _ => Vec::new(),
        };
        let recent = self.recent.iter().flat_map(|(applied, _)| splices_of(&applied.change));
        let mut way: Vec<Splice> = recent.chain(&difference).cloned().collect();
        let (version, lineage, rebases) = (self.version, self.lineage.clone(), self.rebases);
        let strand = |pending: &mut Pending| {
            if !is_new {
                // It was made for a version and those that were pending before it: after a crash there may be that
                // version again, without them. One who does not rebase is told what came after it.
                let is_strict = rebases == 0 && !pending.was_applied;
                pending.strand(if is_strict { version } else { Version::NEVER }, &lineage, is_same);
            }
        };
        // Those that were sent before those that are to be sent again: they stay as the server may have them.
        self.pending.iter_mut().for_each(strand);
        self.rewind();
        for pending in &mut self.pending {
            strand(pending);
            if is_new || is_same {
                way = pending.meet(&way);
            }
        }
        self.move_marks(&way);
        for (_, mut pending) in std::mem::take(&mut self.loose) {
            strand(&mut pending);
            pending.meet(&difference);
            for before in &self.pending {
                pending.meet(&before.splices);
            }
            self.pending.push_back(pending);
        }
    }
}

fn splices_of(change: &Change) -> &[Splice] {
    match change {
        Change::Splices(splices) => splices,
        Change::Changes(_) | Change::Update(_) => &[],
    }
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
