//! Documents that merge: a Yjs document as a state machine, byte for byte as Yjs and its ports have it. No
//! input or output, no clock. Updates come in; what they changed comes out.

pub(crate) mod awareness;
mod check;
mod guard;
mod lib0;
mod merge;
mod peers;
pub(crate) mod protocol;
pub(crate) mod replica;
mod saved;
#[cfg(test)]
mod tests;
mod untold;
mod view;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value as Plain;
use yrs::{
    Doc, ReadTxn, StateVector, Transact, updates::decoder::Decode, updates::encoder::Encode,
};

use self::guard::Panicked;
pub(crate) use self::{
    peers::{Leave, Peer, Peers},
    saved::Head,
};
use super::engine::{
    Applied, Change, Code, Digest, Limits, Outcome, Reject, Seen, Version, check_names,
};

/// Bytes of updates that wait for others before them; with more, they are forgotten: who has them sends them
/// again when it connects again.
const MAX_PENDING: usize = 1 << 20;

/// Updates, and bytes of them, after which all is encoded as one state.
const MANY_UPDATES: usize = 10_000;
const MANY_BYTES: usize = 256 << 10;

/// Types in one document: so deep may they be in each other.
const MAX_TYPES: usize = 200_000;

/// A Yjs document and its latest updates.
pub(crate) struct YjsDocument {
    lineage: Arc<str>,
    doc: Doc,
    /// The state that `log` begins with.
    base: Bytes,
    base_version: Version,
    /// What changed since.
    log: VecDeque<(Version, Bytes)>,
    log_bytes: usize,
    version: Version,
    /// The next version is above it: the ones up to here may have been told before a crash.
    reserved: Version,
    seen: HashMap<Arc<str>, Seen>,
    order: VecDeque<Arc<str>>,
    /// Types that came in updates: as many as there are, or more.
    types: usize,
    /// Bytes of updates that came while something was missing, and what they had.
    pending: usize,
    pending_turns: usize,
    /// The library failed on it: what is stored stays, nothing is taken.
    is_broken: bool,
    limits: Arc<Limits>,
}

impl YjsDocument {
    /// An empty one, with the version 0.
    pub(crate) fn new(lineage: Arc<str>, limits: Arc<Limits>) -> YjsDocument {
        YjsDocument {
            lineage,
            doc: merge::fresh(),
            base: Bytes::from_static(yrs::Update::EMPTY_V1),
            base_version: Version(0),
            log: VecDeque::new(),
            log_bytes: 0,
            version: Version(0),
            reserved: Version(0),
            seen: HashMap::new(),
            order: VecDeque::new(),
            types: 0,
            pending: 0,
            pending_turns: 0,
            is_broken: false,
            limits,
        }
    }

    /// What tells it from others that had its name.
    pub(crate) fn lineage(&self) -> &Arc<str> {
        &self.lineage
    }

    /// Its version.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The version whose state its latest updates begin with.
    pub(crate) fn oldest(&self) -> Version {
        self.base_version
    }

    /// Its state at [`oldest`](Self::oldest).
    pub(crate) fn base(&self) -> &Bytes {
        &self.base
    }

    /// Whether something in it waits for what is not there.
    pub(crate) fn is_waiting(&self) -> bool {
        self.pending > 0
    }

    /// Bytes of its state, or a few more.
    pub(crate) fn size(&self) -> usize {
        self.base.len() + self.log_bytes
    }

    /// Bytes that all of it takes in memory, about.
    pub(crate) fn weight(&self) -> usize {
        // The library takes some four times as much as the encoded state, for text that was typed.
        5 * self.size() + 96 * self.seen.len()
    }

    /// From now on versions up to this one are not given again: they may have been told before a crash.
    pub(crate) fn reserve(&mut self, version: Version) {
        self.reserved = self.reserved.max(version);
    }

