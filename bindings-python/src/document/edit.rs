//! What `edit` returns: nothing to keep, something to await.

use std::sync::Arc;

use kps::document::{Document, Edit, Edited, Refused};
use parking_lot::Mutex;
use pyo3::{prelude::*, sync::PyOnceLock, types::PyDict};

use crate::{
    errors,
    host::Host,
    json,
    wait::{Await, Outcome, Signal},
};

/// An operation on its way. Ignoring it is fine.
#[pyclass(frozen, freelist = 64, module = "kps", name = "EditReceipt")]
pub(crate) struct EditReceipt {
    op_id: Arc<str>,
    settled: Arc<Settled>,
}

/// What became of an operation, once it is known.
#[derive(Default)]
struct Settled {
    result: Mutex<Option<Result<Edited, Refused>>>,
    signal: Signal,
}

impl EditReceipt {
    /// Edits here and now; the loop is woken only if somebody waits.
    pub(super) fn start(
        document: &Document,
        host: &Arc<Host>,
        edits: Vec<Edit>,
    ) -> Result<EditReceipt, Refused> {
        let settled = Arc::<Settled>::default();
        let (told, host) = (settled.clone(), host.clone());
        let op_id = document.edit_with(edits, move |result| {
            *told.result.lock() = Some(result);
            if !told.signal.is_idle() {
                host.complete(move |py| told.signal.ring(py));
            }
        })?;
        Ok(EditReceipt { op_id, settled })
    }
}

#[pymethods]
impl EditReceipt {
    #[getter]
    fn op_id(&self) -> &str {
        &self.op_id
    }

    /// What the server says of it.
    fn __await__(&self) -> Await {
        Await::new(Waiting(self.settled.clone()))
    }

    fn __repr__(&self) -> String {
        format!("EditReceipt(op_id={:?})", self.op_id)
    }
}

struct Waiting(Arc<Settled>);

impl Outcome for Waiting {
    fn poll(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        let result = self.0.result.lock().clone()?;
        Some(edited(py, result))
    }

    fn signal(&self) -> &Signal {
        &self.0.signal
    }
}

/// `{op_id, version, level}`, or the exception.
pub(super) fn edited(py: Python<'_>, result: Result<Edited, Refused>) -> PyResult<Py<PyAny>> {
    let edited = result.map_err(|it| refused(py, &it))?;
    let dict = PyDict::new(py);
    dict.set_item("op_id", &*edited.op_id)?;
    dict.set_item("version", edited.version.to_string())?;
    dict.set_item("level", edited.level.as_str())?;
    Ok(dict.into_any().unbind())
}

/// The exception of the code, if it is one of kps'; otherwise `RejectedError`. Its `event` is what the server told.
pub(super) fn refused(py: Python<'_>, it: &Refused) -> PyErr {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let make = || -> PyResult<PyErr> {
        let event = match &it.event {
            Some(text) => json::loads(py, text)?.unbind(),
            None => py.None(),
        };
        let known = kps::ErrorKind::ALL.iter().find(|kind| kind.code() == it.code);
        if let Some(kind) = known {
            let error = errors::raise(py, *kind, it.message.clone());
            error.value(py).setattr("event", event)?;
            return Ok(error);
        }
        let class = CLASS.import(py, "kps.errors", "RejectedError")?;
        Ok(PyErr::from_value(class.call1((&it.message, &it.code, event))?))
    };
    make().unwrap_or_else(|error| error)
}
