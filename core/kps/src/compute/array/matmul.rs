//! Products of matrices.

use std::sync::Arc;

use kps_proto::ErrorKind;

use super::{
    number::Number,
    product::{doubles, integral, overflow},
    read::{Numbers, listed},
    view::{View, bytes},
    with_view,
};
use crate::{
    capability::{Array, Failure, NumberKind, Outcome},
    compute::{stop::Stop, task::Run},
};

/// Bytes of the product at most.
const MOST: usize = 1 << 30;

/// The shape of a product.
#[derive(Clone, Copy, Debug)]
struct Size {
    rows: usize,
    inner: usize,
    columns: usize,
}

/// The product of two matrices, of a matrix and a row, or of two rows.
pub(super) fn matmul(a: Numbers, b: Numbers, run: &Run<'_>) -> Outcome {
    let (size, shape) = size(&a.array, &b.array)?;
    let list = a.list && b.list;
    let array = if integral(&a.array) && integral(&b.array) {
        integers(&a.array, &b.array, size, shape, run)?
    } else {
        floats(&a.array, &b.array, size, shape, run)?
    };
    if list || array.shape.is_empty() { Ok(listed(&array)) } else { Ok(array.into()) }
}

fn size(a: &Array, b: &Array) -> Result<(Size, Vec<usize>), Failure> {
    let mut shape = Vec::new();
    let (rows, inner) = match a.shape[..] {
        [inner] => (1, inner),
        [rows, inner] => {
            shape.push(rows);
            (rows, inner)
        }
        _ => return Err(dimensions("a", a)),
    };
    let (below, columns) = match b.shape[..] {
        [below] => (below, 1),
        [below, columns] => {
            shape.push(columns);
            (below, columns)
        }
        _ => return Err(dimensions("b", b)),
    };
    if inner != below {
        let sentence = format!(
            "a has the shape {:?} and b {:?}: {inner} columns do not meet {below} rows",
            a.shape, b.shape
        );
        return Err(Failure::field("b", sentence));
    }
    match rows.checked_mul(columns).and_then(|count| count.checked_mul(8)) {
        Some(bytes) if bytes <= MOST => Ok((Size { rows, inner, columns }, shape)),
        _ => {
            let sentence = format!("a product of {rows} × {columns} numbers is over {MOST} bytes");
            Err(Failure::new(ErrorKind::TooLarge, sentence))
        }
    }
}

fn dimensions(name: &str, array: &Array) -> Failure {
    let sentence = format!("{name} has {} dimensions; it has one or two", array.shape.len());
    Failure::field(name, sentence)
}

/// In double precision; rounded to single if NumPy's answer would be single.
fn floats(
    a: &Array,
    b: &Array,
    size: Size,
    shape: Vec<usize>,
    run: &Run<'_>,
) -> Result<Array, Failure> {
    let numbers = blocks(doubles(a, run)?, doubles(b, run)?, size, 0.0, run)?;
    let single = |array: &Array| matches!(array.kind, NumberKind::F32) || array.kind.size() <= 2;
    Ok(if single(a) && single(b) {
        made(numbers.iter().map(|number| *number as f32).collect::<Vec<_>>(), shape)
    } else {
        made(numbers, shape)
    })
}

/// Exact, or refused: NumPy's would wrap.
fn integers(
    a: &Array,
    b: &Array,
    size: Size,
    shape: Vec<usize>,
    run: &Run<'_>,
) -> Result<Array, Failure> {
    let (a, b) = (Wide::of(a, run)?, Wide::of(b, run)?);
    let unsigned = a.unsigned && b.unsigned && (a.long || b.long);
    let bound = a.most.checked_mul(b.most).and_then(|most| most.checked_mul(size.inner as u128));
    match bound {
        // No sum on the way can leave 64 bit.
        Some(bound) if bound <= i64::MAX as u128 => {
            let narrow = |wide: &Wide| {
                View::made(wide.numbers.numbers().iter().map(|n| *n as i64).collect::<Vec<_>>())
            };
            let numbers = blocks(narrow(&a), narrow(&b), size, 0i64, run)?;
            Ok(match unsigned {
                true => made(numbers.iter().map(|n| *n as u64).collect(), shape),
                false => made(numbers, shape),
            })
        }
        Some(bound) if bound <= i128::MAX as u128 => {
            let numbers = blocks(a.numbers, b.numbers, size, 0i128, run)?;
            match unsigned {
                true => fitting::<u64>(&numbers, shape),
                false => fitting::<i64>(&numbers, shape),
            }
        }
        // Two sums of 2⁶³ 2⁶³ leave 128 bit; so large an answer fits no array, short of cancelling out.
        _ => Err(overflow(if unsigned { NumberKind::U64 } else { NumberKind::I64 })),
    }
}