    /// Applies somebody's update under this id.
    pub(crate) fn apply(
        &mut self,
        op_id: &Arc<str>,
        author: &Arc<str>,
        update: &[u8],
        now_ms: u64,
    ) -> Outcome {
        if let Err(reject) = check_names(op_id, author) {
            return Outcome::Rejected(reject);
        }
        let digest = Digest::of_bytes(author, update);
        if let Some(seen) = self.seen.get(op_id) {
            return seen.repeated(digest);
        }
        let outcome = self.merge(op_id, author, update, now_ms);
        if let Outcome::Applied(..) | Outcome::Repeated(_) = &outcome {
            self.remember(op_id, Seen { version: self.version, digest });
        }
        outcome
    }

    /// Applies an update that has no id to be sent again with.
    pub(crate) fn merge(
        &mut self,
        op_id: &Arc<str>,
        author: &Arc<str>,
        update: &[u8],
        now_ms: u64,
    ) -> Outcome {
        let effect = match self.integrate(update) {
            Ok(Some(effect)) => effect,
            // All of it was there.
            Ok(None) => return Outcome::Repeated(self.version),
            Err(reject) => return Outcome::Rejected(reject),
        };
        let version = Version(self.version.max(self.reserved).0 + 1);
        let before = std::mem::replace(&mut self.version, version);
        self.log_bytes += effect.len();
        self.log.push_back((version, effect.clone()));
        self.fold_if_long();
        let applied = Applied {
            op_id: op_id.clone(),
            author: author.clone(),
            version,
            time: now_ms,
            undoes: Vec::new(),
            change: Change::Update(effect),
        };
        Outcome::Applied(before, applied)
    }

