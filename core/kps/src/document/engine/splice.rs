//! What an edit of text does in the end: characters removed at one place, others put there.
//!
//! Positions count Unicode code points. [`transform`] moves edits that were made for one content onto
//! another one; whatever order two sides take, they come to the same text.

use ropey::Rope;
use serde::{Deserialize, Serialize};

/// `delete` characters from `at` on are replaced by `insert`. In JSON a list: `[at, delete, "insert"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(usize, usize, String)", into = "(usize, usize, String)")]
pub struct Splice {
    /// Where, in code points from the start.
    pub at: usize,
    /// How many are removed.
    pub delete: usize,
    /// What is put in their place.
    pub insert: String,
}

impl From<(usize, usize, String)> for Splice {
    fn from((at, delete, insert): (usize, usize, String)) -> Self {
        Splice { at, delete, insert }
    }
}

impl From<Splice> for (usize, usize, String) {
    fn from(splice: Splice) -> Self {
        (splice.at, splice.delete, splice.insert)
    }
}

impl Splice {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.delete == 0 && self.insert.is_empty()
    }

    /// Its end in the content it is made for; `None` if no text is that long.
    pub(super) fn end(&self) -> Option<usize> {
        self.at.checked_add(self.delete)
    }

    /// Whether the text has the place that it changes.
    pub(super) fn fits(&self, text: &Rope) -> bool {
        self.end().is_some_and(|end| end <= text.len_chars())
    }

    /// Does it; false, and nothing done, if the text has no such place.
    pub(super) fn apply(&self, text: &mut Rope) -> bool {
        let fits = self.fits(text);
        if fits {
            text.remove(self.at..self.at + self.delete);
            text.insert(self.at, &self.insert);
        }
        fits
    }

    /// What takes it back, made for the text after it; `text` is the one before.
    pub(super) fn inverse(&self, text: &Rope) -> Splice {
        let removed = text.get_slice(self.at..self.at + self.delete);
        Splice {
            at: self.at,
            delete: self.insert_len(),
            insert: removed.map(|slice| slice.to_string()).unwrap_or_default(),
        }
    }

    fn insert_len(&self) -> usize {
        self.insert.chars().count()
    }

    fn range(&self) -> (usize, usize) {
        (self.at, self.at + self.delete)
    }
}

/// `ours` and `theirs`, both made for one text: `ours` for the text after `theirs`, and `theirs` for the
/// text after `ours`. At the same place their text comes first. What both delete is deleted once, and what
/// one side wrote inside of what the other deletes stays.
pub(crate) fn transform(ours: &[Splice], theirs: &[Splice]) -> (Vec<Splice>, Vec<Splice>) {
    let mut theirs = theirs.to_vec();
    let mut done = Vec::with_capacity(ours.len());
    for our in ours {
        let mut moved = vec![our.clone()];
        let mut after = Vec::with_capacity(theirs.len());
        for their in &theirs {
            // A piece meets pieces that are smaller each time: this ends.
            let (ours, theirs) = match &moved[..] {
                [our] => pair(our, their),
                pieces => transform(pieces, std::slice::from_ref(their)),
            };
            moved = ours;
            after.extend(theirs);
        }
        done.extend(moved);
        theirs = after;
    }
    (done, theirs)
}

fn pair(our: &Splice, their: &Splice) -> (Vec<Splice>, Vec<Splice>) {
    (moved(our, their, our.at < their.at), moved(their, our, their.at <= our.at))
}

