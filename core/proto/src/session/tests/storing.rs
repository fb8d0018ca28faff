//! Receipts up to `stored`, and what the outbox keeps until then.

use super::*;
use crate::wire::frame::{HistoryFrame, features};

fn keeping() -> Welcome<'static> {
    let history = HistoryFrame { on_disk: true, patterns: vec!["kept.>"] };
    Welcome { features: features::HISTORY, history, ..welcome() }
}

fn stored(stage: &mut Stage, published: u64) {
    stage.hear(&Frame::Stored { published }).unwrap();
}

fn stage() -> Stage {
    let mut stage = Stage::new();
    stage.connect(keeping());
    stage.said();
    stage.events.clear();
    stage
}

fn wanting(level: ReceiptLevel) -> PublishOptions<'static> {
    PublishOptions { receipt: Some(level), target: TARGET, ..PublishOptions::default() }
}

#[test]
fn a_message_is_kept_until_it_is_stored_and_sent_again_if_the_server_dies_before() {
    let mut stage = stage();
    for topic in ["kept.a", "plain.a", "kept.b", "plain.b"] {
        stage.publish_plain(topic);
    }
    stage.said();
    stage.accepted(3);
    assert_eq!(stage.session.released(), 0);
    let (first, third, fourth) =
        (stage.session.message_id(1), stage.session.message_id(3), stage.session.message_id(4));
    stage.lose();
    stage.connect(Welcome { epoch: 2, ..keeping() });
    assert_eq!(
        stage.said(),
        [
            format!("PUB 1 kept.a duplicate? id={first}"),
            "PUB 2 kps.settled settled".into(),
            format!("PUB 3 kept.b duplicate? id={third}"),
            format!("PUB 4 plain.b duplicate? id={fourth}"),
        ]
    );
    stage.accepted(4);
    stored(&mut stage, 1);
    assert_eq!(stage.session.released(), 2, "what was settled goes with what is stored");
    stored(&mut stage, 3);
    assert_eq!(stage.session.released(), 4);
}

fn plain() -> Welcome<'static> {
    Welcome { epoch: 2, ..welcome() }
}

/// Accepted but not stored: the first and the third of four; the second needs no storing.
fn died_before_it_stored() -> (Stage, [String; 3]) {
    let mut stage = stage();
    for topic in ["kept.a", "plain.a", "kept.b", "plain.b"] {
        stage.publish_plain(topic);
    }
    stage.said();
    stage.accepted(3);
    let sent_again = [
        format!("PUB 1 kept.a duplicate? id={}", stage.session.message_id(1)),
        format!("PUB 3 kept.b duplicate? id={}", stage.session.message_id(3)),
        format!("PUB 4 plain.b duplicate? id={}", stage.session.message_id(4)),
    ];
    stage.lose();
    (stage, sent_again)
}

#[test]
fn what_was_not_stored_goes_to_a_server_that_stores_nothing() {
    let (mut stage, [first, third, fourth]) = died_before_it_stored();
    stage.connect(plain());
    assert_eq!(stage.said(), [first, "PUB 2 kps.settled settled".into(), third, fourth]);
    assert_eq!(stage.session.released(), 0);
    stage.accepted(2);
    assert_eq!(stage.session.released(), 2, "accepted is all that this server promises");
    stage.accepted(4);
    assert_eq!(stage.session.released(), 4);
}

#[test]
fn what_was_not_stored_goes_to_a_server_that_stores_other_topics() {
    let (mut stage, [first, third, fourth]) = died_before_it_stored();
    let history = HistoryFrame { on_disk: true, patterns: vec!["plain.>", "kept.b"] };
    stage.connect(Welcome { history, features: features::HISTORY, ..plain() });
    assert_eq!(stage.said(), [first, "PUB 2 kps.settled settled".into(), third, fourth]);
    stage.accepted(4);
    assert_eq!(stage.session.released(), 2);
    stored(&mut stage, 3);
    assert_eq!(stage.session.released(), 3);
    stored(&mut stage, 4);
    assert_eq!(stage.session.released(), 4);
}

#[test]
fn what_was_not_stored_outlives_a_second_server_that_dies_too() {
    let (mut stage, [first, third, fourth]) = died_before_it_stored();
    stage.connect(plain());
    stage.said();
    stage.lose();
    stage.connect(Welcome { epoch: 3, ..keeping() });
    let again = [first, "PUB 2 kps.settled settled".into(), third, fourth];
    assert_eq!(stage.said(), again);
    stage.accepted(4);
    assert_eq!(stage.session.released(), 0);
    stored(&mut stage, 4);
    assert_eq!(stage.session.released(), 4);
}

