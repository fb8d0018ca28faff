//! One subscription's queue: what its client has not consumed yet, under an overflow policy.
//!
//! Two halves: `sent` waits for credit (and is sent again after a resume), `waiting` waits for
//! room in the window. Everything is O(1) per message, also while it drops.

use std::{collections::HashMap, collections::VecDeque, sync::Arc};

use super::{
    Published,
    replay::{PAGE, PAGE_BYTES},
};
use crate::{
    error::Error,
    message::{Gap, GapReason, Offline},
    options::Overflow,
};

/// What one queued message is charged beside its payload: its own record and the queue's entry.
pub(super) const OVERHEAD: usize = 128;

/// What it costs in each further queue: an entry, and as much again while the queue grows.
pub(super) const ENTRY: usize = 64;

/// Fewer entries than this are not worth an effort to save their room.
const WORTH_IT: usize = 256;

/// One frame of a subscription's stream.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Message { published: Arc<Published>, delivery: Option<u64> },
    Gap(Box<Gap>),
    Close(Box<Error>),
}

impl Entry {
    fn cost(&self) -> usize {
        match self {
            Entry::Message { published, .. } => published.cost(),
            Entry::Gap(_) | Entry::Close(_) => 0,
        }
    }

    fn is_message(&self) -> bool {
        matches!(self, Entry::Message { .. })
    }
}

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) overflow: Overflow,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) window: usize,
    pub(super) window_bytes: usize,
}

/// What became of a message offered to a queue.
#[derive(Debug)]
pub(super) enum Pushed {
    /// It waits.
    Queued,
    /// It waits; an older one was dropped for it, whose delivery number this is.
    Replaced(Option<u64>, GapReason),
    /// It was dropped.
    Dropped(GapReason),
    /// The policy closes the subscription.
    Overflowed,
    /// It stays in history, from this position on.
    Spilled(u64),
}

#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    pattern: Arc<str>,
    sent: VecDeque<Entry>,
    /// `None` stood for a message that made way for a newer one of its topic; never at an end.
    waiting: VecDeque<Option<Entry>>,
    holes: usize,
    /// Drops before the first waiting entry.
    front_gap: Option<Box<Gap>>,
    /// What offline policies need; `None` while no message has one.
    away: Option<Box<Away>>,
    /// Under `latest`: topic → place in `waiting`, counted from `popped`.
    places: HashMap<Arc<str>, u64>,
    popped: u64,
    consumed: u64,
    messages: usize,
    bytes: usize,
    sent_bytes: usize,
}

/// What a queue remembers of messages with an offline policy.
#[derive(Debug, Default)]
struct Away {
    /// What was not to wait for the client, told before the first waiting entry.
    gap: Option<Box<Gap>>,
    /// The newest waiting message of each topic with the policy `latest`.
    places: HashMap<Arc<str>, Newest>,
}

#[derive(Clone, Copy, Debug)]
struct Newest {
    /// Its place in `waiting`, counted from `popped`.
    place: u64,
    /// Others of its topic may wait behind it: nothing newer may take its place.
    followed: bool,
}

impl Queue {
    pub(super) fn new(bounds: Bounds, pattern: Arc<str>) -> Queue {
        Queue {
            bounds,
            pattern,
            sent: VecDeque::new(),
            waiting: VecDeque::new(),
            holes: 0,
            front_gap: None,
            away: None,
            places: HashMap::default(),
            popped: 0,
            consumed: 0,
            messages: 0,
            bytes: 0,
            sent_bytes: 0,
        }
    }

    pub(super) fn set_overflow(&mut self, overflow: Overflow) {
        self.bounds.overflow = overflow;
    }

    /// Messages held, sent ones included.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Whether a message of this cost fits. An empty queue takes any one message.
    pub(super) fn has_room(&self, cost: usize) -> bool {
        self.messages == 0
            || (self.messages < self.bounds.messages && self.bytes + cost <= self.bounds.bytes)
    }

    /// Messages it may hold.
    pub(super) fn capacity(&self) -> usize {
        self.bounds.messages
    }

    /// Room for so many messages, and bytes of payload.
    pub(super) fn free(&self) -> (usize, usize) {
        (
            self.bounds.messages.saturating_sub(self.messages),
            self.bounds.bytes.saturating_sub(self.bytes),
        )
    }

