//! Yjs documents; `kps/documents.py` is their face.

use bytes::Bytes;
use kps::document::YjsDocument;
use pyo3::{prelude::*, types::PyBytes};

use super::{Live, edit::refused};
use crate::{arguments::text, calls::raised, json};

/// An open Yjs document.
#[pyclass(frozen, extends = Live, module = "kps._kps")]
pub(crate) struct LiveYjs(pub(super) YjsDocument);

#[pymethods]
impl LiveYjs {
    fn text(&self, py: Python<'_>, root: &Bound<'_, PyAny>) -> PyResult<String> {
        let root = text(root, "root")?;
        Ok(py.detach(|| self.0.text(root)))
    }

    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let value = py.detach(|| self.0.value());
        json::loads(py, value.to_string().as_bytes())
    }

    fn state<'py>(
        &self,
        py: Python<'py>,
        state_vector: Option<Vec<u8>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let state = py.detach(|| self.0.state(state_vector.as_deref()));
        Ok(PyBytes::new(py, &state.map_err(|failure| raised(py, &failure))?))
    }

    fn state_vector<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.state_vector())
    }

    fn apply_update(&self, py: Python<'_>, update: Vec<u8>) -> PyResult<()> {
        let update = Bytes::from(update);
        py.detach(|| self.0.apply_update(&update)).map_err(|it| refused(py, &it))
    }

    fn edit(
        slf: &Bound<'_, Self>,
        root: &Bound<'_, PyAny>,
        edit: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (py, document) = (slf.py(), &slf.get().0);
        let root = text(root, "root")?;
        let edits = slf.as_super().get().edits(edit)?;
        py.detach(|| document.edit(root, edits)).map_err(|it| refused(py, &it))
    }

    fn __repr__(&self) -> String {
        format!("YjsDocument(id={:?})", self.0.id())
    }
}
