//! What a message of 128 bytes costs to write and to read.
//!
//! `cargo bench -p kps-proto --bench wire`
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kps_proto::{
    message::{ContentType, Payload},
    wire::{
        Frames, encode, encode_message_head, encode_publish,
        frame::{Destination, Frame, MessageFrame, Name, Publish},
        kps_json::{self, Json, Reply},
    },
};

/// A JSON object of 128 bytes, as the throughput workloads publish it.
const PAYLOAD: &str = concat!(
    r#"{"id":123456,"sensor":"temperature-north-42","value":21.375,"unit":"celsius","#,
    r#""time":1794000000000,"ok":true,"tags":["a","b"]}"#,
);
const _: () = assert!(PAYLOAD.len() <= 128);

/// Frames in a batch: what a busy connection reads at once.
const BATCH: u64 = 100;

fn publish(payload: &[u8]) -> Publish<'_> {
    Publish {
        number: 123_456,
        to: Destination::Topic(Name::Alias(3)),
        ack: false,
        request: false,
        prompt: false,
        maybe_duplicate: false,
        content_type: ContentType::Json,
        extensions: None,
        payload,
    }
}

fn message(payload: &[u8]) -> MessageFrame<'_> {
    MessageFrame {
        sub: 7,
        topic: Name::Alias(3),
        sender: Name::Alias(4),
        seq: 123_456,
        number: 234_567,
        time: 3_600_000,
        attempt: 1,
        delivery: None,
        request: false,
        maybe_duplicate: false,
        content_type: ContentType::Json,
        extensions: None,
        payload,
    }
}

fn payload() -> Vec<u8> {
    format!("{PAYLOAD:128}").into_bytes()
}

fn encoding(c: &mut Criterion) {
    let payload = payload();
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    let mut out = BytesMut::with_capacity(1 << 16);
    group.bench_function("pub_128", |b| {
        let frame = publish(&payload);
        b.iter(|| {
            out.clear();
            encode_publish(black_box(&frame), &mut out);
            black_box(&out);
        });
    });
    group.bench_function("msg_128", |b| {
        let frame = Frame::Message(message(&payload));
        b.iter(|| {
            out.clear();
            encode(black_box(&frame), &mut out);
            black_box(&out);
        });
    });
    group.bench_function("msg_head", |b| {
        let frame = message(&[]);
        b.iter(|| {
            out.clear();
            encode_message_head(black_box(&frame), 128, &mut out);
            black_box(&out);
        });
    });
    group.finish();
}

fn decoding(c: &mut Criterion) {
    let payload = payload();
    let mut group = c.benchmark_group("decode");
    for (name, frame) in [
        ("pub_128", Frame::Publish(publish(&payload))),
        ("msg_128", Frame::Message(message(&payload))),
    ] {
        let mut bytes = BytesMut::new();
        encode(&frame, &mut bytes);
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |b| {
            b.iter(|| black_box(&Frames::new(black_box(&bytes)).next()).is_some());
        });
        let batch = bytes.repeat(BATCH as usize);
        group.throughput(Throughput::Elements(BATCH));
        group.bench_function(format!("{name}_batch"), |b| {
            b.iter(|| {
                let mut frames = Frames::new(black_box(&batch));
                while let Some(Ok(frame)) = &frames.next() {
                    black_box(frame);
                }
            });
        });
    }
    group.finish();
}

fn kps_json(c: &mut Criterion) {
    let object = format!(r#"{{"action":"publish","topic":"bench","data":{PAYLOAD},"from":"me"}}"#);
    let array = format!("[{}]", vec![&*object; BATCH as usize].join(","));
    let mut group = c.benchmark_group("kps_json");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse_publish_128", |b| {
        b.iter(|| black_box(kps_json::actions(black_box(&object)).next()));
    });
    group.bench_function("encode_publish_128", |b| {
        let payload = Payload::json(payload());
        let mut out = BytesMut::with_capacity(1 << 16);
        b.iter(|| {
            out.clear();
            let data = &Json::of(black_box(&payload));
            kps_json::encode(&Reply::Publish { topic: "bench", from: "me", data }, &mut out);
            black_box(&out);
        });
    });
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("parse_publish_128_array", |b| {
        b.iter(|| kps_json::actions(black_box(&array)).for_each(|action| _ = black_box(action)));
    });
    group.finish();
}

criterion_group!(benches, encoding, decoding, kps_json);
criterion_main!(benches);
