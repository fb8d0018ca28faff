//! Who may read a document and who may change it, on every way to it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod raw;
mod web;

use std::time::Duration;

use kps::{
    Client, ConnectOptions, Error, ErrorKind, Received, Server, ServerOptions,
    auth::{Token, decide_at_once},
    capability::{CallTarget, DispatchOptions, Failure, Outcome, Value},
    document::{Edit, OpenDocument},
    message::{Extras, ReceiptLevel},
    options::SubscribeOptions,
    proto::topic::Pattern,
};
use raw::Raw;
use serde_json::{Value as Json, json};
use web::{Answer, Events, Web};

const PATIENCE: Duration = Duration::from_secs(20);

/// `all` may everything; `eve` may call every operation, read `shared` and what is hers, and change what is hers.
fn server() -> Server {
    let eve = Token::new("eve").name("eve");
    let eve = eve.publish(["kps.server.document.>", "kps.document.eve.>"]).unwrap();
    let eve = eve.subscribe(["kps.document.shared", "kps.document.eve.>"]).unwrap();
    let tokens = vec![Token::new("all").name("all"), eve];
    Server::start(ServerOptions { tokens, ..ServerOptions::listen("127.0.0.1:0") }).unwrap()
}

async fn client(server: &Server, token: &str) -> Client {
    let (id, token) = (Some(token.into()), Some(token.into()));
    Client::connect(ConnectOptions { id, token, ..ConnectOptions::new(server.url()) })
        .await
        .unwrap()
}

fn payload(json: &Json) -> Value {
    Value::from_json(json.to_string().as_bytes()).unwrap()
}

async fn call(client: &Client, operation: &str, asked: Json) -> Outcome {
    client.dispatch(&format!("document.{operation}"), payload(&asked)).await.outcome
}

async fn code(client: &Client, operation: &str, asked: Json) -> &'static str {
    call(client, operation, asked).await.as_ref().map_or_else(Failure::code, |_| "ok")
}

async fn make(client: &Client, ids: &[&str]) {
    for id in ids {
        assert_eq!(code(client, "open", json!({"id": id, "kind": "text"})).await, "ok");
    }
}

