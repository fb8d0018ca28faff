//! Values as bytes: bytes and text as they are, anything else in a compact form that describes itself and
//! keeps every value exactly.

use bytes::{BufMut, Bytes, BytesMut};
use kps_proto::{Error, ErrorKind};
use num_bigint::BigInt;

use super::super::{Array, Failure, Map, NumberKind, Value};
use crate::store::values::Content;

/// Bytes as they are.
pub(super) const BYTES: u8 = 0;
/// UTF-8.
pub(super) const TEXT: u8 = 1;
/// A tag and what it announces, see [`tag`].
pub(super) const TAGGED: u8 = 2;

/// Lists and objects within each other at most.
const MAX_DEPTH: usize = 128;

/// Lengths and counts are LEB128, so are integers after zigzag.
mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
    pub(super) const INT: u8 = 3;
    /// Length, two's complement in little endian.
    pub(super) const BIG: u8 = 4;
    /// 8 bytes in little endian.
    pub(super) const FLOAT: u8 = 5;
    pub(super) const TEXT: u8 = 6;
    pub(super) const BYTES: u8 = 7;
    /// Count, members.
    pub(super) const LIST: u8 = 8;
    /// Count; per member its name as length and text, its value.
    pub(super) const MAP: u8 = 9;
    /// The kind's place in `NumberKind::ALL`, count of dimensions, dimensions, length, bytes.
    pub(super) const ARRAY: u8 = 10;
}

/// A value as it is kept.
///
/// # Errors
/// `invalid_payload` if it holds a function or goes too deep.
pub(super) fn encode(value: Value) -> Result<Content, Failure> {
    match value {
        Value::Bytes(bytes) => Ok(Content { kind: BYTES, bytes }),
        Value::Text(text) => Ok(Content { kind: TEXT, bytes: text.into() }),
        value => {
            let mut out = BytesMut::new();
            put(&mut out, &value, 0)?;
            Ok(Content { kind: TAGGED, bytes: out.freeze() })
        }
    }
}

/// What [`encode`] was given.
pub(super) fn decode(content: Content) -> Result<Value, Failure> {
    let found = match content.kind {
        BYTES => Some(Value::Bytes(content.bytes)),
        TEXT => String::from_utf8(content.bytes.into()).ok().map(Value::Text),
        TAGGED => {
            let mut rest = content.bytes;
            take(&mut rest, 0).filter(|_| rest.is_empty())
        }
        _ => None,
    };
    found.ok_or_else(|| {
        Error::new(ErrorKind::StoreCorrupt, "a value is not in a form that kps writes").into()
    })
}

fn put(out: &mut BytesMut, value: &Value, depth: usize) -> Result<(), Failure> {
    if depth > MAX_DEPTH {
        let sentence = format!("the value goes deeper than {MAX_DEPTH} lists and objects");
        return Err(Failure::field("value", sentence));
    }
    match value {
        Value::Null => out.put_u8(tag::NULL),
        Value::Bool(false) => out.put_u8(tag::FALSE),
        Value::Bool(true) => out.put_u8(tag::TRUE),
        Value::Int(number) => {
            out.put_u8(tag::INT);
            put_count(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
        }
        Value::Big(number) => {
            out.put_u8(tag::BIG);
            put_slice(out, &number.to_signed_bytes_le());
        }
        Value::Float(number) => {
            out.put_u8(tag::FLOAT);
            out.put_f64_le(*number);
        }
        Value::Text(text) => {
            out.put_u8(tag::TEXT);
            put_slice(out, text.as_bytes());
        }
        Value::Bytes(bytes) => {
            out.put_u8(tag::BYTES);
            put_slice(out, bytes);
        }
        Value::List(list) => {
            out.put_u8(tag::LIST);
            put_count(out, list.len() as u64);
            for member in list {
                put(out, member, depth + 1)?;
            }
        }
        Value::Map(map) => {
            out.put_u8(tag::MAP);
            put_count(out, map.len() as u64);
            for (name, member) in map.iter() {
                put_slice(out, name.as_bytes());
                put(out, member, depth + 1)?;
            }
        }
        Value::Array(array) => {
            let kind = NumberKind::ALL.iter().position(|kind| *kind == array.kind);
            out.put_u8(tag::ARRAY);
            out.put_u8(kind.unwrap_or(0) as u8);
            put_count(out, array.shape.len() as u64);
            for length in &array.shape {
                put_count(out, *length as u64);
            }
            put_slice(out, &array.bytes);
        }
        Value::Callback(_) => {
            return Err(Failure::field(
                "value",
                "the value holds a function, which cannot be kept",
            ));
        }
    }
    Ok(())
}

fn put_count(out: &mut BytesMut, mut count: u64) {
    while count >= 0x80 {
        out.put_u8(count as u8 | 0x80);
        count >>= 7;
    }
    out.put_u8(count as u8);
}

fn put_slice(out: &mut BytesMut, bytes: &[u8]) {
    put_count(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// `None`: what is there was not written by [`put`].
fn take(rest: &mut Bytes, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    Some(match take_byte(rest)? {
        tag::NULL => Value::Null,
        tag::FALSE => Value::Bool(false),
        tag::TRUE => Value::Bool(true),
        tag::INT => {
            let zigzag = take_count(rest)?;
            Value::Int((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()))
        }
        tag::BIG => Value::big(BigInt::from_signed_bytes_le(&take_slice(rest)?)),
        tag::FLOAT => Value::Float(f64::from_le_bytes(*take_exactly(rest, 8)?.first_chunk()?)),
        tag::TEXT => Value::Text(take_text(rest)?),
        tag::BYTES => Value::Bytes(take_slice(rest)?),
        tag::LIST => {
            let count = take_members(rest)?;
            Value::List((0..count).map(|_| take(rest, depth + 1)).collect::<Option<_>>()?)
        }
        tag::MAP => {
            let count = take_members(rest)?;
            let member = |_| Some((take_text(rest)?, take(rest, depth + 1)?));
            Value::Map((0..count).map(member).collect::<Option<Map>>()?)
        }
        tag::ARRAY => {
            let kind = *NumberKind::ALL.get(usize::from(take_byte(rest)?))?;
            let dimensions = take_members(rest)?;
            let length = |_| usize::try_from(take_count(rest)?).ok();
            let shape = (0..dimensions).map(length).collect::<Option<Vec<_>>>()?;
            Value::Array(Box::new(Array { kind, shape, bytes: take_slice(rest)? }))
        }
        _ => return None,
    })
}

fn take_byte(rest: &mut Bytes) -> Option<u8> {
    take_exactly(rest, 1).map(|byte| byte[0])
}

fn take_exactly(rest: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= rest.len()).then(|| rest.split_to(length))
}

fn take_count(rest: &mut Bytes) -> Option<u64> {
    let mut count = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(rest)?;
        count |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(count);
        }
    }
    None
}

