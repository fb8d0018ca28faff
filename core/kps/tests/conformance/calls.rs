//! The steps of calls: `dispatch`, `register`, `unregister`, `abandon`, and what they remember.

use std::{cell::Cell, rc::Rc, sync::Arc};

use kps::{
    ErrorKind,
    capability::{
        Call, CallTarget, Callback, Capability, DispatchOptions, Failure as CallFailure, Operation,
        Outcome as CallOutcome, Raised, RegisterOptions, Response, Value as Given,
        unknown_operation,
    },
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, spawn_local},
};

use super::{Outcome, World, expect, fail, string};
use crate::{
    given,
    log::Logs,
    reader::Gates,
    value::{self, int, seconds},
};

impl World {
    /// A case's value with what it remembers filled in.
    pub(super) fn filled(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) if fields.contains_key("$kept") => {
                let name = fields["$kept"].as_str().expect("a name");
                self.kept
                    .borrow()
                    .get(name)
                    .cloned()
                    .unwrap_or_else(|| panic!("{name} was not kept"))
            }
            Value::Object(fields) if fields.contains_key("$as_is") => value.clone(),
            Value::Object(fields) if fields.contains_key("$int") => small_or_marked(value),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), self.filled(value))).collect()
            }
            Value::Array(items) => items.iter().map(|item| self.filled(item)).collect(),
            other => other.clone(),
        }
    }

    /// What a call is given.
    fn given(&self, value: &Value) -> Given {
        let logs = self.logs.clone();
        given::given(&self.filled(value), &|name| self.callback(&logs, name))
    }

    /// Logs what it is called with, as a handler does; it may be called on any thread.
    fn callback(&self, logs: &Rc<Logs>, name: &str) -> Callback {
        let (tell, mut told) = mpsc::unbounded_channel();
        let (logs, name) = (logs.clone(), name.to_owned());
        spawn_local(async move {
            while let Some(value) = told.recv().await {
                logs.put("", &name, json!([given::seen(&value)]));
            }
        });
        // The case may be over.
        Callback::new(move |value| drop(tell.send(value)))
    }

    pub(super) async fn dispatch(&self, step: &Value) -> Outcome {
        let client = self.client(step);
        let options = self.dispatch_options(step)?;
        let payload = self.given(&step["payload"]);
        let times = step.get("times").map_or(1, int);
        let router = client.capabilities();
        let mut calls = JoinSet::new();
        for _ in 0..times {
            let call = router.dispatch(string(step, "action"), payload.clone(), options.clone());
            calls.spawn_local(call);
        }
        let responses = calls.join_all().await;
        if let Some(wanted) = step["providers"].as_array() {
            let mut seen: Vec<_> = responses.iter().map(|each| each.provider.clone()).collect();
            seen.sort();
            seen.dedup();
            expect(&json!(wanted), &seen.into_iter().map(|id| json!(id.as_deref())).collect())?;
        }
        for response in responses {
            self.check(step, response)?;
        }
        Ok(())
    }

    fn dispatch_options(&self, step: &Value) -> kps::Result<DispatchOptions> {
        let given = &step["options"];
        let mut options = DispatchOptions {
            target: given["target"].as_str().map_or(CallTarget::Nearest, CallTarget::parse),
            idempotency_key: given["idempotency_key"].as_str().map(Into::into),
            progress: step["progress"].as_str().map(|name| self.callback(&self.logs, name)),
            ..DispatchOptions::default()
        };
        if let Some(timeout) = given.get("timeout") {
            options.timeout = seconds(timeout)?;
        }
        if let Some(retry) = given.get("retry") {
            options.retry = u32::try_from(int(retry)).expect("a small number");
        }
        Ok(options)
    }

    fn check(&self, step: &Value, response: Response) -> Outcome {
        if let Some(wanted) = step.get("response") {
            let mut envelope = given::seen(&response.clone().into_value());
            envelope["provider"] = json!(response.provider.as_deref());
            expect(&self.filled(wanted), &envelope)?;
        }
        if let Some(wanted) = step.get("failure") {
            let envelope = given::seen(&response.into_value());
            return expect(&self.filled(wanted), &envelope["error"]);
        }
        let data = given::seen(&response.unwrap().map_err(CallFailure::into_error)?);
        if let Some(wanted) = step.get("data") {
            expect(&self.filled(wanted), &data)?;
        }
        for (name, path) in step["keep"].as_object().into_iter().flatten() {
            let place = format!("/{}", path.as_str().expect("a path").replace('.', "/"));
            let Some(value) = data.pointer(place.trim_end_matches('/')) else {
                return fail(format!("{data} has no {path}"));
            };
            self.kept.borrow_mut().insert(name.clone(), value.clone());
        }
        Ok(())
    }

    pub(super) async fn register(&self, step: &Value) -> Outcome {
        let (name, client) = (value::text(&step["name"]), self.client(step));
        let log = step["sub"].as_str().unwrap_or(&name).to_owned();
        let offered = step["operations"].as_object().expect("operations");
        let operations = offered.iter().map(|(name, script)| {
            let mut operation = Operation::new(name, "");
            operation.schema = self.given(&script["schema"]);
            operation
        });
        let (asked, mut asks) = mpsc::unbounded_channel();
        let capability = Scripted { operations: operations.collect(), asked };
        let provider = Rc::new(Provider {
            scripts: offered
                .iter()
                .map(|(name, given)| (name.clone(), Script::new(given)))
                .collect(),
            has_hooks: step["hooks"] == true,
            log,
            logs: self.logs.clone(),
            gates: self.gates.clone(),
        });
        spawn_local(async move {
            while let Some(asked) = asks.recv().await {
                spawn_local(provider.clone().answer(asked));
            }
        });
        let mut options = RegisterOptions { shared: step["shared"] == true, ..Default::default() };
        if let Some(concurrency) = step.get("concurrency") {
            options.concurrency = int(concurrency);
        }
        let registered = client.capabilities().register(&name, Arc::new(capability), options).await;
        Ok(registered.map_err(CallFailure::into_error)?)
    }

    pub(super) async fn unregister(&self, step: &Value) -> Outcome {
        let gone = self.client(step).capabilities().unregister(string(step, "name")).await;
        Ok(gone.map_err(CallFailure::into_error)?)
    }

    /// Gives up a step in the background, and with it the call that it makes.
    pub(super) async fn abandon(&self, step: &Value) -> Outcome {
        let task = self.tasks.borrow_mut().remove(string(step, "name"));
        let task = task.expect("a step with this name");
        task.abort();
        match task.await {
            Err(_) => Ok(()),
            Ok(outcome) => fail(format!("it had ended: {}", outcome.is_ok())),
        }
    }
}

