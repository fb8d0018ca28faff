//! A Yjs editor's place at a document: what it says, and what it is told.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kps_proto::{ErrorKind, bus::Grants};

use super::{
    Documents, Inner, Slot,
    calls::check_id,
    desk::Desk,
    engine::{Code, DocumentEvent, Kind, Reject},
    merging::yjs,
    shelf::Name,
    yjs::{
        Leave, Peer, brings,
        protocol::{self, Said},
    },
};
use crate::{capability::Failure, runtime};

/// Bytes of state that are encoded at once; more is, on another thread.
const AT_ONCE: usize = 256 << 10;

/// WebSocket close codes: the server goes away; what was said is no message; later.
const AWAY: u16 = 1001;
const PROTOCOL: u16 = 1002;
const LATER: u16 = 1013;
/// Those after which `y-websocket` does not come back by itself, in the manner of HTTP.
const INVALID: u16 = 4400;
const FORBIDDEN: u16 = 4403;
const CONFLICT: u16 = 4409;
const TOO_LARGE: u16 = 4413;

/// A place at a document; dropped, it is free.
pub(crate) struct Seat {
    inner: Arc<Inner>,
    slot: Arc<Slot>,
    peer: Arc<Peer>,
    author: Arc<str>,
    may_write: bool,
}

impl Documents {
    /// Gives an editor a place at a Yjs document, which is made if there is none and it may change it. Without
    /// `may_update` it only reads, whatever its grants are.
    pub(crate) async fn sit(
        &self,
        namespace: Arc<str>,
        id: &str,
        author: Arc<str>,
        grants: &Grants,
        may_update: bool,
    ) -> Result<Seat, Failure> {
        check_id(id)?;
        let name: Name = (namespace, id.into());
        grants.check_read(id)?;
        let may_change = grants.check_change(id).is_ok();
        if !may_change {
            // Where there is none it may come back: somebody else may have made it by then.
            self.0.open(&name, None).await?;
        }
        let may_write = may_update && may_change;
        let slot = self.0.open(&name, Some(Kind::Yjs)).await?;
        let (there, now) = (self.0.there(&name), (self.0.options.now)());
        let peer = slot.with(|desk| {
            let known = yjs(desk)?.state_vector();
            desk.used = now;
            there.iter().for_each(|(client, author, state)| {
                desk.peers.show(client, Some(shown(author, state)), now);
            });
            Ok(desk.peers.enter(&known))
        })?;
        let seat = Seat { inner: self.0.clone(), slot, peer, author, may_write };
        // The server may have begun to close meanwhile.
        self.0.check_open()?;
        Ok(seat)
    }

    /// Bytes of one message to a document.
    pub(crate) fn largest_message(&self) -> usize {
        self.0.options.limits.state + (64 << 10)
    }
}

impl Seat {
    /// The next messages for the editor, as WebSocket frames.
    ///
    /// # Errors
    /// It is to leave.
    pub(crate) async fn next(&self) -> Result<Bytes, Leave> {
        self.peer.next().await
    }

    /// It is to leave, after what it is told already.
    pub(crate) fn dismiss(&self, leave: Leave) {
        self.peer.dismiss(leave);
    }

    /// What the editor says.
    ///
    /// # Errors
    /// It is to leave.
    pub(crate) async fn take(&self, message: &[u8]) -> Result<(), Leave> {
        match protocol::read(message) {
            Some(Said::Step1(known)) => self.answer(known).await,
            // What was deleted is sent by all, whoever did it.
            Some(Said::Step2(update)) if !self.may_write && !brings(update) => Ok(()),
            Some(Said::Step2(update) | Said::Update(update)) => self.update(update).await,
            Some(Said::Awareness(update)) => self.present(update),
            Some(Said::QueryAwareness) => {
                let all = self.with(|desk| Ok(desk.peers.awareness.all()))?;
                all.iter().for_each(|all| self.peer.answer(&protocol::awareness(all)));
                Ok(())
            }
            Some(Said::Other) => Ok(()),
            None => Err(Leave::new(PROTOCOL, "a message ends too early")),
        }
    }

    async fn answer(&self, known: &[u8]) -> Result<(), Leave> {
        let (slot, known) = (self.slot.clone(), Bytes::copy_from_slice(known));
        let missing = move || slot.with(|desk| Ok(yjs(desk)?.missing(&known)));
        let missing = match self.with(|desk| Ok(desk.document.size()))? {
            ..AT_ONCE => missing(),
            _ => {
                let encoding = runtime::handle().spawn_blocking(missing).await;
                encoding.map_err(|_| Leave::new(AWAY, "the server closes"))?
            }
        };
        let missing = missing.map_err(left)?.map_err(|reject| self.refused(&reject))?;
        self.peer.answer(&protocol::step_2(&missing));
        Ok(())
    }

