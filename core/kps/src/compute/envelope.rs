//! What one task of a batch is answered with: the same envelope as a whole call's.

use std::time::Duration;

use crate::capability::{Failure, Outcome, Value};

/// `{"status": "ok", "data": {"result": …}, "duration"}`, or `{"status": "error", "error": {"code",
/// "message", "retry"}, "duration"}`; the duration in milliseconds.
pub(super) fn envelope(outcome: Outcome, took: Duration) -> Value {
    let duration = Value::Float(took.as_secs_f64() * 1e3);
    match outcome {
        Ok(result) => Value::map([
            ("status", "ok".into()),
            ("data", super::task::answer(result)),
            ("duration", duration),
        ]),
        Err(failure) => Value::map([
            ("status", "error".into()),
            ("error", failure.into_value()),
            ("duration", duration),
        ]),
    }
}

/// The envelope of a task that was not run here.
pub(crate) fn failed_envelope(failure: Failure) -> Value {
    envelope(Err(failure), Duration::ZERO)
}
