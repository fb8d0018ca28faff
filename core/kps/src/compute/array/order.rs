//! The smallest, the largest, and what lies between.

use std::sync::Arc;

use super::{number::Number, sort, view::View};
use crate::{
    capability::{Failure, Fields, Value, wrong},
    compute::task::Run,
};

/// The smallest or the largest; what is no number if there is such; `None` of no numbers.
pub(super) fn extreme<T: Number>(
    view: &Arc<View<T>>,
    smallest: bool,
    run: &Run<'_>,
) -> Result<Option<Value>, Failure> {
    let extremes = view.chunks(run, move |chunk, _| {
        if smallest { first(chunk, |a, b| a < b) } else { first(chunk, |a, b| a > b) }
    })?;
    let extremes: Vec<T> = extremes.into_iter().flatten().collect();
    let extreme =
        if smallest { first(&extremes, |a, b| a < b) } else { first(&extremes, |a, b| a > b) };
    Ok(extreme.map(T::value))
}

fn first<T: Number>(numbers: &[T], before: impl Fn(T, T) -> bool) -> Option<T> {
    let (first, rest) = numbers.split_first()?;
    // Nothing compares with what is no number, so that it stays.
    Some(rest.iter().fold(*first, |best, number| {
        if before(*number, best) || number.is_nan() { *number } else { best }
    }))
}

/// The quantiles that are asked for.
pub(super) struct Wanted {
    pub(super) list: Vec<f64>,
    /// One number, answered by one.
    single: bool,
}

/// Quantiles at once at most.
const MOST: usize = 100_000;

impl Wanted {
    /// The field `q`: a number or a list of numbers from 0 to 1; the quartiles if it is missing.
    pub(super) fn read(fields: &mut Fields, run: &Run<'_>) -> Result<Wanted, Failure> {
        let wanted = match fields.given("q") {
            None => Wanted { list: vec![0.0, 0.25, 0.5, 0.75, 1.0], single: false },
            Some(Value::List(list)) if list.len() > MOST => {
                return Err(Failure::field("q", format!("q has more than {MOST} quantiles")));
            }
            Some(Value::List(list)) => {
                let list = list.iter().map(fraction).collect::<Result<_, _>>()?;
                Wanted { list, single: false }
            }
            Some(array @ Value::Array(_)) => {
                let numbers = super::read::numbers("q", array, run)?;
                match super::read::listed(&numbers.array) {
                    Value::List(list) if list.len() <= MOST => {
                        let list = list.iter().map(fraction).collect::<Result<_, _>>()?;
                        Wanted { list, single: false }
                    }
                    other => return Err(wrong("q", &other, "numbers from 0 to 1")),
                }
            }
            Some(number) => Wanted { list: vec![fraction(&number)?], single: true },
        };
        Ok(wanted)
    }

    /// Answered as they were asked for.
    pub(super) fn answer(&self, found: Vec<f64>) -> Value {
        let mut values = found.into_iter().map(Value::Float);
        if self.single { values.next().into() } else { values.collect::<Vec<_>>().into() }
    }
}

fn fraction(value: &Value) -> Result<f64, Failure> {
    let number = match value {
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        other => return Err(wrong("q", other, "numbers from 0 to 1")),
    };
    if (0.0..=1.0).contains(&number) {
        Ok(number)
    } else {
        Err(Failure::field("q", format!("q has {number}; quantiles are numbers from 0 to 1")))
    }
}

/// Quantiles of a view that is not empty, interpolated linearly.
pub(super) fn quantiles<T: Number>(
    view: &Arc<View<T>>,
    wanted: &[f64],
    run: &Run<'_>,
) -> Result<Vec<f64>, Failure> {
    let sorted = sort::sorted(view, run)?;
    let last = sorted.len() - 1;
    if sorted[last].is_nan() {
        return Ok(vec![f64::NAN; wanted.len()]);
    }
    Ok(wanted
        .iter()
        .map(|q| {
            let place = q * last as f64;
            let below = (place as usize).min(last);
            let above = (below + 1).min(last);
            between(sorted[below].double(), sorted[above].double(), place - below as f64)
        })
        .collect())
}

/// As NumPy: from the nearer end, so that it is exact at both.
fn between(low: f64, high: f64, at: f64) -> f64 {
    if at == 0.0 || low == high {
        return low;
    }
    let step = high - low;
    if at >= 0.5 { high - step * (1.0 - at) } else { low + step * at }
}
