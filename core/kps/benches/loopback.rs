//! What the whole way costs: publish → socket → server → socket → mailbox, everything in this
//! process, the server's and both clients' work on the one runtime thread.

#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot start has nothing better to do than panic"
)]

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kps::{
    AckRequest, Bridge, ConnectOptions, Event, FlushHint, HostMailbox, Item, MailboxRef,
    PublishOptions, Server, ServerOptions, SubId, To,
    message::{Answer, ContentType, Payload},
    options::SubscribeOptions,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MESSAGES: u64 = 100_000;

struct Host {
    bridge: Bridge,
    mailbox: MailboxRef,
    woken: mpsc::Receiver<()>,
    batch: Vec<Item>,
}

impl Host {
    fn new(bridge: Bridge) -> Host {
        let (wake, woken) = mpsc::channel();
        let mailbox = Arc::new(HostMailbox::new(move || {
            // The bench may be over.
            let _ = wake.send(());
        }));
        bridge.attach(&mailbox);
        Host { bridge, mailbox, woken, batch: Vec::new() }
    }

    fn subscribe(&mut self, topic: &str) -> SubId {
        let sub = self.bridge.subscribe(&self.mailbox, topic, SubscribeOptions::default()).unwrap();
        while !self.next().iter().any(|item| matches!(item.event, Event::Subscribed { .. })) {}
        sub
    }

    fn next(&mut self) -> &[Item] {
        self.woken.recv().unwrap();
        self.batch.clear();
        self.mailbox.drain(1024, &mut self.batch);
        &self.batch
    }
}

fn payload() -> Vec<u8> {
    let mut payload = br#"{"sensor":"a-17","values":[1.5,2.25,-3.0],"note":""#.to_vec();
    payload.resize(126, b'x');
    payload.extend_from_slice(br#""}"#);
    payload
}

fn bridges(scheme: &str) -> (Server, Bridge, Bridge) {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let connect = || match scheme {
        "ws" => Bridge::start(ConnectOptions::new(server.url())).unwrap(),
        _ => server.connect(ConnectOptions::default()).unwrap(),
    };
    let (publisher, subscriber) = (connect(), connect());
    (server, publisher, subscriber)
}

fn throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish_to_deliver");
    group.throughput(Throughput::Elements(MESSAGES)).sample_size(10);
    let payload = payload();
    for scheme in ["ws", "mem"] {
        let (_server, publisher, subscriber) = bridges(scheme);
        let mut host = Host::new(subscriber);
        let sub = host.subscribe("bench");
        group.bench_function(scheme, |bencher| {
            bencher.iter_custom(|rounds| {
                let start = Instant::now();
                for _ in 0..rounds {
                    let (publisher, payload) = (publisher.clone(), payload.clone());
                    let publishing = std::thread::spawn(move || {
                        for _ in 0..MESSAGES {
                            let (options, hint) = (PublishOptions::default(), FlushHint::Later);
                            publisher
                                .publish(
                                    To::Topic("bench"),
                                    ContentType::Json,
                                    &payload,
                                    options,
                                    hint,
                                )
                                .unwrap();
                        }
                        publisher.flush_now();
                    });
                    let mut received = 0;
                    while received < MESSAGES {
                        let count = host.next().len() as u64;
                        host.bridge.consumed(sub, count, FlushHint::Now);
                        received += count;
                    }
                    publishing.join().unwrap();
                }
                start.elapsed()
            });
        });
    }
}

fn acks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ack");
    let payload = payload();
    for in_flight in [1u64, 64] {
        let (_server, publisher, subscriber) = bridges("ws");
        let mut answering = Host::new(subscriber);
        let sub = answering.subscribe("bench");
        std::thread::spawn(move || {
            loop {
                if answering.woken.recv().is_err() {
                    return;
                }
                answering.batch.clear();
                answering.mailbox.drain(1024, &mut answering.batch);
                for item in answering.batch.drain(..) {
                    if let Event::Message { delivery: Some(delivery), .. } = item.event {
                        let answer = Answer::Acked(Payload::json("null"));
                        answering.bridge.consumed(sub, 1, FlushHint::Later);
                        answering.bridge.answer(delivery, answer, FlushHint::Later).unwrap();
                    }
                }
                answering.bridge.flush_now();
            }
        });
        let mut host = Host::new(publisher);
        let target = host.bridge.attach(&host.mailbox);
        group.throughput(Throughput::Elements(in_flight));
        group.bench_function(format!("{in_flight}_in_flight"), |bencher| {
            bencher.iter(|| {
                for _ in 0..in_flight {
                    let timeout = Duration::from_secs(30);
                    let ack = AckRequest { timeout, request: false, target };
                    let options = PublishOptions { ack: Some(ack), ..PublishOptions::default() };
                    let (to, hint) = (To::Topic("bench"), FlushHint::Later);
                    host.bridge.publish(to, ContentType::Json, &payload, options, hint).unwrap();
                }
                host.bridge.flush_now();
                let mut done = 0;
                while done < in_flight {
                    let ends = |item: &&Item| matches!(item.event, Event::AckDone { .. });
                    done += host.next().iter().filter(ends).count() as u64;
                }
            });
        });
    }
}

/// From options to the handshake's end, on a runtime that runs already.
fn connect(criterion: &mut Criterion) {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    criterion.bench_function("connect", |bencher| {
        bencher.iter(|| {
            let bridge = Bridge::start(ConnectOptions::new(server.url())).unwrap();
            runtime.block_on(bridge.ready()).unwrap();
        });
    });
}

criterion_group!(benches, throughput, acks, connect);
criterion_main!(benches);