#[test]
fn a_number_that_only_fills_a_hole_is_kept_until_it_is_sent() {
    let (mut stage, [first, third, fourth]) = died_before_it_stored();
    stage.connect(Welcome { epoch: 2, publish_window: 1, ..keeping() });
    assert_eq!(stage.said(), [first]);
    stage.accepted(1);
    stored(&mut stage, 1);
    assert_eq!(stage.said(), ["PUB 2 kps.settled settled"]);
    stage.accepted(2);
    assert_eq!(stage.said(), [third]);
    stage.accepted(3);
    stored(&mut stage, 3);
    assert_eq!(stage.said(), [fourth]);
}

#[test]
fn there_is_room_again_when_another_server_has_accepted_what_was_not_stored() {
    let outbox = OutboxBounds { soft_bytes: 20, ..OutboxBounds::default() };
    let mut stage = Stage::with(SessionConfig { outbox, ..SessionConfig::default() });
    stage.connect(keeping());
    stage.publish_plain("kept.a");
    stage.publish_plain("kept.b");
    stage.said();
    stage.accepted(2);
    stage.lose();
    stage.connect(plain());
    stage.said();
    assert!(!stage.session.watch_room(TARGET));
    stage.accepted(2);
    assert_eq!(stage.heard(), ["0: backpressure true", "0: backpressure false", "7: room"]);
}

#[test]
fn a_resumed_session_does_not_send_again_what_only_waits_to_be_stored() {
    let mut stage = stage();
    stage.publish_plain("kept.a");
    stage.publish_plain("kept.b");
    stage.said();
    stage.accepted(1);
    stage.lose();
    stage.connect(Welcome { resumed: true, published: 1, ..keeping() });
    assert_eq!(stage.said(), ["PUB 2 kept.b"]);
}

#[test]
fn each_receipt_waits_for_its_own_level() {
    let mut stage = stage();
    stage.publish("kept.a", &wanting(ReceiptLevel::Accepted)).unwrap();
    stage.publish("kept.a", &wanting(ReceiptLevel::Stored)).unwrap();
    stage.said();
    stage.accepted(2);
    assert_eq!(stage.heard(), ["7: receipt 1 accepted"]);
    assert!(!stage.session.watch(2, ReceiptLevel::Stored, TARGET).unwrap());
    stored(&mut stage, 2);
    assert_eq!(stage.heard(), ["7: receipt 2 stored", "7: receipt 2 stored"]);
    assert!(stage.session.watch(2, ReceiptLevel::Stored, TARGET).unwrap());
}

#[test]
fn stored_is_refused_where_it_cannot_be_reached() {
    let mut stage = stage();
    let refused = stage.publish("plain", &wanting(ReceiptLevel::Stored)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReceiptUnavailable);
    assert_eq!(stage.session.ledger().published.total, 0, "nothing was queued");

    // Before the first handshake nobody knows; then who waits is told, and the message goes on.
    let mut stage = Stage::new();
    stage.publish("plain", &wanting(ReceiptLevel::Stored)).unwrap();
    stage.publish("kept.a", &wanting(ReceiptLevel::Stored)).unwrap();
    stage.dial();
    stage.hear(&Frame::Welcome(keeping())).unwrap();
    assert!(stage.heard().contains(&"7: failed 1 receipt_unavailable".to_owned()));
    assert_eq!(stage.said().iter().filter(|frame| frame.starts_with("PUB")).count(), 2);
}

fn watch_stored(stage: &mut Stage, number: u64) -> std::result::Result<bool, &'static str> {
    let told = stage.session.watch(number, ReceiptLevel::Stored, TARGET);
    told.map_err(|error| error.kind().code())
}

#[test]
fn what_the_server_does_not_store_never_claims_to_be_stored() {
    let mut stage = Stage::new();
    stage.publish("plain", &wanting(ReceiptLevel::Stored)).unwrap();
    stage.connect(keeping());
    stage.publish_plain("kept.a");
    assert_eq!(watch_stored(&mut stage, 1), Err("receipt_unavailable"), "it waits for acceptance");
    assert_eq!(watch_stored(&mut stage, 2), Ok(false));
    stage.said();
    stage.accepted(2);
    assert_eq!(watch_stored(&mut stage, 1), Err("receipt_unavailable"));
    stored(&mut stage, 2);
    assert_eq!(stage.heard(), ["0: outbox flushed 1", "7: receipt 2 stored"]);
    assert_eq!(watch_stored(&mut stage, 1), Err("receipt_unavailable"));
    assert_eq!(watch_stored(&mut stage, 2), Ok(true));
}