/// `this` for the text after `other`. `is_first`: what it inserts stays left of what `other` inserts.
fn moved(this: &Splice, other: &Splice, is_first: bool) -> Vec<Splice> {
    let ((start, end), (gap, gap_end)) = (this.range(), other.range());
    let (came, went) = (other.insert_len(), other.delete);
    let left = end.min(gap).saturating_sub(start);
    let right_from = start.max(gap_end);
    let right = end.saturating_sub(right_from);
    let shifted = |place: usize| place - went + came;
    if !is_first {
        // Nothing of it lies left of the gap.
        let at = if start <= gap_end { gap + came } else { shifted(start) };
        return vec![Splice { at, delete: right, insert: this.insert.clone() }];
    }
    if right == 0 || came == 0 {
        return vec![Splice { at: start, delete: left + right, insert: this.insert.clone() }];
    }
    let first = Splice { at: start, delete: left, insert: this.insert.clone() };
    let at = shifted(right_from) - left + this.insert_len();
    let second = Splice { at, delete: right, insert: String::new() };
    if first.is_empty() { vec![second] } else { vec![first, second] }
}

/// What takes `splices` back, as far as [`transform`] looks: without the text they removed.
pub(super) fn retraction(splices: &[Splice]) -> Vec<Splice> {
    let back = |splice: &Splice| Splice {
        at: splice.at,
        delete: splice.insert_len(),
        insert: "\u{fffd}".repeat(splice.delete),
    };
    splices.iter().rev().map(back).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn splice(at: usize, delete: usize, insert: &str) -> Splice {
        Splice { at, delete, insert: insert.into() }
    }

    /// Splices that fit, one after the other, a text of `length` characters.
    fn fitting(length: usize, seeds: Vec<(usize, usize, String)>) -> Vec<Splice> {
        let mut length = length;
        let fit = |(at, delete, insert): (usize, usize, String)| {
            let at = at % (length + 1);
            let delete = delete % (length - at + 1);
            length = length - delete + insert.chars().count();
            Splice { at, delete, insert }
        };
        seeds.into_iter().map(fit).collect()
    }

    fn seeds() -> impl Strategy<Value = Vec<(usize, usize, String)>> {
        prop::collection::vec((0..20usize, 0..8usize, "[a-cü🦀]{0,3}"), 0..6)
    }

    fn applied(text: &str, splices: &[Splice]) -> String {
        let mut rope = Rope::from_str(text);
        for splice in splices {
            assert!(splice.apply(&mut rope), "{splice:?} fits {rope:?}");
        }
        rope.to_string()
    }

    #[test]
    fn the_cases_that_people_meet() {
        let moved = |our: Splice, their: Splice| transform(&[our], &[their]).0;
        // At the same place theirs comes first.
        assert_eq!(moved(splice(3, 0, "a"), splice(3, 0, "bb")), [splice(5, 0, "a")]);
        assert_eq!(moved(splice(2, 0, "a"), splice(3, 0, "bb")), [splice(2, 0, "a")]);
        // What is deleted already is not deleted again.
        assert_eq!(moved(splice(2, 4, ""), splice(4, 4, "")), [splice(2, 2, "")]);
        assert_eq!(moved(splice(4, 2, ""), splice(2, 8, "")), [splice(2, 0, "")]);
        // What others wrote inside of it stays.
        assert_eq!(
            moved(splice(2, 4, "x"), splice(4, 0, "yy")),
            [splice(2, 2, "x"), splice(5, 2, "")]
        );
    }

    proptest! {
        #[test]
        fn both_orders_come_to_the_same_text(
            text in "[x-zäß🦀]{0,12}", ours in seeds(), theirs in seeds(),
        ) {
            let length = text.chars().count();
            let (ours, theirs) = (fitting(length, ours), fitting(length, theirs));
            let (our_moved, their_moved) = transform(&ours, &theirs);
            let one = applied(&applied(&text, &theirs), &our_moved);
            let other = applied(&applied(&text, &ours), &their_moved);
            prop_assert_eq!(one, other);
        }

        #[test]
        fn what_is_inverted_is_undone(text in "[x-zäß🦀]{0,12}", seeds in seeds()) {
            let mut rope = Rope::from_str(&text);
            let mut inverses = Vec::new();
            for splice in fitting(text.chars().count(), seeds) {
                inverses.push(splice.inverse(&rope));
                prop_assert!(splice.apply(&mut rope));
            }
            inverses.reverse();
            prop_assert_eq!(applied(&rope.to_string(), &inverses), text);
        }
    }
}
