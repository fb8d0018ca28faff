//! A queue that is first in, first out for each caller, and gives all callers the same share.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::capability::Caller;

/// What waits: several workers may be at it at once, until nothing of it is left to begin.
pub(in super::super) trait Waiting {
    /// Tasks that were not begun.
    fn left(&self) -> usize;
}

/// The queue. Callers take turns.
#[derive(Debug)]
pub(in super::super) struct Fair<J: ?Sized> {
    lines: HashMap<Key, VecDeque<Arc<J>>>,
    /// Whoever has something waiting, in the order of their turns.
    turns: VecDeque<Key>,
    /// Jobs in the lines.
    jobs: usize,
    /// At so many those that were given up are thrown out.
    sweep_at: usize,
}

type Key = (Arc<str>, Option<Arc<str>>);

/// Fewer jobs than this are not worth a sweep.
const FEW: usize = 1024;

impl<J: ?Sized> Default for Fair<J> {
    fn default() -> Self {
        Fair { lines: HashMap::new(), turns: VecDeque::new(), jobs: 0, sweep_at: FEW }
    }
}

impl<J: Waiting + ?Sized> Fair<J> {
    /// Puts `job` behind the others of `caller`.
    pub(in super::super) fn push(&mut self, caller: &Caller, job: Arc<J>) {
        if self.jobs >= self.sweep_at {
            self.sweep();
        }
        self.jobs += 1;
        let key = (caller.namespace.clone(), caller.client_id.clone());
        match self.lines.get_mut(&key) {
            Some(line) => line.push_back(job),
            None => {
                self.turns.push_back(key.clone());
                self.lines.insert(key, VecDeque::from([job]));
            }
        }
    }

    /// The first job of the caller whose turn it is. It stays in the queue while more than one of
    /// its tasks is left.
    pub(in super::super) fn next(&mut self) -> Option<Arc<J>> {
        while let Some(key) = self.turns.pop_front() {
            let line = self.lines.get_mut(&key).expect("whoever has a turn has a line");
            let before = line.len();
            let job = first(line);
            self.jobs -= before - line.len();
            if line.is_empty() {
                self.lines.remove(&key);
            } else {
                self.turns.push_back(key);
            }
            if job.is_some() {
                return job;
            }
        }
        None
    }

    /// Throws out what was given up: a queue that does not move must not grow with it.
    fn sweep(&mut self) {
        self.jobs = 0;
        self.lines.retain(|_, line| {
            line.retain(|job| job.left() > 0);
            self.jobs += line.len();
            !line.is_empty()
        });
        self.turns.retain(|key| self.lines.contains_key(key));
        self.sweep_at = FEW.max(2 * self.jobs);
    }
}

fn first<J: Waiting + ?Sized>(line: &mut VecDeque<Arc<J>>) -> Option<Arc<J>> {
    loop {
        match line.front()?.left() {
            0 => drop(line.pop_front()),
            1 => return line.pop_front(),
            _ => return line.front().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug)]
    struct Job(&'static str, AtomicUsize);

    impl Waiting for Job {
        fn left(&self) -> usize {
            self.1.load(Ordering::Relaxed)
        }
    }

    fn job(name: &'static str, tasks: usize) -> Arc<Job> {
        Arc::new(Job(name, AtomicUsize::new(tasks)))
    }

    fn caller(id: &str) -> Caller {
        Caller { client_id: Some(id.into()), ..Caller::default() }
    }

    fn drain(queue: &mut Fair<Job>) -> Vec<&'static str> {
        std::iter::from_fn(|| {
            let job = queue.next()?;
            job.1.fetch_sub(1, Ordering::Relaxed);
            Some(job.0)
        })
        .collect()
    }

    #[test]
    fn callers_take_turns_and_each_is_first_in_first_out() {
        let mut queue = Fair::default();
        for name in ["a1", "a2", "a3"] {
            queue.push(&caller("a"), job(name, 1));
        }
        queue.push(&caller("b"), job("b1", 1));
        assert_eq!(drain(&mut queue), ["a1", "b1", "a2", "a3"]);
        assert_eq!(queue.jobs, 0);
    }

    #[test]
    fn a_job_of_many_tasks_keeps_its_place_until_they_are_begun() {
        let mut queue = Fair::default();
        queue.push(&caller("a"), job("a", 3));
        queue.push(&caller("b"), job("b", 1));
        queue.push(&caller("a"), job("later", 1));
        assert_eq!(drain(&mut queue), ["a", "b", "a", "a", "later"]);
    }

    #[test]
    fn what_was_given_up_does_not_stay() {
        let mut queue = Fair::default();
        for _ in 0..10 * FEW {
            queue.push(&caller("a"), job("gone", 0));
        }
        assert!(queue.jobs <= FEW, "{}", queue.jobs);
        queue.push(&caller("b"), job("alive", 1));
        assert_eq!(drain(&mut queue), ["alive"]);
        assert_eq!((queue.jobs, queue.lines.len(), queue.turns.len()), (0, 0, 0));
    }
}
