//! What comes in, and the room it is given.

use super::*;
use crate::{options::StartAt, wire::frame::features};

#[test]
fn a_lost_session_tells_direct_messages_of_their_gap() {
    let mut stage = Stage::connected();
    stage.lose();
    stage.dial();
    stage.events.clear();
    stage.hear(&Frame::Welcome(welcome())).unwrap();
    assert_eq!(stage.heard(), ["0: gap 0 kps.id.me None session_expired", "0: connected"]);
}

#[test]
fn credit_is_given_at_half_a_window_and_the_rest_after_a_while() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions { capacity: Some(200), ..Default::default() });
    for _ in 0..60 {
        stage.message(sub, None).unwrap();
    }
    stage.session.consumed(sub, 49);
    assert!(stage.said().is_empty());
    stage.session.consumed(sub, 1);
    assert_eq!(stage.said(), ["CREDIT 1 50"]);
    stage.session.consumed(sub, 3);
    assert!(stage.said().is_empty());
    stage.now = stage.session.deadline().unwrap();
    stage.session.tick(stage.now, &mut stage.events).unwrap();
    assert_eq!(stage.said(), ["CREDIT 1 53"]);
    let counts = stage.session.ledger().totals;
    assert_eq!((counts.delivered, counts.pending, counts.accepted()), (53, 7, 60));
}

#[test]
fn a_small_window_and_large_payloads_get_credit_early() {
    let mut stage = Stage::connected();
    let small = stage.subscribe(SubscribeOptions { capacity: Some(4), ..Default::default() });
    stage.message(small, None).unwrap();
    stage.session.consumed(small, 1);
    assert_eq!(stage.said(), ["CREDIT 1 1"]);
    let large = stage.subscribe(SubscribeOptions::default());
    let payload = vec![0; 1 << 20];
    for _ in 0..3 {
        let frame = MessageFrame { payload: &payload, ..message(large, None) };
        stage.hear(&Frame::Message(frame)).unwrap();
    }
    stage.session.consumed(large, 1);
    assert!(stage.said().is_empty());
    stage.session.consumed(large, 1);
    assert_eq!(stage.said(), ["CREDIT 2 2"]);
}

#[test]
fn a_gap_is_consumed_in_its_place() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions { capacity: Some(8), ..Default::default() });
    let gap = Frame::Gap(GapFrame {
        sub: sub.0,
        topic: "a.b",
        count: Some(3),
        range: Some((2, 4)),
        reason: GapReason::Overflow,
    });
    stage.message(sub, None).unwrap();
    stage.hear(&gap).unwrap();
    stage.message(sub, None).unwrap();
    stage.hear(&gap).unwrap();
    assert!(stage.said().is_empty());
    stage.session.consumed(sub, 1);
    assert_eq!(stage.said(), ["CREDIT 1 2"]);
    stage.session.consumed(sub, 1);
    assert_eq!(stage.said(), ["CREDIT 1 4"]);
    stage.hear(&gap).unwrap();
    assert_eq!(stage.said(), ["CREDIT 1 5"]);
    assert_eq!(stage.session.ledger().totals.dropped[GapReason::Overflow as usize], 9);
}

#[test]
fn a_server_that_ignores_the_window_is_cut_off() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions { capacity: Some(4), ..Default::default() });
    stage.message(sub, None).unwrap();
    stage.message(sub, None).unwrap();
    assert_eq!(stage.message(sub, None).unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn messages_held_over_a_lost_session_give_no_credit_in_the_next() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions { capacity: Some(8), ..Default::default() });
    stage.message(sub, None).unwrap();
    stage.message(sub, None).unwrap();
    stage.lose();
    stage.connect(welcome());
    stage.said();
    stage.hear(&Frame::Subscribed { sub: sub.0, cursor: &[] }).unwrap();
    stage
        .hear(&Frame::Gap(GapFrame {
            sub: sub.0,
            topic: "a.*",
            count: None,
            range: None,
            reason: GapReason::SessionExpired,
        }))
        .unwrap();
    assert_eq!(stage.said(), ["CREDIT 1 1"]);
    stage.message(sub, None).unwrap();
    stage.session.consumed(sub, 2);
    assert!(stage.said().is_empty());
    stage.session.consumed(sub, 1);
    assert_eq!(stage.said(), ["CREDIT 1 2"]);
    let unknown = stage.session.ledger().totals.unknown_gaps;
    assert_eq!(unknown, 2, "the subscription's and the direct messages'");
}

