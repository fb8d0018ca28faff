//! What goes out, and how it ends.

use super::*;

#[test]
fn topics_get_numbers_and_a_smaller_server_gets_names() {
    let mut stage = Stage::connected();
    for _ in 0..3 {
        stage.publish_plain("a");
    }
    assert_eq!(stage.said(), ["ALIAS 0 a", "PUB 1 a", "PUB 2 #0", "PUB 3 #0"]);
    stage.lose();
    stage.connect(Welcome { aliases: 0, ..resumed(1) });
    assert_eq!(stage.said(), ["PUB 2 a", "PUB 3 a"]);
    stage.accepted(3);
}

#[test]
fn one_message_larger_than_the_window_or_the_write_still_goes() {
    let mut stage = Stage::new();
    stage.connect(Welcome { publish_window_bytes: 100, ..welcome() });
    for _ in 0..2 {
        let to = Destination::Topic("a");
        let options = PublishOptions::default();
        stage.session.publish(stage.now, to, ContentType::Bytes, &[0; 500], &options).unwrap();
    }
    let mut out = BytesMut::new();
    stage.session.transmit(stage.now, 10, &mut out);
    stage.session.transmit(stage.now, 10, &mut out);
    assert!(!stage.session.transmit(stage.now, 10, &mut out));
    assert_eq!(Frames::new(&out).count(), 2, "ALIAS and one PUB");
    stage.accepted(1);
    assert!(stage.session.has_output());
}

#[test]
fn what_waited_for_the_connection_goes_in_bursts_each_when_the_one_before_is_dealt_with() {
    let mut stage = Stage::new();
    for _ in 0..150 {
        stage.publish_plain("a");
    }
    let sent = |stage: &mut Stage| {
        let said = stage.said();
        let asks = said.last().is_some_and(|last| last == "PING");
        (said.iter().filter(|line| line.starts_with("PUB")).count(), asks)
    };
    stage.connect(welcome());
    assert_eq!(sent(&mut stage), (64, true));
    stage.publish_plain("a");
    stage.accepted(63);
    assert_eq!(sent(&mut stage), (0, false), "one is not dealt with");
    stage.now = Time::ZERO + Duration::from_millis(3);
    stage.accepted(64);
    assert_eq!(sent(&mut stage), (0, false), "time for everybody else");
    stage.pause();
    assert_eq!(sent(&mut stage), (64, true));
    stage.lose();
    stage.connect(resumed(100));
    assert_eq!(sent(&mut stage), (51, false), "the rest, and nothing waits for it");
    stage.accepted(151);
    stage.publish_plain("a");
    assert_eq!(sent(&mut stage), (1, false));
    assert!(stage.heard().contains(&"0: outbox flushed 51".to_owned()));
}

#[test]
fn a_backlog_that_a_lost_session_had_in_part_is_sent_to_its_end() {
    let mut stage = Stage::new();
    for _ in 0..150 {
        stage.publish_plain("a");
    }
    stage.connect(welcome());
    stage.said();
    stage.lose();
    stage.connect(Welcome { session: b"another", ..welcome() });
    for last in [64, 128, 150] {
        let said = stage.said();
        let of_burst = said.iter().filter(|line| line.starts_with("PUB")).count();
        assert_eq!(of_burst, if last == 150 { 22 } else { 64 }, "{last}: {said:?}");
        stage.accepted(last);
        stage.pause();
    }
}

#[test]
fn a_burst_of_large_messages_is_short() {
    let mut stage = Stage::new();
    for _ in 0..3 {
        let (to, options) = (Destination::Topic("a"), PublishOptions::default());
        stage.session.publish(stage.now, to, ContentType::Bytes, &[0; 40_000], &options).unwrap();
    }
    stage.connect(welcome());
    for number in 1..=3 {
        let sent = stage.said().iter().filter(|line| line.starts_with("PUB")).count();
        assert_eq!(sent, 1);
        stage.accepted(number);
        stage.pause();
    }
}

