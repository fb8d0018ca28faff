//! Where the CRDT's code runs: it recurses as deeply as types are in each other, and panics where it finds
//! what should not be.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

/// Steps into the depth for which every thread has room.
const SHALLOW: usize = 500;

/// Bytes of stack that a step takes, generously.
const STEP: usize = if cfg!(debug_assertions) { 8 << 10 } else { 2 << 10 };

/// A panic was caught: what ran is not to be used again.
#[derive(Debug)]
pub(super) struct Panicked;

/// Runs it with a stack for so many steps into the depth; a panic ends there.
pub(super) fn run<T: Send>(depth: usize, work: impl FnOnce() -> T + Send) -> Result<T, Panicked> {
    let caught = || catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked);
    if depth <= SHALLOW {
        return caught();
    }
    let stack = (1 << 20) + depth * STEP;
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("kps-deep".into()).stack_size(stack);
        // Without the thread nothing was done.
        let thread = builder.spawn_scoped(scope, caught).map_err(|_| Panicked)?;
        thread.join().unwrap_or(Err(Panicked))
    })
}
