//! Who is at a document: names, colours, cursors. Cursors are moved over what is edited.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Document, state::Shared};
use crate::document::engine::{Applied, Change, Replica, Splice, Version, moved_place};

/// Participants that are remembered.
const MOST: usize = 1000;
/// Changes that late positions can be moved over.
const CHANGES: usize = 200;
const CURSOR: &str = "cursor";
const SELECTION: &str = "selection";
const VERSION: &str = "version";

/// Somebody who is at a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Present {
    /// The client's id.
    pub client: Arc<str>,
    /// Who edits there.
    pub author: Arc<str>,
    /// What it tells of itself. `cursor`, and `selection` with its two ends, are code points in the text as it
    /// is here.
    pub state: Map<String, Value>,
}

impl Present {
    /// The state's JSON.
    pub fn state_json(&self) -> String {
        serde_json::to_string(&self.state).unwrap_or_default()
    }
}

/// Somebody, with positions in the server's content.
#[derive(Clone, Debug)]
struct There {
    author: Arc<str>,
    state: Map<String, Value>,
    at: Version,
}

/// An event `presence`.
#[derive(Debug, Deserialize)]
pub(super) struct Heard {
    client: Arc<str>,
    author: Arc<str>,
    state: Option<Map<String, Value>>,
}

#[derive(Debug, Default)]
pub(super) struct Presence {
    others: BTreeMap<Arc<str>, There>,
    own: Option<There>,
    /// What is told of it is not the newest.
    pub(super) is_due: bool,
    changes: VecDeque<(Version, Vec<Splice>)>,
}

impl Presence {
    pub(super) fn opened(&mut self, present: Vec<Present>, version: Version) {
        self.others.clear();
        self.changes.clear();
        for Present { client, author, state } in present {
            self.hear(Heard { client, author, state: Some(state) }, version);
        }
        // A server that was restarted knows nothing of it.
        self.is_due = self.own.is_some();
    }

    pub(super) fn hear(&mut self, heard: Heard, version: Version) {
        let Heard { client, author, state } = heard;
        let Some(state) = state else {
            self.others.remove(&client);
            return;
        };
        if self.others.len() >= MOST && !self.others.contains_key(&client) {
            return;
        }
        let told = state.get(VERSION).and_then(Value::as_str);
        let at = told.and_then(|text| text.parse().ok()).unwrap_or(version);
        let mut there = There { author, state, at };
        for (version, splices) in &self.changes {
            there.over(*version, splices);
        }
        self.others.insert(client, there);
    }

    /// The content has changed.
    pub(super) fn changed(&mut self, applied: &Applied) {
        let Change::Splices(splices) = &applied.change else { return };
        for there in self.others.values_mut().chain(&mut self.own) {
            there.over(applied.version, splices);
        }
        if self.changes.len() >= CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back((applied.version, splices.clone()));
    }

    /// What is told of this client, if that is due.
    pub(super) fn take_due(&mut self, again: bool) -> Option<Value> {
        let is_due = std::mem::take(&mut self.is_due) || (again && self.own.is_some());
        is_due.then(|| self.own.as_ref().map_or(Value::Null, |own| own.state.clone().into()))
    }

    /// What an event of the topic says; `version`: what its positions are of, if it does not say so.
    pub(super) fn hear_json(&mut self, json: &[u8], version: Version) {
        if let Ok(heard) = serde_json::from_slice::<Heard>(json) {
            self.hear(heard, version);
        }
    }

    /// What this client tells, where no positions are moved.
    #[cfg(feature = "yjs")]
    pub(super) fn set_own(&mut self, state: Option<Map<String, Value>>) {
        self.is_due |= state.is_some() || self.own.is_some();
        let there = |state| There { author: "".into(), state, at: Version::default() };
        self.own = state.map(there);
    }

