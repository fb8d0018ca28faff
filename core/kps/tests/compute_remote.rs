//! Tasks that other clients do.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kps::{
    Client, ConnectOptions, ErrorKind, Server, ServerOptions,
    capability::{CallTarget, Callback, Cancel, DispatchOptions, Outcome, Response, Value},
    compute::HostTask,
    net::BoxFuture,
};
use tokio::sync::{Semaphore, mpsc};

/// Doubles; begins only when it may, if it has a gate; counts.
struct Double {
    runs: AtomicUsize,
    started: mpsc::UnboundedSender<()>,
    gate: Option<Arc<Semaphore>>,
}

impl HostTask for Double {
    fn run(&self, data: Value, _: Cancel, _: Option<Instant>) -> BoxFuture<'static, Outcome> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let _ = self.started.send(());
        let gate = self.gate.clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.acquire().await.expect("it is never closed").forget();
            }
            match data {
                Value::Int(number) => Ok(Value::Int(2 * number)),
                other => Err(kps::capability::wrong("number", &other, "an integer")),
            }
        })
    }
}

async fn client(server: &Server, id: &str) -> Client {
    let options = ConnectOptions { id: Some(id.into()), ..ConnectOptions::new(server.url()) };
    Client::connect(options).await.expect("the server is here")
}

/// Shares the task `double`.
async fn share(
    client: &Client,
    gate: Option<Arc<Semaphore>>,
) -> (Arc<Double>, mpsc::UnboundedReceiver<()>) {
    let (started, starts) = mpsc::unbounded_channel();
    let double = Arc::new(Double { runs: AtomicUsize::new(0), started, gate });
    let router = client.capabilities();
    let compute = router.compute().expect("the system has threads");
    compute.register("double", double.clone()).expect("the name is free");
    router.share_task("double").await.expect("it is connected");
    (double, starts)
}

fn integers(numbers: impl Iterator<Item = i64>) -> Value {
    numbers.map(Value::Int).collect::<Vec<_>>().into()
}

fn map(items: Value, chunk: u64) -> Value {
    Value::map([("task", "double".into()), ("items", items), ("chunk", chunk.into())])
}

async fn call(client: &Client, operation: &str, payload: Value, target: CallTarget) -> Response {
    let timeout = Duration::from_secs(20);
    let options = DispatchOptions { target, timeout, ..DispatchOptions::default() };
    client.capabilities().dispatch(&format!("compute.{operation}"), payload, options).await
}

#[tokio::test]
async fn a_map_is_spread_over_those_who_share_the_task() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let (a, b, c) =
        (client(&server, "a").await, client(&server, "b").await, client(&server, "c").await);
    let (first, _first) = share(&a, None).await;
    let (second, _second) = share(&b, None).await;
    let answer = call(&c, "map", map(integers(0..1_000), 10), CallTarget::Any).await;
    assert_eq!(answer.unwrap().unwrap().get("results"), Some(&integers((0..1_000).map(|n| 2 * n))));
    let runs = [&first, &second].map(|it| it.runs.load(Ordering::Relaxed));
    assert_eq!(runs[0] + runs[1], 1_000);
    assert!(runs.iter().all(|runs| *runs >= 100), "{runs:?}");

    let only = call(&c, "map", map(integers(0..50), 5), CallTarget::Client("b".into())).await;
    assert!(only.is_ok(), "{only:?}");
    assert_eq!(first.runs.load(Ordering::Relaxed), runs[0]);

    let one = Value::map([("task", "double".into()), ("data", 21.into())]);
    let one = call(&c, "execute", one, CallTarget::Any).await;
    assert_eq!(one.unwrap().unwrap(), Value::map([("result", 42.into())]));
}

#[tokio::test]
async fn the_chunk_of_a_provider_that_vanishes_is_done_by_another() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let (a, b, c) =
        (client(&server, "a").await, client(&server, "b").await, client(&server, "c").await);
    let gate = Arc::new(Semaphore::new(0));
    let (_stuck, mut starts) = share(&a, Some(Arc::new(Semaphore::new(0)))).await;
    let (other, mut others) = share(&b, Some(gate.clone())).await;
    let router = c.capabilities();
    let options = DispatchOptions {
        target: CallTarget::Any,
        timeout: Duration::from_secs(60),
        ..DispatchOptions::default()
    };
    let mapped =
        tokio::spawn(router.dispatch("compute.map", map(integers(0..40), 4), options.clone()));
    starts.recv().await.unwrap();
    others.recv().await.unwrap();
    a.close_within(Duration::ZERO).await;
    gate.add_permits(1_000);
    let answer = mapped.await.unwrap();
    assert_eq!(answer.unwrap().unwrap().get("results"), Some(&integers((0..40).map(|n| 2 * n))));
    assert_eq!(other.runs.load(Ordering::Relaxed), 40);

    // The last one vanishes, too: there is nobody to do it again.
    gate.acquire_many(u32::try_from(gate.available_permits()).unwrap()).await.unwrap().forget();
    while others.try_recv().is_ok() {}
    let lost = tokio::spawn(router.dispatch("compute.map", map(integers(0..4), 4), options));
    others.recv().await.unwrap();
    b.close_within(Duration::ZERO).await;
    let failure = lost.await.unwrap().unwrap().unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Unavailable, "{failure}");
}

