//! `storage`: values under keys, on disk or in memory. Its operations are in [the manual](crate::manual::storage).

mod answer;
mod aside;
mod batch;
#[cfg(feature = "cloud")]
mod cloud;
mod codec;
mod operations;
mod options;
mod parts;
mod query;
mod request;
mod stream;
#[cfg(test)]
mod tests;
mod watch;

use std::{fmt, future::ready, path::PathBuf, sync::Arc};

use kps_proto::{Error, ErrorKind, Result};

use self::{aside::Aside, query::Running, watch::Watches};
pub use self::{
    options::Spelling,
    stream::{Download, StorageClient, Upload},
};
use super::{
    Call, Callback, Capability, Failure, Fields, Map, Operation, Outcome, Value, missing,
    unknown_operation,
};
pub use crate::store::values::{Change, ChangeKind, Durability, Key, StorageOptions};
use crate::{
    net::BoxFuture,
    store::values::{self, Answer, Etag, Job, Op, QUICK, Submitted, Values},
};

/// The storage capability. Clones share it; with the last one its file is closed.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    values: Arc<Values>,
    watches: Arc<Watches>,
    options: StorageOptions,
    queries: Running,
    aside: Aside,
    #[cfg(feature = "cloud")]
    cloud: cloud::Cloud,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Storage").field(&self.0.options).finish()
    }
}

/// An operation's answer: there, or to come.
enum Reply {
    Now(Outcome),
    Later(BoxFuture<'static, Outcome>),
}

impl<T: Into<Value>> From<T> for Reply {
    fn from(value: T) -> Self {
        Reply::Now(Ok(value.into()))
    }
}

impl Storage {
    /// Opens the file, or makes it if there is none.
    ///
    /// # Errors
    /// `store_failed` if another process has it, it was written by a newer kps, or the path cannot be used;
    /// `store_corrupt` if it is damaged; `unauthorized` if it needs a key, or another one.
    pub fn open(options: StorageOptions) -> Result<Storage> {
        let watches = Arc::new(Watches::default());
        let listening = watches.clone();
        let values = Values::open(values::Options {
            path: options.path.as_deref().map(file),
            max_value: options.max_value,
            quota: options.quota,
            versions: options.versions,
            key: options.key.clone(),
            compress: options.compress,
            full: options.durability == Durability::Full,
            now: options.now.clone(),
            heard: watches.heard.clone(),
            listener: Box::new(move |changes| listening.tell(&changes)),
        })?;
        let queries = Running::default();
        Ok(Storage(Arc::new(Inner {
            values: Arc::new(values),
            watches,
            options,
            queries,
            aside: Aside::default(),
            #[cfg(feature = "cloud")]
            cloud: cloud::Cloud::default(),
        })))
    }

    /// Has `hook` called for every change of every namespace once it is committed, in order, for as long as the
    /// storage is open. It must not block.
    pub fn on_change(&self, hook: impl Fn(&Change) + Send + Sync + 'static) {
        self.0.watches.on_change(Arc::new(hook));
    }

    /// Has `callback` told of every change in a namespace; returns what [`unwatch`](Self::unwatch) takes.
    pub(super) fn watch_all(
        &self,
        namespace: Arc<str>,
        callback: Callback,
    ) -> std::result::Result<String, Failure> {
        self.0.watches.watch(namespace, String::new(), callback)
    }

    /// Ends a watch; whether there was one.
    pub(super) fn unwatch(&self, namespace: &str, id: &str) -> bool {
        self.0.watches.unwatch(namespace, id)
    }

    /// What is below it, for rooms that keep something in the same file.
    pub(crate) fn values(&self) -> Arc<Values> {
        self.0.values.clone()
    }

    /// Writes what waits, closes the file, and returns when that is done. Clones refuse every call from now on.
    pub fn close(&self) {
        self.0.values.close();
    }

