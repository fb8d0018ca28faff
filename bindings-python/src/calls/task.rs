//! A task of `compute` written in Python: an object with the method `run`, called on the loop that registered
//! it.

use std::time::Instant;

use kps::{
    capability::{Call, Caller, Cancel, Capability, Outcome, Value},
    compute::HostTask,
    net::BoxFuture,
    runtime,
};

use super::provider::Provider;

/// A task written in Python.
pub(super) struct HostedTask {
    provider: Provider,
    concurrency: usize,
    summary: String,
}

impl HostedTask {
    pub(super) fn new(provider: Provider, concurrency: usize, summary: String) -> Self {
        HostedTask { provider, concurrency, summary }
    }
}

/// Nobody calls it any more, and nothing of it runs.
impl Drop for HostedTask {
    fn drop(&mut self) {
        runtime::spawn(self.provider.close());
    }
}

impl HostTask for HostedTask {
    fn run(
        &self,
        data: Value,
        cancel: Cancel,
        deadline: Option<Instant>,
    ) -> BoxFuture<'static, Outcome> {
        self.provider.call(Call {
            id: "".into(),
            operation: "run".into(),
            payload: data,
            caller: Caller::default(),
            cancel,
            deadline,
            attempt: 1,
            progress: None,
        })
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn summary(&self) -> &str {
        &self.summary
    }
}
