//! Calls: `dispatch("capability.operation", payload)` reaches a capability in this process, on the
//! server, or on whichever client offers it.

mod backoff;
mod builtin;
mod deadline;
mod documents;
mod envelope;
mod failure;
mod fields;
mod json;
mod listing;
mod offer;
mod progress;
#[cfg(feature = "store")]
mod relay;
mod remote;
mod repeats;
mod router;
mod spread;
#[cfg(feature = "store")]
pub mod storage;
mod sync;
mod task;
mod value;
mod watches;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use kps_proto::bus::Grants;

pub(crate) use self::{builtin::Builtins, documents::Left, offer::Offer, router::Unsent};
pub use self::{
    envelope::{CallTarget, DispatchOptions, Request, Response},
    failure::{Failure, Outcome, Raised},
    fields::{Fields, missing, wrong},
    router::{RegisterOptions, Router},
    task::{Task, promptly},
    value::{Array, Callback, Map, NumberKind, Value},
};
use crate::net::BoxFuture;

/// A named set of operations.
pub trait Capability: Send + Sync + 'static {
    /// Its operations, for `kps.capabilities`.
    fn operations(&self) -> Vec<Operation>;

    /// Runs an operation. Dropping the future ends the wait; [`Cancel`] tells work that goes on
    /// elsewhere to stop. What is there at once is best returned as a ready future: it costs no hop.
    ///
    /// An operation it does not have is [`unknown_operation`].
    fn call(&self, call: Call) -> BoxFuture<'static, Outcome>;

    /// Called once, before the first call.
    fn init(&self) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Called once, when it is taken away or its client closes.
    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// One call of an operation.
#[derive(Debug)]
pub struct Call {
    /// The call's id, the same over all its attempts.
    pub id: Arc<str>,
    /// `save` of `storage.save`.
    pub operation: Arc<str>,
    /// What it was given.
    pub payload: Value,
    /// Who calls.
    pub caller: Caller,
    /// Set when nobody waits for the answer any more: at the deadline, at a cancellation.
    pub cancel: Cancel,
    /// Until when an answer is awaited.
    pub deadline: Option<Instant>,
    /// 1, 2, 3, …
    pub attempt: u32,
    /// Who wants to hear how far it is.
    pub progress: Option<Callback>,
}

/// Who calls an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The client's id; `None`: this process itself.
    pub client_id: Option<Arc<str>>,
    /// The namespace it belongs to.
    pub namespace: Arc<str>,
    /// Which documents it may read and change. Calls of `document` alone say it.
    pub grants: Grants,
}

/// Whether work should stop. Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the work to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it should stop.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// An operation, described for people and programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Its name within the capability.
    pub name: String,
    /// What it does, in a sentence.
    pub summary: String,
    /// A JSON Schema of its payload; `null`: not told.
    pub schema: Value,
}

impl Operation {
    /// An operation whose payload is not described.
    pub fn new(name: impl Into<String>, summary: impl Into<String>) -> Self {
        Operation { name: name.into(), summary: summary.into(), schema: Value::Null }
    }

    /// Describes its payload: per field the name, the JSON type, and what it means; a name that ends
    /// in `?` may be missing.
    pub fn fields(mut self, fields: &[(&str, &str, &str)]) -> Self {
        let mut properties = Map::default();
        let mut required = Vec::new();
        for (name, kind, description) in fields {
            let plain = name.trim_end_matches('?');
            if plain == *name {
                required.push(Value::from(plain));
            }
            let mut about = Map::default();
            if !kind.is_empty() {
                about.push("type", *kind);
            }
            about.push("description", *description);
            properties.push(plain, about);
        }
        self.schema = Value::map([
            ("type", "object".into()),
            ("properties", properties.into()),
            ("required", required.into()),
            ("additionalProperties", false.into()),
        ]);
        self
    }
}

/// `unknown_operation`, with the names there are.
pub fn unknown_operation(name: &str, known: &[&str]) -> Failure {
    let known = known.join(", ");
    let sentence = format!("there is no operation {name:?}; there are {known}");
    Failure::new(kps_proto::ErrorKind::UnknownOperation, sentence)
}

impl fmt::Debug for dyn Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capability").field("operations", &self.operations()).finish()
    }
}
