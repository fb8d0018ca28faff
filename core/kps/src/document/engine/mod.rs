//! A document as a state machine: no input or output, no clock. Operations come in; what became of them
//! comes out.

mod content;
mod edit;
mod event;
mod introduction;
mod json;
mod operation;
mod reject;
mod replica;
mod saved;
mod splice;
#[cfg(test)]
mod tests;
mod undo;
mod version;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use self::content::Content;
pub(in crate::document) use self::operation::Digest;
pub use self::{
    content::{Kind, Snapshot},
    edit::{Edit, Place, Range},
    event::{DocumentEvent, Level},
    json::JsonChange,
    operation::{Applied, Change, Operation},
    reject::{Code, Reject},
    splice::Splice,
    version::Version,
};
pub(crate) use self::{
    introduction::Introduction,
    json::{plain, value},
    replica::{Draft, Manners, News, Opened, Outgoing, Replica, moved_place},
    saved::{Base, Segment},
};

/// How much a document may be and keep. What is over a limit is rejected with a code of its own.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a document's text, or of its JSON (4 MiB).
    pub document: usize,
    /// Bytes of one operation's edits as JSON (256 KiB).
    pub operation: usize,
    /// Edits of one operation (1,000).
    pub edits: usize,
    /// Operations of one batch (256).
    pub batch: usize,
    /// Operations that are kept; older ones are folded into one content (10,000).
    pub history: usize,
    /// Bytes of operations that are kept (4 MiB).
    pub history_bytes: usize,
    /// Ids of older operations that are remembered, so that they are not applied again (10,000).
    pub op_ids: usize,
    /// Operations that wait to be stored; with more, further ones are refused (100,000).
    pub pending: usize,
    /// Bytes of a Yjs document's state, what was deleted included, and of one update of it (16 MiB).
    pub state: usize,
    /// Bytes of missing operations, or of a snapshot, in a conflict (128 KiB). JSON may need six times as much.
    pub missing: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            document: 4 << 20,
            operation: 256 << 10,
            edits: 1000,
            batch: 256,
            history: 10_000,
            history_bytes: 4 << 20,
            op_ids: 10_000,
            pending: 100_000,
            state: 16 << 20,
            missing: 128 << 10,
        }
    }
}

/// Longest `op_id`, in bytes.
const MAX_OP_ID: usize = 128;
/// Times the bytes of [`Limits::history_bytes`] that are kept of what is not stored.
const HELD: usize = 4;
/// Longest author, in bytes.
const MAX_AUTHOR: usize = 256;

/// What became of an operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It was applied; what the version was before.
    Applied(Version, Applied),
    /// It was applied earlier, and made this version.
    Repeated(Version),
    /// Its base is not the document's version.
    Conflict {
        /// The document's version.
        server_version: Version,
        /// What happened since the base, if that is known and within [`Limits::missing`].
        missing_ops: Option<Vec<Applied>>,
        /// Else the content, if that is.
        snapshot: Option<Snapshot>,
    },
    /// It will never be applied.
    Rejected(Reject),
}

/// A document and its latest operations.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    lineage: Arc<str>,
    /// The content at the version from which on operations are kept.
    base: Content,
    base_version: Version,
    history: VecDeque<Kept>,
    history_bytes: usize,
    content: Content,
    version: Version,
    /// The next version is above it: the ones up to here may have been told before a crash.
    reserved: Version,
    seen: HashMap<Arc<str>, Seen>,
    /// The operations in `seen` that are in `history` no more, oldest first.
    folded: VecDeque<Arc<str>>,
    /// Operations after it are kept: a crash would lose them, and whoever has them needs a way back. `None`: nothing
    /// outlives a crash.
    stored: Option<Version>,
    limits: Arc<Limits>,
}

/// An operation that is kept.
#[derive(Clone, Debug)]
struct Kept {
    applied: Applied,
    digest: Digest,
}

/// An operation that was applied once.
#[derive(Clone, Copy, Debug)]
pub(in crate::document) struct Seen {
    pub(in crate::document) version: Version,
    pub(in crate::document) digest: Digest,
}

impl Seen {
    /// What becomes of an operation with this id and a content of this digest.
    pub(in crate::document) fn repeated(self, digest: Digest) -> Outcome {
        if self.digest == digest {
            return Outcome::Repeated(self.version);
        }
        let sentence = format!(
            "an operation with this op_id and another content made version {}; take a new op_id",
            self.version
        );
        Outcome::Rejected(Reject::new(Code::OpIdReused, sentence))
    }
}

