//! Taking back one's own last operations, as a new operation.

use std::{collections::HashSet, sync::Arc};

use super::{
    Change, Document, Outcome,
    content::Content,
    json::{JsonChange, inverse},
    operation::{Applied, Digest},
    reject::{Code, Reject},
    splice::{Splice, retraction, transform},
    version::Version,
};

/// What takes an operation of text back, made for the text after those that were looked at.
struct Back {
    op_id: Arc<str>,
    splices: Vec<Splice>,
}

impl Document {
    /// Takes back the author's last `count` operations that are kept and were not taken back yet, in one
    /// operation. In text what others did meanwhile stays; in JSON it must not have touched the same places.
    pub(crate) fn undo(
        &mut self,
        op_id: &Arc<str>,
        author: &Arc<str>,
        count: usize,
        now_ms: u64,
    ) -> Outcome {
        if let Err(reject) = super::check_names(op_id, author) {
            return Outcome::Rejected(reject);
        }
        let digest = Digest::of(&("undo", &**author, count));
        if let Some(outcome) = self.repeated(op_id, digest) {
            return outcome;
        }
        let done = self.taken_back(author, count).and_then(|(undoes, change)| {
            let (bytes, most) = (change.weight(), self.limits.operation);
            if bytes > most {
                let sentence =
                    format!("it would change {bytes} bytes at once; the limit is {most}");
                return Err(Reject::new(Code::OperationTooLarge, sentence));
            }
            let applied = Applied { undoes, ..self.next(op_id, author, change, now_ms) };
            self.commit(applied, digest)
        });
        done.map_or_else(Outcome::Rejected, |(before, applied)| Outcome::Applied(before, applied))
    }

    fn taken_back(&self, author: &str, count: usize) -> Result<(Vec<Arc<str>>, Change), Reject> {
        let own = || self.operations().filter(|it| *it.author == *author);
        let undone: HashSet<&Arc<str>> = own().flat_map(|it| &it.undoes).collect();
        let is_open = |it: &&Applied| it.undoes.is_empty() && !undone.contains(&it.op_id);
        // The newest first.
        let picked: Vec<&Applied> = own().rev().filter(is_open).take(count).collect();
        let Some(oldest) = picked.last() else {
            let sentence = "this author has no operation that is kept and not taken back yet";
            return Err(Reject::new(Code::NothingToUndo, sentence));
        };
        let change = match &self.content {
            Content::Text(_) => {
                let picked = picked.iter().map(|it| &it.op_id).collect();
                Change::Splices(self.text_taken_back(oldest.version, &picked, &undone))
            }
            Content::Json(_) => Change::Changes(self.json_taken_back(&picked)?),
        };
        Ok((picked.iter().map(|it| it.op_id.clone()).collect(), change))
    }

    /// Goes from before the oldest operation to now, and carries along what would take back those seen so
    /// far: right after one of them that is what takes it back, and then what was carried up to it.
    fn text_taken_back(
        &self,
        oldest: Version,
        picked: &HashSet<&Arc<str>>,
        undone: &HashSet<&Arc<str>>,
    ) -> Vec<Splice> {
        let mut from = self.history.partition_point(|kept| kept.applied.version < oldest);
        // What was taken back since is carried as well, until the operation that took it back.
        let reach = self.history.iter().position(|kept| undone.contains(&kept.applied.op_id));
        from = from.min(reach.unwrap_or(from));
        let mut text = self.base.clone();
        let mut carried: Vec<Back> = Vec::new();
        for (place, kept) in self.history.iter().enumerate() {
            let applied = &kept.applied;
            let (Change::Splices(splices), Content::Text(rope)) = (&applied.change, &mut text)
            else {
                break;
            };
            if place < from {
                for splice in splices {
                    splice.apply(rope);
                }
                continue;
            }
            let mut inverses = Vec::with_capacity(splices.len());
            for splice in splices {
                inverses.push(splice.inverse(rope));
                splice.apply(rope);
            }
            inverses.reverse();
            if picked.contains(&applied.op_id) || undone.contains(&applied.op_id) {
                carried.insert(0, Back { op_id: applied.op_id.clone(), splices: inverses });
            } else if !cancel(&mut carried, applied, splices) {
                carry(&mut carried, splices);
            }
        }
        let mut left = Vec::new();
        let mut skipped = Vec::new();
        for back in carried {
            if picked.contains(&back.op_id) {
                let (moved, after) = transform(&back.splices, &skipped);
                skipped = after;
                left.extend(moved);
            } else {
                skipped = [retraction(&back.splices), skipped].concat();
            }
        }
        left
    }

    fn json_taken_back(&self, picked: &[&Applied]) -> Result<Vec<JsonChange>, Reject> {
        let conflict = || {
            let sentence = "somebody changed the same place since; edit it instead";
            Reject::new(Code::UndoConflict, sentence)
        };
        let mut now = self.content.clone();
        let mut changes = Vec::with_capacity(picked.len());
        for applied in picked {
            let place = self.place_after(applied.version).ok_or_else(conflict)?;
            let before = place.checked_sub(2).and_then(|place| self.history.get(place));
            let before = before.map_or(self.base_version, |kept| kept.applied.version);
            let states = (self.content_at(before), self.content_at(applied.version), &mut now);
            let (Some(Content::Json(before)), Some(Content::Json(after)), Content::Json(now)) =
                states
            else {
                return Err(conflict());
            };
            let patch = inverse(before.value(), after.value(), now.value()).ok_or_else(conflict)?;
            let change = JsonChange::Patch(patch);
            let one = std::slice::from_ref(&change);
            now.apply(one, self.limits.document).map_err(|reject| match reject.code {
                Code::DocumentTooLarge | Code::TooDeep => reject,
                _ => conflict(),
            })?;
            changes.push(change);
        }
        Ok(changes)
    }
}

/// If `applied` did exactly what the newest of `carried` would do, they are not carried any further: what
/// they took back and they themselves are as if they had never been.
fn cancel(carried: &mut Vec<Back>, applied: &Applied, splices: &[Splice]) -> bool {
    let count = applied.undoes.len();
    let first = carried.get(..count).unwrap_or_default();
    let is_it = count > 0
        && first.iter().map(|back| &back.op_id).eq(&applied.undoes)
        && first.iter().flat_map(|back| &back.splices).eq(splices);
    if is_it {
        carried.drain(..count);
    }
    is_it
}

fn carry(carried: &mut [Back], splices: &[Splice]) {
    let mut theirs = splices.to_vec();
    for back in carried {
        (back.splices, theirs) = transform(&back.splices, &theirs);
    }
}
