//! Documents of text and of JSON; `kps/documents.py` is their face.

use kps::{
    ErrorKind,
    document::{Document, Edit, Snapshot, Version},
};
use pyo3::{prelude::*, types::PyString};

use super::{
    EditReceipt, Live, LiveStream, done,
    edit::{edited, refused},
    stream,
};
use crate::{
    arguments::{count, given, text},
    calls::{raised, to_py},
    client::finish,
    errors, json,
    wait::Await,
};

/// An open document of text or JSON.
#[pyclass(frozen, extends = Live, module = "kps._kps")]
pub(crate) struct LivePlain(pub(super) Document);

#[pymethods]
impl LivePlain {
    /// The text, or the JSON.
    fn content<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        content(py, self.0.snapshot())
    }

    /// Edits; several edits are one operation.
    fn edit(slf: &Bound<'_, Self>, edit: &Bound<'_, PyAny>) -> PyResult<EditReceipt> {
        start(slf, slf.as_super().get().edits(edit)?)
    }

    /// Several operations, one after the other.
    fn edit_batch(
        slf: &Bound<'_, Self>,
        operations: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<EditReceipt>> {
        let live = slf.as_super().get();
        let operations: Vec<Vec<Edit>> = operations
            .try_iter()?
            .map(|operation| live.edits(&operation?))
            .collect::<PyResult<_>>()?;
        slf.get().0.check_batch(&operations).map_err(|it| refused(slf.py(), &it))?;
        operations.into_iter().map(|edits| start(slf, edits)).collect()
    }

    fn undo(&self, times: &Bound<'_, PyAny>) -> PyResult<Await> {
        let times = u32::try_from(count(times, "count", 1)?).unwrap_or(u32::MAX);
        let document = self.0.clone();
        Ok(finish("undo", async move { document.undo(times).await }, edited))
    }

    /// The content that a version had.
    fn at(&self, version: &Bound<'_, PyAny>) -> PyResult<Await> {
        let (document, version) = (self.0.clone(), version_of(version, "version")?);
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
        let document = self.0.clone();
        let asked = async move { document.versions(before, limit).await };
        Ok(finish("versions", asked, |py, versions| {
            let versions = versions.map_err(|failure| raised(py, &failure))?;
            Ok(to_py(py, versions)?.unbind())
        }))
    }

    fn compact(&self, keep: &Bound<'_, PyAny>) -> PyResult<Await> {
        let keep = u32::try_from(count(keep, "keep", 0)?).unwrap_or(u32::MAX);
        let document = self.0.clone();
        Ok(finish("compact", async move { document.compact(keep).await }, done))
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
        stream::begin(py, &self.0, [position, before, after], flush_every, flush_bytes)
    }

    fn __repr__(&self) -> String {
        format!("Document(id={:?}, kind={:?})", self.0.id(), self.0.kind().as_str())
    }
}

fn start(slf: &Bound<'_, LivePlain>, edits: Vec<Edit>) -> PyResult<EditReceipt> {
    let receipt = EditReceipt::start(&slf.get().0, slf.as_super().get().host(), edits);
    receipt.map_err(|it| refused(slf.py(), &it))
}

fn content(py: Python<'_>, snapshot: Snapshot) -> PyResult<Bound<'_, PyAny>> {
    match snapshot {
        Snapshot::Text(text) => Ok(PyString::new(py, &text).into_any()),
        Snapshot::Value(value) => json::loads(py, value.to_string().as_bytes()),
    }
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
