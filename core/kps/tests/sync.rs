//! Channels and presence.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kps::{
    Client, ClientState, ConnectOptions, Event, Server, ServerOptions,
    capability::{Callback, DispatchOptions, Failure, Outcome, Value},
    options::Timings,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_secs(3600);

/// What happens to a line.
#[derive(Clone, Copy, PartialEq)]
enum Line {
    Open,
    /// Connections stay, and carry nothing.
    Silent,
    /// Connections break, and none is made.
    Cut,
}

/// A line between a client and a server.
struct Wire {
    url: String,
    line: watch::Sender<Line>,
    server: Arc<std::sync::Mutex<String>>,
}

impl Wire {
    async fn to(server: &Server) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (line, changes) = watch::channel(Line::Open);
        let server = Arc::new(std::sync::Mutex::new(server.address()));
        let target = server.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target.lock().unwrap().clone(), changes.clone()));
            }
        });
        Wire { url, line, server }
    }

    fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    async fn client(&self, id: &str) -> Client {
        connect(&self.url, id, "").await
    }
}

async fn carry(mut client: TcpStream, server: String, mut line: watch::Receiver<Line>) {
    loop {
        let now = *line.borrow_and_update();
        match now {
            Line::Cut => return,
            Line::Silent => {}
            Line::Open => break,
        }
        if line.changed().await.is_err() {
            return;
        }
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    loop {
        let now = *line.borrow_and_update();
        match now {
            Line::Cut => return,
            Line::Silent if line.changed().await.is_err() => return,
            Line::Silent => {}
            Line::Open => tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                changed = line.changed() => if changed.is_err() { return },
            },
        }
    }
}

async fn connect(url: &str, id: &str, namespace: &str) -> Client {
    Client::connect(options(url, id, namespace)).await.unwrap()
}

fn options(url: &str, id: &str, namespace: &str) -> ConnectOptions {
    ConnectOptions {
        id: Some(id.into()),
        namespace: Some(namespace.into()).filter(|_| !namespace.is_empty()),
        reconnect_min: Duration::from_millis(10),
        reconnect_max: Duration::from_millis(50),
        ..ConnectOptions::new(url)
    }
}

fn server(grace: Duration, timings: Timings) -> Server {
    let options = ServerOptions::listen("127.0.0.1:0");
    Server::start(ServerOptions { presence_grace: grace, timings, ..options }).unwrap()
}

fn plain() -> Server {
    server(NEVER, Timings::default())
}

async fn client(server: &Server, id: &str) -> Client {
    connect(&server.url(), id, "").await
}

async fn call(client: &Client, operation: &str, payload: Value) -> Outcome {
    client.dispatch(&format!("sync.{operation}"), payload).await.outcome
}

async fn code(client: &Client, operation: &str, payload: Value) -> &'static str {
    call(client, operation, payload).await.as_ref().map_or_else(Failure::code, |_| "ok")
}

fn room() -> Value {
    Value::map([("channel", "room".into())])
}

fn joining(key: &str, meta: impl Into<Value>) -> Value {
    Value::map([("channel", "room".into()), ("key", key.into()), ("meta", meta.into())])
}

fn saying(event: &str, data: impl Into<Value>) -> Value {
    Value::map([("channel", "room".into()), ("event", event.into()), ("data", data.into())])
}

async fn join(client: &Client, key: &str, meta: impl Into<Value>) {
    call(client, "join", joining(key, meta)).await.unwrap();
}

/// What a subscription's callback hears.
struct Heard {
    id: Value,
    records: mpsc::UnboundedReceiver<Value>,
}

impl Heard {
    async fn by(client: &Client) -> Heard {
        let (tell, records) = mpsc::unbounded_channel();
        let callback = Callback::new(move |record| {
            let _ = tell.send(record);
        });
        let payload =
            Value::map([("channel", "room".into()), ("callback", Value::Callback(callback))]);
        let answer = call(client, "subscribe", payload).await.unwrap();
        Heard { id: answer.get("subscribed").unwrap().clone(), records }
    }

    async fn next(&mut self) -> Value {
        timeout(PATIENCE, self.records.recv()).await.expect("something happens").unwrap()
    }

    /// The next record's event, and who it is of: key and client.
    async fn presence(&mut self) -> String {
        let record = self.next().await;
        assert_eq!(text(&record, "kind"), "presence", "{record:?}");
        let [event, key, id] = ["event", "key", "client_id"].map(|name| text(&record, name));
        format!("{event} {key} {id}")
    }
}

fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::Text(text)) => text.clone(),
        other => panic!("{name} of {value:?} is {other:?}"),
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    match value.get(name) {
        Some(Value::List(list)) => list,
        other => panic!("{name} of {value:?} is {other:?}"),
    }
}

/// `ann: a1 a2`, for each key.
async fn present(client: &Client) -> Vec<String> {
    let answer = call(client, "presence", room()).await.unwrap();
    let member = |member: &Value| {
        let clients = list(member, "clients").iter().map(|it| text(it, "client_id"));
        format!("{}: {}", text(member, "key"), clients.collect::<Vec<_>>().join(" "))
    };
    list(&answer, "members").iter().map(member).collect()
}

async fn until_present(client: &Client, expected: &[&str]) {
    let until = Instant::now() + PATIENCE;
    loop {
        let response = client.dispatch("sync.presence", room()).await;
        if response.is_ok() && present(client).await == expected {
            return;
        }
        assert!(Instant::now() < until, "{response:?}");
        tokio::task::yield_now().await;
    }
}

/// Breaks the line and waits until the client is back.
async fn reconnect(wire: &Wire, client: &Client) -> bool {
    let mut events = client.events();
    wire.set(Line::Cut);
    let mut lost = false;
    loop {
        let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        let Event::State { state, resumed, .. } = event else { continue };
        match state {
            ClientState::Connected if lost => return resumed,
            ClientState::Connected => {}
            _ => {
                lost = true;
                wire.set(Line::Open);
            }
        }
    }
}

#[tokio::test]
async fn events_are_heard_in_their_order_by_all_who_subscribe() {
    let server = plain();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let (mut of_a, mut of_b) = (Heard::by(&a).await, Heard::by(&b).await);
    for n in 0..1000 {
        call(&a, "broadcast", saying("tick", n)).await.unwrap();
    }
    for heard in [&mut of_a, &mut of_b] {
        for n in 0..1000 {
            let record = heard.next().await;
            assert_eq!(record.get("data"), Some(&n.into()), "{record:?}");
            assert_eq!(text(&record, "kind"), "event");
            assert_eq!(text(&record, "channel"), "room");
            assert_eq!(text(&record, "event"), "tick");
            assert_eq!(text(&record, "from"), "a");
            assert!(matches!(record.get("time"), Some(Value::Int(_))));
        }
    }
}

#[tokio::test]
async fn an_event_without_echo_is_not_heard_by_who_sent_it() {
    let server = plain();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let (mut of_a, mut of_b) = (Heard::by(&a).await, Heard::by(&b).await);
    let bytes = Value::Bytes(vec![0, 255].into());
    let silent = Value::map([
        ("channel", "room".into()),
        ("event", "one".into()),
        ("data", bytes.clone()),
        ("echo", false.into()),
        ("confirm", true.into()),
    ]);
    let answer = call(&a, "broadcast", silent).await.unwrap();
    assert_eq!(answer.get("recipients"), Some(&2.into()));
    assert_eq!(answer.get("confirmed"), Some(&2.into()));
    call(&a, "broadcast", saying("two", ())).await.unwrap();
    assert_eq!(of_b.next().await.get("data"), Some(&bytes));
    assert_eq!(text(&of_a.next().await, "event"), "two");
}

#[tokio::test]
async fn an_ended_subscription_calls_nobody() {
    let server = plain();
    let a = client(&server, "a").await;
    let (mut first, mut second) = (Heard::by(&a).await, Heard::by(&a).await);
    let ended = call(&a, "unsubscribe", Value::map([("id", first.id.clone())])).await.unwrap();
    assert_eq!(ended.get("unsubscribed"), Some(&1.into()));
    call(&a, "broadcast", saying("tick", ())).await.unwrap();
    second.next().await;
    assert_eq!(first.records.recv().await, None);
    let again = Value::map([("id", first.id.clone())]);
    assert_eq!(code(&a, "unsubscribe", again).await, "not_found");
    call(&a, "unsubscribe", room()).await.unwrap();
    assert_eq!(second.records.recv().await, None);
}

