//! `client.on`, and the handlers for messages sent to a client's own id.

use std::sync::{Arc, Weak};

use kps::SubId;
use pyo3::prelude::*;

use crate::{host::Host, shared::Shared, subscription::Sub};

/// The event whose handlers answer.
pub(crate) const MESSAGE_TO_ID: &str = "message_to_id";

/// Calls `handler` on `event` from now on, on the running loop.
pub(crate) fn on(
    py: Python<'_>,
    shared: &Arc<Shared>,
    event: &str,
    handler: Py<PyAny>,
) -> PyResult<Off> {
    let host = shared.host(py)?;
    host.attach(shared);
    let number = shared.listen(event, handler, &host);
    if event == MESSAGE_TO_ID {
        shared.link().direct_to(host.mailbox());
        take_direct_messages(py, shared, &host)?;
    }
    Ok(Off { shared: Arc::downgrade(shared), number })
}

/// Makes the implicit subscription one with a handler, here.
fn take_direct_messages(py: Python<'_>, shared: &Arc<Shared>, host: &Arc<Host>) -> PyResult<()> {
    let key = (shared.link().key(), SubId::DIRECT);
    if host.tables.lock().subs.contains_key(&key) {
        return Ok(());
    }
    let handler = Py::new(py, Answer(Arc::downgrade(shared)))?.into_any();
    let sub = Sub::new(py, shared.clone(), host, MESSAGE_TO_ID.into(), Some(handler), usize::MAX)?;
    sub.state.lock().id = Some(SubId::DIRECT);
    host.tables.lock().subs.insert(key, Arc::new(sub));
    Ok(())
}

/// Hands a message to every handler; what the first returns is the answer.
#[pyclass(frozen, module = "kps._kps")]
struct Answer(Weak<Shared>);

#[pymethods]
impl Answer {
    fn __call__(&self, py: Python<'_>, message: Py<PyAny>) -> PyResult<Py<PyAny>> {
        let Some(shared) = self.0.upgrade() else { return Ok(py.None()) };
        let mut handlers = shared.handlers(py, MESSAGE_TO_ID).into_iter();
        let Some(first) = handlers.next() else { return Ok(py.None()) };
        let answer = first.call1(py, (message.clone_ref(py),));
        let host = Host::here();
        for handler in handlers {
            if let Some(host) = &host {
                let arguments = (message.clone_ref(py),).into_pyobject(py)?;
                crate::shared::call(handler.bind(py), &arguments, host);
            }
        }
        answer
    }
}

/// Ends what `client.on` began.
#[pyclass(frozen, module = "kps._kps")]
pub(crate) struct Off {
    shared: Weak<Shared>,
    number: u64,
}

#[pymethods]
impl Off {
    fn __call__(&self, py: Python<'_>) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.forget(self.number);
        if shared.handlers(py, MESSAGE_TO_ID).is_empty()
            && let Some(host) = Host::here()
        {
            let key = (shared.link().key(), SubId::DIRECT);
            let forgotten = host.tables.lock().subs.remove(&key);
            drop(forgotten);
        }
    }
}
