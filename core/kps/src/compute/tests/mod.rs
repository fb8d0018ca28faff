//! What callers see.

mod array;
mod builtin;
mod host;
mod queue;
#[cfg(feature = "wasm")]
mod wasm;

use std::{sync::Arc, time::Instant};

use kps_proto::ErrorKind;

use super::{Compute, ComputeOptions};
use crate::capability::{Call, Caller, Cancel, Capability, Failure, Outcome, Value};

/// A `Compute` with threads of its own.
pub(super) fn compute(threads: usize) -> Compute {
    Compute::new(ComputeOptions { threads: Some(threads), ..ComputeOptions::default() }).unwrap()
}

/// A call of this process.
pub(super) fn call(operation: &str, payload: Value) -> Call {
    Call {
        id: "id".into(),
        operation: operation.into(),
        payload,
        caller: Caller::default(),
        cancel: Cancel::default(),
        deadline: None,
        attempt: 1,
        progress: None,
    }
}

/// `{task, data}`.
pub(super) fn task(name: &str, data: impl Into<Value>) -> Value {
    Value::map([("task", name.into()), ("data", data.into())])
}

/// Waits for the operation's answer.
pub(super) fn answer(compute: &Compute, operation: &str, payload: Value) -> Outcome {
    block_on(compute.call(call(operation, payload)))
}

/// The result of `execute`.
pub(super) fn execute(compute: &Compute, name: &str, data: impl Into<Value>) -> Outcome {
    answer(compute, "execute", task(name, data)).map(|answer| answer.get("result").unwrap().clone())
}

pub(super) fn refused(outcome: Outcome) -> (ErrorKind, Option<String>, String) {
    let Failure { kind, field, message, .. } = outcome.unwrap_err();
    (kind, field, message)
}

/// Polls on this thread.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

/// A list of integers.
pub(super) fn integers(numbers: impl IntoIterator<Item = i64>) -> Value {
    numbers.into_iter().map(Value::Int).collect::<Vec<_>>().into()
}

/// A deadline that is over.
pub(super) fn past() -> Option<Instant> {
    Some(Instant::now())
}