    fn dispatch(&self, mut call: Call) -> std::result::Result<Reply, Failure> {
        let operation = call.operation.clone();
        if !operations::NAMES.contains(&&*operation) {
            return Err(unknown_operation(&operation, &operations::NAMES));
        }
        let mut fields = Fields::of(std::mem::take(&mut call.payload))?;
        let namespace = call.caller.namespace.clone();
        let options = &self.0.options;
        match &*operation {
            "save" => Ok(self.one(namespace, request::save_op(fields, options)?)),
            "delete" => Ok(self.one(namespace, request::delete_op(fields, options)?)),
            "get" => self.get(namespace, fields),
            "exists" => self.exists(&namespace, fields),
            "list" => self.list(&namespace, fields),
            "save_many" => self.save_many(namespace, fields),
            "get_many" => self.get_many(namespace, fields),
            "delete_many" => self.delete_many(namespace, fields),
            "transaction" => self.transaction(namespace, fields),
            "history" => self.history(&namespace, fields),
            "watch" => self.watch(namespace, fields),
            "unwatch" => {
                let id = fields.text("watch")?;
                fields.done()?;
                let ended = self.unwatch(&namespace, &id);
                Ok(Value::map([("unwatched", ended.into())]).into())
            }
            "query" => {
                let (values, running) = (self.0.values.clone(), &self.0.queries);
                Ok(blocking(query::prepare(&call, fields, values, running)?))
            }
            "stat" => self.stat(&namespace, fields),
            "upload" => self.upload(namespace, fields),
            "upload_part" => self.upload_part(namespace, fields),
            "upload_done" => self.end_upload(namespace, fields, Op::Finish),
            "upload_cancel" => self.end_upload(namespace, fields, Op::Abandon),
            "get_part" => self.get_part(namespace, fields),
            #[cfg(feature = "cloud")]
            _ => self.configure_cloud(&call, fields),
            #[cfg(not(feature = "cloud"))]
            _ => Err(Failure::new(ErrorKind::Unsupported, "this kps was built without the cloud")),
        }
    }

    /// One operation that writes.
    fn one(&self, namespace: Arc<str>, op: Op) -> Reply {
        #[cfg(feature = "cloud")]
        if let Some(work) = self.in_cloud(&namespace)
            && matches!(op, Op::Save(..) | Op::Delete(..) | Op::Finish(_))
        {
            return cloud::later(async move { work.one(op).await });
        }
        self.job(Job { namespace, ops: vec![op], atomic: false }, answer::only)
    }

    fn job(&self, job: Job, told: impl FnOnce(Answer) -> Outcome + Send + 'static) -> Reply {
        match self.0.values.submit(job) {
            Submitted::Ready(answer) => Reply::Now(told(answer)),
            Submitted::Later(answer) => Reply::Later(Box::pin(async move {
                let lost = || Error::new(ErrorKind::Closed, "the storage was closed meanwhile");
                told(answer.await.unwrap_or_else(|_| Err(lost())))
            })),
        }
    }

    fn get(&self, namespace: Arc<str>, mut fields: Fields) -> std::result::Result<Reply, Failure> {
        let key = request::key(&mut fields, &self.0.options)?;
        let known = fields.optional_text("if_none_match")?;
        let version = match fields.optional_text("version")? {
            None => None,
            Some(text) => Some(Etag::parse(&text).ok_or_else(|| {
                Failure::field("version", format!("version is {text:?}; it is an ETag of history"))
            })?),
        };
        fields.done()?;
        let values = &self.0.values;
        #[cfg(feature = "cloud")]
        if version.is_none()
            && let Some(work) = self.in_cloud(&namespace)
            && work.is_elsewhere(&key)
        {
            let most = self.0.options.max_inline;
            return Ok(cloud::later(
                async move { work.get_value(&key, known.as_deref(), most).await },
            ));
        }
        if let Some(known) = known
            && let Some(meta) = values.stat(&namespace, &key)?
            && (known == "*" || known == meta.etag.to_string())
        {
            let mut map = answer::described(&key, &meta);
            map.push("not_modified", true);
            return Ok(map.into());
        }
        let get = move |values: &Values, most| {
            let (meta, content) = match version {
                None => values.get(&namespace, &key, most),
                Some(etag) => values.get_version(&namespace, &key, etag, most),
            }?;
            answer::value(&key, &meta, content)
        };
        let most = self.0.options.max_inline;
        match get(values, most.min(QUICK)) {
            // It takes some milliseconds: not on the thread that asks.
            Err(failure) if failure.kind == ErrorKind::TooLarge && most > QUICK => {
                let values = values.clone();
                Ok(blocking(move || get(&values, most)))
            }
            outcome => Ok(Reply::Now(outcome)),
        }
    }

    fn exists(
        &self,
        namespace: &Arc<str>,
        mut fields: Fields,
    ) -> std::result::Result<Reply, Failure> {
        let key = request::key(&mut fields, &self.0.options)?;
        fields.done()?;
        #[cfg(feature = "cloud")]
        if let Some(work) = self.in_cloud(namespace)
            && work.is_elsewhere(&key)
        {
            return Ok(cloud::later(async move { work.exists(&key).await }));
        }
        let mut map = Map::default();
        match self.0.values.stat(namespace, &key)? {
            None => map.push("exists", false),
            Some(meta) => {
                map.push("exists", true);
                map.push("etag", meta.etag.to_string());
                map.push("size", meta.size);
            }
        }
        Ok(map.into())
    }

