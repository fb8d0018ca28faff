//! One task on several cores: its parts are run by whoever is idle, and by itself.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Job, Waiting, Workers};
use crate::capability::Failure;

impl Workers {
    /// Runs `part(0)`, `part(1)`, … on the calling thread and on all that are idle; the answers in
    /// order, or the first failure. Parts should take less than a millisecond: the caller waits for
    /// those that others have begun.
    pub(in super::super) fn spread<T: Send + 'static>(
        self: &Arc<Self>,
        parts: usize,
        part: impl Fn(usize) -> Result<T, Failure> + Send + Sync + 'static,
    ) -> Result<Vec<T>, Failure> {
        if parts <= 1 || self.threads == 1 {
            return (0..parts).map(part).collect();
        }
        let team = Arc::new(Team {
            part,
            parts,
            next: AtomicUsize::new(0),
            done: Mutex::new(Done { answers: (0..parts).map(|_| None).collect(), running: 0 }),
            idle: Condvar::new(),
        });
        self.share(team.clone());
        while team.step(self) {}
        team.answers()
    }
}

struct Team<T, F> {
    part: F,
    parts: usize,
    next: AtomicUsize,
    done: Mutex<Done<T>>,
    /// Nobody runs a part any more.
    idle: Condvar,
}

struct Done<T> {
    answers: Vec<Option<Result<T, Stopped>>>,
    running: usize,
}

enum Stopped {
    Failed(Failure),
    Panicked(Box<dyn Any + Send>),
}

impl<T: Send, F: Fn(usize) -> Result<T, Failure> + Send + Sync> Team<T, F> {
    fn answers(&self) -> Result<Vec<T>, Failure> {
        let mut done = self.lock();
        while done.running > 0 {
            done = self.idle.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
        let answers = std::mem::take(&mut done.answers);
        drop(done);
        // Those after a failure were not begun; `flatten` passes them.
        let answers = answers.into_iter().flatten().map(|answer| match answer {
            Ok(answer) => Ok(answer),
            Err(Stopped::Failed(failure)) => Err(failure),
            Err(Stopped::Panicked(panic)) => resume_unwind(panic),
        });
        answers.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Done<T>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send, F: Fn(usize) -> Result<T, Failure> + Send + Sync> Job for Team<T, F> {
    fn step(&self, _: &Arc<Workers>) -> bool {
        let mut done = self.lock();
        let index = self.next.load(Ordering::Relaxed);
        if index >= self.parts {
            return false;
        }
        self.next.store(index + 1, Ordering::Relaxed);
        done.running += 1;
        drop(done);

        let answer = match catch_unwind(AssertUnwindSafe(|| (self.part)(index))) {
            Ok(answer) => answer.map_err(Stopped::Failed),
            Err(panic) => Err(Stopped::Panicked(panic)),
        };
        let mut done = self.lock();
        if answer.is_err() {
            self.next.store(self.parts, Ordering::Relaxed);
        }
        done.answers[index] = Some(answer);
        done.running -= 1;
        if done.running == 0 {
            self.idle.notify_one();
        }
        true
    }
}

impl<T: Send, F: Send + Sync> Waiting for Team<T, F> {
    fn left(&self) -> usize {
        self.parts - self.next.load(Ordering::Relaxed).min(self.parts)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use kps_proto::ErrorKind;

    use super::{super::Pool, *};

    #[test]
    fn idle_threads_help_with_a_task() {
        let pool = Pool::new(2).unwrap();
        // Two parts that wait for each other cannot run on one thread.
        let barrier = Barrier::new(2);
        let answers = pool.workers().spread(2, move |part| {
            barrier.wait();
            Ok(part)
        });
        assert_eq!(answers.unwrap(), [0, 1]);
    }

    #[test]
    fn answers_come_in_the_order_of_the_parts() {
        let pool = Pool::new(3).unwrap();
        for parts in [0, 1, 2, 7, 1000] {
            let answers = pool.workers().spread(parts, Ok).unwrap();
            assert_eq!(answers, (0..parts).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_failing_part_fails_the_task_and_no_other_begins() {
        let pool = Pool::new(2).unwrap();
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = begun.clone();
        let answer = pool.workers().spread(10_000, move |part| {
            counter.fetch_add(1, Ordering::Relaxed);
            match part {
                5 => Err(Failure::new(ErrorKind::Cancelled, "enough")),
                part => Ok(part),
            }
        });
        assert_eq!(answer.unwrap_err().kind, ErrorKind::Cancelled);
        assert!(begun.load(Ordering::Relaxed) < 10_000);
    }

    #[test]
    fn a_panic_of_a_part_is_the_tasks_panic() {
        let pool = Pool::new(2).unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| {
            pool.workers().spread(4, |part| if part == 2 { panic!("oops") } else { Ok(part) })
        }));
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"oops"));
        assert_eq!(pool.workers().spread(3, Ok).unwrap().len(), 3);
    }
}
