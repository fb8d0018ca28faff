//! Messages for some, private ones, and those that do not wait for whoever is offline.

use proptest::prelude::*;

use super::{kept::*, *};
use crate::{
    history::{Page, Record, Recovered, Write},
    message::{Extras, Offline},
    wire::frame::{Reference, Start},
};

type Change = fn(&mut Extensions<'_>);

const DROP: Change = |extensions| extensions.offline = Offline::Drop;
const LATEST: Change = |extensions| extensions.offline = Offline::Latest;
const PRIVATE: Change = |extensions| extensions.private = true;

fn with<'a>(number: u64, topic: &'a str, change: impl Fn(&mut Extensions<'a>)) -> Publish<'a> {
    let mut extensions = Extensions::default();
    change(&mut extensions);
    Publish { extensions: Some(Box::new(extensions)), ..publish(number, topic, b"1") }
}

fn to<'a>(number: u64, topic: &'a str, entries: &[&'a str]) -> Publish<'a> {
    with(number, topic, |extensions| extensions.to = Some(entries.to_vec()))
}

/// Messages' numbers and gaps, as they stand in the stream.
#[derive(Debug, PartialEq)]
enum Seen {
    Message(u64),
    Gap(GapReason, u64),
}
use Seen::{Gap as Missed, Message as Got};

fn seen(outputs: Vec<Output>) -> Vec<Seen> {
    let seen = outputs.into_iter().filter_map(|output| match output {
        Output::Deliver { published, .. } => Some(Got(published.number)),
        Output::Gap { gap, .. } => Some(Missed(gap.reason, gap.count.unwrap())),
        _ => None,
    });
    seen.collect()
}

impl World {
    fn see(&mut self, peer: Peer) -> Vec<Seen> {
        let seen = seen(self.pull(peer));
        let ledger = self.bus.ledger();
        assert!(ledger.is_balanced(), "{ledger:?}");
        seen
    }

    /// A client with an authenticated name.
    fn connect_as(&mut self, id: &str, name: &str) -> Peer {
        self.seed += 1;
        let principal = Principal { name: Some(name.into()), ..Principal::default() };
        let attach = Attach {
            principal,
            kind: PortKind::Native,
            client_id: id,
            origin: &format!("origin of {id}"),
            session: &[],
            received: &[],
            entropy: [self.seed; 24],
        };
        Peer { port: self.bus.attach(self.now, attach).unwrap().port }
    }

    /// A client whose connection breaks, and how it comes back.
    fn lose(&mut self, id: &str) -> (Peer, [u8; 16]) {
        let attached = self.attach(id, &[], &[]).unwrap();
        (Peer { port: attached.port }, attached.session)
    }

    fn come_back(&mut self, id: &str, secret: [u8; 16], received: u64) -> Peer {
        let attached = self.attach(id, &secret, &[(1, received)]).unwrap();
        assert!(attached.resumed);
        Peer { port: attached.port }
    }

    /// Commits everything; what the store has then.
    fn commit(&mut self) -> Vec<Record> {
        let records: Vec<Record> = self.writes().into_iter().filter_map(record).collect();
        if let Some(last) = records.last() {
            self.bus.stored(self.now, last.position);
        }
        records
    }

    fn answer_reads(&mut self, records: &[Record], superseded: &[u64]) {
        for (reader, _) in self.reads() {
            let page = Page {
                records: records.to_vec(),
                through: records.last().map_or(0, |record| record.position),
                superseded: superseded.to_vec(),
                ..Page::default()
            };
            self.bus.take_page(self.now, reader, Ok(page));
        }
    }

    fn refusals_of(&mut self, peer: Peer) -> Vec<(u64, Error)> {
        let refused = self.pull(peer).into_iter().filter_map(|output| match output {
            Output::Error { reference: Reference::Publish(number), error } => Some((number, error)),
            _ => None,
        });
        refused.collect()
    }
}

fn all(sub: u32, pattern: &str) -> Subscribe<'_> {
    Subscribe { sub, pattern, start: Start::All, window: 100, ..subscribe_defaults() }
}

/// A bus that begins where another one ended, with what that one kept.
fn restarted(records: &[Record]) -> World {
    let last = records.last().unwrap().position;
    let recovered = Recovered { position: last, epochs: vec![(0, last)], ..Recovered::default() };
    World::new(keeping(recovered))
}

#[test]
fn who_is_not_addressed_hears_nothing() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let (b, c) = (world.connect("b"), world.connect_as("c", "alice"));
    for peer in [a, b, c] {
        world.subscribe(peer, 1, "t");
    }
    world.handle(a, Frame::Publish(to(1, "t", &["b", "nobody"])));
    world.handle(a, Frame::Publish(to(2, "t", &["principal:alice"])));
    world.handle(a, Frame::Publish(to(3, "t", &["alice", "principal:c", "principal:b"])));
    world.publish(a, 4, "t", b"1");
    assert_eq!(world.see(a), [Got(4)]);
    assert_eq!(world.see(b), [Got(1), Got(4)]);
    assert_eq!(world.see(c), [Got(2), Got(4)]);
    assert_eq!(world.bus.ledger().accepted, 5);
}

#[test]
fn an_id_that_looks_like_a_principal_is_none() {
    let mut world = World::new(small());
    let (a, mallory) = (world.connect("a"), world.connect("principal:alice"));
    world.subscribe(mallory, 1, "t");
    world.handle(a, Frame::Publish(to(1, "t", &["principal:alice"])));
    assert_eq!(world.see(mallory), []);
}

#[test]
fn an_ack_has_rows_of_the_addressed_alone_and_a_group_chooses_among_them() {
    let mut world = World::new(small());
    let (a, b, c) = (world.connect("a"), world.connect("b"), world.connect("c"));
    for peer in [b, c] {
        let group = Subscribe { sub: 1, pattern: "t", group: "g", ..subscribe_defaults() };
        world.subscribe_with(peer, group);
        world.subscribe(peer, 2, "t");
    }
    for number in 1..=4 {
        world.handle(a, Frame::Publish(Publish { ack: true, ..to(number, "t", &["c"]) }));
    }
    world.handle(a, Frame::Publish(Publish { ack: true, ..to(5, "t", &["nobody"]) }));
    let named: Vec<Vec<Arc<str>>> = world.pull(a).into_iter().filter_map(recipients).collect();
    assert_eq!(
        named,
        [vec!["c".into()], vec!["c".into()], vec!["c".into()], vec!["c".into()], vec![]]
    );
    assert_eq!(world.see(b), []);
    world.credit(c, 1, 0);
    assert_eq!(world.see(c).len(), 8);
}

fn recipients(output: Output) -> Option<Vec<Arc<str>>> {
    match output {
        Output::Recipients { clients, .. } => Some(clients),
        _ => None,
    }
}

#[test]
fn nobody_waits_for_a_full_queue_that_does_not_get_the_message() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    world
        .subscribe_with(b, Subscribe { sub: 1, pattern: "t", capacity: 1, ..subscribe_defaults() });
    world.publish(a, 1, "t", b"1");
    world.handle(a, Frame::Publish(to(2, "t", &["a"])));
    assert!(!world.bus.is_paused(a.port));
    world.handle(a, Frame::Publish(to(3, "t", &["b"])));
    assert!(world.bus.is_paused(a.port));
}

