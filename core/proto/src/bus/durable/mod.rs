//! Durable subscriptions: a name with progress of its own, which outlives its clients.
//!
//! A durable reads the committed messages of its pattern in order, hands each to one of its clients,
//! and is done with it when the client has acked it. What is not acked is handed out again: when its
//! client is gone, when its client answers nothing for `ack_wait`, and some time after its handler
//! failed. What fails too often goes to the dead-letter topic.

mod ending;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    Bus, Published,
    output::{Place, ReaderKey},
    replay::{PAGE, PAGE_BYTES, unknown_gap},
    state::{Awaited, DurableKey, SubKey, Timer},
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    history::{Page, Progress, Query, ReadFrom, Write},
    message::GapReason,
    options::Redelivery,
    topic::Pattern,
};

/// Messages a client may have without having acked them, unless its capacity says less.
pub(super) const IN_FLIGHT: usize = 256;

/// Durable subscriptions of one server.
const MAX_DURABLES: usize = 10_000;

/// Messages handed out at least once, and messages acked beyond one that is not: above that no new
/// one is handed out.
const MAX_TRIES: usize = 4096;
const MAX_ACKED: usize = 1 << 14;

/// Messages that wait for clients of a durable without room while others have; above that all wait.
const MAX_HELD: usize = 256;

/// How often the delay after a failure doubles.
const DOUBLINGS: u32 = 6;

/// The topic for what failed too often is this and the durable's name.
pub const DEAD_LETTERS: &str = "kps.dead.";

#[derive(Debug)]
pub(super) struct Durable {
    space: usize,
    name: Arc<str>,
    pattern: Pattern,
    redelivery: Redelivery,
    members: Vec<SubKey>,
    turn: usize,
    /// Everything up to here was read.
    from: ReadFrom,
    reading: bool,
    /// Read and not done with, by position.
    open: BTreeSet<u64>,
    /// Of those: not handed out yet; to be handed out again, from a time on; for clients without room;
    /// with a client.
    ready: VecDeque<Arc<Published>>,
    retry: BTreeMap<(Time, u64), Arc<Published>>,
    /// For clients that are members and have no room now, while others have.
    held: VecDeque<Arc<Published>>,
    out: BTreeMap<u64, Out>,
    /// Above the first open one, and done with.
    acked: BTreeSet<u64>,
    /// Handed out at least once and not done with.
    tries: BTreeMap<u64, Tries>,
    /// Its progress changed since it was written.
    dirty: bool,
    /// What was accepted up to here was accepted while none of its clients was connected.
    joined: u64,
    /// An earlier run of the broker may have handed out everything up to here, and not have known it
    /// when it ended.
    doubtful: u64,
}

/// A message that a client has.
#[derive(Debug)]
struct Out {
    member: SubKey,
    published: Arc<Published>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    handed_out: u32,
    failed: u32,
}

/// A subscription as client of a durable.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) durable: DurableKey,
    /// Messages it has and did not ack.
    has: usize,
    /// When it last answered, or got something while it had nothing.
    moved: Time,
    /// [`Timer::AckWait`] is set.
    armed: bool,
    /// It answered nothing for too long and gets nothing until it does.
    stalled: bool,
}

impl Durable {
    fn is_wanted(&self, position: u64) -> bool {
        !self.acked.contains(&position) && !self.open.contains(&position)
    }

    fn take(&mut self, position: u64, published: Arc<Published>) {
        self.open.insert(position);
        self.ready.push_back(published);
    }

    /// The next message to hand out; with `fresh` also one that was not handed out before.
    fn next(&mut self, now: Time, fresh: bool) -> Option<Arc<Published>> {
        loop {
            let next = match self.retry.first_entry() {
                Some(entry) if entry.key().0 <= now => entry.remove(),
                _ if fresh => self.ready.pop_front()?,
                _ => return None,
            };
            // A late ack may have come meanwhile.
            if self.open.contains(&next.position()) {
                return Some(next);
            }
        }
    }

    /// Whether it may take more upon itself. `room`: the server has some.
    fn may_begin(&self, room: bool) -> bool {
        let few = self.tries.len() < MAX_TRIES && self.acked.len() < MAX_ACKED;
        self.tries.is_empty() || (few && room)
    }

    /// Every position up to this one is done with.
    fn done(&self) -> u64 {
        match (self.open.first(), self.from) {
            (Some(first), _) => first - 1,
            (None, ReadFrom::After(position)) => position,
            (None, ReadFrom::Time(_) | ReadFrom::Last) => 0,
        }
    }

