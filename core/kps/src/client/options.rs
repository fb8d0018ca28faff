//! How to connect.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kps_proto::options::OutboxOverflow;

use crate::net::{TlsOptions, Transport};
#[cfg(feature = "store")]
use crate::store::values::StorageOptions;

/// How to connect, with the defaults of every language.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// `ws://`, `wss://` or `mem://`; without port 9313, without path `/ws/bus`.
    pub url: String,
    /// The client id wanted; `None`: the server makes one.
    pub id: Option<String>,
    /// Shown to the server in the handshake, never logged.
    pub token: Option<String>,
    /// The namespace wanted; `None`: the principal's own.
    pub namespace: Option<String>,
    /// Name and version of the program, for people.
    pub agent: String,
    /// How long [`ready`](crate::Bridge::ready) waits for the first handshake. 5 s.
    pub timeout: Duration,
    /// Whether connecting waits for the handshake. If not, the client starts offline.
    pub wait: bool,
    /// Whether a lost connection is made again.
    pub reconnect: bool,
    /// The first pause between attempts. 100 ms.
    pub reconnect_min: Duration,
    /// The longest pause between attempts. 5 s.
    pub reconnect_max: Duration,
    /// A file that keeps what is published until the server has it for good: it outlives the process,
    /// which sends it again when it is back. One process has it at a time; a forked child's outbox is
    /// in memory. Publishes that wait for answers are not kept. `None`: in memory.
    pub outbox: Option<PathBuf>,
    /// Bytes in the outbox above which receipts wait. 8 MiB.
    pub outbox_soft: usize,
    /// Bytes in the outbox above which it is full. 64 MiB.
    pub outbox_hard: usize,
    /// What `publish` does when the outbox is full: it fails with `outbox_full`, or the oldest messages
    /// that are not on their way make room, each named by `publish_failed`.
    pub outbox_overflow: OutboxOverflow,
    /// The client's own storage: what `storage.save` and its like keep things in when they are called
    /// without a target. Opened by the first of them, or by
    /// [`Router::open`](crate::capability::Router::open). `None`: in memory.
    #[cfg(feature = "store")]
    pub storage: Option<StorageOptions>,
    /// TLS for `wss://`.
    pub tls: TlsOptions,
    /// Used instead of the one that the URL's scheme names.
    pub transport: Option<Arc<dyn Transport>>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            url: "ws://127.0.0.1:9313".into(),
            id: None,
            token: None,
            namespace: None,
            agent: concat!("kps-rust/", env!("CARGO_PKG_VERSION")).into(),
            timeout: Duration::from_secs(5),
            wait: true,
            reconnect: true,
            reconnect_min: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(5),
            outbox: None,
            outbox_soft: 8 << 20,
            outbox_hard: 64 << 20,
            outbox_overflow: OutboxOverflow::default(),
            #[cfg(feature = "store")]
            storage: None,
            tls: TlsOptions::default(),
            transport: None,
        }
    }
}

/// One attempt to connect takes no longer, so that one that stalls is followed by another.
const ATTEMPT: Duration = Duration::from_secs(10);

impl ConnectOptions {
    /// How long one attempt may take, and its handshake.
    pub(super) fn attempt(&self) -> Duration {
        self.timeout.min(ATTEMPT)
    }

    /// The defaults with this URL.
    pub fn new(url: impl Into<String>) -> Self {
        ConnectOptions { url: url.into(), ..Self::default() }
    }
}
