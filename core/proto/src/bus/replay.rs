//! Subscriptions that begin in the past: they read history page by page, as far as there is room, and
//! go over to live messages without a hole or a repeat.
//!
//! Meanwhile they get what is published to topics without history at once; order is promised per
//! topic only.

use std::sync::Arc;

use super::{
    Bus, Notice, Output, Published,
    history::Kept,
    output::{Cursor, Reader, ReaderKey},
    state::SubKey,
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    history::{Page, Query, ReadFrom},
    message::{Gap, GapReason, Offline},
    options,
    wire::frame::Start,
};

/// A page: so many messages, and not many more bytes.
pub(super) const PAGE: usize = 1024;
pub(super) const PAGE_BYTES: usize = 1 << 20;

/// Pages on their way at a time, for all who read.
const MAX_READS: usize = 32;

/// How far a subscription has read.
#[derive(Debug)]
pub(super) struct Replay {
    from: ReadFrom,
    /// What was accepted up to here was accepted before there was this subscription.
    since: u64,
    /// It wants all there is: that there was more once is no loss.
    wants_all: bool,
    /// A page is on its way.
    reading: bool,
    /// It goes on where it was before its session was lost; messages replayed so far.
    resumed: bool,
    replayed: u64,
}

/// What became of a message of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replayed {
    Queued,
    /// It is not for this client, or its time is over, or it is missed for another reason.
    LeftOut,
    /// There is no room: it is read again when there is.
    Full,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) from: ReadFrom,
    /// Something between the place asked for and this one is gone.
    pub(super) lost: Option<GapReason>,
}

impl Bus {
    /// Where `start` is; `None`: from now on.
    pub(super) fn beginning(&self, now: Time, start: Start<'_>) -> Result<Option<Beginning>> {
        let exact = |from| Ok(Some(Beginning { from, lost: None }));
        match start {
            Start::New => Ok(None),
            Start::Last => exact(ReadFrom::Last),
            Start::All => exact(ReadFrom::After(0)),
            // What is still to come is all that comes.
            Start::Time(time_ms) if time_ms > self.history.latest_ms(self.config.wall_ms(now)) => {
                Ok(None)
            }
            Start::Time(time_ms) => exact(ReadFrom::Time(time_ms)),
            Start::Cursor(bytes) => {
                let Some(cursor) = Cursor::from_bytes(bytes) else {
                    return Err(Error::new(
                        ErrorKind::InvalidArgument,
                        "the cursor is none that a kps server gave; start with \"all\" or \"new\"",
                    ));
                };
                let position = match cursor.epoch == self.config.epoch {
                    true => Some(cursor.position.min(self.history.last())),
                    false => self.history.in_epoch(cursor.epoch, cursor.position),
                };
                // An unknown epoch is one of another store: all that this one has came later.
                Ok(Some(Beginning {
                    from: ReadFrom::After(position.unwrap_or(0)),
                    lost: position.is_none().then_some(GapReason::NewEpoch),
                }))
            }
        }
    }

    /// The place behind everything accepted so far; `None` without history.
    pub fn place(&self) -> Option<options::Cursor> {
        self.has_history().then(|| options::Cursor::new(&self.cursor_now())).flatten()
    }

    pub(super) fn cursor_now(&self) -> [u8; 16] {
        Cursor { epoch: self.config.epoch, position: self.history.last() }.to_bytes()
    }

    /// A new subscription reads from there on. `wants_all`: it did not ask for a place. `resumed`: its
    /// client is told how much it had missed.
    pub(super) fn start_replay(
        &mut self,
        key: SubKey,
        from: ReadFrom,
        wants_all: bool,
        resumed: bool,
    ) {
        let since = self.history.last();
        let replay = Replay { from, since, wants_all, reading: false, resumed, replayed: 0 };
        self.read_from(key, replay);
    }

    fn read_from(&mut self, key: SubKey, replay: Replay) {
        self.subscriptions[key].replay = Some(Box::new(replay));
        self.history.readers += 1;
        self.read_on(key);
    }

