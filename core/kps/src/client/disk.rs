//! The outbox' copy on disk: what is published goes to a file as well, until no server needs it from
//! us any more.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    path::Path,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use kps_proto::{
    Error, ErrorKind, Result,
    clock::Time,
    message::{ContentType, Extras, Offline, Payload},
    session::{Destination, PublishOptions, Session},
};

use super::{inner::Inner, lock::Lock};
use crate::store::outbox::{self, Kept, OutboxEvent, OutboxFile};

pub(super) struct Disk {
    /// `None` once it is closed.
    file: Lock<Option<OutboxFile>>,
    places: Arc<Lock<Places>>,
    drafts: Lock<Drafts>,
    owner: Arc<OnceLock<Weak<Inner>>>,
}

/// Which publish is where in the file.
#[derive(Default)]
struct Places {
    next: u64,
    /// Everything up to this place is on disk.
    committed: u64,
    /// Publish number and place, both ascending.
    kept: VecDeque<(u64, u64)>,
    failed: Option<Error>,
    is_sealed: bool,
}

/// Operations on documents that the server may not have (any more).
#[derive(Default)]
struct Drafts {
    /// By place: of which document, the operation's id, and the operation.
    kept: BTreeMap<u64, (String, Arc<str>, Bytes)>,
    /// Documents that somebody has open.
    open: HashSet<String>,
}

impl Disk {
    /// Opens the file and publishes again what an earlier process left there.
    pub(super) fn open(path: &Path, session: &mut Session) -> Result<Disk> {
        let places = Arc::new(Lock::new(Places::default()));
        let owner: Arc<OnceLock<Weak<Inner>>> = Arc::default();
        let (told, host) = (places.clone(), owner.clone());
        let (file, left) = OutboxFile::open(path, move |event| hear(event, &told, &host))?;
        let mut known = places.lock();
        let mut drafts = Drafts::default();
        for kept in left {
            (known.next, known.committed) = (kept.place + 1, kept.place);
            if let outbox::Destination::Document(name) = kept.destination {
                let op_id = kept.extras.and_then(|extras| extras.id).unwrap_or_default();
                drafts.kept.insert(kept.place, (name, op_id.into(), kept.payload.bytes));
                continue;
            }
            match again(&kept, session) {
                Ok(number) => known.kept.push_back((number, kept.place)),
                Err(error) => {
                    tracing::warn!(%error, place = kept.place, "a kept message is not published");
                    file.done(kept.place);
                }
            }
        }
        drop(known);
        Ok(Disk { file: Lock::new(Some(file)), places, drafts: Lock::new(drafts), owner })
    }

    /// Who is told what is on disk.
    pub(super) fn set_owner(&self, inner: Weak<Inner>) {
        // There is only one.
        let _ = self.owner.set(inner);
    }

    /// Whether the file can be written.
    pub(super) fn check(&self) -> Result<()> {
        self.places.lock().failed.clone().map_or(Ok(()), Err)
    }

    /// Keeps the publish that was just given this number, unless it is one that stays in memory.
    pub(super) fn keep(
        &self,
        number: u64,
        to: Destination<'_>,
        content_type: ContentType,
        payload: &[u8],
        options: &PublishOptions<'_>,
        session: &Session,
    ) {
        let mut extras = options.extras.cloned().unwrap_or_default();
        if extras.private || extras.offline == Offline::Drop {
            return;
        }
        // Under this id it is known, should it arrive and then be sent again by another process.
        extras.id.get_or_insert_with(|| session.message_id(number));
        let now = wall_ms();
        let millis = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let mut places = self.places.lock();
        let place = places.next.max(1);
        places.next = place + 1;
        places.kept.push_back((number, place));
        let Some(file) = &*self.file.lock() else { return };
        file.push(Kept {
            place,
            destination: match to {
                Destination::Topic(topic) => outbox::Destination::Topic(topic.to_owned()),
                Destination::Client(id) => outbox::Destination::Client(id.to_owned()),
                Destination::Server(address) => outbox::Destination::Server(address.to_owned()),
            },
            retain: options.retain,
            payload: Payload { content_type, bytes: Bytes::copy_from_slice(payload) },
            expires_ms: extras.ttl.map(|ttl| now.saturating_add(millis(ttl))),
            extras: Some(Box::new(extras)),
            published_ms: now,
        });
    }

    /// The operations of a document that an earlier process, or opening, left: only for the first who has it open.
    pub(super) fn claim(&self, document: &str) -> Option<Vec<Bytes>> {
        let mut drafts = self.drafts.lock();
        let is_first = drafts.open.insert(document.to_owned());
        let own = drafts.kept.values().filter(|(name, ..)| name == document);
        let own = own.map(|(.., operation)| operation.clone()).collect();
        is_first.then_some(own)
    }

    /// Nobody has it open any more.
    pub(super) fn unclaim(&self, document: &str) {
        self.drafts.lock().open.remove(document);
    }

