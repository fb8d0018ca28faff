//! The bus driven by frames, without a wire.

use std::time::Duration;

use super::*;
use crate::{
    message::{ContentType, Gap, GapReason, RowStatus},
    options::Overflow,
    wire::frame::{AnswerFrame, Destination, Extensions, Name, Publish, REPORTS, Subscribe},
};

mod grants;
mod kept;
mod observed;
mod policies;
mod retained;

struct World {
    bus: Bus,
    now: Time,
    seed: u8,
}

#[derive(Clone, Copy)]
struct Peer {
    port: PortId,
}

fn small() -> BusConfig {
    BusConfig {
        limits: Limits { queue_bytes: 4096, payload: 1024, ..Limits::default() },
        ..BusConfig::default()
    }
}

impl World {
    fn new(config: BusConfig) -> World {
        World { bus: Bus::new(config), now: Time::ZERO, seed: 0 }
    }

    fn attach(&mut self, id: &str, session: &[u8], received: &[(u32, u64)]) -> Result<Attached> {
        self.seed += 1;
        self.bus.attach(
            self.now,
            Attach {
                principal: Principal::default(),
                kind: PortKind::Native,
                client_id: id,
                origin: &format!("origin of {id}"),
                session,
                received,
                entropy: [self.seed; 24],
            },
        )
    }

    fn connect(&mut self, id: &str) -> Peer {
        Peer { port: self.attach(id, &[], &[]).unwrap().port }
    }

    fn handle(&mut self, peer: Peer, frame: Frame<'_>) {
        self.bus.handle(self.now, peer.port, &frame).unwrap();
    }

    fn subscribe(&mut self, peer: Peer, sub: u32, pattern: &str) {
        self.subscribe_with(peer, Subscribe { sub, pattern, ..subscribe_defaults() });
    }

    fn subscribe_with(&mut self, peer: Peer, subscribe: Subscribe<'_>) {
        let sub = subscribe.sub;
        self.handle(peer, Frame::Subscribe(subscribe));
        let outputs = self.pull(peer);
        assert!(
            outputs.iter().any(|o| matches!(o, Output::Subscribed { sub: s, .. } if *s == sub)),
            "{outputs:?}"
        );
    }

    fn publish(&mut self, peer: Peer, number: u64, topic: &str, payload: &[u8]) {
        self.handle(peer, Frame::Publish(publish(number, topic, payload)));
    }

    fn publish_ack(&mut self, peer: Peer, number: u64, topic: &str, timeout_ms: u64) {
        let extensions = Extensions { ack_timeout_ms: Some(timeout_ms), ..Extensions::default() };
        let frame = Publish {
            ack: true,
            extensions: Some(Box::new(extensions)),
            ..publish(number, topic, b"1")
        };
        self.handle(peer, Frame::Publish(frame));
    }

    fn answer(&mut self, peer: Peer, number: u64, delivery: u64, status: RowStatus) {
        self.handle(
            peer,
            Frame::Answer(AnswerFrame {
                number,
                delivery,
                more: false,
                status,
                error: None,
                data: Some((ContentType::Json, b"42")),
                retry_delay_ms: None,
            }),
        );
    }

    fn credit(&mut self, peer: Peer, sub: u32, consumed: u64) {
        self.handle(peer, Frame::Credit { sub, consumed });
    }

    fn pull(&mut self, peer: Peer) -> Vec<Output> {
        let mut out = Vec::new();
        while self.bus.pull(self.now, peer.port, 1 << 16, &mut out) {}
        out
    }

    fn delivered(&mut self, peer: Peer) -> Vec<(u32, u64)> {
        self.pull(peer)
            .into_iter()
            .filter_map(|output| match output {
                Output::Deliver { sub, published, .. } => Some((sub, published.number)),
                _ => None,
            })
            .collect()
    }

    fn rows(&mut self, peer: Peer) -> Vec<(u64, RowStatus)> {
        self.pull(peer)
            .into_iter()
            .filter_map(|output| match output {
                Output::Row { number, status, .. } => Some((number, status)),
                _ => None,
            })
            .collect()
    }

    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.bus.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.bus.tick(self.now);
        }
        self.now = end;
    }
}

