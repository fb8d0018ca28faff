//! Documents of a server, as its clients see them over a socket.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

use std::{path::PathBuf, time::Duration};

use kps::{
    Client, ConnectOptions, ErrorKind, Received, Server, ServerOptions, Subscription, To,
    capability::{Failure, Outcome, Value},
    message::{Extras, ReceiptLevel},
    options::SubscribeOptions,
};
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(20);

fn server() -> Server {
    Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap()
}

async fn client(server: &Server, id: &str) -> Client {
    let options = ConnectOptions { id: Some(id.into()), ..ConnectOptions::new(server.url()) };
    Client::connect(options).await.unwrap()
}

async fn call(client: &Client, operation: &str, payload: Json) -> Outcome {
    let payload = Value::from_json(payload.to_string().as_bytes()).unwrap();
    client.dispatch(&format!("document.{operation}"), payload).await.outcome
}

async fn ok(client: &Client, operation: &str, payload: Json) -> Json {
    let answer = call(client, operation, payload).await.unwrap();
    serde_json::from_slice(&answer.to_json().unwrap()).unwrap()
}

async fn code(client: &Client, operation: &str, payload: Json) -> &'static str {
    call(client, operation, payload).await.as_ref().map_or_else(Failure::code, |_| "ok")
}

async fn open(client: &Client) -> Json {
    ok(client, "open", json!({"id": "d", "kind": "text"})).await
}

fn appending(op_id: &str, base: impl Into<Json>) -> Json {
    editing(op_id, base, json!({"type": "append", "text": op_id}))
}

fn editing(op_id: &str, base: impl Into<Json>, edit: Json) -> Json {
    json!({"id": "d", "op_id": op_id, "base_version": base.into(), "edit": edit})
}

async fn edit(client: &Client, asked: Json) -> Json {
    ok(client, "edit", asked).await["results"][0].clone()
}

async fn follow(client: &Client) -> Subscription {
    client.subscribe("kps.document.d").await.unwrap()
}

