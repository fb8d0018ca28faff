//! A process that forks while its clients are busy.
#![cfg(unix)]

mod common;

use std::time::Duration;

use common::{Host, block_on, publish, server};
use kps::{Bridge, ClientState, ConnectOptions, Event, FlushHint, runtime};

/// Runs `child` in a forked child; its exit code.
fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the child runs nothing of the test harness, and leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: ends the process; nothing runs after it.
            unsafe { libc::_exit(if result.is_ok() { 0 } else { 1 }) }
        }
        pid => {
            assert!(pid > 0, "the system can fork");
            let mut status = 0;
            // SAFETY: waits for our own child.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 }
        }
    }
}

#[test]
fn a_child_is_a_client_of_its_own_and_the_parent_does_not_notice() {
    let server = server();
    let bridge = Bridge::start(ConnectOptions::new(server.url())).unwrap();
    let mut host = Host::new(&bridge);
    let sub = host.subscribe("t");
    let parent = bridge.id().unwrap();
    // Threads that hold every lock of the client again and again while the process forks.
    let busy = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while busy.load(std::sync::atomic::Ordering::Relaxed) {
                    publish(&bridge, "other", "0");
                    bridge.flush_now();
                    block_on(async { bridge.health() });
                }
            });
        }
        for round in 0..20 {
            let code = fork(|| {
                // A child that hangs fails.
                // SAFETY: a plain system call.
                unsafe { libc::alarm(20) };
                assert_eq!(runtime::generation(), 1);
                publish(&bridge, "t", &round.to_string());
                block_on(bridge.ready()).unwrap();
                assert_ne!(bridge.id().unwrap(), parent);
                let report = block_on(bridge.close(Duration::from_secs(10)));
                assert!(report.abandoned.is_empty(), "{report:?}");
                runtime::shutdown(Duration::from_secs(1));
            });
            assert_eq!(code, 0, "round {round}");
            let message = host.until(|event| match event {
                Event::Message { sub: s, message, .. } if *s == sub => Some(message.clone()),
                Event::State { state, .. } => panic!("the parent's link changed: {state:?}"),
                _ => None,
            });
            bridge.consumed(sub, 1, FlushHint::Now);
            assert_eq!(&*message.payload.bytes, round.to_string().as_bytes());
            assert_ne!(message.sender.id, parent);
        }
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(bridge.state(), ClientState::Connected);
    assert_eq!(bridge.id().unwrap(), parent);
    assert!(host.close().abandoned.is_empty());
    // A closed client is closed in a child too.
    assert_eq!(fork(|| assert_eq!(bridge.state(), ClientState::Closed)), 0);
}
