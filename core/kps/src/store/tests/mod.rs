//! The store as its users see it.

mod audit;
mod basics;
mod crash;
mod damage;
mod lost;
mod model;
mod outbox;
mod reading;
mod retained;
mod retention;
mod schema;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use kps_proto::{
    history::{Page, Query, ReadFrom, Record, Recovered, Write},
    message::{Payload, Sender},
    topic::Pattern,
};

use super::{Store, StoreEvent, StoreOptions};

/// A folder that is removed with the value.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kps-store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn file(&self) -> PathBuf {
        super::database_file(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store whose events and clock the test holds.
pub(super) struct Open {
    pub(super) store: Store,
    pub(super) recovered: Recovered,
    pub(super) events: mpsc::Receiver<StoreEvent>,
    next: u64,
}

impl Open {
    /// In the folder, at time 1,000,000 and epoch 1, changed by `adjust`.
    pub(super) fn new(dir: Option<&Path>, adjust: impl FnOnce(&mut StoreOptions)) -> Open {
        Open::try_new(dir, adjust).unwrap()
    }

    pub(super) fn try_new(
        dir: Option<&Path>,
        adjust: impl FnOnce(&mut StoreOptions),
    ) -> kps_proto::Result<Open> {
        let (sender, events) = mpsc::channel();
        let mut options = StoreOptions::new(dir.map(Path::to_owned));
        options.epoch = 1;
        options.now = Arc::new(|| 1_000_000);
        options.steady = options.now.clone();
        adjust(&mut options);
        let (store, recovered) = Store::open(options, move |event| {
            // A test may be over.
            let _ = sender.send(event);
        })?;
        let next = recovered.position + 1;
        Ok(Open { store, recovered, events, next })
    }

    /// A message for the next position.
    pub(super) fn record(&mut self, topic: &str, payload: &str) -> Record {
        let position = self.next;
        self.next += 1;
        Record {
            position,
            epoch: self.recovered.epoch,
            namespace: "".into(),
            topic: topic.into(),
            seq: position,
            sender: Arc::new(Sender { id: "alice".into(), origin: "origin".into() }),
            number: position,
            time_ms: 1_000_000 + position,
            maybe_duplicate: false,
            payload: Payload::text(payload),
            extras: None,
            expires_ms: None,
        }
    }

    /// Writes a message and waits until it is committed.
    pub(super) fn add(&mut self, topic: &str, payload: &str) -> Record {
        let record = self.record(topic, payload);
        self.commit(vec![record_of(&record)]);
        record
    }

    /// Writes and waits until it is committed.
    pub(super) fn commit(&self, writes: Vec<Write>) {
        self.store.write(writes);
        match self.events.recv().unwrap() {
            StoreEvent::Committed { .. } => {}
            StoreEvent::Failed(error) => panic!("{error}"),
        }
    }

    pub(super) fn read(&self, pattern: &str, from: ReadFrom) -> Page {
        self.store.read_now(&query(pattern, from)).unwrap()
    }
}

pub(super) fn record_of(record: &Record) -> Write {
    Write::Record(Box::new(record.clone()))
}

pub(super) fn query(pattern: &str, from: ReadFrom) -> Query {
    Query {
        namespace: String::new(),
        pattern: Pattern::parse(pattern).unwrap(),
        from,
        max_count: 1000,
        max_bytes: 1 << 20,
    }
}

/// Numbers that look random and are the same every time.
pub(crate) fn noise(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
