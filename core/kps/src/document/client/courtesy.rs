//! Who was faster several times waits for who was not: a writer far away gets its turn among near ones.

use std::{collections::HashMap, sync::Arc};

use tokio::time::{Duration, Instant};

/// Conflicts after which others wait.
const MANY: u32 = 3;
/// How long they wait to hear of it again; with every further conflict so much longer, for one whose way is
/// longer than that.
const PATIENCE: Duration = Duration::from_millis(250);
/// … at most so many times.
const LONGEST: u32 = 8;
/// Operations that are looked after.
const MOST: usize = 64;

/// Operations of others that were in conflict, and are not applied yet.
#[derive(Debug, Default)]
pub(in crate::document) struct Courtesy(HashMap<Arc<str>, (u32, Instant)>);

impl Courtesy {
    /// Somebody's operation was in conflict.
    pub(super) fn conflict(&mut self, op_id: &str) {
        self.conflict_at(op_id, Instant::now());
    }

    pub(in crate::document) fn conflict_at(&mut self, op_id: &str, now: Instant) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (_, last)| now.duration_since(*last) < PATIENCE * LONGEST);
        }
        if self.0.len() < MOST || self.0.contains_key(op_id) {
            let (count, last) = self.0.entry(op_id.into()).or_insert((0, now));
            (*count, *last) = (*count + 1, now);
        }
    }

    /// It is over.
    pub(in crate::document) fn over(&mut self, op_id: &str) {
        self.0.remove(op_id);
    }

    /// Until when one with so many conflicts of its own waits.
    pub(super) fn wait(&self, own: u32) -> Option<Instant> {
        self.wait_at(own, Instant::now())
    }

    pub(in crate::document) fn wait_at(&self, own: u32, now: Instant) -> Option<Instant> {
        let waits = self.0.values().filter(|(count, _)| *count >= MANY && *count > own);
        let until =
            |(count, last): &(u32, Instant)| *last + PATIENCE * (*count - MANY + 1).min(LONGEST);
        waits.map(until).filter(|until| *until > now).max()
    }
}
