//! The last value of a topic, kept for those who come later: retained messages.
//!
//! A subscription that begins with [`Start::Last`](crate::wire::frame::Start::Last) walks over those of
//! its topics as far as it has room. Of what is retained meanwhile it gets nothing, for that comes
//! live; and if something comes live on a topic that it has not walked past, the retained message goes
//! ahead.

use std::{collections::HashMap, sync::Arc};

use super::{
    Bus, Published,
    output::Place,
    publish::{Draft, To},
    state::{SessionKey, SubKey},
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    history::{HistoryRule, Write},
    topic::Pattern,
    wire::frame::Earlier,
};

/// The retained messages of a namespace.
#[derive(Debug, Default)]
pub(super) struct Retained {
    /// A topic stays in its slot while it has a message; free ones are used again.
    slots: Vec<Option<Entry>>,
    free: Vec<usize>,
    by_topic: HashMap<Arc<str>, usize>,
    bytes: usize,
    /// Counts what was ever retained.
    stamp: u64,
}

#[derive(Debug)]
struct Entry {
    published: Arc<Published>,
    /// The topic has history as well.
    has_history: bool,
    stamp: u64,
}

/// How far a subscription has come among the retained messages.
#[derive(Debug)]
pub(super) struct Walk {
    /// History has said first what it has.
    is_ready: bool,
    next: usize,
    /// What was retained later came live.
    until: u64,
    /// Slots whose topics have had their turn: history gave the newest message, or a live one came.
    done: Slots,
    /// Of topics with history: only what history does not reach.
    through: u64,
    /// Topics with history go on by a cursor.
    without_history: bool,
}

impl Walk {
    /// Whether it may go on; meanwhile nothing is read from history.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }
}

impl Retained {
    pub(super) fn has(&self, topic: &str) -> bool {
        self.by_topic.contains_key(topic)
    }

    fn find(&self, topic: &str) -> Option<(usize, &Entry)> {
        let slot = *self.by_topic.get(topic)?;
        Some((slot, self.slots[slot].as_ref()?))
    }

    fn insert(&mut self, published: Arc<Published>, has_history: bool) {
        self.stamp += 1;
        self.bytes += cost(&published);
        let topic = published.topic.clone();
        let entry = Some(Entry { published, has_history, stamp: self.stamp });
        if let Some(slot) = self.by_topic.get(&topic) {
            let old = std::mem::replace(&mut self.slots[*slot], entry);
            self.bytes -= old.map_or(0, |old| cost(&old.published));
            return;
        }
        let slot = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(free) => *free = entry,
            None => self.slots.push(entry),
        }
        self.by_topic.insert(topic, slot);
    }

    fn remove(&mut self, topic: &str) -> bool {
        let Some(slot) = self.by_topic.remove(topic) else { return false };
        if let Some(entry) = self.slots[slot].take() {
            self.bytes -= cost(&entry.published);
        }
        self.free.push(slot);
        true
    }

    /// The next message for who walks there, with its slot.
    fn next(&self, walk: &Walk, pattern: &Pattern) -> Option<(usize, &Arc<Published>)> {
        let wanted = |slot: usize| {
            let entry = self.slots[slot].as_ref()?;
            let given_by_history = entry.has_history
                && (walk.without_history || entry.published.position() > walk.through);
            let is_wanted = entry.stamp <= walk.until && !walk.done.has(slot) && !given_by_history;
            is_wanted.then_some((slot, &entry.published))
        };
        if pattern.is_name() {
            let slot = *self.by_topic.get(pattern.as_str())?;
            return if slot < walk.next { None } else { wanted(slot) };
        }
        let matches = |found: &(usize, &Arc<Published>)| pattern.matches(&found.1.topic);
        (walk.next..self.slots.len()).filter_map(wanted).find(matches)
    }
}

impl Bus {
    /// Retained messages of all namespaces whose time to live is not over.
    pub fn retained(&mut self, now: Time) -> usize {
        self.forget_expired(now);
        self.spaces.iter().map(|space| space.retained.by_topic.len()).sum()
    }

