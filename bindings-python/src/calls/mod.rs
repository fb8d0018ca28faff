//! Calls of capabilities: from Python, and to capabilities written in Python.

mod provider;
mod response;
mod stream;
mod task;
mod value;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use kps::{
    Bridge as CoreBridge, Client as CoreClient,
    capability::{
        CallTarget, DispatchOptions, Failure, RegisterOptions, Response as CoreResponse, Router,
        Task,
        storage::{Spelling, StorageOptions},
    },
};
use pyo3::{prelude::*, types::PyDict};

pub(crate) use self::{
    provider::CallContext,
    response::{CallError, Response},
    stream::{StorageReader, StorageWriter, download, upload},
};
use self::{provider::Provider, task::HostedTask};
pub(crate) use self::{
    response::raised,
    value::{Refusal, from_py, to_py},
};
use crate::{
    arguments::{callable, count, given, invalid, seconds, text},
    client::{Client, finish},
    errors::{self, OrRaise},
    host::Host,
    wait::{Await, Lazy, Slot},
};

/// How a call is made, as Python gives it.
pub(crate) struct Asked<'a, 'py> {
    pub(crate) timeout: Option<&'a Bound<'py, PyAny>>,
    pub(crate) retry: Option<&'a Bound<'py, PyAny>>,
    pub(crate) target: Option<&'a Bound<'py, PyAny>>,
    pub(crate) idempotency_key: Option<&'a Bound<'py, PyAny>>,
    pub(crate) on_progress: Option<&'a Bound<'py, PyAny>>,
}

/// The coroutine of a call.
pub(crate) fn dispatch(
    py: Python<'_>,
    client: &Client,
    action: &Bound<'_, PyAny>,
    payload: Option<&Bound<'_, PyAny>>,
    asked: &Asked<'_, '_>,
) -> PyResult<Await> {
    let action = text(action, "action")?.to_owned();
    let mut options = DispatchOptions::default();
    if let Some(timeout) = given(asked.timeout) {
        options.timeout = seconds(timeout, "timeout")?;
    }
    if let Some(retry) = given(asked.retry) {
        options.retry = u32::try_from(count(retry, "retry", 0)?).unwrap_or(u32::MAX);
    }
    if let Some(target) = given(asked.target) {
        options.target = CallTarget::parse(text(target, "target")?);
    }
    if let Some(key) = given(asked.idempotency_key) {
        options.idempotency_key = Some(text(key, "idempotency_key")?.to_owned());
    }
    let on_progress = match given(asked.on_progress) {
        Some(handler) => Some(callable(handler, "on_progress")?),
        None => None,
    };
    let router = router(py, client)?;
    let payload = payload.map(|payload| payload.clone().unbind());
    Ok(Lazy::coroutine("dispatch", move |py| {
        let host = Host::current(py)?;
        options.progress = on_progress.map(|handler| value::callback(&host, handler));
        let slot = Arc::new(Slot::default());
        let payload = match payload.as_ref().map(|payload| value::from_py(&host, payload.bind(py)))
        {
            None => Ok(kps::capability::Value::Null),
            Some(payload) => payload,
        };
        match payload {
            Ok(payload) => start(&host, &slot, router.dispatch(&action, payload, options)),
            Err(value::Refusal::Raised(error)) => return Err(error),
            Err(value::Refusal::Failure(failure)) => {
                slot.fill(py, answer(py, CoreResponse::refused(failure)));
            }
        }
        Ok(slot)
    }))
}

/// Polls the call here and now; its response fills the slot, on this loop.
fn start(
    host: &Arc<Host>,
    slot: &Arc<Slot>,
    call: impl Future<Output = CoreResponse> + Send + 'static,
) {
    let (home, result) = (host.clone(), slot.clone());
    let done = move |response: CoreResponse| {
        if home.is_here() {
            // The interpreter is ours: only the loop's own thread is here.
            Python::attach(|py| result.fill(py, answer(py, response)));
        } else {
            let filled = result.clone();
            home.complete(move |py| filled.fill(py, answer(py, response)));
        }
    };
    let task = Task::start(call, done);
    slot.on_abandon(move |_| task.cancel());
}

fn answer(py: Python<'_>, response: CoreResponse) -> PyResult<Py<PyAny>> {
    Ok(Py::new(py, Response::new(py, response)?)?.into_any())
}

