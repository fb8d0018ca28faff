//! How a storage is opened, as programs say it.

use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};

use super::Key;
use crate::store::Clock;

/// When a `save` is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk: fsync has returned. It survives a power failure.
    #[default]
    Full,
    /// When the operating system has it: it survives the end of the process. After a power failure the last
    /// moments may be missing, and nothing else.
    Normal,
}

impl Durability {
    /// `full` or `normal`.
    pub fn from_name(name: &str) -> Option<Durability> {
        match name {
            "full" => Some(Durability::Full),
            "normal" => Some(Durability::Normal),
            _ => None,
        }
    }
}

/// How a [`Storage`](crate::capability::storage::Storage) is opened.
#[derive(Clone)]
pub struct StorageOptions {
    /// Its file, or a folder, where it is `values.db`; made if it is missing. `None`: in memory.
    pub path: Option<PathBuf>,
    /// Bytes of a key at most (1 KiB).
    pub max_key: usize,
    /// Bytes of a value at most (1 GiB).
    pub max_value: u64,
    /// Bytes of values that `get` and `get_many` return at once at most (16 MiB); larger ones are read with
    /// `get_part`.
    pub max_inline: u64,
    /// Bytes of a value that stays here when a cloud is configured (5 MB); larger ones go there.
    pub max_local_size: u64,
    /// Bytes of keys and values that a namespace may hold, old versions among them; `None`: any.
    pub quota: Option<u64>,
    /// How many old versions of each key are kept (0).
    pub versions: u32,
    /// Encrypts values. Keys, sizes and times stay readable.
    pub key: Option<Key>,
    /// Compresses values of 512 bytes and more where that helps.
    pub compress: bool,
    /// When a `save` is answered; nothing is on disk in memory.
    pub durability: Durability,
    /// What ages are measured with.
    pub now: Clock,
}

impl Default for StorageOptions {
    fn default() -> Self {
        StorageOptions::memory()
    }
}

impl StorageOptions {
    /// In this file or folder.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        StorageOptions { path: Some(path.into()), ..StorageOptions::memory() }
    }

    /// In memory: for as long as it is open.
    pub fn memory() -> Self {
        let now: Clock = Arc::new(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(now.as_millis()).unwrap_or(0)
        });
        StorageOptions {
            path: None,
            max_key: 1024,
            max_value: 1 << 30,
            max_inline: 16 << 20,
            max_local_size: 5_000_000,
            quota: None,
            versions: 0,
            key: None,
            compress: false,
            durability: Durability::Full,
            now,
        }
    }
}

impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageOptions")
            .field("path", &self.path)
            .field("quota", &self.quota)
            .field("versions", &self.versions)
            .field("key", &self.key)
            .field("compress", &self.compress)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}
