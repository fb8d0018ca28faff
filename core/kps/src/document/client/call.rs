//! Questions to the server.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Document;
use crate::{
    capability::{DispatchOptions, Map, Outcome, Router, Value},
    document::engine::{self, Version},
};

/// Calls `document.operation` for the document `id`.
pub(super) async fn call(
    router: &Router,
    operation: &str,
    id: &str,
    fields: impl IntoIterator<Item = (&'static str, Value)>,
    timeout: Duration,
) -> Outcome {
    let mut payload = Map::default();
    payload.push("id", id);
    fields.into_iter().for_each(|(name, value)| payload.push(name, value));
    let options = DispatchOptions { timeout, ..DispatchOptions::default() };
    let action = format!("document.{operation}");
    router.dispatch(&action, payload.into(), options).await.unwrap()
}

/// A part of an answer.
pub(super) fn plain<T: DeserializeOwned>(value: &Value) -> Option<T> {
    // Not by way of JSON: there an object with one name like `$int` is written in another way.
    serde_json::from_value(engine::plain(value.clone()).ok()?).ok()
}

/// A version in an answer.
pub(super) fn version(answer: &Value, name: &str) -> Option<Version> {
    match answer.get(name) {
        Some(Value::Text(text)) => text.parse().ok(),
        _ => None,
    }
}

/// A text in an answer.
pub(super) fn text<'a>(answer: &'a Value, name: &str) -> Option<&'a str> {
    match answer.get(name) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

impl Document {
    pub(super) async fn call(
        &self,
        operation: &str,
        fields: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Outcome {
        let shared = self.shared();
        shared.state.lock().check_open()?;
        call(&shared.opening.router, operation, &shared.id, fields, shared.options.timeout).await
    }
}
