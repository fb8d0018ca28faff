//! History, with the test as its store.

use super::*;
use crate::{
    history::{HistoryRule, Page, ReadFrom, Record, Recovered, Write},
    options::Redelivery,
    wire::frame::Start,
};

pub(super) fn keeping(recovered: Recovered) -> BusConfig {
    let rules = Arc::from([HistoryRule::parse("h.>").unwrap()]);
    let history = HistoryConfig { rules, on_disk: true, recovered, ..HistoryConfig::default() };
    BusConfig { history, epoch: 1, ..BusConfig::default() }
}

fn again<'a>(number: u64, id: &'a str) -> Publish<'a> {
    let extensions = Extensions { id: Some(id), ..Extensions::default() };
    Publish {
        maybe_duplicate: true,
        extensions: Some(Box::new(extensions)),
        ..publish(number, "h.t", b"1")
    }
}

pub(super) fn record(write: Write) -> Option<Record> {
    match write {
        Write::Record(record) => Some(*record),
        _ => None,
    }
}

impl World {
    pub(super) fn writes(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        self.bus.take_writes(&mut writes);
        writes
    }

    /// What is to be written, by position and publisher's number.
    fn records(&mut self) -> Vec<(u64, u64)> {
        let records = self.writes().into_iter().filter_map(|write| match write {
            Write::Record(record) => Some((record.position, record.number)),
            _ => None,
        });
        records.collect()
    }

    fn stored(&mut self, peer: Peer) -> Vec<u64> {
        let outputs = self.pull(peer).into_iter().filter_map(|output| match output {
            Output::Stored { published } => Some(published),
            _ => None,
        });
        outputs.collect()
    }

    pub(super) fn reads(&mut self) -> Vec<(Reader, ReadFrom)> {
        let reads = self.bus.take_notices().filter_map(|notice| match notice {
            Notice::Read { reader, query } => Some((reader, query.from)),
            _ => None,
        });
        reads.collect()
    }
}

#[test]
fn stored_is_told_when_the_store_says_so_and_not_before() {
    let mut world = World::new(keeping(Recovered::default()));
    let a = world.connect("a");
    world.publish(a, 1, "h.t", b"1");
    world.publish(a, 2, "plain", b"1");
    world.publish(a, 3, "h.t", b"1");
    assert_eq!(world.records(), [(1, 1), (2, 3)]);
    assert!(world.stored(a).is_empty());
    world.bus.stored(world.now, 1);
    assert_eq!(world.stored(a), [1]);
    world.bus.stored(world.now, 2);
    assert_eq!(world.stored(a), [3]);
}

#[test]
fn what_a_killed_publisher_left_is_kept_once_though_its_session_lives() {
    let mut world = World::new(keeping(Recovered::default()));
    let a = world.connect("a");
    for number in 1..=3 {
        world.publish(a, number, "h.t", b"1");
    }
    assert_eq!(world.records().len(), 3);
    world.bus.detach(world.now, a.port, true);
    let b = world.connect("b");
    world.handle(b, Frame::Publish(again(1, "origin of a-3")));
    world.handle(b, Frame::Publish(again(2, "origin of a-4")));
    assert_eq!(world.records(), [(4, 2)], "only what had not come");
    world.bus.stored(world.now, 4);
    assert_eq!(world.stored(b), [2]);
}

#[test]
fn what_waited_in_a_session_that_ended_so_is_not_published_as_well() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, full) = (world.connect("a"), world.connect("full"));
    let slow = Subscribe { sub: 1, pattern: "h.t", capacity: 1, ..subscribe_defaults() };
    world.subscribe_with(full, slow);
    world.publish(a, 1, "h.t", b"1");
    world.publish(a, 2, "h.t", b"1");
    assert!(world.bus.is_paused(a.port));
    world.bus.detach(world.now, a.port, true);
    let b = world.connect("b");
    world.handle(b, Frame::Publish(again(1, "origin of a-2")));
    world.pull(full);
    world.credit(full, 1, 1);
    assert_eq!(world.records(), [(1, 1), (2, 1)]);
    world.pull(full);
    world.credit(full, 1, 2);
    assert_eq!(world.records(), []);
}

#[test]
fn an_id_is_kept_once_within_its_window_and_namespace() {
    let ids = vec![(String::new(), "known".into(), 0)];
    let mut world = World::new(keeping(Recovered { ids, ..Recovered::default() }));
    let a = world.connect("a");
    let with_id = |number, id| Publish { maybe_duplicate: false, ..again(number, id) };
    world.handle(a, Frame::Publish(with_id(1, "known")));
    world.handle(a, Frame::Publish(with_id(2, "new")));
    world.handle(a, Frame::Publish(with_id(3, "new")));
    assert_eq!(world.records(), [(1, 2)]);
    world.advance(Duration::from_secs(121));
    world.handle(a, Frame::Publish(with_id(4, "new")));
    assert_eq!(world.records(), [(2, 4)]);
}

