//! What a session is made with.

use std::{fmt, time::Duration};

use super::event::Target;
use crate::options::OutboxOverflow;

/// What a session is made with.
#[derive(Clone)]
pub struct SessionConfig {
    /// The client id wanted; `None`: the server makes one.
    pub id: Option<String>,
    /// Shown in the handshake.
    pub token: Option<String>,
    /// The namespace wanted; empty: the principal's own.
    pub namespace: String,
    /// Name and version of the program, for people.
    pub agent: String,
    /// Who gets the events that belong to nobody in particular: the connection's state, direct
    /// messages, refused publishes that nobody watches.
    pub target: Target,
    /// How much the outbox holds.
    pub outbox: OutboxBounds,
    /// The host keeps what is published on disk until [`Session::released`](super::Session::released)
    /// says that it may go.
    pub outbox_on_disk: bool,
    /// Whether a lost connection is made again, and when.
    pub backoff: Backoff,
    /// How long the server may take to answer the handshake.
    pub handshake_timeout: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        SessionConfig {
            id: None,
            token: None,
            namespace: String::new(),
            agent: concat!("kps/", env!("CARGO_PKG_VERSION")).into(),
            target: Target::default(),
            outbox: OutboxBounds::default(),
            outbox_on_disk: false,
            backoff: Backoff::default(),
            handshake_timeout: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for SessionConfig {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionConfig")
            .field("id", &self.id)
            .field("namespace", &self.namespace)
            .field("agent", &self.agent)
            .field("target", &self.target)
            .field("outbox", &self.outbox)
            .field("outbox_on_disk", &self.outbox_on_disk)
            .field("backoff", &self.backoff)
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

/// How much waits to be accepted, in bytes and messages as they are on the wire.
#[derive(Clone, Copy, Debug)]
pub struct OutboxBounds {
    /// Above this, publishers that care are asked to wait.
    pub soft_bytes: usize,
    /// Above this, it is full.
    pub hard_bytes: usize,
    /// With this many messages, it is full.
    pub hard_messages: usize,
    /// What becomes of a publish when it is full.
    pub overflow: OutboxOverflow,
}

impl Default for OutboxBounds {
    /// 8 MiB, 32 MiB, eight publish windows.
    fn default() -> Self {
        OutboxBounds {
            soft_bytes: 8 << 20,
            hard_bytes: 32 << 20,
            hard_messages: 8 << 16,
            overflow: OutboxOverflow::default(),
        }
    }
}

/// When a lost connection is made again.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Whether it is at all.
    pub reconnect: bool,
    /// Before the first attempt.
    pub min: Duration,
    /// The longest wait; attempts double it up to here. Well below the server's `resume_window`.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { reconnect: true, min: Duration::from_millis(100), max: Duration::from_secs(5) }
    }
}