    /// Asks for the next page if there is room for one.
    pub(super) fn read_on(&mut self, key: SubKey) {
        let Some(sub) = self.subscriptions.get_mut(key) else { return };
        let Some(replay) = &mut sub.replay else { return };
        let walks = sub.walk.as_ref().is_some_and(|walk| walk.is_ready());
        if replay.reading || walks || sub.closing || !sub.queue.wants_page() {
            return;
        }
        replay.reading = true;
        self.ask_for_page(ReaderKey::Sub(key));
    }

    fn sub_query(&self, key: SubKey) -> Option<Query> {
        let sub = self.subscriptions.get(key)?;
        let (count, bytes) = sub.queue.free();
        Some(Query {
            namespace: self.spaces[self.sessions[sub.session].space].name.to_string(),
            pattern: sub.pattern.clone(),
            from: sub.replay.as_ref()?.from,
            max_count: count.clamp(1, PAGE),
            max_bytes: bytes.clamp(1, PAGE_BYTES),
        })
    }

    /// `reader` gets its page when it is its turn.
    pub(super) fn ask_for_page(&mut self, reader: ReaderKey) {
        self.history.to_read.push_back(reader);
        self.next_reads();
    }

    /// Asks the store for as many pages as there may be on their way.
    pub(super) fn next_reads(&mut self) {
        // What is read is charged like what is published, but nobody could be made to wait for it.
        while self.history.reads < MAX_READS
            && (self.history.reads == 0 || self.memory() < self.config.limits.server_bytes / 2)
        {
            let Some(reader) = self.history.to_read.pop_front() else { return };
            let query = match reader {
                ReaderKey::Sub(key) => self.sub_query(key),
                ReaderKey::Durable(key) => self.durable_query(key),
            };
            // Who is gone needs none.
            if let Some(query) = query {
                self.history.reads += 1;
                self.notices.push_back(Notice::Read { reader: Reader(reader), query });
            }
        }
    }

    /// The answer to a [`Notice::Read`].
    pub fn take_page(&mut self, now: Time, reader: Reader, page: Result<Page>) {
        self.history.reads -= 1;
        match reader.0 {
            ReaderKey::Sub(key) => self.take_sub_page(now, key, page),
            ReaderKey::Durable(key) => self.take_durable_page(now, key, page),
        }
        self.next_reads();
        self.end_doomed(now);
    }

