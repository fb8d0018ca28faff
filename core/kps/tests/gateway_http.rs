//! The bus over HTTP, as somebody sees it who has a socket and nothing else.
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

mod common;
mod web;

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use common::{PATIENCE, block_on};
use kps::{
    Client, Server, ServerOptions,
    auth::{Token, decide_at_once},
    message::{ContentType, Payload},
    options::Timings,
    proto::history::HistoryRule,
};
use serde_json::{Value, json};
use web::{Events, Web};

fn start(options: ServerOptions) -> Server {
    Server::start(ServerOptions { listen: "127.0.0.1:0".into(), ..options }).unwrap()
}

fn plain() -> Server {
    start(ServerOptions::default())
}

fn with_history(rule: &str) -> Server {
    start(ServerOptions {
        history: vec![HistoryRule::parse(rule).unwrap()],
        ..ServerOptions::default()
    })
}

#[test]
fn what_is_published_over_http_reaches_a_subscriber_as_what_it_is() {
    let server = plain();
    let client = server.client().unwrap();
    let mut subscription = block_on(client.subscribe("a.>")).unwrap();
    let mut web = Web::to(&server);
    for (kind, body, expected) in [
        ("application/json", "{\"x\": 1}", ContentType::Json),
        ("application/json; charset=utf-8", "1", ContentType::Json),
        ("application/vnd.api+json", "[]", ContentType::Json),
        ("application/x-www-form-urlencoded", "\"curl\"", ContentType::Json),
        ("text/plain", "hello", ContentType::Text),
        ("application/octet-stream", "\u{1}\u{2}", ContentType::Bytes),
    ] {
        let path = "/v1/publish/a.b?id=mine&header=trace:17&ttl=60";
        let answer = web.send("POST", path, &[("content-type", kind)], body.as_bytes());
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.json(), json!({"id": "mine", "level": "accepted"}));
        let message = block_on(subscription.message()).unwrap();
        assert_eq!(
            (message.payload.content_type, &*message.payload.bytes),
            (expected, body.as_bytes())
        );
        assert_eq!(message.id(), "mine");
        assert_eq!(message.headers(), [("trace".to_owned(), "17".to_owned())]);
        assert!(message.sender.id.starts_with("http-"), "{}", message.sender.id);
    }
}

#[test]
fn a_connection_carries_many_requests() {
    let server = plain();
    let mut web = Web::to(&server);
    for _ in 0..100 {
        assert_eq!(web.post("/v1/publish/a", "1").status, 202);
    }
    assert_eq!(web.get("/readyz").status, 200);
    // Two at once are answered one after the other.
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    web.stream.write_all(request.repeat(2).as_bytes()).unwrap();
    assert_eq!((web.answer().status, web.answer().status), (200, 200));
}

#[test]
fn the_answer_of_a_responder_is_the_answer() {
    let server = plain();
    let client = server.client().unwrap();
    let doubles = block_on(client.subscribe("math.double")).unwrap();
    let texts = block_on(client.subscribe("text.shout")).unwrap();
    std::thread::spawn(move || {
        block_on(doubles.serve(8, async |message| {
            let number: i64 = message.json()?;
            if number < 0 {
                Err(kps::Error::new(kps::ErrorKind::InvalidArgument, "negative"))
            } else {
                Ok(kps::Json(number * 2))
            }
        }));
    });
    std::thread::spawn(move || {
        block_on(texts.serve(8, async |message| {
            let text = String::from_utf8_lossy(&message.payload.bytes).to_uppercase();
            Ok::<_, kps::Error>(Payload::text(text))
        }));
    });
    let mut web = Web::to(&server);
    let answer = web.post("/v1/request/math.double?timeout=5", "21");
    assert_eq!((answer.status, answer.json()), (200, json!(42)));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer =
        web.send("POST", "/v1/request/text.shout", &[("content-type", "text/plain")], b"hi");
    assert_eq!((answer.status, &*answer.body), (200, &b"HI"[..]));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(web.post("/v1/request/math.double", "-1").fault(502), "handler_failed");
    assert_eq!(web.post("/v1/request/nobody", "1").fault(503), "no_responders");
}

#[test]
fn a_request_that_nobody_answers_in_time_says_so() {
    let server = plain();
    let client = server.client().unwrap();
    let _silent = block_on(client.subscribe("silent")).unwrap();
    let mut web = Web::to(&server);
    assert_eq!(web.post("/v1/request/silent?timeout=0.05", "1").fault(504), "timeout");
}

