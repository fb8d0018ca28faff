//! Whether a number is prime: certain up to 64 bit by the test of Miller and Rabin for bases that
//! are proven to suffice; above by the test of Baillie, Pomerance, Selfridge and Wagstaff.
//!
//! No composite is known that passes the latter, and below 2⁶⁴ there is none; that there is none at
//! all is not proven. So `probable` is true for primes above.

use num_bigint::{BigInt, BigUint};

use super::{
    super::task::Run,
    argument::{Argument, too_large},
};
use crate::capability::{Failure, Outcome, Value};

/// The largest number's bits: about a second for a prime.
pub(super) const MOST_BITS: u64 = 16_384;

pub(super) fn run(data: Value, run: &Run<'_>) -> Outcome {
    let n = Argument::integer("n", data)?;
    if n.bits() > MOST_BITS {
        let bits = n.bits();
        let sentence =
            format!("is_prime of {bits} bits is refused: n has at most {MOST_BITS} bits");
        return Err(too_large("n", sentence));
    }
    let (prime, probable) = match n.to_biguint() {
        // Negative.
        None => (false, false),
        Some(n) => match u64::try_from(&n) {
            Ok(n) => (is_prime(n), false),
            Err(_) => {
                let prime = is_probable_prime(&n, run)?;
                (prime, prime)
            }
        },
    };
    Ok(Value::map([("prime", prime.into()), ("probable", probable.into())]))
}

const SMALL: [u64; 25] = [
    2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
];

/// Jim Sinclair's bases: they decide every number below 2⁶⁴.
const BASES: [u64; 7] = [2, 325, 9_375, 28_178, 450_775, 9_780_504, 1_795_265_022];

fn is_prime(n: u64) -> bool {
    if n < 2 {
        return false;
    }
    for prime in SMALL {
        if n.is_multiple_of(prime) {
            return n == prime;
        }
    }
    let ring = Ring::new(n);
    BASES.into_iter().all(|base| ring.passes(base % n))
}

/// Numbers modulo an odd `n` as Montgomery multiplies them: without dividing.
struct Ring {
    n: u64,
    /// `-1/n` modulo 2⁶⁴.
    inverse: u64,
    /// 2⁶⁴ and 2¹²⁸ modulo `n`.
    one: u64,
    square: u64,
}

impl Ring {
    fn new(n: u64) -> Ring {
        // Each step of Newton's doubles the bits that are right; n is its own inverse modulo 8.
        let inverse = (0..5).fold(n, |x, _| x.wrapping_mul(2u64.wrapping_sub(n.wrapping_mul(x))));
        let one = ((1u128 << 64) % u128::from(n)) as u64;
        let square = (u128::from(one) * u128::from(one) % u128::from(n)) as u64;
        Ring { n, inverse: inverse.wrapping_neg(), one, square }
    }

    /// `a b / 2⁶⁴` modulo `n`.
    fn multiply(&self, a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        let factor = (product as u64).wrapping_mul(self.inverse);
        let (sum, carry) = product.overflowing_add(u128::from(factor) * u128::from(self.n));
        let high = (sum >> 64) as u64;
        if carry || high >= self.n { high.wrapping_sub(self.n) } else { high }
    }

    /// The test of Miller and Rabin.
    fn passes(&self, base: u64) -> bool {
        if base == 0 {
            return true;
        }
        let minus_one = self.n - self.one;
        let twos = (self.n - 1).trailing_zeros();
        let odd = (self.n - 1) >> twos;
        let base = self.multiply(base, self.square);
        let mut power = self.one;
        for bit in (0..64 - odd.leading_zeros()).rev() {
            power = self.multiply(power, power);
            if (odd >> bit) & 1 == 1 {
                power = self.multiply(power, base);
            }
        }
        if power == self.one || power == minus_one {
            return true;
        }
        (1..twos).any(|_| {
            power = self.multiply(power, power);
            power == minus_one
        })
    }
}

/// For `n` above 64 bit.
fn is_probable_prime(n: &BigUint, run: &Run<'_>) -> Result<bool, Failure> {
    let two = BigUint::from(2u8);
    for prime in SMALL {
        if n % prime == BigUint::ZERO {
            return Ok(false);
        }
    }
    Ok(passes_base_two(n, &two, run)? && passes_lucas(n, run)?)
}

