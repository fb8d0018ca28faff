//! The store on disk: messages committed per second when many are under way, one at a time, and
//! messages read per second. On the disk of the folder for temporary files.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kps::store::{Store, StoreEvent, StoreOptions};
use kps_proto::{
    history::{HistoryRule, Query, ReadFrom, Record, Write},
    message::{Payload, Sender},
    topic::Pattern,
};

/// What the command line and both packages use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAYLOAD: &[u8; 128] = br#"{"sensor":"lll","celsius":[20.125,20.25,20.375,20.5,20.625,20.75,20.875,21.0,21.125,21.25,21.375,21.5],"at":1790000000000,"n":1}"#;

/// Messages of one measurement.
const MESSAGES: u64 = 200_000;

/// Messages handed over at once, as a turn of a bus does.
const BATCH: u64 = 256;

/// Messages under way at most: what publishers' windows allow.
const WINDOW: u64 = 65_536;

struct Bench {
    store: Store,
    events: mpsc::Receiver<StoreEvent>,
    position: u64,
    epoch: u64,
    topics: Vec<Arc<str>>,
    namespace: Arc<str>,
    sender: Arc<Sender>,
    dir: std::path::PathBuf,
}

impl Bench {
    fn new(name: &str, topics: usize, rules: Vec<HistoryRule>) -> Bench {
        let dir = std::env::temp_dir().join(format!("kps-bench-{}-{name}", std::process::id()));
        let (sender, events) = mpsc::channel();
        let options = StoreOptions { rules, ..StoreOptions::new(Some(dir.clone())) };
        let (store, recovered) = Store::open(options, move |event| {
            let _ = sender.send(event);
        })
        .expect("a folder for temporary files");
        Bench {
            store,
            events,
            position: 0,
            epoch: recovered.epoch,
            // Ten of a thousand end in `few`.
            topics: (0..topics)
                .map(|topic| {
                    format!("bench.{topic}{}", if topic % 100 == 5 { ".few" } else { "" }).into()
                })
                .collect(),
            namespace: "".into(),
            sender: Arc::new(Sender { id: "bench".into(), origin: "origin".into() }),
            dir,
        }
    }

    fn write(&mut self) -> Write {
        self.position += 1;
        let topic = self.position as usize % self.topics.len();
        Write::Record(Box::new(Record {
            position: self.position,
            epoch: self.epoch,
            namespace: self.namespace.clone(),
            topic: self.topics[topic].clone(),
            seq: self.position,
            sender: self.sender.clone(),
            number: self.position,
            time_ms: 1_790_000_000_000 + self.position / 1000,
            maybe_duplicate: false,
            payload: Payload::json(&PAYLOAD[..]),
            extras: None,
            expires_ms: None,
        }))
    }

    /// Writes `count` messages and waits until the last is committed.
    fn run(&mut self, count: u64, batch: u64, window: u64) -> Duration {
        let batches: Vec<Vec<Write>> =
            (0..count / batch).map(|_| (0..batch).map(|_| self.write()).collect()).collect();
        let mut committed = self.position - count / batch * batch;
        let mut written = committed;
        let start = Instant::now();
        for writes in batches {
            written += batch;
            self.store.write(writes);
            while written - committed >= window {
                committed = self.committed();
            }
        }
        while committed < written {
            committed = self.committed();
        }
        start.elapsed()
    }

    fn committed(&self) -> u64 {
        match self.events.recv().expect("the store is open") {
            StoreEvent::Committed { position, .. } => position,
            StoreEvent::Failed(error) => panic!("{error}"),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn writing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10).throughput(Throughput::Elements(MESSAGES));
    let limited = HistoryRule {
        pattern: Pattern::parse(">").expect("a pattern"),
        max_age: None,
        max_count: Some(100_000),
        max_bytes: None,
    };
    for (name, topics, rules) in [
        ("write/1 topic", 1, vec![]),
        ("write/1000 topics", 1000, vec![]),
        ("write/1 topic, 100000 kept", 1, vec![limited]),
    ] {
        let mut bench = Bench::new(&name.replace('/', "-"), topics, rules);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations).map(|_| bench.run(MESSAGES, BATCH, WINDOW)).sum()
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    let mut bench = Bench::new("one", 1, vec![]);
    group.bench_function("write/one at a time", |bencher| {
        bencher.iter_custom(|iterations| bench.run(iterations, 1, 1));
    });
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    let mut bench = Bench::new("read", 1000, vec![]);
    bench.run(MESSAGES, BATCH, WINDOW);
    for (name, pattern, count) in [
        ("read/all of 1000 topics", ">", 1000),
        ("read/1 of 1000 topics", "bench.7", 100),
        ("read/10 of 1000 topics", "bench.*.few", 100),
    ] {
        let query = Query {
            namespace: String::new(),
            pattern: Pattern::parse(pattern).expect("a pattern"),
            from: ReadFrom::After(MESSAGES / 4),
            max_count: count,
            max_bytes: 1 << 20,
        };
        let found = bench.store.read_now(&query).expect("an open store").records.len();
        group.throughput(Throughput::Elements(found as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| bench.store.read_now(&query).expect("an open store"));
        });
    }
    group.finish();
}

criterion_group!(benches, writing, reading);
criterion_main!(benches);
