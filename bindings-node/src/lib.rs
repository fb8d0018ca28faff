//! The native module of the npm package `kps`.
//!
//! JavaScript reaches the core through one [`bridge::Bridge`] per environment. What happens once per
//! message goes through the raw functions of [`hot`] and, towards JavaScript, through the batches
//! of [`batch`]; everything else is an ordinary method that takes and gives JSON.
#![cfg_attr(test, allow(dead_code, reason = "compiled as a test, napi's macros export nothing"))]

mod batch;
mod bridge;
mod calls;
mod cli;
mod complete;
mod documents;
mod error;
mod hot;
mod ledger;
mod options;
mod server;
mod strings;
mod wake;

/// Payloads are allocated by one thread and freed by another, millions in a second; the C library's
/// allocator takes a fifth of the broker's time for that. V8's own heap is not its business.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// When the module is loaded.
#[napi_derive::module_init]
fn init() {
    // SAFETY: it may be called on any thread, at any time.
    kps::runtime::when_quiet(|| unsafe { libmimalloc_sys::mi_collect(true) });
}
