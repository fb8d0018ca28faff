//! Publishes on their way: kept, encoded once, until the server has accepted them, or if their topic
//! has history on disk, stored them.
//!
//! Two numberings: the *number* users see counts the publishes of this session object and never
//! changes; the *wire number* counts those of the server's session and starts again when the
//! server lost it. They differ by a constant, [`Generation::offset`].

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::BytesMut;

use super::{
    backlog::Backlog,
    config::OutboxBounds,
    event::Room,
    log::Log,
    marked::Marked,
    policies::Policies,
    publish::{self, Destination, PublishOptions},
    skipped::{Range, Skipped},
    topics::Topics,
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    message::{ContentType, ReceiptLevel},
    options::{Limits, OutboxOverflow},
    topic::{self, Pattern},
    wire::{
        Frames, encode_publish,
        frame::{self, Extensions, Frame, HistoryFrame, Name, Publish, Welcome, features},
    },
};

/// A message that waited longer than this is told how much of its time is left.
const FRESH: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Outbox {
    /// Those not skipped, in order.
    log: Log,
    /// Numbers of publishes that were given up before the server had them.
    skipped: Skipped,
    /// The server's session was told of everything up to this number on this connection; and on any.
    told: u64,
    ever_told: u64,
    /// The server takes many skipped numbers at once.
    can_skip: bool,
    /// Payload bytes of the largest message kept.
    largest: usize,
    /// Given up, and nobody was told yet.
    given_up: Vec<GivenUp>,
    /// How many were dropped because the outbox was full.
    dropped: u64,
    pub(super) topics: Topics,
    bounds: OutboxBounds,
    limits: Window,
    /// Everything up to this number is no longer kept.
    released: u64,
    /// Everything up to this number is accepted or refused.
    accepted: u64,
    /// Topics whose messages the server stores.
    stored_topics: StoredTopics,
    /// Kept publishes to them that are not stored yet, oldest first.
    unstored: VecDeque<u64>,
    /// What was stored.
    stored: Marked,
    /// The server's present session has handled everything up to this number: confirmations,
    /// recipients and rows prove it.
    handled: u64,
    /// Who numbered what; the last one numbers now.
    generations: VecDeque<Generation>,
    /// Unconfirmed publishes with a time to live or a timeout, oldest first.
    timed: VecDeque<Timed>,
    backlog: Backlog,
    /// Kept publishes with `to`, `private` or an offline policy.
    pub(super) policies: Policies,
}

/// What the server lets us do.
#[derive(Clone, Copy, Debug)]
struct Window {
    payload: usize,
    messages: usize,
    bytes: usize,
}

/// The numbers above `after` got ids with this origin.
#[derive(Debug)]
struct Generation {
    after: u64,
    origin: String,
    offset: u64,
}

/// A publish that will not be sent.
#[derive(Debug)]
pub(super) struct GivenUp {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) private: bool,
    pub(super) error: Error,
}

#[derive(Debug)]
struct Timed {
    number: u64,
    queued: Time,
}

impl Outbox {
    pub(super) fn new(bounds: OutboxBounds, origin: String, seed: u64) -> Outbox {
        let limits = Limits::default();
        Outbox {
            log: Log::default(),
            skipped: Skipped::default(),
            told: 0,
            ever_told: 0,
            can_skip: false,
            largest: 0,
            given_up: Vec::new(),
            dropped: 0,
            topics: Topics::new(seed),
            bounds,
            limits: Window { payload: limits.payload, messages: 0, bytes: 0 },
            released: 0,
            accepted: 0,
            stored_topics: StoredTopics::default(),
            unstored: VecDeque::new(),
            stored: Marked::default(),
            handled: 0,
            generations: VecDeque::from([Generation { after: 0, origin, offset: 0 }]),
            timed: VecDeque::new(),
            backlog: Backlog::default(),
            policies: Policies::default(),
        }
    }

