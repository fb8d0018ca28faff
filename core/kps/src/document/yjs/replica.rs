//! A client's side of a Yjs document: edits are in it at once, and go to the server as updates.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use serde_json::Value as Plain;
use yrs::{GetString, Text, Transact, WriteTxn};

use super::{YjsDocument, brings, guard, merge};
use crate::document::engine::{Code, Edit, Limits, Outcome, Reject, Splice, Version, splices_of};

/// Bytes of updates that go in one operation, if they are several.
const MANY: usize = 128 << 10;

/// What is sent to the server.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) op_id: Arc<str>,
    pub(crate) update: Bytes,
    /// How many updates it has of those that wait.
    count: usize,
}

pub(crate) struct Replica {
    document: YjsDocument,
    author: Arc<str>,
    /// What was done here and the server does not have, oldest first.
    waiting: VecDeque<Bytes>,
    sending: Option<Sending>,
    /// What the server has and a crash of it would lose.
    unsynced: VecDeque<(Arc<str>, Version)>,
    version: Version,
    checkpointed: Version,
}

impl Replica {
    pub(crate) fn new(author: Arc<str>) -> Replica {
        // What is too large the server says.
        let limits = Limits { state: usize::MAX / 4, ..Limits::default() };
        Replica {
            document: YjsDocument::new("".into(), Arc::new(limits)),
            author,
            waiting: VecDeque::new(),
            sending: None,
            unsynced: VecDeque::new(),
            version: Version(0),
            checkpointed: Version(0),
        }
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn checkpointed(&self) -> Version {
        self.checkpointed
    }

    pub(crate) fn text(&self, root: &str) -> String {
        self.document.text(root).unwrap_or_default()
    }

    pub(crate) fn value(&self) -> Plain {
        self.document.value()
    }

    pub(crate) fn state_vector(&self) -> Vec<u8> {
        self.document.state_vector()
    }

    /// What one with this state vector misses; of nothing: all of it.
    pub(crate) fn missing(&self, state_vector: Option<&[u8]>) -> Result<Bytes, Reject> {
        self.document.missing(state_vector.unwrap_or(&[0]))
    }

    /// Updates that the server does not have.
    pub(crate) fn count_pending(&self) -> usize {
        self.waiting.len()
    }

    /// Operations that a crash of the server now would lose, or that it does not have.
    pub(crate) fn unsynced(&self) -> Vec<Arc<str>> {
        let sending = self.sending.iter().map(|it| it.op_id.clone());
        self.unsynced.iter().map(|(op_id, _)| op_id.clone()).chain(sending).collect()
    }

    /// Edits the text of a root; returns what was done as an update.
    pub(crate) fn edit(&mut self, root: &str, edits: &[Edit]) -> Result<Bytes, Reject> {
        let text = self.text(root);
        let splices = splices_of(&text, edits)?;
        let doc = self.document.doc();
        let done = guard::run(self.document.depth(), || splice(doc, root, text, &splices));
        let update = match done {
            Ok(done) => done?,
            Err(guard::Panicked) => {
                self.document.restore();
                let sentence = "the Yjs library does not do it";
                return Err(Reject::new(Code::Invalid, sentence));
            }
        };
        self.document.log_own(&update);
        self.waiting.push_back(update.clone());
        Ok(update)
    }

    /// Takes an update that the program has from elsewhere: the server is to have it too. Returns what was new.
    pub(crate) fn apply(&mut self, update: &[u8]) -> Result<Option<Bytes>, Reject> {
        let effect = self.merge(update)?;
        self.waiting.extend(effect.clone());
        Ok(effect)
    }

    /// Takes an update of the server; returns what was new.
    pub(crate) fn merge(&mut self, update: &[u8]) -> Result<Option<Bytes>, Reject> {
        let op_id = "".into();
        match self.document.merge(&op_id, &self.author, update, 0) {
            Outcome::Applied(_, applied) => Ok(applied.into_update()),
            Outcome::Rejected(reject) => Err(reject),
            Outcome::Repeated(_) | Outcome::Conflict { .. } => Ok(None),
        }
    }

    /// What to send now; nothing while something is on its way.
    pub(crate) fn outgoing(&mut self, op_id: impl FnOnce() -> Arc<str>) -> Option<Sending> {
        if self.sending.is_some() || self.waiting.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fits = |update: &&Bytes| {
            bytes += update.len();
            bytes <= MANY
        };
        let count = self.waiting.iter().take_while(fits).count().max(1);
        let (update, count) = match merge::together(self.waiting.iter().take(count)) {
            Some(together) => (together, count),
            None => (self.waiting[0].clone(), 1),
        };
        let sending = Sending { op_id: op_id(), update, count };
        self.sending = Some(sending.clone());
        Some(sending)
    }

    /// The server did not answer: it is sent again.
    pub(crate) fn again(&self) -> Option<Sending> {
        self.sending.clone()
    }

    /// The server has what was sent, as this version.
    pub(crate) fn acked(&mut self, op_id: &Arc<str>, version: Version) {
        if self.over(op_id) {
            self.heard(version);
            if version > self.checkpointed {
                self.unsynced.push_back((op_id.clone(), version));
            }
        }
    }

    /// The server will never take what was sent. Returns whether it was on its way.
    pub(crate) fn over(&mut self, op_id: &str) -> bool {
        let Some(sending) = self.sending.take_if(|it| *it.op_id == *op_id) else { return false };
        self.waiting.drain(..sending.count.min(self.waiting.len()));
        true
    }

    pub(crate) fn heard(&mut self, version: Version) {
        self.version = self.version.max(version);
    }

    /// Everything up to this version is in the server's store.
    pub(crate) fn stored(&mut self, version: Version) {
        self.checkpointed = self.checkpointed.max(version);
        self.unsynced.retain(|(_, it)| *it > version);
    }

    /// The server is at this version, and has what `state_vector` says: what it misses waits to be sent.
    pub(crate) fn opened(
        &mut self,
        version: Version,
        checkpointed: Version,
        state_vector: &[u8],
    ) -> Result<(), Reject> {
        (self.version, self.checkpointed) = (version, checkpointed);
        let missing = self.document.missing(state_vector)?;
        self.unsynced.retain(|(_, it)| *it > checkpointed);
        // Deletions are no part of a state vector: those that may be missing are sent.
        let may_miss = brings(&missing) || !self.waiting.is_empty() || !self.unsynced.is_empty();
        self.waiting.clear();
        self.sending = None;
        self.unsynced.clear();
        if may_miss {
            self.waiting.push_back(missing);
        }
        Ok(())
    }
}

/// Does splices, counted in code points, to a root's text.
fn splice(doc: &yrs::Doc, root: &str, text: String, splices: &[Splice]) -> Result<Bytes, Reject> {
    let mut txn = doc.transact_mut();
    let target = txn.get_or_insert_text(root);
    if target.get_string(&txn) != text || target.len(&txn) as usize != units(text.chars()) {
        let sentence = "the text has more in it than characters: change it by a Yjs document";
        return Err(Reject::new(Code::WrongKind, sentence));
    }
    let mut text: Vec<char> = text.chars().collect();
    for Splice { at, delete, insert } in splices {
        let place = units(text[..*at].iter().copied()) as u32;
        let length = units(text[*at..at + delete].iter().copied()) as u32;
        if length > 0 {
            target.remove_range(&mut txn, place, length);
        }
        target.insert(&mut txn, place, insert);
        text.splice(*at..at + delete, insert.chars());
    }
    txn.commit();
    Ok(txn.encode_update_v1().into())
}

/// UTF-16 code units.
fn units(text: impl Iterator<Item = char>) -> usize {
    text.map(char::len_utf16).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(json: serde_json::Value) -> Edit {
        serde_json::from_value(json).unwrap()
    }

    /// The server's side.
    fn server() -> YjsDocument {
        YjsDocument::new("one".into(), Arc::default())
    }

    fn send(replica: &mut Replica, server: &mut YjsDocument, op_id: &str) {
        let sending = replica.outgoing(|| op_id.into()).unwrap();
        let Outcome::Applied(_, applied) =
            server.apply(&sending.op_id, &"ann".into(), &sending.update, 0)
        else {
            panic!("it is new")
        };
        replica.acked(&sending.op_id, applied.version);
    }

    #[test]
    fn code_points_are_what_is_counted() {
        let mut ann = Replica::new("ann".into());
        ann.edit("text", &[edit(serde_json::json!({"type": "append", "text": "a🙂é"}))]).unwrap();
        ann.edit(
            "text",
            &[edit(serde_json::json!({"type": "insert", "position": 2, "text": "-"}))],
        )
        .unwrap();
        assert_eq!(ann.text("text"), "a🙂-é");
        let both = [
            edit(serde_json::json!({"type": "delete", "position": 1, "length": 2})),
            edit(serde_json::json!({"type": "replace", "anchor": "é", "text": "e"})),
        ];
        ann.edit("text", &both).unwrap();
        assert_eq!(ann.text("text"), "ae");
        let wrong = edit(serde_json::json!({"type": "insert", "position": 9, "text": "-"}));
        assert_eq!(ann.edit("text", &[wrong]).unwrap_err().code, Code::OutOfRange);
        assert_eq!(ann.value(), serde_json::json!({"text": "ae"}));
    }

    #[test]
    fn what_two_did_offline_merges_at_the_server() {
        let (mut ann, mut bob, mut server) =
            (Replica::new("ann".into()), Replica::new("bob".into()), server());
        let append = |text: &str| [edit(serde_json::json!({"type": "append", "text": text}))];
        for text in ["one", " two"] {
            ann.edit("text", &append(text)).unwrap();
        }
        bob.edit("text", &append("bob")).unwrap();
        send(&mut ann, &mut server, "1");
        assert_eq!((ann.count_pending(), ann.unsynced()), (0, vec!["1".into()]));
        send(&mut bob, &mut server, "2");
        for replica in [&mut ann, &mut bob] {
            let missing = server.missing(&replica.state_vector()).unwrap();
            replica.merge(&missing).unwrap();
            assert_eq!(Some(replica.text("text")), server.text("text"));
        }
        ann.stored(Version(2));
        assert!(ann.unsynced().is_empty());
    }

    #[test]
    fn what_a_server_lost_is_sent_again_and_nothing_else_is() {
        let (mut ann, mut first) = (Replica::new("ann".into()), server());
        ann.edit("text", &[edit(serde_json::json!({"type": "append", "text": "text"}))]).unwrap();
        send(&mut ann, &mut first, "1");
        ann.opened(Version(1), Version(1), &first.state_vector()).unwrap();
        assert!(ann.outgoing(|| "2".into()).is_none(), "it has all of it");
        let mut second = server();
        ann.opened(Version(0), Version(0), &second.state_vector()).unwrap();
        send(&mut ann, &mut second, "3");
        assert_eq!(second.text("text").as_deref(), Some("text"));
    }
}
