//! A task of `compute` written in JavaScript: called as a capability with the operation `run`.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use kps::{
    capability::{Call, Caller, Cancel, Capability, Operation, Outcome, Value},
    compute::HostTask,
    net::BoxFuture,
};
use napi_derive::napi;

use super::{provider::Provider, register::told};
use crate::{
    bridge::Bridge,
    complete::Completion,
    error::{Result, thrown},
};

/// A task written in JavaScript.
struct HostedTask {
    provider: Provider,
    concurrency: usize,
    summary: String,
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

#[napi]
impl Bridge {
    /// Makes JavaScript's capability `provider` the task `name`. Call `token` ends when it is one.
    #[napi]
    pub fn register_task(
        &self,
        client: u32,
        name: String,
        provider: u32,
        concurrency: u32,
        summary: String,
        token: u32,
    ) -> Result<()> {
        let router = self.shared.client(client).map_err(thrown)?.router();
        let provider = Provider {
            host: self.shared.host.clone(),
            number: provider,
            operations: vec![Operation::new("run", "")],
            has_init: false,
            has_close: false,
        };
        let task = HostedTask { provider, concurrency: concurrency as usize, summary };
        let registered = router.compute().and_then(|it| it.register(&name, Arc::new(task)));
        self.ended(token, told(registered));
        Ok(())
    }

    /// Takes such a task away. Call `token` ends at once; the task when nothing of it runs.
    #[napi]
    pub fn unregister_task(&self, client: u32, name: String, token: u32) -> Result<()> {
        let router = self.shared.client(client).map_err(thrown)?.router();
        let gone = router.compute().and_then(|it| it.unregister(&name));
        self.ended(token, told(gone));
        Ok(())
    }

    /// Has others call the task. Call `token` ends when they can.
    #[napi]
    pub fn share_task(&self, client: u32, name: String, token: u32) -> Result<()> {
        let router = self.shared.client(client).map_err(thrown)?.router();
        let completions = self.shared.completions.clone();
        kps::runtime::spawn(async move {
            let json = told(router.share_task(&name).await);
            completions.push(Completion::Ended { token, json });
        });
        Ok(())
    }

    /// Ends that. Call `token` ends when nobody can any more.
    #[napi]
    pub fn unshare_task(&self, client: u32, name: String, token: u32) -> Result<()> {
        let router = self.shared.client(client).map_err(thrown)?.router();
        let completions = self.shared.completions.clone();
        kps::runtime::spawn(async move {
            let json = told(router.unshare_task(&name).await);
            completions.push(Completion::Ended { token, json });
        });
        Ok(())
    }

    fn ended(&self, token: u32, json: Bytes) {
        self.shared.completions.push(Completion::Ended { token, json });
    }
}
