//! What operations of the capability answer.

use super::{
    desk::Desk,
    engine::{Applied, DocumentEvent, Kind, Snapshot, Version, value},
};
use crate::capability::{Map, Value};

/// What is known of a document.
pub(super) fn described(desk: &Desk) -> Map {
    described_at(desk, desk.document.version())
}

/// The same of one that is told as it was at this version.
pub(super) fn described_at(desk: &Desk, version: Version) -> Map {
    let document = &desk.document;
    let mut map = Map::default();
    map.push("id", &*desk.name().1);
    map.push("kind", document.kind().as_str());
    map.push("lineage", &**document.lineage());
    map.push("version", version.to_string());
    map.push("oldest", document.oldest().to_string());
    map.push("checkpointed", desk.stored().to_string());
    map.push("durable", desk.is_durable());
    map.push("size", document.size());
    if let Some(code) = desk.failing() {
        map.push("store_failed", code);
    }
    map
}

/// How a content is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// However large it is.
    Whole,
    /// Whole if it has no more than so many bytes and nothing is said, else the part of its text that begins
    /// at this byte.
    Part(usize, Option<usize>),
}

/// Adds the content.
pub(super) fn push_content(map: &mut Map, snapshot: Snapshot, cut: Cut) {
    let Cut::Part(most, offset) = cut else {
        return match snapshot {
            Snapshot::Text(text) => map.push("text", text),
            Snapshot::Value(plain) => map.push("value", value(plain)),
        };
    };
    let is_small = match &snapshot {
        Snapshot::Text(text) => text.len() <= most,
        Snapshot::Value(plain) => serde_json::to_vec(plain).is_ok_and(|text| text.len() <= most),
    };
    match (snapshot, offset) {
        (Snapshot::Text(text), None) if is_small => map.push("text", text),
        (Snapshot::Value(plain), None) if is_small => map.push("value", value(plain)),
        (Snapshot::Text(text), offset) => push_part(map, &text, most, offset),
        (Snapshot::Value(plain), offset) => push_part(map, &plain.to_string(), most, offset),
    }
}

fn push_part(map: &mut Map, text: &str, most: usize, offset: Option<usize>) {
    let boundary = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    let start = boundary(offset.unwrap_or(0)).unwrap_or(0);
    // However small a part is, it has a character.
    let end = boundary(start.saturating_add(most.max(4))).unwrap_or(text.len());
    map.push("part", &text[start..end]);
    map.push("offset", start);
    map.push("next", (end < text.len()).then_some(end));
}

/// Operations as they are told.
pub(super) fn operations(operations: &[Applied]) -> Value {
    let plain = |applied| serde_json::to_value(applied).map_or(Value::Null, value);
    Value::List(operations.iter().map(plain).collect())
}

/// An event as it is told.
pub(super) fn event(event: &DocumentEvent) -> Value {
    serde_json::to_value(event).map_or(Value::Null, value)
}

/// An operation among versions.
pub(super) fn version(applied: &Applied) -> Value {
    let mut map = Map::default();
    map.push("version", applied.version.to_string());
    map.push("op_id", &*applied.op_id);
    map.push("author", &*applied.author);
    map.push("time", applied.time);
    if !applied.undoes.is_empty() {
        let undoes = applied.undoes.iter().map(|op_id| (&**op_id).into());
        map.push("undoes", Value::List(undoes.collect()));
    }
    map.into()
}

/// The answer of a read.
pub(super) fn read(id: &str, kind: Kind, version: Version, snapshot: Snapshot, cut: Cut) -> Value {
    let mut map = Map::default();
    map.push("id", id);
    map.push("kind", kind.as_str());
    map.push("version", version.to_string());
    push_content(&mut map, snapshot, cut);
    map.into()
}
