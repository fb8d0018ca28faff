//! What the engine is asked, and what it answers.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use kps_proto::{Error, ErrorKind};

use super::remotes::Remote;
use crate::store::fault::Trouble;

/// A value's bytes, and what they stand for: the numbers belong to whoever saves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Below 16.
    pub(crate) kind: u8,
    pub(crate) bytes: Bytes,
}

/// What changes whenever a value does: its version within the namespace, and a hash of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Etag {
    pub(crate) version: u64,
    pub(crate) hash: u64,
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:016x}", self.version, self.hash)
    }
}

impl Etag {
    /// What [`Display`](fmt::Display) wrote.
    pub(crate) fn parse(text: &str) -> Option<Etag> {
        let (version, hash) = text.split_once('-')?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        Some(Etag { version: number(version)?, hash: number(hash)? })
    }
}

/// What is known of a value beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) etag: Etag,
    pub(crate) kind: u8,
    pub(crate) size: u64,
    pub(crate) modified_ms: u64,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) content_type: Option<String>,
}

/// What must be true for an operation to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    /// The value has this ETag; `*`: any.
    pub(crate) if_match: Option<String>,
    /// There is no value.
    pub(crate) absent: bool,
}

impl Condition {
    pub(super) fn check(&self, key: &str, found: Option<Etag>) -> Result<(), Stop> {
        if *self == Condition::default() {
            return Ok(());
        }
        self.conflict(key, found.map(|etag| etag.to_string())).map_err(Stop::Refused)
    }

    /// `conflict` unless it holds for a value of this ETag.
    pub(crate) fn conflict(&self, key: &str, found: Option<String>) -> Result<(), Error> {
        let sentence = match (found, &self.if_match) {
            (Some(etag), _) if self.absent => format!("{key:?} is there already, with ETag {etag}"),
            (None, Some(_)) => format!("{key:?} is not there"),
            (Some(etag), Some(wanted)) if wanted != "*" && *wanted != etag => {
                format!("{key:?} has changed: its ETag is {etag}, not {wanted}")
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Conflict, sentence))
    }
}

/// What is saved beside the bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Save {
    pub(crate) key: String,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) content_type: Option<String>,
    pub(crate) condition: Condition,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Save(Save, Content),
    Delete(String, Condition),
    Check(String, Condition),
    Get(String),
    /// Begins an upload.
    Begin(Save),
    /// A part of it: its number from 0.
    Part(String, u64, Bytes),
    /// Makes it the value.
    Finish(String),
    /// Forgets it.
    Abandon(String),
    /// The cloud has the key's value; what was here goes, if it still has this ETag.
    Adopt(String, Remote, Option<Etag>),
    /// What the cloud may have of the key.
    Remote(String, Option<Remote>),
}

impl Op {
    /// Bytes that it carries.
    pub(super) fn weight(&self) -> usize {
        match self {
            Op::Save(save, content) => content.bytes.len() + save.key.len(),
            Op::Part(_, _, bytes) => bytes.len(),
            _ => 0,
        }
    }
}

/// What an [`Op`] did.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Saved(String, Meta),
    Deleted(bool),
    Checked,
    Got(Meta, Content),
    /// An upload's token.
    Begun(String),
    /// How many bytes the upload has.
    Added(u64),
    Abandoned(bool),
}

/// Things to do for one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) namespace: Arc<str>,
    pub(crate) ops: Vec<Op>,
    /// All of it or nothing.
    pub(crate) atomic: bool,
}

/// Per operation what it did or why not; an error of the whole job did nothing.
pub(crate) type Answer = Result<Vec<Result<Done, Error>>, Error>;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It has a new value.
    Saved,
    /// It was deleted.
    Deleted,
    /// Its time to live was over.
    Expired,
}

impl ChangeKind {
    /// Its name in every language.
    pub fn name(self) -> &'static str {
        match self {
            ChangeKind::Saved => "saved",
            ChangeKind::Deleted => "deleted",
            ChangeKind::Expired => "expired",
        }
    }
}

/// A change that is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Whose key.
    pub namespace: Arc<str>,
    /// The key.
    pub key: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Of the new value; of the last one, if there is none any more.
    pub etag: String,
    /// Its bytes.
    pub size: u64,
    /// When it happened, milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// Why the engine stops.
#[derive(Debug)]
pub(super) enum Stop {
    /// The operation is refused and has changed nothing.
    Refused(Error),
    /// The file cannot be written or read: everything in the transaction is undone.
    Trouble(Trouble),
}

/// Shorthand for [`Stop::Refused`].
#[cold]
pub(super) fn refused(kind: ErrorKind, sentence: impl Into<String>) -> Stop {
    Stop::Refused(Error::new(kind, sentence.into()))
}

impl<T: Into<Trouble>> From<T> for Stop {
    fn from(trouble: T) -> Self {
        Stop::Trouble(trouble.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_read_as_it_is_written() {
        for (version, hash) in [(1, 0), (0xabc, u64::MAX), (u64::MAX, 1)] {
            let etag = Etag { version, hash };
            assert_eq!(Etag::parse(&etag.to_string()), Some(etag));
        }
        for wrong in ["", "-", "1", "x-1", "1-x", "*"] {
            assert_eq!(Etag::parse(wrong), None, "{wrong}");
        }
    }
}
