//! How many numbers lie in each of some intervals.

use std::sync::Arc;

use super::{CHUNK, number::Number, order, view::View};
use crate::{
    capability::{Failure, Fields, Outcome, Value, wrong},
    compute::{builtin::too_large, task::Run},
};

/// The intervals that are asked for.
pub(super) enum Bins {
    /// So many of the same width, from the first number to the second; `None`: from the smallest of the
    /// array to its largest.
    Even(usize, Option<(f64, f64)>),
    /// Between these.
    Edges(Vec<f64>),
}

/// Intervals at most.
const MOST: usize = 1_000_000;

impl Bins {
    /// `bins`, a number or a list of edges; `range`, a pair.
    pub(super) fn read(fields: &mut Fields, run: &Run<'_>) -> Result<Bins, Failure> {
        let range = range(fields, run)?;
        match fields.given("bins") {
            None => Ok(Bins::Even(10, range)),
            Some(Value::Int(bins @ 1..)) if bins as usize <= MOST => {
                Ok(Bins::Even(bins as usize, range))
            }
            Some(Value::Int(bins @ 1..)) => {
                Err(too_large("bins", format!("bins is {bins}; it is at most {MOST}")))
            }
            Some(list @ (Value::List(_) | Value::Array(_))) => edges(list, run).map(Bins::Edges),
            Some(other) => Err(wrong("bins", &other, "a whole number from 1, or a list of edges")),
        }
    }
}

fn range(fields: &mut Fields, run: &Run<'_>) -> Result<Option<(f64, f64)>, Failure> {
    let Some(value) = fields.given("range") else { return Ok(None) };
    match doubles("range", value, run)?[..] {
        [low, high] if low <= high && (high - low).is_finite() => Ok(Some((low, high))),
        _ => Err(Failure::field("range", "range is two finite numbers, the smaller first")),
    }
}

fn edges(list: Value, run: &Run<'_>) -> Result<Vec<f64>, Failure> {
    let edges = doubles("bins", list, run)?;
    if edges.len() < 2 || !edges.is_sorted_by(|a, b| a <= b) {
        let sentence =
            "the edges in bins are at least two, and none is smaller than the one before";
        return Err(Failure::field("bins", sentence));
    }
    if edges.len() > MOST {
        return Err(too_large("bins", format!("bins has more than {MOST} edges")));
    }
    Ok(edges)
}

fn doubles(name: &str, value: Value, run: &Run<'_>) -> Result<Vec<f64>, Failure> {
    let array = super::read::numbers(name, value, run)?.array;
    Ok(super::with_view!(array, |view| view.numbers().iter().map(|n| Number::double(*n)).collect()))
}

/// `{counts, edges}`. The last interval includes its upper edge; what lies outside is not counted.
pub(super) fn histogram<T: Number>(view: &Arc<View<T>>, bins: Bins, run: &Run<'_>) -> Outcome {
    let (edges, even) = match bins {
        Bins::Edges(edges) => (edges, false),
        Bins::Even(bins, range) => {
            let (low, high) = match range {
                Some(range) => range,
                None => bounds(view, run)?,
            };
            // As NumPy: around a single value there is one unit.
            let (low, high) = if low == high { (low - 0.5, high + 0.5) } else { (low, high) };
            (even_edges(low, high, bins), true)
        }
    };
    let bins = edges.len() - 1;
    let edges = Arc::new(edges);
    let counts = count(view, &edges, even, run)?;
    let counts = counts.into_iter().take(bins).map(Value::from).collect::<Vec<_>>();
    let edges = edges.iter().copied().map(Value::Float).collect::<Vec<_>>();
    Ok(Value::map([("counts", counts.into()), ("edges", edges.into())]))
}

fn bounds<T: Number>(view: &Arc<View<T>>, run: &Run<'_>) -> Result<(f64, f64), Failure> {
    let end = |smallest| order::extreme(view, smallest, run);
    let double = |value| match value {
        Value::Int(number) => number as f64,
        Value::Float(number) => number,
        Value::Big(number) => num_traits::ToPrimitive::to_f64(&*number).unwrap_or(f64::NAN),
        _ => f64::NAN,
    };
    let (Some(low), Some(high)) = (end(true)?, end(false)?) else { return Ok((0.0, 1.0)) };
    let (low, high) = (double(low), double(high));
    if (high - low).is_finite() {
        Ok((low, high))
    } else {
        let sentence =
            format!("the numbers reach from {low} to {high}, which is no range: give one as range");
        Err(Failure::field("array", sentence))
    }
}

fn even_edges(low: f64, high: f64, bins: usize) -> Vec<f64> {
    let step = (high - low) / bins as f64;
    let mut edges: Vec<f64> = (0..bins).map(|n| low + n as f64 * step).collect();
    edges.push(high);
    edges
}

fn count<T: Number>(
    view: &Arc<View<T>>,
    edges: &Arc<Vec<f64>>,
    even: bool,
    run: &Run<'_>,
) -> Result<Vec<u64>, Failure> {
    let bins = edges.len() - 1;
    // Each part counts for itself: fewer parts when there are many intervals.
    let parts = view.len().div_ceil(CHUNK).clamp(1, (16 * MOST / bins).max(1));
    let part = view.len().div_ceil(parts).max(1);
    let (view, edges) = (view.clone(), edges.clone());
    let counts = run.spread(view.len().div_ceil(part), move |number, stop| {
        let begin = number * part;
        let numbers = &view.numbers()[begin..view.len().min(begin + part)];
        let mut counts = vec![0u64; bins];
        for chunk in numbers.chunks(CHUNK) {
            stop.check()?;
            for number in chunk {
                if let Some(bin) = place(number.double(), &edges, even) {
                    counts[bin] += 1;
                }
            }
        }
        Ok(counts)
    })?;
    let mut sum = vec![0; bins];
    for part in counts {
        for (sum, count) in sum.iter_mut().zip(part) {
            *sum += count;
        }
    }
    Ok(sum)
}

/// The interval a number lies in.
fn place(number: f64, edges: &[f64], even: bool) -> Option<usize> {
    let (first, last) = (edges[0], edges[edges.len() - 1]);
    if !(first..=last).contains(&number) {
        return None;
    }
    let bins = edges.len() - 1;
    if !even {
        return Some(edges.partition_point(|edge| *edge <= number).clamp(1, bins) - 1);
    }
    // Calculated, then put right by the edges themselves, as they are rounded.
    let mut bin = ((number - first) / (last - first) * bins as f64) as usize;
    bin = bin.min(bins - 1);
    if number < edges[bin] {
        bin -= 1;
    } else if bin + 1 < bins && number >= edges[bin + 1] {
        bin += 1;
    }
    Some(bin)
}
