//! A document as it is stored: one content, and the operations since, in segments.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    Document, Kept, Limits, Seen,
    content::{Content, Kind, Snapshot},
    operation::{Applied, Digest},
    version::Version,
};

/// The number of this form; a newer one is refused.
const FORMAT: u32 = 1;

/// The content that segments begin with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Base {
    format: u32,
    kind: Kind,
    lineage: Arc<str>,
    version: Version,
    #[serde(flatten)]
    content: Snapshot,
    /// Of operations before: their ids, versions and digests, oldest first.
    op_ids: Vec<(Arc<str>, Version, SavedDigest)>,
}

/// Operations, oldest first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Segment {
    operations: Vec<Saved>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    digest: SavedDigest,
    #[serde(flatten)]
    applied: Applied,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Hex", into = "Hex")]
struct SavedDigest(Digest);

/// Numbers of 64 bit are text in JSON.
#[derive(Serialize, Deserialize)]
struct Hex(String);

impl From<Hex> for SavedDigest {
    fn from(Hex(text): Hex) -> Self {
        // One that is damaged is another content: the operation is not applied twice.
        SavedDigest(Digest(u64::from_str_radix(&text, 16).unwrap_or_default()))
    }
}

impl From<SavedDigest> for Hex {
    fn from(SavedDigest(Digest(number)): SavedDigest) -> Self {
        Hex(format!("{number:x}"))
    }
}

impl Document {
    /// The content at [`oldest`](Self::oldest).
    pub(crate) fn saved_base(&self) -> Base {
        let of = |op_id: &Arc<str>| {
            let seen = self.seen.get(op_id)?;
            Some((op_id.clone(), seen.version, SavedDigest(seen.digest)))
        };
        Base {
            format: FORMAT,
            kind: self.kind(),
            lineage: self.lineage.clone(),
            version: self.base_version,
            content: self.base.snapshot(),
            op_ids: self.folded.iter().filter_map(of).collect(),
        }
    }

    /// The operations after `version` that are kept.
    pub(crate) fn saved_since(&self, version: Version) -> Segment {
        let from = self.history.partition_point(|kept| kept.applied.version <= version);
        let saved =
            |kept: &Kept| Saved { digest: SavedDigest(kept.digest), applied: kept.applied.clone() };
        Segment { operations: self.history.range(from..).map(saved).collect() }
    }

    /// The document that was stored so.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn restored(
        base: Base,
        segments: Vec<Segment>,
        limits: Arc<Limits>,
    ) -> Result<Document, String> {
        if base.format != FORMAT {
            return Err(format!("it was written by a newer kps, in form {}", base.format));
        }
        let content = Content::from(base.content);
        if content.kind() != base.kind {
            return Err("its content is of another kind".into());
        }
        let mut seen = HashMap::new();
        let mut folded = VecDeque::new();
        for (op_id, version, SavedDigest(digest)) in base.op_ids {
            seen.insert(op_id.clone(), Seen { version, digest });
            folded.push_back(op_id);
        }
        let mut document = Document {
            lineage: base.lineage,
            base: content.clone(),
            base_version: base.version,
            history: VecDeque::new(),
            history_bytes: 0,
            content,
            version: base.version,
            reserved: base.version,
            seen,
            folded,
            stored: None,
            limits,
        };
        for Saved { digest: SavedDigest(digest), applied } in
            segments.into_iter().flat_map(|segment| segment.operations)
        {
            if applied.version <= document.version {
                return Err(format!("version {} comes twice", applied.version));
            }
            let done = document.content.apply(&applied.change, usize::MAX);
            done.map_err(|reject| {
                format!("version {} cannot be made again: {}", applied.version, reject.message)
            })?;
            document.version = applied.version;
            document.keep(applied, digest);
        }
        Ok(document)
    }
}

impl Base {
    /// Whether it is a document's of this lineage.
    pub(crate) fn is_of(&self, lineage: &str) -> bool {
        *self.lineage == *lineage
    }

    /// The version it is of.
    pub(crate) fn version(&self) -> Version {
        self.version
    }
}

impl Segment {
    /// The first one's version.
    pub(crate) fn first(&self) -> Option<Version> {
        self.operations.first().map(|saved| saved.applied.version)
    }
}
