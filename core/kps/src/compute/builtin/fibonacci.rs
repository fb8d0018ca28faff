//! Fibonacci numbers by doubling.

use num_bigint::{BigInt, BigUint};

use super::{
    super::task::Run,
    argument::Argument,
    multiply::{multiply, square},
};
use crate::capability::{Failure, Outcome, Value};

/// The largest `n`: an answer of 868 KB.
pub(super) const MOST: u64 = 10_000_000;

pub(super) fn run(data: Value, run: &Run<'_>) -> Outcome {
    let n = Argument::count("fibonacci", "n", data, MOST)?;
    Ok(Value::big(BigInt::from(fibonacci(n, run)?)))
}

fn fibonacci(n: u64, run: &Run<'_>) -> Result<BigUint, Failure> {
    let mut bits = (64 - n.leading_zeros()).saturating_sub(6);
    // F(k) and F(k - 1), where k is n without its last bits.
    let (mut this, mut last) = small(n >> bits);
    while bits > 1 {
        bits -= 1;
        // F(2k+1) = 4 F(k)² - F(k-1)² ± 2 and F(2k-1) = F(k)² + F(k-1)²: two squares a step.
        let (a, b) = (square(&this, run)?, square(&last, run)?);
        let after = plus_minus_two((&a << 2) - &b, n >> (bits + 1));
        let before = a + b;
        let double = &after - &before;
        (this, last) = if (n >> bits) & 1 == 0 { (double, before) } else { (after, double) };
    }
    if bits == 0 {
        return Ok(this);
    }
    // The last step needs one number, which is one product.
    if n & 1 == 0 {
        multiply(&this, &(&this + (&last << 1)), run)
    } else {
        let double = &this << 1;
        Ok(plus_minus_two(multiply(&(&double + &last), &(&double - &last), run)?, n >> 1))
    }
}

/// `+ 2 (-1)^k`.
fn plus_minus_two(number: BigUint, k: u64) -> BigUint {
    if k.is_multiple_of(2) { number + 2u8 } else { number - 2u8 }
}

/// F(k) and F(k - 1) for k below 64; F(-1), were it needed, is 1.
fn small(k: u64) -> (BigUint, BigUint) {
    let (mut this, mut last) = (0u64, 1u64);
    for _ in 0..k {
        (this, last) = (this + last, this);
    }
    (this.into(), last.into())
}

#[cfg(test)]
mod tests {
    use super::{super::super::stop::Stop, *};

    #[test]
    fn doubling_gives_what_adding_gives() {
        let stop = Stop::default();
        let run = Run { stop: &stop, workers: None };
        let (mut this, mut next) = (BigUint::ZERO, BigUint::from(1u8));
        for n in 0..3_000 {
            assert_eq!(fibonacci(n, &run).unwrap(), this, "fibonacci({n})");
            (this, next) = (next.clone(), this + next);
        }
    }

    #[test]
    fn neighbours_add_up_also_far_out() {
        let stop = Stop::default();
        let run = Run { stop: &stop, workers: None };
        let [a, b, c] = [1_000_000, 1_000_001, 1_000_002].map(|n| fibonacci(n, &run).unwrap());
        assert_eq!(a + b, c);
    }
}
