//! The content of a JSON document, and what changes it.

use std::{io, sync::Arc};

use json_patch::{Patch, PatchErrorKind, PatchOperation};
use serde::{Deserialize, Serialize};
use serde_json::Value as Plain;

use super::reject::{Code, Reject};
use crate::capability::{Map, Value};

/// Lists and objects within each other at most.
pub(super) const MAX_DEPTH: usize = 100;

/// A change of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JsonChange {
    /// As RFC 6902 says.
    Patch(Patch),
    /// As RFC 7396 says.
    Merge(Plain),
}

/// A document's JSON. Copies are cheap until one changes.
#[derive(Clone, Debug)]
pub(super) struct Json {
    value: Arc<Plain>,
    /// Bytes of its text, or a few more.
    size: usize,
}

impl Json {
    pub(super) fn new(value: Plain) -> Json {
        let size = weight(&value);
        Json { value: Arc::new(value), size }
    }

    pub(super) fn value(&self) -> &Plain {
        &self.value
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Does all of it or nothing.
    pub(super) fn apply(&mut self, changes: &[JsonChange], most: usize) -> Result<(), Reject> {
        let growth: usize = changes.iter().map(JsonChange::weight).sum();
        match changes {
            [change] if self.size + growth <= most && change.is_one_step() => {
                change.check_depth(&self.value)?;
                apply(Arc::make_mut(&mut self.value), change)?;
                self.size += growth;
                Ok(())
            }
            _ => {
                let copy = self.applied(changes, most)?;
                *self = copy;
                Ok(())
            }
        }
    }

    /// A copy that is changed. It takes the time of a copy, and cannot grow far beyond `most` meanwhile.
    fn applied(&self, changes: &[JsonChange], most: usize) -> Result<Json, Reject> {
        let mut value = Plain::clone(&self.value);
        let mut size = self.size;
        let mut grow = |value: &Plain, more: usize| {
            size = size.saturating_add(more);
            if size > most {
                size = weight(value);
            }
            if size > most { Err(too_large(size, most)) } else { Ok(()) }
        };
        for change in changes {
            for step in change.steps() {
                step.check_depth(&value)?;
                let copied = step.copied(&value);
                // What a step puts in the place of something else is only seen afterwards.
                apply(&mut value, &step)?;
                grow(&value, step.weight() + copied)?;
            }
        }
        Ok(Json { value: Arc::new(value), size })
    }
}

impl JsonChange {
    /// Bytes by which it can make a document larger, but for what it copies.
    fn weight(&self) -> usize {
        match self {
            JsonChange::Patch(patch) => weight(patch),
            JsonChange::Merge(patch) => weight(patch),
        }
    }

    /// Whether it cannot fail half-way, and copies nothing.
    fn is_one_step(&self) -> bool {
        match self {
            JsonChange::Merge(_) => true,
            JsonChange::Patch(patch) => match &patch.0[..] {
                [] => true,
                [PatchOperation::Move(_) | PatchOperation::Copy(_)] => false,
                [_] => true,
                _ => false,
            },
        }
    }

    fn steps(&self) -> Vec<JsonChange> {
        match self {
            JsonChange::Merge(_) => vec![self.clone()],
            JsonChange::Patch(patch) => {
                let step =
                    |operation: &PatchOperation| JsonChange::Patch(Patch(vec![operation.clone()]));
                patch.0.iter().map(step).collect()
            }
        }
    }

    /// Bytes that it copies within `value`.
    fn copied(&self, value: &Plain) -> usize {
        let JsonChange::Patch(patch) = self else { return 0 };
        let of = |operation: &PatchOperation| match operation {
            PatchOperation::Copy(copy) => value.pointer(copy.from.as_str()).map_or(0, weight),
            _ => 0,
        };
        patch.0.iter().map(of).sum()
    }

