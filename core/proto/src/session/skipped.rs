//! Numbers of publishes that were given up before they were sent. The server is told to skip them.

use std::collections::VecDeque;

/// Ranges of numbers, ascending, with others between them.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    ranges: VecDeque<Range>,
    total: u64,
}

/// Both ends are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Skipped {
    /// How many.
    #[inline]
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn insert(&mut self, number: u64) {
        let at = self.ranges.partition_point(|range| range.last < number);
        if self.ranges.get(at).is_some_and(|range| range.first <= number) {
            return;
        }
        self.total += 1;
        let before = at.checked_sub(1).filter(|at| self.ranges[*at].last + 1 == number);
        let after = Some(at)
            .filter(|at| self.ranges.get(*at).is_some_and(|range| range.first == number + 1));
        match (before, after) {
            (Some(before), Some(after)) => {
                self.ranges[before].last = self.ranges[after].last;
                self.ranges.remove(after);
            }
            (Some(before), None) => self.ranges[before].last = number,
            (None, Some(after)) => self.ranges[after].first = number,
            (None, None) => self.ranges.insert(at, Range { first: number, last: number }),
        }
    }

    /// The first range that ends above `number`.
    #[inline]
    pub(super) fn above(&self, number: u64) -> Option<Range> {
        if self.ranges.is_empty() {
            return None;
        }
        let at = self.ranges.partition_point(|range| range.last <= number);
        self.ranges.get(at).copied()
    }

    /// How many are at most `number`.
    pub(super) fn up_to(&self, number: u64) -> u64 {
        let ranges = self.ranges.iter().take_while(|range| range.first <= number);
        ranges.map(|range| range.last.min(number) - range.first + 1).sum()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        number > 0 && self.above(number - 1).is_some_and(|range| range.first <= number)
    }

    /// Forgets those up to `number`.
    pub(super) fn forget(&mut self, number: u64) {
        while let Some(range) = self.ranges.front_mut().filter(|range| range.first <= number) {
            let last = range.last.min(number);
            self.total -= last - range.first + 1;
            if last < range.last {
                range.first = last + 1;
                return;
            }
            self.ranges.pop_front();
        }
    }

    /// The numbers above `number` that are not skipped, without end.
    pub(super) fn others(&self, number: u64) -> impl Iterator<Item = u64> + '_ {
        let mut ranges = self.ranges.iter().peekable();
        let mut next = number;
        std::iter::from_fn(move || {
            next += 1;
            while let Some(range) = ranges.next_if(|range| range.first <= next) {
                next = next.max(range.last + 1);
            }
            Some(next)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_as_a_set(steps in prop::collection::vec((1u64..60, any::<bool>()), 1..80)) {
            let (mut skipped, mut model) = (Skipped::default(), BTreeSet::new());
            let mut forgotten = 0;
            for (number, insert) in steps {
                if insert && number > forgotten {
                    skipped.insert(number);
                    model.insert(number);
                } else if number % 4 == 0 {
                    skipped.forget(number);
                    model.retain(|kept| *kept > number);
                    forgotten = forgotten.max(number);
                }
                prop_assert_eq!(skipped.total(), model.len() as u64);
                prop_assert!((0..70).all(|at| skipped.contains(at) == model.contains(&at)));
                prop_assert_eq!(skipped.up_to(number), model.range(..=number).count() as u64);
                let others: Vec<u64> = skipped.others(number).take(70).collect();
                let expected: Vec<u64> =
                    (number + 1..).filter(|at| !model.contains(at)).take(70).collect();
                prop_assert_eq!(others, expected);
                let above = skipped.above(number).map(|range| range.last);
                let last = model.range(number + 1..).next().map(|first| {
                    (*first..).take_while(|at| model.contains(at)).last().unwrap()
                });
                prop_assert_eq!(above, last);
            }
        }
    }
}