impl Document {
    /// An empty one, with the version 0. `lineage` tells it from others that had its name: their versions
    /// say nothing about it.
    pub(crate) fn new(kind: Kind, lineage: Arc<str>, limits: Arc<Limits>) -> Document {
        Document {
            lineage,
            base: Content::empty(kind),
            base_version: Version(0),
            history: VecDeque::new(),
            history_bytes: 0,
            content: Content::empty(kind),
            version: Version(0),
            reserved: Version(0),
            seen: HashMap::new(),
            folded: VecDeque::new(),
            stored: None,
            limits,
        }
    }

    /// What it is made of.
    pub(crate) fn kind(&self) -> Kind {
        self.content.kind()
    }

    /// What tells it from others that had its name.
    pub(crate) fn lineage(&self) -> &Arc<str> {
        &self.lineage
    }

    /// Its version.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The earliest version that can be read, and whose later operations are known.
    pub(crate) fn oldest(&self) -> Version {
        self.base_version
    }

    /// Bytes of its content.
    pub(crate) fn size(&self) -> usize {
        self.content.size()
    }

    /// Bytes that all of it takes in memory, about.
    pub(crate) fn weight(&self) -> usize {
        self.content.size() + self.base.size() + self.history_bytes + 96 * self.seen.len()
    }

