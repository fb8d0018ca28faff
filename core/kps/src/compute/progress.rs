//! How far a batch is, told now and then.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use crate::capability::{Callback, Value};

/// At most so often; the end is always told.
const EVERY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Progress {
    listeners: Vec<Callback>,
    total: usize,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    done: usize,
}

impl Progress {
    /// `None`: nobody listens.
    pub(super) fn new(listeners: Vec<Callback>, total: usize) -> Option<Progress> {
        let told = Mutex::new(Told { at: Instant::now(), done: 0 });
        (!listeners.is_empty()).then_some(Progress { listeners, total, told })
    }

    /// So many are done. What is told never goes back.
    pub(super) fn tell(&self, done: usize) {
        let last = done == self.total;
        let told = match self.told.try_lock() {
            Ok(told) => Some(told),
            Err(TryLockError::Poisoned(told)) => Some(told.into_inner()),
            Err(TryLockError::WouldBlock) if last => {
                Some(self.told.lock().unwrap_or_else(PoisonError::into_inner))
            }
            // Somebody else is telling.
            Err(TryLockError::WouldBlock) => None,
        };
        let Some(mut told) = told else { return };
        if done <= told.done || !(last || told.at.elapsed() >= EVERY) {
            return;
        }
        *told = Told { at: Instant::now(), done };
        let value = Value::map([("done", done.into()), ("total", self.total.into())]);
        for listener in &self.listeners {
            // A listener that panics must not take the batch with it.
            let _ = catch_unwind(AssertUnwindSafe(|| listener.call(value.clone())));
        }
    }
}
