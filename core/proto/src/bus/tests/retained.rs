//! Retained messages.

use super::*;
use crate::{
    history::{HistoryRule, Page, ReadFrom, Record, Recovered, Write},
    wire::frame::{Reference, Start},
};

fn retained<'a>(number: u64, topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    let extensions = Extensions { retained: true, ..Extensions::default() };
    Publish { extensions: Some(Box::new(extensions)), ..publish(number, topic, payload) }
}

fn for_a_while<'a>(number: u64, topic: &'a str, ttl_ms: u64) -> Publish<'a> {
    let extensions = Extensions { retained: true, ttl_ms: Some(ttl_ms), ..Extensions::default() };
    Publish { extensions: Some(Box::new(extensions)), ..publish(number, topic, b"1") }
}

fn last(pattern: &str) -> Subscribe<'_> {
    Subscribe { sub: 1, pattern, start: Start::Last, window: 100, ..subscribe_defaults() }
}

fn keeping(recovered: Recovered) -> BusConfig {
    let rules = Arc::from([HistoryRule::parse("h.>").unwrap()]);
    let history = HistoryConfig { rules, on_disk: true, recovered, ..HistoryConfig::default() };
    BusConfig { history, epoch: 2, ..BusConfig::default() }
}

/// What was delivered: the publisher's number, and whether it was retained.
fn told_retained(outputs: &[Output]) -> Vec<(u64, bool)> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Deliver { published, .. } => {
            let extensions = published.extensions(Time::ZERO);
            Some((published.number, extensions.is_some_and(|extensions| extensions.retained)))
        }
        _ => None,
    });
    told.collect()
}

impl World {
    fn retain(&mut self, peer: Peer, number: u64, topic: &str) {
        self.handle(peer, Frame::Publish(retained(number, topic, b"1")));
    }

    /// Subscribes and takes what comes at once.
    fn begin(&mut self, peer: Peer, subscribe: Subscribe<'_>) -> Vec<(u64, bool)> {
        self.handle(peer, Frame::Subscribe(subscribe));
        told_retained(&self.pull(peer))
    }

    fn told_retained(&mut self, peer: Peer) -> Vec<(u64, bool)> {
        told_retained(&self.pull(peer))
    }

    fn all_writes(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        self.bus.take_writes(&mut writes);
        writes
    }

    fn retained_writes(&mut self) -> Vec<(String, bool)> {
        let writes = self.all_writes().into_iter().filter_map(|write| match write {
            Write::Retained(record) => Some((record.topic.to_string(), true)),
            Write::RetainedEnded(_, topic) => Some((topic.to_string(), false)),
            _ => None,
        });
        writes.collect()
    }

    fn reader(&mut self) -> Reader {
        let mut reads = self.bus.take_notices().filter_map(|notice| match notice {
            Notice::Read { reader, query } => Some((reader, query.from)),
            _ => None,
        });
        let Some((reader, ReadFrom::Last)) = reads.next() else { panic!("nothing is read") };
        reader
    }

    fn refusals(&mut self, peer: Peer) -> Vec<(u64, ErrorKind)> {
        let outputs = self.pull(peer).into_iter().filter_map(|output| match output {
            Output::Error { reference: Reference::Publish(number), error } => {
                Some((number, error.kind()))
            }
            _ => None,
        });
        outputs.collect()
    }
}

fn records(writes: Vec<Write>) -> Vec<Record> {
    let records = writes.into_iter().filter_map(|write| match write {
        Write::Record(record) => Some(*record),
        _ => None,
    });
    records.collect()
}

#[test]
fn who_begins_with_last_gets_each_topics_value_and_then_what_comes() {
    let mut world = World::new(BusConfig::default());
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.retain(a, 1, "s.1");
    world.retain(a, 2, "s.2");
    world.retain(a, 3, "s.1");
    world.publish(a, 4, "s.1", b"not kept");
    world.retain(a, 5, "other");
    assert_eq!(world.begin(b, last("s.*")), [(3, true), (2, true)]);
    world.publish(a, 6, "s.1", b"1");
    world.retain(a, 7, "s.2");
    assert_eq!(world.told_retained(b), [(6, false), (7, false)]);
    let new = Subscribe { sub: 2, start: Start::New, ..last("s.*") };
    assert_eq!(world.begin(b, new), []);
    assert!(world.bus.ledger().is_balanced());
}

