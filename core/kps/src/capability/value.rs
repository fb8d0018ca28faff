//! What calls carry: JSON, and what JSON has no word for — bytes, exact integers, arrays of numbers.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use num_bigint::BigInt;

/// A value of a call's payload or answer, the same in every language.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `null`, `None`.
    #[default]
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer of 64 bit.
    Int(i64),
    /// A larger one; never one that fits an `Int`: see [`Value::big`].
    Big(Box<BigInt>),
    /// A double. JSON has none that is not finite: those are written `null`.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes; on the wire `{"$bytes": "base64"}`.
    Bytes(Bytes),
    /// A list.
    List(Vec<Value>),
    /// An object; the order of its members is kept.
    Map(Map),
    /// Numbers of one type, in memory shared with the program where the language allows that.
    Array(Box<Array>),
    /// Something to call, in this process: no other process can be given one.
    Callback(Callback),
}

impl Value {
    /// The integer, in its one form.
    pub fn big(number: BigInt) -> Value {
        match i64::try_from(&number) {
            Ok(small) => Value::Int(small),
            Err(_) => Value::Big(Box::new(number)),
        }
    }

    /// An object with these members.
    pub fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
        Value::Map(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The member of an object; `None` also if this is none.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Map(map) => map.get(name),
            _ => None,
        }
    }

    /// What it is, for sentences.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Big(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "a list",
            Value::Map(_) => "an object",
            Value::Array(_) => "an array of numbers",
            Value::Callback(_) => "a function",
        }
    }

    /// Bytes it takes in memory, about: for bounds.
    pub fn weight(&self) -> usize {
        const ONE: usize = size_of::<Value>();
        ONE + match self {
            Value::Big(number) => number.bits() as usize / 8,
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(list) => list.iter().map(Value::weight).sum(),
            Value::Map(map) => map
                .iter()
                .map(|(name, value)| size_of::<String>() + name.len() + value.weight())
                .sum(),
            Value::Array(array) => array.bytes.len(),
            _ => 0,
        }
    }
}

macro_rules! from {
    ($($type:ty => $make:expr;)*) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Value {
                ($make)(value)
            }
        })*
    };
}

from! {
    bool => Value::Bool;
    i64 => Value::Int;
    i32 => |n| Value::Int(i64::from(n));
    u32 => |n| Value::Int(i64::from(n));
    u64 => |n| i64::try_from(n).map_or_else(|_| Value::big(BigInt::from(n)), Value::Int);
    usize => |n| Value::from(n as u64);
    f64 => Value::Float;
    String => Value::Text;
    &str => |text: &str| Value::Text(text.to_owned());
    Bytes => Value::Bytes;
    Vec<Value> => Value::List;
    Map => Value::Map;
    BigInt => Value::big;
    Array => |array| Value::Array(Box::new(array));
    () => |()| Value::Null;
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// An object's members, in their order. Looking one up walks them: payloads have few.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(Vec<(String, Value)>);

impl Map {
    /// The member called `name`; the last, if several are.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// Takes the member out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().rposition(|(own, _)| own == name)?;
        Some(self.0.remove(at).1)
    }

    /// Adds a member at the end.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.push((name.into(), value.into()));
    }

    /// The members in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(members: I) -> Self {
        Map(members.into_iter().collect())
    }
}

impl IntoIterator for Map {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Numbers of one type in native byte order, by rows.
#[derive(Clone, PartialEq)]
pub struct Array {
    /// Their type.
    pub kind: NumberKind,
    /// The length of each dimension; their product is the count.
    pub shape: Vec<usize>,
    /// The numbers. Not copied from the program where its language allows that.
    pub bytes: Bytes,
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({} {:?})", self.kind.name(), self.shape)
    }
}

/// The types of numbers in an [`Array`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum NumberKind {
    F64,
    F32,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
}

impl NumberKind {
    /// Every kind.
    pub const ALL: [NumberKind; 10] = {
        use NumberKind::*;
        [F64, F32, I64, I32, I16, I8, U64, U32, U16, U8]
    };

    /// Its name on the wire: `f64`.
    pub const fn name(self) -> &'static str {
        match self {
            NumberKind::F64 => "f64",
            NumberKind::F32 => "f32",
            NumberKind::I64 => "i64",
            NumberKind::I32 => "i32",
            NumberKind::I16 => "i16",
            NumberKind::I8 => "i8",
            NumberKind::U64 => "u64",
            NumberKind::U32 => "u32",
            NumberKind::U16 => "u16",
            NumberKind::U8 => "u8",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<NumberKind> {
        NumberKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Bytes of one number.
    pub const fn size(self) -> usize {
        match self {
            NumberKind::F64 | NumberKind::I64 | NumberKind::U64 => 8,
            NumberKind::F32 | NumberKind::I32 | NumberKind::U32 => 4,
            NumberKind::I16 | NumberKind::U16 => 2,
            NumberKind::I8 | NumberKind::U8 => 1,
        }
    }
}

/// A function of the program that calls may be given: a subscriber's, one that is told of progress.
#[derive(Clone)]
pub struct Callback(Arc<dyn Fn(Value) + Send + Sync>);

impl Callback {
    /// Wraps `function`, which must not block: it may be called on any thread.
    pub fn new(function: impl Fn(Value) + Send + Sync + 'static) -> Self {
        Callback(Arc::new(function))
    }

    /// Calls it.
    pub fn call(&self, value: Value) {
        (self.0)(value);
    }
}

impl PartialEq for Callback {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}
