//! What is done once the runtime has nothing to do after work.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify};

/// Work has ended when the runtime was busy for less than a hundredth of so long.
const QUIET: Duration = Duration::from_secs(1);

/// So many times the runtime's thread went to sleep: less is not work.
const WORTH_IT: u32 = 256;

static TIDY: OnceLock<fn()> = OnceLock::new();

/// Has `tidy` called on the runtime thread about a second after a spell of work, in every runtime that
/// starts from now on. A program whose allocator keeps what was freed for the next spell gives it back to
/// the system there. The first call counts.
pub fn when_quiet(tidy: fn()) {
    let _ = TIDY.set(tidy);
}

/// Counts how often the thread goes to sleep.
#[derive(Debug, Default)]
pub(super) struct Parks {
    count: AtomicU32,
    many: Notify,
}

impl Parks {
    /// The thread is about to sleep.
    pub(super) fn count(&self) {
        // Only this thread writes it.
        let count = self.count.load(Ordering::Relaxed) + 1;
        if count == WORTH_IT {
            self.many.notify_one();
        }
        self.count.store(count % WORTH_IT, Ordering::Relaxed);
    }
}

/// Tidies after each spell of work, for as long as the runtime runs.
pub(super) async fn tidy_up(parks: Arc<Parks>) {
    let Some(tidy) = TIDY.get() else { return };
    let busy = || Handle::current().metrics().worker_total_busy_duration(0);
    loop {
        parks.many.notified().await;
        let mut before = busy();
        loop {
            tokio::time::sleep(QUIET).await;
            let now = busy();
            if now - before < QUIET / 100 {
                break;
            }
            before = now;
        }
        tidy();
    }
}
