//! What a document's topic tells, the same bytes to who asked and to everybody else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{content::Snapshot, operation::Applied, version::Version};

/// How safe an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is in the document, in the server's memory.
    Applied,
    /// It is in the server's store.
    Checkpointed,
}

impl Level {
    /// Its name in every language.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Applied => "applied",
            Level::Checkpointed => "checkpointed",
        }
    }
}

/// What happened to a document. As JSON an object whose `event` says which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DocumentEvent {
    /// An operation was applied: this is what changed.
    Change {
        /// The document.
        id: Arc<str>,
        /// The version before.
        previous: Version,
        /// What was done.
        #[serde(flatten)]
        applied: Applied,
    },
    /// An operation is in the document, now or for the second time.
    Ack {
        /// The document.
        id: Arc<str>,
        /// The operation.
        op_id: Arc<str>,
        /// Who wanted it.
        author: Arc<str>,
        /// The version it made.
        version: Version,
        /// How safe it is.
        level: Level,
    },
    /// An operation was not applied: its base is not the document's version any more.
    Conflict {
        /// The document.
        id: Arc<str>,
        /// The operation.
        op_id: Arc<str>,
        /// Who wanted it.
        author: Arc<str>,
        /// What the operation was made for.
        base_version: Version,
        /// The version to make it for.
        server_version: Version,
        /// What happened since the base, if that is known still and not too much.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missing_ops: Option<Vec<Applied>>,
        /// Otherwise the content at the version, if it is not too much; else it is read with `document.read`.
        #[serde(default, skip_serializing_if = "Option::is_none", flatten)]
        snapshot: Option<Snapshot>,
    },
    /// An operation was not applied and never will be.
    Rejected {
        /// The document.
        id: Arc<str>,
        /// The operation.
        op_id: Arc<str>,
        /// Who wanted it.
        author: Arc<str>,
        /// Why: a stable code.
        code: String,
        /// What happened and what to do.
        message: String,
        /// The document's version.
        version: Version,
    },
    /// Everything up to a version is in the store.
    Checkpoint {
        /// The document.
        id: Arc<str>,
        /// The version.
        version: Version,
        /// How safe it is.
        level: Level,
    },
    /// The store does not take what was applied: it is kept in memory and tried again.
    StoreFailed {
        /// The document.
        id: Arc<str>,
        /// What is in the store.
        version: Version,
        /// Why: a stable code.
        code: String,
        /// What happened.
        message: String,
    },
    /// Somebody is there, or is not any more.
    Presence {
        /// The document.
        id: Arc<str>,
        /// Who: the client's id, or what it calls itself.
        client: Arc<str>,
        /// As whom it edits.
        author: Arc<str>,
        /// What it tells of itself; `None`: it is not there any more.
        state: Option<serde_json::Value>,
    },
}

impl DocumentEvent {
    /// Its name in every language.
    pub fn name(&self) -> &'static str {
        match self {
            DocumentEvent::Change { .. } => "change",
            DocumentEvent::Ack { .. } => "ack",
            DocumentEvent::Conflict { .. } => "conflict",
            DocumentEvent::Rejected { .. } => "rejected",
            DocumentEvent::Checkpoint { .. } => "checkpoint",
            DocumentEvent::StoreFailed { .. } => "store_failed",
            DocumentEvent::Presence { .. } => "presence",
        }
    }

    /// The operation it is about.
    pub fn op_id(&self) -> Option<&Arc<str>> {
        match self {
            DocumentEvent::Change { applied, .. } => Some(&applied.op_id),
            DocumentEvent::Ack { op_id, .. }
            | DocumentEvent::Conflict { op_id, .. }
            | DocumentEvent::Rejected { op_id, .. } => Some(op_id),
            DocumentEvent::Checkpoint { .. }
            | DocumentEvent::StoreFailed { .. }
            | DocumentEvent::Presence { .. } => None,
        }
    }

    /// Its JSON, as it travels.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("every part of an event has JSON")
    }
}