    /// Whether the message may be its topic's retained one.
    pub(super) fn check_retained(
        &mut self,
        now: Time,
        key: SessionKey,
        draft: &Draft,
    ) -> Result<()> {
        let To::Topic(_, route) = &draft.to else { return Ok(()) };
        let (space, topic) = (self.sessions[key].space, &*route.topic);
        if draft.is_empty() || self.has_room_for_retained(space, topic, draft) {
            return Ok(());
        }
        self.forget_expired(now);
        if self.has_room_for_retained(space, topic, draft) {
            return Ok(());
        }
        let limits = &self.config.limits;
        Err(Error::new(
            ErrorKind::LimitExceeded,
            format!(
                "the server retains no more than {} messages and {} bytes; remove some by publishing an \
                 empty payload with retain, give them a time to live, or keep history instead",
                limits.retained, limits.retained_bytes
            ),
        ))
    }

    fn has_room_for_retained(&self, space: usize, topic: &str, draft: &Draft) -> bool {
        let old = self.spaces[space].retained.find(topic);
        let old = old.map(|(_, entry)| cost(&entry.published));
        let (mut count, mut bytes) = (1, draft.cost() + topic.len());
        for space in &self.spaces {
            count += space.retained.by_topic.len();
            bytes += space.retained.bytes;
        }
        count - usize::from(old.is_some()) <= self.config.limits.retained
            && bytes - old.unwrap_or(0) <= self.config.limits.retained_bytes
    }

    /// The message was accepted: it is its topic's retained one from now on, or ends it if it is empty.
    pub(super) fn retain(&mut self, now: Time, space: usize, published: &Arc<Published>) {
        if published.payload.bytes.is_empty() {
            return self.forget_retained(space, &published.topic);
        }
        let has_history = published.place.is_some();
        let space_record = &mut self.spaces[space];
        space_record.retained.insert(published.clone(), has_history);
        space_record.mark_retained(&published.topic, true);
        if self.config.history.on_disk {
            let record = self.record(now, space, published);
            self.history.note_retained(Write::Retained(Box::new(record)), published.cost());
        }
    }

    fn forget_retained(&mut self, space: usize, topic: &Arc<str>) {
        let record = &mut self.spaces[space];
        if !record.retained.remove(topic) {
            return;
        }
        record.mark_retained(topic, false);
        if self.config.history.on_disk {
            let write = Write::RetainedEnded(record.name.clone(), topic.clone());
            self.history.note_retained(write, 0);
        }
    }

    fn forget_expired(&mut self, now: Time) {
        for space in 0..self.spaces.len() {
            let entries = self.spaces[space].retained.slots.iter().flatten();
            let expired = entries.filter(|entry| entry.published.is_expired(now));
            let topics: Vec<_> = expired.map(|entry| entry.published.topic.clone()).collect();
            topics.iter().for_each(|topic| self.forget_retained(space, topic));
        }
    }

    /// Takes over what the store knew.
    pub(super) fn recover_retained(&mut self) {
        let rules = self.config.history.rules.clone();
        let has_history = |topic: &str, position: u64| {
            position > 0 && rules.iter().any(|rule: &HistoryRule| rule.pattern.matches(topic))
        };
        for record in std::mem::take(&mut self.config.history.recovered.retained) {
            let space = self.space_of(&record.namespace);
            let has_history = has_history(&record.topic, record.position);
            let earlier = Earlier { epoch: record.epoch, time_ms: record.time_ms };
            let place = Place::new(record.epoch, record.position, Some(earlier));
            let published = self.recovered(record.topic.clone(), record, place);
            let topic = published.topic.clone();
            let is_expired = published.is_expired(Time::ZERO);
            self.spaces[space].retained.insert(published, has_history);
            if is_expired {
                self.forget_retained(space, &topic);
            }
        }
    }

    /// A subscription begins with the last values of its topics; history, if that is read as well, has
    /// the first word. `without_history`: topics with history go on by a cursor.
    pub(super) fn start_walk(&mut self, key: SubKey, after_history: bool, without_history: bool) {
        let sub = &mut self.subscriptions[key];
        let retained = &self.spaces[self.sessions[sub.session].space].retained;
        if retained.by_topic.is_empty() {
            return;
        }
        sub.walk = Some(Box::new(Walk {
            is_ready: !after_history,
            next: 0,
            until: retained.stamp,
            done: Slots::default(),
            through: u64::MAX,
            without_history,
        }));
        self.walking += 1;
    }

    pub(super) fn end_walk(&mut self, key: SubKey) {
        if self.subscriptions.get_mut(key).and_then(|sub| sub.walk.take()).is_some() {
            self.walking -= 1;
        }
    }

