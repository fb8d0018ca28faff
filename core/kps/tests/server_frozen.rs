//! A subscriber frozen for good, under each policy: what it misses is counted and told, and others
//! are slowed under `block` alone, until its deadline.
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

mod raw;

use std::time::Duration;

use kps::{
    ErrorKind, Server, ServerOptions,
    message::GapReason,
    options::Overflow,
    proto::wire::frame::{ErrorFrame, Frame, MessageFrame, Reference, Subscribe},
};
use raw::{Bystanders, Raw, publish, subscribe};

const COUNT: u64 = 20_000;

/// A server whose subscriptions hold 64 KiB each.
fn server() -> Server {
    let mut options = ServerOptions::listen("127.0.0.1:0");
    options.limits.queue_bytes = 64 << 10;
    options.timings.stall_timeout = Duration::from_millis(200);
    Server::start(options).unwrap()
}

/// Publishes numbers until all are accepted; reads nothing else.
fn publish_all(publisher: &mut Raw) {
    for first in (1..=COUNT).step_by(1000) {
        let payloads: Vec<String> = (first..first + 1000).map(|n| n.to_string()).collect();
        let frames: Vec<_> = payloads
            .iter()
            .zip(first..)
            .map(|(payload, n)| Frame::Publish(publish(n, "t", payload.as_bytes())))
            .collect();
        publisher.send(&frames);
    }
    publisher.until(|f| matches!(f, Frame::Accepted { published: COUNT, .. }).then_some(()));
}

/// What a frozen subscription's stream holds once it is read: numbers in order, gaps, an end.
#[derive(Debug, Default)]
struct Stream {
    numbers: Vec<u64>,
    missing: u64,
    reasons: Vec<GapReason>,
    end: Option<ErrorKind>,
}

/// Thaws: reads with credit until message `last`, or the end of the subscription.
fn thaw(frozen: &mut Raw, last: u64) -> Stream {
    let mut stream = Stream::default();
    let mut consumed = 0;
    loop {
        let more = frozen.until(|frame| match frame {
            Frame::Message(MessageFrame { payload, .. }) => {
                stream.numbers.push(std::str::from_utf8(payload).unwrap().parse().unwrap());
                Some(stream.numbers.last() != Some(&last))
            }
            Frame::Gap(gap) => {
                stream.missing += gap.count.unwrap();
                stream.reasons.push(gap.reason);
                Some(true)
            }
            Frame::Error(ErrorFrame { kind, reference: Reference::Subscription(1), .. }) => {
                stream.end = Some(*kind);
                Some(false)
            }
            _ => None,
        });
        consumed += 1;
        frozen.send(&[Frame::Credit { sub: 1, consumed }]);
        if !more {
            return stream;
        }
    }
}

/// A subscriber under `overflow` freezes while others publish and read.
fn frozen(overflow: Overflow, last: u64) -> (Stream, Server) {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    let mut frozen = Raw::native(&server, "frozen");
    frozen.subscribe(Subscribe { overflow, window: 16, ..subscribe(1, "t") });
    let mut publisher = Raw::native(&server, "publisher");
    publish_all(&mut publisher);
    bystanders.go_on();
    let stream = thaw(&mut frozen, last);
    assert!(stream.numbers.is_sorted(), "order is kept");
    assert_eq!(stream.numbers.len() as u64 + stream.missing, COUNT, "every one is accounted for");
    (stream, server)
}

#[test]
fn drop_oldest_keeps_the_newest_and_tells_the_rest() {
    let (stream, _) = frozen(Overflow::DropOldest, COUNT);
    assert!(stream.missing > 0 && stream.reasons.iter().all(|r| *r == GapReason::Overflow));
    assert_eq!(stream.numbers.last(), Some(&COUNT));
}

