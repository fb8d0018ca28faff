//! The table of an acknowledged publish: one row per recipient.

use std::{collections::HashMap, sync::Arc};

use kps_proto::{Error, Result, message::AckRow};
use tokio::sync::Notify;

use super::{Bridge, lock::Lock};

/// An acknowledged publish: one row per recipient, each final when it arrives.
///
/// Dropping it stops nobody; [`cancel`](Self::cancel) does.
#[derive(Debug)]
pub struct Ack {
    bridge: Bridge,
    number: u64,
    /// The publisher's own id.
    id: Option<String>,
    table: Arc<Table>,
    read: usize,
}

impl Ack {
    pub(super) fn new(bridge: Bridge, number: u64, id: Option<String>, table: Arc<Table>) -> Self {
        Ack { bridge, number, id, table, read: 0 }
    }

    /// The message's id.
    pub fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.bridge.message_id(self.number))
    }

    /// All rows by client id, once all are final. No recipient: an empty table, at once.
    ///
    /// # Errors
    /// Why the recipients never became known: the publish was refused, or lost with the client.
    pub async fn wait(&self) -> Result<HashMap<Arc<str>, AckRow>> {
        self.table
            .until(|table| match &table.done {
                Some(Some(error)) => Some(Err(error.clone())),
                Some(None) => {
                    let by_client = |row: &AckRow| (row.client_id.clone(), row.clone());
                    Some(Ok(table.rows.iter().map(by_client).collect()))
                }
                None => None,
            })
            .await
    }

    /// The first row, whatever it says; `None` without recipients.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn wait_any(&self) -> Result<Option<AckRow>> {
        self.table.row(0).await
    }

    /// The next row that this handle has not returned yet, as they arrive; `None` after the last.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn next(&mut self) -> Result<Option<AckRow>> {
        let row = self.table.row(self.read).await?;
        self.read += usize::from(row.is_some());
        Ok(row)
    }

    /// For each recipient known so far whether it acked.
    pub fn status(&self) -> HashMap<Arc<str>, bool> {
        let table = self.table.state.lock();
        let mut status: HashMap<_, _> =
            table.recipients.iter().map(|id| (id.clone(), false)).collect();
        status.extend(table.rows.iter().map(|row| (row.client_id.clone(), row.success())));
        status
    }

    /// Whether all rows are final.
    pub fn is_complete(&self) -> bool {
        self.table.state.lock().done.is_some()
    }

    /// Stops waiting: rows that are open end as cancelled.
    pub fn cancel(&self) {
        if !self.is_complete() {
            self.bridge.cancel_ack(self.number);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    state: Lock<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    recipients: Vec<Arc<str>>,
    rows: Vec<AckRow>,
    done: Option<Option<Error>>,
}

impl Table {
    pub(super) fn freeze(&self, recipients: Arc<[Arc<str>]>) {
        self.state.lock().recipients = recipients.to_vec();
    }

    pub(super) fn push(&self, row: AckRow) {
        self.state.lock().rows.push(row);
        self.changed.notify_waiters();
    }

    pub(super) fn finish(&self, error: Option<Error>) {
        self.state.lock().done = Some(error);
        self.changed.notify_waiters();
    }

    async fn row(&self, at: usize) -> Result<Option<AckRow>> {
        self.until(|table| match (table.rows.get(at), &table.done) {
            (Some(row), _) => Some(Ok(Some(row.clone()))),
            (None, Some(Some(error))) => Some(Err(error.clone())),
            (None, Some(None)) => Some(Ok(None)),
            (None, None) => None,
        })
        .await
    }

    async fn until<T>(&self, ready: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Listening before looking: a change in between is not missed.
            changed.as_mut().enable();
            if let Some(found) = ready(&self.state.lock()) {
                return found;
            }
            changed.await;
        }
    }
}
