//! How to start a server.

use std::{fmt, path::PathBuf, time::Duration};

use kps_proto::{
    Error, ErrorKind, Result,
    history::HistoryRule,
    options::{Limits, Timings},
};

use crate::{
    auth::{OnConnect, Token},
    net::identity::TlsIdentity,
};

/// The port of kps and of KPS before it.
pub const DEFAULT_PORT: u16 = 9313;

/// How to start a server, with the defaults of every language.
#[derive(Clone)]
pub struct ServerOptions {
    /// `host:port` to listen on; port 0: any free one. `127.0.0.1:9313`.
    pub listen: String,
    /// The id of the server's own client: direct messages to it reach the host. `None`: made.
    pub id: Option<String>,
    /// Serve TLS (`wss://`) with this certificate.
    pub tls: Option<TlsIdentity>,
    /// Who may connect; empty: everybody, which needs a loopback address or `insecure`.
    pub tokens: Vec<Token>,
    /// Allow to listen on other addresses than loopback without tokens.
    pub insecure: bool,
    /// Web origins (`https://app.example.org`) whose pages may connect, beside those of the same
    /// host. `*`: all.
    pub allowed_origins: Vec<String>,
    /// Names under which the server is reached, beside the listening address and `localhost`.
    /// `*`: all.
    pub allowed_hosts: Vec<String>,
    /// Addresses (`host` or `host:port`) that `publish_to_server` may reach, beside loopback.
    pub server_addresses: Vec<String>,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timings: Timings,
    /// Refuse subscriptions with overflow `block`.
    pub forbid_block: bool,
    /// Topics whose messages are kept; empty: none. Without `data` they are kept in memory, 256 MiB and
    /// 1,048,576 messages per rule unless it says less.
    pub history: Vec<HistoryRule>,
    /// The folder for what is kept. With it publishes to topics with history reach the receipt
    /// `stored`, and all of it outlives the server.
    pub data: Option<PathBuf>,
    /// A message with the id of another one inside this window is not kept again. 2 min.
    pub duplicate_window: Duration,
    /// Connections at the same time; one more is told so and closed. 100,000.
    pub max_connections: usize,
    /// How long a connection may take from its first byte to its handshake. 10 s.
    pub handshake_timeout: Duration,
    /// Sees every connection before it may do anything, and may refuse it.
    pub on_connect: Option<OnConnect>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            listen: format!("127.0.0.1:{DEFAULT_PORT}"),
            id: None,
            tls: None,
            tokens: Vec::new(),
            insecure: false,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            server_addresses: Vec::new(),
            limits: Limits::default(),
            timings: Timings::default(),
            forbid_block: false,
            history: Vec::new(),
            data: None,
            duplicate_window: Duration::from_secs(120),
            max_connections: 100_000,
            handshake_timeout: Duration::from_secs(10),
            on_connect: None,
        }
    }
}

impl ServerOptions {
    /// The defaults, listening on `listen`.
    pub fn listen(listen: impl Into<String>) -> Self {
        ServerOptions { listen: listen.into(), ..Self::default() }
    }

    /// Refuses to be reachable from other machines by anybody.
    pub(super) fn check_exposure(&self, address: std::net::SocketAddr) -> Result<()> {
        let closed = address.ip().to_canonical().is_loopback() || !self.tokens.is_empty();
        if closed || self.insecure || self.on_connect.is_some() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{address} is reachable from other machines and the server has no token: \
                 give it one (--token), listen on 127.0.0.1, or say insecure (--insecure)"
            ),
        ))
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("listen", &self.listen)
            .field("id", &self.id)
            .field("tls", &self.tls.is_some())
            .field("tokens", &self.tokens.len())
            .field("insecure", &self.insecure)
            .field("allowed_origins", &self.allowed_origins)
            .field("allowed_hosts", &self.allowed_hosts)
            .field("server_addresses", &self.server_addresses)
            .field("forbid_block", &self.forbid_block)
            .field("history", &self.history)
            .field("data", &self.data)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}
