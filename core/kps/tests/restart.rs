//! A shutdown in the middle of a program's life. Alone in its file: it ends every client of the process.

mod common;

use std::time::Duration;

use common::block_on;
use kps::{Bridge, ConnectOptions, ErrorKind, Server, ServerOptions, runtime};

#[test]
fn after_a_shutdown_the_next_use_starts_again() {
    let server = Server::start(ServerOptions::listen("mem://again")).unwrap();
    let bridge = Bridge::start(ConnectOptions::new("mem://again")).unwrap();
    block_on(bridge.ready()).unwrap();
    assert_eq!(runtime::shutdown(Duration::from_secs(5)), 0);
    assert_eq!(block_on(bridge.ready()).unwrap_err().kind(), ErrorKind::Closed);
    drop((server, bridge));
    let _server = Server::start(ServerOptions::listen("mem://again-2")).unwrap();
    let bridge = Bridge::start(ConnectOptions::new("mem://again-2")).unwrap();
    block_on(bridge.ready()).unwrap();
}
