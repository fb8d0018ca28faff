//! Acks, requests and answers.

use super::*;

#[test]
fn an_ack_gives_its_rows_and_is_forgotten() {
    let mut stage = Stage::connected();
    let ack = stage.publish_with_ack(Duration::from_secs(1));
    assert_eq!(stage.said(), ["PUB 1 a ack=1000"]);
    stage
        .hear(&Frame::Recipients { number: 1, clients: ["x", "y"].into_iter().collect() })
        .unwrap();
    let row = |recipient, status| {
        Frame::Row(Row {
            number: 1,
            recipient,
            more: false,
            status,
            latency_us: 9,
            error: None,
            data: None,
        })
    };
    stage.hear(&row(1, RowStatus::Acked)).unwrap();
    assert_eq!(
        stage.session.ack_status(ack),
        Some(vec![("x".into(), None), ("y".into(), Some(true))])
    );
    stage.hear(&row(0, RowStatus::NoHandler)).unwrap();
    assert_eq!(
        stage.heard(),
        ["7: recipients 1 x y", "7: row 1 y acked", "7: row 1 x no_handler", "7: done 1"]
    );
    assert_eq!(stage.session.open_acks(), 0);
    stage.now = stage.now + Duration::from_secs(1);
    stage.session.tick(stage.now, &mut stage.events).unwrap();
    assert_eq!(stage.said(), ["CREDIT reports 3"]);
}

#[test]
fn an_ack_cancelled_before_its_publish_left_is_cancelled_after_it() {
    let mut stage = Stage::new();
    let ack = stage.publish_with_ack(Duration::from_secs(1));
    stage.session.cancel_ack(ack, &mut stage.events);
    assert_eq!(stage.heard(), ["7: done 1 cancelled"]);
    stage.connect(welcome());
    assert_eq!(stage.said(), ["PUB 1 a ack=1000", "CANCEL 1"]);
    stage.session.cancel_ack(ack, &mut stage.events);
    assert!(stage.said().is_empty() && stage.heard().is_empty());
}

#[test]
fn an_ack_ends_shortly_after_its_time_even_offline() {
    let mut stage = Stage::new();
    stage.publish_with_ack(Duration::from_secs(3));
    assert!(stage.session.should_connect(stage.now));
    stage.now = Time::ZERO + Duration::from_secs(4);
    assert_eq!(stage.session.deadline(), Some(stage.now));
    stage.session.tick(stage.now, &mut stage.events).unwrap();
    assert_eq!(stage.heard(), ["7: done 1 timeout"]);
}

#[test]
fn acks_of_a_lost_session_end_and_those_sent_again_go_on() {
    let mut stage = Stage::connected();
    for _ in 0..3 {
        stage.publish_with_ack(Duration::from_secs(60));
    }
    stage.said();
    stage.hear(&Frame::Recipients { number: 2, clients: ["x"].into_iter().collect() }).unwrap();
    stage.accepted(1);
    stage.events.clear();
    stage.lose();
    stage.dial();
    stage.events.clear();
    stage.hear(&Frame::Welcome(welcome())).unwrap();
    assert_eq!(
        stage.heard()[..3],
        ["7: done 1 session_lost", "7: row 2 x disconnected", "7: done 2"],
        "recipients prove that the second was accepted"
    );
    assert_eq!(stage.session.open_acks(), 1);
    stage.said();
    stage.hear(&Frame::Recipients { number: 1, clients: Default::default() }).unwrap();
    assert_eq!(stage.heard(), ["7: recipients 3", "7: done 3"]);
}

#[test]
fn answers_are_kept_until_confirmed() {
    let mut stage = Stage::connected();
    let sub = stage.subscribe(SubscribeOptions::default());
    stage.message(sub, Some(9)).unwrap();
    stage.message(sub, Some(10)).unwrap();
    stage.session.answer(9, &Answer::Acked(Payload::json("1"))).unwrap();
    assert_eq!(stage.said(), ["ANSWER 1 to 9 acked"]);
    stage.events.clear();
    stage.hear(&Frame::Cancel { number: 10 }).unwrap();
    assert_eq!(stage.heard(), ["7: cancel 1 10"]);
    let error = stage.session.answer(10, &Answer::NoHandler).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    stage.message(sub, Some(11)).unwrap();
    stage.lose();
    let error = stage.session.answer(11, &Answer::NoHandler).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "its row ended with the connection");
    stage.connect(resumed(0));
    assert_eq!(stage.said(), ["ANSWER 1 to 9 acked"]);
    stage.hear(&Frame::Accepted { published: 0, answered: 1 }).unwrap();
    stage.lose();
    stage.connect(Welcome { answered: 1, ..resumed(0) });
    assert!(stage.said().is_empty());
}
