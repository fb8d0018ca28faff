//! Any frame survives the wire; no bytes bring the decoder down.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use bytes::BytesMut;
use kps_proto::{
    ErrorKind,
    message::{ContentType, GapReason, Offline, RowStatus},
    options::{Overflow, Redelivery},
    wire::{
        Frames, encode, encode_message_head, encode_publish,
        frame::{
            AnswerFrame, Destination, Earlier, ErrorFrame, Extensions, Frame, GapFrame, Hello,
            HistoryFrame, MessageFrame, Name, Publish, Reference, Row, Start, Subscribe, Welcome,
            features,
        },
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

proptest! {
    #[test]
    fn any_frames_round_trip(frames in vec(frame(), 0..5)) {
        assert_frames(&encoded(&frames), &frames);
    }

    #[test]
    fn the_fast_helpers_write_what_encode_writes(publish in publish(), message in message()) {
        let mut out = BytesMut::new();
        encode_publish(&publish, &mut out);
        encode_message_head(&message, message.payload.len(), &mut out);
        out.extend_from_slice(message.payload);
        prop_assert_eq!(out, encoded(&[Frame::Publish(publish), Frame::Message(message)]));
    }

    #[test]
    fn any_bytes_end_in_frames_or_one_protocol_error(bytes in vec(any::<u8>(), 0..200)) {
        check_bytes(&bytes);
    }

    #[test]
    fn any_body_of_any_type_ends_in_frames_or_one_protocol_error(
        kind in 0..30_u8,
        body in vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..120),
    ) {
        let mut bytes = vec![kind, body.len() as u8];
        bytes.extend(body);
        check_bytes(&bytes);
    }

    #[test]
    fn a_damaged_frame_ends_in_frames_or_one_protocol_error(
        frame in frame(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encoded(&[frame]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check_bytes(&bytes);
    }

    #[test]
    fn a_frame_cut_short_is_an_error(frame in frame(), at in any::<prop::sample::Index>()) {
        let bytes = encoded(&[frame]);
        let cut = 1 + at.index(bytes.len() - 1);
        let error = Frames::new(&bytes[..cut]).next().unwrap().unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::Protocol);
    }

    #[test]
    fn unknown_types_and_longer_bodies_are_skipped(
        frame in frame().prop_filter("ends with its payload", |frame| {
            !matches!(frame, Frame::Publish(_) | Frame::Message(_))
        }),
        kind in 25..=255_u8,
        more in vec(any::<u8>(), 0..100),
    ) {
        let known = encoded(std::slice::from_ref(&frame));
        let body = Reframed::body(&known);
        let mut bytes = Vec::new();
        Reframed { kind, body: &more }.write(&mut bytes);
        Reframed { kind: known[0], body: &[body, &more].concat() }.write(&mut bytes);
        assert_frames(&bytes, &[frame]);
    }
}

/// Whatever is read without error is written back to the same frames.
fn check_bytes(bytes: &[u8]) {
    let mut frames = Vec::new();
    let mut items = Frames::new(bytes);
    for item in &mut items {
        match item {
            Ok(frame) => frames.push(frame),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Protocol);
                break;
            }
        }
    }
    assert!(items.next().is_none(), "nothing follows an error");
    assert_frames(&encoded(&frames), &frames);
}

fn assert_frames(bytes: &[u8], frames: &[Frame<'_>]) {
    assert_eq!(Frames::new(bytes).collect::<Result<Vec<_>, _>>().unwrap(), frames);
}

fn encoded(frames: &[Frame<'_>]) -> BytesMut {
    let mut out = BytesMut::new();
    for frame in frames {
        encode(frame, &mut out);
    }
    out
}

/// A frame put together by hand.
struct Reframed<'a> {
    kind: u8,
    body: &'a [u8],
}

impl<'a> Reframed<'a> {
    fn body(frame: &'a [u8]) -> &'a [u8] {
        let length = frame[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
        &frame[1 + length..]
    }

    /// Writes the length as a varint of five bytes, which is longer than need be.
    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.kind);
        let length = self.body.len();
        out.extend(
            (0..5).map(|at| (length >> (7 * at)) as u8 & 0x7f | if at < 4 { 0x80 } else { 0 }),
        );
        out.extend(self.body);
    }
}

// What the strategies make is leaked, so that frames can borrow it: a few megabytes per run.

fn text() -> impl Strategy<Value = &'static str> {
    any::<String>().prop_map(|text| &*text.leak())
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..300).prop_map(|bytes| &*bytes.leak())
}

/// Small ones and those at the bounds, more often than chance would.
fn int() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, (0..53_u32).prop_map(|bits| (1 << 53 >> bits) - 1), 0..1_u64 << 53]
}

fn content_type() -> impl Strategy<Value = ContentType> {
    select(&[ContentType::Json, ContentType::Text, ContentType::Bytes][..])
}