#[test]
fn unsubscribing_ends_the_stream_at_once_and_is_confirmed_later() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions::default());
    stage.message(sub, None).unwrap();
    stage.events.clear();
    stage.session.unsubscribe(sub, &mut stage.events).unwrap();
    stage.message(sub, Some(5)).unwrap();
    assert!(stage.heard().is_empty());
    assert_eq!(stage.said(), ["UNSUB 1", "ANSWER 1 to 5 no_handler"]);
    stage.hear(&Frame::Unsubscribed { sub: sub.0 }).unwrap();
    assert_eq!(stage.heard(), ["7: unsubscribed 1"]);
    let error = stage.session.unsubscribe(sub, &mut stage.events).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(stage.session.ledger().totals.cancelled, 1);
}

#[test]
fn unsubscribing_offline_is_done_at_once() {
    let mut stage = Stage::connected();
    let first = stage.subscribe(SubscribeOptions::default());
    let second = stage.subscribe(SubscribeOptions::default());
    stage.session.unsubscribe(first, &mut stage.events).unwrap();
    stage.lose();
    stage.session.unsubscribe(second, &mut stage.events).unwrap();
    assert_eq!(
        stage.heard(),
        ["7: unsubscribed 1", "0: reconnecting disconnected", "7: unsubscribed 2"]
    );
    stage.connect(resumed(0));
    assert!(stage.said().is_empty());
}

#[test]
fn unsubscribing_during_the_handshake_is_told_after_it() {
    for (welcome, said) in [(resumed(0), vec!["UNSUB 1"]), (welcome(), vec![])] {
        let mut stage = Stage::connected();
        let sub = stage.subscribe(SubscribeOptions::default());
        stage.lose();
        stage.dial();
        stage.session.unsubscribe(sub, &mut stage.events).unwrap();
        stage.hear(&Frame::Welcome(welcome)).unwrap();
        assert_eq!(stage.said(), said);
        stage.hear(&Frame::Unsubscribed { sub: sub.0 }).unwrap();
        let told = stage.heard().into_iter().filter(|event| event == "7: unsubscribed 1").count();
        assert_eq!(told, 1);
    }
}

#[test]
fn a_subscription_closed_by_the_server_keeps_what_came_before() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions::default());
    stage.message(sub, None).unwrap();
    stage
        .hear(&Frame::Error(ErrorFrame {
            kind: ErrorKind::SlowConsumer,
            reference: Reference::Subscription(sub.0),
            fatal: false,
            message: "slow",
        }))
        .unwrap();
    assert_eq!(stage.heard(), ["7: message 1 a.b None", "7: closed 1 slow_consumer"]);
    assert_eq!(stage.said(), ["CREDIT 1 2"], "so that the server can forget it");
    assert_eq!(stage.session.ledger().subscriptions.len(), 2);
    stage.session.consumed(sub, 1);
    assert_eq!(stage.session.ledger().subscriptions.len(), 1);
    assert_eq!(stage.session.ledger().totals.delivered, 1);
}