    /// Its content.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.content.snapshot()
    }

    /// The operations that are kept, oldest first.
    pub(crate) fn operations(
        &self,
    ) -> impl DoubleEndedIterator<Item = &Applied> + ExactSizeIterator {
        self.history.iter().map(|kept| &kept.applied)
    }

    /// Its content when it had this version; `None` if that is not known (any more).
    pub(crate) fn at(&self, version: Version) -> Option<Snapshot> {
        self.content_at(version).map(|content| content.snapshot())
    }

    /// The operations after this version; `None` if it is not one of this document's, or too old.
    pub(crate) fn since(
        &self,
        version: Version,
    ) -> Option<impl ExactSizeIterator<Item = &Applied>> {
        let from = self.place_after(version)?;
        Some(self.history.range(from..).map(|kept| &kept.applied))
    }

    /// From now on versions up to this one are not given again: they may have been told before a crash.
    pub(crate) fn reserve(&mut self, version: Version) {
        self.reserved = self.reserved.max(version);
    }

    /// Everything up to this version is stored.
    pub(crate) fn stored(&mut self, version: Version) {
        self.stored = Some(version);
    }

    /// Whether it has to be kept. What a store does not take for long has a bound.
    fn is_held(&self, applied: &Applied) -> bool {
        let is_bounded = self.history_bytes <= self.limits.history_bytes.saturating_mul(HELD);
        is_bounded && self.stored.is_some_and(|stored| applied.version > stored)
    }

    /// Applies an operation, wholly or not at all.
    pub(crate) fn apply(&mut self, operation: &Operation, now_ms: u64) -> Outcome {
        if let Err(reject) = self.check_names(operation) {
            return Outcome::Rejected(reject);
        }
        let digest = operation.digest();
        if let Some(outcome) = self.repeated(&operation.op_id, digest) {
            return outcome;
        }
        if let Err(reject) = self.check_size(operation) {
            return Outcome::Rejected(reject);
        }
        let is_other = operation.lineage.as_ref().is_some_and(|it| *it != self.lineage);
        if is_other || operation.base_version != self.version {
            return self.conflict((!is_other).then_some(operation.base_version));
        }
        let done = self.content.resolve(&operation.edits).and_then(|change| {
            let applied = self.next(&operation.op_id, &operation.author, change, now_ms);
            self.commit(applied, digest)
        });
        done.map_or_else(Outcome::Rejected, |(before, applied)| Outcome::Applied(before, applied))
    }

    fn next(&self, op_id: &Arc<str>, author: &Arc<str>, change: Change, time: u64) -> Applied {
        let version = Version(self.version.max(self.reserved).0 + 1);
        let (op_id, author) = (op_id.clone(), author.clone());
        Applied { op_id, author, version, time, undoes: Vec::new(), change }
    }

    fn commit(&mut self, applied: Applied, digest: Digest) -> Result<(Version, Applied), Reject> {
        let most = self.limits.document;
        self.content.apply(&applied.change, most)?;
        let before = std::mem::replace(&mut self.version, applied.version);
        self.keep(applied.clone(), digest);
        self.fold(self.limits.history, self.limits.history_bytes);
        Ok((before, applied))
    }

    fn keep(&mut self, applied: Applied, digest: Digest) {
        let seen = Seen { version: applied.version, digest };
        self.seen.insert(applied.op_id.clone(), seen);
        self.history_bytes += applied.weight();
        self.history.push_back(Kept { applied, digest });
    }

    /// If more is kept than this, the older half of it is folded into one content. Returns whether it was.
    pub(crate) fn fold(&mut self, operations: usize, bytes: usize) -> bool {
        if self.history.len() <= operations && self.history_bytes <= bytes {
            return false;
        }
        self.compact(operations / 2, bytes / 2);
        true
    }

    /// Keeps so many operations, of so many bytes, and folds older ones into one content.
    pub(crate) fn compact(&mut self, operations: usize, bytes: usize) {
        while let Some(kept) = self.history.front()
            && (self.history.len() > operations || self.history_bytes > bytes)
            && !self.is_held(&kept.applied)
        {
            // It was applied once, to the same content.
            let done = self.base.apply(&kept.applied.change, usize::MAX);
            debug_assert!(done.is_ok(), "{done:?}");
            self.base_version = kept.applied.version;
            let kept = self.history.pop_front().expect("there is a first");
            self.history_bytes -= kept.applied.weight();
            self.folded.push_back(kept.applied.op_id);
        }
        self.forget();
    }

    fn forget(&mut self) {
        while self.folded.len() > self.limits.op_ids {
            let op_id = self.folded.pop_front().expect("there is a first");
            self.seen.remove(&op_id);
        }
    }

    fn repeated(&self, op_id: &Arc<str>, digest: Digest) -> Option<Outcome> {
        Some(self.seen.get(op_id)?.repeated(digest))
    }

    fn conflict(&self, base: Option<Version>) -> Outcome {
        let most = self.limits.missing;
        let missing_ops = base.and_then(|base| self.since(base)).and_then(|missing| {
            let mut bytes = 0;
            let mut fits = |applied: &&Applied| {
                bytes += applied.weight();
                bytes <= most
            };
            let count = missing.len();
            let missing: Vec<_> = missing.take_while(|it| fits(it)).cloned().collect();
            (missing.len() == count).then_some(missing)
        });
        let is_small = missing_ops.is_none() && self.size() <= most;
        let snapshot = is_small.then(|| self.snapshot());
        Outcome::Conflict { server_version: self.version, missing_ops, snapshot }
    }

    /// Where in the history the operations after `version` begin.
    fn place_after(&self, version: Version) -> Option<usize> {
        if version == self.base_version {
            return Some(0);
        }
        let place = self.history.binary_search_by_key(&version, |kept| kept.applied.version);
        place.ok().map(|place| place + 1)
    }

    fn content_at(&self, version: Version) -> Option<Content> {
        if version == self.version {
            return Some(self.content.clone());
        }
        let end = self.place_after(version)?;
        let mut content = self.base.clone();
        for kept in self.history.range(..end) {
            content.apply(&kept.applied.change, usize::MAX).ok()?;
        }
        Some(content)
    }

    fn check_names(&self, operation: &Operation) -> Result<(), Reject> {
        check_names(&operation.op_id, &operation.author)
    }

    fn check_size(&self, operation: &Operation) -> Result<(), Reject> {
        let limits = &self.limits;
        let count = operation.edits.len();
        if count == 0 {
            return Err(Reject::new(Code::Invalid, "an operation has one edit at least"));
        }
        if count > limits.edits {
            let sentence = format!("an operation has {count} edits; the limit is {}", limits.edits);
            return Err(Reject::new(Code::TooManyEdits, sentence));
        }
        let bytes = operation.weight();
        if bytes > limits.operation {
            let sentence =
                format!("an operation has {bytes} bytes; the limit is {}", limits.operation);
            return Err(Reject::new(Code::OperationTooLarge, sentence));
        }
        Ok(())
    }
}

/// Bytes of edits as JSON.
pub(super) fn weigh_edits(edits: &[Edit]) -> usize {
    json::weight(&edits)
}

/// What edits do to a text, one after the other.
///
/// # Errors
/// Why they cannot be done.
#[cfg(feature = "yjs")]
pub(in crate::document) fn splices_of(text: &str, edits: &[Edit]) -> Result<Vec<Splice>, Reject> {
    let content = Content::from(Snapshot::Text(text.to_owned()));
    match content.resolve(edits)? {
        Change::Splices(splices) => Ok(splices),
        Change::Changes(_) | Change::Update(_) => Ok(Vec::new()),
    }
}

pub(in crate::document) fn check_names(op_id: &str, author: &str) -> Result<(), Reject> {
    if op_id.is_empty() || op_id.len() > MAX_OP_ID {
        let sentence = format!("op_id has {} bytes; it has 1 to {MAX_OP_ID}", op_id.len());
        return Err(Reject::new(Code::Invalid, sentence));
    }
    if author.len() > MAX_AUTHOR {
        let sentence = format!("author has {} bytes; it has {MAX_AUTHOR} at most", author.len());
        return Err(Reject::new(Code::Invalid, sentence));
    }
    Ok(())
}