    /// Whether there is room for a good part of a page of history, and little waits.
    pub(super) fn wants_page(&self) -> bool {
        let (count, bytes) = self.free();
        let enough = (self.bounds.messages / 2).min(PAGE / 4);
        self.has_little() && count >= enough.max(1) && bytes > 0
    }

    /// Whether little waits: more may be added of what can as well be added later.
    pub(super) fn has_little(&self) -> bool {
        !self.is_crowded() && self.bytes < 2 * PAGE_BYTES
    }

    /// Whether a message of this cost would close the subscription.
    pub(super) fn closes(&self, room: bool, cost: usize) -> bool {
        self.bounds.overflow == Overflow::Disconnect && !(room && self.has_room(cost))
    }

    /// Whether so many frames wait, be they gaps, that no more of the past should come.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.len() - self.holes >= PAGE
    }

    /// Whether publishers of a message of this cost must wait. `room` is false when the whole server
    /// is at its cap.
    pub(super) fn blocks(&self, room: bool, cost: usize) -> bool {
        self.bounds.overflow == Overflow::Block
            && self.messages > 0
            && !(room && self.has_room(cost))
    }

    /// Whether [`Queue::take`] would yield something. A gap waits for the window like a message:
    /// while the client takes nothing, its drops merge into one.
    pub(super) fn can_send(&self) -> bool {
        match self.waiting.front() {
            Some(Some(Entry::Close(_))) => true,
            None if self.front_gap.is_none() && self.away_gap().is_none() => false,
            _ => self.sent.len() < self.bounds.window && self.sent_bytes < self.bounds.window_bytes,
        }
    }

    fn away_gap(&self) -> Option<&Gap> {
        self.away.as_ref()?.gap.as_deref()
    }

    /// Offers a message with an offline policy. `is_away`: the client has no connection.
    pub(super) fn push_with(
        &mut self,
        offline: Offline,
        is_away: bool,
        published: Arc<Published>,
        delivery: Option<u64>,
        room: bool,
    ) -> Pushed {
        match offline {
            Offline::Drop if is_away => {
                self.note_away(&published);
                return Pushed::Dropped(GapReason::Offline);
            }
            // A queue with this policy replaces whatever comes.
            Offline::Latest if self.bounds.overflow != Overflow::Latest => {}
            _ => return self.push(published, delivery, room),
        }
        let topic = published.topic.clone();
        let newest = self.away.as_ref().and_then(|away| away.places.get(&topic)).copied();
        if is_away && let Some(newest) = newest.filter(|newest| !newest.followed) {
            let old = self.make_way(newest.place);
            let place = self.push_back(Entry::Message { published, delivery });
            self.away
                .get_or_insert_default()
                .places
                .insert(topic, Newest { place, followed: false });
            return match old {
                Some((old, delivery)) => {
                    self.note_away(&old);
                    Pushed::Replaced(delivery, GapReason::Offline)
                }
                None => Pushed::Queued,
            };
        }
        let held = self.messages;
        let pushed = self.push(published, delivery, room);
        if self.messages > held || matches!(pushed, Pushed::Replaced(..)) {
            let place = self.popped.wrapping_add(self.waiting.len() as u64 - 1);
            let away = self.away.get_or_insert_default();
            away.places.insert(topic, Newest { place, followed: false });
        }
        pushed
    }

    /// Whether a message with this offline policy takes no room while the client is away.
    pub(super) fn needs_no_room(&self, offline: Offline, topic: &str) -> bool {
        match offline {
            Offline::Keep => false,
            Offline::Drop => true,
            Offline::Latest => {
                self.away.as_ref().is_some_and(|away| away.places.contains_key(topic))
            }
        }
    }

    /// A newer message of `topic` is about to come for a client that is away: the one that waits, and
    /// whose place it cannot take because others of the topic wait behind it, becomes a gap. Returns
    /// its delivery number, if there is such a message.
    pub(super) fn displace(&mut self, topic: &str) -> Option<Option<u64>> {
        let newest = *self.away.as_ref()?.places.get(topic)?;
        if !newest.followed {
            return None;
        }
        let at = self.index(newest.place);
        let Some(Entry::Message { published, delivery }) = &self.waiting[at] else { return None };
        let (cost, delivery) = (published.cost(), *delivery);
        let gap = Entry::Gap(Box::new(published.as_gap(GapReason::Offline)));
        self.waiting[at] = Some(gap);
        self.forget(cost);
        if let Some(away) = &mut self.away {
            away.places.remove(topic);
        }
        Some(delivery)
    }

    fn index(&self, place: u64) -> usize {
        usize::try_from(place.wrapping_sub(self.popped)).expect("within the deque")
    }

    /// Takes a waiting message away: a newer one of its topic comes. That one goes to the end, because who
    /// has it goes on behind it after a lost session, and must have had what was published before.
    fn make_way(&mut self, place: u64) -> Option<(Arc<Published>, Option<u64>)> {
        let at = self.index(place);
        let old = self.waiting[at].take();
        self.holes += 1;
        while let Some(None) = self.waiting.back() {
            self.waiting.pop_back();
            self.holes -= 1;
        }
        self.trim_front();
        if self.holes > WORTH_IT && self.holes > self.waiting.len() / 2 {
            self.close_up();
        }
        match old {
            Some(Entry::Message { published, delivery }) => {
                self.forget(published.cost());
                Some((published, delivery))
            }
            _ => None,
        }
    }

    fn trim_front(&mut self) {
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.popped = self.popped.wrapping_add(1);
            self.holes -= 1;
        }
    }

    /// Moves what waits together.
    fn close_up(&mut self) {
        let old = std::mem::take(&mut self.waiting);
        self.holes = 0;
        for (at, entry) in old.into_iter().enumerate() {
            let Some(entry) = entry else { continue };
            let before = self.popped.wrapping_add(at as u64);
            let now = self.popped.wrapping_add(self.waiting.len() as u64);
            if let Entry::Message { published, .. } = &entry {
                let away =
                    self.away.as_mut().and_then(|away| away.places.get_mut(&published.topic));
                let places =
                    [self.places.get_mut(&published.topic), away.map(|newest| &mut newest.place)];
                for place in places.into_iter().flatten().filter(|place| **place == before) {
                    *place = now;
                }
            }
            self.waiting.push_back(Some(entry));
        }
    }

    /// Returns its place.
    fn push_back(&mut self, message: Entry) -> u64 {
        self.messages += 1;
        self.bytes += message.cost();
        self.waiting.push_back(Some(message));
        self.popped.wrapping_add(self.waiting.len() as u64 - 1)
    }

    fn note_away(&mut self, published: &Published) {
        let gap = published.as_gap(GapReason::Offline);
        merge(&mut self.away.get_or_insert_default().gap, gap, &self.pattern);
    }

    /// Offers a message. `room` is false when the whole server is at its cap.
    #[inline]
    pub(super) fn push(
        &mut self,
        published: Arc<Published>,
        delivery: Option<u64>,
        room: bool,
    ) -> Pushed {
        // Only `latest` notes places.
        if let Some(place) = self.places.get(&published.topic).copied() {
            let topic = published.topic.clone();
            let old = self.make_way(place);
            let place = self.push_back(Entry::Message { published, delivery });
            self.places.insert(topic, place);
            return match old {
                Some((old, delivery)) => {
                    self.note_front(&old, GapReason::Overflow);
                    Pushed::Replaced(delivery, GapReason::Overflow)
                }
                None => Pushed::Queued,
            };
        }
        let mut pushed = Pushed::Queued;
        if !(room && self.has_room(published.cost())) {
            match self.bounds.overflow {
                // The publisher is paused before it comes to this; the only way here is a message
                // that was in flight when the server reached its cap.
                Overflow::Block => {}
                Overflow::Disconnect => return Pushed::Overflowed,
                Overflow::Spill => return Pushed::Spilled(published.position()),
                Overflow::DropNewest => {
                    self.leave_out(&published, GapReason::Overflow);
                    return Pushed::Dropped(GapReason::Overflow);
                }
                Overflow::DropOldest | Overflow::Latest => match self.drop_oldest() {
                    Some(delivery) => pushed = Pushed::Replaced(delivery, GapReason::Overflow),
                    None => {
                        self.leave_out(&published, GapReason::Overflow);
                        return Pushed::Dropped(GapReason::Overflow);
                    }
                },
            }
        }
        if self.bounds.overflow == Overflow::Latest {
            let place = self.popped.wrapping_add(self.waiting.len() as u64);
            self.places.insert(published.topic.clone(), place);
        }
        if let Some(away) = &mut self.away
            && let Some(newest) = away.places.get_mut(&published.topic)
        {
            newest.followed = true;
        }
        self.push_back(Entry::Message { published, delivery });
        pushed
    }

    /// Drops the oldest waiting message; `None` if no message waits.
    fn drop_oldest(&mut self) -> Option<Option<u64>> {
        loop {
            match self.pop_waiting()? {
                Entry::Message { published, delivery } => {
                    self.forget(published.cost());
                    self.note_front(&published, GapReason::Overflow);
                    return Some(delivery);
                }
                Entry::Gap(gap) => merge(&mut self.front_gap, *gap, &self.pattern),
                close @ Entry::Close(_) => {
                    self.waiting.push_front(Some(close));
                    return None;
                }
            }
        }
    }

    /// Puts a gap in the place of a message that would be the newest.
    pub(super) fn leave_out(&mut self, published: &Published, reason: GapReason) {
        let gap = published.as_gap(reason);
        match self.waiting.back_mut() {
            Some(Some(Entry::Gap(last))) if last.reason == gap.reason => {
                extend(last, gap, &self.pattern);
            }
            None if self.front_gap.as_ref().is_some_and(|front| front.reason == gap.reason) => {
                merge(&mut self.front_gap, gap, &self.pattern);
            }
            _ => self.waiting.push_back(Some(Entry::Gap(Box::new(gap)))),
        }
    }

    fn note_front(&mut self, published: &Published, reason: GapReason) {
        merge(&mut self.front_gap, published.as_gap(reason), &self.pattern);
    }

    fn pop_waiting(&mut self) -> Option<Entry> {
        let entry = self.waiting.pop_front()??;
        if let Entry::Message { published, .. } = &entry
            && self.places.get(&published.topic) == Some(&self.popped)
        {
            self.places.remove(&published.topic);
        }
        if self.away.is_some() {
            self.forget_newest(&entry);
        }
        self.popped = self.popped.wrapping_add(1);
        if self.holes > 0 {
            self.trim_front();
        }
        Some(entry)
    }

    /// The entry at `popped` is no longer among those that wait.
    #[cold]
    fn forget_newest(&mut self, entry: &Entry) {
        let (Some(away), Entry::Message { published, .. }) = (&mut self.away, entry) else {
            return;
        };
        if away.places.get(&published.topic).is_some_and(|newest| newest.place == self.popped) {
            away.places.remove(&published.topic);
        }
        if away.places.is_empty() && away.gap.is_none() {
            self.away = None;
        }
    }

    fn forget(&mut self, cost: usize) {
        self.messages -= 1;
        self.bytes -= cost;
    }

    /// The next frame to send, if the window has room. With `keep` it stays in `sent` until
    /// consumed, without it is consumed at once.
    pub(super) fn take(&mut self, keep: bool) -> Option<Entry> {
        if !self.can_send() {
            return None;
        }
        let entry = match self.front_gap.take().or_else(|| self.take_away_gap()) {
            Some(gap) => Entry::Gap(gap),
            None => self.pop_waiting()?,
        };
        self.settle(&entry, keep);
        Some(entry)
    }

    #[inline]
    fn take_away_gap(&mut self) -> Option<Box<Gap>> {
        self.away.as_mut()?.gap.take()
    }

    fn settle(&mut self, entry: &Entry, keep: bool) {
        if keep {
            self.sent_bytes += entry.cost();
            self.sent.push_back(entry.clone());
        } else {
            self.consumed += 1;
            if entry.is_message() {
                self.forget(entry.cost());
            }
        }
    }

    /// Drops a message that [`Queue::take`] just yielded, because its time to live is over.
    pub(super) fn expire(&mut self, published: &Published, keep: bool) {
        if keep {
            self.sent.pop_back();
            self.sent_bytes -= published.cost();
            self.forget(published.cost());
        } else {
            self.consumed -= 1;
        }
        self.note_front(published, GapReason::Expired);
    }

    /// The client has done with the first `consumed` frames of the stream. Returns the number of
    /// messages among the frames that this releases.
    pub(super) fn credit(&mut self, consumed: u64) -> u64 {
        let mut messages = 0;
        while self.consumed < consumed {
            let Some(entry) = self.sent.pop_front() else { break };
            self.consumed += 1;
            if entry.is_message() {
                messages += 1;
                self.sent_bytes -= entry.cost();
                self.forget(entry.cost());
            }
        }
        if self.messages == 0 {
            self.release_memory();
        }
        messages
    }

    /// The connection was resumed and `received` frames had arrived: what was sent beyond them
    /// waits again. Returns how many frames wait.
    pub(super) fn rewind(&mut self, received: u64) -> u64 {
        let arrived = usize::try_from(received.saturating_sub(self.consumed)).unwrap_or(usize::MAX);
        if let Some(gap) = self.take_away_gap() {
            self.push_front(Entry::Gap(gap));
        }
        if let Some(gap) = self.front_gap.take() {
            self.push_front(Entry::Gap(gap));
        }
        while self.sent.len() > arrived {
            let entry = self.sent.pop_back().expect("longer than what arrived");
            self.sent_bytes -= entry.cost();
            self.push_front(entry);
        }
        (self.waiting.len() - self.holes) as u64
    }

    fn push_front(&mut self, entry: Entry) {
        self.popped = self.popped.wrapping_sub(1);
        if let Entry::Message { published, .. } = &entry
            && self.bounds.overflow == Overflow::Latest
        {
            // Only the newest of a topic may be replaced by a newer one.
            self.places.entry(published.topic.clone()).or_insert(self.popped);
        } else if let Entry::Message { published, .. } = &entry
            && published.offline() == Offline::Latest
        {
            let newest = Newest { place: self.popped, followed: true };
            let away = self.away.get_or_insert_default();
            away.places.entry(published.topic.clone()).or_insert(newest);
        }
        self.waiting.push_front(Some(entry));
    }

    /// Ends the stream with `error`. Waiting messages are dropped; they become a gap with
    /// `reason`. Returns their number and calls `dropped` with each delivery number.
    pub(super) fn close(
        &mut self,
        error: Error,
        reason: GapReason,
        mut dropped: impl FnMut(u64),
    ) -> u64 {
        let mut count = 0;
        while let Some(entry) = self.pop_waiting() {
            match entry {
                Entry::Message { published, delivery } => {
                    count += 1;
                    self.forget(published.cost());
                    merge(&mut self.front_gap, published.as_gap(reason), &self.pattern);
                    delivery.into_iter().for_each(&mut dropped);
                }
                Entry::Gap(gap) => merge(&mut self.front_gap, *gap, &self.pattern),
                Entry::Close(_) => {}
            }
        }
        if let Some(gap) = self.take_away_gap() {
            merge(&mut self.front_gap, *gap, &self.pattern);
        }
        self.away = None;
        self.waiting.push_back(Some(Entry::Close(Box::new(error))));
        count
    }

    /// Puts a gap into the stream, behind what waits.
    pub(super) fn note_gap(&mut self, gap: Gap) {
        merge(&mut self.front_gap, gap, &self.pattern);
    }

    /// The delivery numbers of messages that were not sent yet.
    pub(super) fn waiting_deliveries(&self) -> impl Iterator<Item = u64> + '_ {
        self.waiting.iter().flatten().filter_map(|entry| match entry {
            Entry::Message { delivery, .. } => *delivery,
            Entry::Gap(_) | Entry::Close(_) => None,
        })
    }

    /// Whether nothing is left to send or to wait credit for.
    pub(super) fn is_finished(&self) -> bool {
        self.sent.is_empty()
            && self.waiting.is_empty()
            && self.front_gap.is_none()
            && self.away_gap().is_none()
    }

    fn release_memory(&mut self) {
        // A burst must not leave its capacity behind on an idle connection.
        if self.sent.capacity() > WORTH_IT && self.sent.is_empty() {
            self.sent = VecDeque::new();
        }
        if self.waiting.capacity() > WORTH_IT && self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }
}

fn merge(gap: &mut Option<Box<Gap>>, more: Gap, pattern: &Arc<str>) {
    match gap {
        Some(gap) => extend(gap, more, pattern),
        None => *gap = Some(Box::new(more)),
    }
}

/// Both gaps become one. `first` and `last` only compare within a topic.
fn extend(gap: &mut Gap, more: Gap, pattern: &Arc<str>) {
    gap.count = gap.count.zip(more.count).map(|(a, b)| a + b);
    if more.reason == GapReason::SlowConsumer {
        gap.reason = more.reason;
    }
    if gap.topic != more.topic {
        gap.topic = pattern.clone();
        gap.first = None;
        gap.last = None;
    } else {
        gap.first = gap.first.zip(more.first).map(|(a, b)| a.min(b));
        gap.last = gap.last.zip(more.last).map(|(a, b)| a.max(b));
    }
}
