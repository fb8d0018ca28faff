//! A subscription: what waits for its handler or its reader.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use kps::{
    ErrorKind, SubId,
    message::{Gap as CoreGap, Message as CoreMessage},
};
use parking_lot::Mutex;
use pyo3::{
    exceptions::PyStopAsyncIteration,
    prelude::*,
    types::{PyDict, PyList},
};

use crate::{
    context::Context,
    errors,
    host::Host,
    ledger,
    message::{Message, Reply},
    payload,
    shared::Shared,
    values::Gap,
    wait::{Await, Lazy, Outcome, Signal, Slot},
    worker::Worker,
};

/// Messages handed over are reported after so many at the latest: credit must not run dry while
/// the reader still has a long buffer.
const REPORT: u64 = 64;

pub(crate) struct Sub {
    pub(crate) shared: Arc<Shared>,
    pub(crate) host: Weak<Host>,
    pub(crate) topic: String,
    pub(crate) handler: Option<Py<PyAny>>,
    pub(crate) concurrency: usize,
    pub(crate) context: Context,
    pub(crate) state: Mutex<State>,
    signal: Signal,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) id: Option<SubId>,
    pub(crate) queue: VecDeque<Entry>,
    /// The handler returned a coroutine once: from now on tasks call it.
    pub(crate) asynchronous: bool,
    pub(crate) workers: Vec<Arc<Worker>>,
    /// Handed over, not reported yet.
    pub(crate) consumed: u64,
    /// What the iterator handed out last: acked when more is asked for.
    unsettled: Vec<Arc<Reply>>,
    /// Nothing more will come. With an error, readers get it.
    pub(crate) end: Option<Option<kps::Error>>,
    pub(crate) confirmed: Option<Arc<Slot>>,
    pub(crate) unsubscribed: Vec<Arc<Slot>>,
}

/// What a stream holds.
pub(crate) enum Entry {
    Message(CoreMessage, Option<Arc<Reply>>),
    Gap(CoreGap),
}

impl Sub {
    pub(crate) fn new(
        py: Python<'_>,
        shared: Arc<Shared>,
        host: &Arc<Host>,
        topic: String,
        handler: Option<Py<PyAny>>,
        concurrency: usize,
    ) -> PyResult<Sub> {
        Ok(Sub {
            shared,
            host: Arc::downgrade(host),
            topic,
            handler,
            concurrency,
            context: Context::copy(py)?,
            state: Mutex::default(),
            signal: Signal::default(),
        })
    }