    /// The number of the last publish; 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.released + self.log.len() as u64 + self.skipped.total()
    }

    /// Publishes that are neither accepted nor failed.
    pub(super) fn pending(&self) -> u64 {
        let skipped = self.skipped.total() - self.skipped.up_to(self.accepted);
        self.last() - self.accepted - skipped
    }

    /// How many were dropped because the outbox was full.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many were given up, and nobody was told yet.
    pub(super) fn untold(&self) -> u64 {
        self.given_up.len() as u64
    }

    /// Those.
    pub(super) fn take_given_up(&mut self) -> Vec<GivenUp> {
        std::mem::take(&mut self.given_up)
    }

    /// Whether this publish was given up, and the server has not confirmed that it skipped it.
    pub(super) fn is_skipped(&self, number: u64) -> bool {
        self.skipped.contains(number)
    }

    /// Where the log has this publish.
    fn place(&self, number: u64) -> Option<usize> {
        let at = number.checked_sub(self.released + 1)?;
        if self.skipped.contains(number) {
            return None;
        }
        usize::try_from(at - self.skipped.up_to(number)).ok()
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Everything up to this number is no longer kept.
    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// The number of the last publish sent on this connection or accepted.
    pub(super) fn sent(&self) -> u64 {
        self.told
    }

    /// Whether everything is accepted or refused.
    pub(super) fn is_settled(&self) -> bool {
        self.accepted == self.last()
    }

    /// Whether messages of this topic reach the receipt `stored`.
    pub(super) fn is_stored(&mut self, topic: &str) -> bool {
        self.stored_topics.holds(topic)
    }

    /// Whether this publish will be stored and is not yet.
    pub(super) fn is_unstored(&self, number: u64) -> bool {
        self.unstored.binary_search(&number).is_ok()
    }

    /// Whether this publish is known to be stored.
    pub(super) fn was_stored(&self, number: u64) -> bool {
        self.stored.contains(number)
    }

    /// Whether it would still be known if this publish was stored.
    pub(super) fn remembers(&self, number: u64) -> bool {
        self.stored.remembers(number)
    }

    pub(super) fn max_payload(&self) -> usize {
        self.limits.payload
    }

    pub(super) fn origin(&self) -> &str {
        &self.generation().origin
    }

    fn generation(&self) -> &Generation {
        self.generations.back().expect("there is one from the start, and only older ones go")
    }

    pub(super) fn room(&self) -> Room {
        if self.log.bytes() >= self.bounds.hard_bytes || self.log.len() >= self.bounds.hard_messages
        {
            Room::Hard
        } else if self.log.bytes() >= self.bounds.soft_bytes {
            Room::Soft
        } else {
            Room::Free
        }
    }

    /// Queues a message and returns its number.
    #[inline]
    pub(super) fn publish(
        &mut self,
        now: Time,
        destination: Destination<'_>,
        content_type: ContentType,
        payload: &[u8],
        options: &PublishOptions<'_>,
    ) -> Result<u64> {
        if options.retain && !matches!(destination, Destination::Topic(_)) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "retain is for topics: a message to a client or a server cannot be retained",
            ));
        }
        // An earlier process had another limit, perhaps; the server will say.
        if !options.maybe_duplicate || self.knows_limits() {
            publish::check_payload(payload.len(), self.limits.payload)?;
        }
        if let Some(extras) = options.extras {
            publish::check_extras(extras, destination)?;
        }
        // What an earlier process took must not be lost for want of room.
        let must_drop = self.room() == Room::Hard && !options.maybe_duplicate;
        if must_drop && !self.may_drop() {
            return Err(self.full());
        }
        let (to, name_length) = match destination {
            Destination::Topic(topic) => match self.topics.find(topic) {
                Some(name) => (frame::Destination::Topic(name), 0),
                None => {
                    topic::check_name(topic)?;
                    (frame::Destination::Topic(self.introduce(topic)), topic.len())
                }
            },
            Destination::Client(id) => {
                publish::check_id("the client id", id)?;
                (frame::Destination::Client(id), id.len())
            }
            Destination::Server(address) => {
                publish::check_id("the server's address", address)?;
                (frame::Destination::Server(address), address.len())
            }
        };
        if must_drop {
            self.drop_oldest();
        }
        let number = self.last() + 1;
        let is_private = options.extras.is_some_and(|extras| extras.private);
        let stored = matches!(destination, Destination::Topic(topic) if self.is_stored(topic))
            && !is_private;
        let ack = options.ack.as_ref();
        let publish = Publish {
            number: number - self.generation().offset,
            to,
            ack: ack.is_some(),
            request: ack.is_some_and(|ack| ack.request),
            prompt: options.receipt.is_some_and(|level| level >= ReceiptLevel::Accepted),
            maybe_duplicate: options.maybe_duplicate,
            content_type,
            extensions: publish::extensions(options),
            payload,
        };
        if publish.extensions.as_ref().is_some_and(|extensions| is_timed(extensions)) {
            self.timed.push_back(Timed { number, queued: now });
        }
        self.largest = self.largest.max(payload.len());
        self.log.append(HEAD + name_length + payload.len(), |out| encode_publish(&publish, out));
        if stored {
            self.unstored.push_back(number);
        }
        Ok(number)
    }

    /// Whether a server has named its limits.
    fn knows_limits(&self) -> bool {
        self.limits.messages > 0
    }

    fn introduce<'a>(&mut self, topic: &'a str) -> Name<'a> {
        if self.topics.is_full() && self.log.len() == 0 {
            self.topics.clear();
        }
        self.topics.introduce(topic)
    }

    /// The oldest message that a newer one may take the place of: one that the server's session was never
    /// sent. It may hold the others, and they count against its window.
    fn oldest(&self) -> Option<usize> {
        let kept = self.accepted - self.skipped.up_to(self.accepted) - self.released;
        let accepted = usize::try_from(kept).unwrap_or(usize::MAX);
        let at = self.log.ever_sent().max(accepted);
        (at < self.log.len()).then_some(at)
    }

    /// Whether there is room if older messages make it.
    #[cold]
    fn may_drop(&self) -> bool {
        self.bounds.overflow == OutboxOverflow::DropOldest && self.oldest().is_some()
    }

    /// Makes room.
    #[cold]
    fn drop_oldest(&mut self) {
        while self.room() == Room::Hard
            && let Some(at) = self.oldest()
        {
            let Some(frame) = self.log.frame(at) else { return };
            let publish = decode(frame);
            let settled = publish.extensions.as_ref().is_some_and(|ext| ext.settled > 0);
            let again = publish.maybe_duplicate;
            let own = own_id(frame);
            let before = self.ever_told.max(self.accepted);
            let Some(number) = self.skipped.others(before).next() else { return };
            self.log.drop_at(at);
            if settled {
                // A lost session had it.
                self.skip(number);
                continue;
            }
            self.dropped += 1;
            let error =
                Error::new(ErrorKind::OutboxFull, if again { DROPPED_AGAIN } else { DROPPED });
            self.fail(number, own, error);
        }
    }

    /// A newer publish takes the place of this one, unless it was ever sent. Not while connected.
    pub(super) fn replace(&mut self, number: u64, error: Error) {
        let Some(at) = self.place(number).filter(|_| number > self.ever_told) else { return };
        let own = self.log.frame(at).and_then(own_id);
        self.log.drop_at(at);
        self.fail(number, own, error);
    }

    /// The log has this publish no more, and who published it is to be told why.
    fn fail(&mut self, number: u64, own_id: Option<String>, error: Error) {
        let id = own_id.unwrap_or_else(|| self.message_id(number));
        let private = self.policies.is_private(number);
        self.skip(number);
        self.given_up.push(GivenUp { number, id, private, error });
    }

    /// The log has this publish no more: the server gets its number alone.
    fn skip(&mut self, number: u64) {
        self.skipped.insert(number);
        self.give_up(number);
    }

    /// Gives up what this server does not take, or would misunderstand.
    #[cold]
    fn give_up_unfit(&mut self, features: u64) {
        let old = self.log.take();
        let mut ever_sent = 0;
        let numbers: Vec<u64> = self.skipped.others(self.released).take(old.len()).collect();
        self.largest = 0;
        for (at, (number, frame)) in numbers.into_iter().zip(old.frames()).enumerate() {
            let publish = decode(frame);
            let settled = publish.extensions.as_ref().is_some_and(|ext| ext.settled > 0);
            match publish::check_fits(&publish, self.limits.payload, features) {
                Err(error) if !settled && number > self.accepted => {
                    self.fail(number, own_id(frame), error);
                }
                // A lost session accepted it; this one will not store it.
                Err(_) if !settled => self.skip(number),
                _ => {
                    self.largest = self.largest.max(publish.payload.len());
                    self.log.append(frame.len(), |out| out.extend_from_slice(frame));
                    ever_sent += usize::from(at < old.ever_sent());
                }
            }
        }
        self.log.mark_ever_sent(ever_sent);
    }

    #[cold]
    fn full(&self) -> Error {
        Error::new(
            ErrorKind::OutboxFull,
            format!(
                "{} messages ({} bytes) wait to be accepted by the server; wait for room before publishing more",
                self.log.len(),
                self.log.bytes()
            ),
        )
    }

    /// Whether [`Outbox::transmit`] would send something.
    pub(super) fn has_output(&self) -> bool {
        match self.next_skip() {
            Some(_) => self.may_skip(),
            None => self.log.next_length().is_some_and(|length| self.window_takes(length)),
        }
    }

    /// The window takes whatever fits, and one message of any size when nothing is under way.
    fn window_takes(&self, length: usize) -> bool {
        if self.backlog.left(self.sent()) == Some(0) {
            return false;
        }
        self.log.sent() == 0
            || (self.log.sent() < self.limits.messages
                && self.log.sent_bytes() + length <= self.limits.bytes)
    }

    /// Appends messages as far as the window and `max` bytes after `start` allow; one of any size
    /// if it is the first.
    pub(super) fn transmit(&mut self, now: Time, start: usize, max: usize, out: &mut BytesMut) {
        loop {
            if let Some(skip) = self.next_skip() {
                if !self.may_skip() || (out.len() - start >= max && out.len() > start) {
                    return;
                }
                self.send_skip(skip, out);
                continue;
            }
            let Some(length) = self.log.next_length() else { return };
            let left = max.saturating_sub(out.len() - start);
            if !self.window_takes(length) || (length > left && out.len() > start) {
                return;
            }
            let mut frames = self.limits.messages.saturating_sub(self.log.sent()).max(1);
            frames = frames.min(self.backlog.left(self.sent()).unwrap_or(usize::MAX));
            if let Some(skip) = self.skipped.above(self.told) {
                let ahead = skip.first - self.told - 1;
                frames = frames.min(usize::try_from(ahead).unwrap_or(usize::MAX));
            }
            if let Some(stale) = self.next_stale(now) {
                match stale.number - self.told - 1 {
                    0 => {
                        self.send_with_time_left(now, out);
                        continue;
                    }
                    ahead => frames = frames.min(usize::try_from(ahead).unwrap_or(usize::MAX)),
                }
            }
            let window = self.limits.bytes.saturating_sub(self.log.sent_bytes());
            let before = self.log.sent();
            match left.min(window) {
                room if room >= length => self.log.send(room, frames, out),
                _ => self.log.send(length, 1, out),
            }
            self.tell((self.log.sent() - before) as u64);
        }
    }

    /// Whether the server is to say when it has dealt with all that was sent.
    pub(super) fn asks_for_news(&mut self) -> bool {
        self.backlog.asks(self.sent())
    }

    /// What [`Outbox::sent`] is when the next message is to be sent: numbers to skip are no burst.
    fn next_sent(&self) -> u64 {
        self.next_skip().map_or(self.told, |skip| skip.last)
    }

    /// When to call [`Outbox::tick`].
    pub(super) fn deadline(&self) -> Option<Time> {
        self.backlog.deadline()
    }

    /// Goes on with the backlog if it is time.
    pub(super) fn tick(&mut self, now: Time) {
        self.backlog.tick(now, self.next_sent(), &self.log);
    }

    /// So many numbers more were sent on this connection.
    #[inline]
    fn tell(&mut self, count: u64) {
        self.told += count;
        self.ever_told = self.ever_told.max(self.told);
    }

    /// The numbers to skip before the next message is sent.
    #[inline]
    fn next_skip(&self) -> Option<Range> {
        self.skipped.above(self.told).filter(|range| range.first <= self.told + 1)
    }

    /// A server that takes skipped numbers one by one counts them as messages.
    fn may_skip(&self) -> bool {
        self.can_skip || self.told - self.accepted.min(self.told) < self.limits.messages as u64
    }

    #[cold]
    fn send_skip(&mut self, skip: Range, out: &mut BytesMut) {
        let number = self.told + 1;
        let count = if self.can_skip { skip.last - self.told } else { 1 };
        let publish = Publish {
            number: number - self.generation().offset,
            to: frame::Destination::Topic(Name::Inline(SETTLED)),
            ack: false,
            request: false,
            prompt: false,
            maybe_duplicate: false,
            content_type: ContentType::Bytes,
            extensions: Some(Box::new(Extensions { settled: count, ..Extensions::default() })),
            payload: &[],
        };
        encode_publish(&publish, out);
        self.tell(count);
    }

    fn next_stale(&self, now: Time) -> Option<&Timed> {
        if self.timed.is_empty() {
            return None;
        }
        let sent = self.sent();
        let next = self.timed.partition_point(|timed| timed.number <= sent);
        self.timed.get(next).filter(|timed| now.since(timed.queued) > FRESH)
    }

    fn send_with_time_left(&mut self, now: Time, out: &mut BytesMut) {
        let waited = match self.next_stale(now) {
            Some(stale) => publish::millis(now.since(stale.queued)),
            None => 0,
        };
        if let Some(mut publish) = self.log.peek().map(decode) {
            if let Some(extensions) = &mut publish.extensions {
                for left in [&mut extensions.ttl_ms, &mut extensions.ack_timeout_ms] {
                    *left = left.map(|millis| millis.saturating_sub(waited));
                }
            }
            encode_publish(&publish, out);
        }
        self.log.skip();
        self.tell(1);
    }

    /// The server has everything up to this wire number. Returns how many were released.
    pub(super) fn accept(&mut self, now: Time, wire: u64) -> Result<u64> {
        let number = wire.saturating_add(self.generation().offset);
        if number > self.ever_told {
            return Err(Error::new(
                ErrorKind::Protocol,
                "the server accepted a message that was never sent",
            ));
        }
        let count = number.saturating_sub(self.accepted);
        self.accepted = self.accepted.max(number);
        self.handled = self.handled.max(number);
        self.release();
        self.backlog.dealt_with(now, number);
        Ok(count)
    }

    /// Everything up to this number is stored, as far as it is to be.
    pub(super) fn store(&mut self, number: u64) {
        while let Some(first) = self.unstored.front().copied().filter(|first| *first <= number) {
            self.unstored.pop_front();
            self.stored.insert(first);
        }
        self.release();
    }

    /// This publish will not be stored.
    pub(super) fn give_up(&mut self, number: u64) {
        if let Ok(at) = self.unstored.binary_search(&number) {
            self.unstored.remove(at);
            self.release();
        }
    }

    /// Forgets what nobody needs any more.
    fn release(&mut self) {
        let unstored = self.unstored.front().map_or(u64::MAX, |first| first - 1);
        // What an earlier session accepted and this one has not is still needed for its number.
        let until = self.accepted.min(self.handled).min(unstored);
        if until <= self.released {
            return;
        }
        let frames = until - self.released - self.skipped.up_to(until);
        self.log.release(usize::try_from(frames).unwrap_or(usize::MAX));
        self.skipped.forget(until);
        self.released = until;
        self.told = self.told.max(until);
        self.policies.release(until);
        while self.timed.front().is_some_and(|timed| timed.number <= until) {
            self.timed.pop_front();
        }
    }

    /// The number behind a wire number that the server mentions; `None` if it was never sent.
    pub(super) fn number(&self, wire: u64) -> Option<u64> {
        let number = wire.checked_add(self.generation().offset)?;
        let known = wire > 0 && number <= self.ever_told;
        known.then_some(number)
    }

    /// The server said something that proves that it handled everything up to this number.
    pub(super) fn mark_handled(&mut self, number: u64) {
        self.handled = self.handled.max(number);
    }

    /// The wire number of a publish of the server's current session.
    pub(super) fn wire(&self, number: u64) -> Option<u64> {
        number.checked_sub(self.generation().offset).filter(|wire| *wire > 0)
    }

    /// A handshake is done and the session goes on: everything beyond `WELCOME.published` is sent
    /// again. Returns how many were released.
    pub(super) fn resume(&mut self, now: Time, welcome: &Welcome<'_>) -> Result<u64> {
        let count = self.accept(now, welcome.published)?;
        self.connect(now, welcome);
        // What this session has and only waits to be stored need not be sent again.
        let last = welcome.published.saturating_add(self.generation().offset).max(self.released);
        for _ in self.skipped.up_to(last)..last - self.released {
            self.log.skip();
        }
        self.told = last;
        self.backlog.begin(now, self.last(), self.next_sent(), &self.log);
        Ok(count)
    }

    /// A handshake is done and the server knows nothing of earlier sessions: what is unconfirmed, or
    /// was not stored, is numbered from 1, keeps its id, and says so if it may have been received
    /// before. Returns how many the lost session had confirmed by its reports.
    pub(super) fn restart(&mut self, now: Time, welcome: &Welcome<'_>, origin: String) -> u64 {
        let count = self.handled.saturating_sub(self.accepted);
        self.accepted = self.accepted.max(self.handled);
        self.release();
        let sent = self.log.ever_sent();
        let numbers = self.skipped.others(self.released).take(self.log.len());
        let numbers: Vec<u64> = numbers.collect();
        let ids: Vec<String> = numbers.iter().map(|number| self.message_id(*number)).collect();
        let old = self.log.take();
        self.stored_topics.learn(&welcome.history);
        let mut unstored = VecDeque::new();
        for (at, frame) in old.frames().enumerate() {
            let mut publish = decode(frame);
            let number = numbers[at];
            publish.number = number - self.released;
            publish.maybe_duplicate |= at < sent;
            let dealt_with = number <= self.handled && !self.is_unstored(number);
            if !dealt_with && self.will_be_stored(&publish) {
                unstored.push_back(number);
            }
            let extensions = publish.extensions.get_or_insert_default();
            if dealt_with || extensions.settled > 0 {
                // A lost session dealt with it; only its number is still needed.
                extensions.settled = 1;
                publish.to = frame::Destination::Topic(Name::Inline(SETTLED));
                publish.payload = &[];
            } else {
                extensions.id = extensions.id.or(Some(&ids[at]));
            }
            self.log.append(frame.len() + HEAD, |out| encode_publish(&publish, out));
        }
        self.unstored = unstored;
        self.handled = self.released;
        self.ever_told = self.released;
        if self.generations.len() == GENERATIONS {
            self.generations.pop_front();
        }
        self.generations.push_back(Generation {
            after: self.last(),
            origin,
            offset: self.released,
        });
        self.connect(now, welcome);
        count
    }

    /// The first session begins with what waited for it.
    pub(super) fn connect(&mut self, now: Time, welcome: &Welcome<'_>) {
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        self.limits = Window {
            payload: size(welcome.max_payload),
            messages: size(welcome.publish_window).max(1),
            bytes: size(welcome.publish_window_bytes),
        };
        self.can_skip = welcome.features & features::SKIPS != 0;
        self.log.rewind();
        self.told = self.released;
        if self.largest > self.limits.payload
            || welcome.features & publish::NEEDED != publish::NEEDED
        {
            self.give_up_unfit(welcome.features);
        }
        if self.log.len() == 0 {
            self.topics.clear();
        }
        if !self.topics.connect(welcome.aliases) {
            self.write_names();
        }
        if self.stored_topics.learn(&welcome.history) {
            self.sort_out();
        }
        self.backlog.begin(now, self.last(), self.next_sent(), &self.log);
    }

    /// The server stores other topics than was thought.
    #[cold]
    fn sort_out(&mut self) {
        let mut unstored = VecDeque::new();
        let log = std::mem::take(&mut self.log);
        let numbers: Vec<u64> = self.skipped.others(self.released).take(log.len()).collect();
        for (number, frame) in numbers.into_iter().zip(log.frames()) {
            let is_open = number > self.accepted || self.is_unstored(number);
            if is_open && self.will_be_stored(&decode(frame)) {
                unstored.push_back(number);
            }
        }
        self.log = log;
        self.unstored = unstored;
        self.release();
    }

    /// Whether the server stores it once it has it.
    fn will_be_stored(&mut self, publish: &Publish<'_>) -> bool {
        let frame::Destination::Topic(name) = publish.to else { return false };
        let never = |extensions: &Extensions<'_>| extensions.settled > 0 || extensions.private;
        if publish.extensions.as_deref().is_some_and(never) {
            return false;
        }
        let topic = match name {
            Name::Inline(topic) => topic,
            Name::Alias(number) => {
                self.topics.name(number).expect("kept while a message refers to it")
            }
        };
        self.stored_topics.holds(topic)
    }

    /// Replaces topic numbers by names, because the server takes fewer numbers than before.
    #[cold]
    fn write_names(&mut self) {
        let old = self.log.take();
        for frame in old.frames() {
            let mut publish = decode(frame);
            if let frame::Destination::Topic(Name::Alias(number)) = publish.to {
                let name = self.topics.name(number).expect("kept while a message refers to it");
                publish.to = frame::Destination::Topic(Name::Inline(name));
            }
            let length = frame.len() + HEAD + topic::MAX_LENGTH;
            self.log.append(length, |out| encode_publish(&publish, out));
        }
        self.log.mark_ever_sent(old.ever_sent());
        self.topics.clear();
    }

    /// The id of a message published without one of its own.
    pub(super) fn message_id(&self, number: u64) -> String {
        let generation = self
            .generations
            .iter()
            .rev()
            .find(|generation| generation.after < number)
            .unwrap_or(&self.generations[0]);
        format!("{}-{}", generation.origin, number.saturating_sub(generation.offset))
    }

    /// The id of a message, its own one if it is still kept.
    pub(super) fn id_of(&self, number: u64) -> String {
        let own = self.place(number).and_then(|at| self.log.frame(at)).and_then(own_id);
        own.unwrap_or_else(|| self.message_id(number))
    }

    /// The numbers and ids of all messages that are not accepted, oldest first.
    pub(super) fn ids(&self) -> Vec<(u64, String)> {
        self.skipped
            .others(self.released)
            .zip(self.log.frames())
            .filter(|(number, _)| *number > self.accepted)
            .map(|(number, frame)| {
                (number, own_id(frame).unwrap_or_else(|| self.message_id(number)))
            })
            .collect()
    }

    /// The numbers and ids of those that are not accepted and have at most this wire number.
    pub(super) fn ids_until(&self, wire: u64) -> Vec<(u64, String)> {
        let last = wire.saturating_add(self.generation().offset).min(self.last());
        (self.accepted + 1..=last).map(|number| (number, self.id_of(number))).collect()
    }

    /// Forgets all kept messages.
    pub(super) fn abandon(&mut self) {
        self.accepted = self.last();
        self.handled = self.accepted;
        self.unstored.clear();
        self.release();
    }
}

