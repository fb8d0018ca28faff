//! Calls: here, on the server, and by other clients.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use kps::{
    Client, ConnectOptions, ErrorKind, Server, ServerOptions,
    capability::{
        Call, CallTarget, Callback, Cancel, Capability, DispatchOptions, Failure, Operation,
        Outcome, RegisterOptions, Response, Router, Value, unknown_operation,
    },
    net::BoxFuture,
};
use tokio::sync::{Semaphore, mpsc};

/// A capability for tests: it adds, fails, hangs, and counts.
#[derive(Default)]
struct Tester {
    calls: AtomicU32,
    hung: Mutex<Vec<Cancel>>,
    started: Option<mpsc::UnboundedSender<()>>,
    fails: AtomicU32,
}

impl Capability for Tester {
    fn operations(&self) -> Vec<Operation> {
        let fields = [("a", "integer", "one"), ("b?", "integer", "another")];
        vec![Operation::new("add", "Adds").fields(&fields), Operation::new("hang", "Never ends")]
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Outcome> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if &*call.operation == "hang" {
            self.hung.lock().unwrap().push(call.cancel.clone());
        }
        if let Some(started) = &self.started {
            let _ = started.send(());
        }
        let outcome = match &*call.operation {
            "add" => Ok(call.payload),
            "who" => Ok(call.caller.client_id.as_deref().into()),
            "flaky" if self.fails.fetch_sub(1, Ordering::Relaxed) > 0 => {
                Err(Failure::new(ErrorKind::Unavailable, "not now").retryable())
            }
            "flaky" => Ok(call.attempt.into()),
            "broken" => Err(Failure::new(ErrorKind::Internal, "for good")),
            "panic" => panic!("on purpose"),
            "progress" => {
                call.progress.expect("somebody listens").call(Value::from(50));
                Ok(Value::Null)
            }
            "hang" => return Box::pin(std::future::pending()),
            other => Err(unknown_operation(other, &["add", "hang"])),
        };
        Box::pin(std::future::ready(outcome))
    }
}

async fn server() -> Server {
    Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap()
}

async fn client(server: &Server, id: &str) -> Client {
    let options = ConnectOptions { id: Some(id.into()), ..ConnectOptions::new(server.url()) };
    Client::connect(options).await.unwrap()
}

async fn offer(client: &Client, tester: Arc<Tester>) {
    let options = RegisterOptions { shared: true, ..RegisterOptions::default() };
    client.capabilities().register("test", tester, options).await.unwrap();
}

fn to(target: CallTarget) -> DispatchOptions {
    DispatchOptions { target, ..DispatchOptions::default() }
}

async fn call(router: &Router, action: &str, options: DispatchOptions) -> Response {
    router.dispatch(action, Value::Null, options).await
}

fn code(response: &Response) -> &'static str {
    response.outcome.as_ref().map_or_else(Failure::code, |_| "ok")
}

#[tokio::test]
async fn a_capability_is_called_here_and_from_elsewhere() {
    let server = server().await;
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    offer(&a, Arc::default()).await;

    let payload = Value::map([("a", Value::Bytes(vec![1, 2].into()))]);
    for caller in [&a, &b] {
        let response = caller.dispatch("test.add", payload.clone()).await;
        assert_eq!(response.clone().unwrap(), Ok(payload.clone()), "{response:?}");
        assert_eq!(response.attempts, 1);
    }
    let response = b.dispatch("test.who", Value::Null).await;
    assert_eq!(response.provider.as_deref(), Some("a"));
    assert_eq!(response.unwrap().unwrap(), "b".into());
    assert_eq!(a.dispatch("test.who", Value::Null).await.unwrap().unwrap(), Value::Null);

    let router = b.capabilities();
    let there = call(&router, "test.add", to(CallTarget::Client("a".into()))).await;
    assert!(there.is_ok());
    let nowhere = call(&router, "test.add", to(CallTarget::Client("b".into()))).await;
    assert_eq!(code(&nowhere), "unavailable");
    assert_eq!(code(&call(&router, "test.add", to(CallTarget::Local)).await), "unknown_capability");
    assert!(call(&router, "kps.ping", to(CallTarget::Server)).await.is_ok());
}

