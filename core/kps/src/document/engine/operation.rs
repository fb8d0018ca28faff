//! Operations: as they are asked for, and as they were applied.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
#[cfg(feature = "yjs")]
use ring::digest::Context;
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
    /// In a Yjs document: an update in version 1 of its encoding; in JSON it is base64.
    #[serde(with = "as_base64")]
    Update(Bytes),
}

mod as_base64 {
    use super::{Bytes, Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(input)?;
        STANDARD.decode(text).map(Into::into).map_err(de::Error::custom)
    }
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
            Change::Update(update) => update.len(),
        }
    }
}

impl Applied {
    /// The update that it is, of a Yjs document.
    #[cfg(feature = "yjs")]
    pub(crate) fn into_update(self) -> Option<Bytes> {
        match self.change {
            Change::Update(update) => Some(update),
            Change::Splices(_) | Change::Changes(_) => None,
        }
    }

    pub(super) fn weight(&self) -> usize {
        size_of::<Applied>() + self.op_id.len() + self.author.len() + self.change.weight()
    }
}

/// A hash of an operation's content, the same in every build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::document) struct Digest(pub(super) u64);

impl Digest {
    pub(super) fn of(content: &impl Serialize) -> Digest {
        let text = serde_json::to_vec(content).unwrap_or_default();
        let hash = digest(&SHA256, &text);
        Digest::first(hash)
    }

    /// Of an update, and whose it is.
    #[cfg(feature = "yjs")]
    pub(in crate::document) fn of_bytes(author: &str, bytes: &[u8]) -> Digest {
        let mut context = Context::new(&SHA256);
        context.update(&(author.len() as u64).to_le_bytes());
        context.update(author.as_bytes());
        context.update(bytes);
        Digest::first(context.finish())
    }

    fn first(hash: ring::digest::Digest) -> Digest {
        let first = hash.as_ref().first_chunk().expect("it has 32 bytes");
        Digest(u64::from_le_bytes(*first))
    }
}
