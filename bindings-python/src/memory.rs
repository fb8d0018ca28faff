//! What a spell of work leaves to the allocator goes back to the system: each thread's share, by itself.

use std::sync::{Arc, Weak};

use kps::runtime;
use parking_lot::Mutex;

use crate::host::Host;

/// Payloads are allocated by one thread and freed by another, millions in a second; the C library's
/// allocator takes a fifth of the broker's time for that. Python's own objects are not its business.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static HOSTS: Mutex<Vec<Weak<Host>>> = Mutex::new(Vec::new());

/// Once, when the module is loaded.
pub(crate) fn give_back_when_quiet() {
    runtime::when_quiet(|| {
        collect();
        for host in HOSTS.lock().iter().filter_map(Weak::upgrade).filter(|host| host.alive()) {
            let on_its_thread = host.clone();
            host.complete(move |_| {
                on_its_thread.shrink();
                collect();
            });
        }
    });
}

/// `host`'s thread takes part.
pub(crate) fn register(host: &Arc<Host>) {
    let mut hosts = HOSTS.lock();
    hosts.retain(|host| host.strong_count() > 0);
    hosts.push(Arc::downgrade(host));
}

fn collect() {
    // SAFETY: it may be called on any thread, at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
