//! How to start a server.

use std::{fmt, path::PathBuf, time::Duration};

use kps_proto::{
    Error, ErrorKind, Result,
    history::HistoryRule,
    options::{Limits, Timings},
};

#[cfg(feature = "store")]
use crate::store::values::StorageOptions;
use crate::{
    auth::{OnConnect, Token},
    document::DocumentOptions,
    events::ServerEvent,
    net::identity::TlsIdentity,
};

/// The port of kps and of KPS before it.
pub const DEFAULT_PORT: u16 = 9313;

/// What of a server's events is kept, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// Also every message: its id, topic, sender and size, never its payload or headers.
    pub messages: bool,
    /// Rows; the oldest are removed. 1,000,000.
    pub max_count: u64,
    /// Older rows are removed. 30 days.
    pub max_age: Duration,
}

impl Default for AuditOptions {
    fn default() -> Self {
        let max_age = Duration::from_secs(30 * 86_400);
        AuditOptions { messages: false, max_count: 1_000_000, max_age }
    }
}

impl AuditOptions {
    /// Words with blanks between: `changes` or `messages`, and limits like `age=30d` and
    /// `count=1000000`; an age ends in `s`, `m`, `h` or `d`. Nothing at all is the default.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub fn parse(text: &str) -> Result<AuditOptions> {
        let mut options = AuditOptions::default();
        for word in text.split_whitespace() {
            match (word, word.split_once('=')) {
                ("changes", _) => options.messages = false,
                ("messages", _) => options.messages = true,
                (_, Some(("count", value))) if value.parse::<u64>().is_ok_and(|n| n > 0) => {
                    options.max_count = value.parse().unwrap_or(u64::MAX);
                }
                (_, Some(("age", value))) if age(value).is_some() => {
                    options.max_age = age(value).unwrap_or_default();
                }
                _ => {
                    return Err(Error::new(
                        ErrorKind::InvalidArgument,
                        format!(
                            "audit: {word:?} is not understood; say changes or messages, and limits \
                             like age=30d or count=1000000"
                        ),
                    ));
                }
            }
        }
        Ok(options)
    }

    /// Whether the log keeps it.
    pub(super) fn keeps(&self, event: &ServerEvent) -> bool {
        self.messages || !event.is_message()
    }
}

fn age(text: &str) -> Option<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    units.into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs)
    })
}

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
    /// How the server's own storage is kept, which clients reach with the target `server`. Without a path it is in
    /// `data`, or in memory if there is none. `None`: as its defaults are.
    #[cfg(feature = "store")]
    pub storage: Option<StorageOptions>,
    /// Keep the server's events in `data`.
    pub audit: Option<AuditOptions>,
    /// A message with the id of another one inside this window is not kept again. 2 min.
    pub duplicate_window: Duration,
    /// Connections at the same time; one more is told so and closed. 100,000.
    pub max_connections: usize,
    /// How long a connection may take from its first byte to its handshake. 10 s.
    pub handshake_timeout: Duration,
    /// A client that loses its connection stays present in its channels for so long, in case it comes
    /// back. 5 s.
    pub presence_grace: Duration,
    /// How documents are kept: bounds, and when they are stored.
    pub documents: DocumentOptions,
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
            #[cfg(feature = "store")]
            storage: None,
            audit: None,
            duplicate_window: Duration::from_secs(120),
            max_connections: 100_000,
            handshake_timeout: Duration::from_secs(10),
            presence_grace: Duration::from_secs(5),
            documents: DocumentOptions::default(),
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
            .field("audit", &self.audit)
            .field("data", &self.data)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_audited_is_said_in_words() {
        let options = AuditOptions::parse("messages age=7d count=5").unwrap();
        assert!(options.messages && options.max_count == 5);
        assert_eq!(options.max_age, Duration::from_secs(7 * 86_400));
        assert_eq!(AuditOptions::parse("").unwrap(), AuditOptions::default());
        for wrong in ["age=7", "count=0", "size=3", "payloads"] {
            assert!(AuditOptions::parse(wrong).unwrap_err().message().contains(wrong));
        }
    }
}
