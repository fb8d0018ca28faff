//! The server's own clients: one per namespace, which answers calls of the server's capabilities.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use kps_proto::Result;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{attach_own, hub::Hub};
use crate::{
    capability::{Builtins, Failure, Left, Offer, Router},
    client::{Bridge, Client, ConnectOptions},
    document::Documents,
    net::mem::MemTransport,
};

/// Namespaces in which the server answers calls; beyond them it answers none.
const NAMESPACES: usize = 1024;
/// A client's handshake waits no longer for its server's capabilities.
const PATIENCE: Duration = Duration::from_secs(2);

/// The own clients, made when they are wanted.
#[derive(Default)]
pub(super) struct Calls {
    builtins: Arc<Builtins>,
    own: Mutex<HashMap<String, Own>>,
}

#[derive(Clone)]
struct Own {
    bridge: Bridge,
    offers: Arc<OnceCell<Vec<Offer>>>,
}

impl Calls {
    pub(super) fn new(builtins: Builtins) -> Self {
        Calls { builtins: Arc::new(builtins), own: Mutex::default() }
    }

    /// The client in this namespace.
    pub(super) fn client(&self, hub: &Arc<Hub>, namespace: &str) -> Result<Bridge> {
        self.own(hub, namespace).map(|own| own.bridge)
    }

    /// Waits until calls in this namespace are answered. Without that the client is served all the same.
    pub(super) async fn serve(&self, hub: &Arc<Hub>, namespace: &str) {
        let has_room =
            |own: &HashMap<String, Own>| own.len() < NAMESPACES || own.contains_key(namespace);
        if !has_room(&self.own.lock()) {
            return;
        }
        let Ok(Own { bridge, offers }) = self.own(hub, namespace) else { return };
        let client = Client::from(bridge);
        let router = Router::sharing(&client, || self.builtins.clone());
        let serving = offers.get_or_try_init(|| {
            let (hub, namespace) = (Arc::downgrade(hub), namespace.to_owned());
            let count = move |topic: &str| {
                let hub: Option<Arc<Hub>> = hub.upgrade();
                hub.map_or(0, |hub| hub.if_here(|bus| bus.count_subscribers(&namespace, topic)))
            };
            router.serve(&client, Box::new(count))
        });
        match tokio::time::timeout(PATIENCE, serving).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, namespace, "the server answers no calls"),
            Err(_) => tracing::warn!(namespace, "the server answers no calls yet"),
        }
    }

    /// A client's connection ended; `at_once`: it is not expected back.
    pub(super) fn connection_ended(&self, namespace: &str, client_id: &str, at_once: bool) {
        self.builtins.presence().connection_ended(namespace, client_id, at_once);
        self.builtins.client_left(namespace, client_id, Left { at_once, is_over: false });
    }

    /// A client's session ended.
    pub(super) fn session_ended(&self, namespace: &str, client_id: &str) {
        self.builtins.presence().session_ended(namespace, client_id);
        self.builtins.client_left(namespace, client_id, Left { at_once: false, is_over: true });
    }

    /// The documents of this namespace, for callers in this process.
    pub(super) async fn documents(
        &self,
        hub: &Arc<Hub>,
        namespace: &str,
    ) -> std::result::Result<Documents, Failure> {
        let own = self.own(hub, namespace).map_err(Failure::from)?;
        Router::sharing(&Client::from(own.bridge), || self.builtins.clone()).documents().await
    }

    /// Stores what is not stored of documents; their authors hear of it.
    pub(super) async fn close_documents(&self) {
        self.builtins.close_documents().await;
    }

    /// Closes them.
    pub(super) async fn close(&self, timeout: Duration) {
        let all: Vec<_> = self.own.lock().values().cloned().collect();
        for own in all {
            own.bridge.close(timeout).await;
        }
    }

    fn own(&self, hub: &Arc<Hub>, namespace: &str) -> Result<Own> {
        let mut all = self.own.lock();
        if let Some(own) = all.get(namespace) {
            return Ok(own.clone());
        }
        let id = hub.options.id.clone().filter(|_| namespace.is_empty());
        let (clients, grace) = (Arc::downgrade(hub), hub.options.presence_grace);
        let is_connected = move |namespace: &str, client_id: &str| {
            let hub: Option<Arc<Hub>> = clients.upgrade();
            hub.is_some_and(|hub| hub.with_bus(|bus, _| bus.is_connected(namespace, client_id)))
        };
        self.builtins.presence().attach(grace, is_connected.clone());
        self.builtins.serve_documents(grace, is_connected);
        let hub: Weak<Hub> = Arc::downgrade(hub);
        let bridge = Bridge::start(ConnectOptions {
            id,
            namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
            url: "mem://server".into(),
            transport: Some(Arc::new(MemTransport(move |end| attach_own(&hub, end)))),
            ..ConnectOptions::default()
        })?;
        // Whoever calls on the server itself has the server's own capabilities.
        Router::sharing(&Client::from(bridge.clone()), || self.builtins.clone());
        let own = Own { bridge, offers: Arc::default() };
        all.insert(namespace.to_owned(), own.clone());
        Ok(own)
    }
}