    async fn update(&self, update: &[u8]) -> Result<(), Leave> {
        // What everybody sends who has nothing new.
        if *update == *yrs::Update::EMPTY_V1 {
            return Ok(());
        }
        if !self.may_write {
            return self.read_only();
        }
        loop {
            self.inner.announce(&self.slot).await.map_err(left)?;
            let done = self.with(|desk| {
                // Under the lock: what is applied now is stored by whoever closes.
                self.inner.check_open()?;
                // It may have been closed between the two.
                if !desk.is_announced {
                    return Ok(None);
                }
                let options = &self.inner.options;
                Ok(Some(desk.merge(&self.peer, &self.author, update, options)))
            })?;
            if let Some(done) = done {
                self.slot.tell_soon();
                self.inner.store_soon(&self.slot);
                return done.map_err(|reject| self.refused(&reject));
            }
        }
    }

    fn read_only(&self) -> Result<(), Leave> {
        let sentence = "it may read this document, not change it";
        self.peer.answer(&protocol::denied(sentence));
        Err(Leave::new(FORBIDDEN, sentence))
    }

    fn present(&self, update: &[u8]) -> Result<(), Leave> {
        let now = (self.inner.options.now)();
        let said = self.with(|desk| {
            let said = desk.peers.present(update, &self.peer, now);
            desk.tell_present();
            Ok(said)
        })?;
        self.slot.tell_soon();
        said.map_err(|reason| Leave::new(INVALID, reason))
    }

    fn refused(&self, reject: &Reject) -> Leave {
        self.peer.answer(&protocol::denied(&reject.message));
        let code = match reject.code {
            Code::TooManyPending => LATER,
            Code::DocumentTooLarge | Code::OperationTooLarge => TOO_LARGE,
            _ => INVALID,
        };
        Leave::new(code, format!("{}: {}", reject.code, reject.message))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Desk) -> Result<T, Failure>) -> Result<T, Leave> {
        self.slot
            .with(|desk| {
                desk.used = (self.inner.options.now)();
                look(desk)
            })
            .map_err(left)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = (self.inner.options.now)();
        if let Some(desk) = &mut *self.slot.desk.lock() {
            desk.used = now;
            desk.peers.leave(&self.peer, now);
            desk.tell_present();
        }
    }
}

impl Slot {
    /// All editors are to leave: the server closes.
    pub(super) fn dismiss(&self) {
        if let Some(desk) = &mut *self.desk.lock() {
            desk.peers.dismiss(&Leave::new(AWAY, "the server closes"));
        }
    }

    fn tell(&self) -> Option<Duration> {
        self.desk.lock().as_mut().and_then(|desk| desk.peers.tell_asked())
    }

    /// Tells editors what there is to tell, with what others say who are ready to be heard now.
    pub(super) fn tell_soon(self: &Arc<Self>) {
        let asks = self.desk.lock().as_mut().is_some_and(|desk| desk.peers.asks());
        if asks {
            let slot = self.clone();
            // A task runs after those that are ready.
            runtime::spawn(async move {
                while let Some(pause) = slot.tell() {
                    tokio::time::sleep(pause).await;
                }
            });
        }
    }
}

impl Desk {
    /// Forgets editors that said nothing for long; while one is connected the document is in use.
    pub(super) fn look_at_editors(&mut self, now: u64) {
        if !self.peers.is_empty() {
            self.used = now;
        }
        self.peers.expire(now);
        self.peers.tell_all();
        self.tell_present();
    }
}

impl Inner {
    /// Clients of the bus came, changed or left: editors are told.
    pub(super) fn show(&self, news: &[(Name, DocumentEvent)]) {
        let now = (self.options.now)();
        for (name, event) in news {
            let DocumentEvent::Presence { client, author, state, .. } = event else { continue };
            let slot = self.open.lock().get(name).cloned();
            if let Some(slot) = slot
                && let Some(desk) = &mut *slot.desk.lock()
                && desk.document.kind() == Kind::Yjs
            {
                desk.peers.show(client, state.as_ref().map(|state| shown(author, state)), now);
            }
        }
    }
}

/// What editors are told of a client of the bus: its name and colour where they look for them, and apart
/// from that what it says; its cursor is counted in another way than theirs.
fn shown(author: &str, state: &serde_json::Value) -> Arc<str> {
    let name = state.get("name").and_then(|name| name.as_str()).unwrap_or(author);
    let mut user = serde_json::json!({ "name": name });
    if let Some(color) = state.get("color").or_else(|| state.get("colour")) {
        user["color"] = color.clone();
    }
    serde_json::json!({ "user": user, "kps": state }).to_string().into()
}

fn left(failure: Failure) -> Leave {
    Leave::of(&failure)
}

impl Leave {
    /// Why one has to leave that this failed for.
    pub(crate) fn of(failure: &Failure) -> Leave {
        let code = match failure.kind {
            _ if failure.retry => AWAY,
            ErrorKind::Unauthorized => FORBIDDEN,
            ErrorKind::Conflict => CONFLICT,
            ErrorKind::InvalidPayload | ErrorKind::InvalidArgument => INVALID,
            _ => LATER,
        };
        Leave::new(code, format!("{}: {}", failure.code(), failure.message))
    }
}