    /// Keeps an operation on a document.
    pub(super) fn keep_draft(
        &self,
        document: &str,
        op_id: &Arc<str>,
        operation: Bytes,
    ) -> Result<()> {
        self.check()?;
        let mut drafts = self.drafts.lock();
        let mut places = self.places.lock();
        let place = places.next.max(1);
        places.next = place + 1;
        let Some(file) = &*self.file.lock() else { return Ok(()) };
        drafts.kept.insert(place, (document.to_owned(), op_id.clone(), operation.clone()));
        let extras = Extras { id: Some((**op_id).to_owned()), ..Extras::default() };
        file.push(Kept {
            place,
            destination: outbox::Destination::Document(document.to_owned()),
            retain: false,
            payload: Payload { content_type: ContentType::Json, bytes: operation },
            expires_ms: None,
            extras: Some(Box::new(extras)),
            published_ms: wall_ms(),
        });
        Ok(())
    }

    /// The operation need not be kept any more.
    pub(super) fn forget_draft(&self, op_id: &str) {
        let mut drafts = self.drafts.lock();
        // The oldest go first.
        let found = drafts.kept.iter().find(|(_, (_, known, _))| **known == *op_id);
        let Some(place) = found.map(|(place, _)| *place) else { return };
        drafts.kept.remove(&place);
        if let Some(file) = &*self.file.lock() {
            file.done(place);
        }
    }

    /// Every publish up to `number` need not be kept any more.
    pub(super) fn release(&self, number: u64) {
        let mut places = self.places.lock();
        let released = places.kept.partition_point(|(kept, _)| *kept <= number);
        if released == 0 || places.is_sealed {
            return;
        }
        let Some(file) = &*self.file.lock() else { return };
        for (_, place) in places.kept.drain(..released) {
            file.done(place);
        }
    }

    /// This publish need not be kept, whatever becomes of those before it.
    pub(super) fn forget(&self, number: u64) {
        let mut places = self.places.lock();
        let Ok(found) = places.kept.binary_search_by_key(&number, |(kept, _)| *kept) else {
            return;
        };
        if let Some(file) = self.file.lock().as_ref().filter(|_| !places.is_sealed) {
            file.done(places.kept[found].1);
            places.kept.remove(found);
        }
    }

    /// The session ends and gives up what it has: that is left to the next process.
    pub(super) fn seal(&self) {
        self.places.lock().is_sealed = true;
    }

    /// Writes what is left, and leaves the file to the next process.
    pub(super) fn close(&self) {
        let file = self.file.lock().take();
        drop(file);
    }

    /// Whether this publish is kept for the next process.
    pub(super) fn holds(&self, number: u64) -> bool {
        let places = self.places.lock();
        let found = places.kept.binary_search_by_key(&number, |(kept, _)| *kept);
        found.is_ok_and(|found| places.kept[found].1 <= places.committed)
    }
}

fn hear(event: OutboxEvent, places: &Lock<Places>, owner: &OnceLock<Weak<Inner>>) {
    // What an earlier process left was on disk before there was an owner.
    let inner = || owner.get().and_then(Weak::upgrade);
    match event {
        OutboxEvent::Committed { place } => {
            let mut places = places.lock();
            places.committed = place;
            let count = places.kept.partition_point(|(_, kept)| *kept <= place);
            let number = count.checked_sub(1).map(|last| places.kept[last].0);
            drop(places);
            if let (Some(number), Some(inner)) = (number, inner()) {
                inner.with_session(|session, events| session.persisted(number, events));
            }
        }
        OutboxEvent::Failed(error) => {
            tracing::error!(%error, "the outbox' file failed");
            let sentence = format!(
                "{}; until the client is opened anew it publishes nothing but what waits for answers",
                error.message()
            );
            let error = Error::new(ErrorKind::StoreFailed, sentence);
            places.lock().failed = Some(error.clone());
            if let Some(inner) = inner() {
                inner.with_session(|session, events| session.persist_failed(&error, events));
            }
        }
    }
}

/// Publishes what an earlier process did not see confirmed.
fn again(kept: &Kept, session: &mut Session) -> Result<u64> {
    let mut extras = kept.extras.as_deref().cloned().unwrap_or_default();
    if let Some(expires) = kept.expires_ms {
        extras.ttl = Some(left(expires)?);
    }
    let options = PublishOptions {
        extras: Some(&extras).filter(|extras| !Extras::is_empty(extras)),
        maybe_duplicate: true,
        retain: kept.retain,
        ..PublishOptions::default()
    };
    let to = match &kept.destination {
        outbox::Destination::Topic(topic) => Destination::Topic(topic),
        outbox::Destination::Client(id) => Destination::Client(id),
        outbox::Destination::Server(address) => Destination::Server(address),
        outbox::Destination::Document(_) => {
            return Err(Error::new(ErrorKind::Internal, "an operation is no message"));
        }
    };
    let Payload { content_type, bytes } = &kept.payload;
    session.publish(Time::ZERO, to, *content_type, bytes, &options)
}

fn left(expires_ms: u64) -> Result<Duration> {
    match expires_ms.checked_sub(wall_ms()) {
        Some(left @ 1..) => Ok(Duration::from_millis(left)),
        _ => Err(Error::new(ErrorKind::Timeout, "its time to live is over")),
    }
}

fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
