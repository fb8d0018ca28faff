//! Values that stream into a storage and out of it: this client's own, and the server's over a socket.
#![cfg(feature = "store")]
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

use bytes::Bytes;
use kps::{
    Client, ConnectOptions, ErrorKind, Server, ServerOptions,
    capability::{
        CallTarget, DispatchOptions, Value,
        storage::{StorageClient, StorageOptions},
    },
};

const PART: usize = 512 << 10;

fn noise(length: usize, seed: u64) -> Bytes {
    let word = |place: u64| (seed ^ place).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 13;
    let words = (0..(length as u64).div_ceil(8)).flat_map(|place| word(place).to_le_bytes());
    words.take(length).collect()
}

fn key(name: &str) -> Value {
    Value::map([("key", name.into())])
}

fn on_each(test: impl AsyncFn(StorageClient, &Client)) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let server = Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap();
        let client = Client::connect(ConnectOptions::new(server.url())).await.unwrap();
        test(client.storage(), &client).await;
        test(client.storage().at(CallTarget::Server), &client).await;
    });
}

async fn save(storage: &StorageClient, name: &str, bytes: &Bytes, piece: usize) -> Value {
    let mut upload = storage.upload(key(name)).await.unwrap();
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        upload.write(rest.split_to(piece.min(rest.len()))).await.unwrap();
    }
    assert_eq!(upload.written(), bytes.len() as u64);
    upload.finish().await.unwrap()
}

async fn read(storage: &StorageClient, name: &str) -> Bytes {
    let mut download = storage.download(name).await.unwrap();
    let mut all = Vec::new();
    while let Some(bytes) = download.next().await {
        all.extend_from_slice(&bytes.unwrap());
    }
    assert_eq!(all.len() as u64, download.size());
    all.into()
}

#[test]
fn pieces_of_any_size_become_one_value() {
    on_each(async |storage, _| {
        let lengths = [0, 1, PART - 1, PART, PART + 1, 5 * PART + 7];
        for (seed, length) in lengths.into_iter().enumerate() {
            for piece in [100_003, PART, 3 * PART + 1] {
                let bytes = noise(length, seed as u64);
                let saved = save(&storage, "k", &bytes, piece).await;
                assert_eq!(saved.get("size"), Some(&length.into()));
                assert_eq!(read(&storage, "k").await, bytes, "{length} in pieces of {piece}");
            }
        }
    });
}

#[test]
fn an_upload_that_is_dropped_or_cancelled_changes_nothing() {
    on_each(async |storage, _| {
        let old = noise(1000, 1);
        save(&storage, "k", &old, PART).await;
        for drop_it in [true, false] {
            let mut upload = storage.upload(key("k")).await.unwrap();
            upload.write(noise(10 * PART, 2)).await.unwrap();
            if drop_it { drop(upload) } else { upload.cancel().await }
        }
        assert_eq!(read(&storage, "k").await, old);
    });
}

#[test]
fn an_upload_that_nobody_waited_for_is_forgotten() {
    on_each(async |storage, client| {
        let is_own = format!("{storage:?}").contains("Nearest");
        {
            let mut beginning = std::pin::pin!(storage.upload(key("k")));
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(beginning.as_mut().poll(context).is_pending())
            });
            polled.await;
        }
        let target = if is_own { CallTarget::Nearest } else { CallTarget::Server };
        // It is begun before this one, and ends by itself.
        save(&storage, "other", &noise(5, 1), PART).await;
        loop {
            let options = DispatchOptions { target: target.clone(), ..Default::default() };
            let stat = client.capabilities().dispatch("storage.stat", Value::Null, options).await;
            if stat.unwrap().unwrap().get("uploads") == Some(&0.into()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_write_that_is_given_up_ends_the_upload() {
    on_each(async |storage, _| {
        let mut upload = storage.upload(key("k")).await.unwrap();
        {
            let mut writing = std::pin::pin!(upload.write(noise(64 * PART, 3)));
            // More than is sent without an answer: it waits.
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(writing.as_mut().poll(context).is_pending())
            });
            if !polled.await {
                return;
            }
        }
        let failure = upload.write(noise(1, 4)).await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Closed);
        assert_eq!(upload.finish().await.unwrap_err().kind, ErrorKind::Closed);
        assert_eq!(storage.download("k").await.unwrap_err().kind, ErrorKind::NotFound);
    });
}

#[test]
fn a_reader_of_a_value_that_is_replaced_is_told() {
    on_each(async |storage, _| {
        save(&storage, "k", &noise(20 * PART, 5), PART).await;
        let mut download = storage.download("k").await.unwrap();
        let first = download.next().await.unwrap().unwrap();
        assert_eq!(first, noise(20 * PART, 5).slice(..PART));
        save(&storage, "k", &noise(20 * PART, 6), PART).await;
        let failure = loop {
            match download.next().await.unwrap() {
                Ok(_) => {}
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.kind, ErrorKind::Conflict);
        assert!(download.next().await.is_none(), "it is over then");
    });
}

#[test]
fn a_client_opens_what_its_options_name() {
    let folder = std::env::temp_dir().join(format!("kps-client-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let connect = async || {
            let storage = Some(StorageOptions::at(folder.join("own.db")));
            let options = ConnectOptions { storage, ..ConnectOptions::new("mem://") };
            let client = Client::from(kps::server::connect(options).unwrap());
            client.bridge().ready().await.unwrap();
            client
        };
        let client = connect().await;
        client.capabilities().open().await.unwrap();
        save(&client.storage(), "k", &noise(5, 1), PART).await;
        let second = connect().await;
        let failure = second.capabilities().open().await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::StoreFailed, "one process has the file at a time");
        client.close().await;
        // What kept it from being opened is over.
        assert_eq!(read(&second.storage(), "k").await, noise(5, 1));
        second.close().await;
    });
    std::fs::remove_dir_all(folder).unwrap();
}