#[test]
fn calls_reach_the_server_and_what_clients_offer() {
    let server = plain();
    let mut web = Web::to(&server);
    let answer = web.post("/v1/dispatch/storage.save", r#"{"key":"k","value":{"$bytes":"AQI="}}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = web.post("/v1/dispatch/storage.get", r#"{"key":"k"}"#);
    assert_eq!(answer.json()["value"], json!({"$bytes": "AQI="}), "{answer:?}");
    assert_eq!(web.post("/v1/dispatch/kps.ping", "").status, 200);

    for (path, body, status, code) in [
        ("/v1/dispatch/nobody.does", "null", 404, "unknown_capability"),
        ("/v1/dispatch/storage.fly", "{}", 404, "unknown_operation"),
        ("/v1/dispatch/storage.save", "{}", 400, "invalid_payload"),
        ("/v1/dispatch/nodot", "{}", 404, "unknown_capability"),
        ("/v1/dispatch/kps.ping?target=local", "{}", 400, "invalid_argument"),
        ("/v1/dispatch/kps.ping?target=client:nobody", "{}", 503, "unavailable"),
    ] {
        assert_eq!(web.post(path, body).fault(status), code, "{path}");
    }
    let error = web.post("/v1/dispatch/storage.save", "{}").json();
    assert!(error["error"]["field"].is_string(), "{error}");
}

#[test]
fn what_is_wrong_is_told_with_a_code() {
    let server = plain();
    let mut web = Web::to(&server);
    for (method, path, kind, body, status, code) in [
        ("POST", "/v1/publish/a", "application/json", "{oops", 400, "invalid_payload"),
        ("POST", "/v1/publish/a", "image/png", "x", 415, "unsupported"),
        ("POST", "/v1/publish/a.*", "application/json", "1", 400, "invalid_topic"),
        ("POST", "/v1/publish/kps.x", "application/json", "1", 400, "invalid_topic"),
        ("POST", "/v1/publish/a?ttl=-1", "application/json", "1", 400, "invalid_argument"),
        ("POST", "/v1/publish/a?tll=1", "application/json", "1", 400, "invalid_argument"),
        ("POST", "/v1/publish/a?receipt=yes", "application/json", "1", 400, "invalid_argument"),
        (
            "POST",
            "/v1/publish/a?receipt=stored",
            "application/json",
            "1",
            409,
            "receipt_unavailable",
        ),
        ("POST", "/v1/publish/%ff", "application/json", "1", 400, "invalid_argument"),
        ("POST", "/v1/dispatch/storage.list", "text/plain", "x", 415, "unsupported"),
        ("GET", "/v1/publish/a", "application/json", "", 405, "unknown_action"),
        ("DELETE", "/v1/events?topic=a", "application/json", "", 405, "unknown_action"),
        ("GET", "/v1/nothing", "application/json", "", 404, "not_found"),
        ("GET", "/v1/events", "application/json", "", 400, "invalid_argument"),
        ("GET", "/v1/events?topic=a.%3E.b", "application/json", "", 400, "invalid_topic"),
        ("GET", "/v1/events?topic=a&start=soon", "application/json", "", 400, "invalid_argument"),
        ("GET", "/v1/events?topic=a&start=all", "application/json", "", 501, "unsupported"),
        (
            "GET",
            "/v1/events?topic=a&overflow=block",
            "application/json",
            "",
            400,
            "invalid_argument",
        ),
        (
            "GET",
            "/v1/events?topic=a&last_event_id=x",
            "application/json",
            "",
            400,
            "invalid_argument",
        ),
    ] {
        let answer = web.send(method, path, &[("content-type", kind)], body.as_bytes());
        assert_eq!(answer.fault(status), code, "{method} {path}");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_however_it_comes() {
    let mut options = ServerOptions::default();
    options.limits.payload = 1000;
    let server = start(options);
    let body = vec![b'1'; 2000];
    let answer = Web::to(&server).send("POST", "/v1/publish/a", &[], &body);
    assert_eq!(answer.fault(413), "payload_too_large");
    let mut web = Web::to(&server);
    let head =
        "POST /v1/publish/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("7d0\r\n{}\r\n0\r\n\r\n", "1".repeat(2000));
    web.stream.write_all((head.to_owned() + &chunk).as_bytes()).unwrap();
    assert_eq!(web.answer().fault(413), "payload_too_large");
}

#[test]
fn who_dawdles_over_a_body_is_told_so() {
    let server = start(ServerOptions {
        handshake_timeout: Duration::from_millis(100),
        ..ServerOptions::default()
    });
    let mut web = Web::to(&server);
    let head = "POST /v1/publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n1";
    web.stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(web.answer().fault(400), "invalid_payload");
}

#[test]
fn permissions_are_those_of_the_bus() {
    let token =
        Token::new("s3cret").name("ann").publish(["a.>"]).unwrap().subscribe(["b.>"]).unwrap();
    let server = start(ServerOptions { tokens: vec![token], ..ServerOptions::default() });
    let mut web = Web::to(&server);
    let answer = web.post("/v1/publish/a.b", "1");
    assert_eq!(answer.fault(401), "unauthorized");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    assert_eq!(web.post("/v1/publish/a.b?token=wrong", "1").fault(401), "unauthorized");
    assert_eq!(web.post("/v1/publish/a.b?token=s3cret", "1").status, 202);
    let bearer = [("authorization", "Bearer s3cret")];
    assert_eq!(web.send("POST", "/v1/publish/a.b", &bearer, b"1").status, 202);
    assert_eq!(web.send("POST", "/v1/publish/b.a", &bearer, b"1").fault(403), "unauthorized");
    assert_eq!(web.send("GET", "/v1/events?topic=a.b", &bearer, b"").fault(403), "unauthorized");
    let storage = web.send("POST", "/v1/dispatch/storage.keys", &bearer, b"{}");
    assert_eq!(storage.fault(403), "unauthorized");
    // What says nothing of anybody's is for everybody.
    assert_eq!((web.get("/readyz").status, web.get("/openapi.json").status), (200, 200));
}

#[test]
fn namespaces_do_not_hear_each_other() {
    let token = |secret, name| Token::new(secret).name(name).namespace(name);
    let tokens = vec![token("1", "one"), token("2", "two")];
    let server = start(ServerOptions { tokens, ..ServerOptions::default() });
    let mut events = Events::open(&server, "/v1/events?topic=a&token=1", &[]);
    let mut web = Web::to(&server);
    assert_eq!(web.post("/v1/publish/a?token=2", "\"other\"").status, 202);
    assert_eq!(web.post("/v1/publish/a?token=1", "\"mine\"").status, 202);
    assert_eq!(events.next().json()["data"], "mine");
}

#[test]
fn the_hook_sees_every_request_and_may_refuse_it() {
    let hook = decide_at_once(|request| {
        assert!(request.remote.is_some() && !request.path.contains("token="));
        let agent = request.headers.iter().find(|(name, _)| name == "user-agent");
        match agent.is_some_and(|(_, agent)| agent == "friend") {
            true => Ok(request.principal.clone()),
            false => Err(kps::Error::new(kps::ErrorKind::Unauthorized, "you are no friend")),
        }
    });
    let server = start(ServerOptions { on_connect: Some(hook), ..ServerOptions::default() });
    let mut web = Web::to(&server);
    let friend = [("user-agent", "friend")];
    assert_eq!(web.send("POST", "/v1/publish/a?token=x", &friend, b"1").status, 202);
    assert_eq!(web.post("/v1/publish/a", "1").fault(401), "unauthorized");
}

#[test]
fn pages_of_origins_that_were_allowed_may_see_answers_and_no_others() {
    let listed = "https://app.example.org";
    let server =
        start(ServerOptions { allowed_origins: vec![listed.into()], ..ServerOptions::default() });
    let mut web = Web::to(&server);
    let asks = ("access-control-request-method", "POST");
    let answer = web.send("OPTIONS", "/v1/publish/a", &[("origin", listed), asks], b"");
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some(listed));
    let headers = answer.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("last-event-id") && headers.contains("if-match"), "{headers}");
    let answer = web.send("POST", "/v1/publish/a", &[("origin", listed)], b"1");
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("access-control-allow-origin"), Some(listed));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("etag"));
    assert_eq!(answer.header("vary"), Some("origin"));
    // One that is told why not sees that too.
    let answer = web.send("POST", "/v1/publish/a.*", &[("origin", listed)], b"1");
    assert_eq!(answer.header("access-control-allow-origin"), Some(listed));

    let answer = Web::to(&server).send(
        "OPTIONS",
        "/v1/publish/a",
        &[("origin", "http://evil.example"), asks],
        b"",
    );
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    // Its own pages need none.
    let own = [("origin", "http://localhost")];
    let answer = web.send("POST", "/v1/publish/a", &own, b"1");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (202, None));
}

