//! Injected transports: links that are cut, that refuse to take more, that never answer.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use common::{Host, publish, server};
use kps::{
    Bridge, ClientState, ConnectOptions, Error, ErrorKind, Event, FlushHint, Result,
    net::{self, BoxFuture, Connection, Health, LinkState, Sent, TlsOptions, Transport},
};

/// Goes through to the real transport until told otherwise.
#[derive(Debug)]
struct Tampered {
    inner: Arc<dyn Transport>,
    switch: Arc<Switch>,
}

#[derive(Debug, Default)]
struct Switch {
    connections: AtomicUsize,
    cut: AtomicBool,
    jammed: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Switch {
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn jam(&self, jammed: bool) {
        self.jammed.store(jammed, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        std::mem::take(&mut *self.wakers.lock().unwrap()).into_iter().for_each(Waker::wake);
    }

    fn remember(&self, cx: &Context<'_>) {
        self.wakers.lock().unwrap().push(cx.waker().clone());
    }
}

impl Transport for Tampered {
    fn connect<'a>(
        &'a self,
        url: &'a str,
        tls: &'a TlsOptions,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>>> {
        Box::pin(async move {
            let link = self.inner.connect(url, tls).await?;
            self.switch.connections.fetch_add(1, Ordering::SeqCst);
            self.switch.cut.store(false, Ordering::SeqCst);
            let switch = self.switch.clone();
            Ok(Arc::new(Link { link, switch }) as Arc<dyn Connection>)
        })
    }
}

#[derive(Debug)]
struct Link {
    link: Arc<dyn Connection>,
    switch: Arc<Switch>,
}

impl Connection for Link {
    fn send(&self, batch: &[u8]) -> Result<Sent> {
        let sent = self.link.send(batch)?;
        Ok(if self.switch.jammed.load(Ordering::SeqCst) { Sent::Blocked } else { sent })
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.switch.remember(cx);
        match self.switch.jammed.load(Ordering::SeqCst) {
            true => Poll::Pending,
            false => self.link.poll_ready(cx),
        }
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Poll<Result<()>> {
        self.switch.remember(cx);
        if self.switch.cut.load(Ordering::SeqCst) {
            return Poll::Ready(Err(Error::new(ErrorKind::NotConnected, "cut")));
        }
        self.link.poll_receive(cx, sink)
    }

    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.poll_close(cx)
    }

    fn state(&self) -> LinkState {
        self.link.state()
    }

    fn health(&self) -> Health {
        self.link.health()
    }
}

fn tampered(url: &str) -> (Bridge, Arc<Switch>) {
    let switch = Arc::<Switch>::default();
    let transport = Tampered { inner: net::transport(url).unwrap(), switch: switch.clone() };
    let bridge = Bridge::start(ConnectOptions {
        transport: Some(Arc::new(transport)),
        reconnect_min: Duration::from_millis(1),
        reconnect_max: Duration::from_millis(10),
        ..ConnectOptions::new(url)
    })
    .unwrap();
    (bridge, switch)
}

#[test]
fn a_cut_link_is_made_again_and_nothing_is_lost_or_twice() {
    let server = server();
    let (publisher, publishers_link) = tampered(&server.url());
    let (subscriber, subscribers_link) = tampered(&server.url());
    let mut host = Host::new(&subscriber);
    let sub = host.subscribe("t");
    const MESSAGES: u64 = 3000;
    let mut next = 0;
    for n in 0..MESSAGES {
        publish(&publisher, "t", &n.to_string());
        if n % 500 == 250 {
            publishers_link.cut();
        }
        if n % 500 == 499 {
            subscribers_link.cut();
        }
    }
    publisher.flush_now();
    let mut resumed = 0;
    while next < MESSAGES {
        host.until(|event| match event {
            Event::Message { sub: s, message, .. } if *s == sub => {
                assert_eq!(&*message.payload.bytes, next.to_string().as_bytes());
                next += 1;
                subscriber.consumed(sub, 1, FlushHint::Later);
                Some(())
            }
            Event::Gap { gap, .. } => panic!("{gap:?}"),
            Event::Resumed { .. } => {
                resumed += 1;
                None
            }
            _ => None,
        });
    }
    let made = subscribers_link.connections.load(Ordering::SeqCst);
    assert!(resumed < made, "{resumed} of {made}");
    assert!(publisher.health().is_some_and(|health| health.sent_bytes > 0));
}

#[test]
fn a_link_that_takes_no_more_is_left_alone_until_it_does() {
    let server = server();
    let (bridge, link) = tampered(&server.url());
    let mut host = Host::new(&bridge);
    let sub = host.subscribe("t");
    link.jam(true);
    for n in 0..10_000 {
        publish(&bridge, "t", &n.to_string());
    }
    bridge.flush_now();
    link.jam(false);
    for n in 0..10_000 {
        assert_eq!(&*host.message(sub).payload.bytes, n.to_string().as_bytes());
        bridge.consumed(sub, 1, FlushHint::Later);
    }
    assert!(host.close().abandoned.is_empty());
}

#[test]
fn a_client_that_shall_not_reconnect_ends_with_its_link() {
    let server = server();
    let switch = Arc::<Switch>::default();
    let url = server.url();
    let transport = Tampered { inner: net::transport(&url).unwrap(), switch: switch.clone() };
    let bridge = Bridge::start(ConnectOptions {
        transport: Some(Arc::new(transport)),
        reconnect: false,
        ..ConnectOptions::new(url)
    })
    .unwrap();
    let mut host = Host::new(&bridge);
    host.subscribe("t");
    let number = publish(&bridge, "t", "1");
    switch.jam(true);
    switch.cut();
    host.state(ClientState::Closed);
    let report = host.close();
    assert!(report.abandoned.is_empty() || report.abandoned == [bridge.message_id(number)]);
    assert_eq!(switch.connections.load(Ordering::SeqCst), 1);
}

/// Never gets anywhere.
#[derive(Debug)]
struct Nowhere;

impl Transport for Nowhere {
    fn connect<'a>(
        &'a self,
        _: &'a str,
        _: &'a TlsOptions,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>>> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn connecting_and_closing_end_in_time_whatever_the_transport_does() {
    let bridge = Bridge::start(ConnectOptions {
        transport: Some(Arc::new(Nowhere)),
        timeout: Duration::from_millis(20),
        ..ConnectOptions::new("nowhere://at-all")
    })
    .unwrap();
    let error = common::block_on(bridge.ready()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::ConnectFailed), "{error}");
    publish(&bridge, "t", "1");
    let report = common::block_on(bridge.close(Duration::from_millis(20)));
    assert_eq!(report.abandoned.len(), 1);
}

#[test]
fn dropping_the_last_handle_closes_the_client() {
    let server = server();
    let mailbox = {
        let (bridge, _) = tampered(&server.url());
        let mut host = Host::new(&bridge);
        host.subscribe("t");
        publish(&bridge, "t", "1");
        host.mailbox().clone()
    };
    let (bridge, _) = tampered(&server.url());
    let mut host = Host::new(&bridge);
    host.subscribe("other");
    while server.count_clients() > 1 {
        // Each round trip gives the other client's goodbye time to arrive.
        let token = bridge.flush_event(host.mailbox());
        host.until(|event| {
            matches!(event, Event::Flushed { token: t, .. } if *t == token).then_some(())
        });
        std::thread::yield_now();
    }
    drop(mailbox);
}
