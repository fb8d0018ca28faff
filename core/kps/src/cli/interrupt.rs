//! Ctrl-C and SIGTERM. Handled here and not by the host: Python's handler would only run once the
//! command returns.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use crate::runtime;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

static NOTIFY: Notify = Notify::const_new();

/// Starts listening. The second signal ends the process at once.
pub(super) fn listen() {
    runtime::spawn(async {
        signal().await;
        INTERRUPTED.store(true, Ordering::Relaxed);
        NOTIFY.notify_waiters();
        signal().await;
        std::process::exit(130);
    });
}

pub(super) fn was_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The signal was what the command waited for.
pub(super) fn forget() {
    INTERRUPTED.store(false, Ordering::Relaxed);
}

/// Resolves at the first signal.
pub(super) async fn interrupted() {
    let mut notified = std::pin::pin!(NOTIFY.notified());
    // Listening before looking: a signal in between is not missed.
    notified.as_mut().enable();
    if !was_interrupted() {
        notified.await;
    }
}

/// Waits so long, or until the first signal.
pub(super) fn sleep(time: Duration) {
    runtime::handle().block_on(async {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = interrupted() => {}
        }
    });
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals end the process, as everywhere.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

#[cfg(not(unix))]
async fn signal() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
