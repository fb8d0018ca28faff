//! What a program gets to read: rows, gaps, reports. All immutable.

use std::sync::OnceLock;

use kps::{
    client::CloseReport as CoreReport,
    message::{AckRow as CoreRow, Gap as CoreGap, Payload},
};
use pyo3::prelude::*;

use crate::payload;

/// One recipient's line in an ack.
#[pyclass(frozen, module = "kps", name = "AckRow")]
pub(crate) struct AckRow {
    row: CoreRow,
    /// Not pyo3's lock, which lets go of the GIL for every row.
    data: OnceLock<Py<PyAny>>,
}

impl AckRow {
    pub(crate) fn new(row: CoreRow) -> Self {
        AckRow { row, data: OnceLock::new() }
    }

    pub(crate) fn error_text(&self) -> Option<&str> {
        self.row.error.as_ref().map(|error| &*error.text)
    }
}

#[pymethods]
impl AckRow {
    #[getter]
    fn client_id(&self) -> &str {
        &self.row.client_id
    }

    #[getter]
    fn status(&self) -> &'static str {
        self.row.status.as_str()
    }

    #[getter]
    fn success(&self) -> bool {
        self.row.success()
    }

    #[getter]
    fn error(&self) -> Option<RowError> {
        let error = self.row.error.as_ref()?;
        Some(RowError { kind: error.kind.clone(), text: error.text.clone() })
    }

    /// What the handler returned, decoded when it is read.
    #[getter]
    pub(crate) fn data(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(data) = self.data.get() {
            return Ok(data.clone_ref(py));
        }
        let read = |payload: &Payload| payload::decoded(py, payload).map(Bound::unbind);
        let data = self.row.data.as_ref().map_or(Ok(py.None()), read)?;
        Ok(self.data.get_or_init(|| data).clone_ref(py))
    }

    /// Seconds from the broker's acceptance to its receipt of the answer.
    #[getter]
    fn latency(&self) -> f64 {
        self.row.latency.as_secs_f64()
    }

    fn __repr__(&self) -> String {
        let AckRow { row, .. } = self;
        match &row.error {
            Some(error) => format!(
                "AckRow(client_id={:?}, status={:?}, error={:?})",
                &*row.client_id,
                row.status.as_str(),
                error.text
            ),
            None => {
                format!("AckRow(client_id={:?}, status={:?})", &*row.client_id, row.status.as_str())
            }
        }
    }
}

/// A handler's error: its type's name and its text.
#[pyclass(frozen, get_all, eq, hash, module = "kps", name = "RowError")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct RowError {
    #[pyo3(name = "type")]
    kind: String,
    text: String,
}

#[pymethods]
impl RowError {
    fn __repr__(&self) -> String {
        format!("RowError(type={:?}, text={:?})", self.kind, self.text)
    }

    fn __str__(&self) -> String {
        if self.kind.is_empty() {
            self.text.clone()
        } else {
            format!("{}: {}", self.kind, self.text)
        }
    }
}

/// Messages are missing here.
#[pyclass(frozen, get_all, module = "kps", name = "Gap")]
pub(crate) struct Gap {
    topic: String,
    count: Option<u64>,
    first: Option<u64>,
    last: Option<u64>,
    reason: &'static str,
}

impl From<&CoreGap> for Gap {
    fn from(gap: &CoreGap) -> Self {
        Gap {
            topic: gap.topic.to_string(),
            count: gap.count,
            first: gap.first,
            last: gap.last,
            reason: gap.reason.as_str(),
        }
    }
}

#[pymethods]
impl Gap {
    fn __repr__(&self) -> String {
        let number = |n: Option<u64>| n.map_or("None".into(), |n| n.to_string());
        format!(
            "Gap(topic={:?}, count={}, first={}, last={}, reason={:?})",
            self.topic,
            number(self.count),
            number(self.first),
            number(self.last),
            self.reason
        )
    }
}

/// After a reconnect the subscription goes on where it stopped.
#[pyclass(frozen, get_all, module = "kps", name = "Resumed")]
pub(crate) struct Resumed {
    pub(crate) topic: String,
    pub(crate) replayed: u64,
}

#[pymethods]
impl Resumed {
    fn __repr__(&self) -> String {
        format!("Resumed(topic={:?}, replayed={})", self.topic, self.replayed)
    }
}

/// What became of what was published, when a client closed.
#[pyclass(frozen, get_all, module = "kps", name = "CloseReport")]
pub(crate) struct CloseReport {
    flushed: u64,
    kept: u64,
    abandoned: Vec<String>,
}

impl From<CoreReport> for CloseReport {
    fn from(report: CoreReport) -> Self {
        CloseReport { flushed: report.flushed, kept: report.kept, abandoned: report.abandoned }
    }
}

#[pymethods]
impl CloseReport {
    fn __repr__(&self) -> String {
        format!(
            "CloseReport(flushed={}, kept={}, abandoned={:?})",
            self.flushed, self.kept, self.abandoned
        )
    }
}