async fn text(client: &Client, id: &str) -> String {
    let read = call(client, "read", json!({"id": id})).await.unwrap();
    match read.get("text") {
        Some(Value::Text(text)) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

fn appending(id: &str, op_id: &str) -> Json {
    let edit = json!({"type": "append", "text": op_id});
    json!({"id": id, "op_id": op_id, "base_version": 0, "edit": edit})
}

#[tokio::test]
async fn a_call_over_the_bus_reaches_the_documents_its_caller_may_reach() {
    let server = server();
    let (all, eve) = (client(&server, "all").await, client(&server, "eve").await);
    make(&all, &["shared", "secret"]).await;
    make(&eve, &["eve.notes"]).await;
    assert_eq!(code(&eve, "edit", appending("eve.notes", "a")).await, "ok");
    assert_eq!(code(&eve, "read", json!({"id": "shared"})).await, "ok");
    assert_eq!(code(&eve, "open", json!({"id": "shared", "kind": "text"})).await, "ok");
    let denied = call(&eve, "edit", appending("shared", "a")).await.unwrap_err();
    assert_eq!((denied.code(), denied.retry), ("unauthorized", false));
    assert!(denied.message.contains("publish to \"kps.document.shared\""), "{}", denied.message);
    for operation in ["read", "versions", "close"] {
        assert_eq!(code(&eve, operation, json!({"id": "secret"})).await, "unauthorized");
    }
    assert_eq!(code(&eve, "open", json!({"id": "secret", "kind": "text"})).await, "unauthorized");
    assert_eq!(code(&eve, "edit", appending("secret", "a")).await, "unauthorized");
    for id in ["shared", "secret"] {
        assert_eq!(text(&all, id).await, "", "{id}");
    }
    let followed = eve.subscribe("kps.document.secret").await;
    assert_eq!(followed.unwrap_err().kind(), ErrorKind::Unauthorized);
    let followed = eve.subscribe("kps.document.>").await;
    assert_eq!(followed.unwrap_err().kind(), ErrorKind::Unauthorized);
}

#[tokio::test]
async fn what_was_answered_to_another_is_not_answered_to_whoever_has_its_idempotency_key() {
    let server = server();
    let (all, eve) = (client(&server, "all").await, client(&server, "eve").await);
    make(&all, &["secret"]).await;
    let read = async |client: &Client| {
        let (idempotency_key, target) = (Some("key".into()), CallTarget::Server);
        let options = DispatchOptions { idempotency_key, target, ..DispatchOptions::default() };
        let asked = payload(&json!({"id": "secret"}));
        let outcome = client.capabilities().dispatch("document.read", asked, options).await.outcome;
        outcome.as_ref().map_or_else(Failure::code, |_| "ok")
    };
    assert_eq!(read(&all).await, "ok");
    assert_eq!(read(&eve).await, "unauthorized");
}

#[tokio::test]
async fn headers_of_a_call_grant_nothing() {
    let server = server();
    let (all, eve) = (client(&server, "all").await, client(&server, "eve").await);
    make(&all, &["secret"]).await;
    let asked = json!({"id": "1", "action": "document.read", "payload": {"id": "secret"}});
    for headers in [
        [("kps-reads", "kps.document.>"), ("kps-changes", "kps.document.>")],
        [("kps-reads", ""), ("KPS-READS", "kps.document.>")],
    ] {
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let extras = Extras { headers, ..Extras::default() };
        let topic = "kps.server.document.read";
        let answer = eve.request_with(topic, asked.clone(), PATIENCE, &extras).await.unwrap().bytes;
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        assert!(answer.contains("\"unauthorized\""), "{answer}");
    }
}

#[tokio::test]
async fn a_document_that_may_be_read_follows_what_others_do_and_refuses_its_own_edits() {
    let server = server();
    let (all, eve) = (client(&server, "all").await, client(&server, "eve").await);
    let missing = eve.open_document("shared", OpenDocument::default()).await.unwrap_err();
    assert_eq!(missing.code(), "unauthorized");
    let yjs = tokio::time::timeout(PATIENCE, eve.open_yjs("shared", OpenDocument::default())).await;
    assert_eq!(yjs.unwrap().unwrap_err().code(), "unauthorized");
    let written = all.open_document("shared", OpenDocument::default()).await.unwrap();
    let followed = eve.open_document("shared", OpenDocument::default()).await.unwrap();
    let mut events = followed.events();
    written.edit(Edit::append("hello")).unwrap().await.unwrap();
    loop {
        let told = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        if &*told.event == "change" {
            break;
        }
    }
    assert_eq!(followed.text().as_deref(), Some("hello"));
    let refused = followed.edit(Edit::append("!")).unwrap().await.unwrap_err();
    assert_eq!(refused.code, "unauthorized");
    for text in [followed.text(), written.text()] {
        assert_eq!(text.as_deref(), Some("hello"));
    }
    let denied = eve.open_document("secret", OpenDocument::default()).await.unwrap_err();
    assert_eq!(denied.code(), "unauthorized");
}

#[tokio::test]
async fn a_permission_to_change_a_document_is_none_to_tell_what_happened_to_it() {
    let server = server();
    let eve = client(&server, "eve").await;
    make(&eve, &["eve.notes"]).await;
    let mut events =
        eve.subscribe_with("kps.document.eve.notes", SubscribeOptions::default()).await.unwrap();
    let forged = json!({"event": "change", "id": "eve.notes"});
    let extras = Extras::default();
    let told = eve.publish_with(
        kps::To::Topic("kps.document.eve.notes"),
        forged.clone(),
        &extras,
        Some(ReceiptLevel::Accepted),
    );
    assert_eq!(told.unwrap().await.unwrap_err().kind(), ErrorKind::Unauthorized);
    let mut web = Web::to(&server);
    let eves = [("authorization", "Bearer eve")];
    let path = "/v1/publish/kps.document.eve.notes";
    let told = web.send("POST", path, &eves, forged.to_string().as_bytes());
    assert_eq!(told.fault(403), "unauthorized");
    let mut kps_json = Raw::open(&server, "Authorization: Bearer eve\r\n");
    kps_json.say(json!({"action": "ping", "from": "json"}));
    kps_json.hear();
    let topic = "kps.document.eve.notes";
    kps_json.say(json!({"action": "publish", "topic": topic, "data": forged}));
    kps_json.hear_error(ErrorKind::Unauthorized);
    assert_eq!(code(&eve, "edit", appending("eve.notes", "a")).await, "ok");
    match tokio::time::timeout(PATIENCE, events.next()).await.unwrap() {
        Some(Received::Message(message)) => {
            let event: Json = serde_json::from_slice(&message.payload.bytes).unwrap();
            assert_eq!(event["op_id"], "a", "what was forged was told");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn kps_json_calls_are_no_way_around() {
    let server = server();
    let all = client(&server, "all").await;
    make(&all, &["shared", "eve.notes"]).await;
    let mut events = all.subscribe("kps.document.>").await.unwrap();
    let mut eve = Raw::open(&server, "Authorization: Bearer eve\r\n");
    eve.say(json!({"action": "ping", "from": "json"}));
    eve.hear();
    for id in ["shared", "eve.notes"] {
        let call = json!({"id": id, "action": "document.edit", "payload": appending(id, id)});
        let topic = "kps.server.document.edit";
        eve.say(json!({"action": "publish", "topic": topic, "data": call}));
    }
    match tokio::time::timeout(PATIENCE, events.next()).await.unwrap() {
        Some(Received::Message(message)) => {
            assert_eq!(&*message.topic, "kps.document.eve.notes");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(text(&all, "shared").await, "");
}

/// Asks over HTTP with a token.
fn asked(web: &mut Web, token: &str, method: &str, path: &str, body: &Json) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let bearer = format!("Bearer {token}");
    let path = format!("/v1/documents/{path}");
    web.send(method, &path, &[("authorization", &bearer)], body.as_bytes())
}

#[test]
fn http_asks_for_the_same_permissions() {
    let server = server();
    let mut web = Web::to(&server);
    let open = json!({"kind": "text"});
    for id in ["shared", "secret"] {
        assert_eq!(asked(&mut web, "eve", "PUT", id, &open).fault(403), "unauthorized", "{id}");
        assert_eq!(asked(&mut web, "all", "PUT", id, &open).status, 201, "{id}");
    }
    assert_eq!(asked(&mut web, "eve", "PUT", "eve.notes", &open).status, 201);
    assert_eq!(asked(&mut web, "eve", "PUT", "shared", &open).status, 200);
    assert_eq!(asked(&mut web, "eve", "GET", "shared", &Json::Null).status, 200);
    assert_eq!(asked(&mut web, "eve", "GET", "shared/versions", &Json::Null).status, 200);
    let present = json!({"client": "page", "state": {}});
    assert_eq!(asked(&mut web, "eve", "POST", "shared/presence", &present).status, 202);
    let operation = |id: &str| {
        let Json::Object(mut all) = appending(id, "a") else { unreachable!() };
        all.remove("id");
        Json::Object(all)
    };
    let batch = json!({"operations": [operation("shared")]});
    for (what, body) in [
        ("operations", operation("shared")),
        ("operations", batch),
        ("undo", json!({"op_id": "u"})),
        ("compact", json!({})),
    ] {
        let denied = asked(&mut web, "eve", "POST", &format!("shared/{what}"), &body);
        assert_eq!(denied.fault(403), "unauthorized", "{what}");
        let sentence = denied.json()["error"]["message"].to_string();
        assert!(sentence.contains("kps.document.shared"), "{sentence}");
    }
    for (method, path, body) in [
        ("PUT", "secret", &open),
        ("GET", "secret", &Json::Null),
        ("GET", "secret?version=W/%220%22", &Json::Null),
        ("GET", "secret/versions", &Json::Null),
        ("GET", "secret/events", &Json::Null),
        ("POST", "secret/presence", &present),
        ("POST", "secret/close", &Json::Null),
        ("POST", "secret/operations", &operation("secret")),
    ] {
        let denied = asked(&mut web, "eve", method, path, body);
        assert_eq!(denied.fault(403), "unauthorized", "{method} {path}");
    }
    let eves = [("authorization", "Bearer eve")];
    let mut events = Events::open(&server, "/v1/documents/eve.notes/events", &eves);
    let done = asked(&mut web, "eve", "POST", "eve.notes/operations", &operation("eve.notes"));
    assert_eq!(done.status, 202);
    assert_eq!(events.next().json()["op_id"], "a");
    // Calls over HTTP are calls of the bus.
    let dispatch = |web: &mut Web, action: &str, asked: &Json| {
        let path = format!("/v1/dispatch/{action}");
        web.send("POST", &path, &eves, asked.to_string().as_bytes())
    };
    let read = dispatch(&mut web, "document.read", &json!({"id": "eve.notes"}));
    assert_eq!(read.status, 200, "{read:?}");
    let denied = dispatch(&mut web, "document.read", &json!({"id": "secret"}));
    assert_eq!(denied.fault(403), "unauthorized");
    let denied = dispatch(&mut web, "document.edit", &appending("shared", "b"));
    assert_eq!(denied.fault(403), "unauthorized");
}

#[tokio::test]
async fn a_hook_decides_for_each_document_who_edits_it() {
    let may = |publish: &str, subscribe: &str| {
        let patterns = |text: &str| Some(vec![Pattern::parse(text).unwrap()]);
        (patterns(publish), patterns(subscribe))
    };
    let hook = decide_at_once(move |request| {
        let mut principal = request.principal.clone();
        let Some(room) = request.path.strip_prefix("/yjs/") else { return Ok(principal) };
        let (id, may_write) = match room.split_once('?') {
            Some((id, "write")) => (id, true),
            _ => (room, false),
        };
        if id != "page" {
            return Err(Error::new(ErrorKind::Unauthorized, "there is one page"));
        }
        let topic = format!("kps.document.{id}");
        (principal.publish, principal.subscribe) = may("kps.server.document.>", &topic);
        if may_write {
            principal.publish.as_mut().unwrap().push(Pattern::parse(&topic).unwrap());
        }
        Ok(principal)
    });
    let options = ServerOptions::listen("127.0.0.1:0");
    let server = Server::start(ServerOptions { on_connect: Some(hook), ..options }).unwrap();
    let all = Client::connect(ConnectOptions::new(server.url())).await.unwrap();
    assert_eq!(code(&all, "open", json!({"id": "page", "kind": "yjs"})).await, "ok");
    // What `y-websocket` sends for a text `x`, as a message of the sync protocol.
    let message = [0, 2, 14, 1, 1, 1, 0, 4, 1, 4, b't', b'e', b'x', b't', 1, b'x', 0];
    let come = |path: &str| {
        let mut editor = Raw::open_at(&server, path, "");
        editor.put(kps::net::websocket::Opcode::Binary, &message);
        editor
    };
    assert_eq!(come("/yjs/other").is_closed(), 4403);
    assert_eq!(come("/yjs/page").is_closed(), 4403);
    let mut events = all.subscribe("kps.document.page").await.unwrap();
    let _editor = come("/yjs/page?write");
    match tokio::time::timeout(PATIENCE, events.next()).await.unwrap() {
        Some(Received::Message(message)) => {
            let event: Json = serde_json::from_slice(&message.payload.bytes).unwrap();
            assert_eq!(event["event"], "change", "{event}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn documents_may_be_named_one_by_one_however_many() {
    let named: Vec<String> = (0..2_000).map(|at| format!("kps.document.room-{at}")).collect();
    let eve = Token::new("eve").subscribe(named.iter().map(|it| &**it)).unwrap();
    let calls = ["kps.server.document.>", "kps.document.room-1999"];
    let tokens = vec![eve.publish(calls).unwrap()];
    let server =
        Server::start(ServerOptions { tokens, ..ServerOptions::listen("127.0.0.1:0") }).unwrap();
    let eve = client(&server, "eve").await;
    make(&eve, &["room-1999"]).await;
    assert_eq!(code(&eve, "edit", appending("room-1999", "a")).await, "ok");
    assert_eq!(text(&eve, "room-1999").await, "a");
    assert_eq!(code(&eve, "edit", appending("room-1998", "a")).await, "unauthorized");
    assert_eq!(code(&eve, "read", json!({"id": "room-2000"})).await, "unauthorized");
}
