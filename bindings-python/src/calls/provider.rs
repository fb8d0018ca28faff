//! A capability written in Python: an object with methods, called on the loop that registered it.

use std::{collections::HashMap, sync::Arc, time::Instant};

use kps::{
    ErrorKind,
    capability::{
        Call, Capability, Failure, Operation, Outcome, Raised, Value, promptly, unknown_operation,
    },
    net::BoxFuture,
};
use parking_lot::Mutex;
use pyo3::{intern, prelude::*, types::PyDict};
use tokio::sync::oneshot;

use super::{as_seconds, debugs, response, value};
use crate::{errors, exit::Inside, host::Host, message, wait};

/// A capability written in Python.
pub(super) struct Provider {
    host: Arc<Host>,
    capability: Arc<Py<PyAny>>,
    methods: HashMap<String, Method>,
    operations: Vec<Operation>,
    debug: bool,
}

/// A method as `_capabilities.describe` tells it: name, takes the payload, takes the context, summary, schema.
type Described = (String, bool, bool, String, Py<PyAny>);

/// How a method is called: with the payload, and with the call's context if it takes that.
#[derive(Clone, Copy)]
struct Method {
    takes_payload: bool,
    takes_context: bool,
}

impl Provider {
    pub(super) fn new(
        host: &Arc<Host>,
        capability: &Bound<'_, PyAny>,
        debug: Option<bool>,
    ) -> PyResult<Self> {
        let py = capability.py();
        let described = py.import("kps._capabilities")?.call_method1("describe", (capability,))?;
        let (instance, described): (Py<PyAny>, Vec<Described>) = described.extract()?;
        let mut methods = HashMap::new();
        let mut operations = Vec::new();
        for (name, takes_payload, takes_context, summary, schema) in described {
            let mut operation = Operation::new(name.clone(), summary);
            operation.schema = match value::from_py(host, schema.bind(py)) {
                Ok(schema) => schema,
                Err(value::Refusal::Raised(error)) => return Err(error),
                Err(value::Refusal::Failure(failure)) => {
                    return Err(response::raised(py, &failure));
                }
            };
            operations.push(operation);
            methods.insert(name, Method { takes_payload, takes_context });
        }
        Ok(Provider {
            host: host.clone(),
            capability: Arc::new(instance),
            methods,
            operations,
            debug: debug.unwrap_or_else(debugs),
        })
    }

    /// Calls a hook, if the object has it.
    fn hook(&self, name: &'static str) -> BoxFuture<'static, Result<(), Failure>> {
        let method = Method { takes_payload: false, takes_context: false };
        let running = self.start(name.to_owned(), method, None);
        Box::pin(async move { running.await.map(drop) })
    }

    /// Starts a method on its loop: at once if this is the loop's own thread.
    fn start(
        &self,
        name: String,
        method: Method,
        call: Option<Call>,
    ) -> BoxFuture<'static, Outcome> {
        let (answer, answered) = oneshot::channel();
        let running = Running {
            host: self.host.clone(),
            answer: Arc::new(Mutex::new(Some(answer))),
            task: Arc::default(),
            debug: self.debug,
        };
        let (capability, started) = (self.capability.clone(), running.clone());
        let begin = move |py: Python<'_>| started.begin(py, &capability, &name, method, call);
        if self.host.is_here() {
            Python::attach(begin);
        } else {
            self.host.complete(begin);
        }
        Box::pin(async move {
            let mut stop = StopOnDrop(Some(running));
            let outcome = answered.await.unwrap_or_else(|_| {
                let sentence = "the event loop of the capability was closed";
                Err(Failure::new(ErrorKind::Unavailable, sentence))
            });
            stop.0 = None;
            outcome
        })
    }
}

