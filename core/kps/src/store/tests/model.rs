//! Random histories against a model that keeps everything in a vector.

use std::time::Duration;

use kps_proto::{
    history::{HistoryRule, ReadFrom, Write},
    message::{Extras, Offline},
};
use proptest::prelude::*;

use super::*;
use crate::store::verify;

const TOPICS: [&str; 5] = ["a", "a.x", "a.y", "b.x", "c"];
const PATTERNS: [&str; 8] = [">", "a", "a.*", "a.>", "*.x", "c", "*", "nothing.>"];

#[derive(Clone, Debug)]
enum Step {
    /// Messages as (topic, payload bytes, milliseconds against the clock, has an id).
    Write(Vec<(usize, usize, i64, bool)>),
    Wait(u64),
    Read {
        pattern: usize,
        from: From,
        max_count: usize,
        max_bytes: usize,
    },
    Reopen(Vec<Limits>),
}

/// A rule: pattern, milliseconds, messages, bytes.
type Limits = (usize, Option<u64>, Option<u64>, Option<u64>);

#[derive(Clone, Copy, Debug)]
enum From {
    /// Hundredths of the last position.
    After(u64),
    /// Milliseconds before now.
    Time(u64),
    Last,
}

fn step() -> impl Strategy<Value = Step> {
    let message = (0..TOPICS.len(), 0..40_usize, -1500..1500_i64, any::<bool>());
    let from = prop_oneof![
        3 => (0..110_u64).prop_map(From::After),
        1 => (0..10_000_u64).prop_map(From::Time),
        1 => Just(From::Last),
    ];
    prop_oneof![
        6 => prop::collection::vec(message, 0..8).prop_map(Step::Write),
        1 => (0..5000_u64).prop_map(Step::Wait),
        6 => (0..PATTERNS.len(), from, 1..12_usize, 0..200_usize).prop_map(
            |(pattern, from, max_count, max_bytes)| Step::Read { pattern, from, max_count, max_bytes }
        ),
        1 => rules().prop_map(Step::Reopen),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Limits>> {
    let rule = (
        0..PATTERNS.len(),
        prop::option::of(500..8000_u64),
        prop::option::of(0..20_u64),
        prop::option::of(0..300_u64),
    );
    prop::collection::vec(rule, 0..3)
}

#[derive(Default)]
struct Model {
    records: Vec<Record>,
    removed: Vec<Record>,
    rules: Vec<HistoryRule>,
    position: u64,
}

impl Model {
    fn enforce(&mut self, now: u64) {
        for (place, rule) in self.rules.clone().into_iter().enumerate() {
            loop {
                let held: Vec<&Record> =
                    self.records.iter().filter(|record| self.rule(record) == Some(place)).collect();
                let Some(oldest) = held.first() else { break };
                let bytes: usize = held.iter().map(|record| record.payload.bytes.len()).sum();
                let age = rule.max_age.map(|age| u64::try_from(age.as_millis()).unwrap());
                let over = rule.max_count.is_some_and(|max| held.len() as u64 > max)
                    || rule.max_bytes.is_some_and(|max| bytes as u64 > max)
                    || age.is_some_and(|age| oldest.time_ms + age < now);
                if !over {
                    break;
                }
                let position = oldest.position;
                let place = self.records.iter().position(|record| record.position == position);
                self.removed.push(self.records.remove(place.unwrap()));
            }
        }
    }

    fn rule(&self, record: &Record) -> Option<usize> {
        self.rules.iter().position(|rule| rule.pattern.matches(&record.topic))
    }

    fn read(&self, query: &Query) -> Page {
        let matches = |topic: &str| query.pattern.matches(topic);
        let mut found: Vec<&Record> =
            self.records.iter().filter(|record| matches(&record.topic)).collect();
        match query.from {
            ReadFrom::After(position) => {
                found.retain(|record| record.position > position);
            }
            ReadFrom::Time(time) => {
                let first = found.iter().position(|record| record.time_ms >= time);
                found.drain(..first.unwrap_or(found.len()));
            }
            ReadFrom::Last => {
                let all = found.clone();
                found.retain(|record| {
                    all.iter().rfind(|other| other.topic == record.topic).unwrap().position
                        == record.position
                });
            }
        }
        let mut bytes = 0;
        let mut records = Vec::new();
        for record in &found {
            let full = bytes >= query.max_bytes;
            bytes += record.payload.bytes.len();
            if records.len() == query.max_count
                || (!records.is_empty() && (full || bytes > query.max_bytes))
            {
                break;
            }
            records.push((*record).clone());
        }
        let more = records.len() < found.len();
        let newer = |record: &&Record| {
            let other =
                |other: &Record| other.topic == record.topic && other.position > record.position;
            record.extras.is_some() && self.records.iter().any(other)
        };
        let superseded = records.iter().filter(newer).map(|record| record.position).collect();
        Page {
            superseded,
            through: if more { records.last().unwrap().position } else { self.position },
            records,
            more,
            removed: self.removed.iter().filter(|record| matches(&record.topic)).any(|record| {
                match query.from {
                    ReadFrom::After(position) => record.position > position,
                    ReadFrom::Time(time) => record.time_ms >= time,
                    ReadFrom::Last => false,
                }
            }),
        }
    }
}

fn run(folder: Option<&Folder>, steps: Vec<Step>) {
    let dir = folder.map(Folder::path);
    let clock = Arc::new(AtomicU64::new(10_000_000));
    let adjust = |options: &mut StoreOptions, rules: &[HistoryRule]| {
        let clock = clock.clone();
        options.now = Arc::new(move || clock.load(Ordering::Relaxed));
        options.steady = options.now.clone();
        options.duplicate_window = Duration::from_secs(3);
        options.rules = rules.to_vec();
    };
    let mut model = Model::default();
    let mut open = Open::new(dir, |options| adjust(options, &[]));
    for step in steps {
        let now = clock.load(Ordering::Relaxed);
        match step {
            Step::Write(messages) => {
                let mut writes: Vec<Write> = Vec::new();
                for (topic, size, offset, has_id) in messages {
                    let mut record = open.record(TOPICS[topic], &"x".repeat(size));
                    record.time_ms = now.checked_add_signed(offset).unwrap();
                    if has_id {
                        let id = Some(record.position.to_string());
                        let offline = Offline::Latest;
                        record.extras = Some(Box::new(Extras { id, offline, ..Extras::default() }));
                    }
                    writes.push(record_of(&record));
                    model.position = record.position;
                    model.records.push(record);
                }
                open.commit(writes);
                model.enforce(now);
            }
            Step::Wait(time) => {
                clock.fetch_add(time, Ordering::Relaxed);
            }
            Step::Read { pattern, from, max_count, max_bytes } => {
                let from = match from {
                    From::After(part) => ReadFrom::After(model.position * part / 100),
                    From::Time(before) => ReadFrom::Time(now - before),
                    From::Last => ReadFrom::Last,
                };
                let query = Query { max_count, max_bytes, ..query(PATTERNS[pattern], from) };
                let mut page = open.store.read_now(&query).unwrap();
                let expected = model.read(&query);
                if matches!(from, ReadFrom::Time(_)) {
                    // The times of removed messages are gone, so it is said too often.
                    assert!(page.removed || !expected.removed);
                    page.removed = expected.removed;
                }
                assert_eq!(page, expected, "{query:?}");
            }
            Step::Reopen(rules) => {
                let Some(dir) = dir else { continue };
                // Closing is a turn as well.
                model.enforce(now);
                model.rules = rules
                    .into_iter()
                    .map(|(pattern, age, max_count, max_bytes)| HistoryRule {
                        pattern: Pattern::parse(PATTERNS[pattern]).unwrap(),
                        max_age: age.map(Duration::from_millis),
                        max_count,
                        max_bytes,
                    })
                    .collect();
                open.store.close();
                let verdict = verify(dir).unwrap();
                assert_eq!(verdict.findings, [""; 0]);
                assert_eq!(verdict.messages, model.records.len() as u64);
                open = Open::new(Some(dir), |options| adjust(options, &model.rules));
                assert_eq!(open.recovered.position, model.position);
                // Removing what the new rules do not keep goes on in slices; a turn waits for one.
                open.commit(vec![]);
                model.enforce(now);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_store_does_what_a_vector_does(steps in prop::collection::vec(step(), 1..60)) {
        run(Some(&Folder::new()), steps);
    }
}
