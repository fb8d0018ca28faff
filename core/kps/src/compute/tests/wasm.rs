//! WebAssembly modules, well-behaved and not.

use bytes::Bytes;

use super::*;

/// A module with a memory, a place for the input at 4096, and `kps_run` with this body.
fn module(more: &str, run: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "kps_alloc") (param i32) (result i32) (i32.const 4096))
            {more}
            (func (export "kps_run") (param $at i32) (param $length i32) (result i64)
                (local $n i32)
                {run}))"#
    );
    wat::parse_str(text).unwrap()
}

const BYTES: &str = r#"(global (export "kps_bytes") i32 (i32.const 1))"#;
const FOREVER: &str = "(loop $again (br $again)) (unreachable)";

/// A module that answers this text, whatever it is given.
fn answering(text: &str) -> Vec<u8> {
    let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let data = format!(r#"(data (i32.const 16) "{escaped}")"#);
    module(&data, &format!("(i64.const {})", (16u64 << 32) | text.len() as u64))
}

fn payload(name: &str, wasm: impl Into<Vec<u8>>) -> Value {
    Value::map([("name", name.into()), ("wasm", Bytes::from(wasm.into()).into())])
}

fn load(compute: &Compute, wasm: Vec<u8>) -> Outcome {
    answer(compute, "load", payload("it", wasm))
}

/// Loads it and runs it once.
fn once(wasm: Vec<u8>, data: impl Into<Value>) -> Outcome {
    let compute = compute(1);
    load(&compute, wasm).unwrap();
    execute(&compute, "it", data)
}

#[test]
fn a_module_from_the_examples_computes() {
    let text = include_str!("../../../../../examples/wasm/levenshtein.wat");
    let wasm = include_bytes!("../../../../../examples/wasm/levenshtein.wasm");
    assert_eq!(wat::parse_str(text).unwrap(), wasm, "levenshtein.wasm has to be assembled again");
    let compute = compute(2);
    let loaded = answer(&compute, "load", payload("levenshtein", *wasm)).unwrap();
    assert_eq!(loaded.get("loaded"), Some(&"levenshtein".into()));
    let distance = |a: &str, b: &str| {
        let answer = execute(&compute, "levenshtein", format!("{a}\n{b}")).unwrap();
        let Value::Bytes(digits) = answer else { panic!("{answer:?}") };
        std::str::from_utf8(&digits).unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(distance("kitten", "sitting"), 3);
    assert_eq!(distance("", "abc"), 3);
    assert_eq!(distance("abc", ""), 3);
    assert_eq!(distance("same", "same"), 0);
    let (long, other) = ("ab".repeat(3_000), "ba".repeat(2_900));
    // The shorter one is a part of the longer.
    assert_eq!(distance(&long, &other), 200);
    let (kind, _, message) = refused(execute(&compute, "levenshtein", "one"));
    assert_eq!(kind, ErrorKind::HandlerFailed);
    assert_eq!(message, "give two words with a line feed between them");
}

#[test]
fn a_module_made_with_rust_computes() {
    let compute = compute(2);
    let wasm = include_bytes!("../../../../../examples/wasm/mandelbrot.wasm");
    answer(&compute, "load", payload("mandelbrot", *wasm)).unwrap();
    let (width, height, steps) = (48, 32, 50);
    let sizes = [("width", width.into()), ("height", height.into()), ("steps", Value::from(steps))];
    let picture = execute(&compute, "mandelbrot", Value::map(sizes)).unwrap();
    let mut expected = vec![0; steps as usize + 1];
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        let real = f64::from(x) / f64::from(width) * 3.0 - 2.0;
        let imaginary = f64::from(y) / f64::from(height) * 2.0 - 1.0;
        let (mut at, mut step) = ((0.0, 0.0), 0);
        while step < steps {
            at = (at.0 * at.0 - at.1 * at.1 + real, 2.0 * at.0 * at.1 + imaginary);
            if at.0 * at.0 + at.1 * at.1 > 4.0 {
                break;
            }
            step += 1;
        }
        expected[step as usize] += 1;
    }
    assert_eq!(picture.get("stay"), Some(&expected.pop().unwrap().into()));
    assert_eq!(picture.get("leave"), Some(&integers(expected)));
    let (kind, _, message) = refused(execute(&compute, "mandelbrot", Value::Null));
    assert_eq!(kind, ErrorKind::InvalidPayload);
    assert!(message.contains("width"), "{message}");
}

#[test]
fn json_goes_in_and_out() {
    let echo = module(
        r#"(data (i32.const 4086) "{\"result\":")"#,
        "(i32.store8 (i32.add (local.get $at) (local.get $length)) (i32.const 125))
         (i64.or (i64.const 0xff600000000) (i64.extend_i32_u (i32.add (local.get $length) (i32.const 11))))",
    );
    let compute = compute(1);
    load(&compute, echo).unwrap();
    let big = Value::big(num_bigint::BigInt::from(7).pow(40));
    let data = Value::map([
        ("text", "ü \"quoted\"".into()),
        ("list", integers([1, 2])),
        ("big", big),
        ("bytes", Bytes::from_static(&[0, 255]).into()),
        ("nothing", Value::Null),
    ]);
    assert_eq!(execute(&compute, "it", data.clone()).unwrap(), data);
    let map = Value::map([("task", "it".into()), ("items", integers(0..50))]);
    assert_eq!(answer(&compute, "map", map).unwrap().get("results"), Some(&integers(0..50)));
    let function = Value::Callback(crate::capability::Callback::new(|_| {}));
    assert_eq!(refused(execute(&compute, "it", function)).1.as_deref(), Some("data"));
}

#[test]
fn a_module_says_what_went_wrong() {
    let failing = |text| refused(once(answering(text), Value::Null));
    let (kind, field, message) =
        failing(r#"{"error":{"code":"invalid_payload","message":"no words","field":"text"}}"#);
    assert_eq!((kind, field.as_deref()), (ErrorKind::InvalidPayload, Some("text")));
    assert_eq!(message, "no words");
    for text in [r#"{"error":{"code":"odd","message":"m"}}"#, r#"{"error":{}}"#] {
        assert_eq!(failing(text).0, ErrorKind::HandlerFailed);
    }
    let retry = r#"{"error":{"code":"unavailable","message":"later","retry":true}}"#;
    assert!(once(answering(retry), Value::Null).unwrap_err().retry);
}

#[test]
fn a_nonsensical_answer_is_the_modules_failure() {
    for text in ["", "{", "[]", "{}", "5", "\u{0}"] {
        let (kind, _, message) = refused(once(answering(text), Value::Null));
        assert_eq!(kind, ErrorKind::HandlerFailed, "{text:?}");
        assert!(message.starts_with("the answer of the module"), "{message}");
    }
    for run in ["(i64.const -1)", "(i64.const 0x0000ffff00010000)", "(i64.const 0xffffffff)"] {
        let (kind, _, message) = refused(once(module(BYTES, run), Value::Null));
        assert_eq!(kind, ErrorKind::HandlerFailed);
        assert!(message.contains("outside its memory"), "{message}");
    }
    let tag = module(BYTES, "(i32.store8 (i32.const 0) (i32.const 9)) (i64.const 1)");
    assert_eq!(refused(once(tag, Value::Null)).0, ErrorKind::HandlerFailed);
    let elsewhere = r#"(module (memory (export "memory") 1)
        (func (export "kps_alloc") (param i32) (result i32) (i32.const -8))
        (func (export "kps_run") (param i32 i32) (result i64) (i64.const 0)))"#;
    let (_, _, message) = refused(once(wat::parse_str(elsewhere).unwrap(), "12345678"));
    assert!(message.contains("kps_alloc"), "{message}");
}

#[test]
fn a_module_that_hangs_is_stopped_and_its_thread_goes_on() {
    let compute = compute(1);
    load(&compute, module("", FOREVER)).unwrap();
    let begun = call("execute", task("it", 1));
    let cancel = begun.cancel.clone();
    let hung = compute.call(begun);
    // The thread is at it, or will be: another task is only answered when it stops.
    let next = compute.call(call("execute", task("fibonacci", 3_000)));
    cancel.cancel();
    assert_eq!(block_on(hung).unwrap_err().kind, ErrorKind::Cancelled);
    block_on(next).unwrap();

    let deadline = Instant::now() + std::time::Duration::from_millis(20);
    let late = Call { deadline: Some(deadline), ..call("execute", task("it", 1)) };
    assert_eq!(block_on(compute.call(late)).unwrap_err().kind, ErrorKind::Timeout);
    assert!(deadline.elapsed().as_millis() < 300);
    drop(compute.call(call("execute", task("it", 1))));
    execute(&compute, "fibonacci", 3_000).unwrap();
}

#[test]
fn large_steps_do_not_delay_the_end() {
    let fill = "(drop (memory.grow (i32.const 900)))
        (loop $again
            (memory.fill (i32.const 0) (i32.const 1) (i32.const 50000000)) (br $again))
        (unreachable)";
    let compute = compute(1);
    load(&compute, module("", fill)).unwrap();
    let deadline = Instant::now() + std::time::Duration::from_millis(20);
    let late = Call { deadline: Some(deadline), ..call("execute", task("it", 1)) };
    assert_eq!(block_on(compute.call(late)).unwrap_err().kind, ErrorKind::Timeout);
    assert!(deadline.elapsed().as_millis() < 300);
}

#[test]
fn a_module_that_hangs_while_it_prepares_is_stopped_too() {
    for name in ["_initialize", "kps_alloc"] {
        let kind = if name == "kps_alloc" { "(param i32) (result i32)" } else { "" };
        let alloc = r#"(func (export "kps_alloc") (param i32) (result i32) (i32.const 0))"#;
        let text = format!(
            r#"(module (memory (export "memory") 1)
                {}
                (func (export "{name}") {kind} (loop $again (br $again)) (unreachable))
                (func (export "kps_run") (param i32 i32) (result i64) (i64.const 0)))"#,
            if name == "kps_alloc" { "" } else { alloc }
        );
        let compute = compute(1);
        load(&compute, wat::parse_str(text).unwrap()).unwrap();
        let deadline = Some(Instant::now() + std::time::Duration::from_millis(5));
        let late = Call { deadline, ..call("execute", task("it", 1)) };
        assert_eq!(block_on(compute.call(late)).unwrap_err().kind, ErrorKind::Timeout, "{name}");
    }
}

