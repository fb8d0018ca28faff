//! A document, whichever engine has it.

use std::sync::Arc;

use super::{
    engine::{
        Applied, Base, Document, Introduction, Kind, Limits, Operation, Outcome, Segment, Snapshot,
        Version,
    },
    shelf::Stored,
};
#[cfg(feature = "yjs")]
use super::{
    engine::{Code, Reject},
    yjs::{Head, YjsDocument},
};
use crate::capability::Failure;

/// A document in memory.
pub(super) enum Held {
    /// Text or JSON, whose operations are made for a version.
    Versioned(Box<Document>),
    /// One whose updates merge.
    #[cfg(feature = "yjs")]
    Yjs(Box<YjsDocument>),
}

/// Does the same with either.
macro_rules! either {
    ($held:expr, $document:ident => $done:expr) => {
        match $held {
            Held::Versioned($document) => $done,
            #[cfg(feature = "yjs")]
            Held::Yjs($document) => $done,
        }
    };
}

impl Held {
    /// An empty one.
    ///
    /// # Errors
    /// None of this kind is in this build.
    pub(super) fn new(kind: Kind, lineage: Arc<str>, limits: Arc<Limits>) -> Result<Held, Failure> {
        match kind {
            #[cfg(feature = "yjs")]
            Kind::Yjs => Ok(Held::Yjs(Box::new(YjsDocument::new(lineage, limits)))),
            #[cfg(not(feature = "yjs"))]
            Kind::Yjs => Err(Failure::field("kind", "this kps was built without yjs")),
            Kind::Text | Kind::Json => {
                Ok(Held::Versioned(Box::new(Document::new(kind, lineage, limits))))
            }
        }
    }

    /// The one that was stored so; `None`: none was.
    ///
    /// # Errors
    /// What is wrong with what is stored.
    pub(super) fn restored(stored: &Stored, limits: Arc<Limits>) -> Result<Option<Held>, String> {
        let Some(base) = &stored.base else {
            return match stored.segments.is_empty() {
                true => Ok(None),
                false => Err("operations are there, and not what they belong to".into()),
            };
        };
        #[cfg(feature = "yjs")]
        if let Some(split) = Head::split(base) {
            let document = YjsDocument::restored(split, &stored.segments, limits)?;
            return Ok(Some(Held::Yjs(Box::new(document))));
        }
        let base: Base = serde_json::from_slice(base).map_err(|error| error.to_string())?;
        let read = |bytes| serde_json::from_slice::<Segment>(bytes);
        let segments = stored.segments.values().map(|bytes| read(bytes));
        let segments = segments.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let document = Document::restored(base, segments, limits)?;
        Ok(Some(Held::Versioned(Box::new(document))))
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Held::Versioned(document) => document.kind(),
            #[cfg(feature = "yjs")]
            Held::Yjs(_) => Kind::Yjs,
        }
    }

    pub(super) fn lineage(&self) -> &Arc<str> {
        either!(self, document => document.lineage())
    }

    pub(super) fn version(&self) -> Version {
        either!(self, document => document.version())
    }

    /// The earliest version that can be read, and whose later operations are known.
    pub(super) fn oldest(&self) -> Version {
        either!(self, document => document.oldest())
    }

    pub(super) fn size(&self) -> usize {
        either!(self, document => document.size())
    }

    pub(super) fn weight(&self) -> usize {
        either!(self, document => document.weight())
    }

    pub(super) fn reserve(&mut self, version: Version) {
        either!(self, document => document.reserve(version));
    }

    /// Everything up to this version is stored, and outlives a crash.
    pub(super) fn stored(&mut self, version: Version) {
        match self {
            Held::Versioned(document) => document.stored(version),
            #[cfg(feature = "yjs")]
            Held::Yjs(_) => {}
        }
    }

    /// Applies an operation, wholly or not at all.
    pub(super) fn apply(&mut self, operation: &Operation, now_ms: u64) -> Outcome {
        match self {
            Held::Versioned(document) => document.apply(operation, now_ms),
            #[cfg(feature = "yjs")]
            Held::Yjs(_) => merges(),
        }
    }

    pub(super) fn undo(
        &mut self,
        op_id: &Arc<str>,
        author: &Arc<str>,
        count: usize,
        now_ms: u64,
    ) -> Outcome {
        match self {
            Held::Versioned(document) => document.undo(op_id, author, count, now_ms),
            #[cfg(feature = "yjs")]
            Held::Yjs(_) => merges(),
        }
    }

    /// Keeps so many operations, and folds older ones into one content.
    pub(super) fn compact(&mut self, keep: usize) {
        match self {
            Held::Versioned(document) => document.compact(keep, usize::MAX),
            #[cfg(feature = "yjs")]
            Held::Yjs(document) => document.fold(),
        }
    }

    /// Its content when it had this version; `None` if that is not known (any more).
    pub(super) fn at(&self, version: Version) -> Option<Snapshot> {
        match self {
            Held::Versioned(document) => document.at(version),
            #[cfg(feature = "yjs")]
            Held::Yjs(document) => {
                (version == document.version()).then(|| Snapshot::Value(document.value()))
            }
        }
    }

    /// What one who opens it is told; see [`Document::introduce`].
    pub(super) fn introduce(
        &self,
        lineage: Option<&str>,
        known: &[Version],
        in_parts: bool,
        stored: Option<Version>,
    ) -> Introduction {
        match self {
            Held::Versioned(document) => document.introduce(lineage, known, in_parts, stored),
            #[cfg(feature = "yjs")]
            Held::Yjs(document) => Introduction::whole(document.version()),
        }
    }

    /// The operations that are kept, the newest first.
    pub(super) fn operations(&self) -> Box<dyn Iterator<Item = &Applied> + '_> {
        match self {
            Held::Versioned(document) => Box::new(document.operations().rev()),
            #[cfg(feature = "yjs")]
            Held::Yjs(_) => Box::new(std::iter::empty()),
        }
    }

    /// As it is stored: the content at [`oldest`](Self::oldest); `None`: it cannot be written.
    pub(super) fn saved_base(&self) -> Option<Vec<u8>> {
        match self {
            Held::Versioned(document) => serde_json::to_vec(&document.saved_base()).ok(),
            #[cfg(feature = "yjs")]
            Held::Yjs(document) => Some(document.saved_base()),
        }
    }

    /// As they are stored: the operations after `version`, if there are any, and the first one's version.
    pub(super) fn saved_since(&self, version: Version) -> Option<(Version, Vec<u8>)> {
        match self {
            Held::Versioned(document) => {
                let segment = document.saved_since(version);
                Some((segment.first()?, serde_json::to_vec(&segment).ok()?))
            }
            #[cfg(feature = "yjs")]
            Held::Yjs(document) => document.saved_since(version),
        }
    }

    /// Whether what is stored is this document, earlier or now.
    pub(super) fn is_stored_as(&self, base: &bytes::Bytes) -> bool {
        #[cfg(feature = "yjs")]
        if let Some((head, _)) = Head::split(base) {
            return head.is_of(self.lineage()) && head.version() <= self.version();
        }
        serde_json::from_slice::<Base>(base)
            .is_ok_and(|base| base.is_of(self.lineage()) && base.version() <= self.version())
    }
}

#[cfg(feature = "yjs")]
fn merges() -> Outcome {
    let sentence = "a Yjs document is changed by document.update, or through /yjs/{id}";
    Outcome::Rejected(Reject::new(Code::WrongKind, sentence))
}
