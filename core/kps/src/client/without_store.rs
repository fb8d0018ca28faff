//! Stands in for `disk` in builds without the feature `store`: such a client's outbox is in memory.

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use kps_proto::{
    Error, ErrorKind, Result,
    message::ContentType,
    session::{Destination, PublishOptions, Session},
};

use super::inner::Inner;

/// There is none.
pub(super) struct Disk(Infallible);

impl Disk {
    pub(super) fn open(_path: &Path, _session: &mut Session) -> Result<Disk> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "this kps was built without its store; build it with the feature \"store\" for an outbox \
             on disk",
        ))
    }

    pub(super) fn set_owner(&self, _inner: Weak<Inner>) {
        match self.0 {}
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn keep(
        &self,
        _number: u64,
        _to: Destination<'_>,
        _content_type: ContentType,
        _payload: &[u8],
        _options: &PublishOptions<'_>,
        _session: &Session,
    ) {
        match self.0 {}
    }

    pub(super) fn claim(&self, _document: &str) -> Option<Vec<Bytes>> {
        match self.0 {}
    }

    pub(super) fn unclaim(&self, _document: &str) {
        match self.0 {}
    }

    pub(super) fn keep_draft(
        &self,
        _document: &str,
        _op_id: &Arc<str>,
        _operation: Bytes,
    ) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn forget_draft(&self, _op_id: &str) {
        match self.0 {}
    }

    pub(super) fn release(&self, _number: u64) {
        match self.0 {}
    }

    pub(super) fn forget(&self, _number: u64) {
        match self.0 {}
    }

    pub(super) fn seal(&self) {
        match self.0 {}
    }

    pub(super) fn close(&self) {
        match self.0 {}
    }

    pub(super) fn holds(&self, _number: u64) -> bool {
        match self.0 {}
    }
}