    /// Whether that changes anything.
    fn finish(&mut self, position: u64) -> bool {
        if position <= self.done() {
            return false;
        }
        self.open.remove(&position);
        self.tries.remove(&position);
        self.retry.retain(|(_, other), _| *other != position);
        self.acked.insert(position);
        self.forget_acked();
        true
    }

    fn forget_acked(&mut self) {
        let done = self.done();
        while self.acked.first().is_some_and(|first| *first <= done) {
            self.acked.pop_first();
        }
        while self.tries.first_key_value().is_some_and(|(first, _)| *first <= done) {
            self.tries.pop_first();
        }
    }

    /// Forgets what was read and is with no client; it is read again.
    fn rewind(&mut self) {
        if self.reading || !self.out.is_empty() {
            return;
        }
        self.from = match (self.open.first(), self.from) {
            (Some(first), _) => ReadFrom::After(first - 1),
            (None, from) => from,
        };
        self.open.clear();
        self.ready.clear();
        self.retry.clear();
        self.held.clear();
    }

    fn progress(&self, namespace: &str) -> Progress {
        Progress {
            namespace: namespace.to_owned(),
            name: self.name.to_string(),
            pattern: self.pattern.as_str().to_owned(),
            done: self.done(),
            beyond: self.acked.iter().copied().collect(),
            attempts: self.tries.iter().map(|(at, tries)| (*at, tries.handed_out)).collect(),
        }
    }
}

impl Bus {
    /// Takes over what the store knew of durable subscriptions.
    pub(super) fn recover_durables(&mut self) {
        for progress in std::mem::take(&mut self.config.history.recovered.progress) {
            let Ok(pattern) = Pattern::parse(&progress.pattern) else { continue };
            let space = self.space_of(&progress.namespace);
            let from = ReadFrom::After(progress.done);
            let redelivery = Redelivery::default();
            let key = self.insert_durable(space, &progress.name, pattern, from, redelivery);
            let durable = &mut self.durables[key];
            durable.acked = progress.beyond.into_iter().collect();
            let tries = |handed_out| Tries { handed_out, failed: 0 };
            let attempts = progress.attempts.into_iter();
            durable.tries = attempts.map(|(position, count)| (position, tries(count))).collect();
            durable.doubtful = self.history.committed();
        }
        // All that is written already.
        self.take_progress(&mut Vec::new());
    }

    /// Its progress is to be written.
    fn progressed(&mut self, key: DurableKey) {
        if !std::mem::replace(&mut self.durables[key].dirty, true) {
            self.history.progressed.push(key);
        }
    }

    fn finish(&mut self, key: DurableKey, position: u64) {
        if self.durables[key].finish(position) {
            self.progressed(key);
        }
    }

    fn insert_durable(
        &mut self,
        space: usize,
        name: &str,
        pattern: Pattern,
        from: ReadFrom,
        redelivery: Redelivery,
    ) -> DurableKey {
        let name: Arc<str> = name.into();
        let key = self.durables.insert(Durable {
            space,
            name: name.clone(),
            pattern,
            redelivery,
            members: Vec::new(),
            turn: 0,
            from,
            reading: false,
            open: BTreeSet::new(),
            ready: VecDeque::new(),
            retry: BTreeMap::new(),
            held: VecDeque::new(),
            out: BTreeMap::new(),
            acked: BTreeSet::new(),
            tries: BTreeMap::new(),
            dirty: false,
            joined: 0,
            doubtful: 0,
        });
        self.durable_names.insert((space, name), key);
        self.progressed(key);
        key
    }

