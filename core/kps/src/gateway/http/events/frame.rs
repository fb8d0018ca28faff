//! One event as text.

use std::fmt::Write;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kps_proto::message::{ContentType, Gap, Message, Payload};
use serde_json::json;

/// Writes an event; `id` may be empty.
pub(super) fn put(out: &mut String, name: &str, id: &str, data: &str) {
    if !id.is_empty() {
        let _ = writeln!(out, "id: {id}");
    }
    let _ = writeln!(out, "event: {name}");
    // Each of the three line ends would end the field; the reader joins the lines again.
    for line in data.replace("\r\n", "\n").split(['\n', '\r']) {
        let _ = writeln!(out, "data: {line}");
    }
    out.push('\n');
}

/// A message as JSON.
pub(super) fn message(message: &Message) -> String {
    let (kind, data) = data(&message.payload);
    let mut text = format!(
        "{{\"topic\":{},\"data\":{data},\"content_type\":\"{kind}\",\"id\":{},\"sender\":{},\"seq\":{},\
         \"epoch\":{},\"time\":{}",
        quoted(&message.topic),
        quoted(&message.id()),
        quoted(&message.sender.id),
        message.seq,
        message.epoch,
        message.time_ms,
    );
    if message.retained {
        text.push_str(",\"retained\":true");
    }
    if !message.headers().is_empty() {
        let headers: serde_json::Map<_, _> =
            message.headers().iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let _ = write!(text, ",\"headers\":{}", serde_json::Value::from(headers));
    }
    text.push('}');
    text
}

/// What is missing, as JSON.
pub(super) fn gap(gap: &Gap) -> String {
    json!({
        "topic": &*gap.topic,
        "count": gap.count,
        "first": gap.first,
        "last": gap.last,
        "reason": gap.reason.as_str(),
    })
    .to_string()
}

/// The payload as JSON, and how it is to be read. What says that it is JSON may be none.
fn data(payload: &Payload) -> (&'static str, String) {
    let bytes = &payload.bytes;
    match (payload.content_type, std::str::from_utf8(bytes)) {
        (ContentType::Json, Ok(text)) if is_json(text) => {
            // Between its tokens only: there are no line ends inside of strings.
            ("json", text.trim().replace(['\n', '\r'], " "))
        }
        (ContentType::Json | ContentType::Text, Ok(text)) => ("text", quoted(text)),
        _ => ("bytes", json!({ "$bytes": STANDARD.encode(bytes) }).to_string()),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_end_leaves_its_field() {
        let mut text = String::new();
        put(&mut text, "message", "a-1", "one\ntwo\r\nthree\rfour\n");
        let expected =
            "id: a-1\nevent: message\ndata: one\ndata: two\ndata: three\ndata: four\ndata: \n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn data_is_json_whatever_it_was() {
        let of = |payload| data(&payload);
        assert_eq!(of(Payload::json("{\n\"a\":\r\n1}\n")), ("json", "{ \"a\":  1}".into()));
        assert_eq!(of(Payload::json("{oops")), ("text", "\"{oops\"".into()));
        assert_eq!(of(Payload::text("a\n\"b\"")), ("text", "\"a\\n\\\"b\\\"\"".into()));
        assert_eq!(of(Payload::json(vec![0xff])), ("bytes", "{\"$bytes\":\"/w==\"}".into()));
        assert_eq!(of(Payload::bytes(vec![1])), ("bytes", "{\"$bytes\":\"AQ==\"}".into()));
    }
}
