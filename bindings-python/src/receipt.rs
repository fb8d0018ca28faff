//! What `publish` returns: nothing to keep, something to await.

use std::sync::Arc;

use kps::{Target, message::ReceiptLevel};
use pyo3::{IntoPyObjectExt, prelude::*};

use crate::{
    errors::OrRaise,
    host::Host,
    shared::Shared,
    wait::{Await, Outcome, Signal, Slot},
};

/// The receipt of one published message. Ignoring it is fine.
#[pyclass(frozen, freelist = 64, module = "kps", name = "Receipt")]
pub(crate) struct Receipt {
    shared: Arc<Shared>,
    number: u64,
    level: Option<ReceiptLevel>,
    /// The publisher's own id.
    id: Option<String>,
}

impl Receipt {
    pub(crate) fn new(
        shared: Arc<Shared>,
        number: u64,
        level: Option<ReceiptLevel>,
        id: Option<String>,
    ) -> Self {
        Receipt { shared, number, level, id }
    }
}

#[pymethods]
impl Receipt {
    /// The message's id.
    #[getter]
    fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.shared.message_id(self.number))
    }

    /// The level reached. Without a level asked for: `queued`, once there is room for more.
    fn __await__(&self, py: Python<'_>) -> PyResult<Await> {
        let Receipt { shared, number, level, .. } = self;
        let host = Host::current(py)?;
        let target = host.attach(shared);
        let level = level.unwrap_or(ReceiptLevel::Queued);
        if level == ReceiptLevel::Queued {
            shared.link().watch(*number, level, target).or_raise(py)?;
            return Ok(Await::new(RoomForMore { shared: shared.clone(), target }));
        }
        let slot = Arc::new(Slot::default());
        if shared.link().watch(*number, level, target).or_raise(py)? {
            slot.fill(py, level.as_str().into_py_any(py));
        } else {
            // The event cannot come before this: it comes through this thread's loop.
            let key = (shared.link().key(), *number);
            host.tables.lock().receipts.entry(key).or_default().push(slot.clone());
        }
        Ok(Await::new(slot))
    }

    fn __repr__(&self) -> String {
        format!("Receipt(id={:?})", self.id())
    }
}

struct RoomForMore {
    shared: Arc<Shared>,
    target: Target,
}

impl Outcome for RoomForMore {
    fn poll(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        let free = self.shared.link().watch_room(self.target);
        free.then(|| ReceiptLevel::Queued.as_str().into_py_any(py))
    }

    fn signal(&self) -> &Signal {
        &self.shared.room
    }
}