#[test]
fn the_hard_bound_refuses_and_the_soft_bound_tells_when_there_is_room() {
    let outbox = OutboxBounds {
        soft_bytes: 1000,
        hard_bytes: 2000,
        hard_messages: 1000,
        ..OutboxBounds::default()
    };
    let mut stage = Stage::with(SessionConfig { outbox, ..SessionConfig::default() });
    stage.connect(welcome());
    assert!(stage.session.watch_room(TARGET));
    let mut last = 0;
    let error = loop {
        match stage.publish("a", &PublishOptions::default()) {
            Ok(number) => last = number,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::OutboxFull);
    assert_eq!(stage.session.room(), Room::Hard);
    assert!(!stage.session.watch_room(TARGET));
    stage.said();
    stage.accepted(10);
    assert_eq!(stage.session.room(), Room::Soft);
    assert!(stage.heard().is_empty());
    stage.accepted(last);
    assert_eq!(stage.heard(), ["0: backpressure true", "0: backpressure false", "7: room"]);
    assert_eq!(stage.publish_plain("a"), last + 1, "nothing was queued by the refused call");
}

#[test]
fn many_small_messages_meet_the_bound_too() {
    let outbox = OutboxBounds { hard_messages: 3, ..OutboxBounds::default() };
    let mut stage = Stage::with(SessionConfig { outbox, ..SessionConfig::default() });
    for _ in 0..3 {
        stage.publish_plain("a");
    }
    let error = stage.publish("a", &PublishOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutboxFull);
}

#[test]
fn what_cannot_be_published_is_refused_with_a_reason() {
    let mut stage = Stage::connected();
    let plain = PublishOptions::default();
    for topic in ["", "kps.x", "a.*", ">"] {
        assert_eq!(stage.publish(topic, &plain).unwrap_err().kind(), ErrorKind::InvalidTopic);
    }
    let large = vec![0; (1 << 20) + 1];
    let error = stage
        .session
        .publish(stage.now, Destination::Topic("a"), ContentType::Bytes, &large, &plain)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    assert!(error.message().contains("1048576"));
    let headers = vec![("h".into(), "x".repeat(70_000))];
    let extras = Extras { headers, ..Extras::default() };
    let error = stage.publish("a", &PublishOptions { extras: Some(&extras), ..plain }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let stored = PublishOptions { receipt: Some(ReceiptLevel::Stored), ..plain };
    assert_eq!(stage.publish("a", &stored).unwrap_err().kind(), ErrorKind::ReceiptUnavailable);
    let to = Destination::Client("");
    let error = stage.session.publish(stage.now, to, ContentType::Json, b"", &plain).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(stage.said().is_empty());
}

#[test]
fn what_an_earlier_process_took_is_as_large_as_its_server_allowed() {
    let mut stage = Stage::new();
    let again = PublishOptions { maybe_duplicate: true, ..PublishOptions::default() };
    let large = vec![0; (1 << 20) + 1];
    let publish = |stage: &mut Stage, options: &PublishOptions<'_>| {
        let to = Destination::Topic("a");
        let told = stage.session.publish(stage.now, to, ContentType::Bytes, &large, options);
        told.map_err(|error| error.kind())
    };
    assert_eq!(publish(&mut stage, &again), Ok(1));
    let new = publish(&mut stage, &PublishOptions::default());
    assert_eq!(new, Err(ErrorKind::PayloadTooLarge));
    stage.dial();
    stage.hear(&Frame::Welcome(welcome())).unwrap();
    assert_eq!(publish(&mut stage, &again), Err(ErrorKind::PayloadTooLarge), "now it is known");
    // A server may end the connection of who sends it something much larger than it takes.
    assert_eq!(stage.said(), ["PUB 1 kps.settled settled"]);
    assert!(stage.heard().contains(&"0: failed 1 payload_too_large".to_owned()));
    stage.accepted(1);
    assert_eq!(stage.heard(), [""; 0], "once");
    assert_eq!(stage.session.released(), 1);
}

/// Of three messages; the oldest that were not sent go.
fn dropping() -> Stage {
    let outbox = OutboxBounds {
        hard_messages: 3,
        overflow: OutboxOverflow::DropOldest,
        ..OutboxBounds::default()
    };
    Stage::with(SessionConfig { outbox, outbox_on_disk: true, ..SessionConfig::default() })
}

fn skipping() -> Welcome<'static> {
    Welcome { features: frame::features::SKIPS, aliases: 0, ..welcome() }
}

impl Stage {
    fn publish_many(&mut self, count: usize) {
        for _ in 0..count {
            self.publish_plain("a");
        }
    }

