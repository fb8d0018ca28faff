//! What a module is given, and what it answers.

use bytes::Bytes;
use kps_proto::ErrorKind;

use crate::capability::{Failure, Outcome, Value, wrong};

/// How a module wants its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interface {
    /// As JSON text; it answers `{"result": …}` or `{"error": {"code", "message", "retry"}}`.
    Json,
    /// As bytes; it answers a byte that is 0, and bytes, or a byte that is 1, and a sentence.
    Bytes,
}

impl Interface {
    pub(super) fn input(self, data: Value) -> Result<Bytes, Failure> {
        match (self, data) {
            (Interface::Json, data) => {
                let text = data.to_json().map_err(|error| Failure::field("data", error))?;
                Ok(text.into())
            }
            (Interface::Bytes, Value::Null) => Ok(Bytes::new()),
            (Interface::Bytes, Value::Bytes(bytes)) => Ok(bytes),
            (Interface::Bytes, Value::Text(text)) => Ok(text.into()),
            (Interface::Bytes, Value::Array(array)) => Ok(array.bytes),
            (Interface::Bytes, other) => {
                Err(wrong("data", &other, "bytes or text: this module wants no JSON"))
            }
        }
    }

    pub(super) fn output(self, mut output: Bytes) -> Outcome {
        match self {
            Interface::Json => json(&output),
            Interface::Bytes => match output.first() {
                Some(0) => Ok(Value::Bytes(output.split_off(1))),
                Some(1) => {
                    let message = String::from_utf8_lossy(&output[1..]).into_owned();
                    Err(Failure::new(ErrorKind::HandlerFailed, message))
                }
                Some(other) => Err(nonsense(format!("begins with {other}, which is not 0 or 1"))),
                None => Err(nonsense("is empty".into())),
            },
        }
    }
}

fn json(output: &[u8]) -> Outcome {
    let answer =
        Value::from_json(output).map_err(|error| nonsense(format!("is no JSON: {error}")))?;
    let Value::Map(mut members) = answer else {
        return Err(nonsense(format!("is {}", answer.kind())));
    };
    match (members.remove("result"), members.remove("error")) {
        (Some(result), None) => Ok(result),
        (_, Some(error)) => Err(failure(&error)),
        (None, None) => Err(nonsense("has neither \"result\" nor \"error\"".into())),
    }
}

/// What a module says went wrong; `handler_failed`, unless it says one of kps' codes.
fn failure(error: &Value) -> Failure {
    let text = |name| match error.get(name) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let code = text("code").unwrap_or_default();
    let kind = ErrorKind::ALL.iter().copied().find(|kind| kind.code() == code);
    Failure {
        retry: error.get("retry") == Some(&Value::Bool(true)),
        field: text("field"),
        ..Failure::new(
            kind.unwrap_or(ErrorKind::HandlerFailed),
            text("message").unwrap_or_else(|| "the module gave no reason".into()),
        )
    }
}

#[cold]
fn nonsense(what: String) -> Failure {
    Failure::new(ErrorKind::HandlerFailed, format!("the answer of the module {what}"))
}
