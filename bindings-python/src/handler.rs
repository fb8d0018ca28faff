//! Calling a subscription's handler, and what becomes of its result.

use std::sync::Arc;

use kps::message::Message as CoreMessage;
use pyo3::{exceptions::PyException, ffi, prelude::*};

use crate::{
    host::Host,
    message::{Message, Reply, asked_delay, handler_error},
    subscription::{Entry, Sub},
    worker::Worker,
};

impl Sub {
    /// Hands over a message: to the handler now, to the tasks of an async one, or to the reader.
    #[inline]
    pub(crate) fn deliver(
        self: &Arc<Self>,
        py: Python<'_>,
        host: &Arc<Host>,
        message: CoreMessage,
        reply: Option<Arc<Reply>>,
    ) -> PyResult<()> {
        if self.handler.is_none() {
            self.push(py, Entry::Message(message, reply));
            return Ok(());
        }
        let mut state = self.state.lock();
        if state.asynchronous {
            state.queue.push_back(Entry::Message(message, reply));
            let start = state.workers.len() < self.concurrency;
            drop(state);
            if start {
                // The task copies the context it is made in.
                self.context.run(py, || Worker::start(py, self, host, None))?;
            }
            return Ok(());
        }
        drop(state);
        let message = Py::new(py, Message::new(message, reply))?;
        self.context.run(py, || {
            if let Some(awaitable) = self.call(py, host, &message)? {
                self.state.lock().asynchronous = true;
                Worker::start(py, self, host, Some((awaitable, message)))?;
            }
            Ok(())
        })
    }

    /// Calls the handler. A coroutine is given back to be run; everything else is settled here.
    #[inline]
    pub(crate) fn call<'py>(
        &self,
        py: Python<'py>,
        host: &Arc<Host>,
        message: &Py<Message>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let handler = self.handler.as_ref().expect("only subscriptions with a handler call it");
        self.consumed(py, 1);
        match handler.bind(py).call1((message,)) {
            Ok(result) if is_awaitable(&result) => return Ok(Some(result)),
            Ok(result) => self.returned(message, &result),
            Err(error) => self.raised(py, host, message, error)?,
        }
        Ok(None)
    }

    /// The next message for an async handler.
    pub(crate) fn take(&self) -> Option<(CoreMessage, Option<Arc<Reply>>)> {
        let mut state = self.state.lock();
        loop {
            match state.queue.pop_front()? {
                Entry::Message(message, reply) => return Some((message, reply)),
                Entry::Gap(_) => {}
            }
        }
    }

    #[inline]
    pub(crate) fn returned(&self, message: &Py<Message>, value: &Bound<'_, PyAny>) {
        if let Some(reply) = message.get().reply() {
            // Fails when the client was closed: the publisher hears that from the broker.
            let _ = reply.returned(value);
        }
    }

    /// Tells the publisher, else the program. Gives back what must not be swallowed:
    /// `KeyboardInterrupt`, `SystemExit`.
    #[cold]
    pub(crate) fn raised(
        &self,
        py: Python<'_>,
        host: &Arc<Host>,
        message: &Py<Message>,
        error: PyErr,
    ) -> PyResult<()> {
        let reply = message.get().reply();
        if let Some(reply) = reply {
            // As above.
            let delay = asked_delay(error.value(py)).unwrap_or(None);
            let _ = reply.failed_for(py, handler_error(&error, py), delay);
        }
        self.shared.handler_failed(py, host, &error, message, reply.is_some());
        let program_ends =
            !error.is_instance_of::<PyException>(py) && !crate::errors::is_cancelled(py, &error);
        if program_ends { Err(error) } else { Ok(()) }
    }
}

#[inline]
fn is_awaitable(result: &Bound<'_, PyAny>) -> bool {
    if result.is_none() {
        return false;
    }
    // SAFETY: attached; the type of a live object is alive.
    unsafe {
        let slots = (*result.get_type_ptr()).tp_as_async;
        ffi::PyCoro_CheckExact(result.as_ptr()) != 0
            || (!slots.is_null() && (*slots).am_await.is_some())
    }
}
