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
    Call, CallTarget, Capability, DispatchOptions, Failure, Operation, Outcome, remote,
    router::{Core, Route},
    unknown_operation,
};
use crate::{
    client::{Client, WeakBridge},
    document::{DocumentEvent, Documents, Teller},
    net::BoxFuture,
};

/// A call without a deadline waits so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a process keeps for `document`.
#[derive(Default)]
pub(super) struct Kept {
    /// Set in a server's process.
    is_server: OnceLock<()>,
    documents: OnceLock<Documents>,
    /// Held while they are opened: there is one.
    opening: Mutex<()>,
    tellers: Arc<Tellers>,
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
        let documents = match self.is_server.get() {
            None => None,
            Some(()) => Some(self.documents(open)?),
        };
        Ok(Arc::new(Document { core: Arc::downgrade(core), kept: self.clone(), documents }))
    }

    /// Makes it a server's.
    pub(super) fn serve(&self) {
        self.is_server.get_or_init(|| ());
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

/// A conflict that is too large for one message is told without what is missing.
fn shorten(event: &DocumentEvent, tell: impl FnOnce(&DocumentEvent)) {
    let mut event = event.clone();
    if let DocumentEvent::Conflict { missing_ops, snapshot, .. } = &mut event {
        (*missing_ops, *snapshot) = (None, None);
        tell(&event);
    }
}

struct Document {
    core: Weak<Core>,
    kept: Arc<Kept>,
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
        let caller = call.caller.client_id.clone();
        match (&self.documents, caller) {
            (Some(documents), caller) => {
                let namespace = core.namespace();
                let tellers = &self.kept.tellers;
                tellers.0.lock().entry(namespace.clone()).or_insert_with(|| core.weak_client());
                let own = || core.client().ok().and_then(|client| client.id()).unwrap_or_default();
                let caller = caller.map_or_else(own, |caller| caller.to_string());
                documents.call(namespace, &caller, &call.operation, call.payload)
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
