//! Who got a message, and what came of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use kps::{
    ClientKey, Error,
    message::{AckRow as CoreRow, RowStatus},
};
use parking_lot::Mutex;
use pyo3::{exceptions::PyStopAsyncIteration, prelude::*, types::PyDict};

use crate::{
    errors,
    shared::Shared,
    values::AckRow,
    wait::{Await, Outcome, Signal},
};

/// The table of an acknowledged publish: one row per recipient.
#[pyclass(frozen, module = "kps", name = "Ack")]
pub(crate) struct Ack {
    shared: Arc<Shared>,
    number: u64,
    /// The publisher's own id.
    id: Option<String>,
    state: Mutex<State>,
    signal: Signal,
    /// Rows given by `anext(ack)`.
    next: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// `None` until the server has told.
    recipients: Option<Arc<[Arc<str>]>>,
    rows: Vec<Row>,
    done: bool,
    cancelled: bool,
    /// The publish itself was refused, or the client was closed.
    error: Option<Error>,
}

struct Row {
    client_id: Arc<str>,
    status: RowStatus,
    row: Py<AckRow>,
}

/// Events, from [`crate::dispatch`].
impl Ack {
    pub(crate) fn new(shared: Arc<Shared>, number: u64, id: Option<String>) -> Self {
        let (state, signal, next) = Default::default();
        Ack { shared, number, id, state, signal, next }
    }

    pub(crate) fn key(&self) -> (ClientKey, u64) {
        (self.shared.link().key(), self.number)
    }

    /// A copy: making Python objects may run the program's code, which may come back here.
    fn rows(&self, py: Python<'_>) -> Vec<Row> {
        let copy = |row: &Row| Row {
            client_id: row.client_id.clone(),
            status: row.status,
            row: row.row.clone_ref(py),
        };
        self.state.lock().rows.iter().map(copy).collect()
    }

    pub(crate) fn recipients(&self, py: Python<'_>, clients: Arc<[Arc<str>]>) {
        self.state.lock().recipients = Some(clients);
        self.signal.ring(py);
    }

    pub(crate) fn row(&self, py: Python<'_>, row: CoreRow) {
        let (client_id, status) = (row.client_id.clone(), row.status);
        let row = Py::new(py, AckRow::new(row)).expect("there is memory for a row");
        self.state.lock().rows.push(Row { client_id, status, row });
        self.signal.ring(py);
    }

    pub(crate) fn done(&self, py: Python<'_>) {
        self.state.lock().done = true;
        self.signal.ring(py);
    }

    pub(crate) fn failed(&self, py: Python<'_>, error: Error) {
        let mut state = self.state.lock();
        state.done = true;
        state.error = Some(error);
        drop(state);
        self.signal.ring(py);
    }
}

#[pymethods]
impl Ack {
    /// The message's id.
    #[getter]
    fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.shared.message_id(self.number))
    }

    /// All rows by client id, once all are final.
    fn wait(slf: Py<Self>) -> Await {
        Await::new(Wait { ack: slf, wanted: Wanted::All })
    }

    /// The first row, whatever it says; `None` if there are no recipients.
    fn wait_any(slf: Py<Self>) -> Await {
        Await::new(Wait { ack: slf, wanted: Wanted::Any })
    }

    /// For each recipient whether it has acked.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let status = PyDict::new(py);
        let recipients = self.state.lock().recipients.clone();
        for client in recipients.iter().flat_map(|all| all.iter()) {
            status.set_item(&**client, false)?;
        }
        for row in self.rows(py) {
            status.set_item(&*row.client_id, row.status == RowStatus::Acked)?;
        }
        Ok(status)
    }

    /// Whether all rows are final.
    fn is_complete(&self) -> bool {
        self.state.lock().done
    }

    /// Stops waiting: rows that are open become `cancelled`.
    fn cancel(&self) {
        if !self.is_complete() {
            self.state.lock().cancelled = true;
            self.shared.link().cancel_ack(self.number);
        }
    }

    fn __aiter__(slf: Py<Self>) -> Rows {
        Rows { ack: slf, next: AtomicUsize::new(0) }
    }

    /// `anext(ack)`: the next row that no such call has given yet.
    fn __anext__(slf: Py<Self>) -> Await {
        Await::new(NextRow { ack: slf, iterator: None })
    }

    fn __repr__(&self) -> String {
        let state = self.state.lock();
        let done = if state.done { ", complete" } else { "" };
        format!("Ack(number={}, {} rows{done})", self.number, state.rows.len())
    }

    #[getter(ID)]
    fn kps_id(&self) -> String {
        self.id()
    }

    /// KPS: `{client_id: {ack_id, client_id, success, error?}}`; empty after timeout or cancel.
    #[pyo3(name = "Wait")]
    fn kps_wait(slf: Py<Self>) -> Await {
        Await::new(Wait { ack: slf, wanted: Wanted::KpsAll })
    }

    /// KPS: `(response, ok)`.
    #[pyo3(name = "WaitAny")]
    fn kps_wait_any(slf: Py<Self>) -> Await {
        Await::new(Wait { ack: slf, wanted: Wanted::KpsAny })
    }

    /// KPS: whether each recipient has acked, asked of the server; empty after a cancel.
    #[pyo3(name = "GetStatus")]
    fn kps_get_status(slf: Py<Self>) -> Await {
        Await::new(Wait { ack: slf, wanted: Wanted::KpsStatus })
    }

    /// KPS: false while there is no recipient.
    #[pyo3(name = "IsComplete")]
    fn kps_is_complete(slf: Py<Self>) -> Await {
        Await::new(Wait { ack: slf, wanted: Wanted::KpsComplete })
    }

    #[pyo3(name = "Cancel")]
    fn kps_cancel(slf: Py<Self>) -> Await {
        slf.get().cancel();
        Await::new(Wait { ack: slf, wanted: Wanted::Nothing })
    }
}

