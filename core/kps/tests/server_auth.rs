//! Who may connect, and under which id.
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

mod raw;

use std::sync::{Arc, Mutex};

use kps::{
    Error, ErrorKind, Server, ServerOptions,
    auth::{ConnectRequest, Decision, Token, decide_at_once, decide_later},
    proto::wire::frame::{Frame, Hello, Reference, Welcome},
};
use raw::{Raw, subscribe};

fn welcomed(raw: &mut Raw) -> String {
    raw.until(|frame| match frame {
        Frame::Welcome(Welcome { client_id, .. }) => Some((*client_id).to_owned()),
        _ => None,
    })
}

fn with_tokens(tokens: Vec<Token>) -> Server {
    Server::start(ServerOptions { tokens, ..ServerOptions::listen("127.0.0.1:0") }).unwrap()
}

#[test]
fn only_a_right_token_is_welcomed() {
    let server = with_tokens(vec![Token::new("right")]);
    for wrong in ["", "wrong", "righ", "rightt"] {
        let mut raw = Raw::native_stranger(&server);
        raw.hello("a", wrong);
        raw.is_closed_with(ErrorKind::Unauthorized);
    }
    let mut raw = Raw::native_stranger(&server);
    raw.hello("a", "right");
    assert_eq!(welcomed(&mut raw), "a");
    let mut raw =
        Raw::open(&server, "Sec-WebSocket-Protocol: kps.v1\r\nAuthorization: Bearer right\r\n");
    raw.hello("b", "");
    assert_eq!(welcomed(&mut raw), "b");
}

#[test]
fn a_token_reaches_its_topics_and_no_others() {
    let server =
        with_tokens(vec![Token::new("t").publish(["out.>"]).unwrap().subscribe(["in.*"]).unwrap()]);
    let mut raw = Raw::native_stranger(&server);
    raw.hello("a", "t");
    welcomed(&mut raw);
    let refused = raw.publish("in.x", b"1");
    assert_eq!(raw.error(), (ErrorKind::Unauthorized, Reference::Publish(refused), false));
    raw.send(&[Frame::Subscribe(subscribe(1, "in.>"))]);
    assert_eq!(raw.error(), (ErrorKind::Unauthorized, Reference::Subscription(1), false));
    raw.subscribe(subscribe(2, "in.x"));
    let number = raw.publish("out.a.b", b"1");
    raw.until(|f| {
        matches!(f, Frame::Accepted { published, .. } if *published == number).then_some(())
    });
}

#[test]
fn an_id_belongs_to_the_principal_that_has_it() {
    let server = with_tokens(vec![Token::new("1").name("one"), Token::new("2").name("two")]);
    let mut first = Raw::native_stranger(&server);
    first.hello("same", "1");
    welcomed(&mut first);
    let mut thief = Raw::native_stranger(&server);
    thief.hello("same", "2");
    thief.is_closed_with(ErrorKind::IdInUse);
    first.publish("t", b"1");
    first.until(|frame| matches!(frame, Frame::Accepted { .. }).then_some(()));
    let mut again = Raw::native_stranger(&server);
    again.hello("same", "1");
    assert_eq!(welcomed(&mut again), "same");
    first.is_closed_with(ErrorKind::Replaced);
}

#[test]
fn namespaces_do_not_see_each_other() {
    let server = with_tokens(vec![
        Token::new("a").name("a").namespace("alpha"),
        Token::new("b").name("b").namespace("beta"),
    ]);
    let [mut alpha, mut beta] = ["a", "b"].map(|token| {
        let mut raw = Raw::native_stranger(&server);
        raw.hello("same-id", token);
        welcomed(&mut raw);
        raw.subscribe(subscribe(1, "t"));
        raw
    });
    alpha.publish("t", b"\"alpha\"");
    beta.publish("t", b"\"beta\"");
    assert_eq!(alpha.message(1), b"\"alpha\"");
    assert_eq!(beta.message(1), b"\"beta\"");
    let mut nosy = Raw::native_stranger(&server);
    let hello = Hello { versions: (1, 1), token: "a", namespace: "beta", ..Hello::default() };
    nosy.send(&[Frame::Hello(hello)]);
    nosy.is_closed_with(ErrorKind::Unauthorized);
}

#[test]
fn the_hook_sees_who_asks_and_may_refuse() {
    let seen: Arc<Mutex<Vec<ConnectRequest>>> = Arc::default();
    let log = seen.clone();
    let server = Server::start(ServerOptions {
        on_connect: Some(decide_at_once(move |request| {
            log.lock().unwrap().push(request.clone());
            match request.client_id.as_str() {
                "friend" => Ok(request.principal.clone()),
                _ => Err(Error::new(ErrorKind::Unauthorized, "not today")),
            }
        })),
        ..ServerOptions::listen("127.0.0.1:0")
    })
    .unwrap();
    let headers = "Sec-WebSocket-Protocol: kps.v1\r\nX-Team: blue\r\nCookie: secret\r\n";
    let mut friend = Raw::open(&server, headers);
    friend.hello("friend", "");
    assert_eq!(welcomed(&mut friend), "friend");
    let mut stranger = Raw::open(&server, "");
    stranger.say(serde_json::json!({ "action": "ping", "from": "stranger" }));
    assert!(
        stranger.hear_error(ErrorKind::Unauthorized)["error"]
            .as_str()
            .unwrap()
            .contains("not today")
    );
    stranger.is_closed();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].headers.contains(&("x-team".into(), "blue".into())));
    assert!(!format!("{:?}", seen[0]).contains("secret"));
    assert!(seen[0].remote.is_some());
}

#[test]
fn the_hook_may_decide_later_and_keeps_nobody_else_waiting() {
    type Question = (ConnectRequest, tokio::sync::oneshot::Sender<Decision>);
    let (ask, questions) = std::sync::mpsc::channel::<Question>();
    let server = Server::start(ServerOptions {
        on_connect: Some(decide_later(move |request, answer| ask.send((request, answer)).unwrap())),
        ..ServerOptions::listen("127.0.0.1:0")
    })
    .unwrap();
    let [mut first, mut second, mut third] = ["first", "second", "third"].map(|id| {
        let mut raw = Raw::native_stranger(&server);
        raw.hello(id, "");
        raw
    });
    let mut asked: Vec<Question> = (0..3).map(|_| questions.recv().unwrap()).collect();
    asked.sort_by_key(|(request, _)| request.client_id.clone());
    let mut answers = asked.into_iter();
    let (_, to_first) = answers.next().unwrap();
    let (request, to_second) = answers.next().unwrap();
    to_second.send(Ok(request.principal)).unwrap();
    assert_eq!(welcomed(&mut second), "second");
    to_first.send(Err(Error::new(ErrorKind::Unauthorized, "no"))).unwrap();
    first.is_closed_with(ErrorKind::Unauthorized);
    // Forgetting to answer refuses.
    drop(answers.next());
    third.is_closed_with(ErrorKind::Unauthorized);
}

#[test]
fn closing_tells_clients_to_come_back_later() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let mut native = Raw::native(&server, "n");
    let mut json = Raw::json(&server, "j");
    let address = server.address();
    drop(server);
    native.until(|frame| matches!(frame, Frame::Goaway { .. }).then_some(()));
    assert_eq!(native.is_closed(), 1001);
    assert_eq!(json.is_closed(), 1001);
    assert!(std::net::TcpStream::connect(address).is_err());
}