fn publish<'a>(number: u64, topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    Publish {
        number,
        to: Destination::Topic(Name::Inline(topic)),
        ack: false,
        request: false,
        prompt: false,
        maybe_duplicate: false,
        content_type: ContentType::Json,
        extensions: None,
        payload,
    }
}

fn subscribe_defaults() -> Subscribe<'static> {
    Subscribe { window: 4, window_bytes: 1 << 20, ..Subscribe::default() }
}

fn delivery(outputs: &[Output]) -> u64 {
    let found = outputs.iter().find_map(|output| match output {
        Output::Deliver { delivery, .. } => *delivery,
        _ => None,
    });
    found.expect("a delivery that wants an answer")
}

fn gaps(outputs: &[Output]) -> Vec<Gap> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Gap { gap, .. } => Some(gap.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_message_reaches_every_matching_subscription_once_and_repeats_are_ignored() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.subscribe(a, 1, "t.*");
    world.subscribe(b, 1, "t.x");
    world.subscribe(b, 2, ">");
    world.publish(a, 1, "t.x", b"1");
    world.publish(a, 1, "t.x", b"1");
    assert_eq!(world.delivered(a), [(1, 1)]);
    assert_eq!(world.delivered(b), [(1, 1), (2, 1)]);
    let refused = world.bus.handle(world.now, a.port, &Frame::Publish(publish(3, "t.x", b"1")));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn seq_is_consecutive_within_a_topic() {
    let mut world = World::new(small());
    let a = world.connect("a");
    world.subscribe(a, 1, ">");
    for (number, topic) in [(1, "x"), (2, "y"), (3, "x")] {
        world.publish(a, number, topic, b"1");
    }
    let seqs: Vec<u64> = world
        .pull(a)
        .iter()
        .filter_map(|output| match output {
            Output::Deliver { published, .. } => Some(published.seq),
            _ => None,
        })
        .collect();
    assert_eq!(seqs, [1, 1, 2]);
}

#[test]
fn a_group_shares_and_outsiders_get_everything() {
    let mut world = World::new(small());
    let (a, b, c) = (world.connect("a"), world.connect("b"), world.connect("c"));
    for peer in [a, b] {
        world.subscribe_with(
            peer,
            Subscribe { sub: 1, pattern: "t", group: "g", ..subscribe_defaults() },
        );
    }
    world.subscribe(c, 1, "t");
    for number in 1..=4 {
        world.publish(c, number, "t", b"1");
    }
    let (a, b, c) = (world.delivered(a), world.delivered(b), world.delivered(c));
    assert_eq!((a.len(), b.len(), c.len()), (2, 2, 4));
}

#[test]
fn credit_opens_the_window_and_forgets_what_was_consumed() {
    let mut world = World::new(small());
    let a = world.connect("a");
    world.subscribe(a, 1, "t");
    for number in 1..=6 {
        world.publish(a, number, "t", b"1");
    }
    assert_eq!(world.delivered(a).len(), 4);
    world.credit(a, 1, 3);
    assert_eq!(world.delivered(a), [(1, 5), (1, 6)]);
    world.credit(a, 1, 6);
    assert_eq!(world.bus.memory(), 0);
    assert_eq!(world.bus.ledger().delivered, 6);
    assert!(world.bus.ledger().is_balanced());
}

#[test]
fn block_parks_the_publisher_until_there_is_room() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    let slow = Subscribe { sub: 1, pattern: "t", capacity: 4, ..subscribe_defaults() };
    world.subscribe_with(b, slow);
    for number in 1..=6 {
        world.publish(a, number, "t", b"1");
    }
    assert!(world.bus.is_paused(a.port));
    let accepted = |outputs: &[Output]| {
        outputs.iter().find_map(|output| match output {
            Output::Accepted { published, .. } => Some(*published),
            _ => None,
        })
    };
    assert_eq!(accepted(&world.pull(a)), Some(4));
    assert_eq!(world.delivered(b).len(), 4);
    world.credit(b, 1, 4);
    assert_eq!(world.delivered(b), [(1, 5), (1, 6)]);
    assert_eq!(accepted(&world.pull(a)), Some(6));
    assert!(!world.bus.is_paused(a.port));
}

