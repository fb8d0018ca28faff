//! KPS JSON, word for word: what existing KPS clients send, and what they get.
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

mod raw;

use std::time::Duration;

use kps::{ErrorKind, Server, ServerOptions, auth::Token, net::websocket::Opcode};
use raw::{Bystanders, Came, Raw, subscribe};
use serde_json::{Value, json};

fn server() -> Server {
    Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap()
}

/// What KPS JSON clients say, and hear.
impl Raw {
    fn exchange(&mut self, said: Value, heard: Value) {
        self.say(said);
        assert_eq!(self.hear(), heard);
    }

    fn hears(&mut self, heard: Value) {
        assert_eq!(self.hear(), heard);
    }
}

#[test]
fn a_ping_registers_and_a_second_one_renames() {
    let server = server();
    let mut a = Raw::open(&server, "");
    a.say(json!({ "action": "publish", "topic": "t", "data": 1, "from": "a" }));
    a.hear_error(ErrorKind::NotRegistered);
    a.exchange(json!({ "action": "ping", "from": "a" }), json!({ "action": "pong", "id": "a" }));
    a.exchange(json!({ "action": "ping" }), json!({ "action": "pong", "id": "a" }));
    let mut b = Raw::json(&server, "b");
    a.exchange(json!({ "action": "ping", "from": "z" }), json!({ "action": "pong", "id": "z" }));
    b.say(json!({ "action": "direct_message", "to": "z", "data": { "x": 1 } }));
    a.hears(json!({ "action": "direct_message", "from": "b", "data": { "x": 1 } }));
    let mut nameless = Raw::open(&server, "");
    nameless.say(json!({ "action": "ping", "from": "" }));
    assert!(!nameless.hear()["id"].as_str().unwrap().is_empty());
    assert_eq!(server.count_clients(), 3);
}

#[test]
fn publishing_reaches_every_subscriber_the_publisher_included() {
    let server = server();
    let (mut a, mut b) = (Raw::json(&server, "a"), Raw::json(&server, "b"));
    for client in [&mut a, &mut b] {
        let said = json!({ "action": "subscribe", "topic": "t", "from": "whoever" });
        client.exchange(said, json!({ "action": "subscribed", "topic": "t" }));
    }
    assert_eq!(server.count_subscribers("t"), 2);
    let data = json!({ "n": 1.0, "nested": { "data": [null, true] }, "text": "ü\u{2028}\"" });
    // The sender is whoever sends, whatever it claims.
    a.say(json!({ "action": "publish", "topic": "t", "data": data, "from": "forged" }));
    let message = json!({ "action": "publish", "topic": "t", "data": data, "from": "a" });
    b.hears(message.clone());
    let mut own = [a.hear(), a.hear()];
    own.sort_by_key(|object| object["action"].as_str().unwrap().len());
    assert_eq!(own, [message, json!({ "action": "published", "topic": "t" })]);
    b.exchange(
        json!({ "action": "unsubscribe", "topic": "t" }),
        json!({ "action": "unsubscribed", "topic": "t" }),
    );
    assert_eq!(server.count_subscribers("t"), 1);
}

