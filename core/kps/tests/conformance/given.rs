//! What calls are given and answer, as cases write it.

use kps::capability::{Array, Callback, NumberKind, Value as Given};
use serde_json::{Value, json};

/// What a case writes, as calls carry it; `callback` makes a function that logs under a name.
pub(crate) fn given(value: &Value, callback: &dyn Fn(&str) -> Callback) -> Given {
    match value {
        Value::Array(items) => {
            Given::List(items.iter().map(|item| given(item, callback)).collect())
        }
        Value::Object(fields) => match fields.iter().next() {
            Some((mark, value)) if mark.starts_with('$') => marked(mark, value, callback),
            _ => Given::Map(
                fields.iter().map(|(name, value)| (name.clone(), given(value, callback))).collect(),
            ),
        },
        _ => literal(value),
    }
}

fn marked(mark: &str, value: &Value, callback: &dyn Fn(&str) -> Callback) -> Given {
    match mark {
        "$as_is" => literal(value),
        "$callback" => Given::Callback(callback(value.as_str().expect("a name"))),
        "$repeat" => Given::Text(crate::value::text(&json!({ mark: value }))),
        "$times" => {
            let (item, times) = (given(&value[0], callback), crate::value::int(&value[1]));
            Given::List(vec![item; times])
        }
        "$array" => array(value).into(),
        "$ramp" => Given::Bytes((0..=250).cycle().take(crate::value::int(value)).collect()),
        "$read" => {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
            let path = std::path::Path::new(root).join(value.as_str().expect("a path"));
            Given::Bytes(std::fs::read(path).expect("a file of this repository").into())
        }
        "$bytes" | "$int" => {
            let text = json!({ mark: value }).to_string();
            Given::from_json(text.as_bytes()).expect("base64, or digits")
        }
        other => panic!("a case cannot give {other}"),
    }
}

/// The value, whatever it looks like.
fn literal(value: &Value) -> Given {
    match value {
        Value::Array(items) => Given::List(items.iter().map(literal).collect()),
        Value::Object(fields) => {
            Given::Map(fields.iter().map(|(name, value)| (name.clone(), literal(value))).collect())
        }
        plain => Given::from_json(plain.to_string().as_bytes()).expect("JSON"),
    }
}

fn array(value: &Value) -> Array {
    let kind = value["type"].as_str().and_then(NumberKind::from_name).expect("a type of numbers");
    let numbers = value["numbers"].as_array().expect("numbers");
    let shape = value["shape"]
        .as_array()
        .map_or_else(|| vec![numbers.len()], |shape| shape.iter().map(crate::value::int).collect());
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| match kind {
            NumberKind::F64 => number.as_f64().expect("a number").to_ne_bytes().to_vec(),
            NumberKind::I32 => i32::try_from(number.as_i64().expect("integers"))
                .expect("32 bits")
                .to_ne_bytes()
                .to_vec(),
            NumberKind::I64 => number.as_i64().expect("integers").to_ne_bytes().to_vec(),
            NumberKind::U8 => {
                vec![u8::try_from(number.as_u64().expect("integers")).expect("8 bits")]
            }
            other => panic!("cases write no {}", other.name()),
        })
        .collect();
    Array { kind, shape, bytes: bytes.into() }
}

/// What a call carries, as a case writes it.
pub(crate) fn seen(value: &Given) -> Value {
    match value {
        Given::List(items) => items.iter().map(seen).collect(),
        Given::Map(map) => {
            let fields: Value =
                map.iter().map(|(name, value)| (name.to_owned(), seen(value))).collect();
            let looks_marked = map.len() == 1 && map.iter().all(|(name, _)| name.starts_with('$'));
            if looks_marked { json!({ "$as_is": fields }) } else { fields }
        }
        Given::Array(array) => {
            let size = array.kind.size();
            let numbers: Value =
                array.bytes.chunks(size).map(|bytes| number(array.kind, bytes)).collect();
            let shape = &array.shape;
            json!({ "$array": { "type": array.kind.name(), "shape": shape, "numbers": numbers } })
        }
        Given::Callback(_) => json!({ "$callback": null }),
        plain => serde_json::from_slice(&plain.to_json().expect("JSON")).expect("JSON"),
    }
}

fn number(kind: NumberKind, bytes: &[u8]) -> Value {
    let wide = || bytes.try_into().expect("8 bytes");
    match kind {
        NumberKind::F64 => json!(f64::from_ne_bytes(wide())),
        NumberKind::I64 => json!(i64::from_ne_bytes(wide())),
        NumberKind::I32 => json!(i32::from_ne_bytes(bytes.try_into().expect("4 bytes"))),
        NumberKind::U8 => json!(bytes[0]),
        other => panic!("cases read no {}", other.name()),
    }
}
