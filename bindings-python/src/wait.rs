//! Awaiting without a future where the result is there already, and with one of the loop's own
//! futures where it is not.

use std::{
    ffi::CString,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use pyo3::{
    exceptions::{PyRuntimeError, PyRuntimeWarning, PyStopIteration},
    intern,
    prelude::*,
    sync::PyOnceLock,
};

use crate::exit::Inside;

/// What an `await` waits for.
pub(crate) trait Outcome: Send + Sync {
    /// The result, once it is there.
    fn poll(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>>;
    /// What rings when polling again makes sense.
    fn signal(&self) -> &Signal;
    /// The `await` was cancelled; nobody polls any more.
    fn abandon(&self, _py: Python<'_>) {}
}

/// A coroutine over an [`Outcome`]: it works with `await`, `wait_for`, `gather`, `create_task`.
#[pyclass(frozen, freelist = 64, module = "kps._kps")]
pub(crate) struct Await {
    outcome: Box<dyn Outcome>,
    future: Mutex<Option<Py<PyAny>>>,
    finished: AtomicBool,
}

impl Await {
    pub(crate) fn new(outcome: impl Outcome + 'static) -> Self {
        let (future, finished) = (Mutex::new(None), AtomicBool::new(false));
        Await { outcome: Box::new(outcome), future, finished }
    }

    fn forget_future(&self) {
        if let Some(future) = self.future.lock().take() {
            self.outcome.signal().remove(&future);
        }
    }

    fn finish(&self, py: Python<'_>, result: PyResult<Py<PyAny>>) -> PyErr {
        self.forget_future();
        self.finished.store(true, Ordering::Relaxed);
        match result {
            Ok(value) => stop(py, value),
            Err(error) => error,
        }
    }

    fn leave(&self, py: Python<'_>) {
        self.forget_future();
        if !self.finished.swap(true, Ordering::Relaxed) {
            self.outcome.abandon(py);
        }
    }
}

#[pymethods]
impl Await {
    #[expect(clippy::self_named_constructors, reason = "Python's name, not a constructor")]
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(py);
        if self.finished.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("cannot await this again"));
        }
        if let Some(result) = self.outcome.poll(py) {
            return Err(self.finish(py, result));
        }
        self.forget_future();
        let Some(event_loop) = running_loop(py)? else {
            return Err(no_loop());
        };
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        self.outcome.signal().add(&future, &event_loop);
        *self.future.lock() = Some(future.clone().unbind());
        // Making the future ran Python code; what is waited for may have happened.
        if let Some(result) = self.outcome.poll(py) {
            return Err(self.finish(py, result));
        }
        Ok(future.unbind())
    }

    fn send(&self, py: Python<'_>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.__next__(py)
    }

    #[pyo3(signature = (kind, value = None, traceback = None))]
    fn throw(
        &self,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(kind.py());
        self.leave(kind.py());
        Err(thrown(kind, value, traceback))
    }

    fn close(&self, py: Python<'_>) {
        self.leave(py);
    }
}

/// Futures to resolve when something changed.
#[derive(Default)]
pub(crate) struct Signal(Mutex<Vec<Waiter>>);

struct Waiter {
    future: Py<PyAny>,
    event_loop: Py<PyAny>,
}

