//! What happened, by client and kind, for the steps that wait for it.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
};

use serde_json::Value;
use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Logs {
    entries: RefCell<HashMap<(String, String), VecDeque<Value>>>,
    changed: Notify,
}

impl Logs {
    pub(crate) fn put(&self, client: &str, kind: &str, entry: Value) {
        self.entries.borrow_mut().entry((client.into(), kind.into())).or_default().push_back(entry);
        self.changed.notify_waiters();
    }

    pub(crate) fn try_take(&self, client: &str, kind: &str) -> Option<Value> {
        self.entries.borrow_mut().get_mut(&(client.into(), kind.into()))?.pop_front()
    }

    pub(crate) fn len(&self, client: &str, kind: &str) -> usize {
        self.entries.borrow().get(&(client.into(), kind.into())).map_or(0, VecDeque::len)
    }

    pub(crate) async fn take(&self, client: &str, kind: &str) -> Value {
        loop {
            let changed = self.changed.notified();
            if let Some(entry) = self.try_take(client, kind) {
                return entry;
            }
            changed.await;
        }
    }
}
