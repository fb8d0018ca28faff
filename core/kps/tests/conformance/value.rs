//! What cases say and what kps gives, both as JSON, and whether they match.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kps::{
    Error, ErrorKind,
    message::{AckRow, ContentType, Gap, Message, Payload},
};
use serde_json::{Value, json};

/// Whether `actual` has at least what `expected` says.
pub(crate) fn matches(expected: &Value, actual: &Value) -> bool {
    match expected {
        Value::Object(fields) if fields.contains_key("$any") => true,
        Value::Object(fields) if fields.contains_key("$not") => !matches(&fields["$not"], actual),
        Value::Object(fields) if fields.contains_key("$some") => {
            actual.as_array().is_some_and(|all| all.iter().any(|it| matches(&fields["$some"], it)))
        }
        Value::Object(fields) if fields.contains_key("$contains") => {
            let part = fields["$contains"].as_str().expect("a text");
            actual.as_str().is_some_and(|text| text.contains(part))
        }
        Value::Object(fields) if fields.contains_key("$all") => {
            let all = fields["$all"].as_array().expect("a list");
            all.iter().all(|wanted| matches(wanted, actual))
        }
        Value::Object(fields) if fields.contains_key("$repeat") => *actual == text(expected),
        Value::Object(fields) => actual.as_object().is_some_and(|actual| {
            fields
                .iter()
                .all(|(name, wanted)| actual.get(name).is_some_and(|is| matches(wanted, is)))
        }),
        Value::Array(items) => actual.as_array().is_some_and(|actual| {
            items.len() == actual.len()
                && items.iter().zip(actual).all(|(wanted, is)| matches(wanted, is))
        }),
        Value::Number(wanted) => actual.as_f64() == wanted.as_f64(),
        _ => expected == actual,
    }
}

/// The text of a step's topic or data, which may be written as `{"$repeat": [text, times]}`.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        _ => {
            let unit = value["$repeat"][0].as_str().expect("text, or a text to repeat");
            unit.repeat(int(&value["$repeat"][1]))
        }
    }
}

pub(crate) fn int(value: &Value) -> usize {
    usize::try_from(value.as_u64().expect("a number")).expect("a small number")
}

/// Seconds; a negative number is what a language with signed durations would refuse.
pub(crate) fn seconds(value: &Value) -> kps::Result<Duration> {
    let seconds = value.as_f64().expect("a number of seconds");
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()))
}

/// What a step publishes or a handler returns.
pub(crate) fn payload(value: &Value) -> Payload {
    match value {
        Value::String(text) => Payload::text(text.clone()),
        Value::Object(fields) if fields.contains_key("$bytes") => {
            Payload::bytes(from_base64(fields["$bytes"].as_str().expect("base64")))
        }
        Value::Object(fields) if fields.contains_key("$repeat") => Payload::text(text(value)),
        _ => Payload::json(value.to_string()),
    }
}

pub(crate) fn data(payload: &Payload) -> Value {
    match payload.content_type {
        ContentType::Json => {
            serde_json::from_slice(&payload.bytes).expect("JSON payloads are JSON")
        }
        ContentType::Text => {
            Value::String(String::from_utf8(payload.bytes.to_vec()).expect("UTF-8"))
        }
        ContentType::Bytes => bytes(&payload.bytes),
    }
}

fn bytes(bytes: &[u8]) -> Value {
    json!({ "$bytes": to_base64(bytes) })
}

pub(crate) fn message(message: &Message) -> Value {
    let headers: HashMap<_, _> = message.headers().iter().cloned().collect();
    json!({
        "topic": &*message.topic,
        "data": data(&message.payload),
        "raw": bytes(&message.payload.bytes),
        "content_type": message.payload.content_type.as_str(),
        "headers": headers,
        "id": message.id(),
        "sender": message.sender.id,
        "seq": message.seq,
        "epoch": message.epoch,
        "attempt": message.attempt,
        "maybe_duplicate": message.maybe_duplicate,
        "retained": message.retained,
        "cursor": message.cursor.as_ref().map(ToString::to_string),
    })
}

pub(crate) fn gap(gap: &Gap) -> Value {
    json!({
        "topic": &*gap.topic, "count": gap.count, "first": gap.first, "last": gap.last,
        "reason": gap.reason.as_str(),
    })
}

pub(crate) fn row(row: &AckRow) -> Value {
    let error = row.error.as_ref().map(|error| json!({ "type": error.kind, "text": error.text }));
    json!({
        "client_id": &*row.client_id,
        "status": row.status.as_str(),
        "success": row.success(),
        "error": error,
        "data": row.data.as_ref().map(data),
    })
}

pub(crate) fn rows(rows: &HashMap<Arc<str>, AckRow>) -> Value {
    rows.iter().map(|(id, each)| (id.to_string(), row(each))).collect()
}

pub(crate) fn code(error: Option<&Error>) -> Value {
    error.map_or(Value::Null, |error| Value::String(error.code().into()))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .enumerate()
            .fold(0, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for place in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * place) & 63) as usize] as char;
            out.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

fn from_base64(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut word, mut bits) = (0_u32, 0);
    for digit in text.bytes().filter(|byte| *byte != b'=') {
        let value = ALPHABET.iter().position(|each| *each == digit).expect("base64");
        word = word << 6 | u32::try_from(value).expect("below 64");
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits & 255) as u8);
        }
    }
    out
}

/// An argument of a server's event.
pub(crate) fn told(value: kps::events::Value<'_>) -> Value {
    use kps::events::Value as Told;
    match value {
        Told::None => Value::Null,
        Told::Text(text) => json!(text),
        Told::Number(number) => json!(number),
        Told::Flag(flag) => json!(flag),
        Told::Error(error) => code(Some(error)),
    }
}