#[tokio::test]
async fn wrong_actions_and_names_are_refused_with_their_codes() {
    let server = server().await;
    let a = client(&server, "a").await;
    offer(&a, Arc::default()).await;
    for (action, expected) in [
        ("nobody.has", "unknown_capability"),
        ("undotted", "unknown_capability"),
        ("", "unknown_capability"),
        (".x", "unknown_capability"),
        ("test.nothing", "unknown_operation"),
        ("kps.nothing", "unknown_operation"),
        ("test.broken", "internal"),
        ("test.panic", "internal"),
    ] {
        assert_eq!(code(&a.dispatch(action, Value::Null).await), expected, "{action}");
        let elsewhere = call(&a.capabilities(), action, to(CallTarget::Any)).await;
        if action.starts_with("test") {
            assert_eq!(code(&elsewhere), expected, "{action}");
        }
    }
    let router = a.capabilities();
    for (name, expected) in [
        ("test", "conflict"),
        ("storage", "conflict"),
        ("kps", "conflict"),
        ("a.b", "invalid_payload"),
        ("", "invalid_payload"),
    ] {
        let refused =
            router.register(name, Arc::new(Tester::default()), RegisterOptions::default());
        assert_eq!(refused.await.unwrap_err().code(), expected, "{name}");
    }
    router.unregister("test").await.unwrap();
    assert_eq!(router.unregister("test").await.unwrap_err().code(), "not_found");
    assert_eq!(code(&a.dispatch("test.add", Value::Null).await), "unknown_capability");
}

