//! Async handlers: a task per burst, not per message.
//!
//! A [`Worker`] is the coroutine of such a task. It calls the handler for what waits and runs the
//! coroutines one after the other within the same task, which ends when nothing waits. A
//! subscription has at most `concurrency` of them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use pyo3::{exceptions::PyException, ffi, intern, prelude::*};

use crate::{errors, exit::Inside, host::Host, message::Message, subscription::Sub, wait};

/// Messages handled before the loop gets its turn, if no handler waits for anything.
const TURN: u32 = 64;

pub(crate) struct Worker {
    sub: Arc<Sub>,
    host: Arc<Host>,
    running: Mutex<Option<Running>>,
    /// Forgotten when the task ends: it holds this worker.
    task: Mutex<Option<Py<PyAny>>>,
    /// The publisher of the running message does not wait any more.
    cancelling: AtomicBool,
}

struct Running {
    coroutine: Py<PyAny>,
    message: Py<Message>,
}

impl Worker {
    /// Starts a task that first runs `coroutine`, what the handler made of `message`.
    pub(crate) fn start(
        py: Python<'_>,
        sub: &Arc<Sub>,
        host: &Arc<Host>,
        first: Option<(Bound<'_, PyAny>, Py<Message>)>,
    ) -> PyResult<()> {
        let running = match first {
            Some((awaitable, message)) => Some(Running { coroutine: steps(awaitable)?, message }),
            None => None,
        };
        let worker = Arc::new(Worker {
            sub: sub.clone(),
            host: host.clone(),
            running: Mutex::new(running),
            task: Mutex::new(None),
            cancelling: AtomicBool::new(false),
        });
        sub.state.lock().workers.push(worker.clone());
        let event_loop = host.event_loop(py).ok_or_else(wait::no_loop)?;
        let task = event_loop.call_method1(intern!(py, "create_task"), (Steps(worker.clone()),))?;
        // Said at interpreter exit about tasks whose loop was never closed: not the program's fault.
        task.setattr(intern!(py, "_log_destroy_pending"), false)?;
        // An eager task may have ended already.
        if sub.state.lock().workers.iter().any(|running| Arc::ptr_eq(running, &worker)) {
            *worker.task.lock() = Some(task.unbind());
        }
        Ok(())
    }

    /// Cancels the handler of this delivery, if it runs here.
    pub(crate) fn cancel(&self, py: Python<'_>, delivery: u64) -> PyResult<()> {
        let here = self.running.lock().as_ref().is_some_and(|running| {
            running.message.get().reply().is_some_and(|reply| reply.delivery() == delivery)
        });
        if here && let Some(task) = self.task(py) {
            self.cancelling.store(true, Ordering::Relaxed);
            task.call_method0(intern!(py, "cancel"))?;
        }
        Ok(())
    }

    /// One step of the task: until a handler waits for something, or nothing is left.
    fn step(&self, py: Python<'_>, mut thrown: Option<PyErr>) -> PyResult<Py<PyAny>> {
        for _ in 0..TURN {
            let running = self.running.lock().take();
            let Some(Running { coroutine, message }) = running else {
                if let Some(error) = thrown {
                    self.leave(py);
                    return Err(error);
                }
                match self.next(py) {
                    Ok(true) => continue,
                    Ok(false) => {
                        self.leave(py);
                        return Err(wait::stop(py, py.None()));
                    }
                    Err(error) => {
                        self.leave(py);
                        return Err(error);
                    }
                }
            };
            let stepped = match thrown.take() {
                Some(error) => throw(coroutine.bind(py), &error),
                None => send(coroutine.bind(py)),
            };
            match stepped {
                Ok(Step::Waits(on)) => {
                    self.sub.report(py);
                    *self.running.lock() = Some(Running { coroutine, message });
                    return Ok(on);
                }
                Ok(Step::Returned(value)) => self.sub.returned(&message, value.bind(py)),
                Err(error) => self.raised(py, &message, error)?,
            }
        }
        self.sub.report(py);
        // A bare yield: the loop serves others and comes back.
        Ok(py.None())
    }

    /// Calls the handler for the next message. `false`: nothing waits.
    fn next(&self, py: Python<'_>) -> PyResult<bool> {
        let Some((message, reply)) = self.sub.take() else { return Ok(false) };
        let message = Py::new(py, Message::new(message, reply))?;
        if let Some(awaitable) = self.sub.call(py, &self.host, &message)? {
            match steps(awaitable) {
                Ok(coroutine) => *self.running.lock() = Some(Running { coroutine, message }),
                Err(error) => self.sub.raised(py, &self.host, &message, error)?,
            }
        }
        Ok(true)
    }

    fn raised(&self, py: Python<'_>, message: &Py<Message>, error: PyErr) -> PyResult<()> {
        let cancelled = errors::is_cancelled(py, &error);
        if cancelled && self.cancelling.swap(false, Ordering::Relaxed) {
            // The publisher's wish, not the loop's: this task goes on.
            if let Some(task) = self.task(py)
                && let Some(uncancel) = task.getattr_opt(intern!(py, "uncancel"))?
            {
                uncancel.call0()?;
            }
            return self.sub.raised(py, &self.host, message, error);
        }
        let fatal = cancelled || !error.is_instance_of::<PyException>(py);
        self.sub.raised(py, &self.host, message, error.clone_ref(py)).or_else(|_| Ok(())).and_then(
            |()| {
                if fatal {
                    self.leave(py);
                    Err(error)
                } else {
                    Ok(())
                }
            },
        )
    }

    fn task<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.task.lock().as_ref().map(|task| task.bind(py).clone())
    }