#[test]
fn more_memory_than_granted_is_not_given() {
    let bomb = "(loop $again
            (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (unreachable)";
    let (kind, _, message) = refused(once(module("", bomb), Value::Null));
    assert_eq!(kind, ErrorKind::QuotaExceeded);
    assert!(message.contains("67108864 bytes"), "{message}");
    // Who is refused may do with less.
    let modest = "(drop (memory.grow (i32.const 60000))) (i32.store8 (i32.const 0) (i32.const 0)) (i64.const 1)";
    assert_eq!(once(module(BYTES, modest), Value::Null).unwrap(), Bytes::new().into());
    let tables = r#"(table $t 1 funcref)"#;
    let bomb = "(drop (table.grow $t (ref.null func) (i32.const 2000000))) (unreachable)";
    assert_eq!(refused(once(module(tables, bomb), Value::Null)).0, ErrorKind::QuotaExceeded);
    // What it has from the start counts.
    let large = module("", "(i64.const 0)");
    let text = r#"(module (memory (export "memory") 2000)
        (func (export "kps_alloc") (param i32) (result i32) (i32.const 0))
        (func (export "kps_run") (param i32 i32) (result i64) (i64.const 0)))"#;
    assert_eq!(
        refused(load(&compute(1), wat::parse_str(text).unwrap())).0,
        ErrorKind::QuotaExceeded
    );
    for limit in [1i64, 1 << 40] {
        let mut fields = crate::capability::Map::default();
        fields.push("name", "it");
        fields.push("wasm", Bytes::from(large.clone()));
        fields.push("memory_limit", limit);
        let (_, field, _) = refused(answer(&compute(1), "load", fields.into()));
        assert_eq!(field.as_deref(), Some("memory_limit"));
    }
}

