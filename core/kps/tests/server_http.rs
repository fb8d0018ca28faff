//! The HTTP side: who gets an upgrade, and what everybody else is told.
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

mod raw;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use kps::{ErrorKind, Server, ServerOptions, auth::Token};
use raw::{Bystanders, Raw, http, upgrade};

fn server() -> Server {
    Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[test]
fn a_plain_request_is_told_what_listens_here() {
    let server = server();
    let host = server.address();
    let get = |path: &str| http(&server, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert!(get("/").contains("/ws/bus"));
    assert!(get("/healthz").ends_with("ok\n"));
    let metrics = get("/metrics");
    assert!(metrics.contains("\nkps_unaccounted_total 0\n"), "{metrics}");
    assert!(metrics.contains("\nkps_retained_messages 0\n"), "{metrics}");
    assert_eq!(status(&get("/elsewhere")), "404");
    assert_eq!(status(&get("/ws/bus")), "426");
    let post = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(status(&http(&server, &post)), "405");
}

#[test]
fn metrics_of_a_server_with_tokens_are_for_who_shows_one() {
    let server = Server::start(ServerOptions {
        tokens: vec![kps::auth::Token::new("sesame")],
        ..ServerOptions::listen("127.0.0.1:0")
    })
    .unwrap();
    let get = |authorization: &str| {
        let host = server.address();
        http(&server, &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n"))
    };
    assert_eq!(status(&get("")), "401");
    assert_eq!(status(&get("Authorization: Bearer guess\r\n")), "401");
    assert_eq!(status(&get("Authorization: Bearer sesame\r\n")), "200");
}

#[test]
fn a_page_of_a_foreign_origin_is_refused_before_any_upgrade() {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    let host = server.address();
    for origin in [
        "http://evil.example",
        "https://localhost.evil.example",
        "http://127.0.0.1:1",
        "null",
        "file://",
    ] {
        for protocol in ["", "Sec-WebSocket-Protocol: kps.v1\r\n"] {
            let headers = format!("Origin: {origin}\r\n{protocol}");
            let answer = http(&server, &upgrade(&host, &headers));
            assert_eq!(status(&answer), "403", "{origin}");
            assert!(answer.contains("forbidden_origin") && answer.contains("--allow-origin"));
        }
    }
    bystanders.go_on();
}

#[test]
fn a_name_that_is_not_the_servers_is_refused() {
    let server = server();
    for host in ["evil.example", "evil.example:9313", "127.0.0.1.evil.example"] {
        let answer = http(&server, &upgrade(host, ""));
        assert_eq!(status(&answer), "403", "{host}");
        assert!(answer.contains("--allow-host"));
        let plain = http(&server, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(status(&plain), "403", "{host}");
    }
}

#[test]
fn origins_and_names_can_be_allowed() {
    let server = Server::start(ServerOptions {
        allowed_origins: vec!["https://app.example.org".into()],
        allowed_hosts: vec!["bus.example.org".into()],
        ..ServerOptions::listen("127.0.0.1:0")
    })
    .unwrap();
    let mut raw = Raw::open(&server, "Origin: https://app.example.org\r\n");
    raw.text(r#"{"action":"ping","from":"page"}"#);
    assert_eq!(raw.hear()["id"], "page");
    let asked = "GET /healthz HTTP/1.1\r\nHost: bus.example.org\r\n\r\n";
    assert_eq!(status(&http(&server, asked)), "200");
}

#[test]
fn a_page_of_the_same_host_and_port_comes_in() {
    let server = server();
    let address = server.address();
    for origin in [address.clone(), address.replace("127.0.0.1", "localhost")] {
        Raw::open(&server, &format!("Origin: http://{origin}\r\n"));
    }
}

#[test]
fn a_wrong_upgrade_is_told_what_is_wrong() {
    let server = server();
    let host = server.address();
    let good = upgrade(&host, "");
    for (request, expected, word) in [
        (good.replace("HTTP/1.1", "HTTP/1.0"), "400", "HTTP/1.1"),
        (good.replace("Version: 13", "Version: 8"), "426", "13"),
        (good.replace("AAECAwQFBgcICQoLDA0ODw==", "short"), "400", "Sec-WebSocket-Key"),
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), "426", "WebSocket"),
        (upgrade(&host, "Sec-WebSocket-Protocol: mqtt, kps.v9\r\n"), "400", "kps.v1"),
        // What would be read one way here and another way elsewhere.
        (upgrade(&host, &format!("Host: {host}\r\n")), "400", "once"),
        (upgrade(&host, &format!("{0}{0}", format!("Origin: http://{host}\r\n"))), "400", "once"),
        (upgrade(&host, "Origin: http://evil.example/é\r\n"), "400", "ASCII"),
    ] {
        let answer = http(&server, &request);
        assert_eq!(status(&answer), expected, "{request}");
        assert!(answer.contains(word), "{answer}");
    }
}

#[test]
fn of_several_subprotocols_the_known_one_is_chosen() {
    let server = server();
    let mut raw = Raw::open(&server, "Sec-WebSocket-Protocol: mqtt, kps.v1\r\n");
    raw.hello("a", "");
    raw.until(|frame| matches!(frame, kps::proto::wire::frame::Frame::Welcome(_)).then_some(()));
}

#[test]
fn garbage_and_endless_heads_are_closed() {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(64 << 10));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    for request in ["\r\n\r\n\0\0", "SSH-2.0-x\r\n", "\x16\x03\x01\x02\0\x01", &endless, &many] {
        // It ends: with an answer or without.
        let answer = http(&server, request);
        assert!(answer.is_empty() || status(&answer).starts_with('4'), "{answer}");
        bystanders.go_on();
    }
}

#[test]
fn who_dawdles_over_the_handshake_is_closed() {
    let server = Server::start(ServerOptions {
        handshake_timeout: Duration::from_millis(50),
        ..ServerOptions::listen("127.0.0.1:0")
    })
    .unwrap();
    // At the head, drop by drop.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET / HT").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    // After the upgrade.
    for headers in ["", "Sec-WebSocket-Protocol: kps.v1\r\n"] {
        assert_eq!(Raw::open(&server, headers).is_closed(), 1008);
    }
}

#[test]
fn one_connection_too_many_is_told_so() {
    let server =
        Server::start(ServerOptions { max_connections: 2, ..ServerOptions::listen("127.0.0.1:0") })
            .unwrap();
    let mut bystanders = Bystanders::new(&server);
    let answer = http(&server, &upgrade(&server.address(), ""));
    assert_eq!(status(&answer), "503");
    bystanders.go_on();
}

#[test]
fn a_server_that_others_can_reach_wants_a_token() {
    let open = |options: ServerOptions| Server::start(options).map(|server| server.address());
    let exposed = || ServerOptions::listen("0.0.0.0:0");
    let error = open(exposed()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("--token") && error.message().contains("--insecure"));
    assert!(open(ServerOptions { tokens: vec![Token::new("t")], ..exposed() }).is_ok());
    assert!(open(ServerOptions { insecure: true, ..exposed() }).is_ok());
}

#[test]
fn an_address_in_use_fails_with_bind_failed() {
    let server = server();
    let error = Server::start(ServerOptions::listen(server.address())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BindFailed);
}
