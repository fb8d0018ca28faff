//! Calls that come over the bus wait for the disk on a thread of their own: the runtime's thread carries the
//! bus, and a disk that does not answer must not stop it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak, mpsc},
    thread,
};

use kps_proto::ErrorKind;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    super::{Call, Failure, Outcome},
    Durability, Inner, Reply, Storage,
};
use crate::net::BoxFuture;

/// Operations that only queue work for the storage's thread, if every answer waits for its fsync.
const QUEUED: [&str; 9] = [
    "save",
    "delete",
    "save_many",
    "delete_many",
    "transaction",
    "upload",
    "upload_part",
    "upload_done",
    "upload_cancel",
];

/// The thread, made for the first call.
#[derive(Default)]
pub(super) struct Aside(Mutex<Option<mpsc::Sender<Asked>>>);

struct Asked {
    call: Call,
    answer: oneshot::Sender<Result<Reply, Failure>>,
}

impl Storage {
    /// Whether the call may wait for the disk, on behalf of somebody elsewhere.
    pub(super) fn is_for_aside(&self, call: &Call) -> bool {
        call.caller.client_id.is_some()
            && self.0.options.path.is_some()
            && !(self.0.options.durability == Durability::Full
                && QUEUED.contains(&&*call.operation)
                && self.has_no_cloud())
    }

    /// Runs it there, one after the other.
    pub(super) fn aside(&self, call: Call) -> BoxFuture<'static, Outcome> {
        let (answer, waiting) = oneshot::channel();
        let asked = self.0.aside.push(&self.0, Asked { call, answer });
        Box::pin(async move {
            asked?;
            let closed = |_| Failure::new(ErrorKind::Closed, "the storage was closed meanwhile");
            match waiting.await.map_err(closed)?? {
                Reply::Now(outcome) => outcome,
                Reply::Later(outcome) => outcome.await,
            }
        })
    }

    #[cfg(feature = "cloud")]
    fn has_no_cloud(&self) -> bool {
        self.0.cloud.get().is_none()
    }

    #[cfg(not(feature = "cloud"))]
    fn has_no_cloud(&self) -> bool {
        true
    }
}

impl Aside {
    fn push(&self, storage: &Arc<Inner>, asked: Asked) -> Result<(), Failure> {
        let mut sender = self.0.lock();
        if sender.is_none() {
            let (made, calls) = mpsc::channel();
            let storage = Arc::downgrade(storage);
            let thread = thread::Builder::new().name("kps-storage-calls".into());
            thread.spawn(move || work(&storage, &calls)).map_err(|error| {
                let sentence = format!("the system starts no thread for the storage: {error}");
                Failure::new(ErrorKind::Unavailable, sentence).retryable()
            })?;
            *sender = Some(made);
        }
        let thread = sender.as_ref().expect("it was just made");
        // Those who call are few: the bus hands out so many calls at a time.
        thread
            .send(asked)
            .map_err(|_| Failure::new(ErrorKind::Internal, "the storage's thread died"))
    }
}

/// Until the storage is gone.
fn work(storage: &Weak<Inner>, calls: &mpsc::Receiver<Asked>) {
    while let Ok(Asked { call, answer }) = calls.recv() {
        // Nobody waits any more: it is not begun.
        if answer.is_closed() || call.cancel.is_cancelled() {
            continue;
        }
        let Some(inner) = storage.upgrade() else { return };
        let reply = catch_unwind(AssertUnwindSafe(|| Storage(inner).dispatch(call)));
        let reply = reply.unwrap_or_else(|_| {
            Err(Failure::new(ErrorKind::Internal, "the operation panicked in the storage"))
        });
        let _ = answer.send(reply);
    }
}