/// An integer as numbers are written: marked only if it is beyond 2⁵³.
fn small_or_marked(value: &Value) -> Value {
    given::seen(&plain(value))
}

/// A capability that does what the case says, on the case's thread.
struct Scripted {
    operations: Vec<Operation>,
    asked: mpsc::UnboundedSender<Asked>,
}

enum Asked {
    Hook(&'static str),
    Call(Box<Call>, oneshot::Sender<CallOutcome>),
}

impl Capability for Scripted {
    fn operations(&self) -> Vec<Operation> {
        self.operations.clone()
    }

    fn call(&self, call: Call) -> kps::net::BoxFuture<'static, CallOutcome> {
        let known: Vec<&str> = self.operations.iter().map(|each| &*each.name).collect();
        if !known.contains(&&*call.operation) {
            let failure = unknown_operation(&call.operation, &known);
            return Box::pin(std::future::ready(Err(failure)));
        }
        let (answer, answered) = oneshot::channel();
        // The case may be over: then nobody answers.
        drop(self.asked.send(Asked::Call(Box::new(call), answer)));
        Box::pin(async move {
            let over = || CallFailure::new(ErrorKind::Closed, "the case is over");
            answered.await.unwrap_or_else(|_| Err(over()))
        })
    }

    fn init(&self) -> kps::net::BoxFuture<'static, Result<(), CallFailure>> {
        drop(self.asked.send(Asked::Hook("init")));
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(&self) -> kps::net::BoxFuture<'static, ()> {
        drop(self.asked.send(Asked::Hook("close")));
        Box::pin(std::future::ready(()))
    }
}

/// An operation's behaviours, one per call, the last one for all that follow.
struct Script {
    behaviours: Vec<Value>,
    calls: Cell<usize>,
}

impl Script {
    fn new(given: &Value) -> Script {
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

struct Provider {
    scripts: Vec<(String, Script)>,
    has_hooks: bool,
    log: String,
    logs: Rc<Logs>,
    gates: Rc<Gates>,
}

impl Provider {
    async fn answer(self: Rc<Self>, asked: Asked) {
        match asked {
            Asked::Hook(hook) if self.has_hooks => self.tell(json!({ "hook": hook })),
            Asked::Hook(_) => {}
            Asked::Call(call, mut answer) => {
                self.tell(json!({
                    "operation": &*call.operation,
                    "payload": given::seen(&call.payload),
                    "caller": call.caller.client_id.as_deref(),
                    "attempt": call.attempt,
                }));
                let operation = call.operation.clone();
                tokio::select! {
                    outcome = self.work(*call) => drop(answer.send(outcome)),
                    () = answer.closed() => self.tell(json!({ "cancelled": &*operation })),
                }
            }
        }
    }

    fn tell(&self, what: Value) {
        self.logs.put("", &self.log, json!([what]));
    }

    async fn work(&self, call: Call) -> CallOutcome {
        let script = self.scripts.iter().find(|(name, _)| **name == *call.operation);
        let behaviour = script.expect("it is one of them").1.next();
        for news in behaviour["progress"].as_array().into_iter().flatten() {
            if let Some(progress) = &call.progress {
                progress.call(plain(news));
            }
        }
        if let Some(gate) = behaviour["hold"].as_str() {
            self.gates.hold(gate).await;
        }
        if behaviour["echo"] == true {
            return Ok(call.payload);
        }
        if let Some(text) = behaviour["raise"].as_str() {
            let raised = Raised { kind: "ValueError".into(), traceback: None };
            let failure = CallFailure::new(ErrorKind::Internal, text);
            return Err(CallFailure { raised: Some(Box::new(raised)), ..failure });
        }
        if let Some(text) = behaviour["busy"].as_str() {
            return Err(CallFailure::new(ErrorKind::Unavailable, text).retryable());
        }
        if let Some(error) = behaviour.get("fail") {
            return Err(CallFailure::from_value(plain(error)));
        }
        Ok(plain(&behaviour["return"]))
    }
}

/// A value in which nothing is to be filled in.
fn plain(value: &Value) -> Given {
    given::given(value, &|name| panic!("no callback {name} here"))
}
