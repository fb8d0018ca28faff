//! Live documents: text or JSON that many edit at once, by operations that are applied wholly or not at all.
//!
//! [`engine`] is a document as a state machine, and a client's side of one. [`Documents`] keeps those of a
//! server: in memory while they are used, stored now and then. The manual's chapter
//! [`document`](crate::manual::document) says what programs see of it.

mod access;
mod answer;
mod calls;
mod client;
mod describe;
mod desk;
mod engine;
mod glance;
mod held;
#[cfg(feature = "yjs")]
mod merging;
mod operations;
mod options;
mod presence;
#[cfg(feature = "yjs")]
mod seat;
mod shelf;
#[cfg(test)]
mod tests;
#[cfg(feature = "yjs")]
mod yjs;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kps_proto::ErrorKind;
use parking_lot::Mutex;

#[cfg(feature = "yjs")]
pub use self::client::YjsDocument;
pub(crate) use self::{calls::check_id, desk::Teller};
pub use self::{
    client::{
        Document, DocumentEvents, DocumentStream, Edited, Editing, IntoEdits, Listening,
        OpenDocument, Present, Refused, Start, StreamOptions, Told,
    },
    engine::{
        Applied, Change, Code, DocumentEvent, Edit, JsonChange, Kind, Level, Limits, Operation,
        Place, Range, Reject, Snapshot, Splice, Version,
    },
    options::{Clock, DocumentOptions},
};
use self::{
    desk::Desk,
    presence::Presence,
    shelf::{Memory, Name, Shelf, Stored},
};
#[cfg(feature = "yjs")]
pub(crate) use self::{
    seat::Seat,
    yjs::{Leave, protocol as yjs_protocol},
};
use crate::{capability::Failure, net::BoxFuture, runtime};

/// How often open documents are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Documents that are stored at once.
const MANY: usize = 64;

/// The documents of a server. Clones share them.
#[derive(Clone)]
pub struct Documents(Arc<Inner>);

struct Inner {
    options: DocumentOptions,
    shelf: Arc<dyn Shelf>,
    teller: OnceLock<Teller>,
    open: Mutex<HashMap<Name, Arc<Slot>>>,
    presence: Mutex<Presence>,
    is_looking: AtomicBool,
    is_closed: AtomicBool,
}

/// A document's place in memory.
#[derive(Default)]
struct Slot {
    /// One loads or stores at a time.
    turn: tokio::sync::Mutex<()>,
    /// `None`: it is not loaded (yet).
    desk: Mutex<Option<Desk>>,
    /// Nobody has been told that it was made.
    is_new: AtomicBool,
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Documents").field(&self.0.options).finish()
    }
}

impl Documents {
    /// Documents that are kept in memory alone, for as long as this lives.
    pub fn in_memory(options: DocumentOptions) -> Documents {
        Documents::on(Arc::new(Memory::new(options.memory)), options)
    }

    /// Documents among these values.
    #[cfg(feature = "store")]
    pub(crate) fn in_values(
        values: Arc<crate::store::values::Values>,
        durable: bool,
        options: DocumentOptions,
    ) -> Documents {
        Documents::on(Arc::new(shelf::InValues { values, durable }), options)
    }

    fn on(shelf: Arc<dyn Shelf>, options: DocumentOptions) -> Documents {
        Documents(Arc::new(Inner {
            options,
            shelf,
            teller: OnceLock::new(),
            open: Mutex::default(),
            presence: Mutex::default(),
            is_looking: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        }))
    }

    /// From now on `teller` tells what happens; the first one stays.
    pub(crate) fn tell_by(&self, teller: Teller) {
        self.0.teller.get_or_init(|| teller);
    }

    /// Stores what has changed and takes no more.
    pub(crate) async fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        let all: Vec<_> = self.0.open.lock().values().cloned().collect();
        #[cfg(feature = "yjs")]
        all.iter().for_each(|slot| slot.dismiss());
        // Why not is told and logged; there is nobody to do it later.
        self.0.store_all(all.into_iter().map(|slot| (slot, true))).await;
        self.0.open.lock().clear();
    }

    /// How many are in memory.
    pub fn count_open(&self) -> usize {
        self.0.open.lock().len()
    }

    /// Stores what is due and lets go of what nobody used for long. Called now and then by itself.
    pub async fn tick(&self) {
        let all: Vec<_> =
            self.0.open.lock().iter().map(|(name, slot)| (name.clone(), slot.clone())).collect();
        let now = (self.0.options.now)();
        let idle = u64::try_from(self.0.options.idle.as_millis()).unwrap_or(u64::MAX);
        let (mut due, mut unused) = (Vec::new(), Vec::new());
        for (name, slot) in all {
            let (is_due, is_idle) = match &mut *slot.desk.lock() {
                Some(desk) => {
                    #[cfg(feature = "yjs")]
                    desk.look_at_editors(now);
                    let is_idle = now.saturating_sub(desk.used) >= idle;
                    let is_due = desk.is_due(&self.0.options);
                    (is_due || (is_idle && desk.failing().is_none()), is_idle)
                }
                None => (false, true),
            };
            if is_due {
                due.push((slot, is_idle));
            }
            if is_idle {
                unused.push(name);
            }
        }
        self.0.expire_presence();
        // Why not is told; it is tried again.
        self.0.store_all(due).await;
        unused.iter().for_each(|name| self.0.let_go(name));
    }

    /// Looks at open documents until none is there.
    fn look(&self) {
        if self.0.is_looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let this: Weak<Inner> = Arc::downgrade(&self.0);
        runtime::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(this) = this.upgrade().map(Documents) else { return };
                this.tick().await;
                if this.0.is_unused() {
                    this.0.is_looking.store(false, Ordering::Release);
                    // One may have been opened between the two.
                    if this.0.is_unused() || this.0.is_looking.swap(true, Ordering::AcqRel) {
                        return;
                    }
                }
            }
        });
    }
}

