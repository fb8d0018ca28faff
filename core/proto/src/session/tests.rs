//! A session against a server played by hand: frames in, frames out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::{
    message::{Extras, GapReason, Payload},
    wire::{
        Frames,
        frame::{
            self, ErrorFrame, Extensions, GapFrame, Hello, MessageFrame, Name, Publish, REPORTS,
            Reference, Row, Subscribe, Welcome,
        },
    },
};

const TARGET: Target = Target(7);

/// A session and the server's pen.
struct Stage {
    session: Session,
    now: Time,
    events: Events,
}

fn welcome() -> Welcome<'static> {
    Welcome {
        version: 1,
        client_id: "me",
        session: b"0123456789abcdef",
        epoch: 1,
        time_base_ms: 1000,
        heartbeat_ms: 8000,
        max_payload: 1 << 20,
        publish_window: 1 << 16,
        publish_window_bytes: 8 << 20,
        aliases: 16,
        server: "test",
        ..Welcome::default()
    }
}

fn resumed(published: u64) -> Welcome<'static> {
    Welcome { resumed: true, published, ..welcome() }
}

impl Stage {
    fn new() -> Stage {
        Stage::with(SessionConfig::default())
    }

    fn with(config: SessionConfig) -> Stage {
        Stage { session: Session::new(config, 1), now: Time::ZERO, events: Events::new() }
    }

    /// Connected, with the handshake done.
    fn connected() -> Stage {
        let mut stage = Stage::new();
        stage.connect(welcome());
        stage
    }

    /// Connects and returns the HELLO's bytes.
    fn dial(&mut self) -> BytesMut {
        while !self.session.should_connect(self.now) {
            self.now =
                self.session.deadline().expect("it waits for its next attempt").max(self.now);
        }
        self.session.connected(self.now);
        self.bytes()
    }

    fn connect(&mut self, welcome: Welcome<'_>) {
        self.dial();
        self.hear(&Frame::Welcome(welcome)).unwrap();
        self.events.clear();
    }

    fn lose(&mut self) {
        self.session.disconnected(self.now, None, &mut self.events);
    }

    fn hear(&mut self, frame: &Frame<'_>) -> Result<()> {
        let mut bytes = BytesMut::new();
        encode(frame, &mut bytes);
        self.session.receive(self.now, &bytes, &mut self.events)
    }

    fn accepted(&mut self, published: u64) {
        self.hear(&Frame::Accepted { published, answered: 0 }).unwrap();
    }

    /// What the session sends now.
    fn bytes(&mut self) -> BytesMut {
        let mut out = BytesMut::new();
        while self.session.transmit(self.now, 1 << 20, &mut out) {}
        out
    }

    /// As text, one line per frame.
    fn said(&mut self) -> Vec<String> {
        Frames::new(&self.bytes()).map(|frame| describe(&frame.unwrap())).collect()
    }

    fn publish(&mut self, topic: &str, options: &PublishOptions<'_>) -> Result<u64> {
        let to = Destination::Topic(topic);
        self.session.publish(self.now, to, ContentType::Json, b"{}", options)
    }

    fn publish_plain(&mut self, topic: &str) -> u64 {
        self.publish(topic, &PublishOptions::default()).unwrap()
    }

    fn publish_with_ack(&mut self, timeout: Duration) -> u64 {
        let ack = AckRequest { timeout, request: false, target: TARGET };
        self.publish("a", &PublishOptions { ack: Some(ack), ..Default::default() }).unwrap()
    }

    fn subscribe(&mut self, options: SubscribeOptions) -> SubId {
        let sub = self.session.subscribe(TARGET, "a.*", options).unwrap();
        self.said();
        self.hear(&Frame::Subscribed { sub: sub.0 }).unwrap();
        self.events.clear();
        sub
    }

    fn message(&mut self, sub: SubId, delivery: Option<u64>) -> Result<()> {
        self.hear(&Frame::Message(message(sub, delivery)))
    }

    /// The events since the last call, as text.
    fn heard(&mut self) -> Vec<String> {
        self.events.drain(..).map(|(target, event)| tell(target, &event)).collect()
    }
}

fn message(sub: SubId, delivery: Option<u64>) -> MessageFrame<'static> {
    MessageFrame {
        sub: sub.0,
        topic: Name::Inline("a.b"),
        sender: Name::Inline("origin/you"),
        seq: 1,
        number: 1,
        time: 5,
        attempt: 1,
        delivery,
        request: false,
        maybe_duplicate: false,
        content_type: ContentType::Json,
        extensions: None,
        payload: b"{}",
    }
}

