//! Stands in for `keeper` in builds without the feature `store`: such a server keeps nothing.

use std::{convert::Infallible, sync::Arc};

use kps_proto::{
    Error, ErrorKind, Result,
    bus::{HistoryConfig, Reader},
    history::{Query, Write},
};

use super::{hub::Hub, options::ServerOptions};
use crate::events::ServerEvent;

/// There is none.
pub(super) struct Keeper(Infallible);

impl Keeper {
    pub(super) fn open(
        options: &ServerOptions,
        _epoch: u64,
    ) -> Result<Option<(Keeper, HistoryConfig)>> {
        if options.history.is_empty() && options.data.is_none() && options.audit.is_none() {
            return Ok(None);
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            "this kps was built without its store; build it with the feature \"store\" for history",
        ))
    }

    pub(super) fn patterns(&self) -> Vec<&str> {
        match self.0 {}
    }

    pub(super) fn write(&self, _writes: Vec<Write>) {
        match self.0 {}
    }

    pub(super) fn audit(&self, _event: &ServerEvent) {
        match self.0 {}
    }

    pub(super) fn read(&self, _reader: Reader, _query: Query) {
        match self.0 {}
    }

    pub(super) async fn run(_hub: &Arc<Hub>) {}

    pub(super) async fn flush(hub: &Hub) {
        if let Some(keeper) = hub.keeper() {
            match keeper.0 {}
        }
    }

    pub(super) async fn close(_hub: &Hub) {}
}
