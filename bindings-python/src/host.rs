//! One event loop's end of the bridge: its mailbox, and who waits for what comes out of it.
//!
//! The runtime thread rings a doorbell that the loop watches; the loop then calls [`Host::drain`],
//! once for a whole batch. A `Host` lives as long as its loop, which owns the [`Reader`].

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kps::{ClientKey, HostMailbox, Item, MailboxRef, SubId, Target, runtime};
use parking_lot::Mutex;
use pyo3::{
    exceptions::PyNotImplementedError,
    intern,
    prelude::*,
    types::{PyWeakrefMethods, PyWeakrefReference},
};

use crate::{
    ack::Ack,
    dispatch::Dispatch,
    exit::Inside,
    memory,
    shared::Shared,
    subscription::Sub,
    wait::{self, Slot},
    wake::Doorbell,
};

/// Items taken from the mailbox at once.
const BATCH: usize = 1024;
/// How long one drain keeps the loop before others get their turn.
const TURN: Duration = Duration::from_millis(5);
/// Items between two looks at the clock.
const GLANCE: usize = 16;

/// What kps keeps for one event loop.
pub(crate) struct Host {
    event_loop: Py<PyWeakrefReference>,
    mailbox: MailboxRef,
    bell: Arc<OnceLock<Bell>>,
    generation: u32,
    ended: AtomicBool,
    /// Taken from the mailbox, not dispatched yet.
    batch: Mutex<VecDeque<Item>>,
    completions: Mutex<Vec<Completion>>,
    pub(crate) tables: Mutex<Tables>,
    flush: Mutex<Flush>,
}

type Completion = Box<dyn FnOnce(Python<'_>) + Send>;

/// Who waits for which event.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) clients: HashMap<ClientKey, Weak<Shared>>,
    pub(crate) subs: HashMap<(ClientKey, SubId), Arc<Sub>>,
    pub(crate) acks: HashMap<(ClientKey, u64), Py<Ack>>,
    pub(crate) requests: HashMap<(ClientKey, u64), Arc<Slot>>,
    pub(crate) receipts: HashMap<(ClientKey, u64), Vec<Arc<Slot>>>,
    pub(crate) flushes: HashMap<(ClientKey, u64), Arc<Slot>>,
}

#[derive(Default)]
struct Flush {
    dirty: Vec<Arc<Shared>>,
    /// The drain that runs, or the [`Flusher`] that is scheduled, will flush them.
    promised: bool,
}

thread_local! {
    /// The host of the loop that ran on this thread last.
    static HERE: RefCell<Option<Arc<Host>>> = const { RefCell::new(None) };
}

impl Host {
    /// The host of the running loop.
    pub(crate) fn current(py: Python<'_>) -> PyResult<Arc<Host>> {
        let event_loop = wait::running_loop(py)?.ok_or_else(wait::no_loop)?;
        if let Some(host) = Host::here()
            && host.event_loop(py).is_some_and(|own| own.is(&event_loop))
        {
            return Ok(host);
        }
        let owner = event_loop.getattr_opt(intern!(py, "_kps_host"))?;
        let host = owner.and_then(|owner| owner.cast::<Owner>().ok()?.get().host.upgrade());
        let host = match host.filter(|host| host.alive()) {
            Some(host) => host,
            None => Host::start(&event_loop)?,
        };
        HERE.set(Some(host.clone()));
        Ok(host)
    }

    /// The host of this thread's loop, if it is alive. Does not ask whether the loop runs.
    #[inline]
    pub(crate) fn here() -> Option<Arc<Host>> {
        HERE.with_borrow(|host| host.as_ref().filter(|host| host.alive()).cloned())
    }

    /// Whether this is its loop's own thread.
    pub(crate) fn is_here(self: &Arc<Self>) -> bool {
        self.alive()
            && HERE.with_borrow(|host| host.as_ref().is_some_and(|host| Arc::ptr_eq(host, self)))
    }