#[test]
fn fuel_is_what_a_run_may_use() {
    let compute = compute(1);
    let work = "(local.set $n (i32.const 100000))
        (loop $again
            (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        (i32.store8 (i32.const 0) (i32.const 0)) (i64.const 1)";
    let load = |name: &str, fuel: Value| {
        let mut fields = crate::capability::Map::default();
        fields.push("name", name);
        fields.push("wasm", Bytes::from(module(BYTES, work)));
        fields.push("fuel", fuel);
        answer(&compute, "load", fields.into())
    };
    load("enough", 10_000_000.into()).unwrap();
    load("little", 10_000.into()).unwrap();
    load("any", Value::Null).unwrap();
    assert_eq!(refused(load("none", 0.into())).1.as_deref(), Some("fuel"));
    for _ in 0..3 {
        execute(&compute, "enough", Value::Null).unwrap();
        execute(&compute, "any", Value::Null).unwrap();
        let (kind, _, message) = refused(execute(&compute, "little", Value::Null));
        assert_eq!(kind, ErrorKind::QuotaExceeded);
        assert!(message.contains("fuel"), "{message}");
    }
}

#[test]
fn traps_are_failures_with_their_text() {
    let recursion = "(func $deep (param i32) (result i32)
        (i32.add (i32.const 1) (call $deep (local.get 0))))";
    for (more, run, text) in [
        ("", "(unreachable)", "unreachable"),
        ("", "(drop (i32.div_s (i32.const 1) (local.get $n))) (i64.const 0)", "divide by zero"),
        ("", "(drop (i32.load (i32.const -4))) (i64.const 0)", "out of bounds"),
        (recursion, "(drop (call $deep (i32.const 1))) (i64.const 0)", "stack"),
    ] {
        let (kind, _, message) = refused(once(module(more, run), Value::Null));
        assert_eq!(kind, ErrorKind::Internal);
        assert!(message.starts_with("the module trapped") && message.contains(text), "{message}");
    }
}

#[test]
fn nothing_of_one_run_is_seen_by_another() {
    let counter = module(
        &format!("{BYTES} (global $calls (mut i32) (i32.const 0))"),
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (i32.store8 (i32.const 1) (i32.add (i32.load8_u (i32.const 1)) (global.get $calls)))
         (i64.const 2)",
    );
    let compute = compute(2);
    load(&compute, counter).unwrap();
    for _ in 0..5 {
        let answer = execute(&compute, "it", Value::Null).unwrap();
        assert_eq!(answer, Bytes::from_static(&[1]).into());
    }
}

#[test]
fn what_is_no_module_is_refused_with_the_reason() {
    let with_start = r#"(module (memory (export "memory") 1) (func $s) (start $s)
        (func (export "kps_alloc") (param i32) (result i32) (i32.const 0))
        (func (export "kps_run") (param i32 i32) (result i64) (i64.const 0)))"#;
    let imports = r#"(module (import "env" "clock" (func)) (memory (export "memory") 1))"#;
    let lacks = |what: &str| {
        let memory = r#"(memory (export "memory") 1)"#;
        let alloc = r#"(func (export "kps_alloc") (param i32) (result i32) (i32.const 0))"#;
        let run = r#"(func (export "kps_run") (param i32 i32) (result i64) (i64.const 0))"#;
        let parts = [("memory", memory), ("kps_alloc", alloc), ("kps_run", run)];
        let rest: String =
            parts.iter().filter(|(name, _)| *name != what).map(|part| part.1).collect();
        wat::parse_str(format!("(module {rest})")).unwrap()
    };
    let odd = r#"(module (memory (export "memory") 1)
        (func (export "kps_alloc") (param i64) (result i32) (i32.const 0))
        (func (export "kps_run") (param i32 i32) (result i64) (i64.const 0)))"#;
    let whole = module("", "(i64.const 0)");
    let mut broken = whole.clone();
    broken.truncate(whole.len() - 5);
    let compute = compute(1);
    for (wasm, reason) in [
        (Vec::new(), "no module"),
        (b"garbage".to_vec(), "no module"),
        (b"(module)".to_vec(), "no module"),
        (broken, "no module"),
        (wat::parse_str(with_start).unwrap(), "no module"),
        (wat::parse_str(imports).unwrap(), "imports env.clock"),
        (lacks("memory"), "memory"),
        (lacks("kps_alloc"), "kps_alloc"),
        (lacks("kps_run"), "kps_run"),
        (wat::parse_str(odd).unwrap(), "kps_alloc"),
    ] {
        let (kind, field, message) = refused(load(&compute, wasm));
        assert_eq!(
            (kind, field.as_deref()),
            (ErrorKind::InvalidPayload, Some("wasm")),
            "{message}"
        );
        assert!(message.contains(reason), "{message}");
    }
    // Nothing has changed: the name is free.
    load(&compute, whole).unwrap();
    let missing = answer(&compute, "load", Value::map([("name", "x".into())]));
    assert_eq!(refused(missing).1.as_deref(), Some("wasm"));
}

