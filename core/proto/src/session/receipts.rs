//! Who waits for how far a publish has come, or for the outbox to empty.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::event::{Event, Events, Target};
use crate::{error::Error, message::ReceiptLevel};

type Watchers = BTreeMap<u64, SmallVec<[Target; 1]>>;

#[derive(Debug, Default)]
pub(super) struct Receipts {
    /// By level and publish.
    watched: [Watchers; ReceiptLevel::Replicated as usize + 1],
    /// Waits for everything up to the number.
    flushes: Vec<(u64, Target)>,
    room: Vec<Target>,
}

impl Receipts {
    pub(super) fn watch(&mut self, number: u64, level: ReceiptLevel, target: Target) {
        self.watched[level as usize].entry(number).or_default().push(target);
    }

    pub(super) fn watch_flush(&mut self, number: u64, target: Target) {
        self.flushes.push((number, target));
    }

    pub(super) fn watch_room(&mut self, target: Target) {
        if !self.room.contains(&target) {
            self.room.push(target);
        }
    }

    /// Publishes of which somebody waits for exactly this level.
    pub(super) fn waiting_for(&self, level: ReceiptLevel) -> Vec<u64> {
        self.watched[level as usize].keys().copied().collect()
    }

    /// Everything up to `number` is accepted or refused.
    pub(super) fn accepted(&mut self, number: u64, events: &mut Events) {
        self.reach(number, ReceiptLevel::Accepted, events);
        self.flushes.retain(|(until, target)| {
            let done = *until <= number;
            if done {
                events.push((*target, Event::Flushed { error: None }));
            }
            !done
        });
    }

    /// Everything up to `number` whose topic has history is stored.
    pub(super) fn reach_stored(&mut self, number: u64, events: &mut Events) {
        self.reach(number, ReceiptLevel::Stored, events);
    }

    pub(super) fn reach(&mut self, number: u64, reached: ReceiptLevel, events: &mut Events) {
        for level in ReceiptLevel::ALL.into_iter().filter(|level| *level <= reached) {
            let watched = &mut self.watched[level as usize];
            while let Some(entry) = watched.first_entry()
                && *entry.key() <= number
            {
                let (number, targets) = entry.remove_entry();
                let receipt = |target| (target, Event::Receipt { number, level });
                events.extend(targets.into_iter().map(receipt));
            }
        }
    }

    /// The publish will not reach this level: who watched it for that.
    pub(super) fn fail_at(&mut self, number: u64, level: ReceiptLevel) -> SmallVec<[Target; 1]> {
        self.watched[level as usize].remove(&number).unwrap_or_default()
    }

    /// The publish failed: who watched it, each once.
    pub(super) fn fail(&mut self, number: u64) -> SmallVec<[Target; 1]> {
        let mut targets: SmallVec<[Target; 1]> = SmallVec::new();
        for level in ReceiptLevel::ALL {
            for target in self.fail_at(number, level) {
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
        targets
    }

    /// All numbers still watched, oldest first.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> =
            self.watched.iter().flatten().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    pub(super) fn waits_for_room(&self) -> bool {
        !self.room.is_empty()
    }

    /// There is room again.
    pub(super) fn has_room(&mut self, events: &mut Events) {
        events.extend(self.room.drain(..).map(|target| (target, Event::Room)));
    }

    /// The session is over: who waits is told so, in place of what will not come.
    pub(super) fn close(&mut self, error: &Error, events: &mut Events) {
        for (_, target) in self.flushes.drain(..) {
            events.push((target, Event::Flushed { error: Some(error.clone()) }));
        }
        self.has_room(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_is_told_once_and_a_failure_goes_to_each_watcher() {
        let mut receipts = Receipts::default();
        let mut events = Events::new();
        receipts.watch(1, ReceiptLevel::Accepted, Target(1));
        receipts.watch(1, ReceiptLevel::Stored, Target(2));
        receipts.watch(2, ReceiptLevel::Accepted, Target(3));
        receipts.watch(2, ReceiptLevel::Stored, Target(3));
        receipts.watch_flush(1, Target(4));
        receipts.accepted(1, &mut events);
        receipts.accepted(1, &mut events);
        assert_eq!(events.iter().map(|(target, _)| target.0).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(receipts.fail(2).as_slice(), [Target(3)]);
        receipts.reach_stored(1, &mut events);
        assert_eq!(events.last().map(|(target, _)| target.0), Some(2));
        assert!(receipts.numbers().is_empty());
    }
}
