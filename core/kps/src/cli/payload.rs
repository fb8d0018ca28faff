//! Payloads as people type and read them.

use clap::Args;
use kps_proto::message::{ContentType, Message, Payload};
use serde_json::{Value, json, value::RawValue};

/// How to read what was typed.
#[derive(Args, Clone, Copy)]
pub(super) struct Format {
    /// Send the data as text, even if it is JSON
    #[arg(long)]
    text: bool,
}

impl Format {
    /// JSON if it is JSON, else text.
    pub(super) fn payload(self, typed: &str) -> Payload {
        if !self.text && serde_json::from_str::<&RawValue>(typed).is_ok() {
            Payload::json(typed.trim().to_owned())
        } else {
            Payload::text(typed)
        }
    }
}

/// One line for people: JSON and text as they are, bytes by their number.
pub(super) fn readable(payload: &Payload) -> String {
    match payload.content_type {
        ContentType::Json | ContentType::Text => {
            String::from_utf8_lossy(&payload.bytes).into_owned()
        }
        ContentType::Bytes => format!("<{} bytes>", payload.bytes.len()),
    }
}

/// One JSON value for scripts: text as a string, bytes as an array of numbers.
pub(super) fn value(payload: &Payload) -> Value {
    let text = || String::from_utf8_lossy(&payload.bytes);
    match payload.content_type {
        ContentType::Json => {
            serde_json::from_slice(&payload.bytes).unwrap_or_else(|_| json!(text()))
        }
        ContentType::Text => json!(text()),
        ContentType::Bytes => json!(&payload.bytes[..]),
    }
}

/// A message as one JSON object.
pub(super) fn object(message: &Message) -> Value {
    let headers = message.headers().iter().map(|(name, value)| (name.clone(), json!(value)));
    let headers: serde_json::Map<_, _> = headers.collect();
    json!({
        "topic": &*message.topic,
        "data": value(&message.payload),
        "content_type": message.payload.content_type.as_str(),
        "headers": headers,
        "id": message.id(),
        "sender": message.sender.id,
        "seq": message.seq,
        "time": message.time_ms,
        "attempt": message.attempt,
        "retained": message.retained,
        "cursor": message.cursor.as_ref().map(ToString::to_string),
    })
}