impl Capability for Provider {
    fn operations(&self) -> Vec<Operation> {
        self.operations.clone()
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Outcome> {
        let name = call.operation.to_string();
        match self.methods.get(&name) {
            Some(method) => self.start(name, *method, Some(call)),
            None => {
                let known: Vec<_> = self.operations.iter().map(|it| &*it.name).collect();
                Box::pin(std::future::ready(Err(unknown_operation(&name, &known))))
            }
        }
    }

    fn init(&self) -> BoxFuture<'static, Result<(), Failure>> {
        self.hook("init")
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let closing = self.hook("close");
        Box::pin(async move {
            if let Err(failure) = closing.await {
                eprintln!("kps: a capability's close() failed: {failure}");
            }
        })
    }
}

/// One call of a method under way.
#[derive(Clone)]
struct Running {
    host: Arc<Host>,
    answer: Arc<Mutex<Option<oneshot::Sender<Outcome>>>>,
    task: Arc<Mutex<Option<Py<PyAny>>>>,
    debug: bool,
}

impl Running {
    /// Calls the method; what it returns is the answer, now or when its task ends.
    fn begin(
        &self,
        py: Python<'_>,
        capability: &Py<PyAny>,
        name: &str,
        method: Method,
        call: Option<Call>,
    ) {
        let _inside = Inside::enter(py);
        if self.answer.lock().as_ref().is_none_or(oneshot::Sender::is_closed) {
            return;
        }
        let called = (|| {
            let capability = capability.bind(py);
            let Some(call) = call else {
                return match capability.getattr_opt(name)? {
                    Some(hook) => hook.call0(),
                    None => Ok(py.None().into_bound(py)),
                };
            };
            let function = capability.getattr(name)?;
            let mut call = call;
            let payload = std::mem::take(&mut call.payload);
            let context = match method.takes_context {
                true => Some(Py::new(py, CallContext(call))?),
                false => None,
            };
            let named = PyDict::new(py);
            if let Some(context) = context {
                named.set_item(intern!(py, "context"), context)?;
            }
            let named = Some(&named).filter(|named| !named.is_empty());
            match method.takes_payload {
                true => function.call((value::to_py(py, payload)?,), named),
                false => function.call((), named),
            }
        })();
        match called {
            Ok(result) if is_awaitable(&result) => {
                if let Err(error) = self.spawn(py, result) {
                    self.finish(Err(self.failure(py, &error)));
                }
            }
            Ok(result) => self.returned(&result),
            Err(error) => self.finish(Err(self.failure(py, &error))),
        }
    }

    fn spawn(&self, py: Python<'_>, awaitable: Bound<'_, PyAny>) -> PyResult<()> {
        let event_loop = self.host.event_loop(py).ok_or_else(wait::no_loop)?;
        let task = py
            .import(intern!(py, "kps._tasks"))?
            .call_method1(intern!(py, "start"), (event_loop, awaitable))?;
        let done = Bound::new(py, Answer(self.clone()))?;
        *self.task.lock() = Some(task.clone().unbind());
        task.call_method1(intern!(py, "add_done_callback"), (done,))?;
        Ok(())
    }

    fn returned(&self, result: &Bound<'_, PyAny>) {
        let outcome = match value::from_py(&self.host, result) {
            Ok(Value::Callback(_)) => {
                Err(Failure::new(ErrorKind::Internal, "the operation returned a function"))
            }
            Ok(value) => Ok(value),
            Err(value::Refusal::Failure(failure)) => Err(Failure::new(
                ErrorKind::Internal,
                format!("what the operation returned cannot travel: {}", failure.message),
            )),
            Err(value::Refusal::Raised(error)) => Err(self.failure(result.py(), &error)),
        };
        self.finish(outcome);
    }

    fn finish(&self, outcome: Outcome) {
        let answer = self.answer.lock().take();
        let task = self.task.lock().take();
        drop(task);
        if let Some(answer) = answer {
            // Nobody may wait any more. On the loop's thread its caller goes on right here.
            promptly(|| drop(answer.send(outcome)));
        }
    }