    /// What `tick` tells, which must be due if it is anything.
    fn tick_now(&mut self) -> Vec<String> {
        self.session.tick(self.now, &mut self.events).unwrap();
        self.heard()
    }
}

#[test]
fn a_full_outbox_drops_the_oldest_and_names_each() {
    let mut stage = dropping();
    stage.publish_many(2);
    let receipt = PublishOptions {
        receipt: Some(ReceiptLevel::Accepted),
        target: TARGET,
        ..PublishOptions::default()
    };
    stage.publish("a", &receipt).unwrap();
    stage.publish_many(3);
    assert_eq!(stage.session.deadline(), Some(stage.now), "somebody is to be told");
    assert_eq!(
        stage.tick_now(),
        ["0: failed 1 outbox_full", "0: failed 2 outbox_full", "7: failed 3 outbox_full"]
    );
    assert_eq!(stage.session.take_given_up(), [1, 2, 3]);
    let counts = stage.session.ledger().published;
    assert_eq!((counts.total, counts.dropped, counts.failed, counts.pending), (6, 3, 0, 3));
    stage.connect(skipping());
    assert_eq!(stage.said(), ["PUB 1 kps.settled settled 3", "PUB 4 a", "PUB 5 a", "PUB 6 a"]);
    stage.accepted(6);
    let counts = stage.session.ledger().published;
    assert_eq!((counts.accepted, counts.dropped, counts.pending), (3, 3, 0));
    assert_eq!(stage.session.released(), 6);
}

#[test]
fn an_older_server_is_told_each_dropped_number_as_its_window_allows() {
    let mut stage = dropping();
    stage.publish_many(8);
    stage.connect(Welcome { publish_window: 2, ..welcome() });
    let settled = |number| format!("PUB {number} kps.settled settled");
    assert_eq!(stage.said(), [settled(1), settled(2)]);
    stage.accepted(2);
    assert_eq!(stage.said(), [settled(3), settled(4)]);
    stage.accepted(4);
    assert_eq!(stage.said()[..2], [settled(5), "PUB 6 a".into()]);
}

#[test]
fn what_was_sent_is_not_dropped_and_keeps_its_number() {
    let mut stage = dropping();
    stage.connect(skipping());
    stage.publish_many(2);
    assert_eq!(stage.said().len(), 2);
    stage.publish_many(3);
    assert_eq!(stage.tick_now(), ["0: failed 3 outbox_full", "0: failed 4 outbox_full"]);
    stage.accepted(1);
    assert_eq!(stage.said(), ["PUB 3 kps.settled settled 2", "PUB 5 a"]);
    stage.publish_many(1);
    assert_eq!(stage.said(), ["PUB 6 a"]);
    let error = stage.publish("a", &PublishOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutboxFull, "all of it is on its way");
    // The server has it up to 4.
    stage.lose();
    stage.connect(Welcome { features: frame::features::SKIPS, ..resumed(4) });
    assert_eq!(stage.said(), ["PUB 5 a", "PUB 6 a"]);
}

#[test]
fn a_lost_session_numbers_what_was_not_dropped_around_what_was() {
    let mut stage = dropping();
    stage.connect(skipping());
    stage.publish_many(2);
    stage.said();
    stage.lose();
    stage.heard();
    stage.publish_many(2);
    assert_eq!(stage.tick_now(), ["0: failed 3 outbox_full"]);
    let origin = stage.session.origin().to_owned();
    stage.connect(Welcome { epoch: 2, ..skipping() });
    let id = |number| format!("id={origin}-{number}");
    assert_eq!(
        stage.said(),
        [
            format!("PUB 1 a duplicate? {}", id(1)),
            format!("PUB 2 a duplicate? {}", id(2)),
            "PUB 3 kps.settled settled".into(),
            format!("PUB 4 a {}", id(4))
        ]
    );
    stage.accepted(4);
    assert_eq!(stage.session.ledger().published.accepted, 3);
}