#[tokio::test]
async fn a_person_on_several_devices_is_one_key() {
    let server = plain();
    let watcher = client(&server, "w").await;
    let (phone, laptop) = (client(&server, "phone").await, client(&server, "laptop").await);
    let mut heard = Heard::by(&watcher).await;
    join(&phone, "ann", "at the bus").await;
    assert_eq!(heard.presence().await, "join ann phone");
    join(&laptop, "ann", "at home").await;
    let record = heard.next().await;
    assert_eq!(
        (text(&record, "event"), text(&record, "client_id")),
        ("update".into(), "laptop".into())
    );
    assert_eq!(list(&record, "clients"), ["phone".into(), "laptop".into()]);
    assert_eq!(text(&record, "meta"), "at home");

    let answer = call(&watcher, "presence", room()).await.unwrap();
    let [member] = list(&answer, "members") else { panic!("{answer:?}") };
    assert_eq!((text(member, "key"), text(member, "meta")), ("ann".into(), "at home".into()));
    assert_eq!(text(&list(member, "clients")[0], "meta"), "at the bus");
    assert!(matches!(list(member, "clients")[0].get("since"), Some(Value::Int(_))));

    phone.close().await;
    assert_eq!(heard.presence().await, "update ann phone");
    call(&laptop, "leave", room()).await.unwrap();
    assert_eq!(heard.presence().await, "leave ann laptop");
    assert!(present(&watcher).await.is_empty());
    let left = call(&laptop, "leave", room()).await.unwrap();
    assert_eq!(left.get("left"), Some(&false.into()));
}

#[tokio::test]
async fn only_what_changes_is_told() {
    let server = plain();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let mut heard = Heard::by(&b).await;
    let joined = call(&a, "join", room()).await.unwrap();
    assert_eq!((text(&joined, "key"), text(&joined, "client_id")), ("a".into(), "a".into()));
    call(&a, "join", room()).await.unwrap();
    let typing = Value::map([("channel", "room".into()), ("meta", "typing".into())]);
    call(&a, "update", typing.clone()).await.unwrap();
    call(&a, "update", typing.clone()).await.unwrap();
    join(&a, "ann", ()).await;
    call(&a, "leave", room()).await.unwrap();
    let told = ["join a a", "update a a", "leave a a", "join ann a", "leave ann a"];
    for expected in told {
        assert_eq!(heard.presence().await, expected);
    }
    assert_eq!(code(&a, "update", typing).await, "not_found");
}

#[tokio::test]
async fn whoever_dies_is_missed_after_the_grace() {
    let server = server(Duration::from_millis(50), Timings::default());
    let wire = Wire::to(&server).await;
    let (watcher, dying) = (client(&server, "w").await, wire.client("d").await);
    let mut heard = Heard::by(&watcher).await;
    join(&dying, "d", ()).await;
    assert_eq!(heard.presence().await, "join d d");
    wire.set(Line::Cut);
    assert_eq!(heard.presence().await, "leave d d");

    // Back in the same session, it is present again without being asked.
    wire.set(Line::Open);
    assert_eq!(heard.presence().await, "join d d");
}

#[tokio::test]
async fn whoever_falls_silent_is_missed_at_once_when_that_is_noticed() {
    let timings = Timings {
        heartbeat: Duration::from_millis(100),
        silence: Duration::from_millis(400),
        ..Timings::default()
    };
    let server = server(NEVER, timings);
    let wire = Wire::to(&server).await;
    let (watcher, frozen) = (client(&server, "w").await, wire.client("f").await);
    let mut heard = Heard::by(&watcher).await;
    join(&frozen, "f", ()).await;
    assert_eq!(heard.presence().await, "join f f");
    wire.set(Line::Silent);
    assert_eq!(heard.presence().await, "leave f f");
}

/// A client is lost and comes back; another one, lost later, does not: when that one is missed the first
/// would have been.
async fn nobody_hears_of_a_reconnect(timings: Timings, resumes: bool) {
    let server = server(Duration::from_secs(3), timings);
    let (wire, other_wire) = (Wire::to(&server).await, Wire::to(&server).await);
    let watcher = client(&server, "w").await;
    let (a, other) = (wire.client("a").await, other_wire.client("o").await);
    join(&a, "a", "here").await;
    join(&other, "o", ()).await;
    let mut heard = Heard::by(&watcher).await;
    assert_eq!(reconnect(&wire, &a).await, resumes);
    other_wire.set(Line::Cut);
    assert_eq!(heard.presence().await, "leave o o");
    assert_eq!(present(&watcher).await, ["a: a"]);
}

#[tokio::test]
async fn nobody_hears_of_a_reconnect_within_the_grace() {
    nobody_hears_of_a_reconnect(Timings::default(), true).await;
}

#[tokio::test]
async fn nobody_hears_of_a_lost_session_within_the_grace() {
    let resume_window = Duration::from_millis(1);
    nobody_hears_of_a_reconnect(Timings { resume_window, ..Timings::default() }, false).await;
}

