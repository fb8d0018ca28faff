//! Products of two rows of numbers.

use std::sync::Arc;

use num_bigint::BigInt;

use super::{CHUNK, moments::halves, number::Number, read::Numbers, view::View, with_view};
use crate::{
    capability::{Array, Failure, NumberKind, Outcome, Value},
    compute::task::Run,
};

/// Whether all numbers are integers.
pub(super) fn integral(array: &Array) -> bool {
    !matches!(array.kind, NumberKind::F64 | NumberKind::F32)
}

/// The numbers as doubles.
pub(super) fn doubles(array: &Array, run: &Run<'_>) -> Result<Arc<View<f64>>, Failure> {
    match array.kind {
        NumberKind::F64 => Ok(View::of(array)),
        _ => with_view!(array, |view| view.converted(run, Number::double)),
    }
}

/// The sum of the products of two rows of the same length.
pub(super) fn dot(a: Numbers, b: Numbers, run: &Run<'_>) -> Outcome {
    if !integral(&a.array) || !integral(&b.array) {
        let (a, b) = (doubles(&a.array, run)?, doubles(&b.array, run)?);
        let length = a.len();
        let sums = run.spread(length.div_ceil(CHUNK), move |number, _| {
            let range = number * CHUNK..length.min((number + 1) * CHUNK);
            Ok(pairwise_product(&a.numbers()[range.clone()], &b.numbers()[range]))
        })?;
        return Ok(Value::Float(halves(&sums, &|a, b| a + b).unwrap_or(0.0)));
    }
    let sums = match (Integers::of(&a.array, run)?, Integers::of(&b.array, run)?) {
        (Integers::Signed(a), Integers::Signed(b)) => exact(a, b, run),
        (Integers::Signed(a), Integers::Unsigned(b)) => exact(a, b, run),
        (Integers::Unsigned(a), Integers::Signed(b)) => exact(a, b, run),
        (Integers::Unsigned(a), Integers::Unsigned(b)) => exact(a, b, run),
    }?;
    Ok(Value::big(sums.into_iter().sum()))
}

/// Integers of 64 bit: not all pairs of kinds are worth code of their own.
enum Integers {
    Signed(Arc<View<i64>>),
    Unsigned(Arc<View<u64>>),
}

impl Integers {
    fn of(array: &Array, run: &Run<'_>) -> Result<Integers, Failure> {
        Ok(match array.kind {
            NumberKind::I64 => Integers::Signed(View::of(array)),
            NumberKind::U64 => Integers::Unsigned(View::of(array)),
            // None of the others is wider.
            _ => Integers::Signed(with_view!(array, |view| {
                view.converted(run, |number| number.integer() as i64)
            })?),
        })
    }
}

fn exact<A: Number, B: Number>(
    a: Arc<View<A>>,
    b: Arc<View<B>>,
    run: &Run<'_>,
) -> Result<Vec<BigInt>, Failure> {
    let length = a.len();
    run.spread(length.div_ceil(CHUNK), move |number, _| {
        let range = number * CHUNK..length.min((number + 1) * CHUNK);
        Ok(exact_product(&a.numbers()[range.clone()], &b.numbers()[range]))
    })
}

fn pairwise_product(a: &[f64], b: &[f64]) -> f64 {
    if a.len() > 128 {
        let half = (a.len() / 2).next_multiple_of(8);
        let ((a, c), (b, d)) = (a.split_at(half), b.split_at(half));
        return pairwise_product(a, b) + pairwise_product(c, d);
    }
    let mut lanes = [0.0; 8];
    let (mut left, mut right) = (a.chunks_exact(8), b.chunks_exact(8));
    for (a, b) in (&mut left).zip(&mut right) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
    left.remainder().iter().zip(right.remainder()).fold(sum, |sum, (a, b)| sum + a * b)
}

/// The exact sum of products of integers.
fn exact_product<A: Number, B: Number>(a: &[A], b: &[B]) -> BigInt {
    let mut large = BigInt::ZERO;
    let mut sum = 0i128;
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a.integer(), b.integer());
        match a.checked_mul(b).and_then(|product| sum.checked_add(product)) {
            Some(next) => sum = next,
            None => {
                large += std::mem::take(&mut sum);
                large += BigInt::from(a) * b;
            }
        }
    }
    large + sum
}

/// `too_large`: an answer does not fit its kind.
#[cold]
pub(super) fn overflow(kind: NumberKind) -> Failure {
    let sentence = format!("a number of the product does not fit {}", kind.name());
    Failure::new(kps_proto::ErrorKind::TooLarge, sentence)
}
