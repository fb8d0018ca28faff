//! Handshakes, losses, ends, and servers that misbehave.

use super::*;

#[test]
fn the_handshake_says_hello_and_then_makes_what_waited() {
    let mut stage = Stage::new();
    stage.session.subscribe(TARGET, "a.*", SubscribeOptions::default()).unwrap();
    stage.publish_plain("a.b");
    let hello = stage.dial();
    let hello: Vec<_> = Frames::new(&hello).map(|frame| describe(&frame.unwrap())).collect();
    assert_eq!(hello, ["HELLO \"\" 0 []"]);
    assert_eq!(stage.session.state(), State::Connecting);
    stage.hear(&Frame::Welcome(welcome())).unwrap();
    assert_eq!(stage.said(), ["SUB 1 a.* 4096", "PUB 1 a.b"]);
    assert_eq!(stage.heard(), ["0: connected"]);
    assert_eq!(stage.session.id(), "me");
}

#[test]
fn a_lost_session_numbers_anew_keeps_ids_and_marks_what_was_sent() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions::default());
    for _ in 0..3 {
        stage.publish_plain("a");
    }
    stage.said();
    stage.accepted(1);
    let unsent = stage.publish_plain("a");
    let (second, fourth) = (stage.session.message_id(2), stage.session.message_id(unsent));
    let third = stage.session.message_id(3);
    stage.lose();
    stage.events.clear();
    stage.connect(Welcome { epoch: 2, ..welcome() });
    assert_eq!(
        stage.said(),
        [
            format!("SUB {} a.* 4096 again", sub.0),
            "ALIAS 0 a".into(),
            format!("PUB 1 #0 duplicate? id={second}"),
            format!("PUB 2 #0 duplicate? id={third}"),
            format!("PUB 3 #0 id={fourth}"),
        ]
    );
    let fifth = stage.publish_plain("b");
    assert_eq!(fifth, 5);
    assert_eq!(stage.said(), ["PUB 4 b"]);
    let id = stage.session.message_id(fifth);
    assert!(id.ends_with("-4") && id.starts_with(stage.session.origin()));
    assert!(![second, third, fourth].contains(&id));
    stage.session.watch(fifth, ReceiptLevel::Accepted, TARGET).unwrap();
    stage.accepted(4);
    assert_eq!(stage.heard(), ["7: receipt 5 accepted", "0: outbox flushed 3"]);
    assert_eq!(stage.session.ledger().published.accepted, 5);
}

#[test]
fn frames_that_are_not_a_servers_close_the_connection() {
    for frame in [
        Frame::Unsubscribe { sub: 1 },
        Frame::Auth { token: "t" },
        Frame::Welcome(welcome()),
        Frame::Credit { sub: 1, consumed: 1 },
    ] {
        let mut stage = Stage::connected();
        assert_eq!(stage.hear(&frame).unwrap_err().kind(), ErrorKind::Protocol);
    }
    let mut stage = Stage::new();
    stage.dial();
    assert!(stage.message(SubId(1), None).is_err(), "before WELCOME");
    let mut stage = Stage::new();
    stage.dial();
    assert!(stage.hear(&Frame::Welcome(resumed(0))).is_err(), "there was nothing to resume");
}

#[test]
fn a_fatal_error_ends_the_session_and_tells_everybody() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions::default());
    stage.session.subscribe(TARGET, "b", SubscribeOptions::default()).unwrap();
    stage.message(sub, None).unwrap();
    stage.publish_with_ack(Duration::from_secs(1));
    stage.session.watch(1, ReceiptLevel::Accepted, TARGET).unwrap();
    stage.session.flush(TARGET).unwrap();
    stage.events.clear();
    let fatal = ErrorFrame {
        kind: ErrorKind::Replaced,
        reference: Reference::Connection,
        fatal: true,
        message: "another one came",
    };
    assert_eq!(stage.hear(&Frame::Error(fatal)).unwrap_err().kind(), ErrorKind::Replaced);
    stage.lose();
    assert_eq!(
        stage.heard(),
        [
            "7: closed 1 replaced",
            "7: refused 2 replaced",
            "7: done 1 replaced",
            "7: failed 1 replaced",
            "7: flushed false",
            "0: closed replaced",
        ]
    );
    assert_eq!(stage.session.state(), State::Closed);
    assert!(!stage.session.should_connect(stage.now + Duration::from_secs(100)));
    let error = stage.publish("a", &PublishOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    let id = stage.session.message_id(1);
    stage.session.consumed(sub, 1);
    assert_eq!(stage.session.ledger().totals.delivered, 1);
    assert_eq!(stage.session.close(stage.now, &mut stage.events).abandoned, [(1, id)]);
    assert_eq!(stage.session.ledger().published.abandoned, 1);
}