    /// Everybody else, where no positions are moved.
    #[cfg(feature = "yjs")]
    pub(super) fn others(&self, own: Option<&str>) -> Vec<Present> {
        let others = self.others.iter().filter(|(client, _)| own != Some(&***client));
        let seen = |(client, there): (&Arc<str>, &There)| Present {
            client: client.clone(),
            author: there.author.clone(),
            state: there.state.clone(),
        };
        others.map(seen).collect()
    }

    /// What this client tells is not told (any more).
    pub(super) fn again(&mut self) {
        self.is_due = true;
    }
}

impl There {
    fn over(&mut self, version: Version, splices: &[Splice]) {
        if version > self.at {
            self.move_by(|place| moved_place(place, splices));
            self.at = version;
            if self.state.contains_key(VERSION) {
                self.state.insert(VERSION.into(), version.to_string().into());
            }
        }
    }

    fn move_by(&mut self, moved: impl Fn(usize) -> usize) {
        move_by(&mut self.state, moved);
    }
}

fn move_by(state: &mut Map<String, Value>, moved: impl Fn(usize) -> usize) {
    let shift = |value: &mut Value| {
        if let Some(place) = value.as_u64().and_then(|place| usize::try_from(place).ok()) {
            *value = moved(place).into();
        }
    };
    state.get_mut(CURSOR).into_iter().for_each(shift);
    if let Some(Value::Array(ends)) = state.get_mut(SELECTION) {
        ends.iter_mut().for_each(shift);
    }
}

/// A place in the view, in the server's content.
fn without_own(mut place: usize, replica: &Replica) -> usize {
    for splice in replica.own_splices().rev() {
        let inserted = splice.insert.chars().count();
        if place > splice.at {
            place = match place.checked_sub(inserted) {
                Some(place) if place >= splice.at => place + splice.delete,
                _ => splice.at,
            };
        }
    }
    place
}

impl Shared {
    pub(super) fn set_presence(&self, state: Option<Map<String, Value>>) {
        let mut guard = self.state.lock();
        let open = &mut *guard;
        let version = open.replica.version();
        let is_news = state.is_some() || open.presence.own.is_some();
        open.presence.own = state.map(|mut state| {
            move_by(&mut state, |place| without_own(place, &open.replica));
            state.insert(VERSION.into(), version.to_string().into());
            There { author: self.author.clone(), state, at: version }
        });
        open.presence.is_due |= is_news;
        drop(guard);
        self.wake.notify_one();
    }
}

impl Document {
    /// Tells everybody at the document about this client: whatever is useful, and `cursor` and `selection`,
    /// `[from, to]`, as code points in the text as it is here. It is told until it is `None` or the document is
    /// closed.
    pub fn set_presence(&self, state: Option<Map<String, Value>>) {
        self.shared().set_presence(state);
    }

    /// As [`set_presence`](Self::set_presence), given as a JSON object.
    ///
    /// # Errors
    /// Why it is none.
    pub fn set_presence_json(&self, state: &[u8]) -> Result<(), String> {
        let state = serde_json::from_slice(state).map_err(|error| error.to_string())?;
        self.set_presence(Some(state));
        Ok(())
    }

    /// Everybody else who is at the document and told so.
    pub fn presence(&self) -> Vec<Present> {
        let state = self.shared().state.lock();
        let own = self.0.client.id();
        let own_splices: Vec<Splice> = state.replica.own_splices().cloned().collect();
        let others = state.presence.others.iter();
        let others = others.filter(|(client, _)| own.as_deref() != Some(&***client));
        let seen = |(client, there): (&Arc<str>, &There)| {
            let mut state = there.state.clone();
            move_by(&mut state, |place| moved_place(place, &own_splices));
            Present { client: client.clone(), author: there.author.clone(), state }
        };
        others.map(seen).collect()
    }
}

#[cfg(test)]
impl Presence {
    pub(super) fn count(&self) -> usize {
        self.others.len()
    }

    pub(super) fn state_of(&self, client: &str) -> Value {
        self.others[client].state.clone().into()
    }
}