fn describe(frame: &Frame<'_>) -> String {
    match frame {
        Frame::Hello(Hello { client_id, session, received, .. }) => {
            format!("HELLO {client_id:?} {} {received:?}", session.len())
        }
        Frame::Subscribe(Subscribe { sub, pattern, window, again, .. }) => {
            format!("SUB {sub} {pattern} {window}{}", if *again { " again" } else { "" })
        }
        Frame::Unsubscribe { sub } => format!("UNSUB {sub}"),
        Frame::Publish(Publish { number, to, maybe_duplicate, prompt, extensions, .. }) => {
            let to = match to {
                frame::Destination::Topic(Name::Alias(number)) => format!("#{number}"),
                frame::Destination::Topic(Name::Inline(name)) => (*name).to_owned(),
                other => format!("{other:?}"),
            };
            let mut text = format!("PUB {number} {to}");
            if *maybe_duplicate {
                text += " duplicate?";
            }
            if *prompt {
                text += " prompt";
            }
            if let Some(Extensions { id: Some(id), .. }) = extensions.as_deref() {
                text += &format!(" id={id}");
            }
            if let Some(Extensions { ack_timeout_ms: Some(ms), .. }) = extensions.as_deref() {
                text += &format!(" ack={ms}");
            }
            text
        }
        Frame::Credit { sub: REPORTS, consumed } => format!("CREDIT reports {consumed}"),
        Frame::Credit { sub, consumed } => format!("CREDIT {sub} {consumed}"),
        Frame::Answer(answer) => {
            format!("ANSWER {} to {} {}", answer.number, answer.delivery, answer.status.as_str())
        }
        Frame::Cancel { number } => format!("CANCEL {number}"),
        Frame::Alias { number, name } => format!("ALIAS {number} {name}"),
        Frame::Unalias { number } => format!("UNALIAS {number}"),
        Frame::Ping { .. } => "PING".into(),
        Frame::Pong { nonce } => format!("PONG {nonce}"),
        other => panic!("a client does not say {other:?}"),
    }
}

fn tell(target: Target, event: &Event) -> String {
    let text = match event {
        Event::State { state, error, resumed } => {
            let error = error.as_ref().map_or("", |error| error.code());
            format!("{} {error}{}", state.as_str(), if *resumed { "resumed" } else { "" })
        }
        Event::Subscribed { sub } => format!("subscribed {}", sub.0),
        Event::SubscribeFailed { sub, error } => format!("refused {} {}", sub.0, error.code()),
        Event::Unsubscribed { sub } => format!("unsubscribed {}", sub.0),
        Event::SubscriptionClosed { sub, error } => format!("closed {} {}", sub.0, error.code()),
        Event::Message { sub, message, delivery, .. } => {
            format!("message {} {} {delivery:?}", sub.0, message.topic)
        }
        Event::Gap { sub, gap } => {
            format!("gap {} {} {:?} {}", sub.0, gap.topic, gap.count, gap.reason.as_str())
        }
        Event::Resumed { sub, replayed } => format!("resumed {} {replayed}", sub.0),
        Event::CancelDelivery { sub, delivery } => format!("cancel {} {delivery}", sub.0),
        Event::Receipt { number, level } => format!("receipt {number} {}", level.as_str()),
        Event::PublishFailed { number, error, .. } => format!("failed {number} {}", error.code()),
        Event::Room => "room".into(),
        Event::Flushed { error } => format!("flushed {}", error.is_none()),
        Event::Recipients { ack, clients } => format!("recipients {ack} {}", clients.join(" ")),
        Event::Row { ack, row } => format!("row {ack} {} {}", row.client_id, row.status.as_str()),
        Event::AckDone { ack, error } => {
            format!("done {ack} {}", error.as_ref().map_or("", |error| error.code()))
        }
        Event::RequestDone { ack, result } => match result {
            Ok(row) => format!("answered {ack} {}", row.client_id),
            Err(error) => format!("unanswered {ack} {}", error.code()),
        },
        Event::Goaway { reason } => format!("goaway {reason}"),
    };
    format!("{}: {}", target.0, text.trim_end())
}

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
    assert_eq!(stage.heard(), ["7: receipt 5 accepted"]);
    assert_eq!(stage.session.ledger().published.accepted, 5);
}

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
fn the_hard_bound_refuses_and_the_soft_bound_tells_when_there_is_room() {
    let outbox = OutboxBounds { soft_bytes: 1000, hard_bytes: 2000, hard_messages: 1000 };
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
    assert_eq!(stage.heard(), ["7: room"]);
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
    assert_eq!(stage.session.close(stage.now, &mut stage.events).abandoned, [id]);
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
    assert_eq!(report.abandoned, [stage.session.message_id(2)]);
    assert!(stage.session.close(stage.now, &mut stage.events).abandoned.is_empty());
    let ledger = stage.session.ledger();
    assert_eq!((ledger.totals.cancelled, ledger.totals.pending), (1, 0));
    assert_eq!(ledger.subscriptions.len(), 1, "direct messages alone");
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
    stage.hear(&Frame::Subscribed { sub: sub.0 }).unwrap();
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
    stage.hear(&Frame::Subscribed { sub: 1 }).unwrap();
    assert_eq!(stage.heard(), ["7: subscribed 1"]);
}

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

#[test]
fn a_leaving_server_is_left_alone_for_as_long_as_it_asks() {
    let mut stage = Stage::connected();
    stage.hear(&Frame::Goaway { delay_ms: 2000, reason: "restart" }).unwrap();
    stage.lose();
    assert_eq!(stage.heard(), ["0: goaway restart", "0: reconnecting disconnected"]);
    assert!(stage.session.deadline().unwrap() > stage.now + Duration::from_secs(2));
    let whats: Vec<_> = stage.session.timeline().map(|moment| moment.what).collect();
    assert_eq!(whats, ["connecting", "connected", "goaway", "disconnected"]);
}
