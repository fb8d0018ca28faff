//! Values in the cloud: large ones live in a libSQL database that several storages may share, small ones stay
//! here. If one side fails the other is used, and the answer says so.

mod cache;
mod config;
mod flows;
mod many;
mod remote;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use kps_proto::{Error, ErrorKind};
use parking_lot::{Mutex, RwLock};

use self::{
    cache::Cache,
    remote::{Held, RemoteDatabase},
};
use super::{
    super::{Failure, Map, Outcome},
    Reply, Storage, answer,
};
use crate::store::values::{Done, Etag, Job, Meta, Op, Remote, Submitted, Values};

/// The cloud of a storage, if one is configured.
#[derive(Default)]
pub(super) struct Cloud(RwLock<Option<Arc<Configured>>>);

/// Operations on one key follow each other: so many keys at once.
const LOCKS: usize = 64;

pub(super) struct Configured {
    url: String,
    max_local_size: u64,
    database: RemoteDatabase,
    cache: Mutex<Cache>,
    locks: [tokio::sync::Mutex<()>; LOCKS],
}

impl Cloud {
    pub(super) fn get(&self) -> Option<Arc<Configured>> {
        self.0.read().clone()
    }
}

/// One operation that may need the cloud.
#[derive(Clone)]
pub(super) struct Work {
    values: Arc<Values>,
    cloud: Arc<Configured>,
    namespace: Arc<str>,
    max_inline: u64,
}

impl Storage {
    /// Work in the cloud, if there is one.
    pub(super) fn in_cloud(&self, namespace: &Arc<str>) -> Option<Work> {
        Some(Work {
            values: self.0.values.clone(),
            cloud: self.0.cloud.get()?,
            namespace: namespace.clone(),
            max_inline: self.0.options.max_inline,
        })
    }
}

/// Runs `work` where the cloud's connections live.
pub(super) fn later(work: impl Future<Output = Outcome> + Send + 'static) -> Reply {
    let working = crate::runtime::spawn(work);
    Reply::Later(Box::pin(async move {
        working.await.unwrap_or_else(|error| {
            let sentence = format!("the cloud cannot be used: {error}");
            Err(Failure::new(ErrorKind::Unavailable, sentence).retryable())
        })
    }))
}

/// What is known of a key on both sides.
struct Looked {
    local: Option<Meta>,
    held: Option<Held>,
    /// Why the cloud could not be asked.
    lost: Option<Error>,
    /// Why the file could not be read.
    failed: Option<Error>,
}

impl Looked {
    /// Whether the value in the cloud is the newer one.
    fn is_in_cloud(&self) -> bool {
        match (&self.local, &self.held) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(local), Some(held)) => held.modified_ms > local.modified_ms,
        }
    }

    /// Marks an answer of which nobody knows whether it is the newest.
    fn mark(&self, map: &mut Map) {
        if let Some(error) = self.lost.as_ref().or(self.failed.as_ref()) {
            map.push("possibly_stale", true);
            map.push("warning", error.message());
        }
    }
}

impl Work {
    /// Whether a key's value cannot be told without the cloud.
    pub(super) fn is_elsewhere(&self, key: &str) -> bool {
        let local = self.values.stat(&self.namespace, key);
        !matches!(local, Ok(Some(_)))
            || !matches!(self.values.remote(&self.namespace, key), Ok(None))
    }

    async fn lock(&self, key: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let hash = blake3::hash(key.as_bytes());
        self.cloud.locks[usize::from(hash.as_bytes()[0]) % LOCKS].lock().await
    }

    async fn look(&self, key: &str) -> Result<Looked, Failure> {
        let (local, failed) = match self.values.stat(&self.namespace, key) {
            Ok(local) => (local, None),
            Err(error) if is_trouble(&error) => (None, Some(error)),
            Err(error) => return Err(error.into()),
        };
        let found = self.cloud.database.find(&self.namespace, key).await;
        let (held, lost) = match found {
            Ok(held) => (held, None),
            Err(error) => (None, Some(error)),
        };
        let now = self.values.now();
        let held = held.filter(|held| held.expires_ms.is_none_or(|expires| expires > now));
        if let Some(failed) = &failed
            && held.is_none()
        {
            return Err(failed.clone().into());
        }
        Ok(Looked { local, held, lost, failed })
    }

    /// Commits one operation here.
    async fn commit(&self, op: Op) -> Result<Done, Error> {
        let job = Job { namespace: self.namespace.clone(), ops: vec![op], atomic: false };
        let answer = match self.values.submit(job) {
            Submitted::Ready(answer) => answer,
            Submitted::Later(answer) => answer.await.unwrap_or_else(|_| Err(closed())),
        };
        answer?.into_iter().next().unwrap_or_else(|| Err(closed()))
    }

    /// Notes what the cloud has of the key.
    async fn note(&self, key: &str, remote: Option<Remote>) -> Result<(), Error> {
        self.commit(Op::Remote(key.to_owned(), remote)).await.map(|_| ())
    }
}

/// Whether it is the file that fails, not the call.
fn is_trouble(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StoreFailed | ErrorKind::StoreCorrupt)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the storage was closed meanwhile")
}

impl Held {
    fn meta(&self) -> Meta {
        Meta {
            etag: Etag::parse(&self.etag).unwrap_or(Etag { version: 0, hash: 0 }),
            kind: self.kind,
            size: self.size,
            modified_ms: self.modified_ms,
            expires_ms: self.expires_ms,
            content_type: self.content_type.clone(),
        }
    }

    fn remote(&self, current: bool) -> Remote {
        let Held { etag, size, modified_ms, .. } = self;
        Remote { current, etag: etag.clone(), size: *size, modified_ms: *modified_ms }
    }

    /// What is known of it, for an answer.
    fn described(&self, key: &str) -> Map {
        let mut map = answer::listed(key, &self.meta());
        map.push("location", "cloud");
        map
    }
}