#[test]
fn a_reader_goes_over_to_live_messages_without_a_hole_or_a_repeat() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b) = (world.connect("a"), world.connect("b"));
    for number in 1..=3 {
        world.publish(a, number, "h.t", b"1");
    }
    let records: Vec<Record> = world.writes().into_iter().filter_map(record).collect();
    world.bus.stored(world.now, 3);
    let all = Subscribe { sub: 1, pattern: "h.t", start: Start::All, ..subscribe_defaults() };
    world.subscribe_with(b, Subscribe { window: 100, ..all });
    let reads = world.reads();
    let [(reader, ReadFrom::After(0))] = reads[..] else { panic!("{reads:?}") };
    // While the page is on its way.
    world.publish(a, 4, "h.t", b"1");
    assert_eq!(world.delivered(b), []);
    let page = Page { records, through: 3, ..Page::default() };
    world.bus.take_page(world.now, reader, Ok(page));
    world.publish(a, 5, "h.t", b"1");
    assert_eq!(world.delivered(b), [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]);
}

#[test]
fn pages_on_their_way_are_few_however_many_read() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.publish(a, 1, "h.t", b"1");
    world.bus.stored(world.now, 1);
    for sub in 1..=100 {
        let all = Subscribe { sub, pattern: "h.t", start: Start::All, ..subscribe_defaults() };
        world.subscribe_with(b, all);
    }
    let (mut seen, mut reads) = (0, world.reads());
    while let Some((reader, _)) = reads.pop() {
        seen += 1;
        let page = Page { through: 1, ..Page::default() };
        world.bus.take_page(world.now, reader, Ok(page));
        reads.extend(world.reads());
        assert!(reads.len() <= 32);
    }
    assert_eq!(seen, 100, "and each has its turn");
}

#[test]
fn once_the_store_has_failed_topics_with_history_take_nothing() {
    let mut world = World::new(keeping(Recovered::default()));
    let a = world.connect("a");
    world.subscribe(a, 1, ">");
    world.publish(a, 1, "h.t", b"1");
    let full = Error::new(ErrorKind::StoreFailed, "the disk is full");
    world.bus.store_failed(world.now, full);
    world.publish(a, 2, "h.t", b"1");
    world.publish(a, 3, "plain", b"1");
    let outputs = world.pull(a);
    let refused: Vec<u64> = outputs.iter().filter_map(Output::refused).collect();
    assert_eq!(refused, [1, 2], "also what was not committed");
    let delivered = outputs.iter().filter(|output| matches!(output, Output::Deliver { .. }));
    assert_eq!(delivered.count(), 2);
}

#[test]
fn what_is_published_again_once_the_store_has_failed_is_refused_again() {
    let mut world = World::new(keeping(Recovered::default()));
    let a = world.connect("a");
    world.handle(a, Frame::Publish(again(1, "mine")));
    world.bus.store_failed(world.now, Error::new(ErrorKind::StoreFailed, "the disk is full"));
    world.handle(a, Frame::Publish(again(2, "mine")));
    let refused: Vec<u64> = world.pull(a).iter().filter_map(Output::refused).collect();
    assert_eq!(refused, [1, 2]);
}

#[test]
fn a_time_that_is_to_come_again_is_looked_for_in_what_is_kept() {
    let mut world = World::new(keeping(Recovered { latest_ms: 7_200_000, ..Recovered::default() }));
    let a = world.connect("a");
    for (sub, time_ms) in [(1, 7_200_000), (2, 7_200_001)] {
        let start = Start::Time(time_ms);
        world.subscribe_with(a, Subscribe { sub, pattern: "h.t", start, ..subscribe_defaults() });
    }
    let reads: Vec<_> = world.reads().into_iter().map(|(_, from)| from).collect();
    assert_eq!(reads, [ReadFrom::Time(7_200_000)], "the other one is still to come");
}

fn from(world: &mut World, peer: Peer, sub: u32, start: Start<'_>) -> (Reader, ReadFrom) {
    let subscribe = Subscribe { sub, pattern: "h.t", start, capacity: 4, ..subscribe_defaults() };
    world.subscribe_with(peer, subscribe);
    world.reads().pop().expect("it reads")
}

