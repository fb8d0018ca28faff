//! Work on arrays, compared with what NumPy says.

use bytes::{BufMut, BytesMut};

use super::*;
use crate::capability::{Array, NumberKind};

macro_rules! array {
    ($kind:ident $type:ident $shape:expr, $numbers:expr) => {{
        let numbers: Vec<$type> = $numbers;
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        Value::from(Array { kind: NumberKind::$kind, shape: $shape.to_vec(), bytes: bytes.into() })
    }};
}

fn floats(numbers: &[f64]) -> Value {
    numbers.iter().copied().map(Value::Float).collect::<Vec<_>>().into()
}

fn with(array: Value, name: &str, option: impl Into<Value>) -> Value {
    Value::map([("array", array), (name, option.into())])
}

fn double(value: Value) -> f64 {
    match value {
        Value::Float(number) => number,
        other => panic!("{other:?}"),
    }
}

fn doubles(value: &Value) -> Vec<f64> {
    match value {
        Value::List(list) => list.iter().cloned().map(double).collect(),
        Value::Array(array) => {
            let numbers = array.bytes.chunks_exact(8);
            numbers.map(|bytes| f64::from_ne_bytes(bytes.try_into().unwrap())).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn pair(a: Value, b: Value) -> Value {
    Value::map([("a", a), ("b", b)])
}

/// Numbers that look random and are the same every time.
fn noise(count: usize) -> Vec<f64> {
    let mut seed = 1u64;
    let next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn every_kind_of_number_sums_exactly() {
    let compute = compute(2);
    let sum = |array| execute(&compute, "sum", array).unwrap();
    assert_eq!(sum(array!(I64 i64 [2], vec![i64::MAX, i64::MAX])), (u64::MAX - 1).into());
    assert_eq!(sum(array!(U64 u64 [3], vec![u64::MAX, 1, 1])).kind(), "an integer");
    assert_eq!(sum(array!(I32 i32 [3], vec![i32::MIN, i32::MIN, 7])), (-4_294_967_289i64).into());
    assert_eq!(sum(array!(U32 u32 [2], vec![u32::MAX, u32::MAX])), 8_589_934_590i64.into());
    assert_eq!(sum(array!(I16 i16 [2, 2], vec![-32_768, -32_768, 1, 1])), (-65_534).into());
    assert_eq!(sum(array!(U16 u16 [2], vec![65_535, 65_535])), 131_070.into());
    assert_eq!(sum(array!(I8 i8 [2], vec![-128, -128])), (-256).into());
    assert_eq!(sum(array!(U8 u8 [3], vec![255, 255, 255])), 765.into());
    assert_eq!(sum(array!(F32 f32 [2], vec![0.5, 0.25])), 0.75.into());
    assert_eq!(sum(array!(F64 f64 [3], vec![0.5, 0.25, -1.0])), (-0.25).into());
    assert_eq!(sum(integers([1, 2, 3])), 6.into());
    assert_eq!(sum(vec![1.into(), 0.5.into()].into()), 1.5.into());
    let large = Value::big(num_bigint::BigInt::from(1) << 100);
    assert_eq!(sum(vec![large.clone(), 1.into(), (-1).into()].into()), large);
    assert_eq!(sum(integers([])), 0.into());
}

#[test]
fn sums_of_doubles_do_not_drift_and_are_the_same_on_any_number_of_cores() {
    let tenths = array!(F64 f64 [1_000_000], vec![0.1; 1_000_000]);
    let numbers = array!(F64 f64 [1_000_003], noise(1_000_003));
    let on = |threads| {
        let compute = compute(threads);
        let run = |task, data: &Value| double(execute(&compute, task, data.clone()).unwrap());
        assert!((run("sum", &tenths) - 100_000.0).abs() < 1e-8);
        ["sum", "mean", "std"].map(|task| run(task, &numbers).to_bits())
    };
    assert_eq!(on(1), on(4));
    // The deviation of an even distribution of width 1.
    assert!((f64::from_bits(on(2)[2]) - (1.0f64 / 12.0).sqrt()).abs() < 1e-3);
}

#[test]
fn means_and_deviations_are_numpys() {
    let compute = compute(1);
    let run = |task, data| double(execute(&compute, task, data).unwrap());
    let numbers = || integers([2, 4, 4, 4, 5, 5, 7, 9]);
    assert_eq!(run("mean", numbers()), 5.0);
    assert_eq!(run("std", numbers()), 2.0);
    assert_eq!(run("std", with(numbers(), "ddof", 1)), 2.138_089_935_299_395);
    assert!(run("std", with(integers([3]), "ddof", 1)).is_nan());
    assert!(run("mean", integers([])).is_nan());
    assert!(run("mean", floats(&[1.0, f64::NAN])).is_nan());
    assert_eq!(run("sum", floats(&[1.0, f64::INFINITY])), f64::INFINITY);
    assert!(run("sum", floats(&[f64::NEG_INFINITY, f64::INFINITY])).is_nan());
}

#[test]
fn extremes_keep_their_kind_and_hear_of_what_is_no_number() {
    let compute = compute(2);
    let run = |task, data| execute(&compute, task, data);
    assert_eq!(run("min", integers([3, -1, 2])).unwrap(), (-1).into());
    assert_eq!(run("max", array!(U64 u64 [2], vec![1, u64::MAX])).unwrap(), u64::MAX.into());
    assert_eq!(run("max", floats(&[1.0, 2.5])).unwrap(), 2.5.into());
    for place in [0, 70_000, 199_999] {
        let mut numbers = noise(200_000);
        numbers[place] = f64::NAN;
        let numbers = array!(F64 f64 [200_000], numbers);
        assert!(double(run("min", numbers.clone()).unwrap()).is_nan());
        assert!(double(run("max", numbers).unwrap()).is_nan());
    }
    for task in ["min", "max", "quantiles"] {
        let (kind, field, message) = refused(run(task, integers([])));
        assert_eq!((kind, field.as_deref()), (ErrorKind::InvalidPayload, Some("array")));
        assert!(message.contains("no numbers"), "{message}");
    }
}

#[test]
fn quantiles_lie_between_their_neighbours() {
    let compute = compute(1);
    let run = |data| execute(&compute, "quantiles", data);
    let numbers = || integers([4, 1, 3, 2]);
    assert_eq!(doubles(&run(numbers()).unwrap()), [1.0, 1.75, 2.5, 3.25, 4.0]);
    assert_eq!(run(with(numbers(), "q", 0.9)).unwrap(), Value::Float(3.7));
    let some = vec![0.into(), 0.1.into(), 1.into()];
    assert_eq!(doubles(&run(with(numbers(), "q", some)).unwrap()), [1.0, 1.3, 4.0]);
    let infinite = floats(&[f64::NEG_INFINITY, 0.0, f64::INFINITY]);
    assert_eq!(double(run(with(infinite, "q", 0.5)).unwrap()), 0.0);
    assert!(double(run(with(floats(&[1.0, f64::NAN]), "q", 0.0)).unwrap()).is_nan());
    for wrong in [Value::from(1.5), (-0.1).into(), "half".into(), vec![Value::Null].into()] {
        assert_eq!(refused(run(with(numbers(), "q", wrong))).1.as_deref(), Some("q"));
    }
}

#[test]
fn sorted_numbers_are_given_as_the_array_was() {
    let compute = compute(3);
    let run = |data| execute(&compute, "sort", data).unwrap();
    assert_eq!(run(integers([3, 1, 2])), integers([1, 2, 3]));
    assert_eq!(run(with(integers([3, 1, 2]), "descending", true)), integers([3, 2, 1]));
    let rows = array!(I16 i16 [2, 3], vec![3, 1, 2, 9, 8, -7]);
    assert_eq!(run(rows), array!(I16 i16 [2, 3], vec![1, 2, 3, -7, 8, 9]));
    let nested = vec![integers([2, 1]), integers([4, 3])];
    assert_eq!(run(nested.into()), vec![integers([1, 2]), integers([3, 4])].into());
    let last = doubles(&run(floats(&[f64::NAN, 1.0, f64::NEG_INFINITY])));
    assert!(last[2].is_nan() && last[..2] == [f64::NEG_INFINITY, 1.0]);
    for count in [0, 1, 32_768, 32_769, 100_000, 500_001] {
        let mut numbers = noise(count);
        let sorted = run(array!(F64 f64 [count], numbers.clone()));
        numbers.sort_by(f64::total_cmp);
        assert_eq!(doubles(&sorted), numbers, "{count}");
    }
    let mut numbers = noise(120_000);
    let sorted = run(array!(F64 f64 [3, 40_000], numbers.clone()));
    numbers.chunks_mut(40_000).for_each(|row| row.sort_by(f64::total_cmp));
    assert_eq!(doubles(&sorted), numbers);
}

#[test]
fn histograms_count_as_numpy_does() {
    let compute = compute(2);
    let run = |data| execute(&compute, "histogram", data);
    let counts = |data| run(data).unwrap().get("counts").cloned().unwrap();
    let answer = run(with(integers([1, 2, 1, 4]), "bins", 3)).unwrap();
    assert_eq!(answer.get("counts"), Some(&integers([2, 1, 1])));
    assert_eq!(doubles(answer.get("edges").unwrap()), [1.0, 2.0, 3.0, 4.0]);
    let edges = with(integers([1, 2, 1, 0, 3, 9]), "bins", integers([0, 1, 2, 3]));
    assert_eq!(counts(edges), integers([1, 2, 2]));
    let mut ranged = crate::capability::Map::default();
    ranged.push("array", floats(&[-1.0, 0.0, 0.5, 1.0, f64::NAN]));
    ranged.push("bins", 2);
    ranged.push("range", integers([0, 1]));
    assert_eq!(counts(ranged.into()), integers([1, 2]));
    assert_eq!(doubles(run(integers([])).unwrap().get("edges").unwrap())[10], 1.0);
    let single = run(with(integers([7, 7]), "bins", 1)).unwrap();
    assert_eq!(doubles(single.get("edges").unwrap()), [6.5, 7.5]);
    // Each number lies in one interval, also where edges are rounded.
    let many = with(array!(F64 f64 [300_000], noise(300_000)), "bins", 997);
    let Value::List(many) = counts(many) else { panic!() };
    let sum = many.iter().map(|n| if let Value::Int(n) = n { *n } else { panic!() }).sum::<i64>();
    assert_eq!(sum, 300_000);
    for (name, wrong) in [
        ("bins", Value::from(0)),
        ("bins", integers([2, 1])),
        ("bins", integers([1])),
        ("range", integers([1, 0])),
        ("range", integers([1])),
    ] {
        let (kind, field, _) = refused(run(with(integers([1]), name, wrong)));
        assert_eq!((kind, field.as_deref()), (ErrorKind::InvalidPayload, Some(name)));
    }
    let (kind, ..) = refused(run(with(integers([1]), "bins", 2_000_000)));
    assert_eq!(kind, ErrorKind::TooLarge);
    assert_eq!(refused(run(floats(&[1.0, f64::INFINITY]))).1.as_deref(), Some("array"));
}

#[test]
fn matrices_multiply() {
    let compute = compute(2);
    let run = |a, b| execute(&compute, "matmul", pair(a, b));
    let square = || Value::from(vec![integers([1, 2]), integers([3, 4])]);
    let answer = run(square(), square()).unwrap();
    assert_eq!(answer, vec![integers([7, 10]), integers([15, 22])].into());
    assert_eq!(run(square(), integers([1, 1])).unwrap(), integers([3, 7]));
    assert_eq!(run(integers([1, 1]), square()).unwrap(), integers([4, 6]));
    assert_eq!(run(integers([1, 2]), integers([3, 4])).unwrap(), 11.into());
    let single = array!(F32 f32 [1, 2], vec![0.5, 2.0]);
    let column = array!(I8 i8 [2, 1], vec![2, 3]);
    assert_eq!(run(single.clone(), column.clone()).unwrap(), array!(F32 f32 [1, 1], vec![7.0]));
    let longs = array!(I64 i64 [2, 1], vec![2, 3]);
    assert_eq!(run(single, longs).unwrap(), array!(F64 f64 [1, 1], vec![7.0]));
    let bytes = array!(U8 u8 [1, 2], vec![200, 200]);
    assert_eq!(run(bytes.clone(), column).unwrap(), array!(I64 i64 [1, 1], vec![1_000]));
    let large = array!(U64 u64 [2, 1], vec![1 << 62, 1 << 62]);
    let ones = array!(U64 u64 [1, 2], vec![1, 2]);
    let product = array!(U64 u64 [1, 1], vec![3u64 << 62]);
    assert_eq!(run(ones, large.clone()).unwrap(), product);
    assert_eq!(refused(run(bytes, large)).0, ErrorKind::TooLarge);
    let nothing = array!(F64 f64 [2, 0], vec![]);
    let below = array!(F64 f64 [0, 2], vec![]);
    assert_eq!(run(nothing, below).unwrap(), array!(F64 f64 [2, 2], vec![0.0; 4]));
}

#[test]
fn large_products_are_those_of_the_definition_on_any_number_of_cores() {
    const ROWS: usize = 70;
    const INNER: usize = 301;
    const COLUMNS: usize = 270;
    let (a, b) = (noise(ROWS * INNER), noise(INNER * COLUMNS));
    let on = |threads| {
        let pair = pair(
            array!(F64 f64 [ROWS, INNER], a.clone()),
            array!(F64 f64 [INNER, COLUMNS], b.clone()),
        );
        doubles(&execute(&compute(threads), "matmul", pair).unwrap())
    };
    let product = on(1);
    assert_eq!(product, on(3));
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            let sum: f64 = (0..INNER).map(|n| a[row * INNER + n] * b[n * COLUMNS + column]).sum();
            assert!((product[row * COLUMNS + column] - sum).abs() < 1e-12);
        }
    }
}

#[test]
fn dot_products_of_integers_are_exact() {
    let compute = compute(1);
    let run = |a, b| execute(&compute, "dot", pair(a, b));
    assert_eq!(run(integers([1, 2, 3]), integers([4, 5, 6])).unwrap(), 32.into());
    assert_eq!(run(floats(&[0.5, 2.0]), integers([2, 4])).unwrap(), 9.0.into());
    let most = || array!(U64 u64 [2], vec![u64::MAX, u64::MAX]);
    let square = num_bigint::BigInt::from(u64::MAX).pow(2) * 2;
    assert_eq!(run(most(), most()).unwrap(), Value::big(square));
    let rows = vec![integers([1, 2]), integers([3, 4])];
    assert_eq!(run(rows.into(), integers([1, 1])).unwrap(), integers([3, 7]));
    let (a, b) = (noise(200_001), noise(200_001));
    let sum: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    let dot = run(array!(F64 f64 [200_001], a), array!(F64 f64 [200_001], b)).unwrap();
    assert!((double(dot) - sum).abs() < 1e-9);
}

#[test]
fn numbers_that_lie_askew_are_copied() {
    let compute = compute(1);
    let mut bytes = BytesMut::with_capacity(64);
    bytes.put_u8(0);
    for number in [1.5f64, 2.5] {
        bytes.put_slice(&number.to_ne_bytes());
    }
    let bytes = bytes.freeze();
    // One of the two is not at a multiple of eight.
    let shifted = Array { kind: NumberKind::F64, shape: vec![2], bytes: bytes.slice(1..) };
    assert_eq!(execute(&compute, "sum", Value::from(shifted)).unwrap(), 4.0.into());
    let even = array!(F64 f64 [2], vec![1.5, 2.5]);
    assert_eq!(execute(&compute, "sum", even).unwrap(), 4.0.into());
}

#[test]
fn what_is_no_array_is_refused_by_its_name() {
    let compute = compute(1);
    let row = || integers([1, 2]);
    let lying = Array { kind: NumberKind::F64, shape: vec![3], bytes: vec![0; 8].into() };
    let huge =
        Array { kind: NumberKind::F64, shape: vec![usize::MAX, usize::MAX], bytes: vec![].into() };
    for wrong in [
        Value::Null,
        "numbers".into(),
        vec!["1".into()].into(),
        vec![true.into()].into(),
        vec![row(), integers([1])].into(),
        vec![row(), 3.into()].into(),
        vec![3.into(), row()].into(),
        Value::from(lying),
        Value::from(huge),
        (0..70).fold(row(), |list, _| vec![list].into()),
    ] {
        let (kind, field, message) = refused(execute(&compute, "sum", wrong));
        assert_eq!(
            (kind, field.as_deref()),
            (ErrorKind::InvalidPayload, Some("array")),
            "{message}"
        );
    }
    let (_, field, _) = refused(execute(&compute, "sum", with(row(), "axis", 0)));
    assert_eq!(field.as_deref(), Some("axis"));
    let (_, field, _) = refused(execute(&compute, "matmul", pair(row(), integers([1, 2, 3]))));
    assert_eq!(field.as_deref(), Some("b"));
    let cube = array!(I8 i8 [1, 1, 1], vec![1]);
    let (_, field, _) = refused(execute(&compute, "matmul", pair(cube, row())));
    assert_eq!(field.as_deref(), Some("a"));
    let (_, field, _) = refused(execute(&compute, "dot", Value::map([("a", row())])));
    assert_eq!(field.as_deref(), Some("b"));
}

#[test]
fn json_null_is_no_number_and_not_refused() {
    let numbers = vec![1.into(), Value::Null];
    assert!(double(execute(&compute(1), "sum", numbers).unwrap()).is_nan());
}