#[test]
fn a_wrong_audience_is_refused_with_what_is_wrong() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let (long, many) = ("x".repeat(257), vec!["x"; 65]);
    let direct = |number| Publish { to: Destination::Client("a"), ..to(number, "t", &["a"]) };
    let server = |number| Publish { to: Destination::Server("s"), ..with(number, "t", PRIVATE) };
    world.handle(a, Frame::Publish(to(1, "t", &[])));
    world.handle(a, Frame::Publish(to(2, "t", &[&long])));
    world.handle(a, Frame::Publish(to(3, "t", &many)));
    world.handle(a, Frame::Publish(to(4, "t", &["principal:"])));
    world.handle(a, Frame::Publish(direct(5)));
    world.handle(a, Frame::Publish(server(6)));
    let kinds: Vec<_> =
        world.refusals_of(a).into_iter().map(|(number, error)| (number, error.code())).collect();
    let (invalid, limit) = ("invalid_argument", "limit_exceeded");
    let wanted = [(1, invalid), (2, limit), (3, limit), (4, invalid), (5, invalid), (6, invalid)];
    assert_eq!(kinds, wanted);
}

#[test]
fn the_refusal_of_a_private_message_quotes_nothing() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let direct = Publish { to: Destination::Client("secret"), ..with(1, "t", PRIVATE) };
    world.handle(a, Frame::Publish(direct));
    world.handle(a, Frame::Publish(with(2, "kps.secret", PRIVATE)));
    let refused = world.refusals_of(a);
    assert_eq!(refused.len(), 2);
    for (_, error) in refused {
        assert!(!error.message().contains("secret"), "{error}");
    }
}

