//! Who hears of changes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kps_proto::ErrorKind;
use parking_lot::Mutex;

use super::{
    super::{Callback, Failure},
    answer,
};
use crate::store::values::Change;

/// Watches of one storage at most.
const MAX_WATCHES: usize = 10_000;
/// How the names of watches begin.
const LOCAL: &str = "local-";

type Hook = Arc<dyn Fn(&Change) + Send + Sync>;

/// Shared by a storage and its thread.
#[derive(Default)]
pub(super) struct Watches {
    state: Mutex<State>,
    /// Whether there is anybody: without, changes are not even noted.
    pub(super) heard: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    last: u64,
    watches: Vec<Watch>,
    hooks: Vec<Hook>,
}

#[derive(Clone)]
struct Watch {
    id: u64,
    namespace: Arc<str>,
    prefix: String,
    callback: Callback,
}

impl Watches {
    pub(super) fn watch(
        &self,
        namespace: Arc<str>,
        prefix: String,
        callback: Callback,
    ) -> Result<String, Failure> {
        let mut state = self.state.lock();
        if state.watches.len() >= MAX_WATCHES {
            let sentence = format!("there are {MAX_WATCHES} watches; end one first");
            return Err(Failure::new(ErrorKind::LimitExceeded, sentence));
        }
        state.last += 1;
        let id = state.last;
        state.watches.push(Watch { id, namespace, prefix, callback });
        self.heard.store(true, Ordering::Relaxed);
        Ok(format!("{LOCAL}{id}"))
    }

    /// Whether there was such a watch.
    pub(super) fn unwatch(&self, namespace: &str, id: &str) -> bool {
        let Some(id) = id.strip_prefix(LOCAL).and_then(|number| number.parse::<u64>().ok()) else {
            return false;
        };
        let mut state = self.state.lock();
        let before = state.watches.len();
        state.watches.retain(|watch| watch.id != id || *watch.namespace != *namespace);
        let found = state.watches.len() < before;
        self.heard.store(!state.watches.is_empty() || !state.hooks.is_empty(), Ordering::Relaxed);
        found
    }

    pub(super) fn on_change(&self, hook: Hook) {
        self.state.lock().hooks.push(hook);
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Tells everybody; nobody is called under the lock, for they may end their watch.
    pub(super) fn tell(&self, changes: &[Change]) {
        let (watches, hooks) = {
            let state = self.state.lock();
            (state.watches.clone(), state.hooks.clone())
        };
        for change in changes {
            let mut told = None;
            for watch in &watches {
                if watch.namespace == change.namespace && change.key.starts_with(&watch.prefix) {
                    let told = told.get_or_insert_with(|| answer::change(change));
                    watch.callback.call(told.clone());
                }
            }
            for hook in &hooks {
                hook(change);
            }
        }
    }
}
