//! Work on arrays of numbers. Definitions are NumPy's, over all numbers of the array unless said
//! otherwise; sums are exact for integers and pairwise, in double precision, for others. The way an
//! array is split depends on its length alone: the same numbers give the same answer on any machine.

mod histogram;
mod matmul;
mod moments;
mod number;
mod order;
mod product;
mod read;
mod sort;
mod view;

pub(super) use self::read::length;
use self::{
    read::{Numbers, numbers},
    view::with_view,
};
use super::task::Run;
use crate::capability::{Failure, Fields, Outcome, Value, missing};

/// Numbers looked at between two looks at the clock: about a tenth of a millisecond.
const CHUNK: usize = 64 * 1024;

/// `{array}`, or the array itself.
fn only(data: Value, run: &Run<'_>) -> Result<Numbers, Failure> {
    let (array, fields) = given(data, run)?;
    fields.done()?;
    Ok(array)
}

/// `{array, …}`: the array and the other fields.
fn given(data: Value, run: &Run<'_>) -> Result<(Numbers, Fields), Failure> {
    match data {
        Value::Map(_) => {
            let mut fields = Fields::of(data)?;
            let array = fields.given("array").ok_or_else(|| missing("array"))?;
            Ok((numbers("array", array, run)?, fields))
        }
        Value::Null => Err(missing("array")),
        bare => Ok((numbers("array", bare, run)?, Fields::of(Value::Null)?)),
    }
}

/// `invalid_payload`: there is no answer for an array without numbers.
#[cold]
fn empty(task: &str) -> Failure {
    Failure::field("array", format!("the array has no numbers, so it has no {task}"))
}

pub(super) fn sum(data: Value, run: &Run<'_>) -> Outcome {
    // Integers of a list may be larger than any array holds.
    if let Some(sum) = read::sum_of_large(&data) {
        return Ok(sum);
    }
    let numbers = only(data, run)?;
    with_view!(numbers.array, |view| moments::sum(&view, run))
}

pub(super) fn mean(data: Value, run: &Run<'_>) -> Outcome {
    let numbers = only(data, run)?;
    with_view!(numbers.array, |view| moments::mean(&view, run)).map(Value::Float)
}

pub(super) fn std(data: Value, run: &Run<'_>) -> Outcome {
    let (numbers, mut fields) = given(data, run)?;
    let ddof = fields.number("ddof")?.unwrap_or(0.0);
    fields.done()?;
    if !ddof.is_finite() {
        return Err(Failure::field("ddof", "ddof is not finite"));
    }
    with_view!(numbers.array, |view| moments::std(&view, ddof, run)).map(Value::Float)
}

pub(super) fn min(data: Value, run: &Run<'_>) -> Outcome {
    let numbers = only(data, run)?;
    with_view!(numbers.array, |view| order::extreme(&view, true, run))?
        .ok_or_else(|| empty("minimum"))
}

pub(super) fn max(data: Value, run: &Run<'_>) -> Outcome {
    let numbers = only(data, run)?;
    with_view!(numbers.array, |view| order::extreme(&view, false, run))?
        .ok_or_else(|| empty("maximum"))
}

pub(super) fn quantiles(data: Value, run: &Run<'_>) -> Outcome {
    let (numbers, mut fields) = given(data, run)?;
    let wanted = order::Wanted::read(&mut fields, run)?;
    fields.done()?;
    if numbers.array.bytes.is_empty() {
        return Err(empty("quantiles"));
    }
    let found = with_view!(numbers.array, |view| order::quantiles(&view, &wanted.list, run))?;
    Ok(wanted.answer(found))
}

pub(super) fn sort(data: Value, run: &Run<'_>) -> Outcome {
    let (numbers, mut fields) = given(data, run)?;
    let descending = fields.flag("descending")?;
    fields.done()?;
    let row = numbers.array.shape.last().copied().unwrap_or(1);
    let sorted = with_view!(numbers.array, |view| sort::rows(&view, row, descending, run))?;
    Ok(numbers.like(sorted))
}

pub(super) fn histogram(data: Value, run: &Run<'_>) -> Outcome {
    let (numbers, mut fields) = given(data, run)?;
    let bins = histogram::Bins::read(&mut fields, run)?;
    fields.done()?;
    with_view!(numbers.array, |view| histogram::histogram(&view, bins, run))
}

pub(super) fn matmul(data: Value, run: &Run<'_>) -> Outcome {
    let (a, b) = pair(data, run)?;
    matmul::matmul(a, b, run)
}

pub(super) fn dot(data: Value, run: &Run<'_>) -> Outcome {
    let (a, b) = pair(data, run)?;
    match (&a.array.shape[..], &b.array.shape[..]) {
        ([n], [m]) if n == m => product::dot(a, b, run),
        _ => matmul::matmul(a, b, run),
    }
}

/// `{a, b}`.
fn pair(data: Value, run: &Run<'_>) -> Result<(Numbers, Numbers), Failure> {
    let mut fields = Fields::of(data)?;
    let a = numbers("a", fields.given("a").ok_or_else(|| missing("a"))?, run)?;
    let b = numbers("b", fields.given("b").ok_or_else(|| missing("b"))?, run)?;
    fields.done()?;
    Ok((a, b))
}
