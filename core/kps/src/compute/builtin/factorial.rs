//! Factorials by a tree of products.

use num_bigint::{BigInt, BigUint};

use super::{super::task::Run, argument::Argument, multiply::multiply};
use crate::capability::{Failure, Outcome, Value};

/// The largest `n`: an answer of 2.3 MB.
pub(super) const MOST: u64 = 1_000_000;

pub(super) fn run(data: Value, run: &Run<'_>) -> Outcome {
    let n = Argument::count("factorial", "n", data, MOST)?;
    Ok(Value::big(BigInt::from(product(2, n, run)?)))
}

/// The product of `first` to `last`; 1 if there are none.
fn product(first: u64, last: u64, run: &Run<'_>) -> Result<BigUint, Failure> {
    if last.saturating_sub(first) < 32 {
        return Ok(few(first, last));
    }
    let middle = first.midpoint(last);
    multiply(&product(first, middle, run)?, &product(middle + 1, last, run)?, run)
}

fn few(first: u64, last: u64) -> BigUint {
    let mut product = BigUint::from(1u8);
    let mut word = 1u64;
    for factor in first..=last {
        word = word.checked_mul(factor).unwrap_or_else(|| {
            product *= word;
            factor
        });
    }
    product * word
}