#[tokio::test]
async fn a_deadline_ends_the_work_and_not_only_the_wait() {
    let server = server().await;
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let tester = Arc::new(Tester::default());
    offer(&a, tester.clone()).await;
    for (caller, calls) in [(&a, 1), (&b, 2)] {
        let timeout = Duration::from_millis(50);
        let options = DispatchOptions { timeout, ..DispatchOptions::default() };
        let response = call(&caller.capabilities(), "test.hang", options).await;
        assert_eq!(code(&response), "timeout");
        // The provider's own deadline comes at the same time as the caller's.
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let hung = tester.hung.lock().unwrap().clone();
            if hung.len() == calls && hung.iter().all(Cancel::is_cancelled) {
                break;
            }
            assert!(Instant::now() < until, "the work goes on");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn dropping_a_call_cancels_it_at_its_provider() {
    let server = server().await;
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let (started, mut starts) = mpsc::unbounded_channel();
    let tester = Arc::new(Tester { started: Some(started), ..Tester::default() });
    offer(&a, tester.clone()).await;
    let router = b.capabilities();
    let options =
        DispatchOptions { timeout: Duration::from_secs(60), ..DispatchOptions::default() };
    tokio::select! {
        response = call(&router, "test.hang", options) => panic!("{response:?}"),
        _ = starts.recv() => {}
    }
    let until = Instant::now() + Duration::from_secs(5);
    while !tester.hung.lock().unwrap()[0].is_cancelled() {
        assert!(Instant::now() < until, "the work goes on");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn only_what_may_help_is_tried_again() {
    let server = server().await;
    let a = client(&server, "a").await;
    let tester = Arc::new(Tester { fails: AtomicU32::new(2), ..Tester::default() });
    offer(&a, tester.clone()).await;
    let retry = |retry| DispatchOptions { retry, ..DispatchOptions::default() };
    let router = a.capabilities();
    let response = call(&router, "test.flaky", retry(3)).await;
    assert_eq!((response.attempts, response.outcome), (3, Ok(3.into())));
    tester.fails.store(9, Ordering::Relaxed);
    let response = call(&router, "test.flaky", retry(1)).await;
    assert_eq!((response.attempts, code(&response)), (2, "unavailable"));
    assert_eq!(call(&router, "test.broken", retry(3)).await.attempts, 1);
    // There is no time for another one.
    let options = DispatchOptions { timeout: Duration::from_millis(20), ..retry(3) };
    assert_eq!(call(&router, "test.flaky", options).await.attempts, 1);
}

#[tokio::test]
async fn a_call_goes_on_elsewhere_when_its_provider_dies() {
    let server = server().await;
    let (a, b, c) =
        (client(&server, "a").await, client(&server, "b").await, client(&server, "c").await);
    let (started, mut starts) = mpsc::unbounded_channel();
    let slow = Arc::new(Tester { started: Some(started), ..Tester::default() });
    offer(&a, slow).await;
    let router = c.capabilities();
    let options =
        DispatchOptions { timeout: Duration::from_secs(20), ..DispatchOptions::default() };

    let hanging = tokio::spawn(router.dispatch("test.hang", Value::Null, options.clone()));
    starts.recv().await.unwrap();
    a.close_within(Duration::ZERO).await;
    let lost = hanging.await.unwrap();
    assert_eq!(code(&lost), "unavailable", "{lost:?}");
    assert!(lost.outcome.unwrap_err().retry);

    let (started, mut starts) = mpsc::unbounded_channel();
    let a = client(&server, "a2").await;
    offer(&a, Arc::new(Tester { started: Some(started), ..Tester::default() })).await;
    let hanging = tokio::spawn(router.dispatch("test.hang", Value::Null, options));
    starts.recv().await.unwrap();
    let (again, mut agains) = mpsc::unbounded_channel();
    offer(&b, Arc::new(Tester { started: Some(again), ..Tester::default() })).await;
    a.close_within(Duration::ZERO).await;
    agains.recv().await.expect("the other one has it now");
    hanging.abort();
}

#[tokio::test]
async fn calls_with_one_key_are_done_once() {
    let server = server().await;
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let tester = Arc::new(Tester::default());
    offer(&a, tester.clone()).await;
    let router = b.capabilities();
    let key =
        || DispatchOptions { idempotency_key: Some("k".into()), ..DispatchOptions::default() };
    let calls = (0..10).map(|_| tokio::spawn(router.dispatch("test.add", 7.into(), key())));
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().outcome, Ok(7.into()));
    }
    assert_eq!(tester.calls.load(Ordering::Relaxed), 1);
    assert_eq!(code(&router.dispatch("test.add", 8.into(), key()).await), "conflict");
}

#[tokio::test]
async fn whoever_follows_everything_neither_hears_nor_answers_calls() {
    let server = server().await;
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let mut all = b.subscribe(">").await.unwrap();
    offer(&a, Arc::default()).await;
    assert_eq!(b.dispatch("test.add", 1).await.outcome, Ok(1.into()));
    b.publish("after", ()).unwrap();
    assert_eq!(&*all.message().await.unwrap().topic, "after");
    assert_eq!(
        b.subscribe("kps.server.>").await.unwrap_err().kind(),
        ErrorKind::Unauthorized,
        "nobody may play the server"
    );
}

#[tokio::test]
async fn capabilities_are_listed_with_their_operations() {
    let server = server().await;
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    offer(&a, Arc::default()).await;
    let listed = b.dispatch("kps.capabilities", ()).await.unwrap().unwrap();
    assert_eq!(listed.get("complete"), Some(&true.into()));
    let Some(Value::List(all)) = listed.get("capabilities") else { panic!("{listed:?}") };
    let of_a: Vec<_> = all.iter().filter(|one| one.get("provider") == Some(&"a".into())).collect();
    assert_eq!(of_a.len(), 1);
    assert_eq!(of_a[0].get("name"), Some(&"test".into()));
    let Some(Value::List(operations)) = of_a[0].get("operations") else { panic!("{of_a:?}") };
    let required = operations[0].get("schema").unwrap().get("required");
    assert_eq!(required, Some(&vec!["a".into()].into()));
    assert!(all.iter().any(|one| one.get("provider") == Some(&"server".into())), "{all:?}");
}

#[tokio::test]
async fn a_caller_hears_how_far_it_is() {
    let server = server().await;
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    offer(&a, Arc::default()).await;
    for caller in [&a, &b] {
        let (told, mut heard) = mpsc::unbounded_channel();
        let progress = Callback::new(move |value| told.send(value).unwrap());
        let options = DispatchOptions { progress: Some(progress), ..DispatchOptions::default() };
        assert!(call(&caller.capabilities(), "test.progress", options).await.is_ok());
        assert_eq!(heard.recv().await, Some(50.into()));
    }
}

#[tokio::test]
async fn ten_thousand_calls_at_once_are_all_answered() {
    let server = server().await;
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    offer(&a, Arc::default()).await;
    let router = b.capabilities();
    let options =
        DispatchOptions { timeout: Duration::from_secs(60), ..DispatchOptions::default() };
    let all = Arc::new(Semaphore::new(0));
    for n in 0..10_000 {
        let call = router.dispatch("test.add", n.into(), options.clone());
        let all = all.clone();
        tokio::spawn(async move {
            assert_eq!(call.await.outcome, Ok(n.into()));
            all.add_permits(1);
        });
    }
    let _ = all.acquire_many(10_000).await.unwrap();
}
