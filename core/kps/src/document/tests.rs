//! The room, with a clock that is driven and a shelf that fails when it is told to.

mod access;
mod checkpoints;
mod faults;
#[cfg(feature = "yjs")]
mod merging;
mod operations;
mod presence;
mod world;

use std::sync::atomic::AtomicU64;

use kps_proto::bus::Grants;
use tokio::sync::watch;

use super::{shelf::Writing, *};
use crate::capability::{Outcome, Value};

/// Keeps documents, and fails as it is told.
struct Faulty {
    memory: Memory,
    faults: Mutex<Faults>,
    /// Writes wait while it is closed.
    is_open: watch::Sender<bool>,
}

#[derive(Default)]
struct Faults {
    load: Option<ErrorKind>,
    write: Option<ErrorKind>,
    /// Whether what is there is said not to be.
    hides: bool,
    /// Whether what is written is said to have failed.
    lies: bool,
    writes: usize,
}

impl Shelf for Faulty {
    fn is_durable(&self) -> bool {
        true
    }

    fn load(&self, name: &Name) -> Result<Stored, Failure> {
        let faults = self.faults.lock();
        match faults.load {
            Some(kind) => Err(Failure::new(kind, "it cannot be read")),
            None if faults.hides => Ok(Stored::default()),
            None => self.memory.load(name),
        }
    }

    fn write(
        &self,
        name: &Name,
        writing: Writing,
    ) -> BoxFuture<'static, Result<Option<String>, Failure>> {
        let mut faults = self.faults.lock();
        faults.writes += 1;
        let failure = faults.write.map(|kind| Failure::new(kind, "it cannot be written"));
        let lies = faults.lies;
        let written = match failure {
            Some(failure) => Box::pin(std::future::ready(Err(failure))),
            None => self.memory.write(name, writing),
        };
        let mut is_open = self.is_open.subscribe();
        Box::pin(async move {
            let waited = is_open.wait_for(|is_open| *is_open).await;
            waited.expect("the shelf lives");
            let written = written.await;
            if lies { Err(Failure::new(ErrorKind::StoreFailed, "nobody knows")) } else { written }
        })
    }
}

/// Documents of which everything is known.
struct Room {
    documents: Documents,
    shelf: Arc<Faulty>,
    clock: Arc<AtomicU64>,
    told: Arc<Mutex<Vec<DocumentEvent>>>,
    last_op: AtomicU64,
}

impl Room {
    fn new() -> Room {
        Room::with(DocumentOptions::default())
    }

    fn with(options: DocumentOptions) -> Room {
        let shelf = Arc::new(Faulty {
            memory: Memory::new(64 << 20),
            faults: Mutex::default(),
            is_open: watch::channel(true).0,
        });
        Room::on(shelf, Arc::new(AtomicU64::new(1_000_000)), options)
    }

    fn on(shelf: Arc<Faulty>, clock: Arc<AtomicU64>, options: DocumentOptions) -> Room {
        let now = clock.clone();
        let options =
            DocumentOptions { now: Arc::new(move || now.load(Ordering::Relaxed)), ..options };
        let documents = Documents::on(shelf.clone(), options);
        // Only tests look at them.
        documents.0.is_looking.store(true, Ordering::Relaxed);
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        documents.tell_by(Arc::new(move |_, event| heard.lock().push(event.clone())));
        Room { documents, shelf, clock, told, last_op: AtomicU64::new(0) }
    }

    /// Another one on the same shelf, as after a crash.
    fn again(self) -> Room {
        let Room { documents, shelf, clock, .. } = self;
        let options = documents.0.options.clone();
        drop(documents);
        Room::on(shelf, clock, options)
    }

    fn wait(&self, seconds: u64) {
        self.clock.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    async fn call(&self, operation: &str, payload: serde_json::Value) -> Outcome {
        let payload = Value::from_json(payload.to_string().as_bytes()).unwrap();
        self.documents.call("".into(), "ann", Grants::default(), operation, payload).await
    }

    async fn ok(&self, operation: &str, payload: serde_json::Value) -> serde_json::Value {
        json(self.call(operation, payload).await.unwrap())
    }

    async fn code(&self, operation: &str, payload: serde_json::Value) -> &'static str {
        self.call(operation, payload).await.as_ref().map_or_else(Failure::code, |_| "ok")
    }

    async fn open(&self) -> serde_json::Value {
        self.ok("open", serde_json::json!({"id": "d", "kind": "text"})).await
    }

    /// Appends the op_id to the text; returns what became of it.
    async fn append(&self, op_id: &str) -> serde_json::Value {
        let version = self.version().await;
        let answer = self.ok("edit", appending(op_id, &version)).await;
        answer["results"][0].clone()
    }

    async fn append_many(&self, count: usize) {
        for _ in 0..count {
            let op_id = format!("{}.", self.last_op.fetch_add(1, Ordering::Relaxed));
            let result = self.append(&op_id).await;
            assert_eq!(result["event"], "ack", "{result}");
        }
    }

    async fn version(&self) -> String {
        let read = self.ok("read", serde_json::json!({"id": "d"})).await;
        read["version"].as_str().unwrap().to_owned()
    }

    async fn text(&self) -> String {
        let read = self.ok("read", serde_json::json!({"id": "d"})).await;
        read["text"].as_str().unwrap().to_owned()
    }

    /// What was told since it was asked last, in short.
    fn heard(&self) -> Vec<String> {
        let short = |event: &DocumentEvent| match event {
            DocumentEvent::Ack { op_id, version, level, .. } => {
                format!("ack {op_id} {} {level:?}", version.0).to_lowercase()
            }
            DocumentEvent::Checkpoint { version, level, .. } => {
                format!("checkpoint {} {level:?}", version.0).to_lowercase()
            }
            DocumentEvent::Change { applied, .. } => format!("change {}", applied.version.0),
            DocumentEvent::Rejected { op_id, code, .. } => format!("rejected {op_id} {code}"),
            DocumentEvent::StoreFailed { code, .. } => format!("store_failed {code}"),
            other => other.name().to_owned(),
        };
        std::mem::take(&mut *self.told.lock()).iter().map(short).collect()
    }

    /// All that are open, to be stored.
    fn slots(&self) -> Vec<(Arc<Slot>, bool)> {
        self.documents.0.open.lock().values().map(|slot| (slot.clone(), false)).collect()
    }

    fn fail(&self, fail: impl FnOnce(&mut Faults)) {
        fail(&mut self.shelf.faults.lock());
    }

    fn writes(&self) -> usize {
        self.shelf.faults.lock().writes
    }
}

fn appending(op_id: &str, base: &str) -> serde_json::Value {
    serde_json::json!({
        "id": "d", "op_id": op_id, "base_version": base, "edit": {"type": "append", "text": op_id},
    })
}

fn json(value: Value) -> serde_json::Value {
    serde_json::from_slice(&value.to_json().unwrap()).unwrap()
}