#[test]
fn any_damage_to_a_module_is_refused_or_harmless() {
    let wasm = include_bytes!("../../../../../examples/wasm/levenshtein.wasm");
    let compute = compute(1);
    let mut seed = 1u64;
    for _ in 0..300 {
        let mut damaged = wasm.to_vec();
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % damaged.len();
            damaged[at] = (seed >> 20) as u8;
        }
        if load(&compute, damaged).is_ok() {
            let deadline = Some(Instant::now() + std::time::Duration::from_millis(10));
            let run = Call { deadline, ..call("execute", task("it", "kitten\nsitting")) };
            // Whatever it answers: it does so, and the thread lives.
            let _ = block_on(compute.call(run));
            answer(&compute, "unload", Value::map([("name", "it".into())])).unwrap();
        }
    }
    execute(&compute, "fibonacci", 3_000).unwrap();
}

#[test]
fn modules_come_and_go() {
    let compute = compute(1);
    let module = || answering(r#"{"result":1}"#);
    load(&compute, module()).unwrap();
    assert_eq!(execute(&compute, "it", Value::Null).unwrap(), 1.into());
    assert_eq!(refused(load(&compute, module())).0, ErrorKind::Conflict);
    assert_eq!(refused(answer(&compute, "load", payload("sum", module()))).0, ErrorKind::Conflict);
    assert_eq!(refused(answer(&compute, "load", payload("", module()))).1.as_deref(), Some("name"));
    let tasks = answer(&compute, "tasks", Value::Null).unwrap();
    let Some(Value::List(tasks)) = tasks.get("tasks") else { panic!() };
    let it = tasks.iter().find(|task| task.get("name") == Some(&"it".into())).unwrap();
    assert_eq!(it.get("kind"), Some(&"wasm".into()));
    assert_eq!(it.get("memory_limit"), Some(&(64 << 20).into()));
    let unload = |name: &str| answer(&compute, "unload", Value::map([("name", name.into())]));
    assert_eq!(unload("it").unwrap().get("unloaded"), Some(&"it".into()));
    assert_eq!(refused(unload("it")).0, ErrorKind::NotFound);
    assert_eq!(refused(unload("sum")).0, ErrorKind::Conflict);
    assert_eq!(refused(execute(&compute, "it", Value::Null)).0, ErrorKind::NotFound);
    load(&compute, answering(r#"{"result":2}"#)).unwrap();
    assert_eq!(execute(&compute, "it", Value::Null).unwrap(), 2.into());
}
