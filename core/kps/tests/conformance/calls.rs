//! The steps of calls: `dispatch`, `register`, `unregister`, `abandon`, and what they remember.

use std::{rc::Rc, sync::Arc};

use kps::capability::{
    CallTarget, Callback, DispatchOptions, Failure as CallFailure, Operation, RegisterOptions,
    Response, Value as Given,
};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_local},
};

use super::{Outcome, World, expect, fail, string};
use crate::{
    given,
    log::Logs,
    scripted::{Provider, Script, Scripted, ScriptedTask, plain},
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
            Value::Object(fields)
                if fields.contains_key("$int") || fields.contains_key("$ramp") =>
            {
                as_seen(value)
            }
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), self.filled(value))).collect()
            }
            Value::Array(items) => items.iter().map(|item| self.filled(item)).collect(),
            other => other.clone(),
        }
    }

    /// What a call is given.
    pub(super) fn given(&self, value: &Value) -> Given {
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
        let data = response.unwrap().map_err(CallFailure::into_error)?;
        self.answered(step, &data)
    }

    /// Compares an answer, and remembers what the step wants to keep of it.
    pub(super) fn answered(&self, step: &Value, data: &Given) -> Outcome {
        let data = given::seen(data);
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
        let offered = step["operations"].as_object().expect("operations");
        let operations = offered.iter().map(|(name, script)| {
            let mut operation = Operation::new(name, "");
            operation.schema = self.given(&script["schema"]);
            operation
        });
        let scripts =
            offered.iter().map(|(name, given)| (name.clone(), Script::new(given))).collect();
        let capability = Scripted::new(operations.collect(), self.provider(step, scripts));
        let mut options = RegisterOptions { shared: step["shared"] == true, ..Default::default() };
        if let Some(concurrency) = step.get("concurrency") {
            options.concurrency = int(concurrency);
        }
        let registered = client.capabilities().register(&name, Arc::new(capability), options).await;
        Ok(registered.map_err(CallFailure::into_error)?)
    }

    /// Who answers on the case's thread, and logs what it is asked.
    fn provider(&self, step: &Value, scripts: Vec<(String, Script)>) -> Provider {
        Provider {
            scripts,
            has_hooks: step["hooks"] == true,
            log: value::text(step.get("sub").unwrap_or(&step["name"])),
            logs: self.logs.clone(),
            gates: self.gates.clone(),
        }
    }

    pub(super) async fn register_task(&self, step: &Value) -> Outcome {
        let (name, router) = (value::text(&step["name"]), self.client(step).capabilities());
        let scripts = vec![(name.clone(), Script::new(&step["does"]))];
        let concurrency = step.get("concurrency").map(int);
        let task = ScriptedTask::new(name.clone(), concurrency, self.provider(step, scripts));
        let registered = async {
            router.compute()?.register(&name, Arc::new(task))?;
            if step["shared"] == true { router.share_task(&name).await } else { Ok(()) }
        };
        Ok(registered.await.map_err(CallFailure::into_error)?)
    }

    /// `unregister_task`, `share_task`, `unshare_task`.
    pub(super) async fn change_task(&self, step: &Value) -> Outcome {
        let (name, router) = (string(step, "name"), self.client(step).capabilities());
        let changed = match string(step, "do") {
            "share_task" => router.share_task(name).await,
            "unshare_task" => router.unshare_task(name).await,
            _ => router.compute().and_then(|compute| compute.unregister(name)),
        };
        Ok(changed.map_err(CallFailure::into_error)?)
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

/// As answers are written: an integer is marked only if it is beyond 2⁵³.
fn as_seen(value: &Value) -> Value {
    given::seen(&plain(value))
}