impl Inner {
    /// The document's place, loaded; made if `kind` is given and there is none.
    async fn open(self: &Arc<Self>, name: &Name, kind: Option<Kind>) -> Result<Arc<Slot>, Failure> {
        self.check_open()?;
        let slot = self.place(name)?;
        if slot.desk.lock().is_none() {
            let loaded = self.load(name, &slot, kind).await;
            if let Err(failure) = loaded {
                drop(slot);
                self.let_go(name);
                return Err(failure);
            }
        }
        Documents(self.clone()).look();
        let mut desk = slot.desk.lock();
        if let Some(desk) = &mut *desk {
            desk.used = (self.options.now)();
            let found = desk.document.kind();
            if kind.is_some_and(|kind| kind != found) {
                let sentence = format!("document {:?} is {}; open it so", name.1, found.as_str());
                return Err(Failure::new(ErrorKind::Conflict, sentence));
            }
        }
        drop(desk);
        Ok(slot)
    }

    /// Whether there is nothing to look at.
    fn is_unused(&self) -> bool {
        self.open.lock().is_empty() && self.presence.lock().is_empty()
    }

    fn check_open(&self) -> Result<(), Failure> {
        match self.is_closed.load(Ordering::Acquire) {
            true => Err(Failure::new(ErrorKind::Unavailable, "the server closes").retryable()),
            false => Ok(()),
        }
    }

    fn place(&self, name: &Name) -> Result<Arc<Slot>, Failure> {
        let mut open = self.open.lock();
        if let Some(slot) = open.get(name) {
            return Ok(slot.clone());
        }
        let is_full = |open: &HashMap<Name, Arc<Slot>>| {
            // All are looked at now and then: bounds may be a little late.
            let is_heavy = || open.len() % 16 == 15 && weight(open) >= self.options.memory;
            open.len() >= self.options.most_open || is_heavy()
        };
        if is_full(&open) {
            make_room(&mut open);
            if is_full(&open) {
                let sentence = format!("{} documents are open; try again later", open.len());
                return Err(Failure::new(ErrorKind::QuotaExceeded, sentence).retryable());
            }
        }
        Ok(open.entry(name.clone()).or_default().clone())
    }

    async fn load(
        self: &Arc<Self>,
        name: &Name,
        slot: &Slot,
        kind: Option<Kind>,
    ) -> Result<(), Failure> {
        let _turn = slot.turn.lock().await;
        if slot.desk.lock().is_some() {
            return Ok(());
        }
        let stored = self.look_up(name).await?;
        let (this, name) = (self.clone(), name.clone());
        let loading = runtime::handle().spawn_blocking(move || {
            let silent: Teller = Arc::new(|_, _| ());
            let teller = this.teller.get().cloned().unwrap_or(silent);
            Desk::open(&name, stored, kind, &*this.shelf, &this.options, teller)
        });
        let desk = loading.await.unwrap_or_else(|error| {
            Err(Failure::new(ErrorKind::Internal, format!("the document was not read: {error}")))
        })?;
        slot.is_new.store(desk.is_new(), Ordering::Relaxed);
        *slot.desk.lock() = Some(desk);
        Ok(())
    }

    /// What is stored of it.
    async fn look_up(self: &Arc<Self>, name: &Name) -> Result<Stored, Failure> {
        let (this, name) = (self.clone(), name.clone());
        let loading = runtime::handle().spawn_blocking(move || this.shelf.load(&name));
        loading.await.unwrap_or_else(|error| {
            Err(Failure::new(ErrorKind::Internal, format!("the document was not read: {error}")))
        })
    }

