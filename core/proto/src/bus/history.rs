//! What is kept: positions, what waits to be committed, and who is told when it is.
//!
//! The bus gives each accepted message of a topic with history its position and hands it to the
//! driver ([`Bus::take_writes`]), whose store says how far it has committed ([`Bus::stored`]). The
//! newest messages stay in memory, the `tail`: everything not committed yet, and as much before it as
//! readers that have almost caught up may still want.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    Bus, Published,
    output::{Place, ReaderKey, Route},
    state::{DurableKey, ParkedOn, SessionKey},
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind},
    history::{HistoryRule, KeptSession, Record, Recovered, Write},
    message::{Extras, Payload, Sender},
    wire::frame::Earlier,
};

/// Bytes accepted and not committed, above which publishers wait for the store: so much is accepted at
/// once when it has caught up, and everybody else waits as long.
const BACKLOG_BYTES: usize = 8 << 20;

/// What a message costs beside itself until it is committed: its record, here and with the store.
const RECORD: usize = 512;

/// Bytes and messages of the tail that are kept for readers though they are committed.
const TAIL_BYTES: usize = 8 << 20;
const TAIL_MESSAGES: usize = 1 << 14;

/// Publishers' own ids remembered; beyond it the oldest are forgotten before their time.
const MAX_IDS: usize = 1 << 18;

/// Sessions that are over, of which is remembered how far they had come.
const MAX_ORIGINS: usize = 1 << 14;

/// The origin of the server's own messages.
const SERVER: &str = "server";

/// Topics and publishers of old messages whose names are kept.
const MAX_ROUTES: usize = 4096;

/// Which topics have history, and what the store knew when it was opened.
#[derive(Clone, Debug)]
pub struct HistoryConfig {
    /// Which topics, and how much of each; empty: none.
    pub rules: Arc<[HistoryRule]>,
    /// What is committed survives the broker's end: publishes reach the receipt `stored`.
    pub on_disk: bool,
    /// A message with the id of another one inside this window is not stored again.
    pub duplicate_window: Duration,
    /// From the store.
    pub recovered: Recovered,
}

