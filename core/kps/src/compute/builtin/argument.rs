//! What a task is given: `{"n": 10}`, or just `10` where there is one argument.

use kps_proto::ErrorKind;
use num_bigint::BigInt;

use crate::capability::{Failure, Fields, Value, missing, wrong};

/// Reads what a task is given.
#[derive(Debug)]
pub(in super::super) struct Argument;

impl Argument {
    /// The one argument.
    ///
    /// # Errors
    /// `invalid_payload`: it is missing, or there are others.
    pub(in super::super) fn only(name: &str, data: Value) -> Result<Value, Failure> {
        match data {
            Value::Map(_) => {
                let mut fields = Fields::of(data)?;
                let value = fields.given(name).ok_or_else(|| missing(name))?;
                fields.done()?;
                Ok(value)
            }
            Value::Null => Err(missing(name)),
            bare => Ok(bare),
        }
    }

    /// The one argument, an integer.
    ///
    /// # Errors
    /// `invalid_payload`: it is none.
    pub(in super::super) fn integer(name: &str, data: Value) -> Result<BigInt, Failure> {
        match Self::only(name, data)? {
            Value::Int(number) => Ok(number.into()),
            Value::Big(number) => Ok(*number),
            // Languages with one type of numbers say 10.0.
            Value::Float(number) if number.fract() == 0.0 && number.abs() < EXACT => {
                Ok((number as i64).into())
            }
            other => Err(wrong(name, &other, "an integer")),
        }
    }

    /// The one argument, an integer from 0 to `most`.
    ///
    /// # Errors
    /// `invalid_payload`: it is none; `too_large`: it is above.
    pub(in super::super) fn count(
        task: &str,
        name: &str,
        data: Value,
        most: u64,
    ) -> Result<u64, Failure> {
        let number = Self::integer(name, data)?;
        if number.sign() == num_bigint::Sign::Minus {
            let sentence = format!("{name} is {}; it is an integer from 0", shown(&number));
            return Err(Failure::field(name, sentence));
        }
        match u64::try_from(&number) {
            Ok(number) if number <= most => Ok(number),
            _ => Err(too_large(
                name,
                format!("{task}({}) is refused: {name} is at most {most}", shown(&number)),
            )),
        }
    }
}

/// Doubles are exact integers below this.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// `too_large` because of this field.
#[cold]
pub(in super::super) fn too_large(name: &str, message: String) -> Failure {
    Failure { field: Some(name.to_owned()), ..Failure::new(ErrorKind::TooLarge, message) }
}

/// Whether the argument is an integer below `limit` or so wrong that it is refused at once.
pub(super) fn is_below(name: &str, data: &Value, limit: i64) -> bool {
    match data {
        Value::Map(map) => map.get(name).is_none_or(|value| is_below(name, value, limit)),
        Value::Int(number) => *number < limit,
        Value::Float(number) => *number < limit as f64,
        Value::Big(_) => false,
        _ => true,
    }
}

/// A number in a sentence; a long one by its length.
pub(super) fn shown(number: &BigInt) -> String {
    match number.bits() {
        0..=128 => number.to_string(),
        bits => format!("an integer of {bits} bits"),
    }
}
