//! The bytes under `tests/conformance/wire` are what this crate writes and reads.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeSet, path::Path, time::Duration};

use bytes::BytesMut;
use kps_proto::{
    Error, ErrorKind,
    message::{ContentType, GapReason, Offline, RowStatus},
    options::{Overflow, Redelivery},
    wire::{
        Frames, encode,
        frame::{
            AnswerFrame, Destination, Earlier, ErrorFrame, Extensions, Frame, GapFrame, Hello,
            HistoryFrame, MessageFrame, Name, Publish, Reference, Row, Start, Subscribe, Welcome,
        },
    },
};
use serde_json::Value;

/// Frames that are written one way only.
const BOTH_WAYS: [&str; 4] = ["handshake", "subscriptions", "messages", "acks"];

#[test]
fn every_frame_is_written_and_read_as_its_bytes() {
    for (case, name) in BOTH_WAYS.iter().flat_map(|file| cases(file)) {
        let frame = frame(&case["frame"]);
        let mut out = BytesMut::new();
        encode(&frame, &mut out);
        assert_eq!(hex(&out), text(&case["hex"]), "written: {name}");
        assert_eq!(read(unhex(&case["hex"])), (vec![frame], None), "read: {name}");
    }
}

#[test]
fn every_type_and_every_error_code_has_bytes() {
    let (mut types, mut codes) = (BTreeSet::new(), BTreeSet::new());
    for (case, _) in BOTH_WAYS.iter().flat_map(|file| cases(file)) {
        types.insert(unhex(&case["hex"])[0]);
        codes.extend(case["frame"]["code"].as_str());
    }
    assert_eq!(types, (1..=24).collect());
    assert_eq!(codes, ErrorKind::ALL.iter().map(|kind| kind.code()).collect());
}

#[test]
fn what_others_may_write_is_read() {
    for (case, name) in cases("lenient") {
        let bytes = unhex(&case["hex"]);
        assert_eq!(read(bytes), (frames(&case["frames"]), None), "{name}");
    }
}

#[test]
fn malformed_bytes_are_refused_after_the_frames_before_them() {
    for (case, name) in cases("malformed") {
        let bytes = unhex(&case["hex"]);
        let (read, error) = read(bytes);
        let error = error.unwrap_or_else(|| panic!("no error: {name}: {read:?}"));
        assert_eq!(error.code(), text(&case["error"]), "{name}");
        assert!(error.message().starts_with("malformed "), "{name}: {error}");
        assert_eq!(read, frames(&case["frames"]), "{name}");
    }
}

/// The cases of a file, each with its name.
fn cases(file: &str) -> Vec<(&'static Value, &'static str)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/wire");
    let json = std::fs::read(folder.join(file).with_extension("json")).unwrap();
    // Leaked, so that frames can borrow it.
    let cases: &'static Value = Box::leak(serde_json::from_slice(&json).unwrap());
    cases.as_array().unwrap().iter().map(|case| (case, text(&case["name"]))).collect()
}

/// All frames up to an error, and the error; nothing may follow it.
fn read(bytes: &[u8]) -> (Vec<Frame<'_>>, Option<Error>) {
    let mut frames = Vec::new();
    let mut items = Frames::new(bytes);
    while let Some(item) = items.next() {
        match item {
            Ok(frame) => frames.push(frame),
            Err(error) => {
                assert!(items.next().is_none());
                return (frames, Some(error));
            }
        }
    }
    (frames, None)
}

