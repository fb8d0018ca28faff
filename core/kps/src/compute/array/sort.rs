//! Sorting, by merging sorted pieces.

use std::{cmp::Ordering, sync::Arc};

use bytes::Bytes;

use super::{
    number::Number,
    view::{View, bytes},
};
use crate::{capability::Failure, compute::task::Run};

/// Numbers sorted at once: a millisecond.
const PIECE: usize = 32 * 1024;

/// The bytes of the numbers with each row sorted.
pub(super) fn rows<T: Number>(
    view: &Arc<View<T>>,
    row: usize,
    descending: bool,
    run: &Run<'_>,
) -> Result<Bytes, Failure> {
    let mut sorted = match row {
        0 => Vec::new(),
        row if row >= view.len() => sorted(view, run)?,
        row if row <= PIECE => short_rows(view, row, run)?,
        row => {
            let mut all = Vec::with_capacity(view.len());
            for row in view.numbers().chunks(row) {
                all.extend(merged(pieces(row.to_vec(), run)?, run)?);
            }
            all
        }
    };
    if descending {
        sorted.chunks_mut(row.max(1)).for_each(<[T]>::reverse);
    }
    Ok(bytes(sorted))
}

/// All numbers in order.
pub(super) fn sorted<T: Number>(view: &Arc<View<T>>, run: &Run<'_>) -> Result<Vec<T>, Failure> {
    let view = view.clone();
    let pieces = run.spread(view.len().div_ceil(PIECE), move |number, _| {
        let numbers = view.numbers();
        let begin = number * PIECE;
        let mut piece = numbers[begin..numbers.len().min(begin + PIECE)].to_vec();
        piece.sort_unstable_by(T::order);
        Ok(piece)
    })?;
    merged(pieces.concat(), run)
}

fn short_rows<T: Number>(
    view: &Arc<View<T>>,
    row: usize,
    run: &Run<'_>,
) -> Result<Vec<T>, Failure> {
    let part = (PIECE / row).max(1) * row;
    let view = view.clone();
    let parts = run.spread(view.len().div_ceil(part), move |number, _| {
        let numbers = view.numbers();
        let begin = number * part;
        let mut rows = numbers[begin..numbers.len().min(begin + part)].to_vec();
        rows.chunks_mut(row).for_each(|row| row.sort_unstable_by(T::order));
        Ok(rows)
    })?;
    Ok(parts.concat())
}

/// The numbers with each piece sorted.
fn pieces<T: Number>(numbers: Vec<T>, run: &Run<'_>) -> Result<Vec<T>, Failure> {
    let numbers = Arc::new(numbers);
    let parts = run.spread(numbers.len().div_ceil(PIECE), move |number, _| {
        let begin = number * PIECE;
        let mut piece = numbers[begin..numbers.len().min(begin + PIECE)].to_vec();
        piece.sort_unstable_by(T::order);
        Ok(piece)
    })?;
    Ok(parts.concat())
}

/// Merges runs of [`PIECE`] numbers into one. Each part of each level is found by itself, so that all
/// of them can be made at once.
fn merged<T: Number>(mut numbers: Vec<T>, run: &Run<'_>) -> Result<Vec<T>, Failure> {
    let mut length = PIECE;
    while length < numbers.len() {
        let level = Arc::new(numbers);
        let source = level.clone();
        let parts = run.spread(level.len().div_ceil(PIECE), move |number, _| {
            let begin = number * PIECE;
            // The two runs whose merger this part belongs to.
            let first = begin / (2 * length) * (2 * length);
            let middle = source.len().min(first + length);
            let end = source.len().min(first + 2 * length);
            let (a, b) = (&source[first..middle], &source[middle..end]);
            let (from, to) = (begin - first, (begin - first + PIECE).min(end - first));
            Ok(merge(a, b, from, to))
        })?;
        numbers = parts.concat();
        length *= 2;
    }
    Ok(numbers)
}

/// The numbers `from` to `to` of the merger of `a` and `b`.
fn merge<T: Number>(a: &[T], b: &[T], from: usize, to: usize) -> Vec<T> {
    let (mut i, end) = (taken(a, b, from), taken(a, b, to));
    let (mut j, last) = (from - i, to - end);
    let mut merged = Vec::with_capacity(to - from);
    while i < end && j < last {
        if b[j].order(&a[i]) == Ordering::Less {
            merged.push(b[j]);
            j += 1;
        } else {
            merged.push(a[i]);
            i += 1;
        }
    }
    merged.extend_from_slice(&a[i..end]);
    merged.extend_from_slice(&b[j..last]);
    merged
}

/// How many of the first `count` numbers of the merger come from `a`; of equal ones those of `a` are
/// first.
fn taken<T: Number>(a: &[T], b: &[T], count: usize) -> usize {
    let (mut low, mut high) = (count.saturating_sub(b.len()), count.min(a.len()));
    while low < high {
        let middle = low.midpoint(high);
        // Taking no more than `middle` of `a` means taking this one of `b`.
        if b[count - middle - 1].order(&a[middle]) == Ordering::Less {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
