//! Real sockets: TLS, and a server that reads when it likes.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod common;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::mpsc,
    time::Duration,
};

use common::{Host, publish, server};
use kps::{
    Bridge, ConnectOptions, ErrorKind, FlushHint, Server, ServerOptions,
    net::{Ca, TlsOptions, identity::TlsIdentity, websocket},
    proto::wire::{
        self, Frames,
        frame::{Frame, Welcome},
    },
};

/// Answers one client's upgrade and `HELLO`, then does not read until told to; returns the publish
/// numbers in the order in which they came.
fn slow_server(messages: u64) -> (String, mpsc::Sender<()>, std::thread::JoinHandle<Vec<u64>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (go, told) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let key = head.split("Sec-WebSocket-Key: ").nth(1).unwrap().split('\r').next().unwrap();
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: kps.v1\r\n\r\n"
        );
        let welcome = Frame::Welcome(Welcome {
            version: 1,
            client_id: "c",
            session: &[7; 16],
            epoch: 1,
            heartbeat_ms: 8000,
            max_payload: 1 << 20,
            publish_window: 1 << 20,
            publish_window_bytes: 1 << 30,
            aliases: 16,
            ..Welcome::default()
        });
        let mut frames = bytes::BytesMut::new();
        wire::encode(&welcome, &mut frames);
        let mut out = bytes::BytesMut::from(answer.as_bytes());
        websocket::put_frame(&mut out, websocket::Opcode::Binary, &frames, None);
        // In two pieces: the second may come together with nothing, the first with a part of it.
        let (first, second) = out.split_at(answer.len() + 3);
        stream.write_all(first).unwrap();
        stream.write_all(second).unwrap();
        told.recv().unwrap();
        let mut decoder = websocket::Decoder::new(websocket::Role::Server, 1 << 30);
        let (mut numbers, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while (numbers.len() as u64) < messages {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the client stays until all is read");
            decoder
                .feed::<websocket::Violation>(&mut buffer[..count], &mut |received| {
                    let websocket::Received::Binary(batch) = received else { return Ok(()) };
                    for frame in Frames::new(batch) {
                        if let Frame::Publish(publish) = frame.unwrap() {
                            numbers.push(publish.number);
                        }
                    }
                    Ok(())
                })
                .unwrap();
        }
        numbers
    });
    (url, go, reading)
}

#[test]
fn a_server_that_does_not_read_blocks_nobody_and_gets_everything_in_order() {
    const MESSAGES: u64 = 20_000;
    let (url, go, reading) = slow_server(MESSAGES);
    let bridge = Bridge::start(ConnectOptions::new(url)).unwrap();
    common::block_on(bridge.ready()).unwrap();
    let payload = format!("\"{}\"", "x".repeat(1000));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..MESSAGES / 2 {
                    publish(&bridge, "t", &payload);
                }
                bridge.flush_now();
            });
        }
    });
    // Far more than the socket's buffers hold: the rest waits here.
    assert!(bridge.health().unwrap().sent_bytes < MESSAGES * 1000);
    go.send(()).unwrap();
    let numbers = reading.join().unwrap();
    assert!(numbers.into_iter().eq(1..=MESSAGES));
    // This server never says that it accepted them.
    let report = common::block_on(bridge.close(Duration::ZERO));
    assert_eq!(report.abandoned.len() as u64, MESSAGES);
}

fn certificate() -> (Vec<u8>, TlsIdentity) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
            .unwrap();
    let pem = cert.pem().into_bytes();
    let identity = TlsIdentity::from_pem(&pem, signing_key.serialize_pem().as_bytes()).unwrap();
    (pem, identity)
}

#[test]
fn wss_carries_everything_once_the_ca_is_known() {
    let (pem, identity) = certificate();
    let options = ServerOptions { tls: Some(identity), ..ServerOptions::listen("127.0.0.1:0") };
    let server = Server::start(options).unwrap();
    let tls = TlsOptions { ca: Some(Ca::Pem(pem)), ..TlsOptions::default() };
    let options = ConnectOptions { tls, ..ConnectOptions::new(server.url()) };
    let bridge = Bridge::start(options).unwrap();
    let mut host = Host::new(&bridge);
    let sub = host.subscribe("t");
    let payload = format!("\"{}\"", "x".repeat(200_000));
    for _ in 0..20 {
        publish(&bridge, "t", &payload);
        publish(&bridge, "t", "1");
    }
    bridge.flush_now();
    for _ in 0..20 {
        assert_eq!(&*host.message(sub).payload.bytes, payload.as_bytes());
        assert_eq!(&*host.message(sub).payload.bytes, b"1");
        bridge.consumed(sub, 2, FlushHint::Now);
    }
    assert!(host.close().abandoned.is_empty());
}

#[test]
fn an_unknown_certificate_a_plain_server_and_a_bad_ca_are_refused() {
    let (_, identity) = certificate();
    let options = ServerOptions { tls: Some(identity), ..ServerOptions::listen("127.0.0.1:0") };
    let server = Server::start(options).unwrap();
    let connect = |url: String, tls: TlsOptions| {
        let timeout = Duration::from_millis(500);
        let bridge = Bridge::start(ConnectOptions { timeout, tls, ..ConnectOptions::new(url) });
        common::block_on(bridge.unwrap().ready())
    };
    let error = connect(server.url(), TlsOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed, "{error}");
    assert!(error.message().contains("ca"), "{error}");
    let insecure = TlsOptions { insecure: true, ..TlsOptions::default() };
    connect(server.url(), insecure.clone()).unwrap();
    let plain = self::server();
    let error = connect(plain.url().replace("ws:", "wss:"), insecure).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed, "{error}");
    let error = connect(server.url().replace("wss:", "ws:"), TlsOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed, "{error}");
    let ca = Some(Ca::File("/nowhere/ca.pem".into()));
    let error = connect(server.url(), TlsOptions { ca, ..TlsOptions::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}
