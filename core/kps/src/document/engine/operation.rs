//! Operations: as they are asked for, and as they were applied.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{
    edit::Edit,
    json::{self, JsonChange},
    splice::Splice,
    version::Version,
};

/// What somebody wants to change: it is done wholly or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Unique: the same id is the same operation, however often it is sent. 1 to 128 bytes.
    pub op_id: Arc<str>,
    /// Who wants it, at most 256 bytes.
    pub author: Arc<str>,
    /// The version that the edits are made for.
    pub base_version: Version,
    /// The document's [lineage](super::Document::lineage), to be told apart from another one of the same name.
    pub lineage: Option<Arc<str>>,
    /// What is to be done, one after the other.
    pub edits: Vec<Edit>,
}

impl Operation {
    /// What tells another content of the same id.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&(&*self.author, &self.edits))
    }

    /// Bytes of its edits as JSON.
    pub(super) fn weight(&self) -> usize {
        json::weight(&self.edits)
    }
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The operation's id.
    pub op_id: Arc<str>,
    /// Who wanted it.
    pub author: Arc<str>,
    /// The version it made.
    pub version: Version,
    /// When, milliseconds since the Unix epoch.
    pub time: u64,
    /// The operations that it took back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undoes: Vec<Arc<str>>,
    /// What it changed.
    #[serde(flatten)]
    pub change: Change,
}

/// What changed, told so that everybody comes to the same content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// In text: one after the other.
    Splices(Vec<Splice>),
    /// In JSON: one after the other.
    Changes(Vec<JsonChange>),
}

impl Change {
    /// Bytes it takes, about.
    pub(super) fn weight(&self) -> usize {
        match self {
            Change::Splices(splices) => {
                splices.iter().map(|splice| size_of::<Splice>() + splice.insert.len()).sum()
            }
            Change::Changes(changes) => {
                changes.iter().map(|change| 64 + json::weight(change)).sum()
            }
        }
    }
}

impl Applied {
    pub(super) fn weight(&self) -> usize {
        size_of::<Applied>() + self.op_id.len() + self.author.len() + self.change.weight()
    }
}

/// A hash of an operation's content, the same in every build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(pub(super) u64);

impl Digest {
    pub(super) fn of(content: &impl Serialize) -> Digest {
        let text = serde_json::to_vec(content).unwrap_or_default();
        let hash = digest(&SHA256, &text);
        let first = hash.as_ref().first_chunk().expect("it has 32 bytes");
        Digest(u64::from_le_bytes(*first))
    }
}
