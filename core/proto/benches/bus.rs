//! The bus alone, in one thread: publish to 1, 10 and 1000 subscribers, and the ack table.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kps_proto::{
    bus::{Attach, Bus, BusConfig, Output, PortId, PortKind, Principal},
    clock::Time,
    message::{ContentType, RowStatus},
    wire::frame::{AnswerFrame, Destination, Extensions, Frame, Name, Publish, REPORTS, Subscribe},
};

/// What the command line and both packages use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAYLOAD: [u8; 128] = [b'7'; 128];
const NOW: Time = Time::from_micros(1);

fn attach(bus: &mut Bus, seed: u64) -> PortId {
    let mut entropy = [0; 24];
    entropy[..8].copy_from_slice(&seed.to_be_bytes());
    entropy[16..].copy_from_slice(&seed.to_be_bytes());
    let attach = Attach {
        principal: Principal::default(),
        kind: PortKind::Native,
        client_id: "",
        origin: "bench",
        session: &[],
        received: &[],
        entropy,
    };
    bus.attach(NOW, attach).expect("an empty id is always free").port
}

fn subscribe(bus: &mut Bus, port: PortId) {
    let frame = Subscribe {
        sub: 1,
        pattern: "bench",
        window: u32::MAX,
        window_bytes: 1 << 30,
        ..Subscribe::default()
    };
    bus.handle(NOW, port, &Frame::Subscribe(frame)).expect("a good subscription");
}

fn publish(number: u64, ack: bool) -> Frame<'static> {
    let extensions = Extensions { ack_timeout_ms: Some(1000), ..Extensions::default() };
    Frame::Publish(Publish {
        number,
        to: Destination::Topic(Name::Alias(0)),
        ack,
        request: false,
        prompt: false,
        maybe_duplicate: false,
        content_type: ContentType::Json,
        extensions: ack.then(|| Box::new(extensions)),
        payload: &PAYLOAD,
    })
}

/// A publisher and `count` subscribers.
fn world(count: u64) -> (Bus, PortId, Vec<PortId>) {
    let mut bus = Bus::new(BusConfig::default());
    let publisher = attach(&mut bus, 0);
    bus.handle(NOW, publisher, &Frame::Alias { number: 0, name: "bench" }).expect("in bounds");
    let subscribers: Vec<PortId> = (1..=count).map(|seed| attach(&mut bus, seed)).collect();
    for port in &subscribers {
        subscribe(&mut bus, *port);
    }
    (bus, publisher, subscribers)
}

fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish to subscribers' queues, pulled and credited");
    for count in [1, 10, 1000] {
        let (mut bus, publisher, subscribers) = world(count);
        let mut number = 0;
        let mut out = Vec::new();
        let batch = 64;
        group.throughput(Throughput::Elements(batch * count));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                for _ in 0..batch {
                    number += 1;
                    bus.handle(NOW, publisher, &publish(number, false)).expect("accepted");
                }
                for port in &subscribers {
                    bus.pull(NOW, *port, usize::MAX, &mut out);
                    black_box(&out);
                    out.clear();
                    let credit = Frame::Credit { sub: 1, consumed: number };
                    bus.handle(NOW, *port, &credit).expect("in bounds");
                }
                bus.pull(NOW, publisher, usize::MAX, &mut out);
                out.clear();
            });
        });
    }
    group.finish();
}

fn queueing(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish to one subscriber's queue");
    let batch = 128;
    group.throughput(Throughput::Elements(batch));
    let (mut bus, publisher, subscribers) = world(1);
    let (mut number, mut out) = (0, Vec::new());
    group.bench_function("handle", |b| {
        b.iter_custom(|rounds| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..rounds {
                let start = Instant::now();
                for _ in 0..batch {
                    number += 1;
                    bus.handle(NOW, publisher, &publish(number, false)).expect("accepted");
                }
                elapsed += start.elapsed();
                for port in [publisher, subscribers[0]] {
                    bus.pull(NOW, port, usize::MAX, &mut out);
                    out.clear();
                }
                let credit = Frame::Credit { sub: 1, consumed: number };
                bus.handle(NOW, subscribers[0], &credit).expect("in bounds");
            }
            elapsed
        });
    });
    group.finish();
}

fn acks(c: &mut Criterion) {
    let mut group = c.benchmark_group("ack table");
    let (mut bus, publisher, subscribers) = world(1);
    let subscriber = subscribers[0];
    let (mut number, mut answered, mut reports) = (0, 0, 0);
    let mut out = Vec::new();
    group.throughput(Throughput::Elements(64));
    group.bench_function("publish, answer, row", |b| {
        b.iter(|| {
            for _ in 0..64 {
                number += 1;
                bus.handle(NOW, publisher, &publish(number, true)).expect("accepted");
            }
            bus.pull(NOW, subscriber, usize::MAX, &mut out);
            for output in out.drain(..) {
                let Output::Deliver { delivery: Some(delivery), .. } = output else { continue };
                answered += 1;
                let answer = AnswerFrame {
                    number: answered,
                    delivery,
                    more: false,
                    status: RowStatus::Acked,
                    error: None,
                    data: Some((ContentType::Json, b"true")),
                    retry_delay_ms: None,
                };
                bus.handle(NOW, subscriber, &Frame::Answer(answer)).expect("in order");
            }
            let credit = Frame::Credit { sub: 1, consumed: number };
            bus.handle(NOW, subscriber, &credit).expect("in bounds");
            bus.pull(NOW, publisher, usize::MAX, &mut out);
            reports += out.iter().filter(|output| is_report(output)).count() as u64;
            out.clear();
            let credit = Frame::Credit { sub: REPORTS, consumed: reports };
            bus.handle(NOW, publisher, &credit).expect("in bounds");
        });
    });
    group.finish();
}

fn is_report(output: &Output) -> bool {
    matches!(output, Output::Row { .. } | Output::Recipients { .. })
}

criterion_group!(benches, queueing, routing, acks);
criterion_main!(benches);