    fn start(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Host>> {
        let py = event_loop.py();
        let bell = Arc::new(OnceLock::<Bell>::new());
        let ring = bell.clone();
        let host = Arc::new(Host {
            event_loop: PyWeakrefReference::new(event_loop)?.unbind(),
            mailbox: Arc::new(HostMailbox::new(move || {
                ring.get().expect("set before any client knows the mailbox").ring();
            })),
            bell,
            generation: runtime::generation(),
            ended: AtomicBool::new(false),
            batch: Mutex::default(),
            completions: Mutex::default(),
            tables: Mutex::default(),
            flush: Mutex::default(),
        });
        let reader = Bound::new(py, Reader(host.clone()))?;
        let (bell, keep) = match watch(event_loop, &reader)? {
            Some(doorbell) => (Bell::Doorbell(doorbell), None),
            None => (Bell::Threadsafe(Arc::downgrade(&host)), Some(reader.unbind())),
        };
        assert!(host.bell.set(bell).is_ok(), "the cell is new");
        let owner = Owner { host: Arc::downgrade(&host), _keep: keep };
        event_loop.setattr(intern!(py, "_kps_host"), Bound::new(py, owner)?)?;
        memory::register(&host);
        Ok(host)
    }

    /// The loop, while it exists.
    pub(crate) fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.event_loop.bind(py).upgrade()
    }

    /// Whether the loop is open, and of this process.
    #[inline]
    pub(crate) fn alive(&self) -> bool {
        !self.ended.load(Ordering::Relaxed) && self.generation == runtime::generation()
    }

    pub(crate) fn mailbox(&self) -> &MailboxRef {
        &self.mailbox
    }

    /// Makes `shared`'s events come here.
    pub(crate) fn attach(&self, shared: &Arc<Shared>) -> Target {
        let link = shared.link();
        self.tables.lock().clients.entry(link.key()).or_insert_with(|| Arc::downgrade(shared));
        link.attach(&self.mailbox)
    }

