//! Sums, means, deviations.

use std::sync::Arc;

use super::{
    number::{Number, pairwise},
    view::View,
};
use crate::{
    capability::{Failure, Outcome},
    compute::task::Run,
};

pub(super) fn sum<T: Number>(view: &Arc<View<T>>, run: &Run<'_>) -> Outcome {
    total(view, run).map(T::sum_value)
}

fn total<T: Number>(view: &Arc<View<T>>, run: &Run<'_>) -> Result<T::Sum, Failure> {
    let sums = view.chunks(run, |chunk, _| T::sum(chunk))?;
    Ok(halves(&sums, &T::join).unwrap_or_else(|| T::sum(&[])))
}

/// Of no numbers it is no number, as everywhere.
pub(super) fn mean<T: Number>(view: &Arc<View<T>>, run: &Run<'_>) -> Result<f64, Failure> {
    Ok(T::sum_double(total(view, run)?) / view.len() as f64)
}

pub(super) fn std<T: Number>(
    view: &Arc<View<T>>,
    ddof: f64,
    run: &Run<'_>,
) -> Result<f64, Failure> {
    let mean = mean(view, run)?;
    let square = move |number: T| {
        let from_mean = number.double() - mean;
        from_mean * from_mean
    };
    let sums = view.chunks(run, move |chunk, _| pairwise(chunk, &square))?;
    let sum = halves(&sums, &|a, b| a + b).unwrap_or(0.0);
    Ok((sum / (view.len() as f64 - ddof).max(0.0)).sqrt())
}

/// Joins sums pairwise; `None`: there are none.
pub(super) fn halves<S: Copy>(sums: &[S], join: &impl Fn(S, S) -> S) -> Option<S> {
    match sums {
        [] => None,
        [sum] => Some(*sum),
        sums => {
            let (left, right) = sums.split_at(sums.len() / 2);
            Some(join(halves(left, join)?, halves(right, join)?))
        }
    }
}