fn cursor(epoch: u64, position: u64) -> [u8; 16] {
    crate::bus::output::Cursor { epoch, position }.to_bytes()
}

#[test]
fn who_leaves_while_others_wait_for_it_and_send_again_what_it_sent_takes_nothing_with_it() {
    let mut world = World::new(keeping(Recovered::default()));
    let (leaves, waits) = (world.connect("leaves"), world.connect("waits"));
    let full = Subscribe { sub: 1, pattern: "h.t", capacity: 1, ..subscribe_defaults() };
    world.subscribe_with(leaves, full);
    world.subscribe(leaves, 2, ">");
    world.publish(waits, 1, "h.t", b"1");
    world.handle(waits, Frame::Publish(again(2, "origin of leaves-1")));
    assert!(world.bus.is_paused(waits.port));
    world.bus.detach(world.now, leaves.port, false);
    world.publish(waits, 3, "h.t", b"1");
    assert_eq!(world.records(), [(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn a_reader_of_what_has_expired_reads_on() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b) = (world.connect("a"), world.connect("b"));
    for number in 1..=4 {
        let extensions = Extensions { ttl_ms: Some(1000), ..Extensions::default() };
        let extensions = Some(Box::new(extensions));
        world.handle(a, Frame::Publish(Publish { extensions, ..publish(number, "h.t", b"1") }));
    }
    let records: Vec<Record> = world.writes().into_iter().filter_map(record).collect();
    world.bus.stored(world.now, 4);
    let (reader, _) = from(&mut world, b, 1, Start::All);
    let page = Page { records: records[..3].to_vec(), through: 3, more: true, ..Page::default() };
    world.bus.take_page(world.now, reader, Ok(page));
    world.advance(Duration::from_secs(2));
    let left_out = gaps(&world.pull(b));
    let left_out: Vec<_> = left_out.iter().map(|gap| (gap.reason, gap.count)).collect();
    assert!(left_out.iter().all(|(reason, _)| *reason == GapReason::Expired));
    assert_eq!(left_out.iter().filter_map(|(_, count)| *count).sum::<u64>(), 3, "too late");
    world.credit(b, 1, left_out.len() as u64);
    let reads = world.reads();
    let [(reader, ReadFrom::After(3))] = reads[..] else { panic!("{reads:?}") };
    let page = Page { records: records[3..].to_vec(), through: 4, ..Page::default() };
    world.bus.take_page(world.now, reader, Ok(page));
    world.publish(a, 5, "h.t", b"1");
    assert_eq!(world.delivered(b), [(1, 5)]);
}

#[test]
fn a_reader_ahead_of_the_store_is_not_thrown_back() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b) = (world.connect("a"), world.connect("b"));
    for number in 1..=3 {
        world.publish(a, number, "h.t", b"1");
    }
    let (reader, place) = from(&mut world, b, 1, Start::Cursor(&cursor(1, 2)));
    assert_eq!(place, ReadFrom::After(2));
    world.bus.take_page(world.now, reader, Ok(Page::default()));
    assert_eq!(world.delivered(b), [(1, 3)]);
}

#[test]
fn a_cursor_of_a_run_that_stored_nothing_stands_where_that_run_began() {
    let epochs = vec![(1, 1000), (2, 0), (3, 0)];
    let recovered = Recovered { position: 1000, epochs, ..Recovered::default() };
    let mut world = World::new(BusConfig { epoch: 3, ..keeping(recovered) });
    let a = world.connect("a");
    assert_eq!(from(&mut world, a, 1, Start::Cursor(&cursor(2, 1000))).1, ReadFrom::After(1000));
}

#[test]
fn who_was_at_the_very_beginning_hears_as_well_that_history_does_not_go_back_so_far() {
    let epochs = vec![(1, 0), (2, 3), (3, 0)];
    let recovered = Recovered { position: 3, epochs, ..Recovered::default() };
    let mut world = World::new(BusConfig { epoch: 3, ..keeping(recovered) });
    let a = world.connect("a");
    let mut gaps_from = |sub, start| {
        let (reader, place) = from(&mut world, a, sub, start);
        assert_eq!(place, ReadFrom::After(0));
        let page = Page { through: 3, removed: true, ..Page::default() };
        world.bus.take_page(world.now, reader, Ok(page));
        gaps(&world.pull(a)).into_iter().map(|gap| gap.reason).collect::<Vec<_>>()
    };
    // What its run gave it was never stored, and what came since is gone.
    let cursor = cursor(1, 4);
    assert_eq!(gaps_from(1, Start::Cursor(&cursor)), [GapReason::HistoryExpired]);
    assert_eq!(gaps_from(2, Start::All), [], "all there is");
}

