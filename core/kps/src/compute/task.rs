//! What can be run.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use kps_proto::ErrorKind;

#[cfg(feature = "wasm")]
use super::wasm::{Loader, Module};
use super::{builtin::Builtin, host::Lane, pool::Workers, stop::Stop};
use crate::capability::{Failure, Outcome, Value};

/// A task: what its name stands for.
#[derive(Clone, Debug)]
pub(super) enum Task {
    Builtin(&'static Builtin),
    #[cfg(feature = "wasm")]
    Wasm(Arc<Module>),
    /// What makes such a one; it has no name.
    #[cfg(feature = "wasm")]
    Loader(Arc<Loader>),
    Host(Arc<Lane>),
}

impl Task {
    /// The word for it in `compute.tasks`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Task::Builtin(_) => "builtin",
            #[cfg(feature = "wasm")]
            Task::Wasm(_) | Task::Loader(_) => "wasm",
            Task::Host(_) => "host",
        }
    }
}

/// What a task that runs in this thread has at hand.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) stop: &'a Stop,
    /// Who may help; `None`: it is too small for that.
    pub(super) workers: Option<&'a Arc<Workers>>,
}

impl Run<'_> {
    /// See [`Stop::check`].
    #[inline]
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.stop.check()
    }

    /// Runs the parts on all cores that are idle: see [`Workers::spread`].
    pub(super) fn spread<T: Send + 'static>(
        &self,
        parts: usize,
        part: impl Fn(usize, &Stop) -> Result<T, Failure> + Send + Sync + 'static,
    ) -> Result<Vec<T>, Failure> {
        let stop = self.stop.clone();
        let checked = move |number| stop.check().and_then(|()| part(number, &stop));
        match self.workers {
            Some(workers) => workers.spread(parts, checked),
            None => (0..parts).map(checked).collect(),
        }
    }
}

/// Runs `work`; if it panics that is its outcome.
pub(super) fn guarded(what: &str, work: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(what, &*panic)))
}

/// `internal`: a task panicked.
pub(super) fn panicked(what: &str, panic: &(dyn Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    Failure::new(ErrorKind::Internal, format!("{what} panicked: {text}"))
}

/// What answers `{"result": …}`.
pub(super) fn answer(result: Value) -> Value {
    Value::map([("result", result)])
}
