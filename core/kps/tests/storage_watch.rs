//! Changes of a server's storage, as its clients hear of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

use std::time::{Duration, Instant};

use kps::{
    Client, ConnectOptions, ErrorKind, Server, ServerOptions,
    capability::{CallTarget, Callback, DispatchOptions, Outcome, Value},
};
use tokio::sync::mpsc;

async fn client(server: &Server) -> Client {
    let options = ConnectOptions {
        reconnect_min: Duration::from_millis(10),
        ..ConnectOptions::new(server.url())
    };
    Client::connect(options).await.unwrap()
}

/// The address may be free a moment later only.
async fn start_again(address: &str) -> Server {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match Server::start(ServerOptions::listen(address)) {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn on_server(client: &Client, operation: &str, payload: Value) -> Outcome {
    let options = DispatchOptions { target: CallTarget::Server, ..DispatchOptions::default() };
    let action = format!("storage.{operation}");
    client.capabilities().dispatch(&action, payload, options).await.outcome
}

async fn save(client: &Client, key: &str) -> Value {
    let payload = Value::map([("key", key.into()), ("value", key.into())]);
    on_server(client, "save", payload).await.unwrap()
}

struct Watch {
    name: Value,
    changes: mpsc::UnboundedReceiver<Value>,
}

async fn watch(client: &Client, prefix: &str) -> Watch {
    let (told, changes) = mpsc::unbounded_channel();
    let callback = Callback::new(move |change| {
        // A test may be over.
        let _ = told.send(change);
    });
    let payload = Value::map([("prefix", prefix.into()), ("callback", Value::Callback(callback))]);
    let answer = on_server(client, "watch", payload).await.unwrap();
    Watch { name: answer.get("watch").unwrap().clone(), changes }
}

impl Watch {
    async fn next(&mut self) -> Value {
        let change = tokio::time::timeout(Duration::from_secs(20), self.changes.recv()).await;
        change.expect("a change comes").expect("the watch is open")
    }

    async fn next_key(&mut self) -> String {
        match self.next().await.get("key") {
            Some(Value::Text(key)) => key.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn clients_hear_of_every_change_of_the_servers_storage_below_their_prefix() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let (a, b) = (client(&server).await, client(&server).await);
    let mut own = watch(&a, "a/").await;
    let mut others = watch(&b, "").await;
    let mut servers = watch(&server.client().unwrap(), "a/").await;
    let saved = save(&a, "a/1").await;
    save(&b, "b").await;
    // The server's own program calls it without a target.
    let payload = Value::map([("key", "a/2".into()), ("value", 1.into())]);
    assert!(server.client().unwrap().dispatch("storage.save", payload).await.is_ok());
    on_server(&b, "delete", Value::map([("key", "a/1".into())])).await.unwrap();

    for watch in [&mut own, &mut servers] {
        let change = watch.next().await;
        assert_eq!(change.get("event"), Some(&"saved".into()));
        for field in ["key", "etag", "size", "modified"] {
            assert_eq!(change.get(field), saved.get(field), "{field}");
        }
        assert_eq!(watch.next_key().await, "a/2");
        let change = watch.next().await;
        assert_eq!(change.get("event"), Some(&"deleted".into()));
        assert_eq!(change.get("key"), Some(&"a/1".into()));
    }
    for key in ["a/1", "b", "a/2", "a/1"] {
        assert_eq!(others.next_key().await, key);
    }
}

#[tokio::test]
async fn a_watch_ends_when_it_is_told_to_and_others_go_on() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let (a, b) = (client(&server).await, client(&server).await);
    let (mut first, mut second) = (watch(&a, "").await, watch(&a, "").await);
    assert_ne!(first.name, second.name);
    save(&b, "k").await;
    assert_eq!(first.next_key().await, "k");
    assert_eq!(second.next_key().await, "k");
    // Also where it was forgotten to say that it is the server's.
    let payload = Value::map([("watch", first.name.clone())]);
    let ended = a.dispatch("storage.unwatch", payload.clone()).await.unwrap().unwrap();
    assert_eq!(ended.get("unwatched"), Some(&true.into()));
    let again = on_server(&a, "unwatch", payload).await.unwrap();
    assert_eq!(again.get("unwatched"), Some(&false.into()));
    save(&b, "l").await;
    assert_eq!(second.next_key().await, "l");
    assert!(first.changes.recv().await.is_none(), "its function is forgotten");

    // Nobody is left: the next one to come is told all the same.
    on_server(&a, "unwatch", Value::map([("watch", second.name.clone())])).await.unwrap();
    save(&b, "m").await;
    let mut third = watch(&b, "").await;
    save(&a, "n").await;
    // What was saved just before may have been told only now.
    while third.next_key().await != "n" {}
    b.close().await;
    assert!(third.changes.recv().await.is_none());
}

#[tokio::test]
async fn a_watch_outlives_the_server_and_says_that_changes_may_be_missing() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let address = server.address();
    let a = client(&server).await;
    let mut changes = watch(&a, "a/").await;
    save(&a, "a/1").await;
    assert_eq!(changes.next_key().await, "a/1");
    server.close(Duration::ZERO).await;
    drop(server);
    let server = start_again(&address).await;
    let gap = changes.next().await;
    assert_eq!(gap.get("event"), Some(&"gap".into()), "{gap:?}");
    assert_eq!(gap.get("reason"), Some(&"new_epoch".into()));
    // From here on nothing is missed.
    save(&client(&server).await, "a/2").await;
    assert_eq!(changes.next_key().await, "a/2");
}

#[tokio::test]
async fn nobody_plays_the_servers_storage_and_who_follows_everything_does_not_hear_it() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let a = client(&server).await;
    let mut all = a.subscribe(">").await.unwrap();
    let mut changes = watch(&a, "").await;
    let receipt = a.publish_with(
        kps::To::Topic("kps.storage.changes"),
        kps::Json("fake"),
        &Default::default(),
        Some(kps::message::ReceiptLevel::Accepted),
    );
    assert_eq!(receipt.unwrap().await.unwrap_err().kind(), ErrorKind::Unauthorized);
    save(&a, "k").await;
    assert_eq!(changes.next_key().await, "k");
    a.publish("after", ()).unwrap();
    assert_eq!(&*all.message().await.unwrap().topic, "after");
}

#[tokio::test]
async fn wrong_watches_are_refused() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let a = client(&server).await;
    let nothing = || Value::Callback(Callback::new(|_| {}));
    for (operation, payload, field) in [
        ("watch", Value::Null, "callback"),
        ("watch", Value::map([("callback", nothing()), ("prefix", 1.into())]), "prefix"),
        ("watch", Value::map([("callback", nothing()), ("keys", 1.into())]), "keys"),
        ("unwatch", Value::Null, "watch"),
        ("unwatch", Value::map([("watch", 1.into())]), "watch"),
    ] {
        let failure = on_server(&a, operation, payload).await.unwrap_err();
        assert_eq!((failure.code(), failure.field.as_deref()), ("invalid_payload", Some(field)));
    }
}