#[test]
fn a_stream_tells_messages_of_every_topic_it_is_of() {
    let server = plain();
    let mut events = Events::open(&server, "/v1/events?topic=a.*&topic=b", &[]);
    assert_eq!(events.head.header("content-type"), Some("text/event-stream"));
    let client = server.client().unwrap();
    client.publish("a.x", kps::Json(json!({"n": 1}))).unwrap();
    let event = events.next();
    assert_eq!(event.name, "message");
    let message = event.json();
    assert_eq!((&message["topic"], &message["data"]), (&json!("a.x"), &json!({"n": 1})));
    assert_eq!((&message["content_type"], &message["seq"]), (&json!("json"), &json!(1)));
    assert_eq!(message["sender"], json!(client.id()));
    client.publish("b", "line\nline").unwrap();
    let message = events.next().json();
    assert_eq!(
        (&message["data"], &message["content_type"]),
        (&json!("line\nline"), &json!("text"))
    );
    assert!(events.retry.is_some());
}

#[test]
fn a_quiet_stream_shows_that_it_lives() {
    let timings = Timings { heartbeat: Duration::from_millis(50), ..Timings::default() };
    let server = start(ServerOptions { timings, ..ServerOptions::default() });
    let mut events = Events::open(&server, "/v1/events?topic=a", &[]);
    events.until_comment();
    events.until_comment();
}