/// What an `await` takes from an ack.
#[derive(Clone, Copy)]
enum Wanted {
    All,
    Any,
    KpsAll,
    KpsAny,
    KpsStatus,
    KpsComplete,
    Nothing,
}

struct Wait {
    ack: Py<Ack>,
    wanted: Wanted,
}

impl Wait {
    fn result(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let ack = self.ack.get();
        match self.wanted {
            Wanted::KpsStatus | Wanted::KpsComplete => {
                let (known, cancelled) = {
                    let state = ack.state.lock();
                    (state.recipients.is_some() || state.done, state.cancelled)
                };
                if !known && !cancelled {
                    return Ok(None);
                }
                let status = if cancelled { PyDict::new(py) } else { ack.status(py)? };
                if matches!(self.wanted, Wanted::KpsStatus) {
                    return Ok(Some(status.into_any().unbind()));
                }
                let acked = |value: Bound<'_, PyAny>| value.is_truthy().unwrap_or(false);
                let complete = !status.is_empty() && status.values().iter().all(acked);
                return Ok(Some(complete.into_pyobject(py)?.to_owned().into_any().unbind()));
            }
            Wanted::Nothing => return Ok(Some(py.None())),
            Wanted::All | Wanted::Any | Wanted::KpsAll | Wanted::KpsAny => {}
        }
        let any = matches!(self.wanted, Wanted::Any | Wanted::KpsAny);
        let kps = matches!(self.wanted, Wanted::KpsAll | Wanted::KpsAny);
        let error = {
            let state = ack.state.lock();
            if !(state.done || any && !state.rows.is_empty()) {
                return Ok(None);
            }
            state.error.clone().filter(|_| !kps)
        };
        if let Some(error) = error {
            return Err(errors::to_py(py, &error));
        }
        let rows = ack.rows(py);
        let result = match self.wanted {
            Wanted::Any => rows.first().map_or(py.None(), |row| row.row.clone_ref(py).into_any()),
            Wanted::KpsAny => {
                let first = rows.first().filter(|row| answered(row.status));
                let response = match first {
                    Some(row) => ack.response(py, row)?,
                    None => PyDict::new(py),
                };
                (response, first.is_some()).into_pyobject(py)?.into_any().unbind()
            }
            Wanted::KpsAll => {
                let responses = PyDict::new(py);
                if rows.iter().all(|row| answered(row.status)) {
                    for row in &rows {
                        responses.set_item(&*row.client_id, ack.response(py, row)?)?;
                    }
                }
                responses.into_any().unbind()
            }
            _ => {
                let table = PyDict::new(py);
                for row in &rows {
                    table.set_item(&*row.client_id, &row.row)?;
                }
                table.into_any().unbind()
            }
        };
        Ok(Some(result))
    }
}

/// KPS answers nothing at all after a timeout or a cancel.
fn answered(status: RowStatus) -> bool {
    !matches!(status, RowStatus::Timeout | RowStatus::Cancelled)
}

impl Ack {
    fn response<'py>(&self, py: Python<'py>, row: &Row) -> PyResult<Bound<'py, PyDict>> {
        let response = PyDict::new(py);
        response.set_item("ack_id", self.id())?;
        response.set_item("client_id", &*row.client_id)?;
        response.set_item("success", row.status == RowStatus::Acked)?;
        if let Some(error) = row.row.get().error_text() {
            response.set_item("error", error)?;
        }
        Ok(response)
    }
}

impl Outcome for Wait {
    fn poll(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        self.result(py).transpose()
    }

    fn signal(&self) -> &Signal {
        &self.ack.get().signal
    }
}

/// The rows as they come.
#[pyclass(frozen, module = "kps._kps")]
struct Rows {
    ack: Py<Ack>,
    next: AtomicUsize,
}

#[pymethods]
impl Rows {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(slf: Py<Self>, py: Python<'_>) -> Await {
        let ack = slf.get().ack.clone_ref(py);
        Await::new(NextRow { ack, iterator: Some(slf) })
    }
}

struct NextRow {
    ack: Py<Ack>,
    /// Counts the rows given; without one the ack itself does.
    iterator: Option<Py<Rows>>,
}

impl Outcome for NextRow {
    fn poll(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        let ack = self.ack.get();
        let next = self.iterator.as_ref().map_or(&ack.next, |iterator| &iterator.get().next);
        let error = {
            let state = ack.state.lock();
            if let Some(row) = state.rows.get(next.load(Ordering::Relaxed)) {
                next.fetch_add(1, Ordering::Relaxed);
                return Some(Ok(row.row.clone_ref(py).into_any()));
            }
            if !state.done {
                return None;
            }
            state.error.clone()
        };
        Some(Err(match error {
            Some(error) => errors::to_py(py, &error),
            None => PyStopAsyncIteration::new_err(()),
        }))
    }

    fn signal(&self) -> &Signal {
        &self.ack.get().signal
    }
}
