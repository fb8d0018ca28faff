//! The end of the program.
//!
//! Up to Python 3.13 a daemon thread that wants the GIL while the interpreter ends is torn down
//! right there (`pthread_exit`), and doing that through Rust's frames aborts the process. So
//! before the interpreter ends, no other thread may be inside a call from Rust to Python, and none
//! may begin one.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use kps::runtime;
use pyo3::prelude::*;

/// The thread that ends the program; 0 before.
static ENDING: AtomicUsize = AtomicUsize::new(0);
/// Threads inside Rust code that may call Python. All accesses are made with the GIL.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Held while Rust code may call Python.
pub(crate) struct Inside(());

impl Inside {
    /// Does not return once the program ends: this is a daemon thread then.
    #[inline]
    pub(crate) fn enter(py: Python<'_>) -> Inside {
        let ending = ENDING.load(Ordering::Relaxed);
        // What other `atexit` handlers do on the ending thread still works.
        if ending != 0 && ending != this_thread() {
            stay(py);
        }
        INSIDE.fetch_add(1, Ordering::Relaxed);
        Inside(())
    }
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A number that tells the living threads apart: the address of something each has.
fn this_thread() -> usize {
    thread_local! {
        static MINE: u8 = const { 0 };
    }
    MINE.with(|mine| std::ptr::from_ref(mine) as usize)
}

#[cold]
fn stay(py: Python<'_>) {
    py.detach(|| {
        loop {
            thread::park();
        }
    });
}

/// Flushes and closes what the program left open; core says what was abandoned.
#[pyfunction]
pub(crate) fn at_exit(py: Python<'_>) {
    ENDING.store(this_thread(), Ordering::Relaxed);
    py.detach(|| {
        // A handler that blocks is not waited for longer than messages are.
        let deadline = Instant::now() + runtime::EXIT_TIMEOUT;
        while INSIDE.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        runtime::shutdown(runtime::EXIT_TIMEOUT);
    });
}