/// Publishes these numbers to `topic`, and returns when they are accepted.
fn publish(client: &Client, topic: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        client.publish(topic, kps::Json(number)).unwrap();
    }
    block_on(client.flush()).unwrap();
}

#[test]
fn a_stream_goes_on_behind_the_last_event_without_history() {
    let server = plain();
    let client = server.client().unwrap();
    let mut events = Events::open(&server, "/v1/events?topic=a", &[]);
    publish(&client, "a", 0..10);
    let ids: Vec<String> = (0..10).map(|_| events.next().id).collect();
    drop(events);
    publish(&client, "a", 10..20);
    // The last three were on their way when it broke.
    let mut events = Events::open(&server, "/v1/events?topic=a", &[("last-event-id", &ids[6])]);
    let resumed = events.next();
    assert_eq!((&*resumed.name, &resumed.id), ("resumed", &ids[6]));
    let numbers: Vec<Value> = (7..20).map(|_| events.next().json()["data"].clone()).collect();
    assert_eq!(numbers, (7..20).map(Value::from).collect::<Vec<_>>());
    publish(&client, "a", 20..21);
    assert_eq!(events.next().json()["data"], 20);
}

#[test]
fn what_came_meanwhile_is_counted() {
    let server = plain();
    let client = server.client().unwrap();
    let mut events = Events::open(&server, "/v1/events?topic=a&topic=b", &[]);
    publish(&client, "a", 0..1);
    let last = events.next().id;
    drop(events);
    publish(&client, "b", 0..500);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = [("last-event-id", &*last)];
        let mut events = Events::open(&server, "/v1/events?topic=a&topic=b", &last);
        let counts: Vec<Value> = (0..2).map(|_| events.next().json()).collect();
        assert_eq!(counts[0], json!({"topic": "a", "replayed": 0}));
        // They are collected as they come.
        if counts[1] == json!({"topic": "b", "replayed": 500}) {
            break;
        }
        assert!(Instant::now() < deadline, "{counts:?}");
    }
}

#[test]
fn a_reader_may_come_back_before_its_old_connection_is_known_to_be_lost() {
    let server = plain();
    let client = server.client().unwrap();
    let mut old = Events::open(&server, "/v1/events?topic=a", &[]);
    publish(&client, "a", 0..1);
    let last = old.next().id;
    let mut new = Events::open(&server, "/v1/events?topic=a", &[("last-event-id", &last)]);
    assert_eq!(new.next().name, "resumed");
    publish(&client, "a", 1..2);
    assert_eq!(new.next().json()["data"], 1);
}