    /// That nothing gets deeper than documents may be: they are read by recursion, here and elsewhere.
    fn check_depth(&self, value: &Plain) -> Result<(), Reject> {
        let deepest = match self {
            JsonChange::Merge(patch) => depth(patch),
            JsonChange::Patch(patch) => {
                let of = |operation: &PatchOperation| {
                    let inner = match operation {
                        PatchOperation::Add(add) => depth(&add.value),
                        PatchOperation::Replace(replace) => depth(&replace.value),
                        PatchOperation::Move(from) => {
                            value.pointer(from.from.as_str()).map_or(0, depth)
                        }
                        PatchOperation::Copy(from) => {
                            value.pointer(from.from.as_str()).map_or(0, depth)
                        }
                        PatchOperation::Remove(_) | PatchOperation::Test(_) => return 0,
                    };
                    operation.path().count() + inner
                };
                patch.0.iter().map(of).max().unwrap_or(0)
            }
        };
        if deepest > MAX_DEPTH { Err(too_deep()) } else { Ok(()) }
    }
}

fn apply(value: &mut Plain, change: &JsonChange) -> Result<(), Reject> {
    match change {
        JsonChange::Merge(patch) => json_patch::merge(value, patch),
        JsonChange::Patch(patch) => {
            json_patch::patch_unsafe(value, patch).map_err(|error| {
                let code = match error.kind {
                    PatchErrorKind::TestFailed => Code::TestFailed,
                    _ => Code::InvalidPatch,
                };
                Reject::new(code, format!("{} at path {:?}", error.kind, error.path.as_str()))
            })?;
        }
    }
    Ok(())
}

/// What takes the step from `before` to `after` back: it tests that what it changes is still as it was
/// left. `None` if `now` has something where it would put something.
pub(super) fn inverse(before: &Plain, after: &Plain, now: &Plain) -> Option<Patch> {
    let mut scratch = after.clone();
    let mut guarded = Vec::new();
    for step in json_patch::diff(after, before).0 {
        let path = step.path().to_owned();
        match (&step, scratch.pointer(path.as_str())) {
            (PatchOperation::Remove(_) | PatchOperation::Replace(_), Some(value)) => {
                let value = value.clone();
                guarded.push(PatchOperation::Test(json_patch::TestOperation { path, value }));
            }
            (PatchOperation::Add(_), None) if now.pointer(path.as_str()).is_some() => {
                let parent = path.split_back().and_then(|(parent, _)| now.pointer(parent.as_str()));
                if parent.is_some_and(Plain::is_object) {
                    return None;
                }
            }
            _ => {}
        }
        json_patch::patch_unsafe(&mut scratch, std::slice::from_ref(&step)).ok()?;
        guarded.push(step);
    }
    Some(Patch(guarded))
}

#[cold]
pub(super) fn too_large(size: usize, most: usize) -> Reject {
    let sentence = format!("the document would have {size} bytes; the limit is {most}");
    Reject::new(Code::DocumentTooLarge, sentence)
}

#[cold]
fn too_deep() -> Reject {
    let sentence = format!("JSON would go deeper than {MAX_DEPTH} lists and objects");
    Reject::new(Code::TooDeep, sentence)
}

fn depth(value: &Plain) -> usize {
    match value {
        Plain::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Plain::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Bytes of its JSON text.
pub(super) fn weight(value: &impl Serialize) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // Counting does not fail.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

/// A call's value as JSON that everybody can read.
///
/// # Errors
/// What JSON has no word for, and what goes too deep.
pub(crate) fn plain(value: Value) -> Result<Plain, Reject> {
    plain_within(value, MAX_DEPTH)
}

fn plain_within(value: Value, depth: usize) -> Result<Plain, Reject> {
    Ok(match value {
        Value::Null => Plain::Null,
        Value::Bool(flag) => Plain::Bool(flag),
        Value::Int(number) => number.into(),
        Value::Big(number) => match u64::try_from(&*number) {
            Ok(number) => number.into(),
            Err(_) => {
                let sentence = "a document's integers have 64 bit at most";
                return Err(Reject::new(Code::Invalid, sentence));
            }
        },
        Value::Float(number) => match serde_json::Number::from_f64(number) {
            Some(number) => Plain::Number(number),
            None => return Err(Reject::new(Code::Invalid, format!("{number} is not in JSON"))),
        },
        Value::Text(text) => Plain::String(text),
        Value::List(list) => {
            let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
            let items = list.into_iter().map(|item| plain_within(item, depth));
            Plain::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Map(map) => {
            let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
            let member = |(name, value)| Ok((name, plain_within(value, depth)?));
            Plain::Object(map.into_iter().map(member).collect::<Result<_, Reject>>()?)
        }
        other @ (Value::Bytes(_) | Value::Array(_) | Value::Callback(_)) => {
            let sentence = format!("documents hold JSON alone, and here is {}", other.kind());
            return Err(Reject::new(Code::Invalid, sentence));
        }
    })
}

/// JSON as a call's value.
pub(crate) fn value(plain: Plain) -> Value {
    match plain {
        Plain::Null => Value::Null,
        Plain::Bool(flag) => Value::Bool(flag),
        Plain::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Plain::String(text) => Value::Text(text),
        Plain::Array(list) => Value::List(list.into_iter().map(value).collect()),
        Plain::Object(map) => {
            Value::Map(map.into_iter().map(|(name, plain)| (name, value(plain))).collect::<Map>())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MOST: usize = 10_000;

    fn patch(value: Plain) -> JsonChange {
        JsonChange::Patch(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn patches_are_done_wholly_or_not_at_all() {
        let mut json = Json::new(json!({"a": [1, 2], "b": {"c": 1}}));
        let before = json.value().clone();
        for (failing, code) in [
            (json!([{"op": "test", "path": "/b/c", "value": 2}]), Code::TestFailed),
            (json!([{"op": "remove", "path": "/x"}]), Code::InvalidPatch),
            (json!([{"op": "add", "path": "/a/7", "value": 1}]), Code::InvalidPatch),
            // Its source is gone when its target turns out to be none.
            (json!([{"op": "move", "from": "/b", "path": "/x/y"}]), Code::InvalidPatch),
            (
                json!([{"op": "remove", "path": "/b"}, {"op": "move", "from": "/a", "path": "/b/c"}]),
                Code::InvalidPatch,
            ),
        ] {
            let failed = json.apply(&[patch(failing)], MOST).unwrap_err();
            assert_eq!((failed.code, json.value()), (code, &before), "{}", failed.message);
        }
        let good =
            json!([{"op": "move", "from": "/b/c", "path": "/a/-"}, {"op": "remove", "path": "/b"}]);
        json.apply(&[patch(good)], MOST).unwrap();
        json.apply(&[JsonChange::Merge(json!({"d": {"e": 1, "f": null}}))], MOST).unwrap();
        assert_eq!(json.value(), &json!({"a": [1, 2, 1], "d": {"e": 1}}));
    }

    #[test]
    fn a_document_does_not_grow_beyond_its_limit_however_it_is_tried() {
        let mut json = Json::new(json!({"a": "x".repeat(100)}));
        let before = json.value().clone();
        // Each step would double it.
        let bomb: Vec<Plain> =
            (0..60).map(|n| json!({"op": "copy", "from": "", "path": format!("/{n}")})).collect();
        let too_large =
            |result: Result<(), Reject>| result.unwrap_err().code == Code::DocumentTooLarge;
        assert!(too_large(json.apply(&[patch(bomb.into())], MOST)));
        let long = "x".repeat(MOST);
        assert!(too_large(json.apply(&[JsonChange::Merge(json!({ "b": &long }))], MOST)));
        assert!(too_large(
            json.apply(&[patch(json!([{"op": "add", "path": "/b", "value": &long}]))], MOST)
        ));
        assert_eq!(json.value(), &before);
        // What is replaced makes room.
        for n in 0..1000 {
            let text = format!("{n}").repeat(500);
            json.apply(&[JsonChange::Merge(json!({ "a": text }))], MOST).unwrap();
        }
        assert!(json.size() <= MOST);
    }

    #[test]
    fn a_document_does_not_get_too_deep() {
        let mut json = Json::new(json!({}));
        let mut path = String::new();
        let mut refused = None;
        for _ in 0..200 {
            path.push_str("/a");
            let step = json!([{"op": "add", "path": path, "value": {}}]);
            if let Err(reject) = json.apply(&[patch(step)], MOST) {
                refused.get_or_insert(reject.code);
            }
        }
        assert_eq!(refused, Some(Code::TooDeep));
        let nest = json!([{"op": "copy", "from": "", "path": format!("{}/b", "/a".repeat(90))}]);
        assert_eq!(json.apply(&[patch(nest)], MOST).unwrap_err().code, Code::TooDeep);
        let mut deep = Value::Null;
        for _ in 0..200 {
            deep = Value::List(vec![deep]);
        }
        assert_eq!(plain(deep).unwrap_err().code, Code::TooDeep);
    }

    fn anything() -> impl Strategy<Value = Plain> {
        let leaf = prop_oneof![
            Just(Plain::Null),
            any::<bool>().prop_map(Plain::Bool),
            any::<i64>().prop_map(Plain::from),
            "[a-c\"ü]{0,3}".prop_map(Plain::String),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Plain::Array),
                prop::collection::btree_map("[a-c/~]{1,2}", inner, 0..4)
                    .prop_map(|map| Plain::Object(map.into_iter().collect())),
            ]
        })
    }

    fn step() -> impl Strategy<Value = Plain> {
        let path = || "(/([a-c]|[0-3]|-|~1)){0,3}";
        prop_oneof![
            (path(), anything())
                .prop_map(|(path, value)| json!({"op": "add", "path": path, "value": value})),
            (path(), anything())
                .prop_map(|(path, value)| json!({"op": "replace", "path": path, "value": value})),
            path().prop_map(|path| json!({"op": "remove", "path": path})),
            (path(), path())
                .prop_map(|(from, path)| json!({"op": "move", "from": from, "path": path})),
            (path(), path())
                .prop_map(|(from, path)| json!({"op": "copy", "from": from, "path": path})),
            (path(), anything())
                .prop_map(|(path, value)| json!({"op": "test", "path": path, "value": value})),
        ]
    }

    proptest! {
        #[test]
        fn what_fails_changes_nothing_and_the_size_is_never_too_small(
            start in anything(), patches in prop::collection::vec(prop::collection::vec(step(), 0..4), 0..8),
        ) {
            let mut json = Json::new(start);
            for steps in patches {
                let before = json.value().clone();
                if json.apply(&[patch(steps.into())], 400).is_err() {
                    prop_assert_eq!(json.value(), &before);
                }
                prop_assert!(weight(json.value()) <= json.size());
            }
        }

        #[test]
        fn a_patch_that_is_taken_back_leaves_what_there_was(
            start in anything(), steps in prop::collection::vec(step(), 0..4),
        ) {
            let mut json = Json::new(start);
            let before = json.value().clone();
            if json.apply(&[patch(steps.into())], MOST).is_ok() {
                let back = inverse(&before, json.value(), json.value()).unwrap();
                json.apply(&[JsonChange::Patch(back)], MOST).unwrap();
                prop_assert_eq!(json.value(), &before);
            }
        }

        #[test]
        fn json_becomes_a_value_and_json_again(start in anything()) {
            prop_assert_eq!(plain(value(start.clone())).unwrap(), start);
        }
    }
}