fn name() -> impl Strategy<Value = Name<'static>> {
    prop_oneof![any::<u32>().prop_map(Name::Alias), text().prop_map(Name::Inline)]
}

fn extensions() -> impl Strategy<Value = Option<Box<Extensions<'static>>>> {
    let earlier = (int(), int()).prop_map(|(epoch, time_ms)| Earlier { epoch, time_ms });
    let times = (option::of(int()), option::of(int()));
    let settled = prop_oneof![Just(0), Just(1), int()];
    let kept = ((settled, any::<bool>()), option::of(bytes()), option::of(earlier));
    let offline = (0..3_u8).prop_map(|number| Offline::from_number(number).unwrap());
    let policies = (option::of(vec(text(), 0..4)), any::<bool>(), offline);
    let some = (vec((text(), text()), 0..4), option::of(text()), times, kept, policies).prop_map(
        |(headers, id, times, kept, (to, private, offline))| {
            let (ttl_ms, ack_timeout_ms) = times;
            let ((settled, retained), cursor, earlier) = kept;
            let extensions = Extensions {
                headers,
                id,
                ttl_ms,
                ack_timeout_ms,
                settled,
                retained,
                cursor,
                earlier,
                to,
                private,
                offline,
            };
            (!extensions.is_empty()).then(|| Box::new(extensions))
        },
    );
    prop_oneof![Just(None), some]
}

fn publish() -> BoxedStrategy<Publish<'static>> {
    let to = prop_oneof![
        name().prop_map(Destination::Topic),
        text().prop_map(Destination::Client),
        text().prop_map(Destination::Server),
    ];
    (int(), to, any::<[bool; 4]>(), content_type(), extensions(), bytes())
        .prop_map(
            |(
                number,
                to,
                [ack, request, prompt, maybe_duplicate],
                content_type,
                extensions,
                payload,
            )| {
                Publish {
                    number,
                    to,
                    ack,
                    request,
                    prompt,
                    maybe_duplicate,
                    content_type,
                    extensions,
                    payload,
                }
            },
        )
        .boxed()
}

fn message() -> BoxedStrategy<MessageFrame<'static>> {
    let names = (any::<u32>(), name(), name());
    let numbers = (int(), int(), int(), prop_oneof![Just(1), any::<u32>()], option::of(int()));
    (names, numbers, any::<[bool; 2]>(), content_type(), extensions(), bytes())
        .prop_map(
            |(names, numbers, [request, maybe_duplicate], content_type, extensions, payload)| {
                let (sub, topic, sender) = names;
                let (seq, number, time, attempt, delivery) = numbers;
                MessageFrame {
                    sub,
                    topic,
                    sender,
                    seq,
                    number,
                    time,
                    attempt,
                    delivery,
                    request,
                    maybe_duplicate,
                    content_type,
                    extensions,
                    payload,
                }
            },
        )
        .boxed()
}

fn hello() -> BoxedStrategy<Hello<'static>> {
    let texts = (text(), text(), text(), text(), text());
    (any::<(u32, u32)>(), int(), texts, bytes(), vec((any::<u32>(), int()), 0..5))
        .prop_map(|(versions, features, texts, session, received)| {
            let (client_id, origin, namespace, token, agent) = texts;
            Hello {
                versions,
                features,
                client_id,
                origin,
                namespace,
                token,
                agent,
                session,
                received,
            }
        })
        .boxed()
}

fn welcome() -> BoxedStrategy<Welcome<'static>> {
    let ints = (int(), int(), int(), int(), int(), int(), int(), int(), int(), int());
    let history = (any::<bool>(), vec(text(), 0..4));
    (any::<(u32, u32, bool)>(), text(), bytes(), ints, (text(), history))
        .prop_map(|((version, aliases, resumed), client_id, session, ints, (server, history))| {
            Welcome {
                version,
                features: ints.0,
                client_id,
                session,
                resumed,
                epoch: ints.1,
                time_base_ms: ints.2,
                heartbeat_ms: ints.3,
                resume_window_ms: ints.4,
                published: ints.5,
                answered: ints.6,
                max_payload: ints.7,
                publish_window: ints.8,
                publish_window_bytes: ints.9,
                aliases,
                server,
                history: match ints.0 & features::HISTORY {
                    0 => HistoryFrame::default(),
                    _ => HistoryFrame { on_disk: history.0, patterns: history.1 },
                },
            }
        })
        .boxed()
}