#[test]
fn a_stream_that_is_forgotten_has_a_gap_without_history() {
    let timings = Timings { resume_window: Duration::from_millis(50), ..Timings::default() };
    let server = start(ServerOptions { timings, ..ServerOptions::default() });
    let client = server.client().unwrap();
    let mut events = Events::open(&server, "/v1/events?topic=a", &[]);
    publish(&client, "a", 0..1);
    let last = events.next().id;
    drop(events);
    let deadline = Instant::now() + PATIENCE;
    let mut events = loop {
        let mut events = Events::open(&server, "/v1/events?topic=a", &[("last-event-id", &last)]);
        let first = events.next();
        if first.name == "gap" {
            assert_eq!(first.json()["reason"], "session_expired");
            assert_eq!(first.json()["count"], Value::Null);
            break events;
        }
        // It was still known.
        assert_eq!(first.name, "resumed");
        assert!(Instant::now() < deadline);
        drop(events);
        std::thread::sleep(Duration::from_millis(100));
    };
    publish(&client, "a", 1..2);
    assert_eq!(events.next().json()["data"], 1);
}

#[test]
fn history_goes_on_where_another_server_run_stopped() {
    let folder = std::env::temp_dir().join(format!("kps-gateway-{}", std::process::id()));
    let options = || ServerOptions {
        history: vec![HistoryRule::parse("h.>").unwrap()],
        data: Some(folder.clone()),
        ..ServerOptions::default()
    };
    let server = start(options());
    let mut events = Events::open(&server, "/v1/events?topic=h.a&topic=other", &[]);
    // Nothing was told yet: where it began is known all the same.
    let begun = events.id();
    publish(&server.client().unwrap(), "h.a", 0..3);
    let told: Vec<_> = (0..3).map(|_| events.next()).collect();
    drop(events);
    publish(&server.client().unwrap(), "h.a", 3..5);
    block_on(server.close(PATIENCE));
    drop(server);

    let server = start(options());
    publish(&server.client().unwrap(), "h.a", 5..6);
    for (from, id) in [(2, &told[1].id), (0, &begun)] {
        let path = "/v1/events?topic=h.a&topic=other";
        let mut events = Events::open(&server, path, &[("last-event-id", id)]);
        let mut seen = Vec::new();
        let mut news = Vec::new();
        while seen.len() < 6 - from || news.len() < 2 {
            let event = events.next();
            match &*event.name {
                "message" => seen.push(event.json()["data"].as_u64().unwrap() as usize),
                _ => news.push((event.name.clone(), event.json()["topic"].clone(), event.json())),
            }
        }
        assert_eq!(seen, (from..6).collect::<Vec<_>>());
        news.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!((&*news[0].0, &news[0].1), ("gap", &json!("other")), "{news:?}");
        let resumed = json!({"topic": "h.a", "replayed": 6 - from});
        assert_eq!((&*news[1].0, &news[1].2), ("resumed", &resumed));
    }
    drop(server);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_stream_may_begin_with_all_history() {
    let server = with_history("h.>");
    publish(&server.client().unwrap(), "h.a", 0..5);
    let mut events = Events::open(&server, "/v1/events?topic=h.a&start=all", &[]);
    for number in 0..5 {
        assert_eq!(events.next().json()["data"], number);
    }
}

#[test]
fn ids_of_one_stream_are_no_use_to_others() {
    let tokens = ["one", "two"].map(|name| Token::new(name).name(name)).to_vec();
    let server = start(ServerOptions { tokens, ..ServerOptions::default() });
    let mut events = Events::open(&server, "/v1/events?topic=a&token=one", &[]);
    assert_eq!(Web::to(&server).post("/v1/publish/a?token=one", "1").status, 202);
    let id = events.next().id;
    for (path, name) in [
        ("/v1/events?topic=a&token=two", "gap"),
        ("/v1/events?topic=b&token=one", "gap"),
        ("/v1/events?topic=a&token=one", "resumed"),
    ] {
        let mut events = Events::open(&server, path, &[("last-event-id", &id)]);
        assert_eq!(events.next().name, name, "{path}");
    }
}

#[test]
fn a_reader_of_events_is_no_responder() {
    let server = plain();
    let _events = Events::open(&server, "/v1/events?topic=ask", &[]);
    let client = server.client().unwrap();
    let asked = block_on(client.request("ask", kps::Json(1), PATIENCE));
    assert_eq!(asked.unwrap_err().kind(), kps::ErrorKind::NoResponders);
}

#[test]
fn a_reader_that_never_reads_holds_up_nobody_and_is_closed() {
    let stall_timeout = Duration::from_millis(300);
    let timings =
        Timings { stall_timeout, resume_window: Duration::from_millis(1), ..Timings::default() };
    let server = start(ServerOptions { timings, ..ServerOptions::default() });
    let stuck = Events::open(&server, "/v1/events?topic=a&capacity=10", &[]);
    let mut quick = Events::open(&server, "/v1/events?topic=a&capacity=1000", &[]);
    let client = server.client().unwrap();
    let payload = "x".repeat(100_000);
    let (mut before, deadline) = (0, Instant::now() + PATIENCE);
    // As much as its socket's buffers take, and more.
    for number in 0.. {
        client.publish("a", kps::Json((number, &payload))).unwrap();
        block_on(client.flush()).unwrap();
        assert_eq!(quick.next().json()["data"][0], number, "the other one gets all");
        before = before.max(server.memory());
        if server.count_subscribers("a") == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "it is still there after {number}");
    }
    assert!(before < 16 << 20, "{before} bytes waited");
    // It is told by its connection.
    let mut stream = stuck.into_stream();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(!bytes.is_empty());
}

