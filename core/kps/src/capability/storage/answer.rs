//! What operations answer.

use bytes::Bytes;
use kps_proto::{Error, ErrorKind};

use super::{
    super::{Failure, Map, Outcome, Value},
    codec,
};
use crate::store::values::{Answer, Change, Content, Done, Meta};

/// Seconds since the Unix epoch.
pub(super) fn seconds(ms: u64) -> Value {
    Value::Float(ms as f64 / 1000.0)
}

/// `key etag size modified expires content_type`, and where the value is.
pub(super) fn described(key: &str, meta: &Meta) -> Map {
    let mut map = listed(key, meta);
    map.push("location", "local");
    map
}

/// The same in a list.
pub(super) fn listed(key: &str, meta: &Meta) -> Map {
    let mut map = Map::default();
    map.push("key", key);
    map.push("etag", meta.etag.to_string());
    map.push("size", meta.size);
    map.push("modified", seconds(meta.modified_ms));
    if let Some(expires) = meta.expires_ms {
        map.push("expires", seconds(expires));
    }
    if let Some(content_type) = &meta.content_type {
        map.push("content_type", &**content_type);
    }
    map
}

/// The answer of `get`.
pub(super) fn value(key: &str, meta: &Meta, content: Content) -> Outcome {
    let mut map = described(key, meta);
    map.push("value", codec::decode(content)?);
    Ok(map.into())
}

/// The answer of `get_part`, but for what is known of the value.
pub(super) fn part(key: &str, mut map: Map, meta: &Meta, offset: u64, bytes: Bytes) -> Outcome {
    if meta.kind == codec::TAGGED {
        let sentence = format!("{key:?} is neither bytes nor text: read it with get");
        return Err(Failure::new(ErrorKind::Unsupported, sentence));
    }
    let end = offset.saturating_add(bytes.len() as u64);
    map.push("kind", if meta.kind == codec::TEXT { "text" } else { "bytes" });
    map.push("offset", offset);
    map.push("done", end >= meta.size);
    map.push("bytes", Value::Bytes(bytes));
    Ok(map.into())
}

/// What one operation did.
pub(super) fn done(done: Done, key: &str) -> Outcome {
    Ok(match done {
        Done::Saved(key, meta) => described(&key, &meta).into(),
        Done::Deleted(deleted) => Value::map([("deleted", deleted.into())]),
        Done::Checked => Value::Map(Map::default()),
        Done::Got(meta, content) => return value(key, &meta, content),
        Done::Begun(token) => Value::map([
            ("upload", token.into()),
            ("part_size", crate::store::values::CHUNK.into()),
        ]),
        Done::Added(size) => Value::map([("size", size.into())]),
        Done::Abandoned(cancelled) => Value::map([("cancelled", cancelled.into())]),
    })
}

/// The answer of a job of one operation.
pub(super) fn only(answer: Answer) -> Outcome {
    let first = answer.map_err(failure)?.into_iter().next();
    let first = first.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "no answer")));
    done(first.map_err(failure)?, "")
}

/// One of several: `{status: "ok", data}` or `{status: "error", error}`.
pub(super) fn envelope(outcome: Outcome) -> Value {
    match outcome {
        Ok(data) => Value::map([("status", "ok".into()), ("data", data)]),
        Err(failure) => {
            let mut error = Map::default();
            error.push("code", failure.code());
            error.push("message", &*failure.message);
            error.push("retry", failure.retry);
            if let Some(field) = failure.field {
                error.push("field", field);
            }
            Value::map([("status", "error".into()), ("error", error.into())])
        }
    }
}

/// The engine's error; what is only busy may be tried again.
pub(super) fn failure(error: Error) -> Failure {
    let failure = Failure::from(error);
    match failure.kind {
        ErrorKind::Unavailable => failure.retryable(),
        _ => failure,
    }
}

/// What a watcher is told.
pub(super) fn change(change: &Change) -> Value {
    Value::map([
        ("event", change.kind.name().into()),
        ("key", (&*change.key).into()),
        ("etag", (&*change.etag).into()),
        ("size", change.size.into()),
        ("modified", seconds(change.modified_ms)),
    ])
}