#[test]
fn close_names_what_it_abandons() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions::default());
    stage.message(sub, None).unwrap();
    stage.publish_plain("a");
    stage.publish_plain("a");
    stage.said();
    stage.accepted(1);
    let report = stage.session.close(stage.now, &mut stage.events);
    assert_eq!(report.abandoned, [(2, stage.session.message_id(2))]);
    assert!(stage.session.close(stage.now, &mut stage.events).abandoned.is_empty());
    let ledger = stage.session.ledger();
    assert_eq!((ledger.totals.cancelled, ledger.totals.pending), (1, 0));
    assert_eq!(ledger.subscriptions.len(), 1, "direct messages alone");
}

#[test]
fn a_quiet_connection_pings_and_a_dead_one_is_found() {
    let mut stage = Stage::connected();
    stage.now = stage.now + Duration::from_secs(8);
    stage.session.tick(stage.now, &mut stage.events).unwrap();
    assert_eq!(stage.said(), ["PING"]);
    stage.hear(&Frame::Ping { nonce: 3 }).unwrap();
    assert_eq!(stage.said(), ["PONG 3"]);
    stage.now = stage.now + Duration::from_secs(20);
    let error = stage.session.tick(stage.now, &mut stage.events).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    stage.lose();
    assert_eq!(stage.heard(), ["0: reconnecting timeout"]);
}

#[test]
fn secrets_are_not_shown() {
    let config = SessionConfig { token: Some("hush".into()), ..SessionConfig::default() };
    let mut stage = Stage::with(config);
    stage.connect(Welcome { session: b"hushhushhushhush", ..welcome() });
    let shown = format!("{:?}", stage.session);
    let bytes = format!("{:?}", b"hush").trim_matches(['[', ']']).to_owned();
    assert!(!shown.contains("hush") && !shown.contains(&bytes), "{shown}");
}

#[test]
fn a_leaving_server_is_left_alone_for_as_long_as_it_asks() {
    let mut stage = Stage::connected();
    stage.hear(&Frame::Goaway { delay_ms: 2000, reason: "restart" }).unwrap();
    stage.lose();
    assert_eq!(stage.heard(), ["0: goaway restart", "0: reconnecting disconnected"]);
    assert!(stage.session.deadline().unwrap() > stage.now + Duration::from_secs(2));
    let whats: Vec<_> = stage.session.timeline().map(|moment| moment.what).collect();
    assert_eq!(whats, ["connecting", "connection_opened", "goaway", "connection_closed"]);
}

#[test]
fn a_resumed_session_sends_again_only_what_the_server_lacks() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions::default());
    stage.message(sub, None).unwrap();
    for _ in 0..3 {
        stage.publish_plain("a");
    }
    stage.said();
    stage.lose();
    assert_eq!(stage.session.state(), State::Reconnecting);
    let hello = stage.dial();
    let Some(Ok(Frame::Hello(hello))) = Frames::new(&hello).next() else { panic!() };
    assert_eq!(hello.received, [(0, 0), (1, 1), (REPORTS, 0)]);
    assert_eq!((hello.client_id, hello.session), ("me", &b"0123456789abcdef"[..]));
    stage.hear(&Frame::Welcome(resumed(2))).unwrap();
    assert_eq!(stage.said(), ["ALIAS 0 a", "PUB 3 #0"]);
}

#[test]
fn a_server_that_only_asks_makes_nothing_grow() {
    let mut stage = Stage::connected();
    for nonce in 0..1000 {
        stage.hear(&Frame::Ping { nonce }).unwrap();
    }
    assert_eq!(stage.said(), ["PONG 999"]);
    let unknown = SubId(99);
    let refused = (0..).find(|delivery| stage.message(unknown, Some(*delivery)).is_err());
    assert!(refused.is_some_and(|count| count <= 1 << 16));
}
