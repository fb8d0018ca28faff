//! Subscriptions, and the counting that gives the server room to send.

use std::collections::{HashMap, VecDeque};

use super::{
    event::{SubId, Target},
    ledger::{Counts, SubscriptionLedger},
};
use crate::{
    error::{Error, ErrorKind, Result},
    message::Gap,
    options::{Cursor, Limits, Overflow, StartAt, SubscribeOptions},
    topic::Pattern,
    wire::frame::{Start, Subscribe},
};

/// The default window: messages and bytes under way or waiting in a mailbox.
const WINDOW: u32 = 4096;
const WINDOW_BYTES: u64 = 4 << 20;

/// Under `latest` a long window would be a queue of old values.
const WINDOW_LATEST: u32 = 8;

/// The window of messages to this client's id, which the server opens by itself.
const WINDOW_DIRECT: u32 = 1024;

/// Windows up to this are topped up at once, larger ones when half is used.
const SMALL_WINDOW: u32 = 32;

/// What a message is charged beside its payload, in bytes of window.
const OVERHEAD: u64 = 128;

#[derive(Debug)]
pub(super) struct Subscriptions {
    table: HashMap<u32, Subscription>,
    last: u32,
    /// Whose credit the next transmission carries.
    due: Vec<u32>,
    /// Who has credit to give that is not urgent.
    lazy: Vec<u32>,
    closed: Counts,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) target: Target,
    pub(super) phase: Phase,
    pub(super) counts: Counts,
    pub(super) pattern: Option<Pattern>,
    options: SubscribeOptions,
    stream: Stream,
    /// Its host had it before, in a session that is over.
    continues: bool,
    /// Messages of a lost session that the host has not handled yet: their credit died with it.
    stale: u64,
    /// Behind the last message received that had one.
    pub(super) cursor: Option<Cursor>,
    /// The server's run in which its stream last began, as far as its host was told.
    pub(super) epoch: Option<u64>,
}

/// How far the server and we agree on a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// `SUB` is or will be sent.
    Requested,
    /// Confirmed in this session.
    Active,
    /// Confirmed in a lost session, requested again.
    Again,
    /// Closed by the server; the host still handles what came before.
    Ended,
}

/// Counts of one stream's frames in this session. `credited` ≤ `consumed` ≤ `received`.
#[derive(Debug, Default)]
struct Stream {
    received: u64,
    consumed: u64,
    credited: u64,
    /// Places of frames that the host does not see, behind messages it has not handled.
    silent: VecDeque<std::ops::Range<u64>>,
    window: u32,
    window_bytes: u64,
    /// Charged for what was received and is not credited; proportional after partial credit.
    bytes: u64,
    noted: Noted,
}

/// In which list of those with credit to give a subscription stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Noted {
    #[default]
    No,
    Lazy,
    Due,
}

impl Subscriptions {
    pub(super) fn new(direct: Target) -> Subscriptions {
        let direct = Subscription {
            target: direct,
            phase: Phase::Active,
            counts: Counts::default(),
            pattern: None,
            options: SubscribeOptions::default(),
            stream: Stream::new(WINDOW_DIRECT, WINDOW_BYTES),
            continues: false,
            stale: 0,
            cursor: None,
            epoch: None,
        };
        Subscriptions {
            table: HashMap::from_iter([(SubId::DIRECT.0, direct)]),
            last: 0,
            due: Vec::new(),
            lazy: Vec::new(),
            closed: Counts::default(),
        }
    }