/// Options of a storage: a path, or a dict.
pub(crate) fn storage_options(given: &Bound<'_, PyAny>) -> PyResult<StorageOptions> {
    let py = given.py();
    let options = match given.cast::<PyDict>() {
        Ok(dict) => {
            let dict = dict.copy()?;
            if let Some(path) = dict.get_item("path")?.filter(|path| !path.is_none()) {
                dict.set_item("path", path_text(&path, "storage: path")?)?;
            }
            let host = Host::current(py)?;
            match value::from_py(&host, dict.as_any()) {
                Ok(options) => options,
                Err(value::Refusal::Raised(error)) => return Err(error),
                Err(value::Refusal::Failure(failure)) => {
                    return Err(invalid(py, format!("storage: {}", failure.message)));
                }
            }
        }
        Err(_) => path_text(given, "storage")?.into(),
    };
    StorageOptions::read(options, Spelling::Snake).or_raise(py)
}

fn path_text(given: &Bound<'_, PyAny>, name: &str) -> PyResult<String> {
    let wanted = "a path, or a dict of options";
    let path = given.extract::<PathBuf>().map_err(|_| errors::wrong_type(name, wanted, given))?;
    path.into_os_string()
        .into_string()
        .map_err(|_| invalid(given.py(), format!("{name} is not valid UTF-8")))
}

/// Opens what the client's options name.
pub(crate) async fn open(link: CoreBridge) -> kps::Result<()> {
    CoreClient::from(link).capabilities().open().await.map_err(Failure::into_error)
}

/// The coroutine that registers `capability`.
pub(crate) fn register(
    py: Python<'_>,
    client: &Client,
    name: &Bound<'_, PyAny>,
    capability: &Bound<'_, PyAny>,
    shared: bool,
    concurrency: Option<&Bound<'_, PyAny>>,
    debug: Option<bool>,
) -> PyResult<Await> {
    let name = text(name, "name")?.to_owned();
    let mut options = RegisterOptions { shared, ..RegisterOptions::default() };
    if let Some(concurrency) = given(concurrency) {
        options.concurrency =
            usize::try_from(count(concurrency, "concurrency", 1)?).unwrap_or(usize::MAX);
    }
    let router = router(py, client)?;
    let provider = Provider::new(&Host::current(py)?, capability, debug)?;
    let registered = async move { router.register(&name, Arc::new(provider), options).await };
    Ok(finish("register", registered, done))
}

/// The coroutine that takes a capability away.
pub(crate) fn unregister(
    py: Python<'_>,
    client: &Client,
    name: &Bound<'_, PyAny>,
) -> PyResult<Await> {
    let (name, router) = (text(name, "name")?.to_owned(), router(py, client)?);
    let gone = async move { router.unregister(&name).await };
    Ok(finish("unregister", gone, done))
}

/// Makes an object with the method `run` a task of `compute`.
pub(crate) fn register_task(
    py: Python<'_>,
    client: &Client,
    name: &Bound<'_, PyAny>,
    task: &Bound<'_, PyAny>,
    concurrency: usize,
    summary: String,
) -> PyResult<()> {
    let name = text(name, "name")?;
    let provider = Provider::new(&Host::current(py)?, task, None)?;
    let task = Arc::new(HostedTask::new(provider, concurrency, summary));
    let registered = router(py, client)?.compute().and_then(|it| it.register(name, task));
    registered.map_err(|failure| response::raised(py, &failure))
}

/// Takes such a task away.
pub(crate) fn unregister_task(
    py: Python<'_>,
    client: &Client,
    name: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let name = text(name, "name")?;
    let gone = router(py, client)?.compute().and_then(|it| it.unregister(name));
    gone.map_err(|failure| response::raised(py, &failure))
}

/// The coroutine that has others call the task.
pub(crate) fn share_task(
    py: Python<'_>,
    client: &Client,
    name: &Bound<'_, PyAny>,
) -> PyResult<Await> {
    let (name, router) = (text(name, "name")?.to_owned(), router(py, client)?);
    let shared = async move { router.share_task(&name).await };
    Ok(finish("share_task", shared, done))
}

/// The coroutine that ends that.
pub(crate) fn unshare_task(
    py: Python<'_>,
    client: &Client,
    name: &Bound<'_, PyAny>,
) -> PyResult<Await> {
    let (name, router) = (text(name, "name")?.to_owned(), router(py, client)?);
    let gone = async move { router.unshare_task(&name).await };
    Ok(finish("unshare_task", gone, done))
}

fn done(py: Python<'_>, result: Result<(), Failure>) -> PyResult<Py<PyAny>> {
    match result {
        Ok(()) => Ok(py.None()),
        Err(failure) => Err(response::raised(py, &failure)),
    }
}

fn router(py: Python<'_>, client: &Client) -> PyResult<Router> {
    Ok(CoreClient::from(client.shared(py)?.link().clone()).capabilities())
}

/// Whether exceptions of capabilities carry a traceback, unless `register` says.
fn debugs() -> bool {
    static DEBUG: OnceLock<bool> = OnceLock::new();
    *DEBUG.get_or_init(|| std::env::var_os("KPS_DEBUG").is_some_and(|value| value != "0"))
}

/// Seconds of a duration, for Python.
fn as_seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
