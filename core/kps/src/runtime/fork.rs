//! What a forked child must not share with its parent.
//!
//! The child has one thread; the parent's runtime thread, whatever it held, and every lock it had
//! taken do not exist there. So the child forgets the runtime without dropping it (dropping would
//! deregister the parent's sockets from the event queue that both share), and lets go of the sockets:
//! their numbers are pointed at `/dev/null`, because a copy kept open in the child would hide from
//! the server that the parent closed or died, and because a forgotten owner may still exist.

#[cfg(unix)]
pub(super) use unix::install;
#[cfg(not(unix))]
pub(super) fn install() {}

/// Marks a socket as this process's own for as long as it lives.
#[derive(Debug)]
pub(crate) struct OwnedByProcess {
    #[cfg(unix)]
    fd: i32,
    #[cfg(unix)]
    generation: u32,
}

impl OwnedByProcess {
    /// Marks `socket`.
    #[cfg(unix)]
    pub(crate) fn new(socket: &impl std::os::fd::AsRawFd) -> Self {
        let fd = socket.as_raw_fd();
        super::shared().sockets.insert(fd);
        OwnedByProcess { fd, generation: super::generation() }
    }

    /// Nothing to do where processes do not fork.
    #[cfg(not(unix))]
    pub(crate) fn new<T>(_: &T) -> Self {
        OwnedByProcess {}
    }
}

#[cfg(unix)]
impl Drop for OwnedByProcess {
    fn drop(&mut self) {
        let mut shared = super::shared();
        // In a child the number may stand for another socket by now.
        if self.generation == super::generation() {
            shared.sockets.remove(&self.fd);
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::{
        cell::UnsafeCell,
        mem,
        sync::{MutexGuard, atomic::Ordering},
    };

    use super::super::{GENERATION, Shared, shared};

    struct Held(UnsafeCell<Option<MutexGuard<'static, Shared>>>);

    // SAFETY: only the thread that holds the lock touches the cell: it fills it in `prepare` and
    // empties it in `parent` or `child`, which run on that thread; others wait in `prepare`.
    unsafe impl Sync for Held {}

    static HELD: Held = Held(UnsafeCell::new(None));

    pub(in super::super) fn install() {
        // SAFETY: the handlers have the right type, do not unwind, and in the child call nothing
        // but async-signal-safe functions.
        unsafe {
            libc::pthread_atfork(Some(prepare), Some(parent), Some(child));
        }
    }

    extern "C" fn prepare() {
        let guard = shared();
        // SAFETY: see `Held`.
        unsafe { *HELD.0.get() = Some(guard) };
    }

    extern "C" fn parent() {
        // SAFETY: see `Held`.
        drop(unsafe { (*HELD.0.get()).take() });
    }

    extern "C" fn child() {
        // SAFETY: see `Held`.
        let Some(mut shared) = (unsafe { (*HELD.0.get()).take() }) else { return };
        GENERATION.fetch_add(1, Ordering::Relaxed);
        // Forgotten, not freed: their owners do not exist here, and the allocator may be locked.
        mem::forget(shared.running.take());
        mem::forget(mem::take(&mut shared.exits));
        let sockets = mem::take(&mut shared.sockets);
        // SAFETY: plain system calls on numbers that this process owns.
        unsafe {
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            if null >= 0 {
                for &socket in &sockets {
                    libc::dup2(null, socket);
                    libc::fcntl(socket, libc::F_SETFD, libc::FD_CLOEXEC);
                }
                libc::close(null);
            }
        }
        mem::forget(sockets);
    }
}
