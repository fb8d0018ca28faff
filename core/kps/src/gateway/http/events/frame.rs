//! One event as text.

use std::{borrow::Cow, fmt::Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kps_proto::message::{ContentType, Gap, Message, Payload};
use serde_json::json;

// Every stream writes every event: plain copies, where `format!` and `replace` take twice as long.

/// Writes an event; `id` may be empty.
pub(super) fn put(out: &mut String, name: &str, id: &str, data: &str) {
    if !id.is_empty() {
        put_line(out, "id: ", id);
    }
    put_line(out, "event: ", name);
    let mut rest = data;
    // Each of the three line ends would end the field; the reader joins the lines again.
    while let Some(at) = line_end(rest) {
        put_line(out, "data: ", &rest[..at]);
        let length = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[at + length..];
    }
    put_line(out, "data: ", rest);
    out.push('\n');
}

fn put_line(out: &mut String, field: &str, value: &str) {
    out.push_str(field);
    out.push_str(value);
    out.push('\n');
}

fn line_end(text: &str) -> Option<usize> {
    text.bytes().position(|byte| matches!(byte, b'\n' | b'\r'))
}

/// A message as JSON.
pub(super) fn message(message: &Message) -> String {
    let (kind, data) = data(&message.payload);
    let mut text = String::with_capacity(data.len() + message.topic.len() + 192);
    let members = [
        ("{\"topic\":", &*quoted(&message.topic)),
        (",\"data\":", &data),
        (",\"content_type\":", kind),
        (",\"id\":", &quoted(&message.id())),
        (",\"sender\":", &quoted(&message.sender.id)),
    ];
    members.iter().for_each(|(name, value)| text.extend([*name, *value]));
    let (seq, epoch, time) = (message.seq, message.epoch, message.time_ms);
    let _ = write!(text, ",\"seq\":{seq},\"epoch\":{epoch},\"time\":{time}");
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

/// The payload as JSON, and how it is to be read, as JSON too. What says that it is JSON may be none.
fn data(payload: &Payload) -> (&'static str, Cow<'_, str>) {
    let bytes = &payload.bytes;
    match (payload.content_type, std::str::from_utf8(bytes)) {
        (ContentType::Json, Ok(text)) if is_json(text) => {
            let text = text.trim();
            // Between its tokens only: there are no line ends inside of strings.
            let lines = line_end(text).map(|_| text.replace(['\n', '\r'], " "));
            ("\"json\"", lines.map_or(text.into(), Cow::from))
        }
        (ContentType::Json | ContentType::Text, Ok(text)) => ("\"text\"", quoted(text).into()),
        _ => ("\"bytes\"", json!({ "$bytes": STANDARD.encode(bytes) }).to_string().into()),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
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
        let of = |payload| {
            let (kind, data) = data(&payload);
            (kind.trim_matches('"'), data.into_owned())
        };
        assert_eq!(of(Payload::json("{\n\"a\":\r\n1}\n")), ("json", "{ \"a\":  1}".into()));
        assert_eq!(of(Payload::json("{oops")), ("text", "\"{oops\"".into()));
        assert_eq!(of(Payload::text("a\n\"b\"")), ("text", "\"a\\n\\\"b\\\"\"".into()));
        assert_eq!(of(Payload::json(vec![0xff])), ("bytes", "{\"$bytes\":\"/w==\"}".into()));
        assert_eq!(of(Payload::bytes(vec![1])), ("bytes", "{\"$bytes\":\"AQ==\"}".into()));
    }
}
