//! The owned runtime.

use std::time::Duration;

/// Closes every client and server of this process, waiting at most `timeout`, and stops the
/// runtime thread. Returns how many messages were abandoned. The next use starts a new runtime.
pub fn shutdown(timeout: Duration) -> usize {
    let _ = timeout;
    unimplemented!()
}

/// Counts forks: it changes in the child. A host that caches per-process things compares it.
pub fn generation() -> u32 {
    unimplemented!()
}