/// The topics whose messages a server stores, as it said; asked once per publish.
#[derive(Debug, Default)]
struct StoredTopics {
    patterns: Vec<Pattern>,
    known: HashMap<Box<str>, bool>,
}

impl StoredTopics {
    #[inline]
    fn holds(&mut self, topic: &str) -> bool {
        !self.patterns.is_empty() && self.look_up(topic)
    }

    fn look_up(&mut self, topic: &str) -> bool {
        if let Some(known) = self.known.get(topic) {
            return *known;
        }
        if self.known.len() >= KNOWN_TOPICS {
            self.known.clear();
        }
        let holds = self.patterns.iter().any(|pattern| pattern.matches(topic));
        self.known.insert(topic.into(), holds);
        holds
    }

    /// True if that changes anything.
    fn learn(&mut self, history: &HistoryFrame<'_>) -> bool {
        let patterns = history.patterns.iter().filter(|_| history.on_disk);
        let patterns: Vec<_> = patterns.filter_map(|text| Pattern::parse(text).ok()).collect();
        let changed = patterns != self.patterns;
        if changed {
            *self = StoredTopics { patterns, ..StoredTopics::default() };
        }
        changed
    }
}

/// Topics of which is remembered whether they are stored.
const KNOWN_TOPICS: usize = 4096;

/// Named by publishes of which only the number counts.
const SETTLED: &str = "kps.settled";

const DROPPED: &str =
    "the outbox was full and this its oldest message: it was dropped for a newer one and not sent";

const DROPPED_AGAIN: &str = "the outbox was full and this its oldest message: it was dropped for a newer one \
     and is not sent again; it may have been received before the connection was lost";

/// Room for a `PUB`'s head without its destination's name.
const HEAD: usize = 64;

/// Sessions lost in the life of a client whose message ids can still be told.
const GENERATIONS: usize = 256;

/// Only its number is still needed.
fn is_timed(extensions: &Extensions<'_>) -> bool {
    extensions.ttl_ms.is_some() || extensions.ack_timeout_ms.is_some()
}

fn decode(frame: &[u8]) -> Publish<'_> {
    match Frames::new(frame).next() {
        Some(Ok(Frame::Publish(publish))) => publish,
        other => unreachable!("the outbox holds the PUBs it encoded, not {other:?}"),
    }
}

fn own_id(frame: &[u8]) -> Option<String> {
    decode(frame).extensions.and_then(|extensions| extensions.id.map(str::to_owned))
}