    /// Whether more may come, and nobody has asked to end it.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.state.lock();
        state.end.is_none() && state.unsubscribed.is_empty()
    }

    /// Nobody waits for this delivery's answer: it is not handed over any more, and a handler that
    /// works on it is cancelled.
    pub(crate) fn cancel(&self, py: Python<'_>, delivery: u64) -> PyResult<()> {
        let mut state = self.state.lock();
        let of_delivery = |entry: &Entry| matches!(entry, Entry::Message(_, Some(reply)) if reply.delivery() == delivery);
        if let Some(at) = state.queue.iter().position(of_delivery) {
            let removed = state.queue.remove(at);
            drop(state);
            drop(removed);
            self.consumed(py, 1);
            return Ok(());
        }
        let workers = state.workers.clone();
        drop(state);
        workers.iter().try_for_each(|worker| worker.cancel(py, delivery))
    }

    /// For the reader.
    pub(crate) fn push(&self, py: Python<'_>, entry: Entry) {
        self.state.lock().queue.push_back(entry);
        self.signal.ring(py);
    }

    /// Counts messages as handed over; reports so many at once that it costs nothing.
    #[inline]
    pub(crate) fn consumed(&self, py: Python<'_>, count: u64) {
        let mut state = self.state.lock();
        state.consumed += count;
        let report = state.consumed >= REPORT;
        drop(state);
        if report {
            self.report(py);
        }
    }

    /// Tells core what was handed over. Whoever hands over does it before it waits.
    pub(crate) fn report(&self, py: Python<'_>) {
        let mut state = self.state.lock();
        let (count, id) = (std::mem::take(&mut state.consumed), state.id);
        drop(state);
        if let Some(id) = id
            && count > 0
        {
            self.shared.send(py, |link, hint| link.consumed(id, count, hint));
        }
    }

    /// Nothing more comes. What is buffered can still be read.
    pub(crate) fn end(&self, py: Python<'_>, error: Option<kps::Error>) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.end = Some(error.clone());
        }
        let confirmed = state.confirmed.take();
        let unsubscribed = std::mem::take(&mut state.unsubscribed);
        drop(state);
        if let Some(slot) = confirmed {
            let error = error.unwrap_or_else(|| {
                kps::Error::new(ErrorKind::Closed, "unsubscribed before the broker confirmed it")
            });
            slot.fill(py, Err(errors::to_py(py, &error)));
        }
        for slot in unsubscribed {
            slot.fill(py, Ok(py.None()));
        }
        self.signal.ring(py);
    }

    /// Starts ending it; the slot is filled when the broker confirmed, or at once if it has ended.
    pub(crate) fn unsubscribe(&self, py: Python<'_>) -> PyResult<Arc<Slot>> {
        let slot = Arc::new(Slot::default());
        let mut state = self.state.lock();
        let Some(id) = state.id.filter(|_| state.end.is_none()) else {
            drop(state);
            slot.fill(py, Ok(py.None()));
            return Ok(slot);
        };
        let first = state.unsubscribed.is_empty();
        state.unsubscribed.push(slot.clone());
        drop(state);
        if first && let Err(error) = self.shared.link().unsubscribe(id) {
            self.end(py, None);
            if !matches!(error.kind(), ErrorKind::Closed | ErrorKind::NotFound) {
                return Err(errors::to_py(py, &error));
            }
        }
        Ok(slot)
    }

    /// The last message handed out is done with: nobody failed it.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        let unsettled = std::mem::take(&mut self.state.lock().unsettled);
        for reply in unsettled {
            reply.acked(py, payload::null())?;
        }
        Ok(())
    }

    fn pop(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let mut state = self.state.lock();
        let Some(entry) = state.queue.pop_front() else {
            drop(state);
            self.report(py);
            return Ok(None);
        };
        let last = state.queue.is_empty();
        match entry {
            Entry::Message(message, reply) => {
                state.unsettled.extend(reply.clone());
                drop(state);
                self.consumed(py, 1);
                if last {
                    self.report(py);
                }
                Ok(Some(Py::new(py, Message::new(message, reply))?.into_any()))
            }
            Entry::Gap(gap) => {
                drop(state);
                Ok(Some(Py::new(py, Gap::from(&gap))?.into_any()))
            }
        }
    }

    fn ended(&self, py: Python<'_>) -> Option<PyErr> {
        let end = self.state.lock().end.clone()?;
        Some(match end {
            Some(error) => errors::to_py(py, &error),
            None => PyStopAsyncIteration::new_err(()),
        })
    }
}

/// A subscription, as `subscribe` returns it.
#[pyclass(frozen, module = "kps", name = "Subscription")]
pub(crate) struct Subscription(Arc<Sub>);

impl Subscription {
    pub(crate) fn new(sub: Arc<Sub>) -> Self {
        Subscription(sub)
    }
}

#[pymethods]
impl Subscription {
    #[getter]
    fn topic(&self) -> &str {
        &self.0.topic
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Takes the message when it is awaited, so that a cancelled `await` loses none.
    fn __anext__(slf: Py<Self>, py: Python<'_>) -> PyResult<Await> {
        slf.get().readable(py)?;
        slf.get().0.settle(py)?;
        Ok(Await::new(Next(slf)))
    }

    /// An asynchronous iterator of lists: all that is there, at most `max` at once.
    #[pyo3(signature = (max = 1024))]
    fn batches(slf: Py<Self>, py: Python<'_>, max: usize) -> PyResult<Batches> {
        slf.get().readable(py)?;
        if max == 0 {
            return Err(errors::raise(py, ErrorKind::InvalidArgument, "max must be at least 1"));
        }
        Ok(Batches { subscription: slf, max })
    }

    /// What became of its messages; of an ended one the client's ledger holds the sum.
    fn ledger<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.0.report(py);
        let id = self.0.state.lock().id;
        let ledger = self.0.shared.link().ledger();
        match ledger.subscriptions.iter().find(|each| Some(each.sub) == id) {
            Some(found) => ledger::counts(py, &found.counts),
            None => Err(errors::raise(py, ErrorKind::NotFound, "the subscription has ended")),
        }
    }