    /// The task ends. Others take over what still waits.
    fn leave(&self, py: Python<'_>) {
        self.sub.report(py);
        let mut state = self.sub.state.lock();
        let at = state.workers.iter().position(|worker| std::ptr::eq(&raw const **worker, self));
        let left = at.map(|at| state.workers.swap_remove(at));
        drop(state);
        let task = self.task.lock().take();
        drop((left, task));
    }
}

/// What asyncio's task holds: the coroutine protocol around a [`Worker`].
#[pyclass(frozen, module = "kps._kps", name = "handlers")]
struct Steps(Arc<Worker>);

#[pymethods]
impl Steps {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(py);
        self.0.step(py, None)
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
        let py = kind.py();
        let _inside = Inside::enter(py);
        self.0.step(py, Some(wait::thrown(kind, value, traceback)))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.0.leave(py);
        let running = self.0.running.lock().take();
        if let Some(Running { coroutine, .. }) = running
            && let Some(close) = coroutine.bind(py).getattr_opt(intern!(py, "close"))?
        {
            close.call0()?;
        }
        Ok(())
    }
}

enum Step {
    /// Waits for this future (or `None`: for its next turn).
    Waits(Py<PyAny>),
    Returned(Py<PyAny>),
}

/// What can be stepped: the coroutine itself, or what `__await__` gives.
fn steps(awaitable: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    // SAFETY: attached; only the type is compared.
    if unsafe { ffi::PyCoro_CheckExact(awaitable.as_ptr()) } != 0 {
        return Ok(awaitable.unbind());
    }
    awaitable.call_method0(intern!(awaitable.py(), "__await__")).map(Bound::unbind)
}

fn send(coroutine: &Bound<'_, PyAny>) -> PyResult<Step> {
    let py = coroutine.py();
    let mut result = std::ptr::null_mut();
    let owned = |py, result| {
        // SAFETY: an owned reference (see below).
        unsafe { Bound::from_owned_ptr(py, result) }.unbind()
    };
    // SAFETY: both objects are alive; `result` is an owned reference unless an error is set.
    unsafe {
        match ffi::PyIter_Send(coroutine.as_ptr(), ffi::Py_None(), &raw mut result) {
            ffi::PySendResult::PYGEN_NEXT => Ok(Step::Waits(owned(py, result))),
            ffi::PySendResult::PYGEN_RETURN => Ok(Step::Returned(owned(py, result))),
            ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
        }
    }
}

fn throw(coroutine: &Bound<'_, PyAny>, error: &PyErr) -> PyResult<Step> {
    let py = coroutine.py();
    let Some(throw) = coroutine.getattr_opt(intern!(py, "throw"))? else {
        return Err(error.clone_ref(py));
    };
    match throw.call1((error.value(py),)) {
        Ok(on) => Ok(Step::Waits(on.unbind())),
        Err(stopped) if stopped.is_instance_of::<pyo3::exceptions::PyStopIteration>(py) => {
            Ok(Step::Returned(stopped.value(py).getattr(intern!(py, "value"))?.unbind()))
        }
        Err(error) => Err(error),
    }
}