#[test]
fn an_empty_payload_ends_it_and_is_delivered_like_any_other() {
    let mut world = World::new(BusConfig::default());
    let (a, b, c) = (world.connect("a"), world.connect("b"), world.connect("c"));
    world.retain(a, 1, "t");
    assert_eq!(world.begin(b, last("t")), [(1, true)]);
    world.handle(a, Frame::Publish(retained(2, "t", b"")));
    assert_eq!(world.told_retained(b), [(2, false)]);
    assert_eq!(world.begin(c, last("t")), []);
    assert_eq!(world.bus.retained(world.now), 0);
}

#[test]
fn its_time_to_live_holds() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.handle(a, Frame::Publish(for_a_while(1, "t", 1000)));
    world.handle(a, Frame::Publish(for_a_while(2, "u", 3000)));
    assert_eq!(world.retained_writes(), [("t".into(), true), ("u".into(), true)]);
    world.advance(Duration::from_secs(2));
    world.handle(b, Frame::Subscribe(last(">")));
    let reader = world.reader();
    world.bus.take_page(world.now, reader, Ok(Page::default()));
    assert_eq!(world.told_retained(b), [(2, true)]);
    assert_eq!(world.retained_writes(), [("t".into(), false)]);
    assert_eq!(world.bus.retained(world.now), 1);
}

#[test]
fn what_has_no_room_waits_and_what_comes_live_does_not_overtake_it() {
    let mut world = World::new(BusConfig::default());
    let (a, b) = (world.connect("a"), world.connect("b"));
    for (number, topic) in (1..).zip(["t.1", "t.2", "t.3", "t.4", "t.5"]) {
        world.retain(a, number, topic);
    }
    let few = Subscribe { capacity: 2, overflow: Overflow::DropOldest, ..last("t.*") };
    assert_eq!(world.begin(b, few), [(1, true), (2, true)]);
    world.credit(b, 1, 1);
    assert_eq!(world.told_retained(b), [(3, true)]);
    world.credit(b, 1, 3);
    // Topic 5 has its turn before the message that comes live, and not again.
    assert_eq!(world.told_retained(b), [(4, true), (5, true)]);
    world.credit(b, 1, 5);
    world.publish(a, 6, "t.5", b"1");
    assert_eq!(world.told_retained(b), [(6, false)]);
    assert_eq!(world.bus.walking, 0);
}

#[test]
fn a_topic_that_is_published_to_has_its_turn_first() {
    let mut world = World::new(BusConfig::default());
    let (a, b) = (world.connect("a"), world.connect("b"));
    for (number, topic) in (1..).zip(["t.1", "t.2", "t.3", "t.4"]) {
        world.retain(a, number, topic);
    }
    // Two fit; nothing of 3 and 4 is queued yet.
    let few = Subscribe { capacity: 4, window: 1, ..last("t.*") };
    let few = Subscribe { window_bytes: 1 << 20, ..few };
    world.handle(b, Frame::Subscribe(Subscribe { capacity: 2, ..few }));
    world.pull(b);
    world.credit(b, 1, 1);
    world.pull(b);
    world.credit(b, 1, 2);
    let mut seen = world.told_retained(b);
    world.publish(a, 5, "t.4", b"1");
    world.retain(a, 6, "t.9");
    for consumed in 3..10 {
        seen.extend(world.told_retained(b));
        world.credit(b, 1, consumed);
    }
    seen.extend(world.told_retained(b));
    let place = |number| seen.iter().position(|(found, _)| *found == number).unwrap();
    assert!(place(4) < place(5), "{seen:?}");
    assert_eq!(seen.iter().filter(|(number, _)| *number == 4).count(), 1, "{seen:?}");
    assert_eq!(seen.iter().filter(|(number, _)| *number == 6).count(), 1, "{seen:?}");
}