    /// Has it stored that versions may be told now which a crash would lose. Whoever asked may go.
    async fn announce(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<(), Failure> {
        if slot.desk.lock().as_ref().is_some_and(|desk| desk.is_announced) {
            return Ok(());
        }
        let (this, slot) = (self.clone(), slot.clone());
        let storing = runtime::spawn(async move { this.announce_here(&slot).await });
        let lost = || Failure::new(ErrorKind::Closed, "the process is about to end");
        storing.await.unwrap_or_else(|_| Err(lost()))
    }

    async fn announce_here(&self, slot: &Slot) -> Result<(), Failure> {
        let is_announced = || slot.desk.lock().as_ref().is_some_and(|desk| desk.is_announced);
        if is_announced() {
            return Ok(());
        }
        let _turn = slot.turn.lock().await;
        if is_announced() {
            return Ok(());
        }
        let planned =
            slot.desk.lock().as_ref().map(|desk| (desk.name().clone(), desk.announcement()));
        let Some((name, writing)) = planned else { return Ok(()) };
        let written = self.shelf.write(&name, writing).await;
        let mut desk = slot.desk.lock();
        match written {
            Ok(mark) => {
                if let Some(desk) = &mut *desk {
                    desk.announced(mark);
                }
                Ok(())
            }
            Err(failure) if failure.kind == ErrorKind::Conflict => {
                // What is there was not when it was loaded, and nothing was done with what is here.
                desk.take_if(|desk| !desk.is_busy());
                let sentence = "somebody else stored the document meanwhile; try again";
                Err(Failure::new(ErrorKind::StoreFailed, sentence).retryable())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Several at once: the store takes them together.
    async fn store_all(self: &Arc<Self>, all: impl IntoIterator<Item = (Arc<Slot>, bool)>) {
        let mut all = all.into_iter();
        let mut storing = tokio::task::JoinSet::new();
        loop {
            while storing.len() < MANY
                && let Some((slot, close)) = all.next()
            {
                let this = self.clone();
                storing.spawn_on(
                    async move { drop(this.store_here(&slot, close).await) },
                    &runtime::handle(),
                );
            }
            if storing.join_next().await.is_none() {
                return;
            }
        }
    }

    /// Stores what changed. Whoever asked for it may go: it is done all the same.
    async fn store(self: &Arc<Self>, slot: &Arc<Slot>, close: bool) -> Result<(), Failure> {
        let (this, slot) = (self.clone(), slot.clone());
        let storing = runtime::spawn(async move { this.store_here(&slot, close).await });
        let lost = || Failure::new(ErrorKind::Closed, "the process is about to end");
        storing.await.unwrap_or_else(|_| Err(lost()))
    }

    async fn store_here(self: &Arc<Self>, slot: &Slot, close: bool) -> Result<(), Failure> {
        let _turn = slot.turn.lock().await;
        let planned = {
            let mut desk = slot.desk.lock();
            desk.as_mut().and_then(|desk| Some((desk.name().clone(), desk.plan(close)?)))
        };
        let Some((name, mut plan)) = planned else { return Ok(()) };
        let written = self.shelf.write(&name, plan.take_writing()).await;
        let now = (self.options.now)();
        let found = match &written {
            Err(failure) if failure.kind == ErrorKind::Conflict => self.look_up(&name).await.ok(),
            _ => None,
        };
        let mut desk = slot.desk.lock();
        let Some(desk) = &mut *desk else { return Ok(()) };
        match written {
            Ok(mark) => {
                desk.done(plan, mark, now);
                Ok(())
            }
            Err(failure) => {
                found.into_iter().for_each(|stored| desk.look_again(stored));
                desk.failed(&failure, now);
                Err(failure)
            }
        }
    }

    /// Stores it, if enough happened, while nobody waits for it.
    fn store_soon(self: &Arc<Self>, slot: &Arc<Slot>) {
        let is_due = slot.desk.lock().as_ref().is_some_and(|desk| desk.is_due(&self.options));
        if is_due && slot.turn.try_lock().is_ok() {
            let (this, slot) = (self.clone(), slot.clone());
            // Why not is told; it is tried again.
            runtime::spawn(async move { drop(this.store_here(&slot, false).await) });
        }
    }

    /// It leaves memory, unless somebody uses it or it is not stored.
    fn let_go(&self, name: &Name) {
        let mut open = self.open.lock();
        // Whoever uses it took it from here, under this lock.
        let is_unused = open.get(name).is_some_and(is_unused);
        if is_unused {
            open.remove(name);
        }
    }
}

/// Bytes of all of them, about.
fn weight(open: &HashMap<Name, Arc<Slot>>) -> usize {
    let of = |slot: &Arc<Slot>| slot.desk.lock().as_ref().map_or(0, |it| it.document.weight());
    open.values().map(of).sum()
}

fn is_unused(slot: &Arc<Slot>) -> bool {
    Arc::strong_count(slot) == 1 && slot.desk.lock().as_ref().is_none_or(|desk| !desk.is_busy())
}

/// What was used longest ago leaves, if it is stored.
fn make_room(open: &mut HashMap<Name, Arc<Slot>>) {
    let used = |slot: &Slot| slot.desk.lock().as_ref().map_or(0, |desk| desk.used);
    let mut unused: Vec<_> = open
        .iter()
        .filter(|(_, slot)| is_unused(slot))
        .map(|(name, slot)| (used(slot), name.clone()))
        .collect();
    unused.sort_by_key(|(used, _)| *used);
    for (_, name) in unused.into_iter().take(open.len() / 8 + 1) {
        open.remove(&name);
    }
}

/// Work that others wait for.
type Answering = BoxFuture<'static, crate::capability::Outcome>;