fn passes_base_two(n: &BigUint, two: &BigUint, run: &Run<'_>) -> Result<bool, Failure> {
    let one = BigUint::from(1u8);
    let minus_one = n - &one;
    let twos = minus_one.trailing_zeros().unwrap_or(0);
    let odd = &minus_one >> twos;
    let mut power = two.clone();
    for bit in (0..odd.bits() - 1).rev() {
        run.check()?;
        power = &power * &power % n;
        if odd.bit(bit) {
            power = (power << 1) % n;
        }
    }
    if power == one || power == minus_one {
        return Ok(true);
    }
    for _ in 1..twos {
        run.check()?;
        power = &power * &power % n;
        if power == minus_one {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The strong test of Lucas with Selfridge's parameters: P = 1, Q = (1 - D) / 4 for the first D of
/// 5, -7, 9, … whose Jacobi symbol is -1.
fn passes_lucas(n: &BigUint, run: &Run<'_>) -> Result<bool, Failure> {
    let root = n.sqrt();
    if &root * &root == *n {
        // Squares have no such D.
        return Ok(false);
    }
    let mut d = 5i64;
    loop {
        run.check()?;
        match jacobi(d, n) {
            -1 => break,
            // D is below n, so it shares a factor with it.
            0 => return Ok(false),
            _ => d = if d > 0 { -(d + 2) } else { 2 - d },
        }
    }
    let modulus = BigInt::from(n.clone());
    let reduce = |number: BigInt| -> BigInt {
        let rest = number % &modulus;
        if rest.sign() == num_bigint::Sign::Minus { rest + &modulus } else { rest }
    };
    let halve = |number: BigInt| -> BigInt {
        if number.bit(0) { (number + &modulus) >> 1 } else { number >> 1 }
    };
    let (d, q) = (BigInt::from(d), BigInt::from((1 - d) / 4));
    let next = n + 1u8;
    let twos = next.trailing_zeros().unwrap_or(0);
    let odd = &next >> twos;
    // U(k), V(k) and Q^k for k = 1.
    let (mut u, mut v, mut power) = (BigInt::from(1), BigInt::from(1), reduce(q.clone()));
    for bit in (0..odd.bits() - 1).rev() {
        run.check()?;
        u = reduce(&u * &v);
        v = reduce(&v * &v - (&power << 1));
        power = reduce(&power * &power);
        if odd.bit(bit) {
            let sum = reduce(&u + &v);
            v = halve(reduce(&d * &u + &v));
            u = halve(sum);
            power = reduce(&power * &q);
        }
    }
    if u == BigInt::ZERO || v == BigInt::ZERO {
        return Ok(true);
    }
    for _ in 1..twos {
        run.check()?;
        v = reduce(&v * &v - (&power << 1));
        if v == BigInt::ZERO {
            return Ok(true);
        }
        power = reduce(&power * &power);
    }
    Ok(false)
}

/// The symbol of Jacobi (a/n) for a small `a` and an odd, large `n`.
fn jacobi(a: i64, n: &BigUint) -> i32 {
    let eighth = low(n) % 8;
    let mut sign = 1;
    if a < 0 && eighth % 4 == 3 {
        sign = -sign;
    }
    let mut a = a.unsigned_abs();
    while a.is_multiple_of(2) {
        a /= 2;
        if eighth == 3 || eighth == 5 {
            sign = -sign;
        }
    }
    if a % 4 == 3 && eighth % 4 == 3 {
        sign = -sign;
    }
    // (n/a) by machine words.
    let (mut top, mut bottom) = (low(&(n % a)), a);
    while top != 0 {
        while top % 2 == 0 {
            top /= 2;
            if bottom % 8 == 3 || bottom % 8 == 5 {
                sign = -sign;
            }
        }
        std::mem::swap(&mut top, &mut bottom);
        if top % 4 == 3 && bottom % 4 == 3 {
            sign = -sign;
        }
        top %= bottom;
    }
    if bottom == 1 { sign } else { 0 }
}

fn low(number: &BigUint) -> u64 {
    number.iter_u64_digits().next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{super::super::stop::Stop, *};

    fn probable(n: &BigUint) -> bool {
        let stop = Stop::default();
        is_probable_prime(n, &Run { stop: &stop, workers: None }).unwrap()
    }

    #[test]
    fn small_numbers_are_those_of_the_sieve() {
        const BELOW: usize = 100_000;
        let mut composite = vec![false; BELOW];
        for n in 2..BELOW {
            assert_eq!(is_prime(n as u64), !composite[n], "{n}");
            for multiple in (n * n..BELOW).step_by(n) {
                composite[multiple] = true;
            }
        }
        assert!(!is_prime(0) && !is_prime(1));
    }

    #[test]
    fn composites_that_fool_single_bases_are_found() {
        // Strong pseudoprimes to the bases 2, to 2…7, to 2…23, to 2…37; squares of primes; 2⁶⁴ - 1.
        for n in [2_047, 3_215_031_751, 3_825_123_056_546_413_051, u64::MAX] {
            assert!(!is_prime(n), "{n}");
        }
        assert!(!is_prime(4_294_967_291 * 4_294_967_291));
        // The largest primes below 2⁶³ and 2⁶⁴.
        assert!(is_prime(9_223_372_036_854_775_783));
        assert!(is_prime(18_446_744_073_709_551_557));
    }

    #[test]
    fn large_primes_are_probable_and_composites_are_not() {
        let mersenne = |p: u32| (BigUint::from(1u8) << p) - 1u8;
        for p in [89, 107, 127, 521, 607, 1279] {
            assert!(probable(&mersenne(p)), "2^{p} - 1");
        }
        for p in [67, 83, 97, 101, 257, 1277] {
            assert!(!probable(&mersenne(p)), "2^{p} - 1");
        }
        let square = mersenne(127) * mersenne(127);
        assert!(!probable(&square));
        assert!(!probable(&(mersenne(89) * mersenne(107))));
    }

    #[test]
    fn the_test_of_lucas_stands_alone() {
        let stop = Stop::default();
        let run = Run { stop: &stop, workers: None };
        let passed: Vec<u64> = (101..12_000)
            .step_by(2)
            .filter(|&n| passes_lucas(&n.into(), &run).unwrap() != is_prime(n))
            .collect();
        // The strong Lucas pseudoprimes below 12,000 (OEIS A217255): no prime fails.
        assert_eq!(passed, [5_459, 5_777, 10_877]);
    }
}