    fn list(
        &self,
        namespace: &Arc<str>,
        mut fields: Fields,
    ) -> std::result::Result<Reply, Failure> {
        let prefix = fields.optional_text("prefix")?.unwrap_or_default();
        let cursor = fields.optional_text("cursor")?;
        let limit = request::limit(&mut fields, 100, 1000)?;
        fields.done()?;
        #[cfg(feature = "cloud")]
        if let Some(work) = self.in_cloud(namespace) {
            return Ok(cloud::later(
                async move { work.list(&prefix, cursor.as_deref(), limit).await },
            ));
        }
        let found = self.0.values.list(namespace, &prefix, cursor.as_deref(), limit)?;
        let cursor = found.items.last().filter(|_| found.more).map(|(key, _)| key.clone());
        let items = found.items.iter().map(|(key, meta)| answer::listed(key, meta).into());
        Ok(Value::map([("items", Value::List(items.collect())), ("cursor", cursor.into())]).into())
    }

    fn history(&self, namespace: &str, mut fields: Fields) -> std::result::Result<Reply, Failure> {
        let key = request::key(&mut fields, &self.0.options)?;
        let limit = request::limit(&mut fields, 100, 1000)?;
        fields.done()?;
        if self.0.options.versions == 0 {
            let sentence = "this storage keeps no old versions; open it with versions above 0";
            return Err(Failure::new(ErrorKind::Unsupported, sentence));
        }
        let found = self.0.values.history(namespace, &key, limit)?;
        if found.is_empty() {
            let sentence = format!("there is no key {key:?}, nor was there any");
            return Err(Failure::new(ErrorKind::NotFound, sentence));
        }
        let versions = found.into_iter().map(|version| {
            Value::map([
                ("etag", version.meta.etag.to_string().into()),
                ("size", version.meta.size.into()),
                ("modified", answer::seconds(version.meta.modified_ms)),
                ("deleted", version.deleted.into()),
                ("current", version.current.into()),
            ])
        });
        Ok(Value::map([("versions", Value::List(versions.collect()))]).into())
    }

    fn watch(
        &self,
        namespace: Arc<str>,
        mut fields: Fields,
    ) -> std::result::Result<Reply, Failure> {
        let prefix = fields.optional_text("prefix")?.unwrap_or_default();
        let callback = fields.callback("callback")?.ok_or_else(|| missing("callback"))?;
        fields.done()?;
        let id = self.0.watches.watch(namespace, prefix, callback)?;
        Ok(Value::map([("watch", id.into())]).into())
    }

    fn stat(&self, namespace: &str, fields: Fields) -> std::result::Result<Reply, Failure> {
        fields.done()?;
        let (tally, expired, uploads) = self.0.values.tally(namespace)?;
        let options = &self.0.options;
        let durability = match (&options.path, options.durability) {
            (None, _) => "memory",
            (_, Durability::Full) => "full",
            (_, Durability::Normal) => "normal",
        };
        Ok(Value::map([
            ("keys", tally.keys.into()),
            ("bytes", tally.bytes.into()),
            ("quota", options.quota.into()),
            ("expired", expired.into()),
            ("uploads", uploads.into()),
            ("max_key", options.max_key.into()),
            ("max_value", options.max_value.into()),
            ("max_inline", options.max_inline.into()),
            ("versions", options.versions.into()),
            ("encrypted", options.key.is_some().into()),
            ("compressed", options.compress.into()),
            ("durability", durability.into()),
            ("cloud", self.cloud_stat()),
        ])
        .into())
    }
}

impl Storage {
    #[cfg(feature = "cloud")]
    fn cloud_stat(&self) -> Value {
        self.0.cloud.get().map_or(Value::Null, |cloud| cloud.stat())
    }

    #[cfg(not(feature = "cloud"))]
    fn cloud_stat(&self) -> Value {
        Value::Null
    }
}

impl Capability for Storage {
    fn operations(&self) -> Vec<Operation> {
        operations::describe()
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Outcome> {
        if self.is_for_aside(&call) {
            return self.aside(call);
        }
        match self.dispatch(call) {
            Ok(Reply::Later(answer)) => answer,
            Ok(Reply::Now(outcome)) => Box::pin(ready(outcome)),
            Err(failure) => Box::pin(ready(Err(failure))),
        }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let values = self.0.values.clone();
        Box::pin(async move {
            // It may have to write and to tidy up.
            let closing = crate::runtime::handle().spawn_blocking(move || values.close());
            let _ = closing.await;
        })
    }
}

/// Runs what blocks on another thread.
fn blocking(work: impl FnOnce() -> Outcome + Send + 'static) -> Reply {
    let working = crate::runtime::handle().spawn_blocking(work);
    Reply::Later(Box::pin(async move {
        working.await.unwrap_or_else(|error| {
            Err(Failure::new(ErrorKind::Cancelled, format!("the work did not end: {error}")))
        })
    }))
}

/// The file that is meant.
fn file(path: &std::path::Path) -> PathBuf {
    if path.is_dir() { values::values_file(path) } else { path.into() }
}