    /// History has given the newest message of each of its topics up to this position.
    pub(super) fn ready_walk(&mut self, key: SubKey, through: u64) {
        if let Some(walk) = &mut self.subscriptions[key].walk {
            walk.is_ready = true;
            walk.through = through;
        }
    }

    /// Queues retained messages as far as there is room. True if that was the last.
    pub(super) fn walk(&mut self, now: Time, key: SubKey) -> bool {
        loop {
            let Some(sub) = self.subscriptions.get(key) else { return false };
            let Some(walk) = sub.walk.as_ref().filter(|walk| walk.is_ready) else { return false };
            if sub.closing || !sub.queue.has_little() {
                return false;
            }
            let space = self.sessions[sub.session].space;
            let Some((slot, found)) = self.spaces[space].retained.next(walk, &sub.pattern) else {
                self.end_walk(key);
                return true;
            };
            let found = found.clone();
            let room = self.memory() + found.cost() <= self.config.limits.server_bytes;
            if sub.queue.messages() > 0 && !(room && sub.queue.has_room(found.cost())) {
                return false;
            }
            if let Some(walk) = &mut self.subscriptions[key].walk {
                walk.next = slot + 1;
            }
            if found.is_expired(now) {
                self.forget_retained(space, &found.topic);
                continue;
            }
            let copy = self.retained_copy(&found, None);
            self.enqueue(now, key, copy, None, true);
        }
    }

    /// A message comes live on a topic with a retained one: whoever still waits for that gets it first.
    #[cold]
    pub(super) fn hasten_retained(
        &mut self,
        now: Time,
        space: usize,
        topic: &str,
        targets: &[SubKey],
        room: bool,
    ) {
        for key in targets {
            let Some((slot, entry)) = self.spaces[space].retained.find(topic) else { return };
            let sub = &mut self.subscriptions[*key];
            let Some(walk) = &mut sub.walk else { continue };
            let had_its_turn = slot < walk.next || walk.done.has(slot);
            if had_its_turn || entry.stamp > walk.until || walk.without_history && entry.has_history
            {
                continue;
            }
            walk.done.insert(slot);
            let published = entry.published.clone();
            // The message itself will close it.
            if published.is_expired(now) || sub.queue.closes(room, published.cost()) {
                continue;
            }
            let copy = self.retained_copy(&published, None);
            self.enqueue(now, *key, copy, None, room);
        }
    }

    /// History's newest message of a topic, or the retained one in its place if it is no older.
    pub(super) fn or_retained(
        &mut self,
        now: Time,
        key: SubKey,
        space: usize,
        newest: Arc<Published>,
    ) -> Arc<Published> {
        let Some(walk) = &self.subscriptions[key].walk else { return newest };
        let Some((_, entry)) = self.spaces[space].retained.find(&newest.topic) else {
            return newest;
        };
        let retained = entry.published.clone();
        let age = |published: &Published| (published.epoch(self.config.epoch), published.seq);
        if entry.stamp > walk.until || retained.is_expired(now) || age(&retained) < age(&newest) {
            return newest;
        }
        self.retained_copy(&retained, newest.place.as_deref())
    }

    /// The topic of this message has had its turn.
    pub(super) fn pass_retained(&mut self, key: SubKey, space: usize, topic: &str) {
        if let Some(walk) = &mut self.subscriptions[key].walk
            && let Some((slot, _)) = self.spaces[space].retained.find(topic)
        {
            walk.done.insert(slot);
        }
    }

    /// What a subscription gets of a retained message; in `place` of one in history.
    fn retained_copy(
        &mut self,
        published: &Arc<Published>,
        place: Option<&Place>,
    ) -> Arc<Published> {
        let earlier = published.place.as_ref().and_then(|place| place.earlier);
        let place = Place::of_retained(place, earlier);
        self.again(published, Some(Box::new(place)), published.maybe_duplicate)
    }
}

/// What a retained message is charged against the bound of all.
fn cost(published: &Published) -> usize {
    published.cost() + published.topic.len()
}

/// A set of slots: one bit each.
#[derive(Debug, Default)]
struct Slots(Vec<u64>);

impl Slots {
    fn has(&self, slot: usize) -> bool {
        self.0.get(slot / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    fn insert(&mut self, slot: usize) {
        if self.0.len() <= slot / 64 {
            self.0.resize(slot / 64 + 1, 0);
        }
        self.0[slot / 64] |= 1 << (slot % 64);
    }
}
