//! What must be true.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use super::client::Client;
use crate::document::{DocumentEvent, Level, Version};

/// Operations after which a document is stored.
const LOST: usize = 50;
/// A document is looked at twice a second.
const LATE: u64 = 10_000 + 500;

#[derive(Default)]
pub(super) struct Truth {
    /// Every operation that was written, and who wrote it.
    written: HashMap<Arc<str>, usize>,
    /// What is applied and not stored, and since when.
    applied: HashMap<Arc<str>, u64>,
    checkpointed: HashSet<Arc<str>>,
    /// What each version was of.
    versions: HashMap<Version, Arc<str>>,
    conflicts: HashMap<Arc<str>, u32>,
    healed: u64,
    crashes: usize,
    lost: usize,
    most_lost: usize,
    longest_lost: u64,
    repeated: usize,
    pub(super) most_conflicts: u32,
}

impl Truth {
    pub(super) fn written(&mut self, op_id: Arc<str>, client: usize) {
        self.written.insert(op_id, client);
    }

    pub(super) fn conflict(&mut self, op_id: Arc<str>) {
        let count = self.conflicts.entry(op_id).or_default();
        *count += 1;
        self.most_conflicts = self.most_conflicts.max(*count);
    }

    pub(super) fn healed(&mut self, now: u64) {
        self.healed = now;
    }

    pub(super) fn told(&mut self, event: &DocumentEvent, now: u64) {
        match event {
            DocumentEvent::Change { applied, .. } => {
                let op_id = applied.op_id.clone();
                assert!(!self.checkpointed.contains(&op_id), "{op_id} is there already");
                let other = self.versions.insert(applied.version, op_id.clone());
                assert_eq!(other, None, "{} is given twice", applied.version);
                self.applied.insert(op_id, now);
            }
            DocumentEvent::Ack { op_id, level: Level::Checkpointed, .. } => {
                self.applied.remove(op_id);
                self.repeated += usize::from(!self.checkpointed.insert(op_id.clone()));
            }
            _ => {}
        }
    }

    pub(super) fn crashed(
        &mut self,
        there: &[Arc<str>],
        now: u64,
        is_failing: bool,
        clients: &[Client],
    ) {
        let there: HashSet<&Arc<str>> = there.iter().collect();
        for op_id in &self.checkpointed {
            assert!(there.contains(op_id), "{op_id} was checkpointed, and is lost");
        }
        self.applied.retain(|op_id, _| !there.contains(op_id));
        let lost = std::mem::take(&mut self.applied);
        let longest = lost.values().map(|at| now - at).max().unwrap_or(0);
        // It is tried again for half a minute after the store is well.
        if !is_failing && (self.healed == 0 || now > self.healed + 31_000) {
            assert!(lost.len() <= LOST, "{} operations are lost", lost.len());
            assert!(longest <= LATE, "what is lost was {longest} ms old");
            self.most_lost = self.most_lost.max(lost.len());
            self.longest_lost = self.longest_lost.max(longest);
        }
        for op_id in lost.keys() {
            let client = &clients[self.written[op_id]];
            assert!(client.unsynced().any(|it| it == *op_id), "nobody sends {op_id} again");
        }
        self.crashes += 1;
        self.lost += lost.len();
    }

    pub(super) fn check(&self, there: &[Arc<str>]) {
        let set: HashSet<&Arc<str>> = there.iter().collect();
        assert_eq!(set.len(), there.len(), "an operation is there twice");
        assert!(self.written.keys().all(|op_id| set.contains(op_id)), "an operation is missing");
        assert_eq!(set.len(), self.written.len());
    }

    /// Nothing was deleted: every letter is there once, wherever others wrote in between.
    pub(super) fn check_letters(&self, text: &str) {
        let expected: usize = self.written.keys().map(|op_id| op_id.len()).sum();
        assert_eq!(text.len(), expected);
    }
}

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conflicts: u32 = self.conflicts.values().sum();
        write!(
            f,
            "{} operations, {conflicts} conflicts, {} of one at most; {} crashes lost {}, {} at once and {} ms old \
             at most; {} sent again that were there",
            self.written.len(),
            self.most_conflicts,
            self.crashes,
            self.lost,
            self.most_lost,
            self.longest_lost,
            self.repeated
        )
    }
}