    fn remember(&mut self, op_id: &Arc<str>, seen: Seen) {
        self.seen.insert(op_id.clone(), seen);
        self.order.push_back(op_id.clone());
        while self.order.len() > self.limits.op_ids {
            if let Some(oldest) = self.order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
    }

    /// Returns what changed; `None`: all of it was there.
    fn integrate(&mut self, update: &[u8]) -> Result<Option<Bytes>, Reject> {
        let most = self.limits.state;
        if update.len() > most {
            let sentence = format!("an update has {} bytes; the limit is {most}", update.len());
            return Err(Reject::new(Code::OperationTooLarge, sentence));
        }
        let facts = check::update(update).map_err(invalid)?;
        self.check_room(facts, update.len())?;
        let (doc, depth) = (&self.doc, self.depth() + facts.types + facts.turns);
        match guard::run(depth, || merge::apply(doc, update)) {
            Ok(Ok(merged)) => {
                self.types += facts.types;
                self.waits(merged.is_missing, update.len(), facts.turns);
                // What waits is in no effect.
                let waits = merged.is_missing.then(|| Bytes::copy_from_slice(update));
                Ok(waits.or(merged.effect))
            }
            Ok(Err(reason)) => {
                self.restore();
                Err(invalid(&reason))
            }
            Err(Panicked) => {
                tracing::error!(bytes = update.len(), "an update made the Yjs library panic");
                self.restore();
                Err(invalid("the Yjs library does not take it"))
            }
        }
    }

    fn check_room(&mut self, facts: check::Facts, bytes: usize) -> Result<(), Reject> {
        if self.is_broken {
            return Err(Reject::new(Code::Invalid, "the document is damaged: nothing is taken"));
        }
        let most = self.limits.state;
        if facts.only_deletes {
            return Ok(());
        }
        let is_full =
            |this: &Self| this.size() + bytes > most || this.types + facts.types > MAX_TYPES;
        if is_full(self) {
            // Much of it may have been deleted.
            self.fold();
        }
        if self.types + facts.types > MAX_TYPES {
            let sentence = format!("the document would have more than {MAX_TYPES} types");
            return Err(Reject::new(Code::DocumentTooLarge, sentence));
        }
        if is_full(self) {
            let size = self.size() + bytes;
            let sentence = format!(
                "the document's state would have {size} bytes, what was deleted included; \
                 the limit is {most}"
            );
            return Err(Reject::new(Code::DocumentTooLarge, sentence));
        }
        Ok(())
    }

    fn fold_if_long(&mut self) {
        let is_long = self.log.len() > MANY_UPDATES;
        if is_long || self.log_bytes > MANY_BYTES.max(self.base.len()) || self.pending > MAX_PENDING
        {
            self.fold();
        }
    }

    /// Encodes all as one state.
    pub(crate) fn fold(&mut self) {
        if self.is_broken || (self.log.is_empty() && self.pending <= MAX_PENDING) {
            return;
        }
        let forgets = self.pending > MAX_PENDING;
        let state = match forgets {
            true => Err(Panicked),
            false => self.state(),
        };
        let (state, forgets) = match state {
            Ok(state) => (state, false),
            Err(Panicked) => match self.since(&StateVector::default()) {
                Ok(state) => (state, true),
                // It is kept as updates.
                Err(Panicked) => return,
            },
        };
        let Ok(facts) = check::update(&state) else { return };
        self.types = facts.types;
        (self.base, self.base_version) = (state.into(), self.version);
        self.log.clear();
        self.log_bytes = 0;
        if forgets {
            self.restore();
        }
    }

    /// Makes the document again of its state and updates.
    fn restore(&mut self) {
        let updates = || std::iter::once(&self.base).chain(self.log.iter().map(|(_, it)| it));
        match merge::load(updates()) {
            Ok(loaded) => {
                self.doc = loaded.doc;
                self.types = loaded.types;
                self.waits(loaded.is_missing, 0, 0);
            }
            Err(error) => {
                tracing::error!(%error, "a Yjs document cannot be made again; it takes no more");
                self.is_broken = true;
            }
        }
    }

    fn doc(&self) -> &Doc {
        &self.doc
    }

    /// Keeps an update that was made in the document itself.
    fn log_own(&mut self, update: &Bytes) {
        self.version = Version(self.version.0 + 1);
        self.log_bytes += update.len();
        self.log.push_back((self.version, update.clone()));
        self.fold_if_long();
    }

    /// All of it as one update, with what waits for something.
    fn state(&self) -> Result<Vec<u8>, Panicked> {
        let doc = &self.doc;
        guard::run(self.depth(), || {
            doc.transact().encode_state_as_update_v1(&StateVector::default())
        })
    }

    fn since(&self, known: &StateVector) -> Result<Vec<u8>, Panicked> {
        let doc = &self.doc;
        guard::run(self.depth(), || doc.transact().encode_diff_v1(known))
    }

    fn depth(&self) -> usize {
        self.types + self.pending_turns
    }

    fn waits(&mut self, is_missing: bool, bytes: usize, turns: usize) {
        (self.pending, self.pending_turns) = match is_missing {
            true => (self.pending + bytes, self.pending_turns + turns),
            false => (0, 0),
        };
    }

    /// What one with this state vector misses.
    pub(crate) fn missing(&self, state_vector: &[u8]) -> Result<Bytes, Reject> {
        check::state_vector(state_vector).map_err(|reason| {
            Reject::new(Code::Invalid, format!("the state vector is not taken: {reason}"))
        })?;
        let known = StateVector::decode_v1(state_vector);
        let known = known.map_err(|error| invalid(&error.to_string()))?;
        self.since(&known).map(Into::into).map_err(|Panicked| invalid("it cannot be encoded"))
    }

    /// What it has of whom, encoded.
    pub(crate) fn state_vector(&self) -> Vec<u8> {
        self.doc.transact().state_vector().encode_v1()
    }

    /// All roots as JSON.
    pub(crate) fn value(&self) -> Plain {
        let doc = &self.doc;
        guard::run(self.depth(), || view::roots(&doc.transact())).unwrap_or(Plain::Null)
    }

    /// A root's text.
    pub(crate) fn text(&self, root: &str) -> Option<String> {
        let doc = &self.doc;
        guard::run(self.depth(), || view::text(&doc.transact(), root)).ok().flatten()
    }
}

/// Bytes as JSON has them.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Whether an update brings something, beside deletions.
pub(crate) fn brings(update: &[u8]) -> bool {
    check::update(update).is_ok_and(|facts| !facts.only_deletes)
}

/// The bytes that JSON has so.
pub(crate) fn from_base64(text: &str) -> Option<Bytes> {
    STANDARD.decode(text).ok().map(Into::into)
}

#[cold]
fn invalid(reason: &str) -> Reject {
    Reject::new(Code::Invalid, format!("the update is not taken: {reason}"))
}