fn fitting<T: Number + TryFrom<i128>>(
    numbers: &[i128],
    shape: Vec<usize>,
) -> Result<Array, Failure> {
    let fitting: Result<Vec<T>, _> = numbers.iter().map(|number| T::try_from(*number)).collect();
    fitting.map(|numbers| made(numbers, shape)).map_err(|_| overflow(T::KIND))
}

fn made<T: Number>(numbers: Vec<T>, shape: Vec<usize>) -> Array {
    Array { kind: T::KIND, shape, bytes: bytes(numbers) }
}

/// Integers wide enough for any kind.
struct Wide {
    numbers: Arc<View<i128>>,
    /// The largest without its sign.
    most: u128,
    unsigned: bool,
    /// 64 bit.
    long: bool,
}

impl Wide {
    fn of(array: &Array, run: &Run<'_>) -> Result<Wide, Failure> {
        let numbers = with_view!(array, |view| view.converted(run, Number::integer))?;
        use NumberKind::{U8, U16, U32, U64};
        Ok(Wide {
            most: numbers.numbers().iter().map(|number| number.unsigned_abs()).max().unwrap_or(0),
            numbers,
            unsigned: matches!(array.kind, U64 | U32 | U16 | U8),
            long: array.kind.size() == 8,
        })
    }
}

/// Rows of the product made by one part, and the block of `b` that stays in the cache meanwhile.
const ROWS: usize = 32;
const INNER: usize = 128;
const COLUMNS: usize = 256;

/// The product in blocks. Each number of it is summed in the order of the inner dimension, however it
/// is split.
fn blocks<T>(
    a: Arc<View<T>>,
    b: Arc<View<T>>,
    size: Size,
    zero: T,
    run: &Run<'_>,
) -> Result<Vec<T>, Failure>
where
    T: bytemuck::Pod + Send + Sync + std::ops::Add<Output = T> + std::ops::Mul<Output = T>,
{
    let rows =
        if size.rows * size.inner * size.columns < 1 << 18 { size.rows.max(1) } else { ROWS };
    let parts = run.spread(size.rows.div_ceil(rows), move |number, stop| {
        let first = number * rows;
        let last = size.rows.min(first + rows);
        let mut product = vec![zero; (last - first) * size.columns];
        let a = &a.numbers()[first * size.inner..last * size.inner];
        strip(a, b.numbers(), size, &mut product, stop)?;
        Ok(product)
    })?;
    Ok(parts.concat())
}

/// Some rows of the product.
fn strip<T>(a: &[T], b: &[T], size: Size, product: &mut [T], stop: &Stop) -> Result<(), Failure>
where
    T: Copy + std::ops::Add<Output = T> + std::ops::Mul<Output = T>,
{
    for left in (0..size.columns).step_by(COLUMNS) {
        let right = size.columns.min(left + COLUMNS);
        for top in (0..size.inner).step_by(INNER) {
            stop.check()?;
            let bottom = size.inner.min(top + INNER);
            let rows = a.chunks_exact(size.inner).zip(product.chunks_exact_mut(size.columns));
            for (row, product) in rows {
                let line = |inner: usize| &b[inner * size.columns + left..][..right - left];
                add_products(&row[top..bottom], |n| line(top + n), &mut product[left..right]);
            }
        }
    }
    Ok(())
}

/// `product += row · lines`, four lines at a time, so that the product is loaded less often.
fn add_products<'a, T>(row: &[T], line: impl Fn(usize) -> &'a [T], product: &mut [T])
where
    T: Copy + std::ops::Add<Output = T> + std::ops::Mul<Output = T> + 'a,
{
    let mut four = row.chunks_exact(4);
    let mut n = 0;
    for factors in &mut four {
        let &[p, q, r, s] = factors else { break };
        let lines = line(n).iter().zip(line(n + 1)).zip(line(n + 2).iter().zip(line(n + 3)));
        for (sum, ((a, b), (c, d))) in product.iter_mut().zip(lines) {
            *sum = *sum + p * *a + q * *b + r * *c + s * *d;
        }
        n += 4;
    }
    for factor in four.remainder() {
        for (sum, number) in product.iter_mut().zip(line(n)) {
            *sum = *sum + *factor * *number;
        }
        n += 1;
    }
}