#[test]
fn a_refused_subscription_fails_and_a_wrong_one_never_leaves() {
    let mut stage = Stage::connected();
    let plain = SubscribeOptions::default();
    let sub = stage.session.subscribe(TARGET, "a", plain.clone()).unwrap();
    stage
        .hear(&Frame::Error(ErrorFrame {
            kind: ErrorKind::Unauthorized,
            reference: Reference::Subscription(sub.0),
            fatal: false,
            message: "no",
        }))
        .unwrap();
    assert_eq!(stage.heard(), ["7: refused 1 unauthorized"]);
    let error = stage.session.subscribe(TARGET, "a.>.b", plain.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidTopic);
    let none = SubscribeOptions { capacity: Some(0), ..plain };
    let error = stage.session.subscribe(TARGET, "a", none).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_subscription_not_confirmed_before_the_cut_is_asked_for_again() {
    let mut stage = Stage::connected();
    stage.session.subscribe(TARGET, "a", SubscribeOptions::default()).unwrap();
    assert_eq!(stage.said(), ["SUB 1 a 4096"]);
    stage.lose();
    stage.connect(resumed(0));
    assert_eq!(stage.said(), ["SUB 1 a 4096"]);
    stage.hear(&Frame::Subscribed { sub: 1, cursor: &[] }).unwrap();
    assert_eq!(stage.heard(), ["7: subscribed 1"]);
}

#[test]
fn a_subscription_that_had_a_cursor_begins_anew_at_a_server_without_history() {
    let history = |epoch| Welcome { features: features::HISTORY, epoch, ..welcome() };
    let mut stage = Stage::new();
    stage.connect(history(1));
    let plain = SubscribeOptions::default();
    let all = SubscribeOptions { start: StartAt::All, ..SubscribeOptions::default() };
    stage.session.subscribe(TARGET, "a", plain).unwrap();
    stage.session.subscribe(TARGET, "b", all).unwrap();
    assert_eq!(stage.said(), ["SUB 1 a 4096", "SUB 2 b 4096 past"]);
    for sub in [1, 2] {
        stage.hear(&Frame::Subscribed { sub, cursor: b"place" }).unwrap();
    }
    stage.lose();
    stage.connect(history(2));
    assert_eq!(stage.said(), ["SUB 1 a 4096 again cursor", "SUB 2 b 4096 again past"]);
    stage.lose();
    stage.connect(Welcome { epoch: 3, ..welcome() });
    assert_eq!(stage.said(), ["SUB 1 a 4096 again", "SUB 2 b 4096 again past"]);
    stage.hear(&Frame::Subscribed { sub: 1, cursor: &[] }).unwrap();
    let gap = GapFrame {
        sub: 1,
        topic: "a",
        count: None,
        range: None,
        reason: GapReason::SessionExpired,
    };
    stage.hear(&Frame::Gap(gap)).unwrap();
    assert_eq!(stage.heard(), ["7: gap 1 a None new_epoch"]);
}

#[test]
fn a_message_shares_what_its_connection_numbered() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions::default());
    stage.hear(&Frame::Alias { number: 0, name: "a.b" }).unwrap();
    stage.hear(&Frame::Alias { number: 1, name: "origin/you" }).unwrap();
    let payload = [b'x'; 1000];
    let mut bytes = BytesMut::new();
    for _ in 0..2 {
        let frame = MessageFrame {
            topic: Name::Alias(0),
            sender: Name::Alias(1),
            payload: &payload,
            ..message(sub, None)
        };
        encode(&Frame::Message(frame), &mut bytes);
    }
    let bytes = Bytes::from(bytes);
    stage.session.receive_shared(stage.now, &bytes, &mut stage.events).unwrap();
    let messages: Vec<_> = stage
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Message { message, .. } => Some(message),
            _ => None,
        })
        .collect();
    let [first, second] = messages[..] else { panic!() };
    assert!(Arc::ptr_eq(&first.topic, &second.topic));
    assert!(Arc::ptr_eq(&first.sender, &second.sender));
    assert_eq!((first.time_ms, first.epoch, first.id()), (1005, 1, "origin-1".into()));
    assert!(bytes.as_ptr_range().contains(&first.payload.bytes.as_ptr()), "not copied");
}