    /// What the program raised.
    fn failure(&self, py: Python<'_>, error: &PyErr) -> Failure {
        if errors::is_cancelled(py, error) {
            return Failure::new(ErrorKind::Cancelled, "the operation was cancelled");
        }
        let raised = message::handler_error(error, py);
        let value = error.value(py);
        let code = value.getattr("code").ok().and_then(|code| code.extract::<String>().ok());
        let kind = code.as_deref().and_then(response::kind_of);
        let is_kps = raised.kind.ends_with("Error") && kind.is_some();
        let retry = value.getattr("retry").ok().and_then(|retry| retry.extract::<bool>().ok());
        let mut failure = match kind {
            Some(kind) if is_kps => Failure::new(kind, raised.text),
            _ if message::asked_delay(value).is_ok_and(|_| raised.kind == "Retry") => {
                Failure::new(ErrorKind::Unavailable, raised.text).retryable()
            }
            _ => Failure::new(ErrorKind::Internal, raised.text),
        };
        failure.retry = retry.unwrap_or(failure.retry);
        if is_kps {
            failure.field = value.getattr("field").ok().and_then(|field| field.extract().ok());
        }
        let traceback = self.debug.then(|| traceback(py, error)).flatten();
        failure.raised = Some(Box::new(Raised { kind: raised.kind, traceback }));
        failure
    }
}

fn traceback(py: Python<'_>, error: &PyErr) -> Option<String> {
    let parts = (error.get_type(py), error.value(py), error.traceback(py));
    let lines = py.import("traceback").ok()?.call_method1("format_exception", parts);
    Some(lines.ok()?.extract::<Vec<String>>().ok()?.concat())
}

fn is_awaitable(result: &Bound<'_, PyAny>) -> bool {
    !result.is_none() && result.hasattr(intern!(result.py(), "__await__")).unwrap_or(false)
}

/// Ends the method when nobody waits for its answer any more.
struct StopOnDrop(Option<Running>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let Some(running) = self.0.take() else { return };
        let answer = running.answer.lock().take();
        drop(answer);
        let host = running.host.clone();
        host.complete(move |py| {
            let task = running.task.lock().take();
            if let Some(task) = task {
                // It may have ended already.
                let _ = task.call_method0(py, intern!(py, "cancel"));
            }
        });
    }
}

/// Told by a method's task when it has ended.
#[pyclass(frozen, module = "kps._kps", name = "_Answer")]
pub(crate) struct Answer(Running);

#[pymethods]
impl Answer {
    fn __call__(&self, task: &Bound<'_, PyAny>) {
        let py = task.py();
        let _inside = Inside::enter(py);
        match task.call_method0(intern!(py, "result")) {
            Ok(result) => self.0.returned(&result),
            Err(error) => self.0.finish(Err(self.0.failure(py, &error))),
        }
    }
}

/// What a capability's method may want to know of a call.
#[pyclass(frozen, module = "kps._kps", name = "CallContext")]
pub(crate) struct CallContext(Call);

#[pymethods]
impl CallContext {
    /// The call's id, the same over all attempts.
    #[getter]
    fn id(&self) -> &str {
        &self.0.id
    }

    #[getter]
    fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The client that calls; `None`: this process itself.
    #[getter]
    fn caller(&self) -> Option<&str> {
        self.0.caller.client_id.as_deref()
    }

    #[getter]
    fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Seconds left; `None`: for ever.
    #[getter]
    fn remaining(&self) -> Option<f64> {
        let deadline = self.0.deadline?;
        Some(as_seconds(deadline.saturating_duration_since(Instant::now())))
    }

    /// Whether nobody waits any more.
    #[getter]
    fn cancelled(&self) -> bool {
        self.0.cancel.is_cancelled()
    }

    /// Tells the caller how far it is, if it wants to know.
    fn progress(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(progress) = &self.0.progress else { return Ok(()) };
        let host = Host::current(py)?;
        match value::from_py(&host, value) {
            Ok(value) => progress.call(value),
            Err(value::Refusal::Raised(error)) => return Err(error),
            Err(value::Refusal::Failure(failure)) => return Err(response::raised(py, &failure)),
        }
        Ok(())
    }
}