#[test]
fn what_the_server_may_hold_is_not_dropped_for_it_counts_against_its_window() {
    let mut stage = dropping();
    stage.connect(skipping());
    stage.publish_many(3);
    stage.said();
    stage.lose();
    stage.heard();
    let error = stage.publish("a", &PublishOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutboxFull);
    stage.connect(Welcome { features: frame::features::SKIPS, ..resumed(1) });
    assert_eq!(stage.said().len(), 2, "what is not accepted");
    stage.accepted(3);
    assert_eq!(stage.session.ledger().published.accepted, 3);
}

#[test]
fn an_ack_of_a_dropped_message_ends_with_the_reason() {
    let mut stage = dropping();
    let ack = AckRequest { timeout: Duration::from_secs(1), request: false, target: TARGET };
    stage.publish("a", &PublishOptions { ack: Some(ack), ..PublishOptions::default() }).unwrap();
    stage.publish_many(3);
    let heard = stage.tick_now();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0] == "0: failed 1 outbox_full" && heard[1].contains("outbox_full"), "{heard:?}");
    assert_eq!(stage.session.open_acks(), 0);
}

#[test]
fn endless_timeouts_saturate() {
    let mut stage = Stage::connected();
    let extras = Extras { ttl: Some(Duration::MAX), ..Extras::default() };
    let ack = AckRequest { timeout: Duration::MAX, request: true, target: TARGET };
    let options =
        PublishOptions { extras: Some(&extras), ack: Some(ack), ..PublishOptions::default() };
    stage.publish("a", &options).unwrap();
    assert_eq!(stage.said(), [format!("PUB 1 a ack={}", (1u64 << 53) - 1)]);
}

#[test]
fn a_receipt_comes_once_its_publish_is_accepted_and_waiting_for_it_hurries_the_server() {
    let mut stage = Stage::connected();
    let first = stage.publish_plain("a");
    assert_eq!(stage.session.watch(first, ReceiptLevel::Queued, TARGET), Ok(true));
    assert_eq!(stage.session.watch(first, ReceiptLevel::Accepted, TARGET), Ok(false));
    assert_eq!(stage.said(), ["PUB 1 a", "PING"]);
    let options = PublishOptions {
        receipt: Some(ReceiptLevel::Accepted),
        target: TARGET,
        ..PublishOptions::default()
    };
    let second = stage.publish("b", &options).unwrap();
    assert_eq!(stage.said(), ["PUB 2 b prompt"]);
    stage.accepted(2);
    assert_eq!(stage.heard(), ["7: receipt 1 accepted", "7: receipt 2 accepted"]);
    assert_eq!(stage.session.watch(second, ReceiptLevel::Accepted, TARGET), Ok(true));
}

#[test]
fn flush_waits_for_everything_published_so_far() {
    let mut stage = Stage::connected();
    assert_eq!(stage.session.flush(TARGET), Ok(true));
    stage.publish_plain("a");
    assert_eq!(stage.session.flush(TARGET), Ok(false));
    stage.publish_plain("b");
    assert_eq!(stage.said(), ["PUB 1 a", "PUB 2 b", "PING"]);
    stage.accepted(1);
    assert_eq!(stage.heard(), ["7: flushed true"]);
}

#[test]
fn a_refused_publish_fails_by_name_once_its_turn_is_confirmed() {
    let mut stage = Stage::connected();
    let extras = Extras { id: Some("mine".into()), ..Extras::default() };
    stage.publish_plain("a");
    let refused = stage
        .publish("a", &PublishOptions { extras: Some(&extras), ..PublishOptions::default() })
        .unwrap();
    stage.said();
    stage
        .hear(&Frame::Error(ErrorFrame {
            kind: ErrorKind::Unauthorized,
            reference: Reference::Publish(refused),
            fatal: false,
            message: "no",
        }))
        .unwrap();
    assert!(stage.heard().is_empty());
    stage.accepted(2);
    let Some((Target(0), Event::PublishFailed { number: 2, id, .. })) = stage.events.first() else {
        panic!("{:?}", stage.events)
    };
    assert_eq!(id, "mine");
    let error = stage.session.watch(refused, ReceiptLevel::Accepted, TARGET).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let counts = stage.session.ledger().published;
    assert_eq!((counts.total, counts.accepted, counts.failed, counts.pending), (2, 1, 1, 0));
}