#[test]
fn what_a_slow_reader_misses_is_told() {
    let server = plain();
    let client = server.client().unwrap();
    let mut events = Events::open(&server, "/v1/events?topic=a&capacity=4", &[]);
    let id = events.id();
    drop(events);
    // Nobody reads: more than its collection, and more than its queue.
    let payload = "x".repeat(1 << 20);
    for number in 0..20 {
        client.publish("a", kps::Json((number, &payload[..1_000_000]))).unwrap();
    }
    block_on(client.flush()).unwrap();
    let mut events =
        Events::open(&server, "/v1/events?topic=a&capacity=4", &[("last-event-id", &id)]);
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < 20 {
        let event = events.next();
        match &*event.name {
            "message" => {
                assert_eq!(event.json()["data"][0], seen + missed);
                seen += 1;
            }
            "gap" => {
                assert_eq!(event.json()["reason"], "overflow");
                missed += event.json()["count"].as_u64().unwrap();
            }
            name => assert_eq!(name, "resumed"),
        }
    }
    assert!(missed > 0 && seen >= 4, "{seen} seen, {missed} missed");
}

#[test]
fn a_server_that_closes_ends_streams_and_says_that_it_is_not_ready() {
    let server = plain();
    let mut events = Events::open(&server, "/v1/events?topic=a", &[]);
    let mut web = Web::to(&server);
    assert_eq!(web.get("/readyz").status, 200);
    server.announce_stop();
    assert_eq!(web.get("/readyz").fault(503), "closed");
    assert_eq!(web.get("/healthz").status, 200);
    let started = Instant::now();
    block_on(server.close(PATIENCE));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(events.next().name, "closed");
    assert!(events.is_over());
}

#[test]
fn a_lost_connection_takes_its_stream_with_it_after_a_while() {
    let timings = Timings { resume_window: Duration::from_millis(50), ..Timings::default() };
    let server = start(ServerOptions { timings, ..ServerOptions::default() });
    let events = Events::open(&server, "/v1/events?topic=a", &[]);
    assert_eq!(server.count_subscribers("a"), 1);
    drop(events);
    let deadline = Instant::now() + PATIENCE;
    while server.count_subscribers("a") > 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn malformed_requests_end_their_connection_alone() {
    let server = plain();
    let mut bystander = Web::to(&server);
    let length = "POST /v1/publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n";
    let pattern = "GET /v1/events?topic=a.> HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    for (garbage, status, code) in [
        ("GET\r\n\r\n", 400, "protocol"),
        ("\0\0\0\r\n\r\n", 400, "protocol"),
        (length, 400, "protocol"),
        (pattern, 400, "protocol"),
        (&long, 431, "too_large"),
    ] {
        // As the first request, and after others.
        for before in [&[][..], &["/healthz"], &["/v1/nothing", "/openapi.json", "/healthz"]] {
            let mut web = Web::to(&server);
            for path in before {
                web.get(path);
            }
            let _ = web.stream.write_all(garbage.as_bytes());
            assert_eq!(web.answer().fault(status), code, "{garbage:?} after {before:?}");
            assert_eq!(web.stream.read(&mut [0]).unwrap_or(0), 0, "it is closed");
        }
        assert_eq!(bystander.get("/healthz").status, 200);
    }
}
