//! A message as a handler or an iterator gets it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kps::{
    message::{Answer, HandlerError, Message as CoreMessage, Payload, Sender},
    options::MAX_RETRY_DELAY,
};
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict, PyType},
};

use crate::{
    arguments::{invalid, seconds},
    errors::{self, OrRaise},
    payload,
    shared::Shared,
};

/// A message; `data` is decoded when it is first read.
#[pyclass(frozen, freelist = 256, module = "kps", name = "Message")]
pub(crate) struct Message {
    message: CoreMessage,
    /// Not pyo3's lock, which lets go of the GIL for every message.
    data: OnceLock<Py<PyAny>>,
    reply: Option<Arc<Reply>>,
}

impl Message {
    pub(crate) fn new(message: CoreMessage, reply: Option<Arc<Reply>>) -> Self {
        Message { message, data: OnceLock::new(), reply }
    }

    /// What another server sent to this server itself: no topic, no place in a sequence.
    pub(crate) fn to_server(from: &str, payload: Payload) -> Self {
        let sender = Sender { id: from.to_owned(), origin: String::new() };
        let message = CoreMessage {
            topic: "".into(),
            payload,
            sender: sender.into(),
            number: 0,
            seq: 0,
            epoch: 0,
            time_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            attempt: 1,
            maybe_duplicate: false,
            retained: false,
            extras: None,
            cursor: None,
        };
        Message::new(message, None)
    }

    pub(crate) fn reply(&self) -> Option<&Arc<Reply>> {
        self.reply.as_ref()
    }
}

#[pymethods]
impl Message {
    #[getter]
    fn topic(&self) -> &str {
        &self.message.topic
    }

    #[getter]
    fn data(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(data) = self.data.get() {
            return Ok(data.clone_ref(py));
        }
        let data = payload::decoded(py, &self.message.payload)?.unbind();
        Ok(self.data.get_or_init(|| data).clone_ref(py))
    }

    /// The payload's bytes.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.payload.bytes)
    }

    #[getter]
    fn content_type(&self) -> &'static str {
        self.message.payload.content_type.as_str()
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = PyDict::new(py);
        for (name, value) in self.message.headers() {
            headers.set_item(name, value)?;
        }
        Ok(headers)
    }

    #[getter]
    fn id(&self) -> String {
        self.message.id()
    }

    #[getter]
    fn sender(&self) -> &str {
        &self.message.sender.id
    }

    #[getter]
    fn seq(&self) -> u64 {
        self.message.seq
    }

    #[getter]
    fn epoch(&self) -> u64 {
        self.message.epoch
    }

    /// Seconds since the Unix epoch at which the broker accepted it.
    #[getter]
    fn time(&self) -> f64 {
        self.message.time_ms as f64 / 1000.0
    }

    #[getter]
    fn attempt(&self) -> u32 {
        self.message.attempt
    }

    #[getter]
    fn maybe_duplicate(&self) -> bool {
        self.message.maybe_duplicate
    }

    /// Whether it was delivered because it was retained, not live.
    #[getter]
    fn retained(&self) -> bool {
        self.message.retained
    }

    /// The place behind it, to start from again; `None` if its topic has no history.
    #[getter]
    fn cursor(&self) -> Option<String> {
        self.message.cursor.as_ref().map(ToString::to_string)
    }

    /// Whether the publisher asked for an ack.
    #[getter]
    fn _wants_ack(&self) -> bool {
        self.reply.is_some()
    }

    /// Answers the publisher who asked for an ack; the first answer counts.
    #[pyo3(signature = (data = None))]
    fn respond(&self, py: Python<'_>, data: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let answer = match data {
            Some(data) => payload::encoded(data, "data")?,
            None => payload::null(),
        };
        match &self.reply {
            Some(reply) => reply.acked(py, answer),
            None => Ok(()),
        }
    }

    /// Answers that it went wrong: with an exception, or with a text.
    /// A durable's message comes again after `delay` seconds if they are given.
    #[pyo3(signature = (error, *, delay = None))]
    fn fail(&self, error: &Bound<'_, PyAny>, delay: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = error.py();
        let delay = match delay.filter(|delay| !delay.is_none()) {
            Some(delay) => Some(retry_delay(delay)?),
            None => asked_delay(error)?,
        };
        let error = if let Ok(text) = error.extract::<String>() {
            HandlerError { kind: String::new(), text }
        } else if error.is_instance_of::<pyo3::exceptions::PyBaseException>() {
            handler_error(&PyErr::from_value(error.clone()), py)
        } else {
            return Err(errors::wrong_type("error", "an exception or str", error));
        };
        match &self.reply {
            Some(reply) => reply.failed_for(py, error, delay),
            None => Ok(()),
        }
    }

    fn __repr__(&self) -> String {
        let CoreMessage { topic, payload, sender, .. } = &self.message;
        format!(
            "Message(topic={topic:?}, sender={:?}, id={:?}, {} bytes of {})",
            sender.id,
            self.message.id(),
            payload.bytes.len(),
            payload.content_type.as_str()
        )
    }
}

