//! A capability written in JavaScript: called on the environment's own thread.

use std::{
    future::ready,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use kps::{
    ErrorKind,
    capability::{Call, Capability, Failure, Operation, Outcome, Value, unknown_operation},
    net::BoxFuture,
};
use tokio::sync::oneshot;

use super::{Host, Waiting, value::Written};
use crate::complete::Completion;

/// A capability written in JavaScript.
pub(super) struct Provider {
    pub(super) host: Arc<Host>,
    /// What JavaScript calls it.
    pub(super) number: u32,
    pub(super) operations: Vec<Operation>,
    pub(super) has_init: bool,
    pub(super) has_close: bool,
}

/// A call on its way to JavaScript.
pub(crate) struct Called {
    pub(crate) number: u32,
    pub(crate) provider: u32,
    /// An operation, or a hook.
    pub(crate) operation: Arc<str>,
    pub(crate) is_hook: bool,
    pub(crate) id: Arc<str>,
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) attempt: u32,
    pub(crate) deadline: Option<Instant>,
    /// Whether somebody wants to hear how far it is.
    pub(crate) is_heard: bool,
    pub(crate) payload: Written,
}

impl Provider {
    fn hook(&self, name: &str) -> BoxFuture<'static, Outcome> {
        self.post(
            Called {
                number: 0,
                provider: self.number,
                operation: name.into(),
                is_hook: true,
                id: "".into(),
                caller: None,
                attempt: 1,
                deadline: None,
                is_heard: false,
                payload: self.host.write(&Value::Null),
            },
            None,
        )
    }

    /// Has JavaScript do `called`.
    fn post(
        &self,
        mut called: Called,
        progress: Option<kps::capability::Callback>,
    ) -> BoxFuture<'static, Outcome> {
        let (answer, answered) = oneshot::channel();
        let number = self.host.number();
        called.number = number;
        {
            let mut waiting = self.host.waiting.lock();
            if self.host.ended.load(Ordering::SeqCst) {
                return Box::pin(ready(Err(ended())));
            }
            waiting.insert(number, Waiting { answer, progress });
        }
        let deadline = called.deadline;
        self.host.completions.push(Completion::Called(Box::new(called)));
        let abort = AbortOnDrop { host: self.host.clone(), number, deadline };
        Box::pin(async move {
            let outcome = answered.await.unwrap_or_else(|_| Err(ended()));
            drop(abort);
            outcome
        })
    }
}

impl Capability for Provider {
    fn operations(&self) -> Vec<Operation> {
        self.operations.clone()
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Outcome> {
        if !self.operations.iter().any(|operation| *operation.name == *call.operation) {
            let known: Vec<_> = self.operations.iter().map(|it| &*it.name).collect();
            return Box::pin(ready(Err(unknown_operation(&call.operation, &known))));
        }
        let called = Called {
            number: 0,
            provider: self.number,
            operation: call.operation,
            is_hook: false,
            id: call.id,
            caller: call.caller.client_id,
            attempt: call.attempt,
            deadline: call.deadline,
            is_heard: call.progress.is_some(),
            payload: self.host.write(&call.payload),
        };
        self.post(called, call.progress)
    }

    fn init(&self) -> BoxFuture<'static, Result<(), Failure>> {
        if !self.has_init {
            return Box::pin(ready(Ok(())));
        }
        let running = self.hook("init");
        Box::pin(async move { running.await.map(drop) })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        if !self.has_close {
            return Box::pin(ready(()));
        }
        let running = self.hook("close");
        // JavaScript has warned already.
        Box::pin(async move { drop(running.await) })
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.host.completions.push(Completion::Forgotten { provider: self.number });
    }
}

/// Tells JavaScript when nobody waits for its answer any more.
struct AbortOnDrop {
    host: Arc<Host>,
    number: u32,
    deadline: Option<Instant>,
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let waiting = self.host.waiting.lock().remove(&self.number);
        if waiting.is_some() {
            let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            self.host.completions.push(Completion::Aborted { call: self.number, late });
        }
    }
}

fn ended() -> Failure {
    let sentence = "the thread that offers the capability has ended";
    Failure::new(ErrorKind::Unavailable, sentence).retryable()
}