#[test]
fn there_is_a_bound_and_removing_makes_room() {
    let limits = Limits { retained: 2, retained_bytes: 1000, ..Limits::default() };
    let mut world = World::new(BusConfig { limits, ..BusConfig::default() });
    let a = world.connect("a");
    world.retain(a, 1, "t.1");
    world.retain(a, 2, "t.2");
    world.retain(a, 3, "t.3");
    world.retain(a, 4, "t.2");
    world.handle(a, Frame::Publish(retained(5, "t.1", &[1; 900])));
    assert_eq!(world.refusals(a), [(3, ErrorKind::LimitExceeded), (5, ErrorKind::LimitExceeded)]);
    world.handle(a, Frame::Publish(retained(6, "t.1", b"")));
    world.handle(a, Frame::Publish(for_a_while(7, "t.3", 1000)));
    assert_eq!(world.refusals(a), []);
    world.advance(Duration::from_secs(2));
    world.retain(a, 8, "t.4");
    assert_eq!(world.refusals(a), [], "what has expired makes room");
    let memory = world.bus.memory();
    assert!(memory > 0);
    for (number, topic) in [(9, "t.2"), (10, "t.4")] {
        world.handle(a, Frame::Publish(retained(number, topic, b"")));
    }
    assert_eq!(world.bus.memory(), 0);
}

#[test]
fn only_topics_retain() {
    let mut world = World::new(BusConfig::default());
    let a = world.connect("a");
    world.handle(
        a,
        Frame::Publish(Publish { to: Destination::Client("a"), ..retained(1, "t", b"1") }),
    );
    assert_eq!(world.refusals(a), [(1, ErrorKind::InvalidArgument)]);
}

#[test]
fn of_history_and_the_retained_message_the_newer_is_delivered_once() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.retain(a, 1, "h.same");
    world.retain(a, 2, "h.newer");
    world.publish(a, 3, "h.newer", b"1");
    world.retain(a, 4, "h.gone");
    world.retain(a, 5, "plain");
    let writes = world.all_writes();
    assert_eq!(writes.iter().filter(|write| matches!(write, Write::Retained(_))).count(), 4);
    let mut records = records(writes);
    assert_eq!(records.len(), 4);
    world.bus.stored(world.now, 4);
    world.handle(b, Frame::Subscribe(last(">")));
    let reader = world.reader();
    // While the page is on its way.
    world.publish(a, 6, "plain", b"1");
    world.publish(a, 7, "h.same", b"1");
    // The limits of history have removed what "h.gone" had.
    records.retain(|record| record.number == 1 || record.number == 3);
    let page = Page { records, through: 4, ..Page::default() };
    world.bus.take_page(world.now, reader, Ok(page));
    let told = world.told_retained(b);
    assert_eq!(told, [(5, true), (6, false), (1, true), (3, false), (4, true), (7, false)]);
    assert!(world.bus.ledger().is_balanced());
}

#[test]
fn behind_a_newer_message_that_one_may_not_have_stands_the_retained_one() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b) = (world.connect("a"), world.connect("b"));
    let mut number = 0;
    type Change = fn(&mut Extensions<'_>);
    let changes: [(&str, Change); 3] = [
        ("h.some", |extensions| extensions.to = Some(vec!["a"])),
        ("h.private", |extensions| extensions.private = true),
        ("h.brief", |extensions| extensions.ttl_ms = Some(10)),
    ];
    for (topic, change) in changes {
        world.retain(a, number + 1, topic);
        let mut extensions = Extensions::default();
        change(&mut extensions);
        let newer = publish(number + 2, topic, b"1");
        let newer = Publish { extensions: Some(Box::new(extensions)), ..newer };
        world.handle(a, Frame::Publish(newer));
        number += 2;
    }
    let mut records = records(world.all_writes());
    records.retain(|record| record.position % 2 == 0);
    world.bus.stored(world.now, 6);
    world.now = world.now + Duration::from_secs(1);
    world.handle(b, Frame::Subscribe(last("h.>")));
    let reader = world.reader();
    world.bus.take_page(world.now, reader, Ok(Page { records, through: 6, ..Page::default() }));
    assert_eq!(world.told_retained(b), [(1, true), (3, true), (5, true)]);
    assert!(world.bus.ledger().is_balanced());
}

