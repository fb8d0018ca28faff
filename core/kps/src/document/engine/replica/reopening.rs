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
        for draft in drafts {
            while let Some(applied) = missing.next_if(|it| it.version <= draft.base) {
                pass(self, &mut at, applied);
            }
            let is_known = draft.lineage == self.lineage && draft.base == at;
            self.pending.push_back(Pending::kept(draft, is_known));
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
                let before = self.current();
                let marks = std::mem::take(&mut self.marks);
                let (from, missing) = since.unwrap_or((opened.version, Vec::new()));
                let is_way = is_same && from == self.floor;
                if is_way {
                    self.rewind()
                } else {
                    self.strand(&snapshot, is_same)
                }
                (self.lineage, self.floor) = (opened.lineage, from);
                (self.content, self.version) = (snapshot.into(), opened.version);
                for applied in missing {
                    let own = match is_way {
                        true => self.absorb(&applied, None),
                        false => self.withdraw_by_id(&applied.op_id),
                    };
                    news.extend(own.then(|| acked(&applied)));
                    self.note(&applied, own);
                    news.push(News::Changed { applied, own });
                }
                self.look();
                self.marks = marks;
                self.marks_after(&before);
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

    /// The server has forgotten what happened after the floor. What was done here is pending again, made for the
    /// content of the floor; what others did they will do again.
    fn rewind(&mut self) {
        let mut again = VecDeque::new();
        // Leads from what there was to what there would be without the others.
        let mut without: Vec<Splice> = Vec::new();
        for (applied, own) in std::mem::take(&mut self.recent) {
            let splices = splices_of(&applied.change);
            if !own {
                without = [retraction(splices), without].concat();
                continue;
            }
            let (splices, after) = transform(splices, &without);
            without = after;
            again.extend(Pending::again(applied.op_id, applied.change, splices));
        }
        for pending in &mut self.pending {
            without = pending.meet(&without);
        }
        again.append(&mut self.pending);
        self.pending = again;
    }

    /// No known operations lead from what is here to what the server has. What was made by numbers is sent once more
    /// as it was: the server may have it already. If not, it belongs where a comparison of the two contents says.
    fn strand(&mut self, to: &Snapshot, is_same: bool) {
        // What was made for a document that nobody had edited was made for nothing, and comes after all there is.
        let is_new = self.version == Version(0) && self.rebases > 0 && !is_same;
        let recent = self.recent.iter().flat_map(|(applied, _)| splices_of(&applied.change));
        let mut way: Vec<Splice> = recent.cloned().collect();
        if let (Content::Text(before), Snapshot::Text(after)) = (&self.content, to) {
            way.push(difference(before, &Rope::from_str(after)));
        }
        let (version, lineage) = (self.version, self.lineage.clone());
        let strand = |pending: &mut Pending| {
            if !is_new && pending.is_positional() {
                pending.strand(version, &lineage, is_same);
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