    /// Opens one. Its `SUB` is the caller's to send.
    pub(super) fn open(
        &mut self,
        target: Target,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<SubId> {
        let pattern = Pattern::parse(pattern)?;
        check_options(&options)?;
        // One number stands for the reports, and one is free to say "none".
        if self.last >= u32::MAX - 2 {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "this client has used up its subscription numbers; make a new one",
            ));
        }
        self.last += 1;
        let window = match (options.overflow, options.capacity) {
            (Overflow::Latest, capacity) => half(capacity).min(WINDOW_LATEST),
            (_, capacity) => half(capacity).min(WINDOW),
        };
        let subscription = Subscription {
            target,
            phase: Phase::Requested,
            counts: Counts::default(),
            pattern: Some(pattern),
            options,
            stream: Stream::new(window, WINDOW_BYTES),
            continues: false,
            stale: 0,
            cursor: None,
            epoch: None,
        };
        self.table.insert(self.last, subscription);
        Ok(SubId(self.last))
    }

    /// One that was just opened goes on where one of a session before it was.
    pub(super) fn had(&mut self, sub: SubId, cursor: Option<Cursor>) {
        if let Some(entry) = self.table.get_mut(&sub.0) {
            entry.continues = true;
            entry.cursor = cursor;
        }
    }

    #[inline]
    pub(super) fn find(&mut self, sub: u32) -> Option<&mut Subscription> {
        self.table.get_mut(&sub)
    }

    /// All but the direct messages', in the order they were opened.
    pub(super) fn opened(&self) -> Vec<(u32, &Subscription)> {
        let mut all: Vec<_> = self
            .table
            .iter()
            .map(|(sub, entry)| (*sub, entry))
            .filter(|(sub, _)| *sub != 0)
            .collect();
        all.sort_unstable_by_key(|(sub, _)| *sub);
        all
    }

    /// Removes one for good. What waits in a mailbox counts as cancelled.
    pub(super) fn close(&mut self, sub: u32) -> Option<Subscription> {
        let mut entry = self.table.remove(&sub)?;
        entry.counts.cancel_pending();
        self.closed += entry.counts;
        Some(entry)
    }

    /// The host handled `messages` more.
    #[inline]
    pub(super) fn consume(&mut self, sub: u32, messages: u64) {
        let Some(entry) = self.table.get_mut(&sub) else { return };
        let messages = messages.min(entry.counts.pending);
        entry.counts.deliver(messages);
        let stale = messages.min(entry.stale);
        entry.stale -= stale;
        entry.stream.consume(messages - stale);
        self.note_credit(sub);
        self.forget_if_ended(sub);
    }

    /// Whether the stream may have one more message; counts it.
    #[inline]
    pub(super) fn receive(entry: &mut Subscription, payload: usize) -> Result<()> {
        if entry.counts.pending - entry.stale >= u64::from(entry.stream.window) {
            return Err(Error::new(
                ErrorKind::Protocol,
                "the server sent more messages than the subscription's window",
            ));
        }
        entry.counts.pending += 1;
        entry.stream.received += 1;
        entry.stream.bytes += payload as u64 + OVERHEAD;
        Ok(())
    }

    /// Counts a gap, which is consumed as soon as what stands before it is.
    pub(super) fn receive_gap(&mut self, sub: u32, gap: &Gap) {
        if let Some(entry) = self.table.get_mut(&sub) {
            entry.counts.note(gap);
            entry.stream.receive_silent();
        }
        self.note_credit(sub);
    }

    /// The server closed it: the last frame of its stream. All of it is credited at once, so that
    /// the server can forget it; the entry stays until the host has handled what it has.
    pub(super) fn end(&mut self, sub: u32) -> Option<Target> {
        let entry = self.table.get_mut(&sub)?;
        entry.phase = Phase::Ended;
        entry.stream.received += 1;
        entry.stale = entry.counts.pending;
        entry.stream.consume_all();
        let target = entry.target;
        if entry.stream.noted != Noted::Due {
            entry.stream.noted = Noted::Due;
            self.due.push(sub);
        }
        Some(target)
    }

    fn forget_if_ended(&mut self, sub: u32) {
        if self.table.get(&sub).is_some_and(Subscription::is_over) {
            self.close(sub);
        }
    }

    #[inline]
    fn note_credit(&mut self, sub: u32) {
        let Some(entry) = self.table.get_mut(&sub) else { return };
        let stream = &mut entry.stream;
        let want = stream.urgency();
        if want > stream.noted {
            stream.noted = want;
            if want == Noted::Due { self.due.push(sub) } else { self.lazy.push(sub) }
        }
    }

    /// Whether a `CREDIT` should be sent now.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether there is credit to give that can wait.
    pub(super) fn has_lazy(&self) -> bool {
        !self.lazy.is_empty()
    }

    /// Credit that could wait has waited long enough.
    pub(super) fn hasten(&mut self) {
        for sub in self.lazy.drain(..) {
            if let Some(entry) = self.table.get_mut(&sub)
                && entry.stream.noted == Noted::Lazy
            {
                entry.stream.noted = Noted::Due;
                self.due.push(sub);
            }
        }
    }

    /// What to tell the server: subscription and cumulative count.
    pub(super) fn take_credit(&mut self, mut send: impl FnMut(u32, u64)) {
        let mut due = std::mem::take(&mut self.due);
        for sub in due.drain(..) {
            let Some(entry) = self.table.get_mut(&sub) else { continue };
            send(sub, entry.stream.credit());
            self.forget_if_ended(sub);
        }
        self.due = due;
    }

    /// What was received of each confirmed subscription, for `HELLO`.
    pub(super) fn received(&self) -> Vec<(u32, u64)> {
        let mut received: Vec<_> = self
            .table
            .iter()
            .filter(|(_, entry)| entry.phase == Phase::Active)
            .map(|(sub, entry)| (*sub, entry.stream.received))
            .collect();
        received.sort_unstable();
        received
    }

    /// The connection is lost: the server has what was told, and is told again what was not.
    pub(super) fn disconnect(&mut self) {
        for sub in self.due.drain(..).chain(self.lazy.drain(..)) {
            if let Some(entry) = self.table.get_mut(&sub) {
                entry.stream.noted = Noted::No;
            }
        }
        // The closing error was received, so the server is not asked about these again.
        let over: Vec<u32> = self
            .table
            .iter()
            .filter(|(_, entry)| entry.phase == Phase::Ended && entry.counts.pending == 0)
            .map(|(sub, _)| *sub)
            .collect();
        for sub in over {
            self.close(sub);
        }
    }

    /// The session goes on: credit is cumulative, so it is simply told again.
    pub(super) fn resume(&mut self) {
        self.due.clear();
        self.lazy.clear();
        for (sub, entry) in &mut self.table {
            if entry.phase == Phase::Active && entry.stream.consumed > 0 {
                entry.stream.noted = Noted::Due;
                self.due.push(*sub);
            }
        }
        self.due.sort_unstable();
    }

    /// The session is lost: every stream starts again.
    pub(super) fn restart(&mut self, has_history: bool) {
        for entry in self.table.values_mut() {
            // Without history there is no place to go on from, only what is new.
            if !has_history && entry.options.start == StartAt::New {
                entry.cursor = None;
            }
            if entry.phase == Phase::Active && entry.pattern.is_some() {
                entry.phase = Phase::Again;
            }
            entry.stale = entry.counts.pending;
            let Stream { window, window_bytes, .. } = entry.stream;
            entry.stream = Stream::new(window, window_bytes);
        }
        self.due.clear();
        self.lazy.clear();
    }

    pub(super) fn totals(&self) -> Counts {
        let mut sum = self.closed;
        self.table.values().for_each(|entry| sum += entry.counts);
        sum
    }

    pub(super) fn ledgers(&self) -> Vec<SubscriptionLedger> {
        let line = |sub: u32, entry: &Subscription| SubscriptionLedger {
            sub: SubId(sub),
            pattern: entry.pattern.as_ref().map_or_else(String::new, |p| p.as_str().to_owned()),
            counts: entry.counts,
        };
        let direct = self.table.get(&SubId::DIRECT.0).map(|entry| line(SubId::DIRECT.0, entry));
        direct.into_iter().chain(self.opened().into_iter().map(|(sub, e)| line(sub, e))).collect()
    }
}

