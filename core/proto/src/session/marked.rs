//! Which of the newest numbers are marked: a bit for each.

use std::collections::VecDeque;

/// Numbers that are remembered: 128 KiB.
pub(super) const REMEMBERED: u64 = 1 << 20;

const BITS: u64 = u64::BITS as u64;
const WORDS: u64 = REMEMBERED / BITS;

#[derive(Debug, Default)]
pub(super) struct Marked {
    words: VecDeque<u64>,
    /// The place of the first word among all.
    first: u64,
    /// Words before this one may have had marks.
    forgotten: u64,
}

impl Marked {
    /// Marks `number`, which is above all others.
    pub(super) fn insert(&mut self, number: u64) {
        let (word, bit) = place(number);
        let end = self.first + self.words.len() as u64;
        if self.words.is_empty() || word >= end + WORDS {
            if !self.words.is_empty() {
                self.forgotten = end;
            }
            self.words.clear();
            self.first = word;
        }
        while self.first + self.words.len() as u64 <= word {
            self.words.push_back(0);
        }
        while self.words.len() as u64 > WORDS {
            self.words.pop_front();
            self.first += 1;
            self.forgotten = self.first;
        }
        if let Some(last) = self.words.back_mut() {
            *last |= bit;
        }
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        let index = word.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.words.get(index)).is_some_and(|word| word & bit != 0)
    }

    /// Whether it would still be known if `number` was marked.
    pub(super) fn remembers(&self, number: u64) -> bool {
        number / BITS >= self.forgotten
    }
}

fn place(number: u64) -> (u64, u64) {
    (number / BITS, 1 << (number % BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_million_is_remembered_and_what_is_older_is_known_to_be_forgotten() {
        let mut marked = Marked::default();
        let last = 3 * REMEMBERED;
        for number in (5001..=last).step_by(2) {
            marked.insert(number);
        }
        assert!(marked.contains(last - 1) && !marked.contains(last));
        assert!(
            marked.remembers(last - REMEMBERED + 64) && marked.contains(last - REMEMBERED + 65)
        );
        assert!(!marked.remembers(5001) && !marked.contains(5001));
        let far = 100 * REMEMBERED;
        marked.insert(far);
        assert!(marked.contains(far) && marked.remembers(far - 1) && !marked.contains(far - 1));
        assert!(!marked.remembers(last - 1) && !marked.contains(last - 1));
    }

    #[test]
    fn before_the_first_mark_nothing_is_forgotten() {
        let mut marked = Marked::default();
        assert!(marked.remembers(1) && !marked.contains(1));
        marked.insert(1_000_000);
        assert!(marked.remembers(1) && !marked.contains(1));
    }
}