impl Signal {
    /// Wakes everybody who waits, each on its own loop.
    #[inline]
    pub(crate) fn ring(&self, py: Python<'_>) {
        let waiters = std::mem::take(&mut *self.0.lock());
        if !waiters.is_empty() {
            wake(py, waiters);
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.lock().is_empty()
    }

    fn add(&self, future: &Bound<'_, PyAny>, event_loop: &Bound<'_, PyAny>) {
        let (future, event_loop) = (future.clone().unbind(), event_loop.clone().unbind());
        self.0.lock().push(Waiter { future, event_loop });
    }

    fn remove(&self, future: &Py<PyAny>) {
        let mut waiters = self.0.lock();
        let at = waiters.iter().position(|waiter| waiter.future.is(future));
        let removed = at.map(|at| waiters.swap_remove(at));
        drop(waiters);
        drop(removed);
    }
}

fn wake(py: Python<'_>, waiters: Vec<Waiter>) {
    let here = running_loop(py).ok().flatten();
    for Waiter { future, event_loop } in waiters {
        let woken = if here.as_ref().is_some_and(|here| here.is(&event_loop)) {
            resolve(future.bind(py))
        } else {
            wrap_resolve(py).and_then(|resolve| {
                event_loop
                    .call_method1(py, intern!(py, "call_soon_threadsafe"), (resolve, future))
                    .map(drop)
            })
        };
        // The loop is closed: nobody waits there any more.
        drop(woken);
    }
}

/// Sets the future's result unless it was cancelled meanwhile.
#[pyfunction]
fn resolve(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        future.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}

fn wrap_resolve(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let function = FUNCTION.get_or_try_init(py, || {
        Ok::<_, PyErr>(wrap_pyfunction!(resolve, py)?.into_any().unbind())
    })?;
    Ok(function.bind(py).clone())
}

/// A result that comes once.
#[derive(Default)]
pub(crate) struct Slot {
    result: Mutex<Option<PyResult<Py<PyAny>>>>,
    signal: Signal,
    abandoned: Mutex<Option<OnAbandon>>,
}

type OnAbandon = Box<dyn FnOnce(Python<'_>) + Send>;

impl Slot {
    pub(crate) fn fill(&self, py: Python<'_>, result: PyResult<Py<PyAny>>) {
        *self.result.lock() = Some(result);
        self.signal.ring(py);
    }

    /// What to do when the `await` is cancelled before the result came.
    pub(crate) fn on_abandon(&self, action: impl FnOnce(Python<'_>) + Send + 'static) {
        *self.abandoned.lock() = Some(Box::new(action));
    }
}

impl Outcome for Arc<Slot> {
    fn poll(&self, _py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        self.result.lock().take()
    }

    fn signal(&self) -> &Signal {
        &self.signal
    }

    fn abandon(&self, py: Python<'_>) {
        let action = self.abandoned.lock().take();
        if let Some(action) = action {
            action(py);
        }
    }
}

/// A coroutine's body: nothing happens before it is awaited, and whoever forgets to is warned.
pub(crate) struct Lazy {
    name: &'static str,
    start: Mutex<Option<Start>>,
    slot: OnceLock<Arc<Slot>>,
    /// Nobody waits before the start.
    nobody: Signal,
}

type Start = Box<dyn FnOnce(Python<'_>) -> PyResult<Arc<Slot>> + Send>;

impl Lazy {
    /// The coroutine that calls `start` and waits for its slot.
    pub(crate) fn coroutine(
        name: &'static str,
        start: impl FnOnce(Python<'_>) -> PyResult<Arc<Slot>> + Send + 'static,
    ) -> Await {
        let start = Mutex::new(Some(Box::new(start) as Start));
        Await::new(Lazy { name, start, slot: OnceLock::new(), nobody: Signal::default() })
    }
}

impl Outcome for Lazy {
    fn poll(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        let start = self.start.lock().take();
        let slot = match start {
            Some(start) => match start(py) {
                Ok(slot) => self.slot.get_or_init(|| slot),
                Err(error) => return Some(Err(error)),
            },
            None => self.slot.get()?,
        };
        slot.poll(py)
    }

    fn signal(&self) -> &Signal {
        self.slot.get().map_or(&self.nobody, |slot| slot.signal())
    }

    fn abandon(&self, py: Python<'_>) {
        let start = self.start.lock().take();
        drop(start);
        if let Some(slot) = self.slot.get() {
            slot.abandon(py);
        }
    }
}

impl Drop for Lazy {
    fn drop(&mut self) {
        if self.start.get_mut().is_none() {
            return;
        }
        let name = self.name;
        // Without an interpreter there is nobody to warn.
        let _ = Python::try_attach(|py| {
            let sentence = format!("coroutine '{name}' was never awaited");
            let sentence = CString::new(sentence).expect("names hold no zero byte");
            let category = py.get_type::<PyRuntimeWarning>();
            if let Err(error) = PyErr::warn(py, &category, &sentence, 1) {
                error.write_unraisable(py, None);
            }
        });
    }
}

/// The loop that runs on this thread.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let event_loop = FUNCTION.import(py, "asyncio.events", "_get_running_loop")?.call0()?;
    Ok(if event_loop.is_none() { None } else { Some(event_loop) })
}

pub(crate) fn no_loop() -> PyErr {
    PyRuntimeError::new_err("no running event loop: call this inside a coroutine")
}

/// `StopIteration(value)`.
pub(crate) fn stop(_py: Python<'_>, value: Py<PyAny>) -> PyErr {
    PyStopIteration::new_err((value,))
}

/// The exception given to `throw`, in any of its spellings.
pub(crate) fn thrown(
    kind: Bound<'_, PyAny>,
    value: Option<Bound<'_, PyAny>>,
    traceback: Option<Bound<'_, PyAny>>,
) -> PyErr {
    let value = value.filter(|value| !value.is_none());
    let exception = match value {
        Some(value) if value.is_instance_of::<pyo3::exceptions::PyBaseException>() => Ok(value),
        Some(value) => kind.call1((value,)),
        None if kind.is_instance_of::<pyo3::types::PyType>() => kind.call0(),
        None => Ok(kind),
    };
    match exception {
        Ok(exception) => {
            if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
                let _ = exception.setattr("__traceback__", traceback);
            }
            PyErr::from_value(exception)
        }
        Err(error) => error,
    }
}
