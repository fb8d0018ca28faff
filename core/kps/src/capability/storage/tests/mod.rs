//! The storage as its callers see it.

mod aside;
mod basics;
mod batches;
mod expiry;
mod files;
mod large;
mod model;
mod queries;
mod verifying;
mod versions;
mod watching;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    super::{Call, Caller, Cancel, Capability, Map, Outcome, Value},
    Storage, StorageOptions,
};

/// A folder that is removed with the value.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kps-values-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A storage whose clock the test holds.
pub(super) struct Open {
    pub(super) storage: Storage,
    pub(super) clock: Arc<AtomicU64>,
    /// Removed when it is closed.
    folder: Option<Folder>,
}

/// When every test begins.
pub(super) const START: u64 = 1_000_000;

impl Open {
    pub(super) fn memory() -> Open {
        Open::with(StorageOptions::memory())
    }

    /// In a folder of its own.
    pub(super) fn on_disk() -> Open {
        let folder = Folder::new();
        let mut open = Open::at(&folder);
        open.folder = Some(folder);
        open
    }

    pub(super) fn at(folder: &Folder) -> Open {
        Open::with(StorageOptions::at(folder.path()))
    }

    pub(super) fn with(options: StorageOptions) -> Open {
        Open::try_with(options).unwrap()
    }

    pub(super) fn try_with(mut options: StorageOptions) -> kps_proto::Result<Open> {
        let clock = Arc::new(AtomicU64::new(START));
        let now = clock.clone();
        options.now = Arc::new(move || now.load(Ordering::Relaxed));
        Ok(Open { storage: Storage::open(options)?, clock, folder: None })
    }

    pub(super) fn call_as(&self, namespace: &str, operation: &str, payload: Value) -> Outcome {
        let call = Call {
            id: "1".into(),
            operation: operation.into(),
            payload,
            caller: Caller { namespace: namespace.into(), ..Caller::default() },
            cancel: Cancel::default(),
            deadline: None,
            attempt: 1,
            progress: None,
        };
        wait(self.storage.call(call))
    }

    pub(super) fn try_call(&self, operation: &str, payload: serde_json::Value) -> Outcome {
        self.call_as("", operation, of(payload))
    }

    pub(super) fn call(&self, operation: &str, payload: serde_json::Value) -> Value {
        self.try_call(operation, payload).unwrap()
    }

    /// The code of the failure, and the field.
    pub(super) fn refused(
        &self,
        operation: &str,
        payload: serde_json::Value,
    ) -> (&'static str, String) {
        let failure = self.try_call(operation, payload).unwrap_err();
        (failure.code(), failure.field.unwrap_or_default())
    }

    /// The value of a key; the code, if there is none.
    pub(super) fn value(&self, key: &str) -> Result<Value, &'static str> {
        match self.try_call("get", serde_json::json!({ "key": key })) {
            Ok(answer) => Ok(answer.get("value").unwrap().clone()),
            Err(failure) => Err(failure.code()),
        }
    }

    pub(super) fn save_bytes(&self, key: &str, bytes: &[u8]) -> Value {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let payload = Value::map([("key", key.into()), ("value", bytes.into())]);
        self.call_as("", "save", payload).unwrap()
    }

    pub(super) fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn sweep(&self) {
        self.storage.0.values.sweep();
    }
}

/// Waits on this thread, without any runtime.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Of JSON.
pub(super) fn of(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => flag.into(),
        Json::Number(number) => match number.as_i64() {
            Some(int) => int.into(),
            None => number.as_f64().unwrap().into(),
        },
        Json::String(text) => text.into(),
        Json::Array(list) => Value::List(list.into_iter().map(of).collect()),
        Json::Object(map) => {
            Value::Map(map.into_iter().map(|(name, value)| (name, of(value))).collect::<Map>())
        }
    }
}

pub(super) fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::Text(text)) => text.clone(),
        other => panic!("{name} is {other:?}"),
    }
}

pub(super) fn int(value: &Value, name: &str) -> i64 {
    match value.get(name) {
        Some(Value::Int(number)) => *number,
        other => panic!("{name} is {other:?}"),
    }
}

pub(super) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    match value.get(name) {
        Some(Value::List(list)) => list,
        other => panic!("{name} is {other:?}"),
    }
}