#[test]
fn what_another_server_stored_stays_stored_and_what_it_did_not_does_not() {
    let (mut stage, _) = died_before_it_stored();
    let history = HistoryFrame { on_disk: true, patterns: vec!["kept.b"] };
    stage.connect(Welcome { history, features: features::HISTORY, ..plain() });
    stage.said();
    stage.accepted(4);
    stored(&mut stage, 4);
    stage.lose();
    stage.connect(Welcome { epoch: 3, ..keeping() });
    let told = [1, 2, 3, 4].map(|number| watch_stored(&mut stage, number));
    let no = Err("receipt_unavailable");
    assert_eq!(told, [no, no, Ok(true), no]);
}

#[test]
fn a_refused_message_is_not_stored() {
    let mut stage = stage();
    stage.publish_plain("kept.a");
    stage.publish_plain("kept.a");
    stage.said();
    let error = ErrorFrame {
        kind: ErrorKind::Unauthorized,
        reference: Reference::Publish(1),
        fatal: false,
        message: "no",
    };
    stage.hear(&Frame::Error(error)).unwrap();
    assert_eq!(watch_stored(&mut stage, 1), Ok(false), "it counts once its number is confirmed");
    stage.accepted(2);
    stored(&mut stage, 2);
    assert_eq!(stage.heard(), ["7: failed 1 unauthorized"]);
    assert_eq!(watch_stored(&mut stage, 1), Err("unauthorized"));
    assert_eq!(watch_stored(&mut stage, 2), Ok(true));
}

#[test]
fn a_refusal_after_acceptance_lets_the_message_go() {
    let mut stage = stage();
    stage.publish("kept.a", &wanting(ReceiptLevel::Stored)).unwrap();
    stage.said();
    stage.accepted(1);
    let error = ErrorFrame {
        kind: ErrorKind::StoreFailed,
        reference: Reference::Publish(1),
        fatal: false,
        message: "the disk is full",
    };
    stage.hear(&Frame::Error(error)).unwrap();
    assert_eq!(stage.heard(), ["7: failed 1 store_failed"]);
    assert_eq!(stage.session.released(), 1);
}

#[test]
fn an_outbox_on_disk_reaches_queued_on_disk() {
    let config = SessionConfig { outbox_on_disk: true, ..SessionConfig::default() };
    let mut stage = Stage::with(config);
    stage.publish("a", &wanting(ReceiptLevel::QueuedOnDisk)).unwrap();
    let mut events = Events::new();
    stage.session.persisted(1, &mut events);
    stage.events.append(&mut events);
    assert_eq!(stage.heard(), ["7: receipt 1 queued_on_disk"]);
    let memory = Stage::new().publish("a", &wanting(ReceiptLevel::QueuedOnDisk)).unwrap_err();
    assert_eq!(memory.kind(), ErrorKind::ReceiptUnavailable);
}

#[test]
fn once_the_disk_has_failed_nothing_more_is_queued_on_it_and_nothing_is_lost() {
    let config = SessionConfig { outbox_on_disk: true, ..SessionConfig::default() };
    let mut stage = Stage::with(config);
    for _ in 0..2 {
        stage.publish("a", &wanting(ReceiptLevel::QueuedOnDisk)).unwrap();
    }
    let mut events = Events::new();
    stage.session.persisted(1, &mut events);
    let error = Error::new(ErrorKind::StoreFailed, "the disk is full");
    stage.session.persist_failed(&error, &mut events);
    stage.events.append(&mut events);
    assert_eq!(stage.heard(), ["7: receipt 1 queued_on_disk", "7: failed 2 store_failed"]);
    let mut watch = |number| stage.session.watch(number, ReceiptLevel::QueuedOnDisk, Target(8));
    assert_eq!(watch(1), Ok(true));
    assert_eq!(watch(2), Err(error));
    stage.dial();
    stage.hear(&Frame::Welcome(keeping())).unwrap();
    assert_eq!(stage.said().iter().filter(|frame| frame.starts_with("PUB")).count(), 2);
}
