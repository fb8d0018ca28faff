//! Values as JSON text. What JSON has no word for travels as an object with one marked member:
//! `{"$bytes": "base64"}`, `{"$int": "…"}` for integers that a double cannot hold, `{"$array": {…}}`.
//! An object of the program's own that looks like one gets a second `$`.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use num_bigint::BigInt;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
    ser::{Error as _, SerializeMap},
};

use crate::capability::{Array, Map, NumberKind, Value};

const INT: &str = "$int";
const BYTES: &str = "$bytes";
const ARRAY: &str = "$array";
/// Integers up to here are numbers in every language.
const SAFE: i64 = (1 << 53) - 1;

impl Value {
    /// The value as JSON text.
    ///
    /// # Errors
    /// What a [`Callback`](crate::capability::Callback) gives: no text stands for a function.
    pub fn to_json(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    /// The value of JSON text.
    ///
    /// # Errors
    /// Where and why it is not JSON.
    pub fn from_json(text: &[u8]) -> Result<Value, String> {
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => out.serialize_unit(),
            Value::Bool(flag) => out.serialize_bool(*flag),
            Value::Int(number) if (-SAFE..=SAFE).contains(number) => out.serialize_i64(*number),
            Value::Int(number) => marked(out, INT, &number.to_string()),
            Value::Big(number) => marked(out, INT, &number.to_string()),
            Value::Float(number) => out.serialize_f64(*number),
            Value::Text(text) => out.serialize_str(text),
            Value::Bytes(bytes) => marked(out, BYTES, &STANDARD.encode(bytes)),
            Value::List(list) => out.collect_seq(list),
            Value::Map(map) => map.serialize(out),
            Value::Array(array) => marked(out, ARRAY, &ArrayText::of(array)),
            Value::Callback(_) => {
                Err(S::Error::custom("a function cannot leave its process: call this locally"))
            }
        }
    }
}

fn marked<S: Serializer, T: Serialize>(out: S, mark: &str, value: &T) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(Some(1))?;
    map.serialize_entry(mark, value)?;
    map.end()
}

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.len()))?;
        let looks_marked = self.len() == 1;
        for (name, value) in self.iter() {
            if looks_marked && name.starts_with('$') {
                map.serialize_entry(&format!("${name}"), value)?;
            } else {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

#[derive(Serialize)]
struct ArrayText<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    shape: &'a [usize],
    data: String,
}

impl<'a> ArrayText<'a> {
    fn of(array: &'a Array) -> Self {
        // Native order is little-endian wherever kps is built; elsewhere the peer could not read it.
        const { assert!(cfg!(target_endian = "little"), "arrays travel in little-endian order") };
        ArrayText {
            kind: array.kind.name(),
            shape: &array.shape,
            data: STANDARD.encode(&array.bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Value, D::Error> {
        input.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(member) = members.next_entry::<String, Value>()? {
            map.push(member);
        }
        if let [(name, _)] = &mut map[..]
            && name.starts_with('$')
        {
            let (name, value) = map.pop().expect("there is one");
            return unmarked(name, value).map_err(de::Error::custom);
        }
        Ok(Value::Map(map.into_iter().collect()))
    }
}

fn unmarked(name: String, value: Value) -> Result<Value, String> {
    match (&*name, value) {
        (INT, Value::Text(digits)) => {
            // Parsing takes quadratic time: a peer must not be able to ask for hours of it.
            const DIGITS: usize = 4_000_000;
            if digits.len() > DIGITS {
                return Err(format!("{INT} has more than {DIGITS} digits"));
            }
            let number = digits.parse::<BigInt>();
            number.map(Value::big).map_err(|_| format!("{INT} holds no integer"))
        }
        (BYTES, Value::Text(text)) => match STANDARD.decode(text) {
            Ok(bytes) => Ok(Value::Bytes(bytes.into())),
            Err(error) => Err(format!("{BYTES} holds no base64: {error}")),
        },
        (ARRAY, Value::Map(map)) => array(map).ok_or_else(|| format!("{ARRAY} is malformed")),
        (INT | BYTES | ARRAY, other) => Err(format!("{name} holds {}", other.kind())),
        (name, value) => {
            let own = name.strip_prefix('$').filter(|own| own.starts_with('$')).unwrap_or(name);
            Ok(Value::map([(own, value)]))
        }
    }
}

fn array(mut map: Map) -> Option<Value> {
    let (Some(Value::Text(kind)), Some(Value::List(shape)), Some(Value::Text(data))) =
        (map.remove("type"), map.remove("shape"), map.remove("data"))
    else {
        return None;
    };
    let kind = NumberKind::from_name(&kind)?;
    let dimension = |value: Value| match value {
        Value::Int(n) => usize::try_from(n).ok(),
        _ => None,
    };
    let shape: Vec<usize> = shape.into_iter().map(dimension).collect::<Option<_>>()?;
    let count = shape.iter().try_fold(kind.size(), |all, n| all.checked_mul(*n))?;
    let bytes = STANDARD.decode(data).ok()?;
    (bytes.len() == count).then(|| Array { kind, shape, bytes: bytes.into() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(value: &Value) -> Value {
        Value::from_json(&value.to_json().unwrap()).unwrap()
    }

    #[test]
    fn what_json_has_no_word_for_comes_back_as_it_was() {
        let numbers: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|n| n.to_ne_bytes()).collect();
        let array = Array { kind: NumberKind::F64, shape: vec![2], bytes: numbers.into() };
        let value = Value::map([
            ("bytes", Value::Bytes(vec![0, 255].into())),
            ("big", Value::big(BigInt::from(7).pow(100))),
            ("edge", Value::Int(i64::MAX)),
            ("array", array.into()),
            ("list", vec![Value::Null, true.into(), (-3).into(), 0.5.into(), "ü".into()].into()),
        ]);
        assert_eq!(round(&value), value);
        assert_eq!(Value::Int(1 << 60).to_json().unwrap(), br#"{"$int":"1152921504606846976"}"#);
        assert_eq!(Value::Int(SAFE).to_json().unwrap(), b"9007199254740991");
    }

    #[test]
    fn an_object_that_looks_marked_is_still_the_programs_own() {
        for name in ["$int", "$bytes", "$array", "$$int", "$", "$else"] {
            let value = Value::map([(name, "x".into())]);
            assert_eq!(round(&value), value, "{name}");
        }
        // Written by somebody who does not know of marks.
        assert_eq!(Value::from_json(br#"{"$else":1}"#).unwrap(), Value::map([("$else", 1.into())]));
    }

    #[test]
    fn wrong_marks_are_refused() {
        for text in [
            r#"{"$int":"1x"}"#,
            r#"{"$int":1}"#,
            r#"{"$bytes":"?"}"#,
            r#"{"$array":{"type":"f64","shape":[2],"data":"AAAA"}}"#,
            r#"{"$array":{"type":"f64","shape":[4611686018427387904,8],"data":""}}"#,
        ] {
            assert!(Value::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}