    fn take_sub_page(&mut self, now: Time, key: SubKey, page: Result<Page>) {
        let Some(sub) = self.subscriptions.get_mut(key) else { return };
        let Some(replay) = &mut sub.replay else { return };
        replay.reading = false;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                self.end_replay(key);
                return self.close_subscription(now, key, error, GapReason::HistoryExpired);
            }
        };
        let from = replay.from;
        let is_natural = replay.wants_all && from == ReadFrom::After(0);
        if page.removed && !is_natural {
            let gap = unknown_gap(sub.pattern.text().clone(), GapReason::HistoryExpired);
            sub.queue.note_gap(gap);
            self.schedule(key);
        }
        let sub = &self.subscriptions[key];
        let space = self.sessions[sub.session].space;
        for record in page.records {
            let superseded = page.superseded.binary_search(&record.position).is_ok();
            let mut published = self.revive(space, record, superseded);
            if from == ReadFrom::Last {
                published = self.or_retained(now, key, space, published);
            }
            let (route, position) = (published.route.clone(), published.position());
            match self.replay(now, key, published) {
                Replayed::Queued if from == ReadFrom::Last => {
                    self.pass_retained(key, space, &route.topic);
                }
                // If there is an older one that was retained, that is its topic's last value.
                Replayed::Queued | Replayed::LeftOut => {}
                Replayed::Full => {
                    if from == ReadFrom::Last {
                        self.ready_walk(key, position - 1);
                    }
                    return;
                }
            }
        }
        // The store may not have come as far as this subscription yet.
        let through = match from {
            ReadFrom::After(position) => page.through.max(position),
            ReadFrom::Time(_) | ReadFrom::Last => page.through,
        };
        self.replay_from(key, through);
        if from == ReadFrom::Last && self.subscriptions[key].walk.is_some() {
            self.ready_walk(key, through);
            // It reads on when it has come to the end.
            if !self.walk(now, key) {
                return;
            }
        }
        if page.more || !self.catch_up(now, key, through) {
            self.read_on(key);
        }
    }

    /// Queues a message of the past, or a gap if its time is over.
    fn replay(&mut self, now: Time, key: SubKey, published: Arc<Published>) -> Replayed {
        let sub = &self.subscriptions[key];
        let session = &self.sessions[sub.session];
        if !session.may_have(&published) {
            return Replayed::LeftOut;
        }
        let since = sub.replay.as_ref().map_or(0, |replay| replay.since).max(session.joined);
        let missed = session.port.is_none() || published.position() <= since;
        let reason = self.reason_to_miss(now, session.space, &published, missed);
        let sub = &mut self.subscriptions[key];
        if let Some(reason) = reason {
            sub.count.miss(reason);
            sub.queue.leave_out(&published, reason);
            self.observe_drop(now, key, 1, reason);
            self.schedule(key);
            return Replayed::LeftOut;
        }
        if !sub.queue.has_room(published.cost()) {
            self.replay_from(key, published.position() - 1);
            return Replayed::Full;
        }
        if let Some(replay) = &mut sub.replay {
            replay.replayed += 1;
        }
        self.enqueue(now, key, published, None, true);
        Replayed::Queued
    }

    /// Why a message of the past is not handed out, if it is not. `missed`: it was accepted while nobody
    /// was there who could have it.
    pub(super) fn reason_to_miss(
        &self,
        now: Time,
        space: usize,
        published: &Published,
        missed: bool,
    ) -> Option<GapReason> {
        if published.is_private() {
            return Some(GapReason::Private);
        }
        if published.is_expired(now) {
            return Some(GapReason::Expired);
        }
        let is_stale = missed
            && match published.offline() {
                Offline::Keep => false,
                Offline::Drop => true,
                Offline::Latest => {
                    let was_superseded =
                        published.place.as_ref().is_some_and(|place| place.superseded);
                    was_superseded
                        || self.spaces[space].last(&published.topic) > published.position()
                }
            };
        is_stale.then_some(GapReason::Offline)
    }

    fn replay_from(&mut self, key: SubKey, position: u64) {
        if let Some(replay) = &mut self.subscriptions[key].replay {
            replay.from = ReadFrom::After(position);
        }
    }

    /// Goes over to live messages if everything behind `through` is in memory. True also if there is no
    /// room for them: then it goes on when there is.
    fn catch_up(&mut self, now: Time, key: SubKey, through: u64) -> bool {
        let Some(behind) = self.history.behind(through) else { return false };
        let sub = &self.subscriptions[key];
        let space = self.sessions[sub.session].space;
        let matching =
            |kept: &&Kept| kept.space == space && sub.pattern.matches(&kept.published.topic);
        let rest: Vec<_> = behind.filter(matching).map(|kept| kept.published.clone()).collect();
        for published in rest {
            if self.replay(now, key, published) == Replayed::Full {
                return true;
            }
        }
        let sub = &self.subscriptions[key];
        let (number, session) = (sub.number, sub.session);
        let resumed = sub.replay.as_ref().filter(|replay| replay.resumed);
        let replayed = resumed.map(|replay| replay.replayed);
        self.end_replay(key);
        if let Some((port, replayed)) = self.sessions[session].port.zip(replayed) {
            self.ports[port].controls.push_back(Output::Resumed { sub: number, replayed });
            self.mark_ready(port);
        }
        true
    }

    /// A full queue spills: the subscription reads on from this position when it has room.
    pub(super) fn spill(&mut self, key: SubKey, position: u64) {
        // Its client was there, or counts as having been away by itself.
        let from = ReadFrom::After(position - 1);
        let (reading, resumed, wants_all) = (false, false, false);
        let replay = Replay { from, since: 0, wants_all, reading, resumed, replayed: 0 };
        self.read_from(key, replay);
    }

    pub(super) fn end_replay(&mut self, key: SubKey) {
        let ended = self.subscriptions.get_mut(key).and_then(|sub| sub.replay.take());
        if ended.is_some() {
            self.history.readers -= 1;
        }
    }
}

pub(super) fn unknown_gap(topic: Arc<str>, reason: GapReason) -> Gap {
    Gap { topic, count: None, first: None, last: None, reason }
}
