//! Text that is written to a document bit by bit.

use std::sync::Arc;

use kps::document::{Document, DocumentStream, Start, StreamOptions};
use pyo3::{IntoPyObjectExt, prelude::*};

use super::edit::refused;
use crate::{
    arguments::{count, given, invalid, seconds, text},
    client::finish,
    wait::Await,
};

/// A text that is written bit by bit.
#[pyclass(frozen, module = "kps._kps")]
pub(crate) struct LiveStream(Arc<DocumentStream>);

/// Begins one; `places`: before a code point, before a text, after a text.
pub(super) fn begin(
    py: Python<'_>,
    document: &Document,
    places: [Option<&Bound<'_, PyAny>>; 3],
    flush_every: &Bound<'_, PyAny>,
    flush_bytes: &Bound<'_, PyAny>,
) -> PyResult<LiveStream> {
    let start = match places.map(given) {
        [None, None, None] => Start::End,
        [Some(position), None, None] => {
            let position = count(position, "position", 0)?;
            Start::At(usize::try_from(position).unwrap_or(usize::MAX))
        }
        [None, Some(before), None] => Start::Before(text(before, "before")?.to_owned()),
        [None, None, Some(after)] => Start::After(text(after, "after")?.to_owned()),
        _ => return Err(invalid(py, "say one of position, before and after")),
    };
    let options = StreamOptions {
        start,
        flush_every: seconds(flush_every, "flush_every")?,
        flush_bytes: usize::try_from(count(flush_bytes, "flush_bytes", 1)?).unwrap_or(usize::MAX),
    };
    let stream = document.stream(options).map_err(|it| refused(py, &it))?;
    Ok(LiveStream(Arc::new(stream)))
}

#[pymethods]
impl LiveStream {
    fn write(&self, py: Python<'_>, token: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.write(text(token, "token")?).map_err(|it| refused(py, &it))
    }

    /// Resolves to the version that has all of it.
    fn close(&self) -> Await {
        let stream = self.0.clone();
        finish("close", async move { stream.close().await }, |py, version| {
            let version = version.map_err(|it| refused(py, &it))?;
            version.map(|version| version.to_string()).into_py_any(py)
        })
    }
}