#[tokio::test]
async fn failures_are_those_of_the_items() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let missing = call(&b, "map", map(integers(0..4), 2), CallTarget::Any).await;
    let failure = missing.unwrap().unwrap_err();
    assert_eq!(
        (failure.kind, failure.field.as_deref()),
        (ErrorKind::NotFound, Some("items[0].task"))
    );
    assert!(failure.message.contains("shares"), "{failure}");

    let _double = share(&a, None).await;
    let items = vec![1.into(), "two".into(), 3.into()];
    let mapped = call(&b, "map", map(items.into(), 3), CallTarget::Any).await;
    let failure = mapped.unwrap().unwrap_err();
    assert_eq!(failure.field.as_deref(), Some("items[1].number"));
    assert_eq!(failure.kind, ErrorKind::InvalidPayload);

    let (told, mut heard) = mpsc::unbounded_channel();
    let progress = Callback::new(move |value| told.send(value).unwrap());
    let task = |name: &str, data: Value| Value::map([("task", name.into()), ("data", data)]);
    let tasks =
        vec![task("double", 1.into()), task("nothing", 1.into()), task("double", "two".into())];
    let options = DispatchOptions {
        target: CallTarget::Any,
        progress: Some(progress),
        ..DispatchOptions::default()
    };
    let batch = Value::map([("tasks", tasks.into())]);
    let answer = b.capabilities().dispatch("compute.batch", batch, options).await;
    let answer = answer.unwrap().unwrap();
    let Some(Value::List(envelopes)) = answer.get("results") else { panic!("{answer:?}") };
    let code = |index: usize| envelopes[index].get("error").and_then(|error| error.get("code"));
    assert_eq!(envelopes[0].get("data"), Some(&Value::map([("result", 2.into())])));
    assert_eq!(code(1), Some(&"not_found".into()));
    assert_eq!(code(2), Some(&"invalid_payload".into()));
    let mut last = Value::Null;
    while let Ok(news) = heard.try_recv() {
        last = news;
    }
    assert_eq!(last, Value::map([("done", 3.into()), ("total", 3.into())]));

    for (payload, field) in [
        (map(5.into(), 1), "items"),
        (map(integers(0..1), 0), "chunk"),
        (Value::map([("items", integers(0..1))]), "task"),
    ] {
        let refused = call(&b, "map", payload, CallTarget::Any).await.unwrap().unwrap_err();
        assert_eq!(
            (refused.kind, refused.field.as_deref()),
            (ErrorKind::InvalidPayload, Some(field))
        );
    }
}

#[tokio::test]
async fn a_task_is_shared_once_and_until_it_is_not() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let router = a.capabilities();
    assert_eq!(router.share_task("nothing").await.unwrap_err().kind, ErrorKind::NotFound);
    router.share_task("fibonacci").await.unwrap();
    assert_eq!(router.share_task("fibonacci").await.unwrap_err().kind, ErrorKind::Conflict);
    let ask = || Value::map([("task", "fibonacci".into()), ("data", 90.into())]);
    let answer = call(&b, "execute", ask(), CallTarget::Any).await.unwrap().unwrap();
    assert_eq!(answer.get("result"), Some(&Value::Int(2_880_067_194_370_816_120)));
    // Nothing else of this client's can be called.
    let load = Value::map([("name", "x".into()), ("wasm", "".into())]);
    let refused =
        call(&b, "load", load, CallTarget::Client("a".into())).await.unwrap().unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    router.unshare_task("fibonacci").await.unwrap();
    assert_eq!(router.unshare_task("fibonacci").await.unwrap_err().kind, ErrorKind::NotFound);
    let gone = call(&b, "execute", ask(), CallTarget::Any).await.unwrap().unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound);
}