    fn unsubscribe(&self) -> Await {
        let sub = self.0.clone();
        Lazy::coroutine("unsubscribe", move |py| sub.unsubscribe(py))
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| Arc::ptr_eq(&self.0, &other.get().0))
    }

    fn __hash__(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    fn __repr__(&self) -> String {
        format!("Subscription(topic={:?})", self.0.topic)
    }
}

impl Subscription {
    fn readable(&self, py: Python<'_>) -> PyResult<()> {
        if self.0.handler.is_none() {
            return Ok(());
        }
        let sentence = "this subscription has a handler; subscribe without one to iterate";
        Err(errors::raise(py, ErrorKind::InvalidArgument, sentence))
    }
}

impl Drop for Subscription {
    /// Nobody can read any more: the broker need not keep messages for it.
    fn drop(&mut self) {
        if self.0.handler.is_some() {
            return;
        }
        let id = self.0.state.lock().id;
        if let Some(id) = id
            && self.0.is_open()
            && self.0.host.upgrade().is_some_and(|host| host.alive())
        {
            // Closed already, then there is nothing to end.
            let _ = self.0.shared.link().unsubscribe(id);
        }
    }
}

/// The next message. It and [`Batches`] hold the subscription itself: while somebody reads, it is
/// not dropped.
struct Next(Py<Subscription>);

impl Outcome for Next {
    fn poll(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        let Subscription(sub) = self.0.get();
        match sub.pop(py) {
            Ok(None) => sub.ended(py).map(Err),
            Ok(Some(value)) => Some(Ok(value)),
            Err(error) => Some(Err(error)),
        }
    }

    fn signal(&self) -> &Signal {
        &self.0.get().0.signal
    }
}

/// See [`Subscription::batches`].
#[pyclass(frozen, module = "kps._kps")]
pub(crate) struct Batches {
    subscription: Py<Subscription>,
    max: usize,
}

#[pymethods]
impl Batches {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self, py: Python<'_>) -> PyResult<Await> {
        self.subscription.get().0.settle(py)?;
        Ok(Await::new(NextBatch { subscription: self.subscription.clone_ref(py), max: self.max }))
    }
}

struct NextBatch {
    subscription: Py<Subscription>,
    max: usize,
}

impl NextBatch {
    fn take(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let Subscription(sub) = self.subscription.get();
        let mut state = sub.state.lock();
        let count = state.queue.len().min(self.max);
        let entries: Vec<_> = state.queue.drain(..count).collect();
        state.unsettled.extend(entries.iter().filter_map(|entry| match entry {
            Entry::Message(_, reply) => reply.clone(),
            Entry::Gap(_) => None,
        }));
        drop(state);
        if entries.is_empty() {
            return Ok(None);
        }
        let batch = PyList::empty(py);
        let mut messages = 0;
        for entry in entries {
            match entry {
                Entry::Message(message, reply) => {
                    messages += 1;
                    batch.append(Bound::new(py, Message::new(message, reply))?)?;
                }
                Entry::Gap(gap) => batch.append(Bound::new(py, Gap::from(&gap))?)?,
            }
        }
        sub.consumed(py, messages);
        sub.report(py);
        Ok(Some(batch.into_any().unbind()))
    }
}

impl Outcome for NextBatch {
    fn poll(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        match self.take(py) {
            Ok(None) => self.subscription.get().0.ended(py).map(Err),
            Ok(Some(batch)) => Some(Ok(batch)),
            Err(error) => Some(Err(error)),
        }
    }

    fn signal(&self) -> &Signal {
        &self.subscription.get().0.signal
    }
}
