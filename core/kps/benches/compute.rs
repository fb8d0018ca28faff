//! What `compute` costs: one small task, a batch of them, and what all cores win on heavy ones.

#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot start has nothing better to do than panic"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kps::{Client, ConnectOptions, capability::Value};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tasks of a batch.
const TASKS: u64 = 100;

fn task(name: &str, n: i64) -> Value {
    let data = Value::map([("n", n.into())]);
    Value::map([("task", name.into()), ("data", data)])
}

fn batch(name: &str, n: i64) -> Value {
    let tasks = (0..TASKS).map(|_| task(name, n)).collect::<Vec<_>>();
    Value::map([("tasks", tasks.into())])
}

fn compute(criterion: &mut Criterion) {
    let host: Runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let client = Client::from(kps::server::connect(ConnectOptions::new("mem://")).unwrap());
    host.block_on(client.bridge().ready()).unwrap();
    let call = |action: &str, payload: Value| {
        black_box(host.block_on(client.dispatch(action, payload)).outcome.unwrap())
    };

    let mut group = criterion.benchmark_group("compute");
    group.bench_function("fibonacci_1000", |bencher| {
        bencher.iter(|| call("compute.execute", task("fibonacci", 1000)));
    });
    group.throughput(Throughput::Elements(TASKS));
    group.bench_function("batch_small", |bencher| {
        bencher.iter(|| call("compute.batch", batch("fibonacci", 20)));
    });
    group.sample_size(20);
    // The two together: what all cores win.
    group.bench_function("heavy_in_turn", |bencher| {
        bencher.iter(|| {
            for _ in 0..TASKS {
                call("compute.execute", task("factorial", 5000));
            }
        });
    });
    group.bench_function("batch_heavy", |bencher| {
        bencher.iter(|| call("compute.batch", batch("factorial", 5000)));
    });
    group.finish();
}

criterion_group!(benches, compute);
criterion_main!(benches);