#[test]
fn a_stalled_block_subscription_is_closed_with_a_gap_and_its_publisher_goes_on() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    let slow = Subscribe { sub: 1, pattern: "t", capacity: 6, ..subscribe_defaults() };
    world.subscribe_with(b, slow);
    for number in 1..=8 {
        world.publish(a, number, "t", b"1");
    }
    assert_eq!(world.delivered(b).len(), 4);
    world.advance(Duration::from_secs(9));
    assert!(world.bus.is_paused(a.port));
    world.advance(Duration::from_secs(2));
    assert!(!world.bus.is_paused(a.port));
    let outputs = world.pull(b);
    let gap = &gaps(&outputs)[0];
    assert_eq!((gap.count, gap.first, gap.last), (Some(2), Some(5), Some(6)));
    assert_eq!(gap.reason, GapReason::SlowConsumer);
    assert!(matches!(
        outputs.last(),
        Some(Output::Error { error, .. }) if error.kind() == ErrorKind::SlowConsumer
    ));
    world.credit(b, 1, 6);
    let ledger = world.bus.ledger();
    assert_eq!((ledger.accepted, ledger.delivered, ledger.dropped), (6, 4, 2));
    assert!(ledger.is_balanced());
}

#[test]
fn a_publish_into_ones_own_full_subscription_is_refused_not_deadlocked() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let own = Subscribe { sub: 1, pattern: "t", capacity: 2, ..subscribe_defaults() };
    world.subscribe_with(a, own);
    for number in 1..=5 {
        world.publish(a, number, "t", b"1");
    }
    world.pull(a);
    world.advance(Duration::from_secs(2));
    let refused: Vec<_> = world
        .pull(a)
        .into_iter()
        .filter_map(|output| match output {
            Output::Error { error, .. } => Some(error.kind()),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [ErrorKind::WouldDeadlock; 3]);
    world.credit(a, 1, 2);
    world.publish(a, 6, "t", b"1");
    assert_eq!(world.delivered(a), [(1, 6)]);
}

#[test]
fn each_policy_drops_what_it_promises_and_reports_it() {
    for (overflow, kept, first, last) in [
        (Overflow::DropOldest, vec![1, 2, 5, 6], 3, 4),
        (Overflow::DropNewest, vec![1, 2, 3, 4], 5, 6),
        (Overflow::Latest, vec![1, 2, 6], 3, 5),
    ] {
        let mut world = World::new(small());
        let (a, b) = (world.connect("a"), world.connect("b"));
        let lossy = Subscribe {
            sub: 1,
            pattern: "t",
            overflow,
            capacity: 4,
            window: 2,
            ..subscribe_defaults()
        };
        world.subscribe_with(b, lossy);
        for number in 1..=6 {
            world.publish(a, number, "t", b"1");
            if number <= 2 {
                assert_eq!(world.delivered(b), [(1, number)]);
            }
        }
        let (mut got, mut gap, mut consumed) = (vec![1, 2], Vec::new(), 2);
        loop {
            world.credit(b, 1, consumed);
            let outputs = world.pull(b);
            consumed += outputs.len() as u64;
            gap.extend(gaps(&outputs));
            got.extend(outputs.iter().filter_map(|output| match output {
                Output::Deliver { published, .. } => Some(published.number),
                _ => None,
            }));
            if outputs.is_empty() {
                break;
            }
        }
        assert_eq!(got, kept, "{overflow:?}");
        let expected = (Some(last - first + 1), Some(first), Some(last));
        assert_eq!(gap.len(), 1, "{overflow:?}: drops merge while nothing is taken");
        assert_eq!((gap[0].count, gap[0].first, gap[0].last), expected, "{overflow:?}");
        let ledger = world.bus.ledger();
        assert!(ledger.is_balanced(), "{ledger:?}");
        assert_eq!(ledger.dropped, last - first + 1);
        assert_eq!(world.bus.memory(), 0);
    }
}

