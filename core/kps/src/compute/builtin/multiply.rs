//! Products of integers of any size that can be stopped on the way.

use num_bigint::BigUint;

use super::super::task::Run;
use crate::capability::Failure;

/// Factors of so many bits are multiplied at once: about half a millisecond.
const AT_ONCE: u64 = 96 * 1024;

/// `a * b`. Large factors by Karatsuba's three products of halves, down to those that take less than
/// a millisecond.
pub(super) fn multiply(a: &BigUint, b: &BigUint, run: &Run<'_>) -> Result<BigUint, Failure> {
    run.check()?;
    let (long, short) = if a.bits() >= b.bits() { (a, b) } else { (b, a) };
    if long.bits() <= AT_ONCE || long.bits() * short.bits() <= AT_ONCE * AT_ONCE {
        return Ok(long * short);
    }
    let half = long.bits().div_ceil(2).next_multiple_of(64);
    let (long_high, long_low) = split(long, half);
    if short.bits() <= half {
        let high = multiply(&long_high, short, run)?;
        return Ok((high << half) + multiply(&long_low, short, run)?);
    }
    let (short_high, short_low) = split(short, half);
    let high = multiply(&long_high, &short_high, run)?;
    let low = multiply(&long_low, &short_low, run)?;
    let both = multiply(&(long_high + long_low), &(short_high + short_low), run)?;
    let middle = both - &high - &low;
    Ok((((high << half) + middle) << half) + low)
}

/// `a * a`.
pub(super) fn square(a: &BigUint, run: &Run<'_>) -> Result<BigUint, Failure> {
    run.check()?;
    if a.bits() <= AT_ONCE {
        return Ok(a * a);
    }
    let half = a.bits().div_ceil(2).next_multiple_of(64);
    let (high, low) = split(a, half);
    let middle = multiply(&high, &low, run)? << 1;
    let (high, low) = (square(&high, run)?, square(&low, run)?);
    Ok((((high << half) + middle) << half) + low)
}

/// The bits from `at`, and those below.
fn split(number: &BigUint, at: u64) -> (BigUint, BigUint) {
    let high = number >> at;
    let low = number - (&high << at);
    (high, low)
}

#[cfg(test)]
mod tests {
    use super::{super::super::stop::Stop, *};

    /// A number of so many bits that looks random and is the same every time.
    fn number(bits: u64, mut seed: u64) -> BigUint {
        let digits = (0..bits.div_ceil(32)).map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 32) as u32
        });
        let number = BigUint::new(digits.collect());
        (number >> 1) | (BigUint::from(1u8) << (bits - 1))
    }

    #[test]
    fn products_are_those_of_the_library() {
        let stop = Stop::default();
        let run = Run { stop: &stop, workers: None };
        let sizes = [1, 63, 64, 1_000, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE + 17, 10 * AT_ONCE];
        for a in sizes {
            for b in sizes {
                let (x, y) = (number(a, 1), number(b, 2));
                assert_eq!(multiply(&x, &y, &run).unwrap(), &x * &y, "{a} × {b} bits");
            }
            let x = number(a, 3);
            assert_eq!(square(&x, &run).unwrap(), &x * &x, "{a} bits");
        }
        assert_eq!(multiply(&BigUint::ZERO, &number(AT_ONCE * 4, 1), &run).unwrap(), BigUint::ZERO);
    }
}
