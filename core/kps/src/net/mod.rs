//! How a client reaches a bus: one [`Transport`] per URL scheme, one [`Connection`] per link.

mod address;
pub mod identity;
pub(crate) mod listener;
pub mod mem;
mod tls;
pub(crate) mod upgrade;
pub mod websocket;
mod ws;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use kps_proto::Result;

pub use address::{Address, DEFAULT_PATH, DEFAULT_PORT};
pub use kps_proto::wire::v1::SUBPROTOCOL;
#[cfg(feature = "cli")]
pub(crate) use tls::handshake_error;
pub use tls::{Ca, TlsOptions};

/// A boxed future, so that transports are objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes connections. Chosen by the URL's scheme, or injected by the user.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Connects to `url` (as the user wrote it). Dropping the future gives up.
    fn connect<'a>(
        &'a self,
        url: &'a str,
        tls: &'a TlsOptions,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>>>;
}

/// One link that carries batches of kps.v1 frames, whole and in order.
///
/// `send` may come from any thread but never from two at once; the `poll_` methods come from one
/// task, and may run beside `send`.
pub trait Connection: fmt::Debug + Send + Sync + 'static {
    /// Takes a whole batch, without waiting. What the other side cannot take yet stays inside,
    /// and the caller sends no more until [`poll_ready`](Self::poll_ready) says so.
    fn send(&self, batch: &[u8]) -> Result<Sent>;

    /// Ready when everything sent so far was handed on and `send` may be called again.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Hands received batches to `sink`, as many as one read yields; ready after some progress.
    /// An error (`closed` for an orderly end) ends the link.
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Poll<Result<()>>;

    /// Hands on what waits, says goodbye and ends the link. The caller drops it if it takes too long.
    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Whether the link lives.
    fn state(&self) -> LinkState;

    /// What it carried.
    fn health(&self) -> Health;
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Handed on completely.
    All,
    /// Partly kept inside.
    Blocked,
}

/// Whether a link lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Carries batches.
    Open,
    /// Closed or lost.
    Closed,
}

/// What a link carried since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Bytes written, with the transport's own framing.
    pub sent_bytes: u64,
    /// Bytes read, with the transport's own framing.
    pub received_bytes: u64,
    /// Bytes that wait for the other side.
    pub waiting_bytes: usize,
}

/// The transport for `url`'s scheme; what an injected one may wrap. Fails with `invalid_argument`
/// for an unknown scheme.
pub fn transport(url: &str) -> Result<Arc<dyn Transport>> {
    match url.split_once("://") {
        Some(("mem", _)) => Ok(Arc::new(mem::NamedTransport)),
        // Takes the address apart so that a wrong one is an error at once, not at every attempt.
        _ => Address::parse(url).map(|_| Arc::new(ws::WebSocketTransport) as _),
    }
}