impl Subscription {
    /// The `SUB` that asks for it.
    pub(super) fn frame(&self, sub: u32) -> Option<Subscribe<'_>> {
        Some(Subscribe {
            sub,
            pattern: self.pattern.as_ref()?.as_str(),
            group: self.options.group.as_deref().unwrap_or_default(),
            durable: self.options.durable.as_deref().unwrap_or_default(),
            overflow: self.options.overflow,
            capacity: self.options.capacity.unwrap_or(0),
            window: self.stream.window,
            window_bytes: self.stream.window_bytes,
            again: self.is_again(),
            epoch: self.epoch.filter(|_| self.is_again()),
            retained: self.is_again() && self.options.start == StartAt::Last,
            start: self.start(),
            redelivery: self.options.redelivery,
        })
    }

    /// Whether its stream began in a session that is over.
    fn is_again(&self) -> bool {
        self.phase == Phase::Again || (self.phase == Phase::Requested && self.continues)
    }

    fn start(&self) -> Start<'_> {
        match (&self.cursor, self.is_again(), &self.options.start) {
            // The members of a group each had a part of what was: no one's cursor fits the others.
            (Some(cursor), true, _) if self.options.group.is_none() => {
                Start::Cursor(cursor.as_bytes())
            }
            (.., StartAt::New) => Start::New,
            (.., StartAt::Last) => Start::Last,
            (.., StartAt::All) => Start::All,
            (.., StartAt::Cursor(cursor)) => Start::Cursor(cursor.as_bytes()),
            (.., StartAt::Time(time_ms)) => Start::Time(*time_ms),
        }
    }

    /// Whether nothing lies between the place where the server began and what comes.
    pub(super) fn begins_at_its_cursor(&self) -> bool {
        self.cursor.is_none() && self.options.start == StartAt::New
    }

    /// Whether the server waits for its answers over connections.
    pub(super) fn is_durable(&self) -> bool {
        self.options.durable.is_some()
    }

    fn is_over(&self) -> bool {
        self.phase == Phase::Ended && self.counts.pending == 0 && self.stream.noted == Noted::No
    }
}