#[test]
fn a_durable_has_no_overflow_policy() {
    let mut world = World::new(BusConfig { forbid_block: true, ..keeping(Recovered::default()) });
    let a = world.connect("a");
    let durable = Subscribe { sub: 1, pattern: "h.t", durable: "d", ..subscribe_defaults() };
    let wrong = Subscribe { overflow: Overflow::Latest, ..durable.clone() };
    world.handle(a, Frame::Subscribe(wrong));
    world.handle(a, Frame::Subscribe(Subscribe { sub: 2, ..durable }));
    let answers = world.pull(a);
    assert!(matches!(answers[..], [Output::Error { .. }, Output::Subscribed { sub: 2, .. }]));
}

#[test]
fn a_durable_whose_messages_all_fail_takes_so_many_and_no_more() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b) = (world.connect("a"), world.connect("b"));
    let redelivery = Redelivery {
        retry_delay: Duration::from_secs(3600),
        max_attempts: 0,
        ..Redelivery::default()
    };
    let durable = Subscribe { sub: 1, pattern: "h.t", durable: "d", ..subscribe_defaults() };
    world.subscribe_with(b, Subscribe { window: 1000, redelivery, ..durable });
    for number in 1..=10_000 {
        world.publish(a, number, "h.t", b"1");
        world.bus.stored(world.now, number);
    }
    let mut answers = 0;
    loop {
        let deliveries: Vec<u64> = world
            .pull(b)
            .into_iter()
            .filter_map(|output| match output {
                Output::Deliver { delivery, .. } => delivery,
                _ => None,
            })
            .collect();
        if deliveries.is_empty() {
            break;
        }
        for delivery in deliveries {
            answers += 1;
            world.answer(b, answers, delivery, RowStatus::Failed);
        }
        world.credit(b, 1, answers);
    }
    assert_eq!(answers, 4096);
}

/// The gaps that a client is told, and how often it is told that something goes on.
fn told(world: &mut World, peer: Peer) -> (Vec<GapReason>, usize) {
    let outputs = world.pull(peer);
    let gaps = outputs.iter().filter_map(|output| match output {
        Output::Gap { gap, .. } => Some(gap.reason),
        _ => None,
    });
    let resumed = outputs.iter().filter(|output| matches!(output, Output::Resumed { .. }));
    (gaps.collect(), resumed.count())
}

#[test]
fn who_had_no_cursor_yet_hears_of_a_lost_disk_as_well() {
    let known = Recovered { epochs: vec![(7, 0)], ..Recovered::default() };
    let mut world = World::new(keeping(known));
    let a = world.connect("a");
    for (sub, start, durable) in
        [(1, Start::All, ""), (2, Start::Last, ""), (3, Start::All, "d"), (4, Start::New, "e")]
    {
        let was_in = |epoch| Subscribe {
            pattern: "h.t",
            start,
            durable,
            again: true,
            epoch: Some(epoch),
            ..subscribe_defaults()
        };
        world.handle(a, Frame::Subscribe(Subscribe { sub, ..was_in(7) }));
        world.handle(a, Frame::Subscribe(Subscribe { sub: sub + 10, ..was_in(6) }));
        let reads: Vec<_> = world.reads().into_iter().map(|(reader, _)| reader).collect();
        for reader in reads {
            world.bus.take_page(world.now, reader, Ok(Page::default()));
        }
        assert_eq!(told(&mut world, a), (vec![GapReason::NewEpoch], 1), "{start:?} {durable:?}");
    }
}

#[test]
fn a_new_durable_of_a_lost_disk_has_what_came_before_its_clients_were_back() {
    let mut world = World::new(keeping(Recovered { position: 5, ..Recovered::default() }));
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.publish(a, 1, "h.t", b"1");
    world.bus.stored(world.now, 6);
    let durable = Subscribe { sub: 1, pattern: "h.t", durable: "d", ..subscribe_defaults() };
    world.handle(b, Frame::Subscribe(Subscribe { again: true, epoch: Some(9), ..durable }));
    assert_eq!(world.reads()[0].1, ReadFrom::After(5));
}

