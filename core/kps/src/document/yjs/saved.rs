//! A Yjs document as it is stored: its state, and the updates since, in segments.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    YjsDocument,
    lib0::{Reader, put_buffer, put_int},
    merge,
};
use crate::document::engine::{Limits, Version};

/// The number of this form; a newer one is refused.
const FORMAT: u32 = 1;

/// The line before a state.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    format: u32,
    kind: String,
    lineage: Arc<str>,
    version: Version,
}

impl Head {
    /// The head of a stored base, and the state behind it; `None`: it is of another kind.
    pub(crate) fn split(base: &Bytes) -> Option<(Head, Bytes)> {
        // The other kinds are JSON in one line.
        let end = base.iter().position(|byte| *byte == b'\n')?;
        let head = serde_json::from_slice(&base[..end]).ok()?;
        Some((head, base.slice(end + 1..)))
    }

    /// Whether it is a document's of this lineage.
    pub(crate) fn is_of(&self, lineage: &str) -> bool {
        *self.lineage == *lineage
    }

    /// The version it is of.
    pub(crate) fn version(&self) -> Version {
        self.version
    }
}

impl YjsDocument {
    /// The state at [`oldest`](Self::oldest).
    pub(crate) fn saved_base(&self) -> Vec<u8> {
        let head = Head {
            format: FORMAT,
            kind: "yjs".into(),
            lineage: self.lineage.clone(),
            version: self.base_version,
        };
        let mut out = serde_json::to_vec(&head).expect("a head has JSON");
        out.push(b'\n');
        out.extend_from_slice(&self.base);
        out
    }

    /// The updates after `version`, and the first one's version.
    pub(crate) fn saved_since(&self, version: Version) -> Option<(Version, Vec<u8>)> {
        let from = self.log.partition_point(|(it, _)| *it <= version);
        let first = self.log.get(from)?.0;
        let mut out = Vec::new();
        for (version, update) in self.log.range(from..) {
            put_int(&mut out, version.0);
            put_buffer(&mut out, update);
        }
        Some((first, out))
    }

    /// The document that was stored so.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn restored(
        (head, base): (Head, Bytes),
        segments: &BTreeMap<Version, Bytes>,
        limits: Arc<Limits>,
    ) -> Result<YjsDocument, String> {
        if head.format != FORMAT || head.kind != "yjs" {
            return Err(format!("it is {} in form {}, of a newer kps", head.kind, head.format));
        }
        let mut document = YjsDocument::new(head.lineage, limits);
        (document.base, document.base_version) = (base, head.version);
        document.version = head.version;
        document.reserved = head.version;
        for segment in segments.values() {
            let mut reader = Reader::new(segment);
            while !reader.is_empty() {
                let version = reader.int().ok_or("a segment ends too early")?;
                let update = reader.buffer().ok_or("a segment ends too early")?;
                document.log_again(Version(version), segment.slice_ref(update))?;
            }
        }
        let updates = std::iter::once(&document.base).chain(document.log.iter().map(|(_, it)| it));
        let loaded = merge::load(updates)?;
        (document.doc, document.types) = (loaded.doc, loaded.types);
        document.waits(loaded.is_missing, document.log_bytes, loaded.turns);
        Ok(document)
    }

    fn log_again(&mut self, version: Version, update: Bytes) -> Result<(), String> {
        if version <= self.version {
            return Err(format!("version {version} comes twice"));
        }
        self.version = version;
        self.log_bytes += update.len();
        self.log.push_back((version, update));
        Ok(())
    }
}
