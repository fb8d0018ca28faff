//! Tasks of the program.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, mpsc};

use super::*;
use crate::{compute::HostTask, net::BoxFuture};

struct Function<F>(F, usize);

impl<F, R> HostTask for Function<F>
where
    F: Fn(Value) -> R + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send + 'static,
{
    fn run(&self, data: Value, _: Cancel, _: Option<Instant>) -> BoxFuture<'static, Outcome> {
        Box::pin((self.0)(data))
    }

    fn concurrency(&self) -> usize {
        self.1
    }
}

fn register<R: Future<Output = Outcome> + Send + 'static>(
    compute: &Compute,
    name: &str,
    concurrency: usize,
    function: impl Fn(Value) -> R + Send + Sync + 'static,
) {
    compute.register(name, Arc::new(Function(function, concurrency))).unwrap();
}

#[test]
fn a_function_of_the_program_is_a_task_like_others() {
    let compute = compute(1);
    register(&compute, "echo", 1, |data| async { Ok(data) });
    assert_eq!(execute(&compute, "echo", "hello").unwrap(), "hello".into());
    let map = Value::map([("task", "echo".into()), ("items", integers(0..100))]);
    assert_eq!(answer(&compute, "map", map).unwrap().get("results"), Some(&integers(0..100)));
    let tasks = answer(&compute, "tasks", Value::Null).unwrap();
    let Some(Value::List(tasks)) = tasks.get("tasks") else { panic!() };
    let echo = tasks.iter().find(|task| task.get("name") == Some(&"echo".into())).unwrap();
    assert_eq!(echo.get("kind"), Some(&"host".into()));
    assert!(tasks.iter().any(|task| task.get("kind") == Some(&"builtin".into())));

    compute.unregister("echo").unwrap();
    assert_eq!(refused(execute(&compute, "echo", 1)).0, ErrorKind::NotFound);
    assert_eq!(compute.unregister("echo").unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn names_are_taken_once() {
    let compute = compute(1);
    register(&compute, "mine", 1, |data| async { Ok(data) });
    let echo = || Arc::new(Function(|data| async { Ok(data) }, 1));
    for taken in ["mine", "fibonacci"] {
        assert_eq!(compute.register(taken, echo()).unwrap_err().kind, ErrorKind::Conflict);
    }
    for wrong in ["", "a b", "ä", &"x".repeat(129)] {
        let failure = compute.register(wrong, echo()).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InvalidPayload);
        assert_eq!(failure.field.as_deref(), Some("name"));
    }
    assert_eq!(compute.unregister("fibonacci").unwrap_err().kind, ErrorKind::Conflict);
    let unload = answer(&compute, "unload", Value::map([("name", "mine".into())]));
    assert_eq!(refused(unload).0, ErrorKind::Conflict);
}

#[test]
fn a_panic_is_internal_and_the_next_runs() {
    let compute = compute(1);
    register(&compute, "panics", 1, |data| async move {
        assert_ne!(data, Value::Int(1), "one");
        Ok(data)
    });
    let (kind, _, message) = refused(execute(&compute, "panics", 1));
    assert_eq!(kind, ErrorKind::Internal);
    assert!(message.contains("\"panics\" panicked") && message.contains("one"), "{message}");
    assert_eq!(execute(&compute, "panics", 2).unwrap(), Value::Int(2));
}

#[test]
fn no_more_run_at_once_than_it_says() {
    let compute = compute(1);
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    // Each waits for two others: with fewer at once none would end.
    let three = Arc::new(tokio::sync::Barrier::new(3));
    let counts = running.clone();
    register(&compute, "counted", 3, move |data| {
        let (counts, three) = (counts.clone(), three.clone());
        async move {
            let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
            counts.1.fetch_max(now, Ordering::SeqCst);
            three.wait().await;
            counts.0.fetch_sub(1, Ordering::SeqCst);
            Ok(data)
        }
    });
    let map = Value::map([("task", "counted".into()), ("items", integers(0..51))]);
    answer(&compute, "map", map).unwrap();
    assert_eq!(running.1.load(Ordering::SeqCst), 3);
}

#[test]
fn dropping_the_call_drops_the_functions_future_and_frees_its_place() {
    struct Gone(Arc<Notify>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let compute = compute(1);
    let (started, mut starts) = mpsc::unbounded_channel();
    let gone = Arc::new(Notify::new());
    let dropped = gone.clone();
    register(&compute, "stuck", 1, move |data| {
        let (started, guard) = (started.clone(), Gone(dropped.clone()));
        async move {
            let _guard = guard;
            let _ = started.send(data.clone());
            match data {
                Value::Int(0) => std::future::pending().await,
                data => Ok(data),
            }
        }
    });
    let begun = call("execute", task("stuck", 0));
    let cancel = begun.cancel.clone();
    let stuck = compute.call(begun);
    let next = compute.call(call("execute", task("stuck", 1)));
    assert_eq!(block_on(starts.recv()), Some(Value::Int(0)));
    drop(stuck);
    assert!(cancel.is_cancelled());
    block_on(gone.notified());
    assert_eq!(block_on(next).unwrap().get("result"), Some(&Value::Int(1)));
}

#[test]
fn callers_take_turns_at_a_function() {
    let compute = compute(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let (seen, gate) = (order.clone(), Arc::new(Notify::new()));
    let open = gate.clone();
    register(&compute, "ordered", 1, move |data| {
        let (seen, gate) = (seen.clone(), gate.clone());
        async move {
            if data == Value::Int(0) {
                gate.notified().await;
            }
            seen.lock().unwrap().push(data.clone());
            Ok(data)
        }
    });
    let begin = |id: &str, data: i64| {
        let mut begun = call("execute", task("ordered", data));
        begun.caller = Caller { client_id: Some(id.into()), ..Caller::default() };
        compute.call(begun)
    };
    let calls = [begin("a", 0), begin("a", 1), begin("a", 2), begin("b", 10), begin("b", 11)];
    open.notify_one();
    for call in calls {
        block_on(call).unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 10, 2, 11].map(Value::Int));
}
