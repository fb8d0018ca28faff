//! What every open document can; `LiveDocument` of `kps/documents.py` is its face.

use std::sync::Arc;

use kps::{
    capability::Value,
    document::{Document, Edit, Refused, YjsDocument},
};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList, PyTuple},
};

use super::{LivePlain, LiveYjs, ears::Ears, edit::refused};
use crate::{
    arguments::{callable, given, invalid, seconds, text},
    calls::{Refusal, from_py, raised},
    client::finish,
    host::Host,
    json,
    wait::Await,
};

/// An open document of whichever kind.
#[derive(Clone)]
pub(super) enum Open {
    Plain(Document),
    Yjs(YjsDocument),
}

macro_rules! either {
    ($open:expr, $document:ident => $what:expr) => {
        match $open {
            Open::Plain($document) => $what,
            Open::Yjs($document) => $what,
        }
    };
}

impl Open {
    /// What Python gets.
    pub(super) fn into_object(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let host = Host::here().ok_or_else(crate::wait::no_loop)?;
        let live = Live { document: self.clone(), ears: Arc::new(Ears::new(&host)), host };
        Ok(match self {
            Open::Plain(document) => Py::new(py, (LivePlain(document), live))?.into_any(),
            Open::Yjs(document) => Py::new(py, (LiveYjs(document), live))?.into_any(),
        })
    }
}

/// An open document: what there is of every kind.
#[pyclass(frozen, subclass, weakref, module = "kps._kps")]
pub(crate) struct Live {
    document: Open,
    /// Of the loop that opened it: its handlers are called there.
    host: Arc<Host>,
    ears: Arc<Ears>,
}

#[pymethods]
impl Live {
    #[getter]
    fn id(&self) -> &str {
        either!(&self.document, it => it.id())
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match &self.document {
            Open::Plain(document) => document.kind().as_str(),
            Open::Yjs(_) => kps::document::Kind::Yjs.as_str(),
        }
    }

    #[getter]
    fn author(&self) -> &str {
        either!(&self.document, it => it.author())
    }

    #[getter]
    fn version(&self) -> String {
        either!(&self.document, it => it.version()).to_string()
    }

    #[getter]
    fn checkpointed(&self) -> String {
        either!(&self.document, it => it.checkpointed()).to_string()
    }

    #[getter]
    fn is_connected(&self) -> bool {
        either!(&self.document, it => it.is_connected())
    }

    #[getter]
    fn unsynced<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        names(py, &either!(&self.document, it => it.unsynced()))
    }

    fn flush(&self) -> Await {
        let document = self.document.clone();
        let flushed = async move { either!(document, it => it.flush().await) };
        finish("flush", flushed, super::done)
    }

    /// Leaves it; returns the operations that a crash of the server now would lose.
    fn close(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Await> {
        let timeout = seconds(timeout, "timeout")?;
        let document = self.document.clone();
        let closed = async move { either!(document, it => it.close_within(timeout).await) };
        Ok(finish("close", closed, |py, unsynced| Ok(names(py, &unsynced)?.into_any().unbind())))
    }

    /// Calls `handler` with every `event`; what is returned is given to `off`.
    fn on(
        &self,
        py: Python<'_>,
        event: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
    ) -> PyResult<u64> {
        let (event, handler) = (text(event, "event")?, callable(handler, "handler")?);
        self.ears.on(py, |tell| either!(&self.document, it => it.listen(tell)), event, handler)
    }

    fn off(&self, number: u64) {
        self.ears.off(number);
    }

    /// Everybody else who is there.
    fn presence<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let others = PyList::empty(py);
        for present in either!(&self.document, it => it.presence()) {
            let other = PyDict::new(py);
            other.set_item("client", &*present.client)?;
            other.set_item("author", &*present.author)?;
            other.set_item("state", json::loads(py, present.state_json().as_bytes())?)?;
            others.append(other)?;
        }
        Ok(others)
    }

    /// Tells everybody about this client; `None`: it is not there any more.
    fn set_presence(&self, py: Python<'_>, state: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let Some(state) = given(state) else {
            either!(&self.document, it => it.set_presence(None));
            return Ok(());
        };
        let wrong = |error: String| invalid(py, format!("state: {error}"));
        let state = self.value(state)?.to_json().map_err(|error| wrong(error.to_string()))?;
        either!(&self.document, it => it.set_presence_json(&state)).map_err(wrong)
    }
}

impl Live {
    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// An edit, or a list of them.
    pub(super) fn edits(&self, edit: &Bound<'_, PyAny>) -> PyResult<Vec<Edit>> {
        let is_list = edit.is_instance_of::<PyList>() || edit.is_instance_of::<PyTuple>();
        let edits = match self.value(edit)? {
            Value::List(list) if is_list => list.into_iter().map(Edit::from_value).collect(),
            one => Edit::from_value(one).map(|edit| vec![edit]),
        };
        edits.map_err(|reject| refused(edit.py(), &Refused::from(reject)))
    }

    fn value(&self, object: &Bound<'_, PyAny>) -> PyResult<Value> {
        from_py(&self.host, object).map_err(|refusal| match refusal {
            Refusal::Raised(error) => error,
            Refusal::Failure(failure) => raised(object.py(), &failure),
        })
    }
}

fn names<'py>(py: Python<'py>, op_ids: &[Arc<str>]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, op_ids.iter().map(|op_id| &**op_id))
}
