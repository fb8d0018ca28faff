//! How calls ended, as `ts/environment.ts` and `ts/document.ts` read it: `{"ok": …}` or `{"error": {"code", "message", "event"?}}`.

use bytes::Bytes;
use kps::{
    capability::Failure,
    document::{Edited, Refused},
};
use serde::Serialize;
use serde_json::json;

/// It did what it should.
pub(super) fn ok(value: impl Serialize) -> Bytes {
    #[derive(Serialize)]
    struct Done<V> {
        ok: V,
    }
    // What is told has text for keys: that has JSON.
    serde_json::to_vec(&Done { ok: value }).unwrap_or_default().into()
}

/// What becomes of an operation.
pub(super) fn edited(result: Result<Edited, Refused>) -> Bytes {
    match result {
        Ok(Edited { op_id, version, level }) => {
            ok(json!({ "opId": op_id, "version": version.to_string(), "level": level }))
        }
        Err(it) => refused(&it).into(),
    }
}

/// A refusal, with the very bytes of the server's event.
pub(super) fn refused(it: &Refused) -> String {
    let (code, message) = (json!(it.code), json!(it.message));
    match it.event.as_deref().map(std::str::from_utf8) {
        Some(Ok(event)) => {
            format!(r#"{{"error":{{"code":{code},"message":{message},"event":{event}}}}}"#)
        }
        _ => format!(r#"{{"error":{{"code":{code},"message":{message}}}}}"#),
    }
}

/// A failure.
pub(super) fn failure(failure: Failure) -> Bytes {
    let (code, retry) = (failure.code(), failure.retry);
    let error =
        json!({ "code": code, "message": failure.message, "retry": retry, "field": failure.field });
    json!({ "error": error }).to_string().into()
}