/// The answer that a publisher waits for. Whoever gives it first gives it.
pub(crate) struct Reply {
    shared: Arc<Shared>,
    delivery: u64,
    given: AtomicBool,
}

impl Reply {
    pub(crate) fn new(shared: Arc<Shared>, delivery: u64) -> Self {
        Reply { shared, delivery, given: AtomicBool::new(false) }
    }

    pub(crate) fn delivery(&self) -> u64 {
        self.delivery
    }

    pub(crate) fn acked(&self, py: Python<'_>, data: Payload) -> PyResult<()> {
        self.give(py, Answer::Acked(data))
    }

    pub(crate) fn failed(&self, py: Python<'_>, error: HandlerError) -> PyResult<()> {
        self.give(py, Answer::Failed(error))
    }

    /// It failed, and is wanted again after `delay` if that was said.
    pub(crate) fn failed_for(
        &self,
        py: Python<'_>,
        error: HandlerError,
        delay: Option<Duration>,
    ) -> PyResult<()> {
        match delay {
            Some(delay) => self.give(py, Answer::Retry(error, delay)),
            None => self.failed(py, error),
        }
    }

    /// What a handler returned, or that it cannot be sent.
    pub(crate) fn returned(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.given.load(Ordering::Relaxed) {
            return Ok(());
        }
        let py = value.py();
        if value.is_none() {
            return self.acked(py, payload::null());
        }
        match payload::encoded(value, "what the handler returned") {
            Ok(data) => self.acked(py, data),
            Err(error) => self.failed(py, handler_error(&error, py)),
        }
    }

    fn give(&self, py: Python<'_>, answer: Answer) -> PyResult<()> {
        if self.given.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.shared.send(py, |link, hint| link.answer(self.delivery, answer, hint)).or_raise(py)
    }
}

/// A delay as a durable takes it.
fn retry_delay(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let delay = seconds(value, "delay")?;
    if delay > MAX_RETRY_DELAY {
        let message = format!("delay is {} s; it is at most a day", delay.as_secs());
        return Err(invalid(value.py(), message));
    }
    Ok(delay)
}

/// The delay that `kps.Retry` carries.
pub(crate) fn asked_delay(error: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    static RETRY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if !error.is_instance(RETRY.import(error.py(), "kps.retry", "Retry")?)? {
        return Ok(None);
    }
    let delay = error.getattr("delay")?;
    if delay.is_none() { Ok(None) } else { retry_delay(&delay).map(Some) }
}

/// An exception as a row carries it.
pub(crate) fn handler_error(error: &PyErr, py: Python<'_>) -> HandlerError {
    let kind = error.get_type(py).qualname().map_or_else(|_| "Exception".into(), |n| n.to_string());
    let text = error.value(py).str().map_or_else(|_| String::new(), |text| text.to_string());
    HandlerError { kind, text }
}
