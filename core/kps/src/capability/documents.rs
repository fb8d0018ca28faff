//! `document`: live documents. The manual's chapter [`document`](crate::manual::document) says what it does.
//! A client's calls go to its server, so that all see one document; the server's own client is there already.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use kps_proto::{ErrorKind, message::Payload, topic::DOCUMENTS};
use parking_lot::Mutex;

use super::{
    Call, CallTarget, Caller, Capability, DispatchOptions, Failure, Operation, Outcome, remote,
    router::{Core, Route},
    unknown_operation,
};
use crate::{
    client::{Client, WeakBridge},
    document::{Applied, Change, DocumentEvent, Documents, Teller},
    net::BoxFuture,
    runtime,
};

/// A call without a deadline waits so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a process keeps for `document`.
#[derive(Default)]
pub(super) struct Kept {
    /// Set in a server's process.
    server: OnceLock<Arc<Watch>>,
    documents: OnceLock<Documents>,
    /// Held while they are opened: there is one.
    opening: Mutex<()>,
    tellers: Arc<Tellers>,
}

/// Whether a namespace's client has a connection.
type IsConnected = dyn Fn(&str, &str) -> bool + Send + Sync;

/// What the server knows of its clients.
struct Watch {
    is_connected: Box<IsConnected>,
    grace: Duration,
}

/// How a client left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// It said goodbye, or was missed for long enough.
    pub(crate) at_once: bool,
    /// Its session is over: a successor of its id has to tell again who is there.
    pub(crate) is_over: bool,
}

/// The server's own client of each namespace, through which is told what happens.
#[derive(Default)]
struct Tellers(Mutex<HashMap<Arc<str>, WeakBridge>>);

impl Kept {
    pub(super) fn capability(
        self: &Arc<Self>,
        core: &Arc<Core>,
        open: impl FnOnce() -> Result<Documents, Failure>,
    ) -> Result<Arc<dyn Capability>, Failure> {
        let documents = match self.server.get() {
            None => None,
            Some(_) => Some(self.of(core, open)?),
        };
        Ok(Arc::new(Document { core: Arc::downgrade(core), documents }))
    }

    /// Makes it a server's.
    pub(super) fn serve(&self, grace: Duration, is_connected: Box<IsConnected>) {
        self.server.get_or_init(|| Arc::new(Watch { is_connected, grace }));
    }

    /// The documents; what happens in the namespace of `core` is told through its client.
    pub(super) fn of(
        &self,
        core: &Core,
        open: impl FnOnce() -> Result<Documents, Failure>,
    ) -> Result<Documents, Failure> {
        let documents = self.documents(open)?;
        let mut tellers = self.tellers.0.lock();
        tellers.entry(core.namespace()).or_insert_with(|| core.weak_client());
        Ok(documents)
    }

    pub(super) fn client_left(&self, namespace: &str, client_id: &str, left: Left) {
        let (Some(server), Some(documents)) = (self.server.get(), self.documents.get()) else {
            return;
        };
        let Some(absence) = documents.absence(namespace, client_id) else { return };
        if left.at_once {
            return absence.ended();
        }
        let server = server.clone();
        runtime::spawn(async move {
            tokio::time::sleep(server.grace).await;
            let is_back = || (server.is_connected)(absence.namespace(), absence.client_id());
            if left.is_over || !is_back() {
                absence.ended();
            }
        });
    }

    fn documents(
        &self,
        open: impl FnOnce() -> Result<Documents, Failure>,
    ) -> Result<Documents, Failure> {
        if let Some(documents) = self.documents.get() {
            return Ok(documents.clone());
        }
        let _opening = self.opening.lock();
        if let Some(documents) = self.documents.get() {
            return Ok(documents.clone());
        }
        // What keeps it from being opened may pass: the next call tries again.
        let documents = open()?;
        documents.tell_by(self.tellers.clone().teller());
        Ok(self.documents.get_or_init(|| documents).clone())
    }

    pub(super) async fn close(&self) {
        if let Some(documents) = self.documents.get() {
            documents.close().await;
        }
    }
}

impl Tellers {
    fn teller(self: Arc<Self>) -> Teller {
        Arc::new(move |(namespace, id), event| {
            let client = self.0.lock().get(namespace).and_then(WeakBridge::upgrade);
            // A server that closes has closed its own client first.
            let Some(client) = client.map(Client::from) else { return };
            let topic = format!("{DOCUMENTS}{id}");
            if let Err(error) = client.publish(&topic, Payload::json(event.to_json()))
                && error.kind() != ErrorKind::Closed
            {
                tracing::warn!(%error, %namespace, topic, "{} was not told", event.name());
                shorten(event, |event| {
                    // What it says can be asked for.
                    let _ = client.publish(&topic, Payload::json(event.to_json()));
                });
            }
        })
    }
}

/// A conflict that is too large for one message is told without what is missing; a change of a Yjs document
/// without its update, which is empty then.
fn shorten(event: &DocumentEvent, tell: impl FnOnce(&DocumentEvent)) {
    let mut event = event.clone();
    match &mut event {
        DocumentEvent::Conflict { missing_ops, snapshot, .. } => {
            (*missing_ops, *snapshot) = (None, None);
        }
        DocumentEvent::Change {
            applied: Applied { change: Change::Update(update), .. }, ..
        } => {
            update.clear();
        }
        _ => return,
    }
    tell(&event);
}

struct Document {
    core: Weak<Core>,
    /// `None`: they are at the server.
    documents: Option<Documents>,
}

impl Capability for Document {
    fn operations(&self) -> Vec<Operation> {
        Documents::describe()
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Outcome> {
        let Some(core) = self.core.upgrade() else {
            let failure = Failure::new(ErrorKind::Closed, "the client is closed");
            return Box::pin(std::future::ready(Err(failure)));
        };
        let Caller { client_id, grants, .. } = call.caller.clone();
        match (&self.documents, client_id) {
            (Some(documents), caller) => {
                let namespace = core.namespace();
                let own = || core.client().ok().and_then(|client| client.id()).unwrap_or_default();
                let caller = caller.map_or_else(own, |caller| caller.to_string());
                documents.call(namespace, &caller, grants, &call.operation, call.payload)
            }
            // Others ask the server.
            (None, Some(_)) => {
                Box::pin(std::future::ready(Err(unknown_operation(&call.operation, &[]))))
            }
            (None, None) => Box::pin(forward(core, call)),
        }
    }
}

async fn forward(core: Arc<Core>, call: Call) -> Outcome {
    let deadline = call.deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
    let timeout = deadline.saturating_duration_since(Instant::now());
    let options =
        DispatchOptions { timeout, target: CallTarget::Server, ..DispatchOptions::default() };
    let action = format!("document.{}", call.operation);
    let route = Route {
        id: &call.id,
        action: &action,
        capability: "document",
        operation: &call.operation,
        options: &options,
    };
    remote::call(&core, route, call.payload, call.attempt, deadline).await.0
}