#[test]
fn an_ack_has_one_row_per_recipient_and_frees_its_memory() {
    let mut world = World::new(small());
    let (a, b, c) = (world.connect("a"), world.connect("b"), world.connect("c"));
    world.subscribe(b, 1, "t");
    world.subscribe(b, 2, ">");
    world.subscribe(c, 1, "t");
    world.publish_ack(a, 1, "t", 1000);
    let outputs = world.pull(a);
    assert!(matches!(&outputs[0], Output::Recipients { clients, .. } if clients.len() == 2));
    let to_b: Vec<u64> = world
        .pull(b)
        .iter()
        .filter_map(|output| match output {
            Output::Deliver { delivery, .. } => *delivery,
            _ => None,
        })
        .collect();
    assert_eq!(to_b.len(), 2);
    world.answer(b, 1, to_b[0], RowStatus::Acked);
    assert_eq!(world.rows(a), []);
    world.answer(b, 2, to_b[1], RowStatus::Failed);
    assert_eq!(world.rows(a), [(1, RowStatus::Failed)]);
    let to_c = delivery(&world.pull(c));
    world.answer(c, 1, to_c, RowStatus::Acked);
    assert_eq!(world.rows(a), [(1, RowStatus::Acked)]);
    assert!(world.bus.acks.is_empty());
    assert!(world.bus.sessions.values().all(|session| session.deliveries.is_empty()));
}

#[test]
fn acks_time_out_are_cancelled_and_end_at_once_without_recipients() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.subscribe(b, 1, "t");
    world.publish_ack(a, 1, "t", 100);
    world.publish_ack(a, 2, "t", 100);
    world.publish_ack(a, 3, "nobody", 100);
    assert_eq!(world.bus.ack_status(a.port, 1).unwrap(), [("b".into(), false)]);
    world.handle(a, Frame::Cancel { number: 2 });
    assert_eq!(world.rows(a), [(2, RowStatus::Cancelled)]);
    assert!(world.pull(b).iter().any(|output| matches!(output, Output::Cancel { .. })));
    world.advance(Duration::from_millis(200));
    assert_eq!(world.rows(a), [(1, RowStatus::Timeout)]);
    assert!(world.bus.ack_status(a.port, 1).is_none());
    assert!(world.bus.acks.is_empty());
}

#[test]
fn a_recipient_that_disconnects_fails_its_row_at_once() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.subscribe(b, 1, "t");
    world.publish_ack(a, 1, "t", 1000);
    world.bus.detach(world.now, b.port, true);
    assert_eq!(world.rows(a), [(1, RowStatus::Disconnected)]);
}

#[test]
fn a_resumed_session_gets_what_it_missed_and_nothing_twice() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let first = world.attach("b", &[], &[]).unwrap();
    let b = Peer { port: first.port };
    world.subscribe(b, 1, "t");
    for number in 1..=3 {
        world.publish(a, number, "t", b"1");
    }
    assert_eq!(world.delivered(b).len(), 3);
    world.credit(b, 1, 1);
    world.bus.detach(world.now, b.port, true);
    world.publish(a, 4, "t", b"1");
    world.advance(Duration::from_secs(5));
    let again = world.attach("b", &first.session, &[(1, 2), (REPORTS, 0)]).unwrap();
    assert!(again.resumed);
    let b = Peer { port: again.port };
    let outputs = world.pull(b);
    assert!(matches!(outputs[0], Output::Resumed { sub: 1, replayed: 2 }));
    let numbers: Vec<u64> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Deliver { published, .. } => Some(published.number),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [3, 4]);
    world.bus.detach(world.now, b.port, true);
    world.advance(Duration::from_secs(31));
    let late = world.attach("b", &first.session, &[(1, 4)]).unwrap();
    assert!(!late.resumed);
    assert!(world.bus.ledger().is_balanced());
}

#[test]
fn rows_reach_the_publisher_across_its_own_reconnect() {
    let mut world = World::new(small());
    let first = world.attach("a", &[], &[]).unwrap();
    let (a, b) = (Peer { port: first.port }, world.connect("b"));
    world.subscribe(b, 1, "t");
    world.publish_ack(a, 1, "t", 1000);
    assert_eq!(world.rows(a), []);
    let to_b = delivery(&world.pull(b));
    world.answer(b, 1, to_b, RowStatus::Acked);
    // The row is handed to a socket that dies before it arrives.
    assert_eq!(world.rows(a).len(), 1);
    world.bus.detach(world.now, a.port, true);
    let again = world.attach("a", &first.session, &[(REPORTS, 1)]).unwrap();
    let a = Peer { port: again.port };
    assert_eq!(world.rows(a), [(1, RowStatus::Acked)]);
    world.credit(a, REPORTS, 2);
    assert!(world.bus.sessions.values().all(|session| session.reports.log.is_empty()));
}