    /// Runs `action` in the loop, soon; drops it if the loop has ended. Any thread, without the GIL.
    pub(crate) fn complete(&self, action: impl FnOnce(Python<'_>) + Send + 'static) {
        self.completions.lock().push(Box::new(action));
        if self.ended.load(Ordering::Acquire) {
            let dropped = std::mem::take(&mut *self.completions.lock());
            return drop(dropped);
        }
        self.bell.get().expect("set when the host started").ring();
    }

    /// Gives back the room that a burst took and nothing needs now.
    pub(crate) fn shrink(&self) {
        self.mailbox.shrink();
        self.batch.lock().shrink_to_fit();
        let mut tables = self.tables.lock();
        tables.acks.shrink_to_fit();
        tables.requests.shrink_to_fit();
        tables.receipts.shrink_to_fit();
    }

    /// Has `shared`'s waiting frames sent at the end of this tick.
    pub(crate) fn flush_later(self: &Arc<Self>, py: Python<'_>, shared: &Arc<Shared>) {
        let mut flush = self.flush.lock();
        if !flush.dirty.iter().any(|dirty| Arc::ptr_eq(dirty, shared)) {
            flush.dirty.push(shared.clone());
        }
        if std::mem::replace(&mut flush.promised, true) {
            return;
        }
        drop(flush);
        let scheduled = self.event_loop(py).is_some_and(|event_loop| {
            let flusher = Flusher(self.clone());
            event_loop.call_method1(intern!(py, "call_soon"), (flusher,)).is_ok()
        });
        if !scheduled {
            self.flush_now();
        }
    }

    fn flush_now(&self) {
        let dirty = {
            let mut flush = self.flush.lock();
            flush.promised = false;
            std::mem::take(&mut flush.dirty)
        };
        for shared in dirty {
            shared.link().flush_now();
        }
    }

    /// Hands over what waits: one batch, or as much as fits into a turn.
    fn drain(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        if let Some(Bell::Doorbell(doorbell)) = self.bell.get() {
            doorbell.quiet();
        }
        HERE.with_borrow_mut(|here| {
            if !here.as_ref().is_some_and(|here| Arc::ptr_eq(here, self)) {
                *here = Some(self.clone());
            }
        });
        self.flush.lock().promised = true;
        // Taken in a statement of its own: one of them may add another.
        let completions = std::mem::take(&mut *self.completions.lock());
        for complete in completions {
            complete(py);
        }
        let mut batch = std::mem::take(&mut *self.batch.lock());
        // The mailbox may have rung for what it still holds, and is quiet now.
        let left_over = !batch.is_empty();
        if !left_over {
            let mut fresh = Vec::from(batch);
            self.mailbox.drain(BATCH, &mut fresh);
            batch = fresh.into();
        }
        let result = self.dispatch(py, &mut batch);
        let more = !batch.is_empty();
        *self.batch.lock() = batch;
        if more || left_over {
            self.bell.get().expect("set when the host started").ring();
        }
        self.flush_now();
        result
    }

    fn dispatch(self: &Arc<Self>, py: Python<'_>, batch: &mut VecDeque<Item>) -> PyResult<()> {
        let started = Instant::now();
        let mut dispatch = Dispatch::new(py, self);
        let mut count = 0;
        while let Some(item) = batch.pop_front() {
            dispatch.item(item)?;
            count += 1;
            if count % GLANCE == 0 && started.elapsed() > TURN {
                break;
            }
        }
        Ok(())
    }

    /// The loop was closed: what waited on it ends.
    fn end(&self) {
        if self.ended.swap(true, Ordering::AcqRel) || self.generation != runtime::generation() {
            return;
        }
        self.mailbox.close();
        let tables = std::mem::take(&mut *self.tables.lock());
        for shared in tables.clients.values().filter_map(Weak::upgrade) {
            shared.link().detach(&self.mailbox);
            shared.forget_at(self);
        }
        drop(tables);
        let completions = std::mem::take(&mut *self.completions.lock());
        drop(completions);
        drop(std::mem::take(&mut *self.batch.lock()));
        drop(std::mem::take(&mut self.flush.lock().dirty));
    }
}

/// Has the loop call `reader` when the doorbell rings; `None` if it cannot watch descriptors.
fn watch(event_loop: &Bound<'_, PyAny>, reader: &Bound<'_, Reader>) -> PyResult<Option<Doorbell>> {
    let py = event_loop.py();
    let Ok(doorbell) = Doorbell::new() else { return Ok(None) };
    match event_loop.call_method1(intern!(py, "add_reader"), (doorbell.fd(), reader)) {
        Ok(_) => Ok(Some(doorbell)),
        Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How the runtime thread wakes the loop.
enum Bell {
    Doorbell(Doorbell),
    /// Costs the runtime thread the GIL.
    Threadsafe(Weak<Host>),
}

impl Bell {
    fn ring(&self) {
        match self {
            Bell::Doorbell(doorbell) => doorbell.ring(),
            Bell::Threadsafe(host) => {
                // No interpreter, no loop, or a closed one: nobody is there to wake.
                let _ = Python::try_attach(|py| {
                    let host = host.upgrade()?;
                    let event_loop = host.event_loop(py)?;
                    let drain = Drain(host);
                    event_loop
                        .call_method1(intern!(py, "call_soon_threadsafe"), (drain,))
                        .map(Bound::unbind)
                        .ok()
                });
            }
        }
    }
}

/// The loop's callback, owned by the loop alone: it goes when the loop is closed.
#[pyclass(frozen, module = "kps._kps")]
struct Reader(Arc<Host>);

#[pymethods]
impl Reader {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let _inside = Inside::enter(py);
        self.0.drain(py)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// [`Reader`] without the end.
#[pyclass(frozen, module = "kps._kps")]
struct Drain(Arc<Host>);

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let _inside = Inside::enter(py);
        self.0.drain(py)
    }
}

/// The loop's `_kps_host`.
#[pyclass(frozen, module = "kps._kps")]
struct Owner {
    host: Weak<Host>,
    /// Where the loop has no use for the reader, it still owns it.
    _keep: Option<Py<Reader>>,
}

/// The end of a tick.
#[pyclass(frozen, freelist = 4, module = "kps._kps")]
struct Flusher(Arc<Host>);

#[pymethods]
impl Flusher {
    fn __call__(&self) {
        self.0.flush_now();
    }
}