fn frames(json: &'static Value) -> Vec<Frame<'static>> {
    json.as_array().into_iter().flatten().map(frame).collect()
}

fn frame(json: &'static Value) -> Frame<'static> {
    let (string, number) = (|key: &str| text(&json[key]), |key: &str| int(&json[key]));
    let (small, flag) = (|key: &str| int32(&json[key]), |key: &str| json[key] == true);
    match text(&json["type"]) {
        "HELLO" => Frame::Hello(Hello {
            versions: pair(&json["versions"], int32, int32),
            features: number("features"),
            client_id: string("client_id"),
            origin: string("origin"),
            namespace: string("namespace"),
            token: string("token"),
            agent: string("agent"),
            session: unhex(&json["session"]),
            received: list(&json["received"], |entry| pair(entry, int32, int)),
        }),
        "WELCOME" => Frame::Welcome(Welcome {
            version: small("version"),
            features: number("features"),
            client_id: string("client_id"),
            session: unhex(&json["session"]),
            resumed: flag("resumed"),
            epoch: number("epoch"),
            time_base_ms: number("time_base_ms"),
            heartbeat_ms: number("heartbeat_ms"),
            resume_window_ms: number("resume_window_ms"),
            published: number("published"),
            answered: number("answered"),
            max_payload: number("max_payload"),
            publish_window: number("publish_window"),
            publish_window_bytes: number("publish_window_bytes"),
            aliases: small("aliases"),
            server: string("server"),
            history: match &json["history"] {
                Value::Null => HistoryFrame::default(),
                history => HistoryFrame {
                    on_disk: history["on_disk"] == true,
                    patterns: list(&history["patterns"], text),
                },
            },
        }),
        "AUTH" => Frame::Auth { token: string("token") },
        "SUB" => Frame::Subscribe(Subscribe {
            sub: small("sub"),
            pattern: string("pattern"),
            group: string("group"),
            durable: string("durable"),
            overflow: Overflow::from_name(string("overflow")).unwrap(),
            capacity: small("capacity"),
            window: small("window"),
            window_bytes: number("window_bytes"),
            again: flag("again"),
            epoch: optional(&json["epoch"], int),
            retained: flag("retained"),
            start: start(&json["start"]),
            redelivery: match &json["redelivery"] {
                Value::Null => Redelivery::default(),
                redelivery => Redelivery {
                    ack_wait: Duration::from_millis(int(&redelivery["ack_wait_ms"])),
                    retry_delay: Duration::from_millis(int(&redelivery["retry_delay_ms"])),
                    max_attempts: int32(&redelivery["max_attempts"]),
                },
            },
        }),
        "SUBSCRIBED" => Frame::Subscribed {
            sub: small("sub"),
            cursor: optional(&json["cursor"], unhex).unwrap_or_default(),
        },
        "UNSUB" => Frame::Unsubscribe { sub: small("sub") },
        "UNSUBSCRIBED" => Frame::Unsubscribed { sub: small("sub") },
        "PUB" => Frame::Publish(Publish {
            number: number("number"),
            to: destination(&json["to"]),
            ack: flag("ack"),
            request: flag("request"),
            prompt: flag("prompt"),
            maybe_duplicate: flag("maybe_duplicate"),
            content_type: content_type(json),
            extensions: extensions(&json["extensions"]),
            payload: payload(json),
        }),
        "MSG" => Frame::Message(MessageFrame {
            sub: small("sub"),
            topic: name(&json["topic"]),
            sender: name(&json["sender"]),
            seq: number("seq"),
            number: number("number"),
            time: number("time"),
            attempt: optional(&json["attempt"], int32).unwrap_or(1),
            delivery: optional(&json["delivery"], int),
            request: flag("request"),
            maybe_duplicate: flag("maybe_duplicate"),
            content_type: content_type(json),
            extensions: extensions(&json["extensions"]),
            payload: payload(json),
        }),
        "CREDIT" => Frame::Credit { sub: small("sub"), consumed: number("consumed") },
        "ACCEPTED" => {
            Frame::Accepted { published: number("published"), answered: number("answered") }
        }
        "STORED" => Frame::Stored { published: number("published") },
        "RECIPIENTS" => {
            Frame::Recipients { number: number("number"), clients: list(&json["clients"], text) }
        }
        "ROW" => Frame::Row(Row {
            number: number("number"),
            recipient: small("recipient"),
            more: flag("more"),
            status: status(&json["status"]),
            latency_us: number("latency_us"),
            error: optional(&json["error"], |error| pair(error, text, text)),
            data: optional(&json["data"], |data| (content_type(data), payload(data))),
        }),
        "ANSWER" => Frame::Answer(AnswerFrame {
            number: number("number"),
            delivery: number("delivery"),
            more: flag("more"),
            status: status(&json["status"]),
            error: optional(&json["error"], |error| pair(error, text, text)),
            data: optional(&json["data"], |data| (content_type(data), payload(data))),
            retry_delay_ms: optional(&json["retry_delay_ms"], int),
        }),
        "CANCEL" => Frame::Cancel { number: number("number") },
        "GAP" => Frame::Gap(GapFrame {
            sub: small("sub"),
            topic: string("topic"),
            count: optional(&json["count"], int),
            range: optional(&json["range"], |range| pair(range, int, int)),
            reason: named(0..8, GapReason::from_number, GapReason::as_str, &json["reason"]),
        }),
        "RESUMED" => Frame::Resumed { sub: small("sub"), replayed: number("replayed") },
        "PING" => Frame::Ping { nonce: number("nonce") },
        "PONG" => Frame::Pong { nonce: number("nonce") },
        "ERROR" => Frame::Error(ErrorFrame {
            kind: *ErrorKind::ALL.iter().find(|kind| json["code"] == kind.code()).unwrap(),
            reference: reference(&json["reference"]),
            fatal: flag("fatal"),
            message: string("message"),
        }),
        "GOAWAY" => Frame::Goaway { delay_ms: number("delay_ms"), reason: string("reason") },
        "ALIAS" => Frame::Alias { number: small("number"), name: string("name") },
        "UNALIAS" => Frame::Unalias { number: small("number") },
        other => panic!("no frame is called {other}"),
    }
}

fn start(json: &'static Value) -> Start<'static> {
    match json.as_str() {
        Some("new") => Start::New,
        Some("last") => Start::Last,
        Some("all") => Start::All,
        _ => match entry(json) {
            ("cursor", cursor) => Start::Cursor(unhex(cursor)),
            ("time_ms", time) => Start::Time(int(time)),
            other => panic!("no start: {other:?}"),
        },
    }
}

fn destination(json: &'static Value) -> Destination<'static> {
    match entry(json) {
        ("alias", number) => Destination::Topic(Name::Alias(int32(number))),
        ("topic", name) => Destination::Topic(Name::Inline(text(name))),
        ("client", id) => Destination::Client(text(id)),
        ("server", address) => Destination::Server(text(address)),
        other => panic!("no destination: {other:?}"),
    }
}

fn name(json: &'static Value) -> Name<'static> {
    match entry(json) {
        ("alias", number) => Name::Alias(int32(number)),
        ("name", name) => Name::Inline(text(name)),
        other => panic!("no name: {other:?}"),
    }
}

fn reference(json: &'static Value) -> Reference {
    if json == "connection" {
        return Reference::Connection;
    }
    match entry(json) {
        ("subscription", sub) => Reference::Subscription(int32(sub)),
        ("publish", number) => Reference::Publish(int(number)),
        ("delivery", number) => Reference::Delivery(int(number)),
        other => panic!("no reference: {other:?}"),
    }
}

fn extensions(json: &'static Value) -> Option<Box<Extensions<'static>>> {
    optional(json, |json| {
        Box::new(Extensions {
            headers: list(&json["headers"], |header| pair(header, text, text)),
            id: optional(&json["id"], text),
            ttl_ms: optional(&json["ttl_ms"], int),
            ack_timeout_ms: optional(&json["ack_timeout_ms"], int),
            settled: match &json["settled"] {
                Value::Null => 0,
                Value::Bool(settled) => (*settled).into(),
                count => int(count),
            },
            retained: json["retained"] == true,
            cursor: optional(&json["cursor"], unhex),
            earlier: optional(&json["earlier"], |json| {
                let (epoch, time_ms) = pair(json, int, int);
                Earlier { epoch, time_ms }
            }),
            to: optional(&json["to"], |json| list(json, text)),
            private: json["private"] == true,
            offline: match &json["offline"] {
                Value::Null => Offline::Keep,
                named => Offline::parse(text(named)).unwrap(),
            },
        })
    })
}

fn content_type(json: &'static Value) -> ContentType {
    let number = |number| ContentType::from_number(number).unwrap();
    named(0..3, number, ContentType::as_str, &json["content_type"])
}

fn status(json: &'static Value) -> RowStatus {
    let number = |number| RowStatus::from_number(number).unwrap();
    named(0..7, number, RowStatus::as_str, json)
}

fn payload(json: &'static Value) -> &'static [u8] {
    match &json["payload"] {
        Value::String(text) => text.as_bytes(),
        hex => unhex(&hex["hex"]),
    }
}

/// The value among those of `numbers` that is called as `json` says.
fn named<T: Copy>(
    mut numbers: std::ops::Range<u8>,
    from_number: impl Fn(u8) -> T,
    as_str: impl Fn(T) -> &'static str,
    json: &Value,
) -> T {
    from_number(numbers.find(|number| as_str(from_number(*number)) == text_of(json)).unwrap())
}

fn entry(json: &'static Value) -> (&'static str, &'static Value) {
    let (key, value) = json.as_object().unwrap().iter().next().unwrap();
    (key, value)
}

fn optional<T>(json: &'static Value, read: impl FnOnce(&'static Value) -> T) -> Option<T> {
    (!json.is_null()).then(|| read(json))
}

fn list<T>(json: &'static Value, read: impl FnMut(&'static Value) -> T) -> Vec<T> {
    json.as_array().into_iter().flatten().map(read).collect()
}

fn pair<A, B>(
    json: &'static Value,
    first: impl FnOnce(&'static Value) -> A,
    second: impl FnOnce(&'static Value) -> B,
) -> (A, B) {
    (first(&json[0]), second(&json[1]))
}

fn text(json: &'static Value) -> &'static str {
    text_of(json)
}

fn text_of(json: &Value) -> &str {
    json.as_str().unwrap_or_else(|| panic!("no text: {json}"))
}

fn int(json: &Value) -> u64 {
    json.as_u64().unwrap_or_else(|| panic!("no integer: {json}"))
}

fn int32(json: &Value) -> u32 {
    int(json).try_into().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(json: &'static Value) -> &'static [u8] {
    let digits = text(json).as_bytes().chunks(2);
    let bytes: Vec<_> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    bytes.leak()
}
