//! The capability `storage`: what one `get`, `exists` and `save` of 1 KB takes, and saves per second when many
//! wait, per durability. On the disk of the folder for temporary files.

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kps::capability::{
    Call, Caller, Cancel, Capability, Value,
    storage::{Durability, Storage, StorageOptions},
};

/// What the command line and both packages use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keys that are there.
const KEYS: u64 = 10_000;

/// Saves that wait at once.
const WAITING: u64 = 1000;

struct Bench {
    storage: Storage,
    runtime: tokio::runtime::Runtime,
    folder: std::path::PathBuf,
}

impl Bench {
    fn new(name: &str, durability: Option<Durability>) -> Bench {
        let folder = std::env::temp_dir().join(format!("kps-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        let options = match durability {
            Some(durability) => StorageOptions { durability, ..StorageOptions::at(&folder) },
            None => StorageOptions::memory(),
        };
        let storage = Storage::open(options).expect("a storage");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let bench = Bench { storage, runtime, folder };
        bench.fill();
        bench
    }

    fn call(
        &self,
        operation: &str,
        payload: Value,
    ) -> kps::net::BoxFuture<'static, kps::capability::Outcome> {
        self.storage.call(Call {
            id: "1".into(),
            operation: operation.into(),
            payload,
            caller: Caller::default(),
            cancel: Cancel::default(),
            deadline: None,
            attempt: 1,
            progress: None,
        })
    }

    fn wait(&self, operation: &str, payload: Value) -> Value {
        self.runtime.block_on(self.call(operation, payload)).expect("it works")
    }

    fn fill(&self) {
        for from in (0..KEYS).step_by(1000) {
            let items = (from..from + 1000).map(save).collect::<Vec<_>>();
            self.wait("save_many", Value::map([("items", items.into())]));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.storage.close();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn key(number: u64) -> Value {
    format!("user/{:05}", number * 7919 % KEYS).into()
}

fn save(number: u64) -> Value {
    let mut bytes = vec![7; 1024];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Value::map([("key", key(number)), ("value", Bytes::from(bytes).into())])
}

fn storage(criterion: &mut Criterion) {
    let kinds =
        [("memory", None), ("normal", Some(Durability::Normal)), ("full", Some(Durability::Full))];
    for (name, durability) in kinds {
        let bench = Bench::new(name, durability);
        let mut group = criterion.benchmark_group(format!("storage/{name}"));
        let mut number = 0;
        for operation in ["get", "exists"] {
            group.bench_function(operation, |bencher| {
                bencher.iter(|| {
                    number += 1;
                    black_box(bench.wait(operation, Value::map([("key", key(number))])))
                });
            });
        }
        group.bench_function("save", |bencher| {
            bencher.iter(|| {
                number += 1;
                black_box(bench.wait("save", save(number)))
            });
        });
        group.throughput(Throughput::Elements(WAITING));
        group.sample_size(10);
        group.bench_function("save_waiting", |bencher| {
            bencher.iter_custom(|rounds| {
                let start = Instant::now();
                for _ in 0..rounds {
                    let calls: Vec<_> = (0..WAITING)
                        .map(|place| bench.call("save", save(number + place)))
                        .collect();
                    number += WAITING;
                    for call in calls {
                        bench.runtime.block_on(call).expect("it works");
                    }
                }
                start.elapsed()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, storage);
criterion_main!(benches);