#[test]
fn history_keeps_the_audience_and_a_replay_honours_it() {
    let mut world = World::new(keeping(Recovered::default()));
    let a = world.connect("a");
    world.handle(a, Frame::Publish(to(1, "h.t", &["b"])));
    world.publish(a, 2, "h.t", b"1");
    let records = world.commit();
    let audience = records[0].extras.as_ref().unwrap().to.clone();
    assert_eq!(audience, Some(vec!["b".to_owned()]));
    let mut world = restarted(&records);
    let (b, c) = (world.connect("b"), world.connect("c"));
    world.handle(b, Frame::Subscribe(all(1, "h.t")));
    world.handle(c, Frame::Subscribe(all(1, "h.t")));
    world.answer_reads(&records, &[]);
    assert_eq!(world.see(b), [Got(1), Got(2)]);
    assert_eq!(world.see(c), [Got(2)]);
    assert_eq!(world.bus.ledger().dropped, 0);
}

#[test]
fn of_a_private_message_history_has_the_place_alone() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, live) = (world.connect("a"), world.connect("live"));
    world.subscribe(live, 1, "h.t");
    world.publish(a, 1, "h.t", b"1");
    for number in [2, 3] {
        world.handle(
            a,
            Frame::Publish(with(number, "h.t", |extensions| {
                extensions.private = true;
                extensions.id = Some("my id");
                extensions.headers = vec![("a header", "its text")];
                extensions.ttl_ms = Some(5);
            })),
        );
    }
    world.publish(a, 4, "h.t", b"1");
    let mut writes = Vec::new();
    world.bus.take_writes(&mut writes);
    let text = format!("{:?}", writes.iter().filter(is_record).nth(1).unwrap());
    for quoted in ["my id", "a header", "its text", "origin of a", "\"a\""] {
        assert!(!text.contains(quoted), "{quoted}: {text}");
    }
    // The repeat of an id is no second message.
    let records: Vec<Record> = writes.iter().cloned().filter_map(record).collect();
    assert_eq!(records.len(), 3);
    assert_eq!((records[1].position, records[1].seq), (2, 2));
    assert!(records[1].payload.bytes.is_empty());
    // That its publisher had it accepted is known all the same.
    let session = writes.iter().rev().find_map(|write| match write {
        Write::Session(session) => Some((session.origin.as_str(), session.published)),
        _ => None,
    });
    assert_eq!(session, Some(("origin of a", 4)));
    assert_eq!(world.see(live), [Got(1), Got(2), Got(4)]);
    world.bus.stored(world.now, 3);

    // From memory, and read from the store.
    let late = world.connect("late");
    world.handle(late, Frame::Subscribe(all(1, "h.t")));
    world.answer_reads(&records, &[]);
    assert_eq!(world.see(late), [Got(1), Missed(GapReason::Private, 1), Got(4)]);
    let mut world = restarted(&records);
    let late = world.connect("late");
    world.handle(late, Frame::Subscribe(all(1, "h.t")));
    world.answer_reads(&records, &[]);
    assert_eq!(world.see(late), [Got(1), Missed(GapReason::Private, 1), Got(4)]);
}

fn is_record(write: &&Write) -> bool {
    matches!(write, Write::Record(_))
}

#[test]
fn a_private_message_for_some_leaves_no_gap_to_others() {
    let mut world = World::new(keeping(Recovered::default()));
    let a = world.connect("a");
    let private = Extensions { to: Some(vec!["b"]), private: true, ..Extensions::default() };
    let frame = Publish { extensions: Some(Box::new(private)), ..publish(1, "h.t", b"1") };
    world.handle(a, Frame::Publish(frame));
    let records = world.commit();
    let (b, c) = (world.connect("b"), world.connect("c"));
    for peer in [b, c] {
        world.handle(peer, Frame::Subscribe(all(1, "h.t")));
    }
    world.answer_reads(&records, &[]);
    assert_eq!(world.see(b), [Missed(GapReason::Private, 1)]);
    assert_eq!(world.see(c), []);
}

