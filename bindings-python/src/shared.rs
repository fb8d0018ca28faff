//! What a Python client and everything that came out of it share: the link to core and the
//! program's event handlers.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use kps::{Bridge, FlushHint, Server};
use parking_lot::Mutex;
use pyo3::{intern, prelude::*, types::PyTuple};

use crate::{
    host::Host,
    message::Message,
    subscription::Sub,
    wait::{self, Signal},
};

pub(crate) struct Shared {
    link: Bridge,
    /// Rings when there may be room in the outbox again.
    pub(crate) room: Signal,
    listeners: Mutex<Vec<Listener>>,
    /// Somebody wants the event `message_received`: asked once per message.
    hears_messages: AtomicBool,
    /// Core tells of every accepted message.
    tells_published: AtomicBool,
    /// Set if this is a server's own client.
    server: OnceLock<Server>,
    subs: Mutex<Vec<Weak<Sub>>>,
    home: Mutex<Weak<Host>>,
}

struct Listener {
    number: u64,
    event: String,
    handler: Py<PyAny>,
    host: Weak<Host>,
}

impl Shared {
    pub(crate) fn new(link: Bridge) -> Arc<Shared> {
        Arc::new(Shared {
            link,
            room: Signal::default(),
            listeners: Mutex::default(),
            hears_messages: AtomicBool::new(false),
            tells_published: AtomicBool::new(false),
            server: OnceLock::new(),
            subs: Mutex::default(),
            home: Mutex::default(),
        })
    }

    #[inline]
    pub(crate) fn link(&self) -> &Bridge {
        &self.link
    }

    /// The host that hears of this client when nobody else asked.
    pub(crate) fn home(&self) -> Option<Arc<Host>> {
        self.home.lock().upgrade().filter(|host| host.alive())
    }

    pub(crate) fn set_home(&self, host: &Arc<Host>) {
        *self.home.lock() = Arc::downgrade(host);
    }

    /// Where the events of something asked for here should go: the running loop's host, else the
    /// client's home.
    pub(crate) fn host(&self, py: Python<'_>) -> PyResult<Arc<Host>> {
        match Host::current(py) {
            Ok(host) => Ok(host),
            Err(error) => self.home().ok_or(error),
        }
    }

    /// Sends something; what it leaves waiting is flushed at the end of the loop's tick, if this is
    /// a loop's thread.
    #[inline]
    pub(crate) fn send<T>(
        self: &Arc<Self>,
        py: Python<'_>,
        send: impl FnOnce(&Bridge, FlushHint) -> T,
    ) -> T {
        match Host::here() {
            Some(host) => {
                let sent = send(&self.link, FlushHint::Later);
                host.flush_later(py, self);
                sent
            }
            None => send(&self.link, FlushHint::Now),
        }
    }

