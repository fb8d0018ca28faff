//! What a document tells the program: the events as they travelled, and what only this client knows.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc;

use super::Document;

/// Bytes of events that one listener may be behind; older ones are kept, newer ones are counted.
const MOST: usize = 16 << 20;
/// What an event takes besides its JSON, about.
const HEAD: usize = 256;

/// Something that happened to an open document.
#[derive(Clone, Debug)]
pub struct Told {
    /// `change`, `ack`, `conflict`, `rejected`, `checkpoint`, `store_failed`, `presence`: as the server told it.
    /// `failed`, `gap`, `resumed`, `closed`: told by this client.
    pub event: Arc<str>,
    /// The event as JSON. What the server told: the very bytes.
    pub json: Bytes,
    _held: Arc<Held>,
}

impl Told {
    /// The event as a value.
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}

/// Bytes that a listener has not dealt with.
#[derive(Debug)]
struct Held(usize, Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Events on their way to the listeners.
pub(super) type Telling = (Arc<str>, Bytes);

/// What only this client knows, as JSON.
pub(super) fn telling(event: &str, id: &str, more: impl Serialize) -> Telling {
    #[derive(Serialize)]
    struct Own<'a, M> {
        event: &'a str,
        id: &'a str,
        #[serde(flatten)]
        more: M,
    }
    let json = serde_json::to_vec(&Own { event, id, more });
    (event.into(), json.unwrap_or_default().into())
}

/// Hears what happens until it is dropped.
pub struct Listening(#[expect(dead_code, reason = "it is what keeps it")] Arc<Listener>);

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listening")
    }
}

struct Listener {
    tell: Box<dyn Fn(Told) + Send + Sync>,
    held: Arc<AtomicUsize>,
    missed: AtomicU64,
}

impl Listener {
    fn tell(&self, id: &str, (event, json): &Telling) {
        let weight = json.len() + HEAD;
        if self.held.load(Ordering::Relaxed) + weight > MOST {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            #[derive(Serialize)]
            struct Gap {
                reason: &'static str,
                count: u64,
            }
            self.hand(telling("gap", id, Gap { reason: "overflow", count: missed }));
        }
        self.hand((event.clone(), json.clone()));
    }

    fn hand(&self, (event, json): Telling) {
        let weight = json.len() + HEAD;
        self.held.fetch_add(weight, Ordering::Relaxed);
        let held = Arc::new(Held(weight, self.held.clone()));
        (self.tell)(Told { event, json, _held: held });
    }
}

#[derive(Default)]
pub(super) struct Listeners(Mutex<Vec<Weak<Listener>>>);

impl Listeners {
    pub(super) fn add(&self, tell: impl Fn(Told) + Send + Sync + 'static) -> Listening {
        let listener = Arc::new(Listener {
            tell: Box::new(tell),
            held: Arc::default(),
            missed: AtomicU64::new(0),
        });
        self.0.lock().push(Arc::downgrade(&listener));
        Listening(listener)
    }

    pub(super) fn tell(&self, id: &str, all: &[Telling]) {
        if all.is_empty() {
            return;
        }
        let mut listeners = Vec::new();
        self.0.lock().retain(|listener| {
            let listener = listener.upgrade();
            let is_there = listener.is_some();
            listeners.extend(listener);
            is_there
        });
        for listener in listeners {
            all.iter().for_each(|told| listener.tell(id, told));
        }
    }
}

impl Document {
    /// Calls `tell` with everything that happens from now on, in order, until what is returned is dropped. It
    /// is called on the runtime's thread and must not block. Events count as dealt with when they are dropped:
    /// a listener that is 16 MiB behind misses what comes then, and is told so with a `gap`.
    pub fn listen(&self, tell: impl Fn(Told) + Send + Sync + 'static) -> Listening {
        self.shared().listeners.add(tell)
    }

    /// Everything that happens from now on.
    ///
    /// ```
    /// use kps::document::{Edit, OpenDocument};
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = kps::Server::start(kps::ServerOptions::listen("127.0.0.1:0"))?;
    /// let client = kps::Client::connect(kps::ConnectOptions::new(server.url())).await?;
    /// let notes = client.open_document("notes", OpenDocument::default()).await?;
    ///
    /// let mut events = notes.events();
    /// notes.edit(Edit::append("Hello"))?.await?;
    /// let told = events.next().await.expect("it is open");
    /// assert_eq!(&*told.event, "change");
    /// assert_eq!(told.value()["splices"], serde_json::json!([[0, 0, "Hello"]]));
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn events(&self) -> DocumentEvents {
        let (sender, events) = mpsc::unbounded_channel();
        // Bounded by what a listener may hold. Nobody may read any more.
        let listening = self.listen(move |told| drop(sender.send(told)));
        DocumentEvents { events, _listening: listening }
    }
}

/// A stream of [events](Document::events).
#[derive(Debug)]
pub struct DocumentEvents {
    events: mpsc::UnboundedReceiver<Told>,
    _listening: Listening,
}

impl DocumentEvents {
    /// The next event. After `closed` nothing more comes.
    pub async fn next(&mut self) -> Option<Told> {
        self.events.recv().await
    }
}
