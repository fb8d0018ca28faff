//! An operation that was edited here, from when it is until the server is known to have it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::{
    Change, JsonChange,
    content::Content,
    edit::{Edit, Place, Range},
    json,
    reject::Reject,
    splice::{Splice, transform},
    version::Version,
};

/// An operation to send. The one after it follows from it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) op_id: Arc<str>,
    /// `None`: it follows the one before in its batch.
    pub(crate) base: Option<(Version, Arc<str>)>,
    pub(crate) edits: Vec<Edit>,
}

/// How an edit behaves among those of others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    /// At the same place its text comes first, not theirs.
    pub(crate) sticks: bool,
    /// Conflicts after which it is given up, if they are not the replica's own.
    pub(crate) rebases: Option<u32>,
}

/// An operation as it is kept for another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub(super) op_id: Arc<str>,
    /// What it was made for: that version, and the operations that were kept before it.
    pub(crate) base: Version,
    pub(crate) lineage: Arc<str>,
    /// The last of them.
    #[serde(default)]
    pub(super) after: Option<Arc<str>>,
    edits: Vec<Edit>,
    pub(super) splices: Vec<Splice>,
}

/// An operation that the server is not known to have.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) op_id: Arc<str>,
    pub(super) edits: Vec<Edit>,
    /// What they do to the text before them; empty for JSON.
    pub(super) splices: Vec<Splice>,
    pub(super) manners: Manners,
    /// Bytes of its edits, when they were made.
    pub(super) weight: usize,
    pub(super) is_sent: bool,
    pub(super) conflicts: u32,
    /// The one that it was made with last, if another process did.
    pub(super) after: Option<Arc<str>>,
    /// It was applied once, and the program was told so.
    pub(super) was_applied: bool,
    pub(super) stranded: Option<Stranded>,
}

/// What an operation was made for, if the server's version is another one and the operation is sent as it was: the
/// server may have it already.
#[derive(Clone, Debug)]
pub(super) struct Stranded {
    pub(super) version: Version,
    pub(super) lineage: Arc<str>,
    /// Its splices are moved to where it belongs now, should the server not have it.
    pub(super) is_moved: bool,
}

impl Pending {
    pub(super) fn new(op_id: Arc<str>, edits: Vec<Edit>, splices: Vec<Splice>) -> Pending {
        Pending {
            op_id,
            weight: json::weight(&edits),
            edits,
            splices,
            manners: Manners::default(),
            is_sent: false,
            conflicts: 0,
            after: None,
            was_applied: false,
            stranded: None,
        }
    }

    /// One that had been applied, and that a crash of the server may have undone.
    pub(super) fn again(op_id: Arc<str>, change: Change, splices: Vec<Splice>) -> Option<Pending> {
        let edits = match change {
            Change::Splices(_) => positional(&splices),
            Change::Changes(changes) => json_edits(changes),
            Change::Update(_) => return None,
        };
        Some(Pending { weight: 0, was_applied: true, ..Pending::new(op_id, edits, splices) })
    }

    /// One that another process kept, and what it was made for is known.
    pub(super) fn kept(draft: Draft) -> Pending {
        let pending = Pending::new(draft.op_id, draft.edits, draft.splices);
        Pending { after: draft.after, ..pending }
    }

    /// One that another process kept, and nobody knows what its numbers count.
    pub(super) fn adrift(draft: Draft) -> Pending {
        let mut pending = Pending::new(draft.op_id, draft.edits, Vec::new());
        if pending.is_positional() {
            // It counts the one before it as well.
            let base = if draft.after.is_some() { Version::NEVER } else { draft.base };
            pending.strand(base, &draft.lineage, false);
        }
        pending
    }

    /// `after`: the one before it.
    pub(super) fn draft(&self, base: Version, lineage: Arc<str>, after: Option<Arc<str>>) -> Draft {
        let (op_id, edits, splices) =
            (self.op_id.clone(), self.edits.clone(), self.splices.clone());
        Draft { op_id, base, lineage, after, edits, splices }
    }

    /// Moves it over what others did before it; returns what they did, for what comes after it.
    pub(super) fn meet(&mut self, theirs: &[Splice]) -> Vec<Splice> {
        let (splices, theirs) = if self.manners.sticks {
            let (theirs, splices) = transform(theirs, &self.splices);
            (splices, theirs)
        } else {
            transform(&self.splices, theirs)
        };
        self.splices = splices;
        if self.is_positional() && self.stranded.is_none() {
            self.edits = positional(&self.splices);
        }
        theirs
    }

    /// It is sent as it was made for this version, unless it was made for another one before.
    pub(super) fn strand(&mut self, version: Version, lineage: &Arc<str>, is_moved: bool) {
        let lineage = lineage.clone();
        let stranded = self.stranded.get_or_insert(Stranded { version, lineage, is_moved: true });
        stranded.is_moved &= is_moved;
    }

    /// What it does to `content`: by its splices, which are moved, if it counts by numbers. None if nobody knows what they count.
    pub(super) fn change(&self, content: &Content) -> Result<Change, Reject> {
        if self.is_positional() && (self.stranded.is_some() || !self.splices.is_empty()) {
            return Ok(Change::Splices(self.splices.clone()));
        }
        content.resolve(&self.edits)
    }

    pub(super) fn is_positional(&self) -> bool {
        self.edits.iter().any(Edit::is_positional)
    }
}

/// The same by numbers alone.
pub(super) fn positional(splices: &[Splice]) -> Vec<Edit> {
    let edit = |splice: &Splice| {
        let (position, length, text) = (splice.at, splice.delete, splice.insert.clone());
        match (length, text.is_empty()) {
            (0, _) => Edit::Insert { place: Place::At { position }, text },
            (_, true) => Edit::Delete { range: Range::At { position, length } },
            (_, false) => Edit::Replace { range: Range::At { position, length }, text },
        }
    };
    splices.iter().map(edit).collect()
}

fn json_edits(changes: Vec<JsonChange>) -> Vec<Edit> {
    let edit = |change| match change {
        JsonChange::Patch(patch) => Edit::Patch { patch },
        JsonChange::Merge(merge) => Edit::Merge { merge },
    };
    changes.into_iter().map(edit).collect()
}