#[tokio::test]
async fn a_successor_under_the_same_id_is_not_in_what_it_did_not_join() {
    let server = server(Duration::from_millis(50), Timings::default());
    let watcher = client(&server, "w").await;
    let mut heard = Heard::by(&watcher).await;
    let former = client(&server, "a").await;
    join(&former, "a", ()).await;
    assert_eq!(heard.presence().await, "join a a");
    let successor = client(&server, "a").await;
    assert_eq!(heard.presence().await, "leave a a");
    join(&successor, "a", ()).await;
    assert_eq!(heard.presence().await, "join a a");
}

#[tokio::test]
async fn presence_is_rebuilt_when_the_server_was_restarted() {
    let first = plain();
    let wire = Wire::to(&first).await;
    let (a, b) = (wire.client("a").await, wire.client("b").await);
    let mut heard = Heard::by(&b).await;
    join(&a, "ann", "x").await;
    join(&b, "bob", ()).await;
    assert_eq!(heard.presence().await, "join ann a");
    assert_eq!(heard.presence().await, "join bob b");
    wire.set(Line::Cut);
    first.close(Duration::ZERO).await;
    let second = plain();
    *wire.server.lock().unwrap() = second.address();
    wire.set(Line::Open);
    until_present(&b, &["ann: a", "bob: b"]).await;
    let gap = heard.next().await;
    assert_eq!((text(&gap, "kind"), gap.get("count")), ("gap".into(), Some(&Value::Null)));
}

#[tokio::test]
async fn a_join_that_nobody_waited_for_is_undone() {
    let server = plain();
    let wire = Wire::to(&server).await;
    let (watcher, a) = (client(&server, "w").await, wire.client("a").await);
    let mut heard = Heard::by(&watcher).await;
    wire.set(Line::Silent);
    let timeout = Duration::from_millis(50);
    let options = DispatchOptions { timeout, ..DispatchOptions::default() };
    let joined = a.capabilities().dispatch("sync.join", room(), options).await;
    assert_eq!(joined.outcome.unwrap_err().code(), "timeout");
    wire.set(Line::Open);
    assert_eq!(heard.presence().await, "join a a");
    assert_eq!(heard.presence().await, "leave a a");
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let server = plain();
    let (a, b) =
        (connect(&server.url(), "x", "one").await, connect(&server.url(), "x", "two").await);
    let mut heard = Heard::by(&b).await;
    join(&a, "ann", ()).await;
    call(&a, "broadcast", saying("tick", ())).await.unwrap();
    assert!(present(&b).await.is_empty());
    join(&b, "bob", ()).await;
    assert_eq!(heard.presence().await, "join bob x");
    a.close().await;
    assert_eq!(present(&b).await, ["bob: x"]);
}

#[tokio::test]
async fn nobody_plays_the_server() {
    let server = plain();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let mut heard = Heard::by(&b).await;
    let forged = kps::Json(serde_json::json!({ "event": "leave", "key": "k", "client_id": "b" }));
    let receipt = a
        .publish_with(
            kps::To::Topic("kps.sync.room.presence"),
            forged,
            &kps::message::Extras::default(),
            Some(kps::message::ReceiptLevel::Accepted),
        )
        .unwrap();
    assert_eq!(receipt.await.unwrap_err().code(), "unauthorized");
    // A program's own event of that name is no presence.
    call(&a, "broadcast", saying("leave", Value::map([("kind", "presence".into())])))
        .await
        .unwrap();
    let record = heard.next().await;
    assert_eq!((text(&record, "kind"), text(&record, "event")), ("event".into(), "leave".into()));
}