impl Default for HistoryConfig {
    /// No history. The window, two minutes, is what JetStream users know.
    fn default() -> Self {
        HistoryConfig {
            rules: Arc::default(),
            on_disk: false,
            duplicate_window: Duration::from_secs(120),
            recovered: Recovered::default(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// Messages with consecutive positions, up to [`History::last`].
    tail: VecDeque<Kept>,
    tail_bytes: usize,
    uncommitted_bytes: usize,
    /// The last position before this run, the last one given, and the last one committed.
    start: u64,
    last: u64,
    committed: u64,
    /// What the epochs before this one wrote, oldest first: (epoch, last position).
    epochs: Vec<(u64, u64)>,
    /// No message of theirs is later.
    before_ms: u64,
    /// Who is to hear `STORED` once a position is committed, oldest first.
    confirmations: VecDeque<Confirmation>,
    /// What retained messages are being written, oldest first: what each is charged; and how many were
    /// ever committed.
    retaining: VecDeque<usize>,
    retained: u64,
    writes: Vec<Write>,
    /// Publishers of private messages among them, whose records do not name them.
    unnamed: Vec<KeptSession>,
    ids: Ids,
    origins: Origins,
    routes: HashMap<(Arc<str>, Arc<Sender>), Arc<Route>>,
    /// Subscriptions that read, and durables that have clients.
    pub(super) readers: usize,
    /// Pages asked for and not here yet, and who is to ask next.
    pub(super) reads: usize,
    pub(super) to_read: VecDeque<ReaderKey>,
    /// Durables whose progress is to be written.
    pub(super) progressed: Vec<DurableKey>,
    /// Publishers that wait until the store has caught up.
    waiters: Vec<SessionKey>,
    failed: Option<Error>,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) space: usize,
    pub(super) published: Arc<Published>,
}

#[derive(Debug)]
struct Confirmation {
    position: u64,
    session: SessionKey,
    number: u64,
}

impl History {
    pub(super) fn new(config: &HistoryConfig) -> History {
        let recovered = &config.recovered;
        let mut history = History {
            start: recovered.position,
            last: recovered.position,
            committed: recovered.position,
            epochs: ends(&recovered.epochs),
            before_ms: recovered.latest_ms,
            ids: Ids::new(config.duplicate_window),
            ..History::default()
        };
        for session in &recovered.sessions {
            history.origins.insert(&session.origin, session.published);
        }
        history
    }

    /// The last position given.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// No message that is kept was accepted later. The clock may have been set back since.
    pub(super) fn latest_ms(&self, now_ms: u64) -> u64 {
        self.before_ms.max(now_ms)
    }

    /// The place of the message that is accepted next.
    pub(super) fn next_place(&self, epoch: u64) -> Place {
        Place::new(epoch, self.last + 1, None)
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    pub(super) fn note(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// A change of a retained message is to be written.
    pub(super) fn note_retained(&mut self, write: Write, cost: usize) {
        if self.failed.is_none() {
            self.retaining.push_back(cost + RECORD);
            self.uncommitted_bytes += cost + RECORD;
            self.writes.push(write);
        }
    }

    pub(super) fn error(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Whether publishers are to wait for the store.
    pub(super) fn is_behind(&self) -> bool {
        self.uncommitted_bytes > BACKLOG_BYTES
    }

    pub(super) fn wait(&mut self, session: SessionKey) {
        self.waiters.push(session);
    }

    /// The position behind which everything is in memory.
    fn tail_start(&self) -> u64 {
        self.last - self.tail.len() as u64
    }

    /// What was accepted behind `position`; `None` if that is not in memory any more.
    pub(super) fn behind(&self, position: u64) -> Option<impl Iterator<Item = &Kept> + '_> {
        let skip = position.checked_sub(self.tail_start())?;
        Some(self.tail.range(usize::try_from(skip).unwrap_or(usize::MAX).min(self.tail.len())..))
    }

    /// The position that an old epoch's position stands for now; `None` if the epoch is unknown.
    ///
    /// An epoch may have given more positions than it could write before it ended.
    pub(super) fn in_epoch(&self, epoch: u64, position: u64) -> Option<u64> {
        let (_, last) = self.epochs.iter().find(|(known, _)| *known == epoch)?;
        Some(position.min(*last))
    }

    /// Whether this is no run of this store's: it is another store, or an older copy of it.
    pub(super) fn is_foreign(&self, epoch: u64) -> bool {
        self.epochs.iter().all(|(known, _)| *known != epoch)
    }

    /// The position behind which this run began.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Whether a message with this id is kept already. `again`: its publisher does not know whether
    /// it arrived. `living` says how far a session that is not over has come.
    pub(super) fn has(
        &mut self,
        space: usize,
        id: &str,
        again: bool,
        time_ms: u64,
        living: impl FnOnce(&str) -> Option<u64>,
    ) -> bool {
        if self.ids.contains(space, id, time_ms) {
            return true;
        }
        let Some((origin, number)) = first_id(id).filter(|_| again) else { return false };
        let kept = self.origins.get(origin).or_else(|| living(origin));
        kept.is_some_and(|kept| number <= kept)
    }

    /// Forgets committed messages that no reader will want.
    fn trim(&mut self) {
        while self.tail_start() < self.committed {
            let enough = self.tail_bytes > TAIL_BYTES || self.tail.len() > TAIL_MESSAGES;
            if self.readers > 0 && !enough {
                break;
            }
            let Some(kept) = self.tail.pop_front() else { break };
            self.tail_bytes -= kept.published.cost();
        }
    }
}

impl Bus {
    /// Whether any topic has history.
    pub fn has_history(&self) -> bool {
        !self.config.history.rules.is_empty()
    }

    /// The message was given [`History::next_place`]: it is to be written.
    pub(super) fn keep(&mut self, now: Time, space: usize, published: &Arc<Published>) {
        let history = &mut self.history;
        history.last += 1;
        let cost = published.cost();
        history.tail_bytes += cost;
        history.uncommitted_bytes += cost + RECORD;
        history.tail.push_back(Kept { space, published: published.clone() });
        let time_ms = self.config.wall_ms(now);
        if let Some(id) = published.extras.as_ref().and_then(|extras| extras.id.as_deref()) {
            history.ids.insert(space, id, time_ms);
        }
        if let Some(extras) = published.extras.as_ref().filter(|extras| extras.private) {
            return self.keep_place(time_ms, space, published, extras.to.clone());
        }
        let record = self.record(now, space, published);
        self.history.writes.push(Write::Record(Box::new(record)));
    }

    /// A message as the store keeps it.
    pub(super) fn record(&self, now: Time, space: usize, published: &Arc<Published>) -> Record {
        Record {
            position: published.position(),
            epoch: self.config.epoch,
            namespace: self.spaces[space].name.clone(),
            topic: published.topic.clone(),
            seq: published.seq,
            sender: published.sender.clone(),
            number: published.number,
            time_ms: self.config.wall_ms(now),
            maybe_duplicate: published.maybe_duplicate,
            payload: Payload {
                content_type: published.payload.content_type,
                bytes: published.share(),
            },
            extras: published.extras.clone(),
            expires_ms: published.expires.map(|expires| self.config.wall_ms(expires)),
        }
    }

    /// Of a private message history gets the place, and who may know of it. That its publisher had it
    /// accepted is written as well, or it could be accepted twice.
    #[cold]
    fn keep_place(
        &mut self,
        time_ms: u64,
        space: usize,
        published: &Published,
        to: Option<Vec<String>>,
    ) {
        let origin = published.sender.origin.clone();
        self.history.unnamed.push(KeptSession { origin, published: published.number });
        let nobody = Sender { id: String::new(), origin: String::new() };
        self.history.writes.push(Write::Record(Box::new(Record {
            position: self.history.last,
            epoch: self.config.epoch,
            namespace: self.spaces[space].name.clone(),
            topic: published.topic.clone(),
            seq: published.seq,
            sender: Arc::new(nobody),
            number: 0,
            time_ms,
            maybe_duplicate: false,
            payload: Payload::default(),
            extras: Some(Box::new(Extras { to, private: true, ..Extras::default() })),
            expires_ms: None,
        })));
    }

    /// The publisher hears `STORED` when everything accepted so far is committed.
    pub(super) fn confirm_stored(&mut self, session: SessionKey, number: u64) {
        if !self.config.history.on_disk {
            return;
        }
        let history = &mut self.history;
        if history.committed >= history.last {
            return self.tell_stored(session, number);
        }
        history.confirmations.push_back(Confirmation { position: history.last, session, number });
    }

    fn tell_stored(&mut self, key: SessionKey, number: u64) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.stored = number;
        if let Some(port) = session.port {
            self.mark_ready(port);
        }
    }

    /// Appends what is to be written, in order; what is taken at once is to be committed at once.
    pub fn take_writes(&mut self, out: &mut Vec<Write>) {
        if !self.history.writes.is_empty() {
            let mut sessions: Vec<KeptSession> = Vec::new();
            let mut note = |origin: &str, published: u64| {
                if origin.is_empty() || origin == SERVER {
                    return;
                }
                match sessions.iter_mut().find(|session| session.origin == origin) {
                    Some(session) => session.published = session.published.max(published),
                    None => sessions.push(KeptSession { origin: origin.to_owned(), published }),
                }
            };
            for write in &self.history.writes {
                if let Write::Record(record) = write {
                    note(&record.sender.origin, record.number);
                }
            }
            for KeptSession { origin, published } in self.history.unnamed.drain(..) {
                note(&origin, published);
            }
            out.append(&mut self.history.writes);
            out.extend(sessions.into_iter().map(Write::Session));
        }
        self.take_progress(out);
    }

    /// The store has committed everything up to `position`.
    pub fn stored(&mut self, now: Time, position: u64) {
        let history = &mut self.history;
        let position = position.min(history.last);
        if position <= history.committed {
            return;
        }
        let before = std::mem::replace(&mut history.committed, position);
        let skip = before - history.tail_start();
        let newly = usize::try_from(position - before).unwrap_or(usize::MAX);
        let newly =
            history.tail.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(newly);
        let bytes: usize = newly.map(|kept| kept.published.cost() + RECORD).sum();
        history.uncommitted_bytes = history.uncommitted_bytes.saturating_sub(bytes);
        while let Some(confirmation) = self.history.confirmations.front()
            && confirmation.position <= position
        {
            let (session, number) = (confirmation.session, confirmation.number);
            self.history.confirmations.pop_front();
            self.tell_stored(session, number);
        }
        self.feed_durables(now);
        self.history.trim();
        self.go_on_storing(now);
        self.end_doomed(now);
    }

    /// The store has committed so many changes of retained messages since the bus was made.
    pub fn retained_stored(&mut self, now: Time, count: u64) {
        let history = &mut self.history;
        while history.retained < count
            && let Some(bytes) = history.retaining.pop_front()
        {
            history.retained += 1;
            history.uncommitted_bytes = history.uncommitted_bytes.saturating_sub(bytes);
        }
        self.go_on_storing(now);
        self.end_doomed(now);
    }

    /// Who waits for the store goes on if that has caught up.
    fn go_on_storing(&mut self, now: Time) {
        if !self.history.is_behind() {
            for waiter in std::mem::take(&mut self.history.waiters) {
                self.unpark(now, waiter, ParkedOn::Store);
            }
        }
    }

    /// Messages that the store has not committed yet; none once it has failed.
    pub fn uncommitted(&self) -> u64 {
        match self.history.failed {
            None => {
                self.history.last - self.history.committed + self.history.retaining.len() as u64
            }
            Some(_) => 0,
        }
    }

    /// The store cannot write any more. What is not committed is in doubt, and its publishers are
    /// told; from now on topics with history refuse messages.
    pub fn store_failed(&mut self, now: Time, error: Error) {
        self.history.failed = Some(error.clone());
        self.history.writes.clear();
        self.history.unnamed.clear();
        for confirmation in std::mem::take(&mut self.history.confirmations) {
            self.refuse(confirmation.session, confirmation.number, error.clone());
        }
        self.history.uncommitted_bytes = 0;
        self.history.retaining.clear();
        for waiter in std::mem::take(&mut self.history.waiters) {
            self.unpark(now, waiter, ParkedOn::Store);
        }
        self.end_doomed(now);
    }

    /// A message from the store, as if it had just been accepted.
    pub(super) fn revive(
        &mut self,
        space: usize,
        record: Record,
        superseded: bool,
    ) -> Arc<Published> {
        let topic = self.spaces[space].topic(&record.topic);
        let topic = self.spaces[space].name(topic).clone();
        let earlier = (record.epoch != self.config.epoch)
            .then_some(Earlier { epoch: record.epoch, time_ms: record.time_ms });
        let mut place = Place::new(record.epoch, record.position, earlier);
        place.superseded = superseded;
        self.recovered(topic, record, place)
    }

    /// A message from the store on `topic`.
    pub(super) fn recovered(
        &mut self,
        topic: Arc<str>,
        record: Record,
        place: Place,
    ) -> Arc<Published> {
        let route = self.route_of(topic, record.sender);
        let published = Published {
            route,
            payload: Payload {
                content_type: record.payload.content_type,
                bytes: (&record.payload.bytes[..]).into(),
            },
            number: record.number,
            seq: record.seq,
            time: self.config.time_at(record.time_ms),
            request: false,
            maybe_duplicate: record.maybe_duplicate,
            extras: record.extras,
            expires: record.expires_ms.map(|expires| self.config.time_at(expires)),
            place: Some(Box::new(place)),
            queues: 1,
        };
        self.charged += published.charge() as u64;
        Arc::new(published)
    }

    fn route_of(&mut self, topic: Arc<str>, sender: Arc<Sender>) -> Arc<Route> {
        let routes = &mut self.history.routes;
        if routes.len() >= MAX_ROUTES {
            routes.clear();
        }
        let released = &self.released;
        let route = routes.entry((topic, sender)).or_insert_with_key(|(topic, sender)| {
            let (topic, sender) = (topic.clone(), sender.clone());
            Arc::new(Route { topic, sender, released: released.clone() })
        });
        route.clone()
    }

    /// A message of the server's own.
    pub(super) fn server_message(
        &mut self,
        now: Time,
        space: usize,
        topic: &str,
        payload: Payload<Box<[u8]>>,
        extras: Extras,
    ) {
        let key = self.spaces[space].topic(topic);
        let routes = self.spaces[space].routes(key, topic, &self.subscriptions);
        routes.seq += 1;
        let (seq, has_history) = (routes.seq, routes.has_history);
        if has_history {
            routes.last = self.history.last + 1;
        }
        let topic = routes.name.clone();
        let targets = routes.direct.clone();
        let sender = Arc::new(Sender { id: "kps".into(), origin: SERVER.into() });
        let published = Arc::new(Published {
            route: self.route_of(topic, sender),
            payload,
            number: self.history.last + 1,
            seq,
            time: now,
            request: false,
            maybe_duplicate: false,
            extras: Some(Box::new(extras)),
            expires: None,
            place: has_history.then(|| Box::new(self.history.next_place(self.config.epoch))),
            queues: u32::try_from(targets.len()).unwrap_or(u32::MAX),
        });
        self.charged += published.charge() as u64;
        if has_history {
            self.keep(now, space, &published);
        }
        for sub in targets {
            if !self.may_have(sub, &published) {
                continue;
            }
            if has_history && self.subscriptions[sub].replay.is_some() {
                continue;
            }
            let room = self.memory() <= self.config.limits.server_bytes;
            if self.subscriptions[sub].queue.blocks(room, published.cost()) {
                // There is nobody who could wait.
                self.close_slow(now, sub);
            } else {
                self.enqueue(now, sub, published.clone(), None, room);
            }
        }
    }

    /// What topics with history answer to a publish once the store has failed.
    pub fn store_error(&self) -> Option<Error> {
        let error = self.history.error()?;
        let sentence = format!("{}; restart the server once that is mended", error.message());
        Some(Error::new(ErrorKind::StoreFailed, sentence))
    }
}

/// Origin and number of a message without an id of its own, which is sent again under these.
fn first_id(id: &str) -> Option<(&str, u64)> {
    let (origin, number) = id.rsplit_once('-')?;
    Some((origin, number.parse().ok()?))
}

/// Publishers' own ids, for as long as a message with one of them counts as a duplicate.
#[derive(Debug, Default)]
struct Ids {
    window_ms: u64,
    /// By namespace.
    known: HashMap<usize, HashSet<Arc<str>>>,
    /// Namespace, id, when it was seen.
    oldest: VecDeque<(usize, Arc<str>, u64)>,
}

impl Ids {
    fn new(window: Duration) -> Ids {
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Ids { window_ms, ..Ids::default() }
    }

    fn insert(&mut self, space: usize, id: &str, time_ms: u64) {
        self.forget(time_ms);
        let id: Arc<str> = id.into();
        if self.known.entry(space).or_default().insert(id.clone()) {
            self.oldest.push_back((space, id, time_ms));
        }
    }

    fn contains(&mut self, space: usize, id: &str, time_ms: u64) -> bool {
        self.forget(time_ms);
        self.known.get(&space).is_some_and(|known| known.contains(id))
    }

    fn forget(&mut self, time_ms: u64) {
        while let Some((space, id, seen)) = self.oldest.front()
            && (seen.saturating_add(self.window_ms) < time_ms || self.oldest.len() > MAX_IDS)
        {
            if let Some(known) = self.known.get_mut(space) {
                known.remove(id);
            }
            self.oldest.pop_front();
        }
    }
}

/// Where each epoch ended: one that wrote nothing, where the one before it did.
fn ends(epochs: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut end = 0;
    let ends = epochs.iter().map(|(epoch, last)| {
        end = end.max(*last);
        (*epoch, end)
    });
    ends.collect()
}

/// Publishers whose session is over, and the last publish of each that was kept.
#[derive(Debug, Default)]
struct Origins {
    kept: HashMap<String, u64>,
    oldest: VecDeque<String>,
}

impl Origins {
    /// Returns one that is forgotten for it.
    fn insert(&mut self, origin: &str, kept: u64) -> Option<String> {
        if self.kept.insert(origin.to_owned(), kept).is_none() {
            self.oldest.push_back(origin.to_owned());
        }
        if self.oldest.len() <= MAX_ORIGINS {
            return None;
        }
        let oldest = self.oldest.pop_front()?;
        self.kept.remove(&oldest);
        Some(oldest)
    }

    fn get(&self, origin: &str) -> Option<u64> {
        self.kept.get(origin).copied()
    }
}

impl Bus {
    /// A client sends again what it published in another session, which cannot come back then: it ends,
    /// and what it still waits to publish is not published as well.
    pub(super) fn end_former_session(&mut self, key: SessionKey, id: &str) {
        let former = first_id(id).and_then(|(origin, _)| self.origins.get(origin)).copied();
        let Some(former) = former.filter(|former| *former != key) else { return };
        let (mine, other) = (&self.sessions[key], &self.sessions[former]);
        let is_mine = mine.space == other.space && mine.principal.name == other.principal.name;
        if is_mine && other.port.is_none() {
            self.sessions[former].forget_parked();
            self.ending.push((former, None));
        }
    }

    /// A session that had messages kept is over: what its client sends again is recognised.
    pub(super) fn remember_origin(&mut self, origin: &str, kept: u64) {
        let remembered = kept > 0 && !origin.is_empty();
        let forgotten = remembered.then(|| self.history.origins.insert(origin, kept)).flatten();
        self.history.writes.extend(forgotten.map(Write::SessionEnded));
    }

    /// Takes over what the store knew: ids inside their window when it was last written. The window
    /// begins anew: while there was no broker nobody could send anything again, and the clock may have
    /// been set since.
    pub(super) fn recover_ids(&mut self) {
        let time_ms = self.config.time_base_ms;
        for (namespace, id, _) in std::mem::take(&mut self.config.history.recovered.ids) {
            let space = self.space_of(&namespace);
            self.history.ids.insert(space, &id, time_ms);
        }
    }
}