#[test]
fn an_ids_window_begins_anew_with_the_broker_whatever_its_clock_says() {
    for time_base_ms in [10, 3_600_000_000] {
        let ids = vec![(String::new(), "known".into(), 1_800_000_000)];
        let config = keeping(Recovered { ids, ..Recovered::default() });
        let mut world = World::new(BusConfig { time_base_ms, ..config });
        let a = world.connect("a");
        world.handle(a, Frame::Publish(again(1, "known")));
        assert_eq!(world.records(), []);
        world.advance(Duration::from_secs(121));
        world.handle(a, Frame::Publish(again(2, "known")));
        assert_eq!(world.records(), [(1, 2)]);
    }
}

#[test]
fn a_failure_may_say_when_its_message_is_to_come_again() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b) = (world.connect("a"), world.connect("b"));
    let redelivery = Redelivery { retry_delay: Duration::from_secs(1), ..Redelivery::default() };
    let durable = Subscribe { sub: 1, pattern: "h.t", durable: "d", ..subscribe_defaults() };
    world.subscribe_with(b, Subscribe { window: 1000, redelivery, ..durable });
    world.publish(a, 1, "h.t", b"1");
    world.records();
    world.bus.stored(world.now, 1);
    let handed_out = |world: &mut World| -> Vec<(u64, u32)> {
        let outputs = world.pull(b).into_iter().filter_map(|output| match output {
            Output::Deliver { published, delivery, .. } => Some((delivery?, published.attempt())),
            _ => None,
        });
        outputs.collect()
    };
    let fail = |world: &mut World, number: u64, delivery: u64, retry_delay_ms: Option<u64>| {
        let answer = AnswerFrame {
            number,
            delivery,
            more: false,
            status: RowStatus::Failed,
            error: Some(("E", "e")),
            data: None,
            retry_delay_ms,
        };
        world.handle(b, Frame::Answer(answer));
    };
    assert_eq!(handed_out(&mut world), [(1, 1)]);
    fail(&mut world, 1, 1, Some(0));
    assert_eq!(handed_out(&mut world), [(2, 2)], "at once");
    fail(&mut world, 2, 2, Some(5_000));
    world.advance(Duration::from_millis(4_990));
    assert_eq!(handed_out(&mut world), []);
    world.advance(Duration::from_millis(20));
    assert_eq!(handed_out(&mut world), [(3, 3)]);
    // Without a word it is the subscription's delay, doubled with each failure.
    fail(&mut world, 3, 3, None);
    world.advance(Duration::from_millis(3_990));
    assert_eq!(handed_out(&mut world), []);
    world.advance(Duration::from_millis(20));
    assert_eq!(handed_out(&mut world), [(4, 4)]);
    // A peer may ask for longer than a day, and does not get it.
    fail(&mut world, 4, 4, Some((1 << 53) - 1));
    world.advance(Duration::from_secs(86_401));
    let again = handed_out(&mut world);
    assert_eq!(again.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>(), [5], "{again:?}");
}

#[test]
fn one_frame_skips_many_numbers_also_behind_what_waits() {
    let mut world = World::new(BusConfig::default());
    let (a, full) = (world.connect("a"), world.connect("full"));
    let skip = |number, count| {
        let extensions = Extensions { settled: count, ..Extensions::default() };
        Publish { extensions: Some(Box::new(extensions)), ..publish(number, "kps.settled", b"") }
    };
    world.handle(a, Frame::Publish(skip(1, 1_000)));
    // Sent again, longer: the rest is new.
    world.handle(a, Frame::Publish(skip(500, 600)));
    let slow = Subscribe { sub: 1, pattern: "t", capacity: 1, ..subscribe_defaults() };
    world.subscribe_with(full, slow);
    world.publish(a, 1_100, "t", b"1");
    world.publish(a, 1_101, "t", b"1");
    assert!(world.bus.is_paused(a.port));
    world.handle(a, Frame::Publish(skip(1_102, 10)));
    world.handle(a, Frame::Publish(skip(1_112, 10)));
    world.publish(a, 1_122, "t", b"1");
    let accepted = |world: &mut World| -> Option<u64> {
        let outputs = world.pull(a).into_iter().filter_map(|output| match output {
            Output::Accepted { published, .. } => Some(published),
            _ => None,
        });
        outputs.last()
    };
    assert_eq!(accepted(&mut world), Some(1_100));
    world.pull(full);
    world.credit(full, 1, 1);
    assert_eq!(accepted(&mut world), Some(1_121));
    let hole = world.bus.handle(world.now, a.port, &Frame::Publish(skip(1_124, 1)));
    assert_eq!(hole.unwrap_err().kind(), ErrorKind::Protocol);
    let endless = world.bus.handle(world.now, a.port, &Frame::Publish(skip(1_123, 1 << 53)));
    assert_eq!(endless.unwrap_err().kind(), ErrorKind::Protocol);
}
