//! When work should end early.

use std::time::Instant;

use kps_proto::ErrorKind;

use crate::capability::{Call, Cancel, Failure};

/// What running work asks, at least once a millisecond.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    pub(super) cancel: Cancel,
    pub(super) deadline: Option<Instant>,
}

impl Stop {
    /// As the call says.
    pub(super) fn of(call: &Call) -> Stop {
        Stop { cancel: call.cancel.clone(), deadline: call.deadline }
    }

    /// Fails when nobody waits for the answer any more.
    ///
    /// # Errors
    /// `cancelled`, `timeout`.
    #[inline]
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            return Err(cancelled());
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(late()),
            _ => Ok(()),
        }
    }
}

#[cold]
fn cancelled() -> Failure {
    Failure::new(ErrorKind::Cancelled, "the call was cancelled")
}

#[cold]
fn late() -> Failure {
    // As the router says of calls that are late: it and the task look at the clock by turns.
    Failure::new(ErrorKind::Timeout, "the deadline passed before the task was done").retryable()
}
