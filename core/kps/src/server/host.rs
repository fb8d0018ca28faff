//! The server as its HTTP gateway sees it.

use std::sync::{Arc, Weak};

use kps_proto::{Error, ErrorKind, Result, bus::Principal, options::Cursor};

use super::{attach_as, handshake, hub::Hub};
use crate::{
    auth::ConnectRequest,
    capability::Failure,
    client::{Client, ConnectOptions},
    document::Documents,
    gateway::http::{Host, Settings, Visitor},
    net::{BoxFuture, mem::MemTransport},
};

/// A server that its gateway does not keep.
pub(super) struct Server {
    hub: Weak<Hub>,
    settings: Settings,
}

impl Server {
    pub(super) fn new(hub: &Arc<Hub>) -> Server {
        let options = &hub.options;
        let settings = Settings {
            payload: options.limits.payload,
            resume_window: options.timings.resume_window,
            heartbeat: options.timings.heartbeat,
            patience: options.handshake_timeout,
        };
        Server { hub: Arc::downgrade(hub), settings }
    }

    fn hub(&self) -> Result<Arc<Hub>> {
        let hub = self.hub.upgrade().filter(|hub| !hub.is_closing());
        hub.ok_or_else(|| Error::new(ErrorKind::Closed, "the server closes"))
    }
}

impl Host for Server {
    fn admit(&self, visitor: Visitor) -> BoxFuture<'_, Result<Principal>> {
        Box::pin(async move {
            let hub = self.hub()?;
            let Visitor { token, path, headers, remote } = visitor;
            let asked = ConnectRequest {
                client_id: String::new(),
                principal: Principal::default(),
                remote,
                headers,
                path,
            };
            let admitted = handshake::admit(&hub, &token, "", asked).await;
            admitted.inspect_err(|error| {
                tracing::info!(%error, "refused a request");
                hub.tell_error(error, None, remote);
            })
        })
    }

    fn connect(&self, principal: Principal, id: String) -> BoxFuture<'_, Result<Client>> {
        Box::pin(async move {
            self.hub()?;
            let (hub, namespace) = (self.hub.clone(), principal.namespace.clone());
            let attach = move |end| attach_as(&hub, end, principal.clone());
            Client::connect(ConnectOptions {
                id: Some(id),
                namespace: Some(namespace).filter(|namespace| !namespace.is_empty()),
                url: "mem://server".into(),
                agent: "kps-http".into(),
                // Only a server that closes ends it.
                reconnect: false,
                transport: Some(Arc::new(MemTransport(attach))),
                ..ConnectOptions::default()
            })
            .await
        })
    }

    fn documents<'a>(&'a self, namespace: &'a str) -> BoxFuture<'a, Result<Documents, Failure>> {
        Box::pin(async move {
            let hub = self.hub()?;
            hub.calls.documents(&hub, namespace).await
        })
    }

    fn readiness(&self) -> Result<()> {
        let hub = self.hub()?;
        if hub.is_stopping() {
            return Err(Error::new(ErrorKind::Closed, "the server is about to close"));
        }
        hub.with_bus(|bus, _| bus.store_error()).map_or(Ok(()), Err)
    }

    fn place(&self) -> Option<Cursor> {
        self.hub.upgrade()?.with_bus(|bus, _| bus.place())
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }
}
