//! `wss://`: both sides by rustls, with a certificate authority of one's own.
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

mod common;
mod raw;

use common::{Host, PATIENCE, block_on, publish};
use kps::{
    Bridge, ConnectOptions, ErrorKind, FlushHint, PublishOptions, Server, ServerOptions, To,
    message::ContentType,
    net::{Ca, TlsOptions, identity::TlsIdentity},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server for `localhost` and `127.0.0.1`, certified by `authority`.
fn server(authority: &Authority) -> Server {
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, authority).unwrap();
    let pem = (certificate.pem(), key.serialize_pem());
    Server::start(ServerOptions {
        tls: Some(TlsIdentity::from_pem(pem.0.as_bytes(), pem.1.as_bytes()).unwrap()),
        ..ServerOptions::listen("127.0.0.1:0")
    })
    .unwrap()
}

fn trusting(server: &Server, authority: &Authority) -> ConnectOptions {
    ConnectOptions {
        tls: TlsOptions { ca: Some(Ca::Pem(authority.pem().into())), ..TlsOptions::default() },
        ..ConnectOptions::new(server.url())
    }
}

#[test]
fn messages_of_every_size_pass_both_ways() {
    let authority = authority();
    let server = server(&authority);
    assert!(server.url().starts_with("wss://"));
    let bridge = Bridge::start(trusting(&server, &authority)).unwrap();
    let mut host = Host::new(&bridge);
    let sub = host.subscribe("t");
    let sizes = [0, 1, 100, 4096, 16_384, 70_000, 1 << 20];
    for round in 0..20 {
        for size in sizes {
            let payload = vec![round; size];
            let options = PublishOptions::default();
            let to = To::Topic("t");
            bridge.publish(to, ContentType::Bytes, &payload, options, FlushHint::Later).unwrap();
        }
    }
    bridge.flush_now();
    for round in 0..20 {
        for size in sizes {
            let message = host.message(sub);
            assert!(message.payload.bytes == vec![round; size], "round {round}, size {size}");
            bridge.consumed(sub, 1, FlushHint::Now);
        }
    }
    assert!(host.close().abandoned.is_empty());
}

#[test]
fn a_server_of_another_authority_is_not_trusted() {
    let server = server(&authority());
    let mut options = trusting(&server, &authority());
    options.reconnect = false;
    let bridge = Bridge::start(options).unwrap();
    let error = block_on(bridge.ready()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(error.message().contains("TLS"), "{error}");
}

#[test]
fn who_speaks_no_tls_is_closed_and_others_go_on() {
    let authority = authority();
    let server = server(&authority);
    let bridge = Bridge::start(trusting(&server, &authority)).unwrap();
    let mut host = Host::new(&bridge);
    let sub = host.subscribe("t");
    let answer = raw::http_bytes(&server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    publish(&bridge, "t", "1");
    bridge.flush_now();
    assert_eq!(&host.message(sub).payload.bytes[..], b"1");
    block_on(server.close(PATIENCE));
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_refused() {
    let authority = authority();
    let other = KeyPair::generate().unwrap().serialize_pem();
    let error = TlsIdentity::from_pem(authority.pem().as_bytes(), other.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = TlsIdentity::from_pem(b"nothing", other.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(TlsIdentity::from_files("no-such-file", "nor-this").is_err());
}