    /// The durable that a new client asks for: the one of this name, or a new one that begins at
    /// `from`.
    pub(super) fn durable(
        &mut self,
        space: usize,
        name: &str,
        pattern: &Pattern,
        from: ReadFrom,
        redelivery: Redelivery,
    ) -> Result<DurableKey> {
        if let Some(key) = self.durable_names.get(&(space, Arc::from(name))).copied() {
            let durable = &mut self.durables[key];
            if durable.pattern != *pattern {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!(
                        "the durable {name:?} subscribes to {:?}; use that pattern or another name",
                        durable.pattern.as_str()
                    ),
                ));
            }
            durable.redelivery = redelivery;
            return Ok(key);
        }
        if self.durables.len() >= MAX_DURABLES {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("a server keeps {MAX_DURABLES} durable subscriptions; remove some"),
            ));
        }
        Ok(self.insert_durable(space, name, pattern.clone(), from, redelivery))
    }

    /// A client was there before: what it had may not have been written down.
    pub(super) fn doubt(&mut self, key: DurableKey) {
        let durable = &mut self.durables[key];
        if durable.doubtful == 0 {
            durable.doubtful = self.history.committed();
        }
    }

    /// `sub` takes messages of the durable from now on.
    pub(super) fn join_durable(&mut self, now: Time, key: DurableKey, sub: SubKey) {
        self.joined_durable(key);
        let member = Member { durable: key, has: 0, moved: now, armed: false, stalled: false };
        self.subscriptions[sub].member = Some(Box::new(member));
        let durable = &mut self.durables[key];
        durable.members.push(sub);
        if durable.members.len() == 1 {
            self.history.readers += 1;
        }
        self.hand_out(now, key);
    }

    /// A client comes, or comes back: if it is the only one connected, what was accepted until now was
    /// accepted without any.
    pub(super) fn joined_durable(&mut self, key: DurableKey) {
        let mut members = self.durables[key].members.iter();
        if !members.any(|sub| self.sessions[self.subscriptions[*sub].session].port.is_some()) {
            self.durables[key].joined = self.history.last();
        }
    }

    /// `sub` is gone: what it had and did not ack goes to others. If it broke, the first of it may be
    /// what broke it, and counts as failed.
    pub(super) fn leave_durable(&mut self, now: Time, key: DurableKey, sub: SubKey, broke: bool) {
        let Some(durable) = self.durables.get_mut(key) else { return };
        durable.members.retain(|member| *member != sub);
        if durable.members.is_empty() {
            self.history.readers -= 1;
        }
        self.take_back(now, key, sub, broke);
        self.hand_out(now, key);
        let durable = &mut self.durables[key];
        if durable.members.is_empty() {
            durable.rewind();
        }
    }

    /// Messages at hand that no client has.
    pub(super) fn backlog(&self, key: DurableKey) -> u64 {
        let durable = &self.durables[key];
        (durable.ready.len() + durable.retry.len() + durable.held.len()) as u64
    }

    fn remove_out(&mut self, key: DurableKey, position: u64) -> Option<Arc<Published>> {
        let out = self.durables[key].out.remove(&position)?;
        let sub = self.subscriptions.get_mut(out.member);
        if let Some(member) = sub.and_then(|sub| sub.member.as_mut()) {
            member.has -= 1;
        }
        Some(out.published)
    }

    /// Hands out what is at hand to clients with room, and reads on.
    pub(super) fn hand_out(&mut self, now: Time, key: DurableKey) {
        self.hand_out_held(now, key);
        while let Some(sub) = self.free_member(key, None) {
            let room = self.memory() <= self.config.limits.server_bytes;
            let fresh =
                self.durables[key].may_begin(room) && self.durables[key].held.len() < MAX_HELD;
            match self.durables[key].next(now, fresh) {
                Some(published) => self.hand_to_one(now, key, sub, published),
                None if fresh && self.refill(key) => {}
                None => break,
            }
        }
        if let Some(((due, _), _)) = self.durables[key].retry.first_key_value()
            && *due > now
        {
            self.timers.insert((*due, Timer::Retry(key)));
        }
    }

    /// Hands the message to `free`, or if that one may not have it, to who may. It is passed over if
    /// nobody may, and if history does not give it to anybody any more.
    fn hand_to_one(&mut self, now: Time, key: DurableKey, free: SubKey, published: Arc<Published>) {
        let durable = &self.durables[key];
        let (space, position) = (durable.space, published.position());
        let is_new = !durable.tries.contains_key(&position);
        let missed = is_new && position <= durable.joined;
        let to = match self.may_have(free, &published) {
            true => Some(free),
            false => self.free_member(key, Some(&published)),
        };
        // A time to live that is over is noticed when it is sent.
        let reason = self.reason_to_miss(now, space, &published, missed);
        let reason = reason.filter(|reason| *reason != GapReason::Expired);
        match (to, reason) {
            (Some(to), None) => self.hand_to(now, key, to, published),
            (Some(to), Some(reason)) => {
                let sub = &mut self.subscriptions[to];
                sub.count.miss(reason);
                sub.queue.leave_out(&published, reason);
                self.observe_drop(now, to, 1, reason);
                self.finish(key, position);
                self.schedule(to);
            }
            (None, _) => {
                let mut members = self.durables[key].members.iter();
                if members.any(|member| self.may_have(*member, &published)) {
                    self.durables[key].held.push_back(published);
                } else {
                    self.finish(key, position);
                }
            }
        }
    }

    /// What waits for room of clients that are to have it.
    fn hand_out_held(&mut self, now: Time, key: DurableKey) {
        for _ in 0..self.durables[key].held.len() {
            let Some(published) = self.durables[key].held.pop_front() else { return };
            if !self.durables[key].open.contains(&published.position()) {
                continue;
            }
            match self.free_member(key, Some(&published)) {
                Some(to) => self.hand_to_one(now, key, to, published),
                None => {
                    let mut members = self.durables[key].members.iter();
                    let is_empty = self.durables[key].members.is_empty();
                    if is_empty || members.any(|member| self.may_have(*member, &published)) {
                        self.durables[key].held.push_back(published);
                    } else {
                        self.finish(key, published.position());
                    }
                }
            }
        }
    }

    /// Whether the subscription's client may have the message.
    pub(super) fn may_have(&self, sub: SubKey, published: &Published) -> bool {
        self.sessions[self.subscriptions[sub].session].may_have(published)
    }

    fn hand_to(&mut self, now: Time, key: DurableKey, to: SubKey, published: Arc<Published>) {
        let durable = &mut self.durables[key];
        let position = published.position();
        let tries = durable.tries.entry(position).or_default();
        tries.handed_out += 1;
        let attempt = tries.handed_out;
        let due = now + durable.redelivery.ack_wait;
        let doubtful = position <= durable.doubtful;
        let published = match attempt {
            1 if !doubtful => published,
            _ => {
                let mut place = published.place.clone();
                if let Some(place) = &mut place {
                    place.attempt = attempt;
                }
                self.again(&published, place, doubtful)
            }
        };
        let sub = &mut self.subscriptions[to];
        let session = &mut self.sessions[sub.session];
        let delivery = session.next_delivery;
        session.next_delivery += 1;
        session.deliveries.insert(delivery, Awaited::Progress { durable: key, position, sub: to });
        let member = sub.member.as_mut().expect("only members are handed messages");
        if member.has == 0 {
            member.moved = now;
        }
        member.has += 1;
        if !std::mem::replace(&mut member.armed, true) {
            self.timers.insert((due, Timer::AckWait(to)));
        }
        self.durables[key].out.insert(position, Out { member: to, published: published.clone() });
        self.progressed(key);
        self.enqueue(now, to, published, Some(delivery), true);
    }

    /// The next client in turn that is connected and has room; with `published`, and may have that.
    fn free_member(
        &mut self,
        key: DurableKey,
        published: Option<&Arc<Published>>,
    ) -> Option<SubKey> {
        let durable = &mut self.durables[key];
        let count = durable.members.len();
        for step in 1..=count {
            let place = (durable.turn + step) % count;
            let sub = &self.subscriptions[durable.members[place]];
            let free = sub.member.as_ref().is_some_and(|member| {
                !member.stalled && member.has < sub.queue.capacity().min(IN_FLIGHT)
            });
            let connected = self.sessions[sub.session].port.is_some();
            let (messages, bytes) = sub.queue.free();
            let admitted =
                published.is_none_or(|published| self.sessions[sub.session].may_have(published));
            let has_room = messages.min(bytes) > 0 && !sub.queue.is_crowded();
            if free && connected && !sub.closing && has_room && admitted {
                durable.turn = place;
                return Some(durable.members[place]);
            }
        }
        None
    }

    /// Takes more messages from memory, or asks for a page. True if it may have some now.
    fn refill(&mut self, key: DurableKey) -> bool {
        let durable = &mut self.durables[key];
        if durable.reading {
            return false;
        }
        let committed = self.history.committed();
        if let ReadFrom::After(from) = durable.from {
            if from >= committed {
                return false;
            }
            if let Some(behind) = self.history.behind(from) {
                let count = usize::try_from(committed - from).unwrap_or(usize::MAX).min(PAGE);
                for kept in behind.take(count) {
                    let position = kept.published.position();
                    let matches = kept.space == durable.space
                        && durable.pattern.matches(&kept.published.topic);
                    if matches && durable.is_wanted(position) {
                        durable.take(position, kept.published.clone());
                    }
                    durable.from = ReadFrom::After(position);
                }
                durable.forget_acked();
                return true;
            }
        }
        durable.reading = true;
        self.ask_for_page(ReaderKey::Durable(key));
        false
    }

    /// What a durable that is reading wants next.
    pub(super) fn durable_query(&self, key: DurableKey) -> Option<Query> {
        let durable = self.durables.get(key)?;
        Some(Query {
            namespace: self.spaces[durable.space].name.to_string(),
            pattern: durable.pattern.clone(),
            from: durable.from,
            max_count: PAGE,
            max_bytes: PAGE_BYTES,
        })
    }

    pub(super) fn take_durable_page(&mut self, now: Time, key: DurableKey, page: Result<Page>) {
        let Some(durable) = self.durables.get_mut(key) else { return };
        durable.reading = false;
        let space = durable.space;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                for sub in durable.members.clone() {
                    let reason = GapReason::HistoryExpired;
                    self.close_subscription(now, sub, error.clone(), reason);
                }
                return;
            }
        };
        if page.removed
            && durable.from != ReadFrom::After(0)
            && let Some(first) = durable.members.first()
        {
            let gap = unknown_gap(durable.pattern.text().clone(), GapReason::HistoryExpired);
            let first = *first;
            self.subscriptions[first].queue.note_gap(gap);
            self.schedule(first);
        }
        for record in page.records {
            let position = record.position;
            if self.durables[key].is_wanted(position) {
                let superseded = page.superseded.binary_search(&position).is_ok();
                let published = self.revive(space, record, superseded);
                self.durables[key].take(position, published);
            }
        }
        self.progressed(key);
        let durable = &mut self.durables[key];
        durable.from = ReadFrom::After(page.through);
        durable.forget_acked();
        if durable.members.is_empty() {
            return durable.rewind();
        }
        self.hand_out(now, key);
    }

    pub(super) fn retry_due(&mut self, now: Time, key: DurableKey) {
        if self.durables.contains_key(key) {
            self.hand_out(now, key);
        }
    }

    /// Something was committed.
    pub(super) fn feed_durables(&mut self, now: Time) {
        let keys = self.durables.iter().filter(|(_, durable)| !durable.members.is_empty());
        let keys: Vec<DurableKey> = keys.map(|(key, _)| key).collect();
        for key in keys {
            self.hand_out(now, key);
        }
    }

    /// Appends the progress that changed.
    pub(super) fn take_progress(&mut self, out: &mut Vec<Write>) {
        for key in self.history.progressed.drain(..) {
            // It may have been removed meanwhile.
            let Some(durable) = self.durables.get_mut(key) else { continue };
            durable.dirty = false;
            // Where it begins is not known before it has read.
            let ReadFrom::After(_) = durable.from else { continue };
            let namespace = &self.spaces[durable.space].name;
            out.push(Write::Progress(durable.progress(namespace)));
        }
    }

    /// Forgets a durable subscription and its progress; its clients' streams end.
    pub fn remove_durable(&mut self, now: Time, namespace: &str, name: &str) -> Result<()> {
        let space = self.space_of(namespace);
        let Some(key) = self.durable_names.remove(&(space, Arc::from(name))) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no durable subscription called {name:?}"),
            ));
        };
        for sub in self.durables[key].members.clone() {
            let sentence = format!("the durable subscription {name:?} was removed");
            let error = Error::new(ErrorKind::NotFound, sentence);
            self.close_subscription(now, sub, error, GapReason::HistoryExpired);
        }
        self.durables.remove(key);
        self.history.note(Write::DurableEnded(namespace.to_owned(), name.to_owned()));
        Ok(())
    }

    /// The message once more, with what is to be said of this time.
    pub(super) fn again(
        &mut self,
        published: &Arc<Published>,
        place: Option<Box<Place>>,
        maybe_duplicate: bool,
    ) -> Arc<Published> {
        self.charged += published.cost() as u64;
        Arc::new(Published {
            route: published.route.clone(),
            payload: published.payload.clone(),
            number: published.number,
            seq: published.seq,
            time: published.time,
            request: published.request,
            maybe_duplicate: published.maybe_duplicate || maybe_duplicate,
            extras: published.extras.clone(),
            expires: published.expires,
            place,
            queues: 1,
        })
    }
}