fn subscribe() -> BoxedStrategy<Subscribe<'static>> {
    let start = prop_oneof![
        select(&[Start::New, Start::Last, Start::All][..]),
        bytes().prop_map(Start::Cursor),
        int().prop_map(Start::Time),
    ];
    let overflow = (0..6_u8).prop_map(|number| Overflow::from_number(number).unwrap());
    let numbers = (any::<(u32, u32, u32, (bool, bool))>(), int(), (int(), int(), any::<u32>()));
    (numbers, text(), text(), text(), overflow, (start, option::of(int())))
        .prop_map(
            |(
                ((sub, capacity, window, (again, retained)), window_bytes, redelivery),
                pattern,
                group,
                durable,
                overflow,
                (start, epoch),
            )| {
                Subscribe {
                    sub,
                    pattern,
                    group,
                    durable,
                    overflow,
                    capacity,
                    window,
                    window_bytes,
                    again,
                    epoch,
                    retained,
                    start,
                    redelivery: match durable {
                        "" => Redelivery::default(),
                        _ => Redelivery {
                            ack_wait: Duration::from_millis(redelivery.0),
                            retry_delay: Duration::from_millis(redelivery.1),
                            max_attempts: redelivery.2,
                        },
                    },
                }
            },
        )
        .boxed()
}

fn row() -> BoxedStrategy<Row<'static>> {
    let status = (0..7_u8).prop_map(|number| RowStatus::from_number(number).unwrap());
    let data = option::of((content_type(), bytes()));
    (int(), any::<(u32, bool)>(), status, int(), option::of((text(), text())), data)
        .prop_map(|(number, (recipient, more), status, latency_us, error, data)| Row {
            number,
            recipient,
            more,
            status,
            latency_us,
            error,
            data,
        })
        .boxed()
}

fn answer() -> BoxedStrategy<AnswerFrame<'static>> {
    let status = select(&[RowStatus::Acked, RowStatus::Failed, RowStatus::NoHandler][..]);
    let data = option::of((content_type(), bytes()));
    let retry = option::of(int());
    (int(), int(), any::<bool>(), status, option::of((text(), text())), data, retry)
        .prop_map(|(number, delivery, more, status, error, data, retry_delay_ms)| AnswerFrame {
            number,
            delivery,
            more,
            status,
            error,
            data,
            retry_delay_ms,
        })
        .boxed()
}

fn gap() -> BoxedStrategy<GapFrame<'static>> {
    let reason = (0..8_u8).prop_map(GapReason::from_number);
    (any::<u32>(), text(), option::of(int()), option::of((int(), int())), reason)
        .prop_map(|(sub, topic, count, range, reason)| GapFrame {
            sub,
            topic,
            count,
            range,
            reason,
        })
        .boxed()
}

fn error() -> BoxedStrategy<ErrorFrame<'static>> {
    let reference = prop_oneof![
        Just(Reference::Connection),
        any::<u32>().prop_map(Reference::Subscription),
        int().prop_map(Reference::Publish),
        int().prop_map(Reference::Delivery),
    ];
    (select(ErrorKind::ALL), reference, any::<bool>(), text())
        .prop_map(|(kind, reference, fatal, message)| ErrorFrame {
            kind,
            reference,
            fatal,
            message,
        })
        .boxed()
}

fn frame() -> BoxedStrategy<Frame<'static>> {
    let sub = any::<u32>;
    prop_oneof![
        3 => publish().prop_map(Frame::Publish),
        3 => message().prop_map(Frame::Message),
        1 => prop_oneof![
            hello().prop_map(Frame::Hello),
            welcome().prop_map(Frame::Welcome),
            text().prop_map(|token| Frame::Auth { token }),
            subscribe().prop_map(Frame::Subscribe),
            (sub(), bytes()).prop_map(|(sub, cursor)| Frame::Subscribed { sub, cursor }),
            sub().prop_map(|sub| Frame::Unsubscribe { sub }),
            sub().prop_map(|sub| Frame::Unsubscribed { sub }),
        ],
        1 => prop_oneof![
            (sub(), int()).prop_map(|(sub, consumed)| Frame::Credit { sub, consumed }),
            (int(), int()).prop_map(|(published, answered)| Frame::Accepted { published, answered }),
            int().prop_map(|published| Frame::Stored { published }),
            (int(), vec(text(), 0..6))
                .prop_map(|(number, clients)| Frame::Recipients { number, clients }),
            row().prop_map(Frame::Row),
            answer().prop_map(Frame::Answer),
            int().prop_map(|number| Frame::Cancel { number }),
            gap().prop_map(Frame::Gap),
        ],
        1 => prop_oneof![
            (sub(), int()).prop_map(|(sub, replayed)| Frame::Resumed { sub, replayed }),
            any::<u64>().prop_map(|nonce| Frame::Ping { nonce }),
            any::<u64>().prop_map(|nonce| Frame::Pong { nonce }),
            error().prop_map(Frame::Error),
            (int(), text()).prop_map(|(delay_ms, reason)| Frame::Goaway { delay_ms, reason }),
            (sub(), text()).prop_map(|(number, name)| Frame::Alias { number, name }),
            sub().prop_map(|number| Frame::Unalias { number }),
        ],
    ]
    .boxed()
}
