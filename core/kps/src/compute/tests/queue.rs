//! Batches, order, fairness, room, cancellation.

use std::sync::{Mutex, mpsc};

use super::*;
use crate::capability::Callback;

/// Much work: a second and more.
fn long() -> Value {
    task("factorial", 1_000_000)
}

fn batch(tasks: Vec<Value>) -> Value {
    Value::map([("tasks", tasks.into())])
}

fn results(answer: Value) -> Vec<Value> {
    match answer.get("results") {
        Some(Value::List(results)) => results.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_answers_in_order_and_each_task_fails_for_itself() {
    let compute = compute(2);
    let tasks = vec![
        task("fibonacci", 30),
        task("fibonacci", -1),
        task("nothing", 1),
        5.into(),
        task("is_prime", 7),
    ];
    let results = results(answer(&compute, "batch", batch(tasks)).unwrap());
    let status: Vec<_> = results.iter().map(|result| result.get("status").unwrap()).collect();
    assert_eq!(
        status,
        [&"ok".into(), &"error".into(), &"error".into(), &"error".into(), &"ok".into()]
    );
    assert_eq!(results[0].get("data"), Some(&Value::map([("result", 832_040.into())])));
    assert!(matches!(results[0].get("duration"), Some(Value::Float(ms)) if *ms >= 0.0));
    let error = |index: usize, field| results[index].get("error").unwrap().get(field).cloned();
    assert_eq!(error(1, "code"), Some("invalid_payload".into()));
    assert_eq!(error(1, "retry"), Some(false.into()));
    assert_eq!(error(1, "field"), Some("n".into()));
    assert_eq!(error(2, "code"), Some("not_found".into()));
    assert_eq!(error(2, "field"), Some("tasks[2].task".into()));
    assert_eq!(error(3, "code"), Some("invalid_payload".into()));
}

#[test]
fn empty_batches_are_answered() {
    let compute = compute(1);
    assert!(results(answer(&compute, "batch", batch(vec![])).unwrap()).is_empty());
    let map = Value::map([("task", "fibonacci".into()), ("items", Vec::new().into())]);
    assert!(results(answer(&compute, "map", map).unwrap()).is_empty());
}

#[test]
fn a_large_batch_loses_nothing() {
    let compute = compute(3);
    let tasks = (0..20_000).map(|n| task("fibonacci", n % 90)).collect();
    let results = results(answer(&compute, "batch", batch(tasks)).unwrap());
    assert_eq!(results.len(), 20_000);
    for (n, result) in results.iter().enumerate() {
        let one = execute(&compute, "fibonacci", n as i64 % 90).unwrap();
        assert_eq!(result.get("data").unwrap().get("result"), Some(&one));
    }
}

#[test]
fn map_gives_results_in_order_or_the_first_failure() {
    let compute = compute(2);
    let map = |items: Value| {
        let payload =
            Value::map([("task", "factorial".into()), ("items", items), ("chunk", 2.into())]);
        answer(&compute, "map", payload)
    };
    assert_eq!(map(integers(0..5)).unwrap().get("results"), Some(&integers([1, 1, 2, 6, 24])));
    let (kind, field, message) = refused(map(integers([1, 2, -3, 4, -5])));
    assert_eq!(kind, ErrorKind::InvalidPayload);
    assert_eq!(field.as_deref(), Some("items[2].n"));
    assert!(message.starts_with("items[2]: n is -3"), "{message}");
    let payload =
        Value::map([("task", "factorial".into()), ("items", integers([1])), ("chunk", 0.into())]);
    assert_eq!(refused(answer(&compute, "map", payload)).1.as_deref(), Some("chunk"));
}

#[test]
fn progress_rises_and_ends_with_the_total() {
    let compute = compute(2);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = heard.clone();
    let callback = Callback::new(move |value| {
        let number = |name| match value.get(name) {
            Some(Value::Int(number)) => *number,
            other => panic!("{other:?}"),
        };
        listener.lock().unwrap().push((number("done"), number("total")));
    });
    let tasks = (0..500).map(|_| task("fibonacci", 5_000)).collect::<Vec<_>>();
    let payload =
        Value::map([("tasks", tasks.into()), ("progress", Value::Callback(callback.clone()))]);
    answer(&compute, "batch", payload).unwrap();
    let heard = std::mem::take(&mut *heard.lock().unwrap());
    assert!(heard.is_sorted() && heard.last() == Some(&(500, 500)), "{heard:?}");
    assert!(heard.len() < 100, "{heard:?}");
}

#[test]
fn who_has_ten_thousand_tasks_waiting_does_not_keep_others_waiting() {
    let compute = compute(1);
    let (sender, order) = mpsc::channel();
    let run = |id: &'static str, mut begun: Call| {
        begun.caller = Caller { client_id: Some(id.into()), ..Caller::default() };
        let (future, sender) = (compute.call(begun), sender.clone());
        std::thread::spawn(move || {
            let outcome = block_on(future);
            sender.send(id).unwrap();
            outcome
        })
    };
    // About a millisecond each: ten seconds in all, if nobody ended it.
    let many = (0..10_000).map(|_| task("fibonacci", 300_000)).collect();
    let many = call("batch", batch(many));
    let cancel = many.cancel.clone();
    let first = run("many", many);
    let other = run("one", call("execute", task("fibonacci", 3_000)));
    assert_eq!(order.recv().unwrap(), "one");
    other.join().unwrap().unwrap();
    cancel.cancel();
    assert_eq!(first.join().unwrap().unwrap_err().kind, ErrorKind::Cancelled);
}

#[test]
fn work_ends_within_milliseconds_of_its_cancellation() {
    let compute = compute(1);
    for payload in [
        long(),
        task("fibonacci", 10_000_000),
        task("is_prime", (num_bigint::BigInt::from(1) << 11_213) - 1),
    ] {
        let begun = call("execute", payload);
        let cancel = begun.cancel.clone();
        let future = compute.call(begun);
        cancel.cancel();
        let asked = Instant::now();
        assert_eq!(block_on(future).unwrap_err().kind, ErrorKind::Cancelled);
        // Generous: the machine may be busy; it would be a second and more.
        assert!(asked.elapsed().as_millis() < 300);
    }
}

#[test]
fn the_deadline_ends_work() {
    let compute = compute(1);
    let late = Call { deadline: past(), ..call("execute", long()) };
    assert_eq!(block_on(compute.call(late)).unwrap_err().kind, ErrorKind::Timeout);
}

#[test]
fn dropping_a_call_ends_what_runs_and_forgets_what_waits() {
    let compute = compute(1);
    // The first keeps the thread busy, the others wait.
    let calls: Vec<_> = (0..100).map(|_| call("execute", long())).collect();
    let cancels: Vec<_> = calls.iter().map(|call| call.cancel.clone()).collect();
    let futures: Vec<_> = calls.into_iter().map(|call| compute.call(call)).collect();
    drop(futures);
    assert!(cancels.iter().all(Cancel::is_cancelled));
    let answer = execute(&compute, "fibonacci", 3_000).unwrap();
    assert!(matches!(answer, Value::Big(_)));
}

#[test]
fn a_full_queue_refuses_and_takes_more_when_there_is_room() {
    let options = ComputeOptions { threads: Some(1), max_tasks: 3, ..ComputeOptions::default() };
    let compute = Compute::new(options).unwrap();
    let waiting: Vec<_> = (0..3).map(|_| compute.call(call("execute", long()))).collect();
    let refused = answer(&compute, "execute", long()).unwrap_err();
    assert_eq!((refused.kind, refused.retry), (ErrorKind::QuotaExceeded, true));
    // What costs nothing is not queued, and so not refused.
    execute(&compute, "fibonacci", 10).unwrap();
    drop(waiting);
    execute(&compute, "fibonacci", 3_000).unwrap();
    let four = (0..4).map(|_| task("fibonacci", 1)).collect();
    let refused = answer(&compute, "batch", batch(four)).unwrap_err();
    assert_eq!((refused.kind, refused.retry), (ErrorKind::QuotaExceeded, false));
}

#[test]
fn threads_are_shared_by_all_in_the_process() {
    let (a, b) = (Compute::new(ComputeOptions::default()), Compute::new(ComputeOptions::default()));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(std::ptr::eq(a.pool().unwrap(), b.pool().unwrap()));
    assert!(matches!(execute(&a, "fibonacci", 3_000).unwrap(), Value::Big(_)));
}