#[test]
fn what_a_restarted_server_had_is_there_again_as_it_was() {
    let mut world = World::new(BusConfig { epoch: 1, ..keeping(Recovered::default()) });
    let a = world.connect("a");
    world.retain(a, 1, "t");
    world.handle(a, Frame::Publish(for_a_while(2, "short", 10)));
    let retained: Vec<Record> = world
        .all_writes()
        .into_iter()
        .filter_map(|write| match write {
            Write::Retained(record) => Some(*record),
            _ => None,
        })
        .collect();
    assert_eq!(world.bus.uncommitted(), 2);
    world.bus.retained_stored(world.now, 2);
    assert_eq!(world.bus.uncommitted(), 0);

    let mut config = keeping(Recovered { retained, ..Recovered::default() });
    config.history.rules = Arc::default();
    config.time_base_ms = 60_000;
    let mut world = World::new(config);
    assert_eq!(world.bus.retained(world.now), 1);
    assert_eq!(world.retained_writes(), [("short".into(), false)]);
    let b = world.connect("b");
    world.handle(b, Frame::Subscribe(last("t")));
    let outputs = world.pull(b);
    assert_eq!(told_retained(&outputs), [(1, true)]);
    let Some(Output::Deliver { published, .. }) =
        outputs.iter().find(|output| matches!(output, Output::Deliver { .. }))
    else {
        panic!("{outputs:?}")
    };
    let extensions = published.extensions(world.now).unwrap();
    assert_eq!(extensions.earlier.map(|earlier| (earlier.epoch, earlier.time_ms)), Some((1, 0)));
    assert_eq!((extensions.cursor, &*published.sender.id), (None, "a"));
}

#[test]
fn who_retains_waits_for_the_store_and_hears_when_it_has_failed() {
    let mut world = World::new(keeping(Recovered::default()));
    let a = world.connect("a");
    let large = vec![1; 1 << 20];
    for number in 1..=12 {
        world.handle(a, Frame::Publish(retained(number, "t", &large)));
    }
    assert!(world.bus.is_paused(a.port));
    let written = world.retained_writes().len() as u64;
    assert!(written < 12);
    world.bus.retained_stored(world.now, written);
    assert!(!world.bus.is_paused(a.port));
    world.bus.store_failed(world.now, Error::new(ErrorKind::StoreFailed, "no space"));
    world.retain(a, 13, "t");
    assert_eq!(world.refusals(a), [(13, ErrorKind::StoreFailed)]);
}

#[test]
fn a_lost_session_gets_the_last_value_behind_its_gap() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.retain(a, 1, "plain");
    world.retain(a, 2, "h.t");
    let cursor = world.bus.cursor_now();
    let resumed =
        Subscribe { again: true, retained: true, start: Start::Cursor(&cursor), ..last(">") };
    world.handle(b, Frame::Subscribe(resumed.clone()));
    let outputs = world.pull(b);
    assert!(outputs.iter().any(|output| matches!(output, Output::Gap { .. })), "{outputs:?}");
    assert_eq!(told_retained(&outputs), [(1, true)], "history goes on by the cursor");
    // Where nothing was missed, nothing is told again.
    let all_kept = Subscribe { sub: 2, pattern: "h.>", ..resumed };
    world.handle(b, Frame::Subscribe(all_kept));
    assert_eq!(world.told_retained(b), []);
}

#[test]
fn groups_share_what_comes_and_not_what_was() {
    let mut world = World::new(BusConfig::default());
    let b = world.connect("b");
    world.handle(b, Frame::Subscribe(Subscribe { group: "g", ..last("t") }));
    let outputs = world.pull(b);
    assert!(
        matches!(&outputs[..], [Output::Error { error, .. }] if error.kind() == ErrorKind::InvalidArgument),
        "{outputs:?}"
    );
}

#[test]
fn one_that_leaves_or_is_closed_waits_for_nothing_any_more() {
    let mut world = World::new(BusConfig::default());
    let (a, b) = (world.connect("a"), world.connect("b"));
    for (number, topic) in (1..).zip(["t.1", "t.2", "t.3"]) {
        world.retain(a, number, topic);
    }
    let few = Subscribe { capacity: 1, ..last("t.*") };
    world.begin(b, few);
    assert_eq!(world.bus.walking, 1);
    world.handle(b, Frame::Unsubscribe { sub: 1 });
    assert_eq!(world.bus.walking, 0);
}
