//! The built-in tasks as they are called.

use bytes::Bytes;
use num_bigint::BigInt;

use super::*;

fn n(value: impl Into<Value>) -> Value {
    Value::map([("n", value.into())])
}

#[test]
fn numbers_are_exact_at_every_size() {
    let compute = compute(1);
    assert_eq!(execute(&compute, "fibonacci", 10).unwrap(), Value::Int(55));
    assert_eq!(execute(&compute, "fibonacci", n(0)).unwrap(), Value::Int(0));
    assert_eq!(execute(&compute, "fibonacci", 92).unwrap(), Value::Int(7_540_113_804_746_346_429));
    let hundred: BigInt = "354224848179261915075".parse().unwrap();
    assert_eq!(execute(&compute, "fibonacci", n(100)).unwrap(), Value::big(hundred));
    assert_eq!(execute(&compute, "factorial", 0).unwrap(), Value::Int(1));
    assert_eq!(execute(&compute, "factorial", 20).unwrap(), Value::Int(2_432_902_008_176_640_000));
    let many = (1..=2_000).fold(BigInt::from(1), |product, n| product * n);
    assert_eq!(execute(&compute, "factorial", 2_000.0).unwrap(), Value::big(many));
}

#[test]
fn the_largest_answers_are_given_and_larger_ones_refused_with_the_limit() {
    let compute = compute(1);
    let Value::Big(number) = execute(&compute, "fibonacci", 10_000_000).unwrap() else { panic!() };
    assert_eq!(number.bits(), 6_942_418);
    // Its last digits are known from the period of the last eight: 1.5 · 10⁸.
    assert_eq!(number.as_ref() % 100_000u32, BigInt::from(46_875));
    for (task, limit) in [("fibonacci", "10000000"), ("factorial", "1000000")] {
        let (kind, field, message) = refused(execute(&compute, task, 1_000_000_000));
        assert_eq!((kind, field.as_deref()), (ErrorKind::TooLarge, Some("n")));
        assert!(message.contains(limit), "{message}");
        let huge = Value::big(BigInt::from(1) << 100_000);
        assert_eq!(refused(execute(&compute, task, huge)).0, ErrorKind::TooLarge);
    }
    let huge = Value::big(BigInt::from(1) << 16_384);
    let (kind, _, message) = refused(execute(&compute, "is_prime", huge));
    assert_eq!(kind, ErrorKind::TooLarge);
    assert!(message.contains("16384"), "{message}");
}

#[test]
fn wrong_arguments_are_refused_by_their_name() {
    let compute = compute(1);
    let wrong: [Value; 7] = [
        Value::Null,
        n(()),
        n("10"),
        n(1.5),
        n(true),
        Value::map([("n", 1.into()), ("m", 2.into())]),
        Value::map([("m", 2.into())]),
    ];
    for task in ["fibonacci", "factorial", "is_prime"] {
        for data in wrong.clone() {
            let (kind, field, message) = refused(execute(&compute, task, data.clone()));
            assert_eq!(kind, ErrorKind::InvalidPayload, "{data:?}");
            let unknown = data.get("n").is_some() && data.get("m").is_some();
            assert_eq!(field.as_deref(), Some(if unknown { "m" } else { "n" }), "{message}");
        }
    }
    for task in ["fibonacci", "factorial"] {
        let (kind, field, message) = refused(execute(&compute, task, -1));
        assert_eq!((kind, field.as_deref()), (ErrorKind::InvalidPayload, Some("n")));
        assert!(message.contains("-1"), "{message}");
    }
}

#[test]
fn primes_say_whether_they_are_certain() {
    let compute = compute(1);
    let answer = |prime: bool, probable: bool| {
        Value::map([("prime", prime.into()), ("probable", probable.into())])
    };
    let is_prime = |data| execute(&compute, "is_prime", data).unwrap();
    for composite in [-7, 0, 1, 4, 561] {
        assert_eq!(is_prime(n(composite)), answer(false, false), "{composite}");
    }
    assert_eq!(is_prime(n(9_223_372_036_854_775_783i64)), answer(true, false));
    assert_eq!(is_prime(n(18_446_744_073_709_551_557u64)), answer(true, false));
    let mersenne: BigInt = (BigInt::from(1) << 521) - 1;
    assert_eq!(is_prime(n(mersenne.clone())), answer(true, true));
    assert_eq!(is_prime(n(mersenne * 3)), answer(false, false));
}

#[test]
fn text_bytes_and_streams_have_the_same_hash() {
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let compute = compute(1);
    let bytes = Bytes::from_static(b"abc");
    for data in [
        "abc".into(),
        bytes.clone().into(),
        Value::map([("data", "abc".into())]),
        Value::map([("text", "abc".into())]),
        Value::map([("bytes", bytes.into())]),
    ] {
        assert_eq!(execute(&compute, "hash_sha256", data).unwrap(), ABC.into());
    }
    let long = vec![7u8; 1_000_003];
    let mut stream = crate::compute::Sha256Stream::new();
    long.chunks(1_000).for_each(|piece| stream.update(piece));
    assert_eq!(
        execute(&compute, "hash_sha256", Bytes::from(long)).unwrap(),
        stream.finish().into()
    );
    for data in [Value::Null, 5.into(), Value::map([("text", "".into()), ("data", "".into())])] {
        let (kind, field, _) = refused(execute(&compute, "hash_sha256", data));
        assert_eq!((kind, field.as_deref()), (ErrorKind::InvalidPayload, Some("data")));
    }
}

#[test]
fn unknown_tasks_and_operations_say_what_there_is() {
    let compute = compute(1);
    let (kind, field, message) = refused(execute(&compute, "fibonaci", 1));
    assert_eq!((kind, field.as_deref()), (ErrorKind::NotFound, Some("task")));
    assert!(message.contains("fibonacci, hash_sha256, "), "{message}");
    let (kind, _, message) = refused(answer(&compute, "run", Value::Null));
    assert_eq!(kind, ErrorKind::UnknownOperation);
    assert!(message.contains("execute, batch, map"), "{message}");
    let (_, field, _) =
        refused(answer(&compute, "execute", task("is_prime", 1).get("data").cloned().into()));
    assert_eq!(field.as_deref(), Some("task"));
}