#[test]
fn what_is_not_to_wait_is_missed_by_who_is_away_and_by_nobody_else() {
    let mut world = World::new(small());
    let (a, here) = (world.connect("a"), world.connect("here"));
    let (away, secret) = world.lose("away");
    for peer in [here, away] {
        world.subscribe(peer, 1, "t");
    }
    world.bus.detach(world.now, away.port, true);
    world.handle(a, Frame::Publish(with(1, "t", DROP)));
    world.publish(a, 2, "t", b"1");
    world.handle(a, Frame::Publish(with(3, "t", DROP)));
    assert_eq!(world.see(here), [Got(1), Got(2), Got(3)]);
    let back = world.come_back("away", secret, 0);
    world.handle(a, Frame::Publish(with(4, "t", DROP)));
    assert_eq!(world.see(back), [Missed(GapReason::Offline, 2), Got(2), Got(4)]);
    assert_eq!(world.bus.ledger().dropped, 2);
    world.wait(Duration::from_secs(1));
    assert!(world.told().contains(&"away t drops 2 offline".to_owned()));
}

#[test]
fn what_was_missed_offline_is_told_before_its_subscription_ends() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let (away, secret) = world.lose("away");
    world.subscribe(away, 1, "t");
    world.bus.detach(world.now, away.port, true);
    world.handle(a, Frame::Publish(with(1, "t", DROP)));
    let back = world.come_back("away", secret, 0);
    world.told();
    world.handle(back, Frame::Unsubscribe { sub: 1 });
    assert_eq!(world.told(), ["away t drops 1 offline", "away closes t"]);
    world.wait(Duration::from_secs(5));
    assert!(world.told().is_empty());
}

#[test]
fn what_is_not_to_wait_does_not_make_its_publisher_wait() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let (away, secret) = world.lose("away");
    let one = Subscribe { sub: 1, pattern: "t", capacity: 1, ..subscribe_defaults() };
    world.subscribe_with(away, one);
    world.bus.detach(world.now, away.port, true);
    world.handle(a, Frame::Publish(with(1, "t", LATEST)));
    world.handle(a, Frame::Publish(with(2, "t", LATEST)));
    world.handle(a, Frame::Publish(with(3, "t", DROP)));
    assert!(!world.bus.is_paused(a.port));
    let back = world.come_back("away", secret, 0);
    assert_eq!(world.see(back), [Missed(GapReason::Offline, 2)]);
    world.credit(back, 1, 1);
    assert_eq!(world.see(back), [Got(2)]);
}

#[test]
fn of_the_latest_only_the_newest_waits_and_none_is_overtaken() {
    let mut world = World::new(BusConfig::default());
    let a = world.connect("a");
    let (away, secret) = world.lose("away");
    world.subscribe_with(
        away,
        Subscribe { window: 100, pattern: ">", sub: 1, ..subscribe_defaults() },
    );
    // Waits and is not replaced: its client was there.
    world.handle(a, Frame::Publish(with(1, "t", LATEST)));
    world.handle(a, Frame::Publish(with(2, "t", LATEST)));
    assert_eq!(world.see(away), [Got(1), Got(2)]);
    world.credit(away, 1, 2);
    world.bus.detach(world.now, away.port, true);
    for (number, topic) in [(3, "t"), (4, "u"), (5, "t"), (6, "u")] {
        world.handle(a, Frame::Publish(with(number, topic, LATEST)));
    }
    world.publish(a, 7, "t", b"1");
    world.handle(a, Frame::Publish(with(8, "t", LATEST)));
    world.handle(a, Frame::Publish(with(9, "t", LATEST)));
    let back = world.come_back("away", secret, 2);
    let offline = |count| Missed(GapReason::Offline, count);
    assert_eq!(world.see(back), [offline(3), offline(1), Got(6), Got(7), Got(9)]);
    assert_eq!(world.bus.ledger().dropped, 4);
    world.wait(Duration::from_secs(1));
    assert!(world.told().contains(&"away > drops 4 offline".to_owned()));
    world.handle(a, Frame::Publish(with(10, "u", LATEST)));
    world.handle(a, Frame::Publish(with(11, "u", LATEST)));
    assert_eq!(world.see(back), [Got(10), Got(11)]);
}

#[test]
fn a_replay_gives_what_was_not_to_wait_only_if_it_came_while_the_client_was_there() {
    let mut world = World::new(keeping(Recovered::default()));
    let a = world.connect("a");
    for (number, change) in [(1, DROP), (2, LATEST), (3, LATEST)] {
        world.handle(a, Frame::Publish(with(number, "h.t", change)));
    }
    let records = world.commit();
    let b = world.connect("b");
    world.handle(b, Frame::Subscribe(all(1, "h.t")));
    // It is there, and has not read so far yet.
    world.handle(a, Frame::Publish(with(4, "h.t", DROP)));
    world.answer_reads(&records, &[2]);
    let offline = Missed(GapReason::Offline, 3);
    assert_eq!(world.see(b), [offline, Got(4)], "3 is not the newest any more");

    let mut world = restarted(&records);
    let b = world.connect("b");
    world.handle(b, Frame::Subscribe(all(1, "h.t")));
    world.answer_reads(&records, &[2]);
    assert_eq!(world.see(b), [Missed(GapReason::Offline, 2), Got(3)]);
}

