//! Values on their way to JavaScript and back: JSON text, and beside it, as buffers, what JSON is no good for.
//!
//! An object with one member whose name begins with `$` stands for something else: `{"$int": "…"}` as in core's own text,
//! and of this boundary alone `{"$part": number}` for bytes, `{"$numbers": [part, type, shape]}`, `{"$function": number}`,
//! and `{"$float": "…"}` for an integral double that would be read as an integer. An object of the program's own that
//! looks so has one `$` more on its way to JavaScript, and two more on its way here, because core's reader takes one away.
//! `ts/values.ts` is the other side.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use kps::capability::{Array, Callback, Failure, Map, NumberKind, Value};
use serde::{Serialize, Serializer, ser::SerializeMap};

const PART: &str = "$part";
const NUMBERS: &str = "$numbers";
const FUNCTION: &str = "$function";
const FLOAT: &str = "$float";

/// A value as JavaScript reads it.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) json: Bytes,
    /// Whether anything in it stands for something else.
    pub(crate) special: bool,
    pub(crate) parts: Vec<Bytes>,
}

impl Written {
    /// Writes `value`; `keep` gives the number of a function that JavaScript may call.
    pub(crate) fn new(value: &Value, keep: &dyn Fn(&Callback) -> u32) -> Self {
        let desk = Desk { special: Cell::new(false), parts: RefCell::default(), keep };
        // What is written into memory, by keys that are text, cannot fail.
        let json = serde_json::to_vec(&Told(value, &desk)).unwrap_or_else(|_| b"null".to_vec());
        let special = desk.special.get();
        Written { json: json.into(), special, parts: desk.parts.into_inner() }
    }
}

struct Desk<'a> {
    special: Cell<bool>,
    parts: RefCell<Vec<Bytes>>,
    keep: &'a dyn Fn(&Callback) -> u32,
}

impl Desk<'_> {
    fn part(&self, bytes: &Bytes) -> usize {
        let mut parts = self.parts.borrow_mut();
        parts.push(bytes.clone());
        parts.len() - 1
    }

    fn mark<S: Serializer, T: Serialize>(
        &self,
        out: S,
        mark: &str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.special.set(true);
        let mut map = out.serialize_map(Some(1))?;
        map.serialize_entry(mark, value)?;
        map.end()
    }
}

struct Told<'a>(&'a Value, &'a Desk<'a>);

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        /// As in `Number.MAX_SAFE_INTEGER`.
        const SAFE: i64 = (1 << 53) - 1;
        let desk = self.1;
        match self.0 {
            Value::Int(number) if !(-SAFE..=SAFE).contains(number) => {
                desk.special.set(true);
                self.0.serialize(out)
            }
            Value::Big(_) => {
                desk.special.set(true);
                self.0.serialize(out)
            }
            Value::Bytes(bytes) => desk.mark(out, PART, &desk.part(bytes)),
            Value::Array(array) => {
                let about = (desk.part(&array.bytes), array.kind.name(), &array.shape);
                desk.mark(out, NUMBERS, &about)
            }
            Value::Callback(function) => desk.mark(out, FUNCTION, &(desk.keep)(function)),
            Value::List(list) => out.collect_seq(list.iter().map(|item| Told(item, desk))),
            Value::Map(map) => {
                let mut members = out.serialize_map(Some(map.len()))?;
                for (name, value) in map.iter() {
                    if map.len() == 1 && name.starts_with('$') {
                        desk.special.set(true);
                        members.serialize_entry(&format!("${name}"), &Told(value, desk))?;
                    } else {
                        members.serialize_entry(name, &Told(value, desk))?;
                    }
                }
                members.end()
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {
                self.0.serialize(out)
            }
        }
    }
}

/// Reads what JavaScript wrote. `parts` are `None` if nothing stands for something else; `function` makes
/// something to call of the number of one of JavaScript's functions.
pub(crate) fn read(
    text: &[u8],
    parts: Option<Vec<Bytes>>,
    function: &dyn Fn(u32) -> Callback,
) -> Result<Value, Failure> {
    let wrong = |error: String| Failure::new(kps::ErrorKind::InvalidPayload, error);
    let value = Value::from_json(text).map_err(wrong)?;
    match parts {
        None => Ok(value),
        Some(parts) => resolve(value, &parts, function)
            .ok_or_else(|| wrong("a value was written in a wrong way".into())),
    }
}

fn resolve(value: Value, parts: &[Bytes], function: &dyn Fn(u32) -> Callback) -> Option<Value> {
    let resolved = |value| resolve(value, parts, function);
    Some(match value {
        Value::List(list) => Value::List(list.into_iter().map(resolved).collect::<Option<_>>()?),
        Value::Map(map) => {
            let is_marked = map.len() == 1 && map.iter().any(|(name, _)| name.starts_with('$'));
            let mut members = map.into_iter();
            if is_marked {
                let (name, value) = members.next()?;
                return marked(&name, value, parts, function);
            }
            let members = members.map(|(name, value)| Some((name, resolved(value)?)));
            Value::Map(members.collect::<Option<Map>>()?)
        }
        plain => plain,
    })
}

fn marked(
    name: &str,
    value: Value,
    parts: &[Bytes],
    function: &dyn Fn(u32) -> Callback,
) -> Option<Value> {
    if name.starts_with("$$") {
        return Some(Value::map([(&name[1..], resolve(value, parts, function)?)]));
    }
    let number = |value: &Value| match value {
        Value::Int(number) => usize::try_from(*number).ok(),
        _ => None,
    };
    match (name, value) {
        (PART, value) => Some(Value::Bytes(parts.get(number(&value)?)?.clone())),
        (NUMBERS, Value::List(about)) => {
            let [part, Value::Text(kind), Value::List(shape)] = &about[..] else { return None };
            let kind = NumberKind::from_name(kind)?;
            let shape = shape.iter().map(number).collect::<Option<Vec<_>>>()?;
            let bytes = parts.get(number(part)?)?.clone();
            let size = shape.iter().try_fold(kind.size(), |all, each| all.checked_mul(*each))?;
            (size == bytes.len()).then(|| Array { kind, shape, bytes }.into())
        }
        (FUNCTION, value) => {
            let number = u32::try_from(number(&value)?).ok()?;
            Some(Value::Callback(function(number)))
        }
        (FLOAT, Value::Text(digits)) => digits.parse().ok().map(Value::Float),
        _ => None,
    }
}
