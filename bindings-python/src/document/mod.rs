//! Live documents; `kps/documents.py` is their face.

mod ears;
mod edit;
mod stream;
mod yjs;

use std::sync::Arc;

use kps::{
    Client as CoreClient, ErrorKind,
    capability::{Failure, Value},
    document::{Document, Edit, Kind, OpenDocument, Refused, Snapshot, Version},
};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList, PyString, PyTuple},
};

use self::{
    ears::Ears,
    edit::{edited, refused},
};
pub(crate) use self::{
    edit::EditReceipt,
    stream::LiveStream,
    yjs::{LiveYjs, open as open_yjs},
};
use crate::{
    arguments::{callable, count, given, invalid, seconds, text},
    calls::{Refusal, from_py, raised, to_py},
    client::{Client, finish},
    errors,
    host::Host,
    json,
    wait::Await,
};

/// The coroutine that opens a document.
#[allow(clippy::too_many_arguments)]
pub(crate) fn open(
    py: Python<'_>,
    client: &Client,
    id: &Bound<'_, PyAny>,
    kind: &Bound<'_, PyAny>,
    author: Option<&Bound<'_, PyAny>>,
    rebase: bool,
    rebases: Option<&Bound<'_, PyAny>>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Await> {
    let (id, name) = (text(id, "id")?.to_owned(), text(kind, "kind")?);
    let Some(kind) = Kind::parse(name) else {
        return Err(invalid(py, format!("kind is {name:?}; there are text and json")));
    };
    let mut options = OpenDocument { rebase, ..OpenDocument::new(kind) };
    if let Some(author) = given(author) {
        options.author = Some(text(author, "author")?.to_owned());
    }
    if let Some(rebases) = given(rebases) {
        options.rebases = u32::try_from(count(rebases, "rebases", 0)?).unwrap_or(u32::MAX);
    }
    if let Some(timeout) = given(timeout) {
        options.timeout = seconds(timeout, "timeout")?;
    }
    let client = CoreClient::from(client.shared(py)?.link().clone());
    let opened = async move { client.open_document(&id, options).await };
    Ok(finish("open_document", opened, |py, opened| {
        let document = opened.map_err(|failure| raised(py, &failure))?;
        let host = Host::here().ok_or_else(crate::wait::no_loop)?;
        let ears = Arc::new(Ears::new(&host));
        Ok(Py::new(py, LiveDocument { document, host, ears })?.into_any())
    }))
}

/// An open document.
#[pyclass(frozen, weakref, module = "kps._kps")]
pub(crate) struct LiveDocument {
    document: Document,
    /// Of the loop that opened it: its handlers are called there.
    host: Arc<Host>,
    ears: Arc<Ears>,
}

#[pymethods]
impl LiveDocument {
    #[getter]
    fn id(&self) -> &str {
        self.document.id()
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.document.kind().as_str()
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

    /// The text, or the JSON.
    fn content<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        content(py, self.document.snapshot())
    }

    /// Edits; several edits are one operation.
    fn edit(&self, py: Python<'_>, edit: &Bound<'_, PyAny>) -> PyResult<EditReceipt> {
        let edits = self.edits(edit)?;
        self.start(py, edits)
    }