#[test]
fn an_id_is_taken_over_by_a_newer_anonymous_client_and_kept_by_another_principal() {
    let mut world = World::new(small());
    let old = world.connect("a");
    world.connect("a");
    assert!(matches!(
        world.pull(old).last(),
        Some(Output::Close(error)) if error.kind() == ErrorKind::Replaced
    ));
    let named = Attach {
        principal: Principal { name: Some("p".into()), ..Principal::default() },
        kind: PortKind::Native,
        client_id: "a",
        origin: "o",
        session: &[],
        received: &[],
        entropy: [9; 24],
    };
    let error = world.bus.attach(world.now, named).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IdInUse);
}

#[test]
fn direct_messages_reach_the_id_and_an_unknown_id_is_refused() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    let to = |number, id| Publish { to: Destination::Client(id), ..publish(number, "", b"1") };
    world.handle(a, Frame::Publish(to(1, "b")));
    world.handle(a, Frame::Publish(to(2, "nobody")));
    assert_eq!(world.delivered(b), [(0, 1)]);
    assert!(world.pull(a).iter().any(|output| matches!(
        output,
        Output::Error { error, .. } if error.kind() == ErrorKind::NotFound
    )));
}

#[test]
fn an_expired_request_is_never_handed_over() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.subscribe(b, 1, "t");
    let extensions = Extensions { ack_timeout_ms: Some(50), ..Extensions::default() };
    let request = Publish {
        ack: true,
        request: true,
        extensions: Some(Box::new(extensions)),
        ..publish(1, "t", b"1")
    };
    world.handle(a, Frame::Publish(request));
    world.advance(Duration::from_millis(60));
    assert_eq!(world.delivered(b), []);
    assert_eq!(world.rows(a), [(1, RowStatus::Timeout)]);
    assert_eq!(world.bus.ledger().expired, 1);
}

#[test]
fn namespaces_do_not_see_each_other() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let other = Attach {
        principal: Principal { namespace: "other".into(), ..Principal::default() },
        kind: PortKind::Native,
        client_id: "a",
        origin: "o",
        session: &[],
        received: &[],
        entropy: [9; 24],
    };
    let b = Peer { port: world.bus.attach(world.now, other).unwrap().port };
    world.subscribe(b, 1, ">");
    world.publish(a, 1, "t", b"1");
    assert_eq!(world.delivered(b), []);
    assert_eq!((world.bus.count_clients(""), world.bus.count_clients("other")), (1, 1));
}

#[test]
fn a_client_that_leaves_takes_everything_with_it() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.subscribe(b, 1, "t");
    world.publish_ack(a, 1, "t", 1000);
    for peer in [a, b] {
        world.bus.detach(world.now, peer.port, false);
    }
    world.advance(Duration::from_secs(1));
    assert!(world.bus.is_empty());
    assert_eq!(world.bus.memory(), 0);
    assert!(world.bus.ledger().is_balanced());
}

#[test]
fn a_publisher_that_never_takes_its_reports_ends_instead_of_growing() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let refused = (1..).find(|number| {
        let frame = Frame::Publish(publish(*number, "kps.reserved", b"1"));
        world.bus.handle(world.now, a.port, &frame).is_err()
    });
    assert!(refused.is_some_and(|number| number < 200), "{refused:?}");
    assert!(world.bus.sessions.is_empty());
}

#[test]
fn a_million_acks_leave_no_tables_behind() {
    let mut world = World::new(BusConfig::default());
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.subscribe(b, 1, "t");
    for number in 1..=100_000 {
        world.publish_ack(a, number, "t", 100);
    }
    world.advance(Duration::from_millis(200));
    assert_eq!(world.rows(a).len(), 100_000);
    assert!(world.bus.acks.is_empty() && world.bus.acks.capacity() < 5000);
    for session in world.bus.sessions.values() {
        assert!(session.acks.capacity() < 5000 && session.deliveries.capacity() < 5000);
    }
}

#[test]
fn a_payload_over_the_limit_is_refused_whatever_the_client_checked() {
    let mut world = World::new(small());
    let a = world.connect("a");
    world.subscribe(a, 1, "t");
    world.publish(a, 1, "t", &[b'1'; 1025]);
    let outputs = world.pull(a);
    assert!(outputs.iter().any(|output| matches!(
        output,
        Output::Error { error, .. } if error.kind() == ErrorKind::PayloadTooLarge
    )));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Deliver { .. })));
}
