//! Reading an operation's payload field by field; whatever is wrong is refused by its name.

use std::time::Duration;

use bytes::Bytes;

use super::{Callback, Failure, Map, Value};

/// The fields of a payload that were not read yet.
#[derive(Debug)]
pub struct Fields(Map);

impl Fields {
    /// The fields of an object; nothing at all has none.
    ///
    /// # Errors
    /// `invalid_payload` for anything else.
    pub fn of(payload: Value) -> Result<Fields, Failure> {
        match payload {
            Value::Map(map) => Ok(Fields(map)),
            Value::Null => Ok(Fields(Map::default())),
            other => {
                let sentence = format!("the payload is {}; it is an object", other.kind());
                Err(Failure::new(kps_proto::ErrorKind::InvalidPayload, sentence))
            }
        }
    }

    /// The field, whatever it holds.
    pub fn any(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// The field, unless it is missing or `null`.
    pub fn given(&mut self, name: &str) -> Option<Value> {
        self.any(name).filter(|value| *value != Value::Null)
    }

    /// A field that must be there, and may be `null`.
    pub fn value(&mut self, name: &str) -> Result<Value, Failure> {
        self.any(name).ok_or_else(|| missing(name))
    }

    /// A string that must be there.
    pub fn text(&mut self, name: &str) -> Result<String, Failure> {
        self.optional_text(name)?.ok_or_else(|| missing(name))
    }

    /// A string.
    pub fn optional_text(&mut self, name: &str) -> Result<Option<String>, Failure> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, &other, "a string")),
        }
    }

    /// `true` or `false`; `false` if it is missing.
    pub fn flag(&mut self, name: &str) -> Result<bool, Failure> {
        match self.given(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(wrong(name, &other, "true or false")),
        }
    }

    /// A whole number from 0.
    pub fn count(&mut self, name: &str) -> Result<Option<u64>, Failure> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::Int(number)) if number >= 0 => Ok(Some(number as u64)),
            Some(Value::Float(number))
                if number >= 0.0 && number.fract() == 0.0 && number < 9e15 =>
            {
                Ok(Some(number as u64))
            }
            Some(Value::Int(number)) => Err(Failure::field(
                name,
                format!("{name} is {number}; it is a whole number from 0"),
            )),
            Some(other) => Err(wrong(name, &other, "a whole number from 0")),
        }
    }

    /// A number.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>, Failure> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::Int(number)) => Ok(Some(number as f64)),
            Some(Value::Float(number)) => Ok(Some(number)),
            Some(other) => Err(wrong(name, &other, "a number")),
        }
    }

    /// A duration in seconds, more than 0 and at most a hundred years.
    pub fn seconds(&mut self, name: &str) -> Result<Option<Duration>, Failure> {
        const MOST: f64 = 100.0 * 366.0 * 86_400.0;
        match self.number(name)? {
            None => Ok(None),
            Some(seconds) if seconds > 0.0 && seconds <= MOST => {
                Ok(Some(Duration::from_secs_f64(seconds)))
            }
            Some(seconds) => Err(Failure::field(
                name,
                format!(
                    "{name} is {seconds}; it is a number of seconds above 0, at most a hundred years"
                ),
            )),
        }
    }

    /// Bytes, or a string's in UTF-8.
    pub fn bytes(&mut self, name: &str) -> Result<Option<Bytes>, Failure> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Value::Text(text)) => Ok(Some(text.into())),
            Some(Value::Array(array)) => Ok(Some(array.bytes)),
            Some(other) => Err(wrong(name, &other, "bytes or a string")),
        }
    }

    /// A list that must be there.
    pub fn list(&mut self, name: &str) -> Result<Vec<Value>, Failure> {
        match self.given(name) {
            None => Err(missing(name)),
            Some(Value::List(list)) => Ok(list),
            Some(other) => Err(wrong(name, &other, "a list")),
        }
    }

    /// A function.
    pub fn callback(&mut self, name: &str) -> Result<Option<Callback>, Failure> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::Callback(callback)) => Ok(Some(callback)),
            Some(other) => Err(wrong(name, &other, "a function")),
        }
    }

    /// That all fields were read: an unknown one is refused.
    pub fn done(self) -> Result<(), Failure> {
        match self.0.iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                Err(Failure::field(name, format!("this operation has no field {name:?}")))
            }
        }
    }
}

/// `invalid_payload`: the field is missing.
pub fn missing(name: &str) -> Failure {
    Failure::field(name, format!("the field {name:?} is missing"))
}

/// `invalid_payload`: the field holds something else than `wanted`.
pub fn wrong(name: &str, found: &Value, wanted: &str) -> Failure {
    Failure::field(name, format!("{name} is {}; it is {wanted}", found.kind()))
}
