//! Yjs documents; `kps/documents.py` is their face.

use std::sync::Arc;

use bytes::Bytes;
use kps::{
    Client as CoreClient,
    capability::Failure,
    document::{Edit, OpenDocument, Refused, YjsDocument},
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyTuple},
};

use super::{done, ears::Ears, edit::refused, value_of};
use crate::{
    arguments::{callable, given, invalid, seconds, text},
    calls::raised,
    client::{Client, finish},
    host::Host,
    json,
    wait::Await,
};

/// The coroutine that opens a Yjs document.
pub(crate) fn open(
    py: Python<'_>,
    client: &Client,
    id: &Bound<'_, PyAny>,
    author: Option<&Bound<'_, PyAny>>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Await> {
    let id = text(id, "id")?.to_owned();
    let mut options = OpenDocument::default();
    if let Some(author) = given(author) {
        options.author = Some(text(author, "author")?.to_owned());
    }
    if let Some(timeout) = given(timeout) {
        options.timeout = seconds(timeout, "timeout")?;
    }
    let client = CoreClient::from(client.shared(py)?.link().clone());
    let opened = async move { client.open_yjs(&id, options).await };
    Ok(finish("open_yjs", opened, |py, opened| {
        let document = opened.map_err(|failure| raised(py, &failure))?;
        let host = Host::here().ok_or_else(crate::wait::no_loop)?;
        let ears = Arc::new(Ears::new(&host));
        Ok(Py::new(py, LiveYjs { document, host, ears })?.into_any())
    }))
}

/// An open Yjs document.
#[pyclass(frozen, weakref, module = "kps._kps")]
pub(crate) struct LiveYjs {
    document: YjsDocument,
    /// Of the loop that opened it: its handlers are called there.
    host: Arc<Host>,
    ears: Arc<Ears>,
}

#[pymethods]
impl LiveYjs {
    #[getter]
    fn id(&self) -> &str {
        self.document.id()
    }

    #[getter]
    fn author(&self) -> &str {
        self.document.author()
    }

    #[getter]
    fn version(&self) -> String {
        self.document.version().to_string()
    }

    #[getter]
    fn checkpointed(&self) -> String {
        self.document.checkpointed().to_string()
    }

    #[getter]
    fn is_connected(&self) -> bool {
        self.document.is_connected()
    }

    #[getter]
    fn unsynced<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.document.unsynced().iter().map(|op_id| &**op_id))
    }

    fn text(&self, py: Python<'_>, root: &Bound<'_, PyAny>) -> PyResult<String> {
        let root = text(root, "root")?;
        Ok(py.detach(|| self.document.text(root)))
    }

    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let value = py.detach(|| self.document.value());
        json::loads(py, value.to_string().as_bytes())
    }

    fn state<'py>(
        &self,
        py: Python<'py>,
        state_vector: Option<Vec<u8>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let state = py.detach(|| self.document.state(state_vector.as_deref()));
        Ok(PyBytes::new(py, &state.map_err(|failure| raised(py, &failure))?))
    }

    fn state_vector<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.document.state_vector())
    }

    fn apply_update(&self, py: Python<'_>, update: Vec<u8>) -> PyResult<()> {
        let update = Bytes::from(update);
        let applied = py.detach(|| self.document.apply_update(&update));
        applied.map_err(|it| refused(py, &it))
    }

    fn edit(
        &self,
        py: Python<'_>,
        root: &Bound<'_, PyAny>,
        edit: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let root = text(root, "root")?;
        let edits = self.edits(edit)?;
        let edited = py.detach(|| self.document.edit(root, edits));
        edited.map_err(|it| refused(py, &it))
    }

    fn flush(&self) -> Await {
        let document = self.document.clone();
        finish("flush", async move { document.flush().await }, done)
    }

    /// Leaves it; returns the operations that a crash of the server now would lose.
    fn close(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Await> {
        let timeout = seconds(timeout, "timeout")?;
        let document = self.document.clone();
        let closed = async move { Ok::<_, Failure>(document.close_within(timeout).await) };
        Ok(finish("close", closed, |py, unsynced| {
            let unsynced = unsynced.map_err(|failure| raised(py, &failure))?;
            let unsynced = PyList::new(py, unsynced.iter().map(|op_id| &**op_id))?;
            Ok(unsynced.into_any().unbind())
        }))
    }

    /// Calls `handler` with every `event`; what is returned is given to `off`.
    fn on(
        &self,
        py: Python<'_>,
        event: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
    ) -> PyResult<u64> {
        let (event, handler) = (text(event, "event")?, callable(handler, "handler")?);
        self.ears.on(py, |tell| self.document.listen(tell), event, handler)
    }

    fn off(&self, number: u64) {
        self.ears.off(number);
    }

    /// Everybody else who is there.
    fn presence<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let others = PyList::empty(py);
        for present in self.document.presence() {
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
            self.document.set_presence(None);
            return Ok(());
        };
        let value = value_of(&self.host, state)?;
        let state = value.to_json().map_err(|error| invalid(py, format!("state: {error}")))?;
        let told = self.document.set_presence_json(&state);
        told.map_err(|error| invalid(py, format!("state: {error}")))
    }

    fn __repr__(&self) -> String {
        format!("YjsDocument(id={:?})", self.document.id())
    }
}

impl LiveYjs {
    fn edits(&self, edit: &Bound<'_, PyAny>) -> PyResult<Vec<Edit>> {
        use kps::capability::Value;
        let py = edit.py();
        let is_list = edit.is_instance_of::<PyList>() || edit.is_instance_of::<PyTuple>();
        let edits = match value_of(&self.host, edit)? {
            Value::List(list) if is_list => list.into_iter().map(Edit::from_value).collect(),
            one => Edit::from_value(one).map(|edit| vec![edit]),
        };
        edits.map_err(|reject| refused(py, &Refused::from(reject)))
    }
}