#[test]
fn drop_newest_keeps_the_oldest_and_tells_the_rest() {
    let server = server();
    let mut frozen = Raw::native(&server, "frozen");
    let overflow = Overflow::DropNewest;
    frozen.subscribe(Subscribe { overflow, window: 16, ..subscribe(1, "t") });
    publish_all(&mut Raw::native(&server, "publisher"));
    let mut consumed = 0;
    let (mut numbers, mut missing) = (0, 0);
    while missing == 0 {
        frozen.until(|frame| match frame {
            Frame::Message(MessageFrame { payload, .. }) => {
                numbers += 1;
                assert_eq!(*payload, numbers.to_string().as_bytes());
                Some(())
            }
            Frame::Gap(gap) => {
                missing = gap.count.unwrap();
                Some(())
            }
            _ => None,
        });
        consumed += 1;
        frozen.send(&[Frame::Credit { sub: 1, consumed }]);
    }
    assert_eq!(numbers + missing, COUNT);
}

#[test]
fn latest_keeps_one_message_of_the_topic() {
    let (stream, _) = frozen(Overflow::Latest, COUNT);
    assert!(stream.numbers.len() <= 16 + 2, "{}", stream.numbers.len());
    assert_eq!(stream.numbers.last(), Some(&COUNT));
}

#[test]
fn disconnect_ends_the_subscription() {
    let (stream, server) = frozen_until_closed(Overflow::Disconnect);
    assert_eq!(stream.end, Some(ErrorKind::SlowConsumer));
    assert_eq!(server.count_subscribers("t"), 0);
}

#[test]
fn block_pauses_the_publisher_until_the_stall_deadline() {
    let (stream, server) = frozen_until_closed(Overflow::Block);
    assert_eq!(stream.end, Some(ErrorKind::SlowConsumer));
    assert!(stream.reasons.contains(&GapReason::SlowConsumer), "{:?}", stream.reasons);
    assert_eq!(server.count_subscribers("t"), 0);
}

/// The subscription ends while it is frozen; what came after is not its business any more.
fn frozen_until_closed(overflow: Overflow) -> (Stream, Server) {
    let server = server();
    let mut bystanders = Bystanders::new(&server);
    let mut frozen = Raw::native(&server, "frozen");
    frozen.subscribe(Subscribe { overflow, window: 16, ..subscribe(1, "t") });
    let mut publisher = Raw::native(&server, "publisher");
    publish_all(&mut publisher);
    bystanders.go_on();
    let stream = thaw(&mut frozen, u64::MAX);
    assert!(stream.numbers.is_sorted() && stream.missing > 0);
    let ledger = server.ledger();
    assert_eq!(
        ledger.accepted,
        ledger.delivered + ledger.dropped + ledger.expired + ledger.cancelled + ledger.pending,
        "{ledger:?}"
    );
    (stream, server)
}

#[test]
fn a_server_may_forbid_block() {
    let server =
        Server::start(ServerOptions { forbid_block: true, ..ServerOptions::listen("127.0.0.1:0") })
            .unwrap();
    let mut raw = Raw::native(&server, "a");
    raw.send(&[Frame::Subscribe(subscribe(1, "t"))]);
    assert_eq!(raw.error(), (ErrorKind::InvalidArgument, Reference::Subscription(1), false));
    raw.subscribe(Subscribe { overflow: Overflow::DropOldest, ..subscribe(2, "t") });
    // KPS JSON has no policies; it still works.
    let mut json = Raw::json(&server, "j");
    json.say(serde_json::json!({ "action": "subscribe", "topic": "t" }));
    assert_eq!(json.hear()["action"], "subscribed");
}

#[test]
fn a_kps_json_subscriber_frozen_for_a_while_loses_nothing() {
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let mut frozen = Raw::json(&server, "frozen");
    frozen.say(serde_json::json!({ "action": "subscribe", "topic": "t" }));
    assert_eq!(frozen.hear()["action"], "subscribed");
    publish_all(&mut Raw::native(&server, "publisher"));
    for n in 1..=COUNT {
        assert_eq!(frozen.hear()["data"], n);
    }
}
