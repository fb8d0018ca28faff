use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::{super::super::*, Folder};
use crate::{
    Client, ConnectOptions, Server, ServerOptions,
    capability::storage::{Durability, StorageOptions},
};

/// Longer than anything that works takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A disk that can be told not to answer.
#[derive(Default)]
struct Disk {
    stuck: Mutex<bool>,
    moves: Condvar,
    reached: Notify,
}

impl Disk {
    fn set(&self, stuck: bool) {
        *self.stuck.lock().unwrap() = stuck;
        self.moves.notify_all();
    }

    fn wait(&self) {
        let stuck = self.stuck.lock().unwrap();
        if *stuck {
            self.reached.notify_one();
        }
        drop(self.moves.wait_while(stuck, |stuck| *stuck).unwrap());
    }
}

async fn client(server: &Server) -> Client {
    Client::connect(ConnectOptions::new(server.url())).await.unwrap()
}

async fn call(client: &Client, operation: &str, key: &str) -> Response {
    let mut payload = Map::default();
    payload.push("key", key);
    if operation == "save" {
        payload.push("value", 1);
    }
    let options = DispatchOptions {
        target: CallTarget::Any,
        timeout: PATIENCE,
        ..DispatchOptions::default()
    };
    let action = format!("storage.{operation}");
    client.capabilities().dispatch(&action, payload.into(), options).await
}

/// With the calls of one client to the storage of another; whether the bus carries messages while one waits for
/// the disk.
async fn does_the_bus_go_on(durability: Durability, operation: &str) {
    let folder = Folder::new();
    let disk = Arc::new(Disk::default());
    let clock = disk.clone();
    let mut options = StorageOptions { durability, ..StorageOptions::at(folder.path()) };
    options.now = Arc::new(move || {
        clock.wait();
        1
    });
    let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
    let (keeper, caller) = (client(&server).await, client(&server).await);
    let router = Router::of(&keeper, || Builtins::with_storage(options));
    let _offer = Offer::calls(&router.0, &keeper, "storage", 16).await.unwrap();
    let mut heard = caller.subscribe("news").await.unwrap();
    assert!(call(&caller, "save", "k").await.is_ok());

    disk.set(true);
    let (other, operation) = (caller.clone(), operation.to_owned());
    let waiting = tokio::spawn(async move { call(&other, &operation, "k").await });
    timeout(PATIENCE, disk.reached.notified()).await.expect("the call waits for the disk");
    for number in 0..100 {
        keeper.publish("news", crate::Json(number)).unwrap();
        let message = timeout(PATIENCE, heard.message()).await.expect("the bus goes on").unwrap();
        assert_eq!(message.json::<i32>().unwrap(), number);
    }
    assert!(timeout(PATIENCE, caller.dispatch("kps.ping", 1)).await.unwrap().is_ok());
    assert!(!waiting.is_finished());
    disk.set(false);
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_disk_that_does_not_answer_does_not_stop_the_bus() {
    for durability in [Durability::Full, Durability::Normal] {
        for operation in ["get", "save", "exists"] {
            does_the_bus_go_on(durability, operation).await;
        }
    }
}
