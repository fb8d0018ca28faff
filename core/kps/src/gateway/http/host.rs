//! What the gateway needs of the server that it belongs to.

use std::time::Duration;

use kps_proto::{Result, bus::Principal, options::Cursor};

use super::Visitor;
use crate::{capability::Failure, client::Client, document::Documents, net::BoxFuture};

/// A server, as its gateway sees it.
pub(crate) trait Host: Send + Sync + 'static {
    /// Who this is, by its token and the server's hook.
    fn admit(&self, visitor: Visitor) -> BoxFuture<'_, Result<Principal>>;

    /// A new client in this process that acts for `principal`. It ends with its connection.
    fn connect(&self, principal: Principal, id: String) -> BoxFuture<'_, Result<Client>>;

    /// The documents of this namespace.
    fn documents<'a>(&'a self, namespace: &'a str) -> BoxFuture<'a, Result<Documents, Failure>>;

    /// Why requests are not answered at the moment.
    fn readiness(&self) -> Result<()>;

    /// The place behind everything accepted so far; `None` without history.
    fn place(&self) -> Option<Cursor>;

    /// Bounds and times.
    fn settings(&self) -> &Settings;
}

/// Bounds and times of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Bytes of a payload.
    pub(crate) payload: usize,
    /// How long a lost stream of events is kept for its reader.
    pub(crate) resume_window: Duration,
    /// Between signs of life on a quiet stream.
    pub(crate) heartbeat: Duration,
    /// How long a part of a request's body may take.
    pub(crate) patience: Duration,
}