    /// Calls `handler` on `event` from now on, on `host`'s loop. Returns its number.
    pub(crate) fn listen(&self, event: &str, handler: Py<PyAny>, host: &Arc<Host>) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (event, host) = (event.to_owned(), Arc::downgrade(host));
        self.listeners.lock().push(Listener { number, event, handler, host });
        self.tell_what_is_heard();
        number
    }

    /// The server whose own client this is.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.server.get()
    }

    pub(crate) fn set_server(&self, server: Server) {
        // It is set once, when the server starts.
        let _ = self.server.set(server);
    }

    /// What costs something per message is told only while somebody listens.
    fn tell_what_is_heard(&self) {
        let (received, published) = {
            let listeners = self.listeners.lock();
            let hears = |event: &str| listeners.iter().any(|listener| listener.event == event);
            (hears("message_received"), hears("message_published"))
        };
        self.hears_messages.store(received, Ordering::Relaxed);
        if self.tells_published.swap(published, Ordering::Relaxed) != published {
            match self.server() {
                Some(server) => server.tell_messages(published),
                None => self.link.tell_published(published),
            }
        }
    }

    pub(crate) fn forget(&self, number: u64) {
        let mut listeners = self.listeners.lock();
        let at = listeners.iter().position(|listener| listener.number == number);
        let removed = at.map(|at| listeners.remove(at));
        drop(listeners);
        drop(removed);
        self.tell_what_is_heard();
    }

    /// Drops the handlers of `here` and of loops that have ended: they may hold this client.
    pub(crate) fn forget_at(&self, here: &Host) {
        let over = |listener: &mut Listener| {
            let host = listener.host.upgrade();
            !host.is_some_and(|host| host.alive() && !std::ptr::eq(&raw const *host, here))
        };
        let forgotten: Vec<_> = self.listeners.lock().extract_if(.., over).collect();
        drop(forgotten);
    }

    #[inline]
    pub(crate) fn hears_messages(&self) -> bool {
        self.hears_messages.load(Ordering::Relaxed)
    }

    /// The handlers of `event`, oldest first.
    pub(crate) fn handlers(&self, py: Python<'_>, event: &str) -> Vec<Py<PyAny>> {
        let listeners = self.listeners.lock();
        let of_event = listeners.iter().filter(|listener| listener.event == event);
        of_event.map(|listener| listener.handler.clone_ref(py)).collect()
    }

    pub(crate) fn add_sub(&self, sub: &Arc<Sub>) {
        let mut subs = self.subs.lock();
        subs.retain(|sub| sub.upgrade().is_some_and(|sub| sub.is_open()));
        subs.push(Arc::downgrade(sub));
    }

    /// The open subscriptions to `topic`.
    pub(crate) fn subs_of(&self, topic: &str) -> Vec<Arc<Sub>> {
        let subs = self.subs.lock();
        let open = subs.iter().filter_map(Weak::upgrade);
        open.filter(|sub| sub.topic == topic && sub.is_open()).collect()
    }

    /// Tells core what every subscription handed over.
    pub(crate) fn report(&self, py: Python<'_>) {
        let subs: Vec<_> = self.subs.lock().iter().filter_map(Weak::upgrade).collect();
        subs.iter().for_each(|sub| sub.report(py));
    }

    pub(crate) fn message_id(&self, number: u64) -> String {
        self.link().message_id(number)
    }

    /// Calls the handlers of `event`. `here_only`: those of other loops hear it from their own.
    pub(crate) fn emit<'py>(
        &self,
        py: Python<'py>,
        here: &Arc<Host>,
        here_only: bool,
        event: &str,
        arguments: impl FnOnce() -> PyResult<Bound<'py, PyTuple>>,
    ) -> bool {
        let handlers: Vec<_> = self
            .listeners
            .lock()
            .iter()
            .filter(|listener| listener.event == event)
            .filter_map(|listener| Some((listener.handler.clone_ref(py), listener.host.upgrade()?)))
            .filter(|(_, host)| !here_only || Arc::ptr_eq(host, here))
            .collect();
        if handlers.is_empty() {
            return false;
        }
        match arguments() {
            Ok(arguments) => {
                for (handler, host) in handlers {
                    if Arc::ptr_eq(&host, here) {
                        call(handler.bind(py), &arguments, here);
                    } else if let Some(event_loop) = host.event_loop(py) {
                        let call = Call { handler, arguments: arguments.clone().unbind(), host };
                        let arguments = (call,);
                        // A closed loop has nobody to tell.
                        let _ =
                            event_loop.call_method1(intern!(py, "call_soon_threadsafe"), arguments);
                    }
                }
            }
            Err(error) => error.write_unraisable(py, None),
        }
        true
    }

    /// The event `error`; at a server with nothing for the client and the address that it tells as well.
    pub(crate) fn emit_error(
        &self,
        py: Python<'_>,
        here: &Arc<Host>,
        here_only: bool,
        error: &Bound<'_, PyAny>,
    ) -> bool {
        self.emit(py, here, here_only, "error", || match self.server() {
            Some(_) => (error, py.None(), py.None()).into_pyobject(py),
            None => (error,).into_pyobject(py),
        })
    }

    /// A handler raised. `told`: a publisher hears of it in its ack.
    pub(crate) fn handler_failed(
        &self,
        py: Python<'_>,
        here: &Arc<Host>,
        error: &PyErr,
        message: &Py<Message>,
        told: bool,
    ) {
        let heard = self.emit(py, here, false, "handler_error", || {
            (error.value(py), message.clone_ref(py)).into_pyobject(py)
        });
        let heard = heard || self.emit_error(py, here, false, error.value(py).as_any());
        if !heard && !told {
            report(py, here, "a kps message handler raised", error);
        }
    }
}

/// Calls one event handler; one that is async goes on in a task of its own.
pub(crate) fn call(handler: &Bound<'_, PyAny>, arguments: &Bound<'_, PyTuple>, host: &Arc<Host>) {
    let py = handler.py();
    let called = handler.call1(arguments).and_then(|result| {
        if !result.is_none() && result.hasattr(intern!(py, "__await__"))? {
            spawn(&result)?;
        }
        Ok(())
    });
    if let Err(error) = called {
        report(py, host, "a kps event handler raised", &error);
    }
}

/// Runs an awaitable in a task that the loop keeps.
pub(crate) fn spawn(awaitable: &Bound<'_, PyAny>) -> PyResult<()> {
    awaitable.py().import("kps._tasks")?.call_method1("keep", (awaitable,)).map(drop)
}

/// Tells the loop's exception handler.
pub(crate) fn report(py: Python<'_>, host: &Host, what: &str, error: &PyErr) {
    let told = host.event_loop(py).ok_or_else(wait::no_loop).and_then(|event_loop| {
        let context = pyo3::types::PyDict::new(py);
        context.set_item("message", what)?;
        context.set_item("exception", error.value(py))?;
        event_loop.call_method1(intern!(py, "call_exception_handler"), (context,))
    });
    if told.is_err() {
        error.clone_ref(py).write_unraisable(py, None);
    }
}

/// A call on its way to another loop.
#[pyclass(frozen, module = "kps._kps")]
struct Call {
    handler: Py<PyAny>,
    arguments: Py<PyTuple>,
    host: Arc<Host>,
}

#[pymethods]
impl Call {
    fn __call__(&self, py: Python<'_>) {
        call(self.handler.bind(py), self.arguments.bind(py), &self.host);
    }
}
