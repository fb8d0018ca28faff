//! Who hears of what happens to a document, on the loop that opened it.

use std::sync::{Arc, Weak};

use kps::document::{Listening, Told};
use parking_lot::Mutex;
use pyo3::{prelude::*, types::PyTuple};

use crate::{arguments::invalid, host::Host, json, shared};

/// Every event that is told.
const EVENTS: [&str; 12] = [
    "change",
    "ack",
    "conflict",
    "rejected",
    "checkpoint",
    "store_failed",
    "presence",
    "failed",
    "gap",
    "resumed",
    "closed",
    "update",
];
/// All of them.
const ALL: &str = "*";

/// The handlers of a document.
pub(super) struct Ears {
    host: Weak<Host>,
    handlers: Mutex<Vec<Handler>>,
    /// Once somebody listens.
    listening: Mutex<Option<Listening>>,
}

struct Handler {
    number: u64,
    event: String,
    function: Py<PyAny>,
}

impl Ears {
    pub(super) fn new(host: &Arc<Host>) -> Ears {
        let (handlers, listening) = (Mutex::default(), Mutex::default());
        Ears { host: Arc::downgrade(host), handlers, listening }
    }

    pub(super) fn on(
        self: &Arc<Self>,
        py: Python<'_>,
        listen: impl FnOnce(Box<dyn Fn(Told) + Send + Sync>) -> Listening,
        event: &str,
        function: Py<PyAny>,
    ) -> PyResult<u64> {
        if event != ALL && !EVENTS.contains(&event) {
            let known = EVENTS.join(", ");
            return Err(invalid(py, format!("a document has no event {event:?}; it has {known}")));
        }
        let number = {
            let mut handlers = self.handlers.lock();
            let number = handlers.last().map_or(1, |last| last.number + 1);
            handlers.push(Handler { number, event: event.to_owned(), function });
            number
        };
        self.listening.lock().get_or_insert_with(|| {
            let ears = Arc::downgrade(self);
            listen(Box::new(move |told| {
                let Some(host) = ears.upgrade().and_then(|ears| ears.host.upgrade()) else {
                    return;
                };
                let ears = ears.clone();
                host.complete(move |py| {
                    if let Some(ears) = ears.upgrade() {
                        ears.hear(py, &told);
                    }
                });
            }))
        });
        Ok(number)
    }

    pub(super) fn off(&self, number: u64) {
        let mut handlers = self.handlers.lock();
        let at = handlers.iter().position(|handler| handler.number == number);
        let gone = at.map(|at| handlers.remove(at));
        drop(handlers);
        // Dropping it may run Python code.
        drop(gone);
    }

    fn hear(&self, py: Python<'_>, told: &Told) {
        let Some(host) = self.host.upgrade() else { return };
        let hears = |handler: &&Handler| handler.event == *told.event || handler.event == ALL;
        let functions: Vec<Py<PyAny>> = {
            let handlers = self.handlers.lock();
            handlers.iter().filter(hears).map(|handler| handler.function.clone_ref(py)).collect()
        };
        for function in functions {
            let arguments = json::loads(py, &told.json).and_then(|it| PyTuple::new(py, [it]));
            match arguments {
                Ok(arguments) => shared::call(function.bind(py), &arguments, &host),
                Err(error) => error.write_unraisable(py, None),
            }
        }
        if &*told.event == "closed" {
            // Nothing more comes; what handlers hold is free.
            let gone = std::mem::take(&mut *self.handlers.lock());
            drop(gone);
        }
    }
}