fn durable(sub: u32) -> Subscribe<'static> {
    Subscribe { durable: "d", ..all(sub, "h.t") }
}

#[test]
fn a_durable_hands_a_message_to_whom_it_is_for_and_passes_over_what_is_for_none_of_its_clients() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b, c) = (world.connect("a"), world.connect("b"), world.connect("c"));
    for peer in [b, c] {
        world.handle(peer, Frame::Subscribe(durable(1)));
    }
    for number in 1..=6 {
        world.handle(a, Frame::Publish(to(number, "h.t", &["c"])));
    }
    world.handle(a, Frame::Publish(to(7, "h.t", &["x"])));
    world.commit();
    assert_eq!(world.see(b), []);
    assert_eq!(world.see(c), [1, 2, 3, 4, 5, 6].map(Got));
    let progress = world.writes().into_iter().rev().find_map(|write| match write {
        Write::Progress(progress) => Some(progress.beyond),
        _ => None,
    });
    assert_eq!(progress, Some(vec![7]), "done with, though nobody had it");
}

#[test]
fn what_a_durable_holds_for_a_client_without_room_does_not_stop_the_others() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b, c) = (world.connect("a"), world.connect("b"), world.connect("c"));
    world.handle(b, Frame::Subscribe(Subscribe { capacity: 1, ..durable(1) }));
    world.handle(c, Frame::Subscribe(durable(1)));
    for number in 1..=3 {
        world.handle(a, Frame::Publish(to(number, "h.t", &["b"])));
    }
    world.publish(a, 4, "h.t", b"1");
    world.commit();
    assert_eq!(world.see(c), [Got(4)]);
    let first = world.pull(b);
    let first_delivery = delivery(&first);
    assert_eq!(seen(first), [Got(1)]);
    world.credit(b, 1, 1);
    world.answer(b, 1, first_delivery, RowStatus::Acked);
    assert_eq!(world.see(b), [Got(2)]);
    // Whom the rest is for is gone for good.
    world.bus.detach(world.now, b.port, false);
    world.publish(a, 5, "h.t", b"1");
    world.commit();
    assert_eq!(world.see(c), [Got(5)]);
}

#[test]
fn a_durable_passes_over_what_is_private_or_came_while_nobody_was_there() {
    let mut world = World::new(keeping(Recovered::default()));
    let a = world.connect("a");
    let (b, secret) = world.lose("b");
    world.handle(b, Frame::Subscribe(durable(1)));
    world.handle(a, Frame::Publish(with(1, "h.t", DROP)));
    world.handle(a, Frame::Publish(with(2, "h.t", PRIVATE)));
    world.commit();
    assert_eq!(world.see(b), [Got(1), Missed(GapReason::Private, 1)]);
    world.wait(Duration::from_secs(1));
    assert!(world.told().contains(&"b h.t drops 1 private".to_owned()));
    world.bus.detach(world.now, b.port, true);
    world.handle(a, Frame::Publish(with(3, "h.t", DROP)));
    world.handle(a, Frame::Publish(with(4, "h.t", LATEST)));
    world.handle(a, Frame::Publish(with(5, "h.t", LATEST)));
    world.commit();
    let back = world.come_back("b", secret, 2);
    world.handle(a, Frame::Publish(with(6, "h.t", DROP)));
    world.commit();
    // The topic's newest was 5 when b came back.
    assert_eq!(world.see(back), [Missed(GapReason::Offline, 2), Got(5), Got(6)]);
}

#[test]
fn a_dead_letter_is_for_whom_the_message_was_for() {
    let mut world = World::new(keeping(Recovered::default()));
    let (a, b, c) = (world.connect("a"), world.connect("b"), world.connect("c"));
    let redelivery =
        crate::options::Redelivery { max_attempts: 1, ..crate::options::Redelivery::default() };
    world.handle(b, Frame::Subscribe(Subscribe { redelivery, ..durable(1) }));
    for peer in [b, c] {
        world.subscribe(peer, 2, "kps.dead.d");
    }
    world.handle(a, Frame::Publish(to(1, "h.t", &["b"])));
    world.commit();
    let delivery = delivery(&world.pull(b));
    world.answer(b, 1, delivery, RowStatus::Failed);
    assert_eq!(world.see(b).len(), 1);
    assert_eq!(world.see(c), []);
}