#[test]
fn payload_bytes_pass_as_they_were_written() {
    let server = server();
    let mut a = Raw::json(&server, "a");
    a.exchange(
        json!({ "action": "subscribe", "topic": "t" }),
        json!({ "action": "subscribed", "topic": "t" }),
    );
    let data = r#"{ "b":1.50, "a":12345678901234567890123, "e":"é" }"#;
    a.text(&format!(r#"{{"action":"publish","topic":"t","data":{data}}}"#));
    let came = [a.next(), a.next()];
    assert!(came.iter().any(|came| matches!(came, Came::Text(text) if text.contains(data))));
}

#[test]
fn several_objects_may_come_in_one_frame() {
    let server = server();
    let mut a = Raw::open(&server, "");
    a.text(
        r#"[{"action":"ping","from":"a"},{"action":"subscribe","topic":"t"},{"action":"?"},
        {"action":"publish","topic":"t","data":1}]"#,
    );
    a.hears(json!({ "action": "pong", "id": "a" }));
    let mut heard: Vec<_> = (0..4).map(|_| a.hear()["action"].to_string()).collect();
    heard.sort();
    assert_eq!(heard, [r#""error""#, r#""publish""#, r#""published""#, r#""subscribed""#]);
}

#[test]
fn an_ack_ends_with_one_response_when_all_have_answered() {
    let server = server();
    let mut publisher = Raw::json(&server, "p");
    let mut subscribers = [Raw::json(&server, "s1"), Raw::json(&server, "s2")];
    for subscriber in &mut subscribers {
        let said = json!({ "action": "subscribe", "topic": "t" });
        subscriber.exchange(said, json!({ "action": "subscribed", "topic": "t" }));
    }
    publisher
        .say(json!({ "action": "publish_with_ack", "topic": "t", "data": 1, "ack_id": "mine" }));
    let asked: Vec<Value> = subscribers.iter_mut().map(Raw::hear).collect();
    for object in &asked {
        assert_eq!((&object["action"], &object["data"]), (&json!("publish_ack"), &json!(1)));
        assert_eq!((&object["topic"], &object["from"]), (&json!("t"), &json!("p")));
    }
    let status =
        |status: Value| json!({ "action": "ack_status", "ack_id": "mine", "status": status });
    let ask = json!({ "action": "get_ack_status", "ack_id": "mine" });
    publisher.exchange(ask.clone(), status(json!({ "s1": false, "s2": false })));
    answer(&mut subscribers[1], &asked[1]["ack_id"], json!({ "success": false, "error": "no" }));
    // A second subscriber's turn: what it says arrives after the first's answer was counted.
    publisher.say(ask.clone());
    while publisher.hear() != status(json!({ "s1": false, "s2": true })) {
        publisher.say(ask.clone());
    }
    answer(&mut subscribers[0], &asked[0]["ack_id"], json!({ "success": true }));
    publisher.hears(json!({ "action": "ack_response", "ack_id": "mine", "responses": {
        "s1": { "ack_id": "mine", "client_id": "s1", "success": true },
        "s2": { "ack_id": "mine", "client_id": "s2", "success": false, "error": "no" },
    } }));
    // How it ended can still be asked for, and cancelling it is harmless.
    publisher.exchange(ask, status(json!({ "s1": true, "s2": true })));
    publisher.exchange(
        json!({ "action": "cancel_ack", "ack_id": "mine" }),
        json!({ "action": "ack_cancelled", "ack_id": "mine" }),
    );
}

fn answer(client: &mut Raw, ack_id: &Value, mut data: Value) {
    data["ack_id"] = ack_id.clone();
    data["client_id"] = json!("whoever it claims to be");
    client.say(json!({ "action": "ack", "ack_id": ack_id, "data": data }));
}

#[test]
fn an_ack_that_nobody_gets_is_complete_at_once() {
    let server = server();
    let mut a = Raw::json(&server, "a");
    for said in [
        json!({ "action": "publish_with_ack", "topic": "nobody", "data": 1, "ack_id": "x" }),
        json!({ "action": "publish_to_id_with_ack", "to": "nobody", "data": 1, "ack_id": "x" }),
    ] {
        a.exchange(said, json!({ "action": "ack_response", "ack_id": "x", "responses": {} }));
    }
}

#[test]
fn a_direct_message_can_be_acknowledged() {
    let server = server();
    let (mut a, mut b) = (Raw::json(&server, "a"), Raw::json(&server, "b"));
    a.say(json!({ "action": "publish_to_id_with_ack", "to": "b", "data": "hi", "ack_id": "x" }));
    let asked = b.hear();
    assert_eq!((&asked["action"], &asked["data"]), (&json!("publish_ack"), &json!("hi")));
    assert!(asked["topic"].as_str().unwrap().starts_with("__direct_b_"), "{asked}");
    answer(&mut b, &asked["ack_id"], json!({ "success": true }));
    assert_eq!(a.hear()["responses"]["b"]["success"], true);
    // To nobody: silence, as ever.
    a.say(json!({ "action": "direct_message", "to": "nobody", "data": 1 }));
    a.exchange(json!({ "action": "ping" }), json!({ "action": "pong", "id": "a" }));
}

#[test]
fn a_recipient_that_disconnects_fails_its_row_at_once() {
    let server = server();
    let (mut a, mut b) = (Raw::json(&server, "a"), Raw::json(&server, "b"));
    b.exchange(
        json!({ "action": "subscribe", "topic": "t" }),
        json!({ "action": "subscribed", "topic": "t" }),
    );
    a.say(json!({ "action": "publish_with_ack", "topic": "t", "data": 1, "ack_id": "x" }));
    assert_eq!(b.hear()["action"], "publish_ack");
    drop(b);
    let row = &a.hear()["responses"]["b"];
    assert_eq!(row["success"], false);
    assert!(row["error"].as_str().unwrap().contains("disconnected"), "{row}");
}

#[test]
fn an_ack_times_out_by_the_servers_cap_and_can_be_cancelled() {
    let mut options = ServerOptions::listen("127.0.0.1:0");
    options.timings.ack_timeout = Duration::from_millis(50);
    let server = Server::start(options).unwrap();
    let (mut a, mut b) = (Raw::json(&server, "a"), Raw::json(&server, "b"));
    b.exchange(
        json!({ "action": "subscribe", "topic": "t" }),
        json!({ "action": "subscribed", "topic": "t" }),
    );
    a.say(json!({ "action": "publish_with_ack", "topic": "t", "data": 1, "ack_id": "x" }));
    let late = b.hear()["ack_id"].clone();
    assert_eq!(a.hear()["responses"]["b"]["success"], false);
    // Too late, and no error: it could not know.
    answer(&mut b, &late, json!({ "success": true }));
    b.exchange(json!({ "action": "ping" }), json!({ "action": "pong", "id": "b" }));

    a.say(json!({ "action": "publish_with_ack", "topic": "t", "data": 1, "ack_id": "y" }));
    a.exchange(
        json!({ "action": "cancel_ack", "ack_id": "y" }),
        json!({ "action": "ack_cancelled", "ack_id": "y" }),
    );
    a.say(json!({ "action": "get_ack_status", "ack_id": "y" }));
    a.hear_error(ErrorKind::NotFound);
}

#[test]
fn wrong_objects_are_told_and_the_connection_goes_on() {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    let mut a = Raw::json(&server, "a");
    let deep = format!(
        r#"{{"action":"publish","topic":"t","data":{}1{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let long = format!(r#"{{"action":"subscribe","topic":"{}"}}"#, "x".repeat(5000));
    for (text, kind) in [
        ("", ErrorKind::Protocol),
        ("{", ErrorKind::Protocol),
        ("nonsense", ErrorKind::Protocol),
        ("3", ErrorKind::InvalidArgument),
        ("{}", ErrorKind::UnknownAction),
        (r#"{"action":"fly"}"#, ErrorKind::UnknownAction),
        (r#"{"action":7}"#, ErrorKind::InvalidArgument),
        (r#"{"action":"subscribe"}"#, ErrorKind::InvalidArgument),
        (r#"{"action":"publish","data":1}"#, ErrorKind::InvalidArgument),
        (r#"{"action":"publish","topic":"a.*","data":1}"#, ErrorKind::InvalidTopic),
        (r#"{"action":"publish","topic":"kps.sys","data":1}"#, ErrorKind::InvalidTopic),
        (r#"{"action":"subscribe","topic":"a.>.b"}"#, ErrorKind::InvalidTopic),
        (r#"{"action":"publish_with_ack","topic":"t","data":1}"#, ErrorKind::InvalidArgument),
        (r#"{"action":"ack","ack_id":"12","data":{"success":true}}"#, ErrorKind::NotFound),
        (r#"{"action":"ack","ack_id":"-1","data":{"success":true}}"#, ErrorKind::NotFound),
        (r#"{"action":"get_ack_status","ack_id":"theirs"}"#, ErrorKind::NotFound),
        (r#"{"action":"cancel_ack","ack_id":"theirs"}"#, ErrorKind::NotFound),
        (
            r#"{"action":"publish_to_server","to":"10.1.2.3:80","data":1}"#,
            ErrorKind::ForbiddenAddress,
        ),
        (&deep, ErrorKind::LimitExceeded),
        (&long, ErrorKind::InvalidTopic),
    ] {
        a.text(text);
        eprintln!("{text:.80}");
        a.hear_error(kind);
        bystanders.go_on();
    }
    let large = format!(r#"{{"action":"publish","topic":"t","data":"{}"}}"#, "x".repeat(1 << 20));
    a.text(&large);
    assert_eq!(a.hear_error(ErrorKind::PayloadTooLarge)["topic"], "t");
    a.exchange(json!({ "action": "ping" }), json!({ "action": "pong", "id": "a" }));
}

#[test]
fn broken_text_ends_the_connection() {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    let mut a = Raw::json(&server, "a");
    a.put(Opcode::Text, b"\"\xff\"");
    assert_eq!(a.is_closed(), 1007);
    let mut b = Raw::json(&server, "b");
    b.put(Opcode::Binary, b"{}");
    assert_eq!(b.is_closed(), 1003);
    bystanders.go_on();
}

#[test]
fn a_newer_anonymous_client_takes_the_id_and_the_older_is_told() {
    let server = server();
    let mut older = Raw::json(&server, "a");
    let mut newer = Raw::json(&server, "a");
    older.hear_error(ErrorKind::Replaced);
    older.is_closed();
    newer.exchange(json!({ "action": "ping" }), json!({ "action": "pong", "id": "a" }));
}

#[test]
fn a_token_comes_with_the_upgrade() {
    let server = Server::start(ServerOptions {
        tokens: vec![Token::new("se cret")],
        ..ServerOptions::listen("127.0.0.1:0")
    })
    .unwrap();
    let mut stranger = Raw::open(&server, "");
    stranger.hear_error(ErrorKind::Unauthorized);
    assert_eq!(stranger.is_closed(), 1008);
    let mut bearer = Raw::open(&server, "Authorization: Bearer se cret\r\n");
    bearer
        .exchange(json!({ "action": "ping", "from": "a" }), json!({ "action": "pong", "id": "a" }));
    let mut query = Raw::open_at(&server, "/ws/bus?x=1&token=se%20cret", "");
    query
        .exchange(json!({ "action": "ping", "from": "b" }), json!({ "action": "pong", "id": "b" }));
}

#[test]
fn both_dialects_meet_on_the_same_topics() {
    let server = server();
    let (mut json, mut native) = (Raw::json(&server, "j"), Raw::native(&server, "n"));
    native.subscribe(subscribe(1, "t.*"));
    json.exchange(
        json!({ "action": "subscribe", "topic": "t.>" }),
        json!({ "action": "subscribed", "topic": "t.>" }),
    );
    native.publish("t.x", b"{\"from\":\"native\"}");
    json.hears(
        json!({ "action": "publish", "topic": "t.x", "from": "n", "data": { "from": "native" } }),
    );
    assert_eq!(native.message(1), b"{\"from\":\"native\"}");
    // Calls itself JSON and is none: it must not break out of its field.
    native.publish("t.x", b"1,\"from\":\"admin\"");
    json.hears(
        json!({ "action": "publish", "topic": "t.x", "from": "n", "data": "1,\"from\":\"admin\"" }),
    );
}

#[test]
fn publish_to_server_arrives_at_the_other_server() {
    let (here, there) = (server(), server());
    let mut listener = Raw::json(&there, "listener");
    listener.exchange(
        json!({ "action": "subscribe", "topic": "t" }),
        json!({ "action": "subscribed", "topic": "t" }),
    );
    let mut a = Raw::json(&here, "a");
    let to = there.address();
    a.exchange(
        json!({ "action": "publish_to_server", "to": to, "data": { "topic": "t", "data": 5 } }),
        json!({ "action": "server_message_sent", "to": to }),
    );
    assert_eq!(listener.hear()["data"], 5);
    // A server that is not there is told.
    drop(there);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    a.say(json!({ "action": "publish_to_server", "to": port.to_string(), "data": 1 }));
    a.hear_error(ErrorKind::ConnectFailed);
}

#[test]
fn a_client_that_publishes_without_reading_is_slowed_and_loses_nothing() {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    let mut reader = Raw::native(&server, "reader");
    reader.subscribe(subscribe(1, "flood"));
    let mut deaf = Raw::json(&server, "deaf");
    const COUNT: u64 = 100_000;
    let mut out = deaf.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        use std::io::Write;
        let mut bytes = bytes::BytesMut::new();
        for n in 0..COUNT {
            let text = format!(r#"{{"action":"publish","topic":"flood","data":{n}}}"#);
            kps::net::websocket::put_frame(&mut bytes, Opcode::Text, text.as_bytes(), Some([0; 4]));
        }
        out.write_all(&bytes).unwrap();
    });
    for n in 0..COUNT {
        assert_eq!(reader.message(1), n.to_string().as_bytes());
        reader.send(&[kps::proto::wire::frame::Frame::Credit { sub: 1, consumed: n + 1 }]);
        if n == 50_000 {
            bystanders.go_on();
        }
    }
    writing.join().unwrap();
    for _ in 0..COUNT {
        assert_eq!(deaf.hear()["action"], "published");
    }
}