#[test]
fn a_publish_that_could_not_be_passed_on_fails_after_it_was_accepted_and_once() {
    let mut stage = Stage::connected();
    let to = Destination::Server("127.0.0.1:1");
    let options = PublishOptions::default();
    stage.session.publish(stage.now, to, ContentType::Json, b"1", &options).unwrap();
    stage.said();
    stage.accepted(1);
    for _ in 0..2 {
        stage
            .hear(&Frame::Error(ErrorFrame {
                kind: ErrorKind::ConnectFailed,
                reference: Reference::Publish(1),
                fatal: false,
                message: "nobody there",
            }))
            .unwrap();
    }
    assert_eq!(stage.heard(), ["0: failed 1 connect_failed"]);
    let error = stage.session.watch(1, ReceiptLevel::Accepted, TARGET).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    let counts = stage.session.ledger().published;
    assert_eq!((counts.accepted, counts.failed), (0, 1));
}

#[test]
fn a_server_that_confirms_what_was_never_sent_is_not_believed() {
    let mut stage = Stage::connected();
    stage.publish_plain("a");
    let error = stage.hear(&Frame::Accepted { published: 1, answered: 0 }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    let mut stage = Stage::connected();
    let error = stage.hear(&Frame::Accepted { published: 0, answered: 1 }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[test]
fn what_waited_in_the_outbox_travels_with_the_time_that_is_left() {
    let mut stage = Stage::new();
    stage.publish_plain("x");
    stage.publish_with_ack(Duration::from_secs(3));
    stage.publish_with_ack(Duration::from_secs(1));
    stage.now = Time::ZERO + Duration::from_secs(2);
    stage.publish_with_ack(Duration::from_secs(1));
    stage.connect(welcome());
    assert_eq!(stage.said(), ["PUB 1 x", "PUB 2 a ack=1000", "PUB 3 a ack=0", "PUB 4 a ack=1000"]);
    stage.accepted(4);
}

#[test]
fn the_window_holds_publishes_back_and_control_frames_pass() {
    let mut stage = Stage::new();
    stage.connect(Welcome { publish_window: 2, ..welcome() });
    for _ in 0..4 {
        stage.publish_plain("a");
    }
    stage.session.subscribe(TARGET, "b", SubscribeOptions::default()).unwrap();
    assert_eq!(stage.said(), ["SUB 1 b 4096", "ALIAS 0 a", "PUB 1 a", "PUB 2 #0"]);
    assert!(!stage.session.has_output());
    stage.accepted(1);
    assert_eq!(stage.said(), ["PUB 3 #0"]);
    stage.accepted(3);
    assert_eq!(stage.said(), ["PUB 4 #0"]);
}

#[test]
fn accepted_publishes_are_told_by_id_to_who_asks_and_refused_ones_are_not() {
    let mut stage = Stage::connected();
    stage.publish_plain("a");
    stage.said();
    stage.accepted(1);
    assert!(stage.heard().is_empty());
    stage.session.tell_published(true);
    for _ in 0..3 {
        stage.publish_plain("a");
    }
    stage.said();
    let refused = ErrorFrame {
        kind: ErrorKind::Unauthorized,
        reference: Reference::Publish(3),
        fatal: false,
        message: "no",
    };
    stage.hear(&Frame::Error(refused)).unwrap();
    stage.accepted(4);
    let heard = stage.heard();
    let published: Vec<_> = heard.iter().filter(|told| told.contains("published")).collect();
    assert_eq!(published.len(), 2, "{heard:?}");
    assert!(published[0].ends_with("published 2") && published[1].ends_with("published 4"));
}

#[test]
fn the_soft_bound_is_told_on_the_way_up_and_on_the_way_down() {
    let outbox = OutboxBounds { soft_bytes: 200, ..OutboxBounds::default() };
    let mut stage = Stage::with(SessionConfig { outbox, ..SessionConfig::default() });
    stage.connect(welcome());
    let mut number = 0;
    while stage.session.room() == Room::Free {
        assert!(!stage.session.owes_pressure());
        number = stage.publish_plain("a");
    }
    assert!(stage.session.owes_pressure());
    stage.session.tell_pressure(&mut stage.events);
    stage.publish_plain("a");
    stage.session.tell_pressure(&mut stage.events);
    assert_eq!(stage.heard(), ["0: backpressure true"]);
    stage.said();
    stage.accepted(number + 1);
    assert_eq!(stage.heard(), ["0: backpressure false"]);
}