/// A count of what takes a byte each at least.
fn take_members(rest: &mut Bytes) -> Option<usize> {
    usize::try_from(take_count(rest)?).ok().filter(|count| *count <= rest.len())
}

fn take_slice(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(take_count(rest)?).ok()?;
    take_exactly(rest, length)
}

fn take_text(rest: &mut Bytes) -> Option<String> {
    String::from_utf8(take_slice(rest)?.into()).ok()
}

/// JSON for queries: what JSON has no word for is `null`. Bytes have no JSON at all.
pub(super) fn render(kind: u8, bytes: &[u8]) -> Option<String> {
    if kind == BYTES {
        return None;
    }
    let value = decode(Content { kind, bytes: Bytes::copy_from_slice(bytes) }).ok()?;
    let mut out = String::new();
    write_json(&mut out, &value);
    Some(out)
}

fn write_json(out: &mut String, value: &Value) {
    use std::fmt::Write;
    // Writing to a string does not fail.
    let _ = match value {
        Value::Bool(flag) => write!(out, "{flag}"),
        Value::Int(number) => write!(out, "{number}"),
        Value::Big(number) => write!(out, "{number}"),
        Value::Float(number) if number.is_finite() => write!(out, "{number:?}"),
        Value::Text(text) => {
            out.push_str(&serde_json::Value::from(&**text).to_string());
            Ok(())
        }
        Value::List(list) => {
            out.push('[');
            for (place, member) in list.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { "," });
                write_json(out, member);
            }
            out.push(']');
            Ok(())
        }
        Value::Map(map) => {
            out.push('{');
            for (place, (name, member)) in map.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { "," });
                out.push_str(&serde_json::Value::from(name).to_string());
                out.push(':');
                write_json(out, member);
            }
            out.push('}');
            Ok(())
        }
        Value::Null | Value::Float(_) | Value::Bytes(_) | Value::Array(_) | Value::Callback(_) => {
            write!(out, "null")
        }
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<i128>().prop_map(|number| Value::big(BigInt::from(number) * 3)),
            any::<f64>().prop_map(Value::Float),
            ".{0,8}".prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(bytes.into())),
            Just(Value::from(Array {
                kind: NumberKind::I16,
                shape: vec![2, 1],
                bytes: Bytes::from_static(&[1, 2, 3, 4]),
            })),
        ];
        leaf.prop_recursive(4, 32, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
                prop::collection::vec((".{0,5}", inner), 0..5)
                    .prop_map(|members| Value::Map(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_comes_back_exactly(value in values()) {
            let back = decode(encode(value.clone()).unwrap()).unwrap();
            // NaN is not equal to itself.
            prop_assert_eq!(format!("{back:?}"), format!("{value:?}"));
        }

        #[test]
        fn bytes_that_nobody_wrote_are_refused_or_read(bytes: Vec<u8>) {
            let _ = decode(Content { kind: TAGGED, bytes: bytes.into() });
        }
    }

    #[test]
    fn a_value_that_goes_too_deep_is_refused() {
        let deep = |depth| (0..depth).fold(Value::Null, |value, _| Value::List(vec![value]));
        decode(encode(deep(MAX_DEPTH)).unwrap()).unwrap();
        assert_eq!(encode(deep(MAX_DEPTH + 1)).unwrap_err().field.as_deref(), Some("value"));
    }

    #[test]
    fn queries_see_json() {
        let value = Value::map([
            ("a", Value::List(vec![1.into(), 2.5.into(), f64::NAN.into(), Value::Null])),
            ("\"", Value::big(BigInt::from(u64::MAX))),
            ("c", Bytes::from_static(b"x").into()),
            ("d", 3.0.into()),
        ]);
        let Content { kind, bytes } = encode(value).unwrap();
        let json = render(kind, &bytes).unwrap();
        assert_eq!(json, r#"{"a":[1,2.5,null,null],"\"":18446744073709551615,"c":null,"d":3.0}"#);
    }
}
