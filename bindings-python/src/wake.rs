//! How a thread without the GIL wakes a host loop: by a descriptor that the loop watches.

#[cfg(not(unix))]
pub(crate) use elsewhere::Doorbell;
#[cfg(unix)]
pub(crate) use unix::Doorbell;

/// Windows' loops cannot watch a descriptor: there `call_soon_threadsafe` wakes them.
#[cfg(not(unix))]
mod elsewhere {
    pub(crate) enum Doorbell {}

    impl Doorbell {
        pub(crate) fn new() -> std::io::Result<Self> {
            Err(std::io::ErrorKind::Unsupported.into())
        }
        pub(crate) fn fd(&self) -> i32 {
            match *self {}
        }
        pub(crate) fn ring(&self) {
            match *self {}
        }
        pub(crate) fn quiet(&self) {
            match *self {}
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::{
        io,
        os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    };

    /// A descriptor that becomes readable when it is rung: an eventfd on Linux, else a pipe.
    pub(crate) struct Doorbell {
        read: OwnedFd,
        /// The eventfd itself is `None`.
        write: Option<OwnedFd>,
    }

    impl Doorbell {
        #[cfg(target_os = "linux")]
        pub(crate) fn new() -> io::Result<Self> {
            // SAFETY: no pointers; the descriptor is owned from here on.
            let read = unsafe {
                let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
                OwnedFd::from_raw_fd(checked(fd)?)
            };
            Ok(Doorbell { read, write: None })
        }

        #[cfg(not(target_os = "linux"))]
        pub(crate) fn new() -> io::Result<Self> {
            let mut fds = [0; 2];
            // SAFETY: `pipe` fills both; the descriptors are owned from here on.
            unsafe {
                checked(libc::pipe(fds.as_mut_ptr()))?;
                for fd in fds {
                    checked(libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC))?;
                    checked(libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK))?;
                }
                Ok(Doorbell {
                    read: OwnedFd::from_raw_fd(fds[0]),
                    write: Some(OwnedFd::from_raw_fd(fds[1])),
                })
            }
        }

        /// Where the loop listens.
        pub(crate) fn fd(&self) -> RawFd {
            self.read.as_raw_fd()
        }

        /// Any thread. A full pipe rings already.
        pub(crate) fn ring(&self) {
            let one = 1_u64.to_ne_bytes();
            let fd = self.write.as_ref().unwrap_or(&self.read).as_raw_fd();
            // SAFETY: `one` lives through the call, which does not block.
            unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
        }

        /// The loop's thread: quiet until the next ring.
        pub(crate) fn quiet(&self) {
            let mut buffer = [0_u8; 64];
            // SAFETY: `buffer` lives through the call, which does not block.
            unsafe { libc::read(self.fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        }
    }

    fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }
}
