//! What happens to an open client when its process ends.

mod common;

use std::{process::Command, time::Duration};

use common::{Host, publish, server};
use kps::{Bridge, ConnectOptions};

const URL: &str = "KPS_TEST_EXIT_URL";

/// Not a test of its own: the process that the test below starts.
#[test]
fn a_program_that_ends_without_closing() {
    let Ok(url) = std::env::var(URL) else { return };
    let bridge = Bridge::start(ConnectOptions::new(url)).unwrap();
    for n in 0..100 {
        publish(&bridge, "t", &n.to_string());
    }
    // Not dropped: `main` of a program whose client lives in a static.
    std::mem::forget(bridge);
    std::process::exit(0);
}

fn program(url: &str) -> Command {
    let mut program = Command::new(std::env::current_exe().expect("a test knows its own program"));
    // Uncaptured: the harness would keep what the exit hook says.
    let test = ["--exact", "a_program_that_ends_without_closing", "--nocapture"];
    program.args(test).env(URL, url);
    program
}

#[test]
fn at_exit_what_was_published_is_flushed() {
    let server = server();
    let bridge = Bridge::start(ConnectOptions::new(server.url())).unwrap();
    let mut host = Host::new(&bridge);
    let sub = host.subscribe("t");
    let output = program(&server.url()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("abandoned"), "{output:?}");
    for n in 0..100 {
        assert_eq!(&*host.message(sub).payload.bytes, n.to_string().as_bytes());
    }
}

#[test]
fn without_a_server_it_ends_all_the_same_and_says_what_it_abandoned() {
    let started = std::time::Instant::now();
    let output = program("mem://nobody").output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("100 messages were abandoned at exit"), "{told}");
}
