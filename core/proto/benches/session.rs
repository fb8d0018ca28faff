//! The client's session alone, in one thread: 128 bytes out, and in.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kps_proto::{
    clock::Time,
    message::ContentType,
    options::SubscribeOptions,
    session::{Destination, Event, Events, PublishOptions, Session, SessionConfig, SubId, Target},
    wire::{
        encode,
        frame::{Frame, MessageFrame, Name, Welcome},
    },
};

/// What the command line and both packages use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAYLOAD: [u8; 128] = [b'7'; 128];
const NOW: Time = Time::from_micros(1);

/// Messages per WebSocket message, as under load.
const BATCH: u64 = 256;

fn connected() -> Session {
    let mut session = Session::new(SessionConfig::default(), 1);
    assert!(session.should_connect(NOW));
    session.connected(NOW);
    let welcome = Welcome {
        version: 1,
        client_id: "bench",
        session: &[7; 16],
        epoch: 1,
        heartbeat_ms: 8000,
        max_payload: 1 << 20,
        publish_window: 1 << 16,
        publish_window_bytes: 8 << 20,
        aliases: 4096,
        ..Welcome::default()
    };
    hear(&mut session, &[Frame::Welcome(welcome)], &mut Events::new());
    session
}

fn encoded(frames: &[Frame<'_>]) -> BytesMut {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| encode(frame, &mut bytes));
    bytes
}

fn hear(session: &mut Session, frames: &[Frame<'_>], events: &mut Events) {
    session.receive(NOW, &encoded(frames), events).expect("frames of a server");
}

fn publish(session: &mut Session) -> u64 {
    let to = Destination::Topic("sensors.42.temperature");
    let options = PublishOptions::default();
    session
        .publish(NOW, to, ContentType::Json, black_box(&PAYLOAD), &options)
        .expect("there is room")
}

fn send(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(1));
    group.bench_function("publish_128", |bencher| {
        bencher.iter_custom(|count| {
            let mut session = connected();
            let mut out = BytesMut::with_capacity(1 << 20);
            let mut spent = Duration::ZERO;
            let mut left = count;
            while left > 0 {
                let batch = left.min(BATCH);
                let start = Instant::now();
                let mut last = 0;
                for _ in 0..batch {
                    last = publish(&mut session);
                }
                spent += start.elapsed();
                left -= batch;
                deliver(&mut session, last, &mut out);
            }
            spent
        });
    });
    group.bench_function("publish_128_transmit_accepted", |bencher| {
        bencher.iter_custom(|count| {
            let mut session = connected();
            let mut out = BytesMut::with_capacity(1 << 20);
            let start = Instant::now();
            let mut left = count;
            while left > 0 {
                let batch = left.min(BATCH);
                let mut last = 0;
                for _ in 0..batch {
                    last = publish(&mut session);
                }
                left -= batch;
                deliver(&mut session, last, &mut out);
            }
            start.elapsed()
        });
    });
    group.finish();
}

/// The server has taken everything up to `last`.
fn deliver(session: &mut Session, last: u64, out: &mut BytesMut) {
    out.clear();
    while session.transmit(NOW, 64 << 10, out) {}
    black_box(&out);
    let accepted = Frame::Accepted { published: last, answered: 0 };
    hear(session, &[accepted], &mut Events::new());
}

fn receive(criterion: &mut Criterion) {
    let mut session = connected();
    let options = SubscribeOptions::default();
    let sub = session.subscribe(Target(1), "sensors.*.temperature", options).expect("a pattern");
    let mut events = Events::new();
    hear(
        &mut session,
        &[
            Frame::Subscribed { sub: sub.0, cursor: &[] },
            Frame::Alias { number: 0, name: "sensors.42.temperature" },
            Frame::Alias { number: 1, name: "0123456789abc/publisher" },
        ],
        &mut events,
    );
    let messages: Vec<Frame<'_>> =
        (1..=BATCH).map(|number| Frame::Message(message(sub, number))).collect();
    let batch = encoded(&messages);
    let mut out = BytesMut::with_capacity(1 << 20);

    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("receive_consume_128", |bencher| {
        bencher.iter(|| {
            events.clear();
            session.receive(NOW, black_box(&batch), &mut events).expect("frames of a server");
            for (_, event) in &events {
                if let Event::Message { sub, .. } = event {
                    session.consumed(*sub, 1);
                }
            }
            out.clear();
            session.transmit(NOW, 64 << 10, &mut out);
        });
    });
    group.finish();
}

fn message(sub: SubId, number: u64) -> MessageFrame<'static> {
    MessageFrame {
        sub: sub.0,
        topic: Name::Alias(0),
        sender: Name::Alias(1),
        seq: number,
        number,
        time: 1_000_000,
        attempt: 1,
        delivery: None,
        request: false,
        maybe_duplicate: false,
        content_type: ContentType::Json,
        extensions: None,
        payload: &PAYLOAD,
    }
}

criterion_group!(benches, send, receive);
criterion_main!(benches);