async fn next(subscription: &mut Subscription) -> Vec<u8> {
    match tokio::time::timeout(PATIENCE, subscription.next()).await.unwrap() {
        Some(Received::Message(message)) => message.payload.bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("kps-document-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn server(&self) -> Server {
        let options = ServerOptions::listen("127.0.0.1:0");
        Server::start(ServerOptions { data: Some(self.0.clone()), ..options }).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn who_asks_and_everybody_else_is_told_the_same_bytes() {
    let server = server();
    let (ann, bob) = (client(&server, "ann").await, client(&server, "bob").await);
    open(&ann).await;
    let (mut anns, mut bobs) = (follow(&ann).await, follow(&bob).await);
    let ack = edit(&ann, appending("a", "W/\"0\"")).await;
    let conflict = edit(&bob, appending("b", "W/\"0\"")).await;
    let beyond = json!({"type": "delete", "position": 0, "length": 9});
    let rejected = edit(&bob, editing("c", 1, beyond)).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let (one, other) = (next(&mut anns).await, next(&mut bobs).await);
        assert_eq!(one, other);
        told.push(serde_json::from_slice::<Json>(&one).unwrap());
    }
    assert_eq!(told[1..], [ack.clone(), conflict.clone(), rejected.clone()]);
    assert_eq!(told[0]["event"], "change");
    assert_eq!((&told[0]["author"], &told[0]["previous"]), (&"ann".into(), &"W/\"0\"".into()));
    assert_eq!(conflict["missing_ops"][0]["splices"], json!([[0, 0, "a"]]));
    assert_eq!(rejected["code"], "position_out_of_range");
    assert_eq!(ok(&bob, "read", json!({"id": "d"})).await["text"], "a");
}

#[tokio::test]
async fn bad_input_is_rejected_with_a_code_and_changes_nothing() {
    let server = server();
    let ann = client(&server, "ann").await;
    open(&ann).await;
    edit(&ann, appending("one two one", 0)).await;
    for (asked, expected) in [
        (
            editing("1", 1, json!({"type": "insert", "position": 12, "text": "x"})),
            "position_out_of_range",
        ),
        (
            editing("2", 1, json!({"type": "replace", "position": 5, "length": 7, "text": ""})),
            "position_out_of_range",
        ),
        (
            editing("3", 1, json!({"type": "replace", "anchor": "three", "text": ""})),
            "anchor_not_found",
        ),
        (editing("4", 1, json!({"type": "delete", "anchor": "one"})), "anchor_not_unique"),
        (editing("5", 1, json!({"type": "move"})), "invalid_operation"),
        (
            editing("6", 1, json!({"type": "insert", "position": -1, "text": "x"})),
            "invalid_operation",
        ),
        (editing("7", 1, json!([])), "invalid_operation"),
        (editing("8", 1, json!({"type": "merge", "merge": {}})), "wrong_kind"),
        (
            editing("9", 1, json!({"type": "patch", "patch": [{"op": "steal", "path": ""}]})),
            "invalid_operation",
        ),
        (
            editing("10", 1, json!({"type": "append", "text": "x".repeat(300_000)})),
            "operation_too_large",
        ),
        (
            editing("11", 1, json!(vec![json!({"type": "append", "text": "x"}); 1001])),
            "too_many_edits",
        ),
        (editing("one two one", 1, json!({"type": "append", "text": "x"})), "op_id_reused"),
    ] {
        let rejected = edit(&ann, asked).await;
        assert_eq!((&rejected["event"], &rejected["code"]), (&"rejected".into(), &expected.into()));
        assert_eq!(rejected["version"], "W/\"1\"");
    }
    assert_eq!(ok(&ann, "read", json!({"id": "d"})).await["text"], "one two one");
    ok(&ann, "open", json!({"id": "j", "kind": "json"})).await;
    for (patch, expected) in [
        (json!([{"op": "test", "path": "", "value": 1}]), "test_failed"),
        (json!([{"op": "remove", "path": "/x"}]), "invalid_patch"),
    ] {
        let mut asked = editing(expected, 0, json!({"type": "patch", "patch": patch}));
        asked["id"] = "j".into();
        assert_eq!(edit(&ann, asked).await["code"], expected);
    }
    let kind = code(&ann, "open", json!({"id": "x", "kind": "sheet"})).await;
    assert_eq!(
        (kind, code(&ann, "edit", appending("a", "x")).await),
        ("invalid_payload", "invalid_payload")
    );
}

#[tokio::test]
async fn with_a_data_folder_documents_are_there_after_a_restart() {
    let folder = Folder::new("restart");
    let server = folder.server();
    let ann = client(&server, "ann").await;
    let opened = open(&ann).await;
    assert_eq!(opened["durable"], true);
    let mut events = follow(&ann).await;
    for n in 0..5 {
        edit(&ann, appending(&n.to_string(), n)).await;
    }
    server.close(PATIENCE).await;
    let mut told = Vec::new();
    while let Ok(Some(Received::Message(message))) =
        tokio::time::timeout(PATIENCE, events.next()).await
    {
        let event: Json = message.json().unwrap();
        let is_last = event["event"] == "checkpoint";
        told.push(event);
        if is_last {
            break;
        }
    }
    let levels =
        |level: &str| told.iter().filter(|it| it["event"] == "ack" && it["level"] == level).count();
    assert_eq!((levels("applied"), levels("checkpointed")), (5, 5), "{told:?}");
    ann.close().await;
    let server = folder.server();
    let ann = client(&server, "ann").await;
    let again = open(&ann).await;
    assert_eq!((&again["text"], &again["checkpointed"]), (&"01234".into(), &"W/\"5\"".into()));
    assert_eq!(again["lineage"], opened["lineage"]);
    let resent = edit(&ann, appending("3", 3)).await;
    assert_eq!((&resent["version"], &resent["level"]), (&"W/\"4\"".into(), &"checkpointed".into()));
    server.close(PATIENCE).await;
}

#[tokio::test]
async fn without_one_a_document_lives_as_long_as_its_server() {
    let server = server();
    let ann = client(&server, "ann").await;
    let opened = open(&ann).await;
    assert_eq!(opened["durable"], false);
    let acked = edit(&ann, appending("a", 0)).await;
    assert_eq!(acked["level"], "applied");
    ok(&ann, "close", json!({"id": "d"})).await;
    assert_eq!(open(&ann).await["text"], "a");
}

#[tokio::test]
async fn the_server_alone_tells_what_happens() {
    let server = server();
    let ann = client(&server, "ann").await;
    open(&ann).await;
    let (mut everything, mut events) = (ann.subscribe(">").await.unwrap(), follow(&ann).await);
    let forged = ann
        .publish_with(
            To::Topic("kps.document.d"),
            json!({"event": "ack"}),
            &Extras::default(),
            Some(ReceiptLevel::Accepted),
        )
        .unwrap();
    assert_eq!(forged.await.unwrap_err().kind(), ErrorKind::Unauthorized);
    edit(&ann, appending("a", 0)).await;
    assert!(next(&mut events).await.starts_with(b"{\"event\":\"change\""));
    ann.publish("plain", json!(1)).unwrap();
    assert_eq!(next(&mut everything).await, b"1", "what is reserved is not in \">\"");
}

#[tokio::test]
async fn namespaces_have_documents_of_their_own_and_none_reaches_where_they_are_kept() {
    let folder = Folder::new("namespaces");
    let server = folder.server();
    let within = async |namespace: &str| {
        let namespace = Some(namespace.to_owned());
        Client::connect(ConnectOptions { namespace, ..ConnectOptions::new(server.url()) }).await
    };
    let (one, other) = (within("one").await.unwrap(), within("other").await.unwrap());
    open(&one).await;
    let mut events = follow(&other).await;
    edit(&one, appending("a", 0)).await;
    assert_eq!(open(&other).await["text"], "");
    edit(&other, appending("b", 0)).await;
    assert!(String::from_utf8(next(&mut events).await).unwrap().contains("\"op_id\":\"b\""));
    assert_eq!(within("kps.documents/one").await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    server.close(PATIENCE).await;
}

#[tokio::test]
async fn one_who_does_not_read_what_happens_holds_up_nobody() {
    let server = server();
    let (ann, lazy) = (client(&server, "ann").await, client(&server, "lazy").await);
    open(&ann).await;
    let options = SubscribeOptions { capacity: Some(8), ..SubscribeOptions::default() };
    let mut lazily = lazy.subscribe_with("kps.document.>", options).await.unwrap();
    let mut events = follow(&ann).await;
    let text = "x".repeat(50_000);
    for n in 0..100 {
        let edit_of = json!({"type": "replace", "position": 0, "length": if n == 0 { 0 } else { 50_000 }, "text": text});
        let acked = edit(&ann, editing(&n.to_string(), n, edit_of)).await;
        assert_eq!(acked["event"], "ack", "{acked}");
        next(&mut events).await;
        next(&mut events).await;
    }
    // It is told that something is missing.
    loop {
        match tokio::time::timeout(PATIENCE, lazily.next()).await.unwrap() {
            Some(Received::Gap(_)) => break,
            Some(Received::Message(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_is_there_is_told_until_its_session_ends() {
    let options = ServerOptions::listen("127.0.0.1:0");
    let presence_grace = Duration::from_millis(50);
    let server = Server::start(ServerOptions { presence_grace, ..options }).unwrap();
    let (ann, bob) = (client(&server, "ann").await, client(&server, "bob").await);
    open(&ann).await;
    let mut events = follow(&ann).await;
    ok(&bob, "presence", json!({"id": "d", "author": "Bob", "state": {"cursor": 1}})).await;
    let mut told = async || serde_json::from_slice::<Json>(&next(&mut events).await).unwrap();
    let there = told().await;
    assert_eq!((&there["client"], &there["author"]), (&"bob".into(), &"Bob".into()));
    assert_eq!(open(&ann).await["presence"][0]["state"], json!({"cursor": 1}));
    bob.close().await;
    assert_eq!(told().await["state"], Json::Null);
    // One that is lost is missed for a while first.
    let wire = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", wire.local_addr().unwrap());
    let address = server.address();
    let carrying = tokio::spawn(async move {
        let (mut client, _) = wire.accept().await.unwrap();
        let mut server = TcpStream::connect(address).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    let options = ConnectOptions { id: Some("eve".into()), ..ConnectOptions::new(url) };
    let eve = Client::connect(options).await.unwrap();
    ok(&eve, "presence", json!({"id": "d", "state": {}})).await;
    assert_eq!(told().await["client"], "eve");
    carrying.abort();
    assert_eq!(
        told().await,
        json!({"event": "presence", "id": "d", "client": "eve", "author": "eve", "state": null})
    );
}

#[tokio::test]
async fn a_document_larger_than_a_payload_is_read_in_parts() {
    let mut options = ServerOptions::listen("127.0.0.1:0");
    options.limits.payload = 64 << 10;
    let server = Server::start(options).unwrap();
    let ann = client(&server, "ann").await;
    open(&ann).await;
    let mut version: Json = 0.into();
    for n in 0..30 {
        let text = format!("\u{1}{n}").repeat(2_000);
        let acked =
            edit(&ann, editing(&n.to_string(), version, json!({"type": "append", "text": text})))
                .await;
        version = acked["version"].clone();
        assert_eq!(acked["event"], "ack");
    }
    let mut part = open(&ann).await;
    let mut text = part["part"].as_str().unwrap().to_owned();
    while !part["next"].is_null() {
        part =
            ok(&ann, "read", json!({"id": "d", "version": version, "offset": part["next"]})).await;
        text.push_str(part["part"].as_str().unwrap());
    }
    let expected: String = (0..30).map(|n| format!("\u{1}{n}").repeat(2_000)).collect();
    assert!(text == expected, "{} of {} bytes", text.len(), expected.len());
    // Who is far behind is told of a conflict all the same.
    let mut events = follow(&ann).await;
    let conflict = edit(&ann, appending("late", 0)).await;
    assert_eq!(conflict["event"], "conflict");
    assert!(next(&mut events).await.starts_with(b"{\"event\":\"conflict\""));
}