impl Stream {
    fn new(window: u32, window_bytes: u64) -> Stream {
        Stream { window, window_bytes, ..Stream::default() }
    }

    #[inline]
    fn consume(&mut self, messages: u64) {
        self.consumed += messages;
        self.skip_silent();
    }

    /// Frames that only the session sees count when everything before them does; otherwise each
    /// would open the window for one more message.
    fn receive_silent(&mut self) {
        let at = self.received;
        self.received += 1;
        match self.silent.back_mut() {
            Some(last) if last.end == at => last.end += 1,
            _ => self.silent.push_back(at..at + 1),
        }
        self.skip_silent();
    }

    #[inline]
    fn skip_silent(&mut self) {
        while let Some(next) = self.silent.front()
            && next.start <= self.consumed
        {
            self.consumed += next.end - next.start;
            self.silent.pop_front();
        }
    }

    fn consume_all(&mut self) {
        self.silent.clear();
        self.consumed = self.received;
    }

    #[inline]
    fn urgency(&self) -> Noted {
        let uncredited = self.consumed - self.credited;
        if uncredited == 0 {
            return Noted::No;
        }
        let threshold = if self.window <= SMALL_WINDOW { 1 } else { u64::from(self.window / 2) };
        let half = self.window_bytes / 2;
        if uncredited >= threshold || (self.bytes >= half && self.uncredited_bytes() >= half) {
            Noted::Due
        } else {
            Noted::Lazy
        }
    }

    /// About how many bytes of window the consumed, uncredited frames hold: exact when all
    /// received ones are consumed, else as if all were of one size.
    #[inline]
    fn uncredited_bytes(&self) -> u64 {
        let (consumed, received) = (self.consumed - self.credited, self.received - self.credited);
        if consumed == received {
            return self.bytes;
        }
        self.bytes.saturating_mul(consumed) / received
    }

    fn credit(&mut self) -> u64 {
        self.bytes -= self.uncredited_bytes();
        self.credited = self.consumed;
        self.noted = Noted::No;
        self.consumed
    }
}

/// Half of a queue may be on its way or in the client's mailbox.
fn half(capacity: Option<u32>) -> u32 {
    capacity.map_or(u32::MAX, |capacity| (capacity / 2).max(1))
}

fn check_options(options: &SubscribeOptions) -> Result<()> {
    let limit = Limits::default().id;
    let problem = match options {
        SubscribeOptions { capacity: Some(0), .. } => {
            "capacity must be at least 1; leave it out to bound the queue by bytes alone".into()
        }
        SubscribeOptions { group: Some(group), .. } if group.is_empty() || group.len() > limit => {
            format!("the group's name is {} bytes long; it must have 1 to {limit}", group.len())
        }
        SubscribeOptions { durable: Some(name), .. } if name.is_empty() || name.len() > limit => {
            format!("the durable's name is {} bytes long; it must have 1 to {limit}", name.len())
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::InvalidArgument, problem))
}
