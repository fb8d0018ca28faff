//! What `sync` costs: from a call to the callback that hears of it.

#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot start has nothing better to do than panic"
)]

use std::sync::mpsc;

use criterion::{Criterion, criterion_group, criterion_main};
use kps::{
    Client, ConnectOptions, Server, ServerOptions,
    capability::{Callback, Outcome, Value},
};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A program's loop.
struct Host(Runtime);

impl Host {
    fn new() -> Host {
        Host(tokio::runtime::Builder::new_current_thread().build().unwrap())
    }

    fn connect(&self, options: ConnectOptions) -> Client {
        let client = Client::from(kps::server::connect(options).unwrap());
        self.0.block_on(client.bridge().ready()).unwrap();
        client
    }

    fn call(&self, client: &Client, operation: &str, payload: Value) -> Outcome {
        self.0.block_on(client.dispatch(&format!("sync.{operation}"), payload)).outcome
    }

    /// What happens in the channel, as `client` hears it.
    fn listen(&self, client: &Client) -> mpsc::Receiver<Value> {
        let (tell, heard) = mpsc::channel();
        let callback = Callback::new(move |record| {
            // The bench may be over.
            let _ = tell.send(record);
        });
        let callback = Value::Callback(callback);
        let payload = Value::map([("channel", "room".into()), ("callback", callback)]);
        self.call(client, "subscribe", payload).unwrap();
        heard
    }
}

fn tick() -> Value {
    Value::map([("channel", "room".into()), ("event", "tick".into()), ("data", 1.into())])
}

fn local_broadcast(criterion: &mut Criterion) {
    let host = Host::new();
    let client = host.connect(ConnectOptions::new("mem://"));
    let heard = host.listen(&client);
    criterion.bench_function("sync/local_broadcast_to_callback", |bencher| {
        bencher.iter(|| {
            host.call(&client, "broadcast", tick()).unwrap();
            heard.recv().unwrap()
        });
    });
}

fn through_a_server(criterion: &mut Criterion) {
    let host = Host::new();
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let connect = || host.connect(ConnectOptions::new(server.url()));
    let (actor, watcher) = (connect(), connect());
    let heard = host.listen(&watcher);
    criterion.bench_function("sync/broadcast_to_another_client", |bencher| {
        bencher.iter(|| {
            host.call(&actor, "broadcast", tick()).unwrap();
            heard.recv().unwrap()
        });
    });
    let mut n = 0;
    criterion.bench_function("sync/presence_change_to_another_client", |bencher| {
        bencher.iter(|| {
            n += 1;
            let payload = Value::map([("channel", "room".into()), ("meta", n.into())]);
            host.call(&actor, "join", payload).unwrap();
            heard.recv().unwrap()
        });
    });
}

criterion_group!(benches, local_broadcast, through_a_server);
criterion_main!(benches);
