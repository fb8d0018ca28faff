//! Documents over HTTP, with a socket and nothing else.
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

mod common;
mod web;

use common::{PATIENCE, block_on};
use kps::{Server, ServerOptions, auth::Token};
use serde_json::{Value, json};
use web::{Answer, Events, Web};

const DOC: &str = "/v1/documents/notes%2Fone";

fn server() -> Server {
    Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap()
}

fn operation(op_id: &str, base: &str, edit: &Value) -> String {
    json!({"op_id": op_id, "base_version": base, "author": "ann", "edit": edit}).to_string()
}

fn append(text: &str) -> Value {
    json!({"type": "append", "text": text})
}

fn post(web: &mut Web, what: &str, body: &str) -> Answer {
    web.post(&format!("{DOC}/{what}"), body)
}

/// The next event with this name.
fn until(events: &mut Events, name: &str) -> Value {
    loop {
        let event = events.next();
        if event.name == name {
            return event.json();
        }
    }
}

#[test]
fn who_had_it_open_is_told_what_it_missed() {
    let server = server();
    let mut web = Web::to(&server);
    let made = web.send("PUT", DOC, &[], br#"{"kind":"text"}"#).json();
    let mut events = Events::open(&server, &format!("{DOC}/events"), &[]);
    post(&mut web, "operations", &operation("1", "W/\"0\"", &append("hello")));
    until(&mut events, "ack");
    let again = |known: &str| json!({"kind": "text", "lineage": made["lineage"], "known": [known]});
    let mut open = |body: Value| web.send("PUT", DOC, &[], body.to_string().as_bytes()).json();

    let opened = open(again("W/\"0\""));
    assert_eq!((&opened["since"], &opened["text"]), (&json!("W/\"0\""), &Value::Null));
    assert_eq!(opened["missing_ops"][0]["splices"], json!([[0, 0, "hello"]]));
    // It knows what never was: the whole text is told.
    let opened = open(again("W/\"7\""));
    assert_eq!((&opened["since"], &opened["text"]), (&Value::Null, &json!("hello")));
}

#[test]
fn a_document_is_made_read_and_changed() {
    let server = server();
    let mut web = Web::to(&server);
    assert_eq!(web.get(DOC).fault(404), "not_found");
    let made = web.send("PUT", DOC, &[], br#"{"kind":"text"}"#);
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!((&made.json()["text"], made.header("etag")), (&json!(""), Some("W/\"0\"")));
    assert_eq!(web.send("PUT", DOC, &[], br#"{"kind":"text"}"#).status, 200);
    assert_eq!(web.send("PUT", DOC, &[], br#"{"kind":"json"}"#).fault(409), "conflict");
    assert_eq!(web.send("PUT", DOC, &[], br#"{"kind":"word"}"#).fault(400), "invalid_payload");

    let mut events = Events::open(&server, &format!("{DOC}/events"), &[]);
    let receipt = post(&mut web, "operations", &operation("1", "W/\"0\"", &append("hello")));
    assert_eq!((receipt.status, receipt.json()), (202, json!({"accepted": 1, "op_ids": ["1"]})));
    let change = events.next();
    assert_eq!(change.name, "change");
    assert_eq!(change.json()["author"], "ann");
    let ack = events.next();
    assert_eq!((&*ack.name, &ack.json()["op_id"]), ("ack", &json!("1")));
    let version = ack.json()["version"].as_str().unwrap().to_owned();

    let read = web.get(DOC);
    assert_eq!((&read.json()["text"], read.header("etag")), (&json!("hello"), Some(&*version)));
    for key in ["lineage", "checkpointed", "kind", "version"] {
        assert!(read.json()[key].is_string(), "{key}: {read:?}");
    }
    let known = web.send("GET", DOC, &[("if-none-match", &version)], b"");
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some(&*version)));
    let old = web.get(&format!("{DOC}?version=W/%220%22"));
    assert_eq!((old.status, &old.json()["text"]), (200, &json!("")));
    assert_eq!(web.get(&format!("{DOC}?version=W/%2299%22")).fault(404), "not_found");
    let versions = web.get(&format!("{DOC}/versions?limit=5")).json();
    assert_eq!(versions["versions"][0]["op_id"], "1");

    let undone = post(&mut web, "undo", r#"{"op_id":"2","author":"ann"}"#);
    assert_eq!((undone.status, undone.json()), (202, json!({"accepted": 1, "op_ids": ["2"]})));
    assert_eq!(until(&mut events, "change")["undoes"], json!(["1"]));
    assert_eq!(web.get(DOC).json()["text"], "");
    assert_eq!(post(&mut web, "compact", "{}").status, 200);
    assert_eq!(post(&mut web, "close", "").status, 200);
}

#[test]
fn a_stale_base_is_told_as_a_conflict_that_brings_what_is_missing() {
    let server = server();
    let mut web = Web::to(&server);
    web.send("PUT", DOC, &[], br#"{"kind":"text"}"#);
    let mut events = Events::open(&server, &format!("{DOC}/events"), &[]);
    post(&mut web, "operations", &operation("1", "W/\"0\"", &append("a")));
    let at = json!({"type": "insert", "position": 0, "text": "b"});
    assert_eq!(post(&mut web, "operations", &operation("2", "W/\"0\"", &at)).status, 202);
    let conflict = until(&mut events, "conflict");
    assert_eq!(conflict["op_id"], "2");
    assert_eq!(conflict["missing_ops"][0]["op_id"], "1");
    let rebased = conflict["server_version"].as_str().unwrap();
    post(&mut web, "operations", &operation("2", rebased, &at));
    assert_eq!(until(&mut events, "ack")["op_id"], "2");
    assert_eq!(web.get(DOC).json()["text"], "ba");
}

#[test]
fn the_bus_and_a_stream_tell_the_same_bytes() {
    let server = server();
    let mut web = Web::to(&server);
    web.send("PUT", "/v1/documents/d", &[], br#"{"kind":"json"}"#);
    let client = server.client().unwrap();
    let mut bus = block_on(client.subscribe("kps.document.d")).unwrap();
    let mut events = Events::open(&server, "/v1/documents/d/events", &[]);
    let edit = json!({"type": "merge", "merge": {"title": "ä\n\"b\""}});
    web.post("/v1/documents/d/operations", &operation("1", "W/\"0\"", &edit));
    web.post("/v1/documents/d/operations", &operation("2", "W/\"77\"", &edit));
    let mut names = Vec::new();
    for _ in 0..3 {
        let told = block_on(bus.message()).unwrap();
        let event = events.next();
        assert_eq!(event.data.as_bytes(), &*told.payload.bytes);
        assert_eq!(event.json()["event"], *event.name);
        names.push(event.name);
    }
    assert_eq!(names[..2], ["change", "ack"]);
}

#[test]
fn what_is_too_large_is_an_event_and_no_broken_connection() {
    let server = server();
    let mut web = Web::to(&server);
    web.send("PUT", DOC, &[], br#"{"kind":"text"}"#);
    let mut events = Events::open(&server, &format!("{DOC}/events"), &[]);
    let paste = append(&"x".repeat(20_000_000));
    assert_eq!(post(&mut web, "operations", &operation("big", "W/\"0\"", &paste)).status, 202);
    let rejected = until(&mut events, "rejected");
    assert_eq!(
        (&rejected["op_id"], &rejected["code"]),
        (&json!("big"), &json!("operation_too_large"))
    );
    assert_eq!(web.get(DOC).json()["text"], "");
}

#[test]
fn a_content_is_read_as_a_whole_however_large() {
    let server = server();
    let mut web = Web::to(&server);
    web.send("PUT", DOC, &[], br#"{"kind":"text"}"#);
    web.send("PUT", "/v1/documents/j", &[], br#"{"kind":"json"}"#);
    let part = "aä\u{1F600}\n".repeat(10_000);
    let mut events = Events::open(&server, &format!("{DOC}/events"), &[]);
    let mut expected = String::new();
    for number in 0..5 {
        let version = web.get(DOC).header("etag").unwrap().to_owned();
        post(&mut web, "operations", &operation(&number.to_string(), &version, &append(&part)));
        assert_eq!(until(&mut events, "ack")["op_id"], number.to_string());
        expected.push_str(&part);
    }
    assert_eq!(web.get(DOC).json()["text"], expected);
    let old = web.get(&format!("{DOC}?version=W/%224%22")).json();
    assert_eq!(old["text"], expected[..part.len() * 4]);
    for at in 0..3 {
        let edit = json!({"type": "merge", "merge": {at.to_string(): part}});
        let version = web.get("/v1/documents/j").header("etag").unwrap().to_owned();
        web.post("/v1/documents/j/operations", &operation(&at.to_string(), &version, &edit));
    }
    let value = &web.get("/v1/documents/j").json()["value"];
    assert_eq!(*value, json!({"0": part, "1": part, "2": part}));
}

#[test]
fn malformed_bodies_are_refused_at_once() {
    let server = server();
    let mut web = Web::to(&server);
    web.send("PUT", DOC, &[], br#"{"kind":"text"}"#);
    for (what, body, code) in [
        ("operations", "{oops", "invalid_payload"),
        ("operations", "[]", "invalid_payload"),
        ("operations", r#"{"id":"other","op_id":"1"}"#, "invalid_argument"),
        ("undo", "{}", "invalid_payload"),
    ] {
        assert_eq!(post(&mut web, what, body).fault(400), code, "{what} {body}");
    }
    assert_eq!(web.get("/v1/documents/%2A").fault(400), "invalid_payload");
    assert_eq!(web.get(&format!("{DOC}/nothing")).fault(404), "not_found");
    assert_eq!(web.send("DELETE", DOC, &[], b"").fault(405), "unknown_action");
    let versions = web.get(&format!("{DOC}/versions?limit=many"));
    assert_eq!(versions.fault(400), "invalid_argument");
}

#[test]
fn whoever_may_not_call_document_on_the_bus_may_not_over_http() {
    let who = |name, subscribe| {
        let token = Token::new(name).name(name).publish(["kps.server.document.read"]).unwrap();
        token.subscribe([subscribe]).unwrap()
    };
    let (reader, stranger) = (who("reader", "kps.document.notes/one"), who("stranger", "a.>"));
    let tokens = vec![Token::new("writer").name("writer"), reader, stranger];
    let server =
        Server::start(ServerOptions { tokens, ..ServerOptions::listen("127.0.0.1:0") }).unwrap();
    let mut web = Web::to(&server);
    assert_eq!(web.get(DOC).fault(401), "unauthorized");
    let writer = [("authorization", "Bearer writer")];
    let reader = [("authorization", "Bearer reader")];
    assert_eq!(web.send("PUT", DOC, &writer, br#"{"kind":"text"}"#).status, 201);
    assert_eq!(web.send("GET", DOC, &reader, b"").status, 200);
    let edit = json!({"op_id": "1", "base_version": "W/\"0\"", "edit": append("a")}).to_string();
    let path = format!("{DOC}/operations");
    assert_eq!(web.send("POST", &path, &reader, edit.as_bytes()).fault(403), "unauthorized");
    let path_events = format!("{DOC}/events");
    let stranger = [("authorization", "Bearer stranger")];
    for path in [DOC, &path_events] {
        assert_eq!(web.send("GET", path, &stranger, b"").fault(403), "unauthorized");
    }
    let mut events = Events::open(&server, &path_events, &writer);
    assert_eq!(web.send("POST", &path, &writer, edit.as_bytes()).status, 202);
    // The author is who the token says, unless the operation does.
    assert_eq!(until(&mut events, "change")["author"], "writer");
}

#[test]
fn documents_of_namespaces_are_apart() {
    let token = |name| Token::new(name).name(name).namespace(name);
    let tokens = vec![token("one"), token("two")];
    let server =
        Server::start(ServerOptions { tokens, ..ServerOptions::listen("127.0.0.1:0") }).unwrap();
    let mut web = Web::to(&server);
    let put = |web: &mut Web, token: &str| {
        web.send("PUT", &format!("{DOC}?token={token}"), &[], br#"{"kind":"text"}"#).status
    };
    assert_eq!((put(&mut web, "one"), put(&mut web, "two")), (201, 201));
    let mut events = Events::open(&server, &format!("{DOC}/events?token=two"), &[]);
    for token in ["one", "two"] {
        let operation = operation(token, "W/\"0\"", &append(token));
        web.post(&format!("{DOC}/operations?token={token}"), &operation);
    }
    assert_eq!(events.next().json()["op_id"], "two");
}

#[test]
fn a_reader_of_a_document_goes_on_behind_the_last_event() {
    let server = server();
    let mut web = Web::to(&server);
    web.send("PUT", DOC, &[], br#"{"kind":"text"}"#);
    let path = format!("{DOC}/events");
    let mut events = Events::open(&server, &path, &[]);
    post(&mut web, "operations", &operation("1", "W/\"0\"", &append("a")));
    let first = events.next();
    drop(events);
    let version = web.get(DOC).header("etag").unwrap().to_owned();
    post(&mut web, "operations", &operation("2", &version, &append("b")));
    let mut events = Events::open(&server, &path, &[("last-event-id", &first.id)]);
    assert_eq!(events.next().name, "resumed");
    let told: Vec<_> = (0..3).map(|_| events.next()).collect();
    let names: Vec<_> = told.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["ack", "change", "ack"]);
    assert_eq!(told[1].json()["op_id"], "2");
    block_on(server.close(PATIENCE));
}

#[test]
fn what_is_wrong_with_an_operation_is_told_of_the_operation() {
    let server = server();
    let mut web = Web::to(&server);
    web.send("PUT", DOC, &[], br#"{"kind":"text"}"#);
    let mut events = Events::open(&server, &format!("{DOC}/events"), &[]);
    let batch = json!({"author": "ann", "operations": [
        {"op_id": "1", "base_version": "W/\"0\"", "edit": append("a")},
        {"op_id": "2", "edit": {"type": "insert", "position": 99, "text": "b"}},
        {"op_id": "3", "base_version": "W/\"0\"", "edit": {"type": "fly"}},
        {"op_id": "4", "base_version": 7.5, "edit": append("c")},
    ]});
    let receipt = post(&mut web, "operations", &batch.to_string());
    let expected = json!({"accepted": 4, "op_ids": ["1", "2", "3", "4"]});
    assert_eq!((receipt.status, receipt.json()), (202, expected));
    assert_eq!(until(&mut events, "ack")["op_id"], "1");
    for op_id in ["2", "3", "4"] {
        let rejected = until(&mut events, "rejected");
        assert_eq!(rejected["op_id"], op_id);
        assert!(rejected["code"].is_string() && rejected["message"].is_string(), "{rejected}");
    }
    let missing = post(&mut web, "operations", &operation("1", "W/\"0\"", &append("other")));
    assert_eq!(missing.status, 202);
    assert_eq!(until(&mut events, "rejected")["op_id"], "1");
}

#[test]
fn operations_come_as_a_bare_list_too() {
    let server = server();
    let mut web = Web::to(&server);
    web.send("PUT", DOC, &[], br#"{"kind":"text"}"#);
    let mut events = Events::open(&server, &format!("{DOC}/events"), &[]);
    let list = json!([
        {"op_id": "1", "base_version": 0, "author": "ann", "edit": append("a")},
        {"op_id": "2", "author": "ann", "edit": append("b")},
    ]);
    let receipt = post(&mut web, "operations", &list.to_string());
    let expected = json!({"accepted": 2, "op_ids": ["1", "2"]});
    assert_eq!((receipt.status, receipt.json()), (202, expected));
    for op_id in ["1", "2"] {
        let ack = until(&mut events, "ack");
        assert_eq!((&ack["op_id"], &ack["author"]), (&json!(op_id), &json!("ann")));
    }
    assert_eq!(web.get(DOC).json()["text"], "ab");
    let several = json!([{"op_id": "3", "author": "ann"}, {"op_id": "4", "author": "bob"}]);
    let refused = post(&mut web, "operations", &several.to_string());
    assert_eq!(refused.fault(400), "invalid_payload");
    assert_eq!(refused.json()["error"]["field"], "author");
}

#[test]
fn if_match_says_what_the_first_operation_was_made_for() {
    let server = server();
    let mut web = Web::to(&server);
    web.send("PUT", DOC, &[], br#"{"kind":"text"}"#);
    let mut events = Events::open(&server, &format!("{DOC}/events"), &[]);
    let mut send = |base: &str, body: &Value| {
        let path = format!("{DOC}/operations");
        web.send("POST", &path, &[("if-match", base)], body.to_string().as_bytes())
    };
    let one = |op_id: &str| json!({"op_id": op_id, "edit": append(op_id)});
    assert_eq!(send("W/\"0\"", &json!([one("1"), one("2")])).status, 202);
    until(&mut events, "ack");
    let newest = until(&mut events, "ack")["version"].as_str().unwrap().to_owned();
    // An older one is a conflict like every other.
    assert_eq!(send("W/\"0\"", &one("3")).status, 202);
    let conflict = until(&mut events, "conflict");
    assert_eq!((&conflict["op_id"], &conflict["base_version"]), (&json!("3"), &json!("W/\"0\"")));
    let mut same = one("3");
    same["base_version"] = json!(newest);
    assert_eq!(send(&newest, &same).status, 202);
    assert_eq!(until(&mut events, "ack")["op_id"], "3");
    for (base, body) in [("W/\"0\"", &same), ("*", &one("4")), ("W/\"1\", W/\"2\"", &one("4"))] {
        let refused = send(base, body);
        assert_eq!(refused.fault(400), "invalid_argument", "{base}");
        assert_eq!(refused.json()["error"]["field"], "If-Match");
    }
}

#[test]
fn who_is_at_a_document_is_told() {
    let server = server();
    let mut web = Web::to(&server);
    web.send("PUT", DOC, &[], br#"{"kind":"text"}"#);
    let mut events = Events::open(&server, &format!("{DOC}/events"), &[]);
    let there = r##"{"client":"tab-1","author":"ann","state":{"cursor":3,"color":"#f00"}}"##;
    assert_eq!(post(&mut web, "presence", there).status, 202);
    let told = until(&mut events, "presence");
    assert_eq!((&told["client"], &told["state"]["cursor"]), (&json!("tab-1"), &json!(3)));
    assert_eq!(web.get(DOC).json()["presence"][0]["client"], "tab-1");
    assert_eq!(post(&mut web, "presence", r#"{"client":"tab-1","state":null}"#).status, 202);
    assert_eq!(until(&mut events, "presence")["state"], Value::Null);
    assert_eq!(post(&mut web, "presence", "{}").fault(400), "invalid_payload");
}
