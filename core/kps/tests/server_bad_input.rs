//! What a peer may send wrongly: it is told with a stable code, its connection is closed only when
//! framing is lost, and others do not notice.
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

mod raw;

use kps::{
    ErrorKind, Server, ServerOptions,
    net::websocket::Opcode,
    proto::wire::frame::{
        AnswerFrame, Destination, Extensions, Frame, Hello, Name, Publish, Reference, Subscribe,
    },
};
use raw::{Bystanders, Came, Raw, publish, subscribe};

fn server() -> Server {
    Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap()
}

/// Runs `act` with a client; the others must go on before and after.
fn beside_others(act: impl FnOnce(&Server, &mut Raw)) {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    bystanders.go_on();
    let mut raw = Raw::native(&server, "clumsy");
    act(&server, &mut raw);
    bystanders.go_on();
}

/// The connection still works.
fn still_works(raw: &mut Raw) {
    raw.send(&[Frame::Ping { nonce: 77 }]);
    raw.until(|frame| matches!(frame, Frame::Pong { nonce: 77 }).then_some(()));
}

#[test]
fn malformed_frames_close_their_connection_with_the_reason() {
    let cases: &[(&str, &[u8])] = &[
        ("a length beyond the message", &[0x04, 0x20, 1]),
        (
            "an endless varint",
            &[0x04, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ),
        ("no length", &[0x04]),
    ];
    for (what, bytes) in cases {
        beside_others(|_, raw| {
            raw.put(Opcode::Binary, bytes);
            eprintln!("{what}");
            raw.is_closed_with(ErrorKind::Protocol);
        });
    }
}

#[test]
fn every_single_byte_frame_body_is_answered_or_closed_without_a_panic() {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    for kind in 0..=255 {
        let mut raw = Raw::native(&server, "byte");
        raw.put(Opcode::Binary, &[kind, 1, 0xff]);
        raw.send(&[Frame::Ping { nonce: 5 }]);
        // A pong if the frame was skipped or harmless, the end otherwise.
        match raw.next() {
            Came::Binary(_) => {}
            other => panic!("{kind}: {other:?}"),
        }
    }
    bystanders.go_on();
}

#[test]
fn unknown_frame_types_are_skipped() {
    beside_others(|_, raw| {
        raw.put(Opcode::Binary, &[250, 3, 1, 2, 3]);
        still_works(raw);
    });
}

#[test]
fn invalid_utf8_in_a_name_closes_the_connection() {
    beside_others(|_, raw| {
        let mut frame = bytes::BytesMut::new();
        kps::proto::wire::encode(&Frame::Subscribe(subscribe(1, "abcd")), &mut frame);
        let at = frame.windows(4).position(|window| window == b"abcd").unwrap();
        frame[at] = 0xff;
        raw.put(Opcode::Binary, &frame);
        raw.is_closed_with(ErrorKind::Protocol);
    });
}

#[test]
fn text_on_a_binary_protocol_closes_the_connection() {
    beside_others(|_, raw| {
        raw.text("{}");
        assert_eq!(raw.is_closed(), 1003);
    });
}

#[test]
fn broken_websocket_frames_close_the_connection() {
    let cases: &[(&[u8], u16)] = &[
        (&[0x82, 1, 0], 1002),                                        // not masked
        (&[0xf2, 0x80, 0, 0, 0, 0], 1002),                            // reserved bits
        (&[0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1009), // absurdly long
    ];
    for (bytes, code) in cases {
        beside_others(|_, raw| {
            raw.bytes(bytes);
            assert_eq!(raw.is_closed(), *code);
        });
    }
}

#[test]
fn a_connection_begins_with_hello() {
    let server = server();
    let mut raw = Raw::native_stranger(&server);
    raw.send(&[Frame::Publish(publish(1, "a", b"1"))]);
    raw.is_closed_with(ErrorKind::NotRegistered);
    let mut raw = Raw::native_stranger(&server);
    raw.send(&[Frame::Hello(Hello { versions: (2, 9), ..Hello::default() })]);
    raw.is_closed_with(ErrorKind::Unsupported);
    let mut raw = Raw::native(&server, "twice");
    raw.hello("twice", "");
    raw.is_closed_with(ErrorKind::Protocol);
}

#[test]
fn publish_numbers_have_no_holes_and_repeats_are_ignored() {
    beside_others(|server, raw| {
        let mut other = Raw::native(server, "other");
        other.subscribe(subscribe(1, "t"));
        for number in [1, 1, 2] {
            let payload = number.to_string();
            raw.send(&[Frame::Publish(publish(number, "t", payload.as_bytes()))]);
        }
        assert_eq!((other.message(1), other.message(1)), (b"1".to_vec(), b"2".to_vec()));
        raw.send(&[Frame::Publish(publish(9, "t", b"9"))]);
        raw.is_closed_with(ErrorKind::Protocol);
    });
}

#[test]
fn wrong_topics_are_refused_and_the_connection_goes_on() {
    beside_others(|_, raw| {
        let long = "x".repeat(2000);
        for topic in ["", "a.*", "a.>", "kps.sys", &long] {
            let number = raw.publish(topic, b"1");
            assert_eq!(raw.error(), (ErrorKind::InvalidTopic, Reference::Publish(number), false));
        }
        for (sub, pattern) in [(1, ""), (2, "a.>.b"), (3, &*long)] {
            raw.send(&[Frame::Subscribe(subscribe(sub, pattern))]);
            assert_eq!(raw.error(), (ErrorKind::InvalidTopic, Reference::Subscription(sub), false));
        }
        still_works(raw);
    });
}

#[test]
fn an_oversized_payload_is_refused_by_name() {
    beside_others(|_, raw| {
        let number = raw.publish("t", &vec![b'1'; (1 << 20) + 1]);
        assert_eq!(raw.error(), (ErrorKind::PayloadTooLarge, Reference::Publish(number), false));
        still_works(raw);
        raw.put(Opcode::Binary, &vec![0; 8 << 20]);
        assert_eq!(raw.is_closed(), 1009);
    });
}

#[test]
fn a_thousand_subscriptions_in_one_message_all_stand() {
    beside_others(|_, raw| {
        let topics: Vec<String> = (1..=1000).map(|n| format!("t.{n}")).collect();
        let frames: Vec<_> = topics
            .iter()
            .zip(1..)
            .map(|(topic, sub)| Frame::Subscribe(subscribe(sub, topic)))
            .collect();
        raw.send(&frames);
        raw.until(|frame| matches!(frame, Frame::Subscribed { sub: 1000, .. }).then_some(()));
        raw.publish("t.777", b"7");
        assert_eq!(raw.message(777), b"7");
    });
}

#[test]
fn subscriptions_have_a_limit() {
    let mut options = ServerOptions::listen("127.0.0.1:0");
    options.limits.subscriptions = 2;
    let server = Server::start(options).unwrap();
    let mut raw = Raw::native(&server, "a");
    raw.subscribe(subscribe(1, "a"));
    raw.subscribe(subscribe(2, "b"));
    raw.send(&[Frame::Subscribe(subscribe(3, "c"))]);
    assert_eq!(raw.error(), (ErrorKind::LimitExceeded, Reference::Subscription(3), false));
    still_works(&mut raw);
}

#[test]
fn wrong_subscriptions_are_refused() {
    beside_others(|_, raw| {
        raw.subscribe(subscribe(1, "a"));
        for frame in [subscribe(0, "x"), subscribe(u32::MAX, "x"), subscribe(1, "other")] {
            let sub = frame.sub;
            raw.send(&[Frame::Subscribe(frame)]);
            assert_eq!(
                raw.error(),
                (ErrorKind::InvalidArgument, Reference::Subscription(sub), false)
            );
        }
        raw.send(&[Frame::Subscribe(Subscribe { durable: "d", ..subscribe(5, "x") })]);
        assert_eq!(raw.error(), (ErrorKind::Unsupported, Reference::Subscription(5), false));
        still_works(raw);
    });
}

#[test]
fn aliases_beyond_the_limit_end_the_connection_and_unknown_ones_are_refused() {
    beside_others(|server, raw| {
        let alias = Publish { to: Destination::Topic(Name::Alias(3)), ..publish(1, "", b"1") };
        raw.send(&[Frame::Publish(alias)]);
        assert_eq!(raw.error(), (ErrorKind::InvalidTopic, Reference::Publish(1), false));
        raw.send(&[Frame::Alias { number: 4_000_000, name: "t" }]);
        raw.is_closed_with(ErrorKind::LimitExceeded);
        assert_eq!(server.count_subscribers("t"), 0);
    });
}

#[test]
fn answers_and_credits_out_of_nowhere_change_nothing() {
    beside_others(|_, raw| {
        raw.subscribe(subscribe(1, "t"));
        let answer = AnswerFrame {
            number: 1,
            delivery: 4711,
            more: false,
            status: kps::message::RowStatus::Acked,
            error: None,
            data: None,
            retry_delay_ms: None,
        };
        raw.send(&[
            Frame::Answer(answer),
            Frame::Credit { sub: 1, consumed: 1 << 50 },
            Frame::Credit { sub: 99, consumed: 1 },
            Frame::Cancel { number: 4711 },
            Frame::Unsubscribe { sub: 99 },
            Frame::Unalias { number: 99 },
        ]);
        raw.publish("t", b"1");
        assert_eq!(raw.message(1), b"1");
    });
}

#[test]
fn huge_timeouts_are_kept_within_the_clock() {
    beside_others(|server, raw| {
        let mut other = Raw::native(server, "other");
        other.subscribe(subscribe(1, "t"));
        for timeout in [0, 1 << 40, (1 << 53) - 1] {
            let extensions = Extensions {
                ack_timeout_ms: Some(timeout),
                ttl_ms: Some((1 << 53) - 1),
                ..Extensions::default()
            };
            raw.published(|number| Publish {
                ack: true,
                extensions: Some(Box::new(extensions)),
                ..publish(number, "t", b"1")
            });
            raw.until(|frame| matches!(frame, Frame::Recipients { .. }).then_some(()));
        }
        still_works(raw);
    });
}

#[test]
fn who_never_reads_keeps_nobody_waiting() {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    let mut deaf = Raw::native(&server, "deaf");
    // Each ping and each subscription asks for an answer that is never read.
    let frames: Vec<_> = (0..2000).map(|nonce| Frame::Ping { nonce }).collect();
    for round in 0..50 {
        deaf.send(&frames);
        let subs: Vec<_> = (0..200)
            .flat_map(|n| {
                let sub = 1 + round * 200 + n;
                [Frame::Subscribe(subscribe(sub, "x")), Frame::Unsubscribe { sub }]
            })
            .collect();
        deaf.send(&subs);
        bystanders.go_on();
    }
}

#[test]
fn who_never_gives_credit_gets_its_window_and_no_more() {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    let mut miser = Raw::native(&server, "miser");
    miser.subscribe(Subscribe { window: 3, ..subscribe(1, "t") });
    let mut publisher = Raw::native(&server, "publisher");
    for n in 0..10 {
        publisher.publish("t", n.to_string().as_bytes());
    }
    publisher.until(|f| matches!(f, Frame::Accepted { published: 10, .. }).then_some(()));
    for n in 0..3 {
        assert_eq!(miser.message(1), n.to_string().as_bytes());
    }
    // The next thing that comes is the pong, not a fourth message.
    miser.send(&[Frame::Ping { nonce: 1 }]);
    miser.until(|frame| match frame {
        Frame::Message(_) => panic!("beyond the window"),
        Frame::Pong { .. } => Some(()),
        _ => None,
    });
    miser.send(&[Frame::Credit { sub: 1, consumed: 1 }]);
    assert_eq!(miser.message(1), b"3");
    bystanders.go_on();
}

#[test]
fn a_token_in_auth_must_be_a_right_one() {
    let server = Server::start(ServerOptions {
        tokens: vec![kps::auth::Token::new("right")],
        ..ServerOptions::listen("127.0.0.1:0")
    })
    .unwrap();
    let mut raw = Raw::native_stranger(&server);
    raw.hello("a", "right");
    raw.until(|frame| matches!(frame, Frame::Welcome(_)).then_some(()));
    raw.send(&[Frame::Auth { token: "right" }]);
    still_works(&mut raw);
    raw.send(&[Frame::Auth { token: "wrong" }]);
    raw.is_closed_with(ErrorKind::Unauthorized);
}
