//! Reading arrays: numbers in memory, or lists of numbers, which may be nested.

use bytes::Bytes;
use num_bigint::BigInt;
use num_traits::ToPrimitive;

use super::{super::task::Run, CHUNK};
use crate::capability::{Array, Failure, NumberKind, Value, wrong};

/// An array, and how it was given.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) array: Array,
    /// As a list: answers are lists, too.
    pub(super) list: bool,
}

impl Numbers {
    /// Other numbers of the same kind and shape, given as these were.
    pub(super) fn like(&self, bytes: Bytes) -> Value {
        let array = Array { bytes, ..self.array.clone() };
        if self.list { listed(&array) } else { array.into() }
    }
}

/// Dimensions at most, as in NumPy.
const DIMENSIONS: usize = 64;

/// Reads the field `name`.
///
/// # Errors
/// `invalid_payload`: it holds something else.
pub(super) fn numbers(name: &str, value: Value, run: &Run<'_>) -> Result<Numbers, Failure> {
    match value {
        Value::Array(array) => {
            let count = array.shape.iter().try_fold(1usize, |all, n| all.checked_mul(*n));
            let bytes = count.and_then(|count| count.checked_mul(array.kind.size()));
            if bytes != Some(array.bytes.len()) || array.shape.len() > DIMENSIONS {
                let sentence = format!(
                    "{name} has {} bytes, which is not what its shape {:?} of {} says",
                    array.bytes.len(),
                    array.shape,
                    array.kind.name()
                );
                return Err(Failure::field(name, sentence));
            }
            Ok(Numbers { array: *array, list: false })
        }
        list @ Value::List(_) => {
            let mut shape = Vec::new();
            let mut kind = Seen::default();
            look(name, &list, 0, &mut shape, &mut kind, run)?;
            let kind = kind.kind();
            let mut bytes = Vec::with_capacity(shape.iter().product::<usize>() * kind.size());
            write(&list, kind, &mut bytes, run)?;
            let array = Array { kind, shape, bytes: Bytes::from(bytes) };
            Ok(Numbers { array, list: true })
        }
        other => Err(wrong(name, &other, "an array or a list of numbers")),
    }
}

/// How many numbers a task is given, about; for the choice where to run it.
pub(in super::super) fn length(data: &Value) -> usize {
    match data {
        Value::Array(array) => array.bytes.len() / array.kind.size(),
        Value::List(list) if list.len() <= 4096 => list.iter().map(length).sum(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.iter().map(|(_, value)| length(value)).sum(),
        _ => 1,
    }
}

/// The sum of a flat list of integers, if some do not fit the arrays' numbers.
pub(super) fn sum_of_large(data: &Value) -> Option<Value> {
    let list = match data {
        Value::Map(map) if map.len() == 1 => map.get("array")?,
        other => other,
    };
    let Value::List(list) = list else { return None };
    let mut sum = BigInt::ZERO;
    let mut large = false;
    for number in list {
        match number {
            Value::Int(number) => sum += *number,
            Value::Big(number) => {
                large = true;
                sum += &**number;
            }
            _ => return None,
        }
    }
    large.then(|| Value::big(sum))
}

/// What was seen in a list.
#[derive(Default)]
struct Seen {
    float: bool,
    negative: bool,
    above_i64: bool,
    above_u64: bool,
}

impl Seen {
    fn kind(&self) -> NumberKind {
        match self {
            Seen { float: true, .. } | Seen { above_u64: true, .. } => NumberKind::F64,
            Seen { above_i64: true, negative: true, .. } => NumberKind::F64,
            Seen { above_i64: true, .. } => NumberKind::U64,
            _ => NumberKind::I64,
        }
    }
}

fn look(
    name: &str,
    value: &Value,
    depth: usize,
    shape: &mut Vec<usize>,
    seen: &mut Seen,
    run: &Run<'_>,
) -> Result<(), Failure> {
    let list = match value {
        Value::List(list) => list,
        other if depth < shape.len() || !number(other, seen) => {
            let wanted = if depth < shape.len() { "a list, as the first is" } else { "a number" };
            return Err(wrong(name, other, &format!("a list of numbers; each is {wanted}")));
        }
        _ => return Ok(()),
    };
    let nested = matches!(list.first(), Some(Value::List(_)));
    match shape.get(depth) {
        None if depth == DIMENSIONS => {
            return Err(Failure::field(
                name,
                format!("{name} has more than {DIMENSIONS} dimensions"),
            ));
        }
        None => shape.push(list.len()),
        Some(length) if *length == list.len() => {}
        Some(length) => {
            let sentence =
                format!("the rows of {name} differ in length: {length} and {}", list.len());
            return Err(Failure::field(name, sentence));
        }
    }
    if !nested && shape.len() > depth + 1 {
        return Err(Failure::field(name, format!("{name} mixes numbers and lists")));
    }
    for items in list.chunks(CHUNK) {
        run.check()?;
        for item in items {
            if !nested && matches!(item, Value::List(_)) {
                return Err(Failure::field(name, format!("{name} mixes numbers and lists")));
            }
            look(name, item, depth + 1, shape, seen, run)?;
        }
    }
    Ok(())
}

fn number(value: &Value, seen: &mut Seen) -> bool {
    match value {
        Value::Int(number) => seen.negative |= *number < 0,
        // JSON writes what is no number as null.
        Value::Float(_) | Value::Null => seen.float = true,
        Value::Big(number) => match u64::try_from(&**number) {
            Ok(_) => seen.above_i64 = true,
            Err(_) => seen.above_u64 = true,
        },
        _ => return false,
    }
    true
}

fn write(
    value: &Value,
    kind: NumberKind,
    bytes: &mut Vec<u8>,
    run: &Run<'_>,
) -> Result<(), Failure> {
    match (value, kind) {
        (Value::List(list), _) => {
            for values in list.chunks(CHUNK) {
                run.check()?;
                values.iter().try_for_each(|value| write(value, kind, bytes, run))?;
            }
        }
        (value, NumberKind::F64) => {
            let number = match value {
                Value::Int(number) => *number as f64,
                Value::Float(number) => *number,
                Value::Big(number) => number.to_f64().unwrap_or(f64::NAN),
                _ => f64::NAN,
            };
            bytes.extend(number.to_ne_bytes());
        }
        // Both have eight bytes, and only u64 has those above i64.
        (Value::Int(number), _) => bytes.extend(number.to_ne_bytes()),
        (Value::Big(number), _) => {
            bytes.extend(u64::try_from(&**number).unwrap_or(0).to_ne_bytes());
        }
        _ => {}
    }
    Ok(())
}

/// The array as lists.
pub(super) fn listed(array: &Array) -> Value {
    let values: Vec<Value> = super::with_view!(array, |view| {
        view.numbers().iter().map(|number| super::number::Number::value(*number)).collect()
    });
    nested(&mut values.into_iter(), &array.shape)
}

/// Not generic: each dimension would be a type of its own.
fn nested(values: &mut dyn Iterator<Item = Value>, shape: &[usize]) -> Value {
    match shape {
        [] => values.next().unwrap_or_default(),
        [length] => values.take(*length).collect::<Vec<_>>().into(),
        [length, rest @ ..] => {
            (0..*length).map(|_| nested(values, rest)).collect::<Vec<_>>().into()
        }
    }
}
