//! What the kinds of numbers have in common.

use std::cmp::Ordering;

use num_bigint::BigInt;

use crate::capability::{NumberKind, Value};

/// One kind of numbers.
pub(super) trait Number: bytemuck::Pod + PartialOrd + Send + Sync {
    const KIND: NumberKind;
    /// What sums are made in: so wide that they are exact, for integers.
    type Sum: Copy + Send + 'static;

    fn sum(numbers: &[Self]) -> Self::Sum;
    fn join(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    fn sum_value(sum: Self::Sum) -> Value;
    fn sum_double(sum: Self::Sum) -> f64;
    /// The nearest double.
    fn double(self) -> f64;
    /// The integer; only asked of integers.
    fn integer(self) -> i128;
    /// NumPy's order: what is no number comes last.
    fn order(&self, other: &Self) -> Ordering;
    fn value(self) -> Value;
    #[expect(clippy::eq_op, reason = "only what is no number differs from itself")]
    fn is_nan(self) -> bool {
        self != self
    }
}

macro_rules! integers {
    ($($type:ident $kind:ident $narrow:ident;)*) => {
        $(impl Number for $type {
            const KIND: NumberKind = NumberKind::$kind;
            type Sum = i128;

            fn sum(numbers: &[Self]) -> i128 {
                // A chunk of narrow ones cannot overflow what is still fast to add.
                numbers.chunks(super::CHUNK).map(|chunk| {
                    chunk.iter().map(|n| $narrow::from(*n)).sum::<$narrow>() as i128
                }).sum()
            }

            fn join(a: i128, b: i128) -> i128 {
                a + b
            }

            fn sum_value(sum: i128) -> Value {
                Value::big(BigInt::from(sum))
            }

            fn sum_double(sum: i128) -> f64 {
                sum as f64
            }

            fn double(self) -> f64 {
                self as f64
            }

            fn integer(self) -> i128 {
                self.into()
            }

            fn order(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }

            fn value(self) -> Value {
                i64::try_from(self).map_or_else(|_| Value::big(self.into()), Value::Int)
            }
        })*
    };
}

integers! {
    i64 I64 i128;
    i32 I32 i64;
    i16 I16 i64;
    i8 I8 i64;
    u64 U64 i128;
    u32 U32 i64;
    u16 U16 i64;
    u8 U8 i64;
}

macro_rules! floats {
    ($($type:ident $kind:ident;)*) => {
        $(impl Number for $type {
            const KIND: NumberKind = NumberKind::$kind;
            type Sum = f64;

            fn sum(numbers: &[Self]) -> f64 {
                pairwise(numbers, &|n| f64::from(n))
            }

            fn join(a: f64, b: f64) -> f64 {
                a + b
            }

            fn sum_value(sum: f64) -> Value {
                Value::Float(sum)
            }

            fn sum_double(sum: f64) -> f64 {
                sum
            }

            fn double(self) -> f64 {
                self.into()
            }

            fn integer(self) -> i128 {
                self as i128
            }

            fn order(&self, other: &Self) -> Ordering {
                match self.partial_cmp(other) {
                    Some(order) => order,
                    None => self.is_nan().cmp(&other.is_nan()),
                }
            }

            fn value(self) -> Value {
                Value::Float(self.into())
            }
        })*
    };
}

floats! {
    f64 F64;
    f32 F32;
}

/// The sum of `term` of each number by halves, as NumPy does it: its error grows with the logarithm of
/// the length.
pub(super) fn pairwise<T: Copy>(numbers: &[T], term: &impl Fn(T) -> f64) -> f64 {
    const FEW: usize = 128;
    const LANES: usize = 8;
    if numbers.len() > FEW {
        let half = (numbers.len() / 2).next_multiple_of(LANES);
        let (left, right) = numbers.split_at(half);
        return pairwise(left, term) + pairwise(right, term);
    }
    let mut lanes = [0.0; LANES];
    let mut groups = numbers.chunks_exact(LANES);
    for group in &mut groups {
        for (lane, number) in lanes.iter_mut().zip(group) {
            *lane += term(*number);
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
    groups.remainder().iter().fold(sum, |sum, number| sum + term(*number))
}
