//! Capabilities and tasks that do what a case says, on the case's thread.

use std::{cell::Cell, rc::Rc, time::Instant};

use kps::{
    ErrorKind,
    capability::{
        Call, Callback, Cancel, Capability, Failure, Operation, Outcome, Raised, Value as Given,
        unknown_operation,
    },
    compute::HostTask,
    net::BoxFuture,
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_local,
};

use crate::{given, log::Logs, reader::Gates};

/// A capability.
pub(crate) struct Scripted {
    operations: Vec<Operation>,
    asked: mpsc::UnboundedSender<Asked>,
}

/// A task of `compute`.
pub(crate) struct ScriptedTask {
    name: String,
    concurrency: Option<usize>,
    asked: mpsc::UnboundedSender<Asked>,
}

enum Asked {
    Hook(&'static str),
    Work(Work, oneshot::Sender<Outcome>),
}

/// What is to be done.
struct Work {
    /// The operation, or the task.
    name: String,
    payload: Given,
    progress: Option<Callback>,
    /// What the case may expect of it.
    told: Value,
}

impl Scripted {
    pub(crate) fn new(operations: Vec<Operation>, provider: Provider) -> Scripted {
        Scripted { operations, asked: provider.start() }
    }
}

impl ScriptedTask {
    pub(crate) fn new(name: String, concurrency: Option<usize>, provider: Provider) -> Self {
        ScriptedTask { name, concurrency, asked: provider.start() }
    }
}

impl Capability for Scripted {
    fn operations(&self) -> Vec<Operation> {
        self.operations.clone()
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Outcome> {
        let known: Vec<&str> = self.operations.iter().map(|each| &*each.name).collect();
        if !known.contains(&&*call.operation) {
            let failure = unknown_operation(&call.operation, &known);
            return Box::pin(std::future::ready(Err(failure)));
        }
        let told = json!({
            "operation": &*call.operation,
            "payload": given::seen(&call.payload),
            "caller": call.caller.client_id.as_deref(),
            "attempt": call.attempt,
        });
        let (name, payload) = (call.operation.to_string(), call.payload);
        ask(&self.asked, Work { name, payload, progress: call.progress, told })
    }

    fn init(&self) -> BoxFuture<'static, Result<(), Failure>> {
        drop(self.asked.send(Asked::Hook("init")));
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        drop(self.asked.send(Asked::Hook("close")));
        Box::pin(std::future::ready(()))
    }
}

impl HostTask for ScriptedTask {
    fn run(&self, data: Given, _: Cancel, _: Option<Instant>) -> BoxFuture<'static, Outcome> {
        let told = json!({ "task": self.name, "data": given::seen(&data) });
        ask(&self.asked, Work { name: self.name.clone(), payload: data, progress: None, told })
    }

    fn concurrency(&self) -> usize {
        self.concurrency.unwrap_or(256)
    }
}

fn ask(asked: &mpsc::UnboundedSender<Asked>, work: Work) -> BoxFuture<'static, Outcome> {
    let (answer, answered) = oneshot::channel();
    // The case may be over: then nobody answers.
    drop(asked.send(Asked::Work(work, answer)));
    Box::pin(async move {
        let over = || Failure::new(ErrorKind::Closed, "the case is over");
        answered.await.unwrap_or_else(|_| Err(over()))
    })
}

/// Behaviours, one per call, the last one for all that follow.
pub(crate) struct Script {
    behaviours: Vec<Value>,
    calls: Cell<usize>,
}

impl Script {
    pub(crate) fn new(given: &Value) -> Script {
        let given = given.get("each").unwrap_or(given);
        let behaviours = given.as_array().cloned().unwrap_or_else(|| vec![given.clone()]);
        Script { behaviours, calls: Cell::new(0) }
    }

    fn next(&self) -> Value {
        let at = self.calls.get();
        self.calls.set(at + 1);
        self.behaviours[at.min(self.behaviours.len() - 1)].clone()
    }
}

/// Who does the work.
pub(crate) struct Provider {
    pub(crate) scripts: Vec<(String, Script)>,
    pub(crate) has_hooks: bool,
    /// What it is asked is logged under this name.
    pub(crate) log: String,
    pub(crate) logs: Rc<Logs>,
    pub(crate) gates: Rc<Gates>,
}

impl Provider {
    fn start(self) -> mpsc::UnboundedSender<Asked> {
        let (asked, mut asks) = mpsc::unbounded_channel();
        let provider = Rc::new(self);
        spawn_local(async move {
            while let Some(asked) = asks.recv().await {
                spawn_local(provider.clone().answer(asked));
            }
        });
        asked
    }

    async fn answer(self: Rc<Self>, asked: Asked) {
        match asked {
            Asked::Hook(hook) if self.has_hooks => self.tell(json!({ "hook": hook })),
            Asked::Hook(_) => {}
            Asked::Work(work, mut answer) => {
                self.tell(work.told.clone());
                let name = work.name.clone();
                tokio::select! {
                    outcome = self.work(work) => drop(answer.send(outcome)),
                    () = answer.closed() => self.tell(json!({ "cancelled": name })),
                }
            }
        }
    }

    fn tell(&self, what: Value) {
        self.logs.put("", &self.log, json!([what]));
    }

    async fn work(&self, work: Work) -> Outcome {
        let script = self.scripts.iter().find(|(name, _)| *name == work.name);
        let behaviour = script.expect("it is one of them").1.next();
        for news in behaviour["progress"].as_array().into_iter().flatten() {
            if let Some(progress) = &work.progress {
                progress.call(plain(news));
            }
        }
        if let Some(gate) = behaviour["hold"].as_str() {
            self.gates.hold(gate).await;
        }
        if behaviour["echo"] == true {
            return Ok(work.payload);
        }
        if let Some(text) = behaviour["raise"].as_str() {
            let raised = Raised { kind: "ValueError".into(), traceback: None };
            let failure = Failure::new(ErrorKind::Internal, text);
            return Err(Failure { raised: Some(Box::new(raised)), ..failure });
        }
        if let Some(text) = behaviour["busy"].as_str() {
            return Err(Failure::new(ErrorKind::Unavailable, text).retryable());
        }
        if let Some(error) = behaviour.get("fail") {
            return Err(Failure::from_value(plain(error)));
        }
        Ok(plain(&behaviour["return"]))
    }
}

/// A value in which nothing is to be filled in.
pub(crate) fn plain(value: &Value) -> Given {
    given::given(value, &|name| panic!("no callback {name} here"))
}
