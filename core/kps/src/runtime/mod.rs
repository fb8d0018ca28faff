//! One tokio runtime on one thread named `kps`, shared by every client and server of the process:
//! started at the first use, started afresh in a forked child, stopped at exit.

mod fork;
mod quiet;

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, Once, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::ThreadId,
    time::{Duration, Instant},
};

use kps_proto::clock::Time;
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};

pub(crate) use fork::OwnedByProcess;
pub use quiet::when_quiet;

use crate::net::BoxFuture;

/// At normal exit open clients flush for at most so long: kps' design.
pub const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Closes every client and server of this process, waiting at most `timeout`, and stops the
/// runtime thread. Returns how many messages were abandoned (and says so on standard error, or
/// through `tracing` if somebody listens). The next use starts a new runtime.
///
/// It runs by itself, with [`EXIT_TIMEOUT`], when the process exits normally; a host whose own
/// shutdown comes earlier calls it there.
pub fn shutdown(timeout: Duration) -> usize {
    let mut shared = shared();
    // On the runtime's own thread there is nobody left to wait for.
    let here = std::thread::current().id();
    let Some(running) = shared.running.take_if(|running| running.thread != here) else {
        return 0;
    };
    let exits: Vec<_> = shared.exits.drain(..).filter_map(|exit| exit.upgrade()).collect();
    drop(shared);

    let deadline = Instant::now() + timeout;
    let rest = || deadline.saturating_duration_since(Instant::now());
    // A little earlier than ours, so that what they say at their deadline is still heard.
    let theirs = timeout.mul_f32(0.9);
    let (report, reports) = mpsc::channel();
    for exit in exits {
        let report = report.clone();
        running.handle.spawn(async move {
            // Nobody listens any more after the deadline.
            let _ = report.send(exit.close(theirs).await);
        });
    }
    drop(report);
    let mut abandoned = 0;
    while let Ok(count) = reports.recv_timeout(rest()) {
        abandoned += count;
    }
    running.stop.notify_one();
    // Late or not: the thread only has to drop what it holds, and nobody needs it any more.
    let _ = running.stopped.recv_timeout(rest().max(Duration::from_millis(50)));
    if abandoned > 0 {
        let messages = if abandoned == 1 { "message was" } else { "messages were" };
        tell(&format!("{abandoned} {messages} abandoned at exit: no server took them in time"));
    }
    abandoned
}

/// Counts forks: it differs in the child. A host that caches per-process things compares it.
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// What has to be closed before the process ends.
pub(crate) trait Exit: Send + Sync {
    /// Closes within `timeout`; resolves to the number of messages abandoned.
    fn close(self: Arc<Self>, timeout: Duration) -> BoxFuture<'static, usize>;
}

/// Has `exit` closed by [`shutdown`], if it still lives then.
pub(crate) fn close_at_exit(exit: Weak<dyn Exit>) {
    let mut shared = shared();
    if shared.exits.len() == shared.exits.capacity() {
        shared.exits.retain(|exit| exit.strong_count() > 0);
    }
    shared.exits.push(exit);
}

/// The running runtime; starts it if necessary.
pub(crate) fn handle() -> Handle {
    let mut shared = shared();
    shared.running.get_or_insert_with(start).handle.clone()
}

/// Runs `future` on the runtime thread.
pub fn spawn<F: Future<Output: Send> + Send + 'static>(future: F) -> JoinHandle<F::Output> {
    handle().spawn(future)
}

/// The time, as the state machines count it.
pub(crate) fn now() -> Time {
    let elapsed = BASE.elapsed();
    Time::from_micros(elapsed.as_secs() * 1_000_000 + u64::from(elapsed.subsec_micros()))
}

/// A state machine's time as the runtime's timers count it.
pub(crate) fn instant(time: Time) -> tokio::time::Instant {
    // A peer's absurd timeout must not overflow the clock.
    const FAR: u64 = 365 * 24 * 3600 * 1_000_000;
    (*BASE + Duration::from_micros(time.as_micros().min(FAR))).into()
}

/// Runs `future` for at most `timeout`, wherever it is polled: the timer is this runtime's.
pub(crate) async fn timeout<F: Future>(timeout: Duration, future: F) -> Option<F::Output> {
    let timer = {
        let _context = handle().enter();
        tokio::time::timeout(timeout, future)
    };
    timer.await.ok()
}

static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// Held across a fork by its handlers, so that the child never finds it locked.
static SHARED: Mutex<Shared> =
    Mutex::new(Shared { running: None, exits: Vec::new(), sockets: BTreeSet::new() });

struct Shared {
    running: Option<Running>,
    exits: Vec<Weak<dyn Exit>>,
    /// File descriptors of open sockets.
    sockets: BTreeSet<i32>,
}

struct Running {
    handle: Handle,
    thread: ThreadId,
    stop: Arc<Notify>,
    stopped: mpsc::Receiver<()>,
}

fn shared() -> MutexGuard<'static, Shared> {
    // A panic under this lock leaves whole values behind.
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> Running {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        LazyLock::force(&BASE);
        fork::install();
        #[cfg(unix)]
        // SAFETY: `at_exit` has the right type and does not unwind (see there).
        unsafe {
            libc::atexit(at_exit);
        }
    });
    let parks = Arc::new(quiet::Parks::default());
    let parked = parks.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .thread_name("kps-resolve")
        .on_thread_park(move || parked.count())
        .build()
        .expect("the system has file descriptors and memory for one event loop");
    let handle = runtime.handle().clone();
    handle.spawn(quiet::tidy_up(parks));
    let stop = Arc::new(Notify::new());
    let (stopper, (tell_stopped, stopped)) = (stop.clone(), mpsc::channel());
    let thread = std::thread::Builder::new()
        .name("kps".into())
        .spawn(move || {
            runtime.block_on(stopper.notified());
            // Not waiting for name lookups that still block their threads.
            runtime.shutdown_background();
            let _ = tell_stopped.send(());
        })
        .expect("the system can start one thread");
    Running { handle, thread: thread.thread().id(), stop, stopped }
}

#[cfg(unix)]
extern "C" fn at_exit() {
    // Unwinding into the C library would abort.
    let _ = std::panic::catch_unwind(|| shutdown(EXIT_TIMEOUT));
}

fn tell(what: &str) {
    if tracing::dispatcher::has_been_set() {
        tracing::warn!("{what}");
    } else {
        eprintln!("kps: {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_of_another_runtime_times_out_by_this_ones_clock() {
        let waited =
            futures_lite_block_on(timeout(Duration::from_millis(1), std::future::pending::<()>()));
        assert_eq!(waited, None);
    }

    /// Polls on a plain thread, without any runtime.
    fn futures_lite_block_on<F: Future>(future: F) -> F::Output {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut context = std::task::Context::from_waker(&waker);
        let mut future = std::pin::pin!(future);
        loop {
            if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            std::thread::park();
        }
    }

    #[test]
    fn times_convert_without_overflow() {
        let early = now();
        assert!(now() >= early);
        instant(Time::from_micros(u64::MAX));
    }
}
