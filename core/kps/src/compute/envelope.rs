//! What one task of a batch is answered with: the same envelope as a whole call's.

use std::time::Duration;

use crate::capability::{Failure, Map, Outcome, Value};

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
            ("error", error(failure)),
            ("duration", duration),
        ]),
    }
}

fn error(failure: Failure) -> Value {
    let mut error = Map::default();
    error.push("code", failure.code());
    error.push("message", failure.message);
    error.push("retry", failure.retry);
    if let Some(field) = failure.field {
        error.push("field", field);
    }
    if let Some(raised) = failure.raised {
        error.push("type", raised.kind);
        if let Some(traceback) = raised.traceback {
            error.push("traceback", traceback);
        }
    }
    Value::Map(error)
}