    /// Several operations, one after the other.
    fn edit_batch(
        &self,
        py: Python<'_>,
        operations: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<EditReceipt>> {
        let operations: Vec<Vec<Edit>> = operations
            .try_iter()?
            .map(|operation| self.edits(&operation?))
            .collect::<PyResult<_>>()?;
        self.document.check_batch(&operations).map_err(|it| refused(py, &it))?;
        operations.into_iter().map(|edits| self.start(py, edits)).collect()
    }

    fn undo(&self, times: &Bound<'_, PyAny>) -> PyResult<Await> {
        let times = u32::try_from(count(times, "count", 1)?).unwrap_or(u32::MAX);
        let document = self.document.clone();
        Ok(finish("undo", async move { document.undo(times).await }, edited))
    }

    /// The content that a version had.
    fn at(&self, version: &Bound<'_, PyAny>) -> PyResult<Await> {
        let (document, version) = (self.document.clone(), version_of(version, "version")?);
        Ok(finish("at", async move { document.at(version).await }, |py, snapshot| {
            Ok(content(py, snapshot.map_err(|failure| raised(py, &failure))?)?.unbind())
        }))
    }

    fn versions(
        &self,
        before: Option<&Bound<'_, PyAny>>,
        limit: &Bound<'_, PyAny>,
    ) -> PyResult<Await> {
        let before = given(before).map(|it| version_of(it, "before")).transpose()?;
        let limit = u32::try_from(count(limit, "limit", 1)?).unwrap_or(u32::MAX);
        let document = self.document.clone();
        let asked = async move { document.versions(before, limit).await };
        Ok(finish("versions", asked, |py, versions| {
            let versions = versions.map_err(|failure| raised(py, &failure))?;
            Ok(to_py(py, versions)?.unbind())
        }))
    }

    fn compact(&self, keep: &Bound<'_, PyAny>) -> PyResult<Await> {
        let keep = u32::try_from(count(keep, "keep", 0)?).unwrap_or(u32::MAX);
        let document = self.document.clone();
        Ok(finish("compact", async move { document.compact(keep).await }, done))
    }

    fn flush(&self) -> Await {
        let document = self.document.clone();
        finish("flush", async move { document.flush().await }, done)
    }

    /// Leaves it; returns the operations that a crash of the server now would lose.
    fn close(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Await> {
        let timeout = seconds(timeout, "timeout")?;
        let document = self.document.clone();
        let closed = async move { document.close_within(timeout).await };
        Ok(finish("close", closed, |py, unsynced| {
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

    #[pyo3(signature = (position, before, after, flush_every, flush_bytes))]
    fn stream(
        &self,
        py: Python<'_>,
        position: Option<&Bound<'_, PyAny>>,
        before: Option<&Bound<'_, PyAny>>,
        after: Option<&Bound<'_, PyAny>>,
        flush_every: &Bound<'_, PyAny>,
        flush_bytes: &Bound<'_, PyAny>,
    ) -> PyResult<LiveStream> {
        stream::begin(py, &self.document, [position, before, after], flush_every, flush_bytes)
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
        let value = self.value(state)?;
        let state = value.to_json().map_err(|error| invalid(py, format!("state: {error}")))?;
        let told = self.document.set_presence_json(&state);
        told.map_err(|error| invalid(py, format!("state: {error}")))
    }

    fn __repr__(&self) -> String {
        format!("Document(id={:?}, kind={:?})", self.document.id(), self.document.kind().as_str())
    }
}

impl LiveDocument {
    fn start(&self, py: Python<'_>, edits: Vec<Edit>) -> PyResult<EditReceipt> {
        EditReceipt::start(&self.document, &self.host, edits).map_err(|it| refused(py, &it))
    }

    fn edits(&self, edit: &Bound<'_, PyAny>) -> PyResult<Vec<Edit>> {
        let py = edit.py();
        let is_list = edit.is_instance_of::<PyList>() || edit.is_instance_of::<PyTuple>();
        let edits = match self.value(edit)? {
            Value::List(list) if is_list => list.into_iter().map(Edit::from_value).collect(),
            one => Edit::from_value(one).map(|edit| vec![edit]),
        };
        edits.map_err(|reject| refused(py, &Refused::from(reject)))
    }

    fn value(&self, object: &Bound<'_, PyAny>) -> PyResult<Value> {
        value_of(&self.host, object)
    }
}

fn value_of(host: &Arc<Host>, object: &Bound<'_, PyAny>) -> PyResult<Value> {
    from_py(host, object).map_err(|refusal| match refusal {
        Refusal::Raised(error) => error,
        Refusal::Failure(failure) => raised(object.py(), &failure),
    })
}

fn content(py: Python<'_>, snapshot: Snapshot) -> PyResult<Bound<'_, PyAny>> {
    match snapshot {
        Snapshot::Text(text) => Ok(PyString::new(py, &text).into_any()),
        Snapshot::Value(value) => json::loads(py, value.to_string().as_bytes()),
    }
}

fn done(py: Python<'_>, result: Result<(), Failure>) -> PyResult<Py<PyAny>> {
    result.map(|()| py.None()).map_err(|failure| raised(py, &failure))
}

/// `W/"17"`, or 17.
fn version_of(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Version> {
    if let Ok(number) = value.extract::<u64>() {
        return Ok(Version(number));
    }
    let version = text(value, name)?.parse().ok();
    version.ok_or_else(|| {
        let sentence = format!("{name} is no version: they are written W/\"17\"");
        errors::raise(value.py(), ErrorKind::InvalidArgument, sentence)
    })
}
