//! Publishes on their way: kept, encoded once, until the server has accepted them.
//!
//! Two numberings: the *number* users see counts the publishes of this session object and never
//! changes; the *wire number* counts those of the server's session and starts again when the
//! server lost it. They differ by a constant, [`Generation::offset`].

use std::{collections::VecDeque, time::Duration};

use bytes::BytesMut;

use super::{
    config::OutboxBounds,
    event::Room,
    log::Log,
    publish::{self, Destination, PublishOptions},
    topics::Topics,
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    message::{ContentType, ReceiptLevel},
    options::Limits,
    topic,
    wire::{
        Frames, encode_publish,
        frame::{self, Extensions, Frame, Name, Publish, Welcome},
    },
};

/// A message that waited longer than this is told how much of its time is left.
const FRESH: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Outbox {
    log: Log,
    pub(super) topics: Topics,
    bounds: OutboxBounds,
    limits: Window,
    /// Everything up to this number is accepted or refused.
    accepted: u64,
    /// Recipients and rows prove that the server handled everything up to this number.
    handled: u64,
    /// Who numbered what; the last one numbers now.
    generations: VecDeque<Generation>,
    /// Unconfirmed publishes with a time to live or a timeout, oldest first.
    timed: VecDeque<Timed>,
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
            topics: Topics::new(seed),
            bounds,
            limits: Window { payload: limits.payload, messages: 0, bytes: 0 },
            accepted: 0,
            handled: 0,
            generations: VecDeque::from([Generation { after: 0, origin, offset: 0 }]),
            timed: VecDeque::new(),
        }
    }

    /// The number of the last publish; 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.accepted + self.log.len() as u64
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The number of the last publish sent on this connection or accepted.
    pub(super) fn sent(&self) -> u64 {
        self.accepted + self.log.sent() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.log.len() == 0
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
        to: Destination<'_>,
        content_type: ContentType,
        payload: &[u8],
        options: &PublishOptions<'_>,
    ) -> Result<u64> {
        publish::check_payload(payload.len(), self.limits.payload)?;
        if let Some(extras) = options.extras {
            publish::check_extras(extras)?;
        }
        if self.room() == Room::Hard {
            return Err(self.full());
        }
        let (to, name_length) = match to {
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
        let number = self.last() + 1;
        let ack = options.ack.as_ref();
        let publish = Publish {
            number: number - self.generation().offset,
            to,
            ack: ack.is_some(),
            request: ack.is_some_and(|ack| ack.request),
            prompt: options.receipt.is_some_and(|level| level >= ReceiptLevel::Accepted),
            maybe_duplicate: false,
            content_type,
            extensions: publish::extensions(options.extras, ack),
            payload,
        };
        if publish.extensions.as_ref().is_some_and(|extensions| is_timed(extensions)) {
            self.timed.push_back(Timed { number, queued: now });
        }
        self.log.append(HEAD + name_length + payload.len(), |out| encode_publish(&publish, out));
        Ok(number)
    }

    fn introduce<'a>(&mut self, topic: &'a str) -> Name<'a> {
        if self.topics.is_full() && self.log.len() == 0 {
            self.topics.clear();
        }
        self.topics.introduce(topic)
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
        self.log.next_length().is_some_and(|length| self.window_takes(length))
    }

    /// The window takes whatever fits, and one message of any size when nothing is under way.
    fn window_takes(&self, length: usize) -> bool {
        self.log.sent() == 0
            || (self.log.sent() < self.limits.messages
                && self.log.sent_bytes() + length <= self.limits.bytes)
    }

    /// Appends messages as far as the window and `max` bytes after `start` allow; one of any size
    /// if it is the first.
    pub(super) fn transmit(&mut self, now: Time, start: usize, max: usize, out: &mut BytesMut) {
        while let Some(length) = self.log.next_length() {
            let left = max.saturating_sub(out.len() - start);
            if !self.window_takes(length) || (length > left && out.len() > start) {
                return;
            }
            let mut frames = self.limits.messages.saturating_sub(self.log.sent()).max(1);
            if let Some(stale) = self.next_stale(now) {
                match stale.number - self.sent() - 1 {
                    0 => {
                        self.send_with_time_left(now, out);
                        continue;
                    }
                    ahead => frames = frames.min(usize::try_from(ahead).unwrap_or(usize::MAX)),
                }
            }
            let window = self.limits.bytes.saturating_sub(self.log.sent_bytes());
            match left.min(window) {
                room if room >= length => self.log.send(room, frames, out),
                _ => self.log.send(length, 1, out),
            }
        }
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
    }

    /// The server has everything up to this wire number. Returns how many were released.
    pub(super) fn accept(&mut self, wire: u64) -> Result<u64> {
        let number = wire.saturating_add(self.generation().offset);
        if number > self.accepted + self.log.ever_sent() as u64 {
            return Err(Error::new(
                ErrorKind::Protocol,
                "the server accepted a message that was never sent",
            ));
        }
        Ok(self.release(number))
    }

    fn release(&mut self, number: u64) -> u64 {
        let count = number.saturating_sub(self.accepted);
        if count > 0 {
            self.log.release(usize::try_from(count).unwrap_or(usize::MAX));
            self.accepted = number;
            self.handled = self.handled.max(number);
            while self.timed.front().is_some_and(|timed| timed.number <= number) {
                self.timed.pop_front();
            }
        }
        count
    }

    /// The number behind a wire number that the server mentions; `None` if it was never sent.
    pub(super) fn number(&self, wire: u64) -> Option<u64> {
        let number = wire.checked_add(self.generation().offset)?;
        let known = wire > 0 && number <= self.accepted + self.log.ever_sent() as u64;
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
    pub(super) fn resume(&mut self, welcome: &Welcome<'_>) -> Result<u64> {
        let released = self.accept(welcome.published)?;
        self.connect(welcome);
        Ok(released)
    }

    /// A handshake is done and the server knows nothing of earlier sessions: what is unconfirmed
    /// is numbered from 1, keeps its id, and says so if it may have been received before.
    /// Returns how many the lost session had confirmed by its reports.
    pub(super) fn restart(&mut self, welcome: &Welcome<'_>, origin: String) -> u64 {
        let released = self.release(self.handled);
        let sent = self.log.ever_sent();
        let ids: Vec<String> =
            (1..=self.log.len() as u64).map(|at| self.message_id(self.accepted + at)).collect();
        let old = self.log.take();
        for (at, frame) in old.frames().enumerate() {
            let mut publish = decode(frame);
            publish.number = at as u64 + 1;
            publish.maybe_duplicate |= at < sent;
            let extensions = publish.extensions.get_or_insert_default();
            extensions.id = extensions.id.or(Some(&ids[at]));
            self.log.append(frame.len() + HEAD, |out| encode_publish(&publish, out));
        }
        if self.generations.len() == GENERATIONS {
            self.generations.pop_front();
        }
        self.generations.push_back(Generation {
            after: self.last(),
            origin,
            offset: self.accepted,
        });
        self.connect(welcome);
        released
    }

    /// The first session begins with what waited for it.
    pub(super) fn connect(&mut self, welcome: &Welcome<'_>) {
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        self.limits = Window {
            payload: size(welcome.max_payload),
            messages: size(welcome.publish_window).max(1),
            bytes: size(welcome.publish_window_bytes),
        };
        self.log.rewind();
        if self.log.len() == 0 {
            self.topics.clear();
        }
        if !self.topics.connect(welcome.aliases) {
            self.write_names();
        }
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
        let at = number.checked_sub(self.accepted + 1).and_then(|at| usize::try_from(at).ok());
        let own = at.and_then(|at| self.log.frame(at)).and_then(own_id);
        own.unwrap_or_else(|| self.message_id(number))
    }

    /// The ids of all kept messages, oldest first.
    pub(super) fn ids(&self) -> Vec<String> {
        (self.accepted + 1..)
            .zip(self.log.frames())
            .map(|(number, frame)| own_id(frame).unwrap_or_else(|| self.message_id(number)))
            .collect()
    }

    /// Forgets all kept messages.
    pub(super) fn abandon(&mut self) {
        self.release(self.last());
    }
}

/// Room for a `PUB`'s head without its destination's name.
const HEAD: usize = 64;

/// Sessions lost in the life of a client whose message ids can still be told.
const GENERATIONS: usize = 256;

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
