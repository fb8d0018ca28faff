//! How documents are kept.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::engine::Limits;

/// Tells the time, milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How documents are kept: bounds, and when they are stored.
#[derive(Clone)]
pub struct DocumentOptions {
    /// Bounds of each document.
    pub limits: Arc<Limits>,
    /// After a change it is stored within this time (10 s) …
    pub checkpoint_every: Duration,
    /// … or after so many operations (50), whichever comes first.
    pub checkpoint_operations: usize,
    /// A document that nobody asks for so long leaves memory (30 min).
    pub idle: Duration,
    /// Documents in memory (10,000).
    pub most_open: usize,
    /// Bytes of all documents in memory, about (512 MiB).
    pub memory: usize,
    /// Bytes of content in one answer to a client; larger contents are read in parts (128 KiB).
    pub part: usize,
    /// What times are measured with.
    pub now: Clock,
}

impl Default for DocumentOptions {
    fn default() -> Self {
        let now: Clock = Arc::new(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(now.as_millis()).unwrap_or(0)
        });
        DocumentOptions {
            limits: Arc::default(),
            checkpoint_every: Duration::from_secs(10),
            checkpoint_operations: 50,
            idle: Duration::from_secs(30 * 60),
            most_open: 10_000,
            memory: 512 << 20,
            part: 128 << 10,
            now,
        }
    }
}

impl fmt::Debug for DocumentOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentOptions")
            .field("limits", &self.limits)
            .field("checkpoint_every", &self.checkpoint_every)
            .field("checkpoint_operations", &self.checkpoint_operations)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}