#[test]
fn extras_know_their_audience() {
    let extras = Extras { to: Some(vec!["a".into(), "principal:p".into()]), ..Extras::default() };
    assert!(extras.admits("a", None) && extras.admits("x", Some("p")));
    assert!(!extras.admits("p", None) && !extras.admits("principal:p", Some("a")));
    assert!(Extras::default().admits("x", None));
}

#[test]
fn a_newer_value_waits_behind_what_was_published_before_it_however_often_it_is_replaced() {
    let mut world = World::new(BusConfig::default());
    let a = world.connect("a");
    let (b, secret) = world.lose("b");
    let sub =
        Subscribe { sub: 1, pattern: ">", overflow: Overflow::Latest, ..subscribe_defaults() };
    world.subscribe_with(b, sub);
    world.bus.detach(world.now, b.port, true);
    world.publish(a, 1, "first", b"1");
    for number in 2..=2_001 {
        world.publish(a, number, if number % 2 == 0 { "even" } else { "odd" }, b"1");
    }
    let back = world.come_back("b", secret, 0);
    assert_eq!(
        world.see(back),
        [Missed(GapReason::Overflow, 1_998), Got(1), Got(2_000), Got(2_001)]
    );
}

/// A step of a subscriber's life, or a publish: topic and policy.
#[derive(Clone, Debug)]
enum Step {
    Publish(usize, Offline),
    Leave,
    Return,
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    let offline = prop_oneof![Just(Offline::Keep), Just(Offline::Drop), Just(Offline::Latest)];
    prop_oneof![
        6 => (0..3_usize, offline).prop_map(|(topic, offline)| Step::Publish(topic, offline)),
        1 => Just(Step::Leave),
        1 => Just(Step::Return),
        2 => Just(Step::Read),
    ]
}

proptest! {
    #[test]
    fn every_message_is_seen_once_or_in_a_gap_and_in_order(
        steps in prop::collection::vec(step(), 1..80),
        overflow in prop_oneof![
            Just(Overflow::Block), Just(Overflow::DropOldest), Just(Overflow::DropNewest), Just(Overflow::Latest)
        ],
        capacity in prop_oneof![Just(0_u32), 3..9_u32],
    ) {
        const TOPICS: [&str; 3] = ["t", "u", "v"];
        let mut world = World::new(BusConfig::default());
        let a = world.connect("a");
        let (mut b, secret) = world.lose("b");
        let capacity = if overflow == Overflow::Block { 0 } else { capacity };
        let sub = Subscribe { sub: 1, pattern: ">", overflow, capacity, window: 2, ..subscribe_defaults() };
        world.subscribe_with(b, sub);
        let (mut away, mut frames, mut published) = (false, 0, Vec::new());
        let (mut got, mut missed): (Vec<u64>, u64) = (Vec::new(), 0);
        let mut read = |world: &mut World, b: Peer, frames: &mut u64| loop {
            let seen = world.see(b);
            if seen.is_empty() {
                break;
            }
            for seen in seen {
                *frames += 1;
                match seen {
                    Got(number) => got.push(number),
                    Missed(reason, count) => {
                        assert!(matches!(reason, GapReason::Offline | GapReason::Overflow));
                        missed += count;
                    }
                }
            }
            world.credit(b, 1, *frames);
        };
        for step in steps.into_iter().chain([Step::Return]) {
            match step {
                Step::Publish(topic, offline) => {
                    published.push(topic);
                    let number = published.len() as u64;
                    let change = |extensions: &mut Extensions<'_>| extensions.offline = offline;
                    world.handle(a, Frame::Publish(with(number, TOPICS[topic], change)));
                }
                Step::Leave if !away => {
                    world.bus.detach(world.now, b.port, true);
                    away = true;
                }
                Step::Return if away => {
                    b = world.come_back("b", secret, frames);
                    away = false;
                }
                Step::Read if !away => read(&mut world, b, &mut frames),
                _ => {}
            }
        }
        read(&mut world, b, &mut frames);
        prop_assert_eq!(got.len() as u64 + missed, published.len() as u64);
        prop_assert!(got.is_sorted(), "{got:?}");
        let ledger = world.bus.ledger();
        prop_assert_eq!((ledger.delivered, ledger.dropped), (got.len() as u64, missed));
    }
}