#[tokio::test]
async fn wrong_payloads_are_refused_by_the_name_of_the_field() {
    let server = plain();
    let a = client(&server, "a").await;
    let long = "x".repeat(257);
    let channel = |channel: &str| Value::map([("channel", channel.into())]);
    for (operation, payload, expected, field) in [
        ("join", channel(&long), "too_large", "channel"),
        ("join", channel(""), "invalid_payload", "channel"),
        ("join", channel("a.*"), "invalid_payload", "channel"),
        ("join", Value::Null, "invalid_payload", "channel"),
        ("join", joining(&long, ()), "too_large", "key"),
        ("join", joining("k", "x".repeat(16 << 10)), "too_large", "meta"),
        ("presence", Value::map([("channel", 1.into())]), "invalid_payload", "channel"),
        ("subscribe", room(), "invalid_payload", "callback"),
        ("unsubscribe", Value::Null, "invalid_payload", "id"),
        ("broadcast", room(), "invalid_payload", "event"),
        ("broadcast", saying(&long, ()), "too_large", "event"),
        (
            "broadcast",
            saying("e", Value::Callback(Callback::new(|_| {}))),
            "invalid_payload",
            "data",
        ),
        (
            "leave",
            Value::map([("channel", "room".into()), ("kye", 1.into())]),
            "invalid_payload",
            "kye",
        ),
    ] {
        let failure = call(&a, operation, payload).await.unwrap_err();
        assert_eq!(
            (failure.code(), failure.field.as_deref()),
            (expected, Some(field)),
            "{failure}"
        );
    }
    assert_eq!(code(&a, "broadcast", saying("e", "x".repeat(2 << 20))).await, "too_large");
    assert_eq!(code(&a, "nothing", Value::Null).await, "unknown_operation");
    assert!(present(&a).await.is_empty());

    for n in 0..256 {
        call(&a, "join", channel(&n.to_string())).await.unwrap();
    }
    assert_eq!(code(&a, "join", room()).await, "quota_exceeded");
    call(&a, "leave", channel("7")).await.unwrap();
    assert_eq!(code(&a, "join", room()).await, "ok");
}

#[tokio::test]
async fn without_a_connection_only_subscribing_works() {
    let server = plain();
    let wire = Wire::to(&server).await;
    wire.set(Line::Cut);
    let a = Client::connect(ConnectOptions { wait: false, ..options(&wire.url, "a", "") })
        .await
        .unwrap();
    for (operation, payload) in
        [("broadcast", saying("e", ())), ("join", room()), ("leave", room()), ("presence", room())]
    {
        let failure = call(&a, operation, payload).await.unwrap_err();
        assert_eq!((failure.code(), failure.retry), ("unavailable", true), "{operation}");
    }
    let mut heard = Heard::by(&a).await;
    wire.set(Line::Open);
    until_present(&a, &[]).await;
    call(&a, "broadcast", saying("tick", ())).await.unwrap();
    assert_eq!(text(&heard.next().await, "event"), "tick");
}

#[tokio::test]
async fn it_works_on_a_private_bus() {
    let a = Client::from(kps::server::connect(ConnectOptions::new("mem://")).unwrap());
    a.bridge().ready().await.unwrap();
    let other = Client::from(kps::server::connect(ConnectOptions::new("mem://")).unwrap());
    other.bridge().ready().await.unwrap();
    let mut heard = Heard::by(&a).await;
    join(&a, "ann", ()).await;
    let id = a.id().unwrap();
    assert_eq!(heard.presence().await, format!("join ann {id}"));
    assert_eq!(present(&a).await, [format!("ann: {id}")]);
    assert!(present(&other).await.is_empty(), "private is private");
    call(&a, "broadcast", saying("tick", ())).await.unwrap();
    assert_eq!(text(&heard.next().await, "event"), "tick");
    a.close().await;
}

#[tokio::test]
async fn the_servers_own_client_takes_part() {
    let server = plain();
    let own = server.client().unwrap();
    own.bridge().ready().await.unwrap();
    // Before anybody else is there, and with others.
    join(&own, "host", ()).await;
    let a = client(&server, "a").await;
    let mut heard = Heard::by(&a).await;
    assert_eq!(present(&a).await.len(), 1);
    call(&own, "broadcast", saying("tick", ())).await.unwrap();
    assert_eq!(text(&heard.next().await, "event"), "tick");
    call(&own, "leave", room()).await.unwrap();
    assert!(heard.presence().await.starts_with("leave host"));
}

#[tokio::test]
async fn a_closed_clients_callbacks_are_not_called() {
    let server = plain();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let is_closed = Arc::new(AtomicBool::new(false));
    let closed = is_closed.clone();
    let callback = Callback::new(move |_| assert!(!closed.load(Ordering::SeqCst)));
    let payload = Value::map([("channel", "room".into()), ("callback", Value::Callback(callback))]);
    call(&a, "subscribe", payload).await.unwrap();
    a.close().await;
    is_closed.store(true, Ordering::SeqCst);
    let confirmed =
        Value::map([("channel", "room".into()), ("event", "e".into()), ("confirm", true.into())]);
    let answer = call(&b, "broadcast", confirmed).await.unwrap();
    assert_eq!(answer.get("recipients"), Some(&0.into()));
}
