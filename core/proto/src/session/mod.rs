//! The client as a state machine: no sockets, no clock.
//!
//! A driver owns the transport and calls:
//!
//! ```text
//! should_connect → (dial) → connected → transmit/receive/tick … → disconnected → should_connect
//! ```
//!
//! [`Session::transmit`] says what to write, [`Session::receive`] takes what was read (a whole
//! WebSocket message) and appends [`Event`]s, [`Session::deadline`] says when to call
//! [`Session::tick`]. Hosts call the rest at any time, connected or not: subscriptions are made
//! again and publishes wait in the outbox.

mod acks;
mod answers;
mod backlog;
mod closing;
mod config;
mod event;
mod handshake;
mod ledger;
mod link;
mod log;
mod marked;
mod names;
mod outbox;
mod payloads;
mod policies;
mod publish;
mod random;
mod receipts;
mod receive;
mod refusals;
mod reports;
mod skipped;
mod subscriptions;
#[cfg(test)]
mod tests;
mod timeline;
mod topics;
mod transmit;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use self::{
    acks::Acks,
    answers::Answers,
    link::Link,
    log::Log,
    names::Names,
    outbox::Outbox,
    payloads::Payloads,
    random::Random,
    receipts::Receipts,
    refusals::{Refusal, Refusals},
    reports::Reports,
    subscriptions::{Phase, Subscriptions},
    timeline::Timeline,
};
pub use self::{
    closing::CloseReport,
    config::{Backoff, OutboxBounds, SessionConfig},
    event::{Event, Events, Room, State, SubId, Target},
    ledger::{Counts, Ledger, PublishCounts, SubscriptionLedger},
    publish::{AckRequest, Destination, PublishOptions},
    timeline::Moment,
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    message::{Answer, ContentType, Extras, Offline, RETAINED_IS_FOR_ALL, ReceiptLevel, RowStatus},
    options::{Cursor, SubscribeOptions},
    wire::{encode, frame::Frame},
};

/// How long credit that is not urgent, and the news that reports came, may wait. A server may hold
/// less than the window we asked for, and then it waits for this.
const CREDIT_DELAY: Duration = Duration::from_millis(100);

/// A client. See the [module](self) for how it is driven.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    random: Random,
    link: Link,
    /// The last time that any call named.
    now: Time,
    id: String,
    /// What the server gave us to resume with; empty: nothing.
    secret: Secret,
    /// The origin offered in the last `HELLO`, for the case that a new session begins.
    offered_origin: String,
    epoch: u64,
    /// The last session was lost because the broker is another one.
    is_new_epoch: bool,
    time_base_ms: u64,
    history: Kept,
    /// Whether the server has retained messages; `None` before the first handshake.
    can_retain: Option<bool>,
    /// Whether the server knows `to`, `private` and offline policies; `None` before it has said so.
    knows_policies: Option<bool>,
    /// Frames that are never gated, sent before all others and not kept.
    control: Log,
    outbox: Outbox,
    answers: Answers,
    subscriptions: Subscriptions,
    /// Unsubscribed; the server has not confirmed it yet.
    closing: HashMap<u32, Target>,
    acks: Acks,
    /// Acks to cancel once their publish is sent.
    cancels: Vec<u64>,
    receipts: Receipts,
    refusals: Refusals,
    reports: Reports,
    names: Names,
    payloads: Payloads,
    /// When to give credit that is not urgent.
    credit_at: Option<Time>,
    /// Everything up to this publish is on the host's disk.
    on_disk: u64,
    /// Why nothing more gets there.
    disk_error: Option<Error>,
    /// Publishes that are given up, which the host need not keep.
    given_up: Vec<u64>,
    /// What waited when the connection was made: up to which publish, and how many.
    backlog: Option<(u64, u64)>,
    /// Somebody waits for this publish to be accepted: a `PING` after it hurries the server.
    hurry: Option<u64>,
    /// The server's last `PING` that is not answered yet. One answer is enough for all.
    pong: Option<u64>,
    abandoned: u64,
    /// The host wants to hear of every accepted publish.
    tells_published: bool,
    /// The outbox is above its soft bound; and the host was not told so yet.
    pressed: bool,
    pressure_untold: bool,
    timeline: Timeline,
}

impl Session {
    /// A client that has not connected yet. `seed` makes its jitter, and its origin, which must be
    /// no other client's: take it from the system's randomness.
    pub fn new(config: SessionConfig, seed: u64) -> Session {
        let mut random = Random::new(seed);
        let origin = random.name();
        let outbox = Outbox::new(config.outbox, origin.clone(), random.next());
        Session {
            random,
            link: Link::new(config.backoff),
            now: Time::ZERO,
            id: config.id.clone().unwrap_or_default(),
            secret: Secret::default(),
            offered_origin: origin,
            epoch: 0,
            is_new_epoch: false,
            time_base_ms: 0,
            history: Kept::Unknown,
            can_retain: None,
            knows_policies: None,
            control: Log::default(),
            outbox,
            answers: Answers::default(),
            subscriptions: Subscriptions::new(config.target),
            closing: HashMap::default(),
            acks: Acks::default(),
            cancels: Vec::new(),
            receipts: Receipts::default(),
            refusals: Refusals::default(),
            reports: Reports::default(),
            names: Names::default(),
            payloads: Payloads::default(),
            credit_at: None,
            on_disk: 0,
            disk_error: None,
            given_up: Vec::new(),
            backlog: None,
            hurry: None,
            pong: None,
            abandoned: 0,
            tells_published: false,
            pressed: false,
            pressure_untold: false,
            timeline: Timeline::default(),
            config,
        }
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        self.link.state()
    }

    /// This client's id; empty until the server has made one.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the ids of messages published now start with. It changes when a session is lost.
    pub fn origin(&self) -> &str {
        self.outbox.origin()
    }

    /// The id under which subscribers see the publish with this number, unless it was given one.
    pub fn message_id(&self, number: u64) -> String {
        self.outbox.message_id(number)
    }

    /// Largest payload, in bytes: the server's limit, or its default before the first handshake.
    pub fn max_payload(&self) -> usize {
        self.outbox.max_payload()
    }

    /// The last things that happened, oldest first; at most 256.
    pub fn timeline(&self) -> impl Iterator<Item = &Moment> {
        self.timeline.moments()
    }

    /// The counts since the start.
    pub fn ledger(&self) -> Ledger {
        let total = self.outbox.last();
        let pending = self.outbox.pending();
        let dropped = self.outbox.dropped();
        let failed = self.refusals.total() + self.outbox.untold() - dropped;
        Ledger {
            totals: self.subscriptions.totals(),
            subscriptions: self.subscriptions.ledgers(),
            published: PublishCounts {
                total,
                // A server may refuse again what it forgot that it refused.
                accepted: total.saturating_sub(failed + dropped + self.abandoned + pending),
                failed,
                dropped,
                abandoned: self.abandoned,
                pending,
            },
        }
    }

    /// Subscribes to a topic or pattern. [`Event::Subscribed`] or [`Event::SubscribeFailed`]
    /// follows, and everything of the subscription goes to `target`.
    ///
    /// # Errors
    /// `InvalidTopic`, `InvalidArgument`, `Closed`.
    pub fn subscribe(
        &mut self,
        target: Target,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<SubId> {
        self.check_open()?;
        let sub = self.subscriptions.open(target, pattern, options)?;
        if self.link.is_ready() {
            self.ask_for(sub.0);
        }
        Ok(sub)
    }

    /// [`subscribe`](Self::subscribe) for one who had the same subscription before, in a session that is
    /// over, and came as far as `cursor`, if it had one: its stream says first whether something is
    /// missing since.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_again(
        &mut self,
        target: Target,
        pattern: &str,
        options: SubscribeOptions,
        cursor: Option<Cursor>,
    ) -> Result<SubId> {
        self.check_open()?;
        let sub = self.subscriptions.open(target, pattern, options)?;
        self.subscriptions.had(sub, cursor);
        if self.link.is_ready() {
            self.ask_for(sub.0);
        }
        Ok(sub)
    }

    /// Ends a subscription: nothing of it follows but [`Event::Unsubscribed`]. Messages that wait
    /// in a mailbox count as cancelled; those among them that want an answer are to be answered
    /// with [`Answer::NoHandler`].
    ///
    /// # Errors
    /// `NotFound` if there is no such subscription (any more), `InvalidArgument` for
    /// [`SubId::DIRECT`].
    pub fn unsubscribe(&mut self, sub: SubId, events: &mut Events) -> Result<()> {
        if sub == SubId::DIRECT {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "direct messages cannot be unsubscribed; ignore them instead",
            ));
        }
        let Some(entry) = self.subscriptions.close(sub.0) else {
            return Err(Error::new(ErrorKind::NotFound, "there is no such subscription any more"));
        };
        let detail = entry.pattern.as_ref().map_or("", |pattern| pattern.as_str());
        self.timeline.note(self.now, "unsubscribed", detail);
        if entry.phase != Phase::Ended && (self.link.is_ready() || self.link.is_shaking_hands()) {
            self.closing.insert(sub.0, entry.target);
            if self.link.is_ready() {
                self.say(&Frame::Unsubscribe { sub: sub.0 });
            }
        } else {
            // The server learns it from the next HELLO, which does not list the subscription.
            events.push((entry.target, Event::Unsubscribed { sub }));
        }
        Ok(())
    }

    /// Ends a subscription whose host is gone: what is open of it is answered with
    /// [`Answer::NoHandler`], and nothing is told. Nothing happens if it has ended.
    pub fn abandon(&mut self, sub: SubId) {
        self.answers.refuse_all(sub);
        // An error means that it has ended, or never ends.
        let _ = self.unsubscribe(sub, &mut Events::new());
    }

    /// The host handed `count` more messages of the subscription to its handler or iterator, and
    /// is done with them: the server may send as many more.
    #[inline]
    pub fn consumed(&mut self, sub: SubId, count: u64) {
        self.subscriptions.consume(sub.0, count);
        if self.credit_at.is_none() && self.subscriptions.has_lazy() && self.link.is_ready() {
            self.credit_at = Some(self.now + CREDIT_DELAY);
        }
    }

    /// Queues a message and returns its number: 1, 2, 3, …
    ///
    /// With [`OutboxOverflow::DropOldest`](crate::options::OutboxOverflow::DropOldest) a full outbox drops the oldest messages not on their way,
    /// and [`Session::tick`], which is due at once then, tells of them.
    ///
    /// # Errors
    /// Nothing is queued on `OutboxFull`, `PayloadTooLarge`, `InvalidTopic`, `InvalidArgument`,
    /// `ReceiptUnavailable`, `LimitExceeded` (acks), `Unsupported` (retain) and `Closed`. A later
    /// refusal by the server is an [`Event::PublishFailed`].
    #[inline]
    pub fn publish(
        &mut self,
        now: Time,
        to: Destination<'_>,
        content_type: ContentType,
        payload: &[u8],
        options: &PublishOptions<'_>,
    ) -> Result<u64> {
        self.check_open()?;
        if let Some(extras) = options.extras.filter(|extras| !extras.is_plain()) {
            self.check_policies(extras, options)?;
        }
        if let Some(level) = options.receipt {
            self.check_level(level, to)?;
        }
        if options.ack.is_some() {
            self.acks.check_room()?;
        }
        if options.retain && self.can_retain == Some(false) {
            return Err(publish::cannot_retain());
        }
        let published = self.outbox.publish(now, to, content_type, payload, options);
        let number = match (published, options.extras) {
            (Ok(number), None) => number,
            (Ok(number), Some(extras)) => {
                self.note_policies(number, to, extras);
                number
            }
            (Err(error), Some(extras)) if extras.private => return Err(error.without_quotes()),
            (Err(error), _) => return Err(error),
        };
        if !self.pressed && self.outbox.room() != Room::Free {
            self.note_pressure(now);
        }
        if let Some(ack) = &options.ack {
            let deadline = now + ack.timeout + acks::GRACE;
            self.acks.open(number, ack.target, deadline, ack.request);
        }
        if let Some(level) = options.receipt.filter(|level| *level > ReceiptLevel::Queued) {
            self.receipts.watch(number, level, options.target);
        }
        Ok(number)
    }

    #[cold]
    fn note_pressure(&mut self, now: Time) {
        // Who publishes does not always say when it is.
        self.now = self.now.max(now);
        self.pressed = true;
        self.pressure_untold = true;
        self.timeline.note(self.now, "backpressure", "on");
    }

    /// Whether the outbox has risen above its soft bound and [`Session::tell_pressure`] is to say so.
    #[inline]
    pub fn owes_pressure(&self) -> bool {
        self.pressure_untold
    }

    /// Tells, once, that the outbox has risen above its soft bound.
    pub fn tell_pressure(&mut self, events: &mut Events) {
        if std::mem::take(&mut self.pressure_untold) {
            events.push((self.config.target, Event::Backpressure { on: true }));
        }
    }

    /// Whether every accepted publish is told as [`Event::MessagePublished`] from now on.
    pub fn tell_published(&mut self, on: bool) {
        self.tells_published = on;
    }

    /// Asks for [`Event::Receipt`] when the publish reaches `level`, or [`Event::PublishFailed`]
    /// if it never will. True, and no event, if it is there already.
    ///
    /// # Errors
    /// `ReceiptUnavailable`, or why the publish failed. Of the last 1,048,576 publishes it is remembered
    /// which are stored, and of 1024 failures why; an older message answers `stored` with
    /// `ReceiptUnavailable`, because nobody knows any more.
    pub fn watch(&mut self, number: u64, level: ReceiptLevel, target: Target) -> Result<bool> {
        self.check_kept(level)?;
        if let Some(error) = self.refusals.find(number) {
            return Err(error.clone());
        }
        let reached = match level {
            ReceiptLevel::Queued => true,
            ReceiptLevel::QueuedOnDisk if self.outbox.policies.is_in_memory(number) => {
                return Err(unavailable(level, IN_MEMORY));
            }
            ReceiptLevel::QueuedOnDisk => {
                let reached = number <= self.on_disk.max(self.outbox.accepted());
                if let Some(error) = self.disk_error.as_ref().filter(|_| !reached) {
                    return Err(error.clone());
                }
                reached
            }
            ReceiptLevel::Stored => self.check_stored(number)?,
            _ => number <= self.outbox.accepted(),
        };
        if !reached {
            self.check_open()?;
            self.receipts.watch(number, level, target);
            self.hurry = self.hurry.max(Some(number));
        }
        Ok(reached)
    }

    /// Whether it is stored; an error if nobody can say that it is or will be.
    fn check_stored(&self, number: u64) -> Result<bool> {
        if self.outbox.was_stored(number) {
            return Ok(true);
        }
        let is_open = self.outbox.is_unstored(number) || self.refusals.is_waiting(number);
        if is_open || self.history == Kept::Unknown {
            return Ok(false);
        }
        self.check_open()?;
        let problem = match self.outbox.remembers(number) {
            true => NOT_STORED,
            false => "the message is so old that nobody knows any more whether it was stored",
        };
        Err(unavailable(ReceiptLevel::Stored, problem))
    }

    /// Asks for [`Event::Flushed`] when everything published so far is accepted or refused. True,
    /// and no event, if it is already.
    ///
    /// # Errors
    /// `Closed`, if it never will be.
    pub fn flush(&mut self, target: Target) -> Result<bool> {
        self.check_open()?;
        if self.outbox.is_settled() {
            return Ok(true);
        }
        let last = self.outbox.last();
        self.receipts.watch_flush(last, target);
        self.hurry = Some(last);
        Ok(false)
    }

    /// The host has everything up to this publish on disk.
    pub fn persisted(&mut self, number: u64, events: &mut Events) {
        self.on_disk = self.on_disk.max(number);
        self.receipts.reach(self.on_disk, ReceiptLevel::QueuedOnDisk, events);
    }

    /// The host cannot keep more than it has on disk: who waits for that is told so. What was
    /// published stays in memory.
    pub fn persist_failed(&mut self, error: &Error, events: &mut Events) {
        for number in self.receipts.waiting_for(ReceiptLevel::QueuedOnDisk) {
            self.refuse_receipt(number, ReceiptLevel::QueuedOnDisk, error, events);
        }
        self.disk_error = Some(error.clone());
    }

    /// The publish will not reach this level; other levels it still may.
    fn refuse_receipt(
        &mut self,
        number: u64,
        level: ReceiptLevel,
        error: &Error,
        events: &mut Events,
    ) {
        let id = self.outbox.id_of(number);
        for target in self.receipts.fail_at(number, level) {
            let (id, error) = (id.clone(), error.clone());
            events.push((target, Event::PublishFailed { number, id, error }));
        }
    }

    /// Every publish up to this one is accepted and, if its topic is stored, stored; or it failed. The
    /// host need not keep it any more.
    pub fn released(&self) -> u64 {
        self.outbox.released()
    }

    /// Whether [`Session::tick`] has messages to name that a full outbox dropped.
    #[inline]
    pub fn has_dropped(&self) -> bool {
        self.outbox.untold() > 0
    }

    /// Publishes that were given up though others before them are still kept, each told once: the host
    /// need not keep them.
    pub fn take_given_up(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.given_up)
    }

    /// How full the outbox is.
    #[inline]
    pub fn room(&self) -> Room {
        self.outbox.room()
    }

    /// Asks for one [`Event::Room`] when the outbox is below its soft bound. True, and no event,
    /// if it is already.
    pub fn watch_room(&mut self, target: Target) -> bool {
        let free = self.outbox.room() == Room::Free || self.link.is_closed();
        if !free {
            self.receipts.watch_room(target);
        }
        free
    }

    /// Which recipients a publish has and, where known, whether they acked. `None` when the ack is
    /// over, or its recipients are not known yet.
    pub fn ack_status(&self, number: u64) -> Option<Vec<(Arc<str>, Option<bool>)>> {
        self.acks.status(number)
    }

    /// Acks that are not over.
    pub fn open_acks(&self) -> usize {
        self.acks.len()
    }

    /// Stops waiting for an ack: open rows end as cancelled, and handlers of a request are told.
    /// Nothing happens if it is over.
    pub fn cancel_ack(&mut self, number: u64, events: &mut Events) {
        let error = Error::new(ErrorKind::Cancelled, "the publisher cancelled");
        if self.acks.end(number, RowStatus::Cancelled, &error, events) {
            self.cancels.push(number);
        }
    }

    /// Answers a delivery, once.
    ///
    /// # Errors
    /// `NotFound` if nobody waits for it any more, `PayloadTooLarge` (the delivery stays open).
    pub fn answer(&mut self, delivery: u64, answer: &Answer) -> Result<()> {
        self.answers.answer(delivery, answer, self.outbox.max_payload())
    }

    /// Uses another token from now on.
    pub fn set_token(&mut self, token: String) {
        if self.link.is_ready() {
            self.say(&Frame::Auth { token: &token });
        }
        self.config.token = Some(token);
    }

    fn check_open(&self) -> Result<()> {
        if self.link.is_closed() { Err(closed()) } else { Ok(()) }
    }

    /// Whether a publish with these options is possible now.
    #[cold]
    fn check_policies(&self, extras: &Extras, options: &PublishOptions<'_>) -> Result<()> {
        if options.retain {
            return Err(Error::new(ErrorKind::InvalidArgument, RETAINED_IS_FOR_ALL));
        }
        if self.knows_policies == Some(false) {
            return Err(policies::unsupported());
        }
        if extras.offline == Offline::Drop && !self.link.is_ready() {
            return Err(policies::offline());
        }
        match options.receipt {
            Some(level @ ReceiptLevel::Stored) if extras.private => {
                Err(unavailable(level, "a private message is not stored"))
            }
            Some(level @ ReceiptLevel::QueuedOnDisk) if policies::stays_in_memory(extras) => {
                Err(unavailable(level, IN_MEMORY))
            }
            _ => Ok(()),
        }
    }

    /// While the client is offline, the newest publish with the policy `latest` takes the place of the one
    /// before on its topic.
    fn note_policies(&mut self, number: u64, to: Destination<'_>, extras: &Extras) {
        let topic = match to {
            Destination::Topic(topic) => Some(topic),
            Destination::Client(_) | Destination::Server(_) => None,
        };
        let before = self.outbox.policies.note(number, topic, extras);
        if let Some(before) = before.filter(|_| !self.link.is_ready()) {
            self.outbox.replace(before, policies::replaced());
        }
    }

    fn refusal(&self, number: u64, error: Error) -> Refusal {
        let private = self.outbox.policies.is_private(number);
        Refusal { id: self.outbox.id_of(number), private, error }
    }

    /// A level that this message cannot reach fails at once; before the first handshake nobody knows.
    fn check_level(&mut self, level: ReceiptLevel, to: Destination<'_>) -> Result<()> {
        self.check_kept(level)?;
        if level != ReceiptLevel::Stored || self.history == Kept::Unknown {
            return Ok(());
        }
        match to {
            Destination::Topic(topic) if self.outbox.is_stored(topic) => Ok(()),
            _ => Err(unavailable(level, "the server keeps no history of this topic")),
        }
    }

    fn check_kept(&self, level: ReceiptLevel) -> Result<()> {
        let problem = match (level, self.history) {
            (ReceiptLevel::Queued | ReceiptLevel::Accepted, _)
            | (ReceiptLevel::Stored, Kept::Unknown | Kept::OnDisk) => return Ok(()),
            (ReceiptLevel::Stored, Kept::InMemory) => "the server keeps its history in memory",
            (ReceiptLevel::Stored, Kept::No) => "the server keeps no history",
            (ReceiptLevel::QueuedOnDisk, _) if self.config.outbox_on_disk => return Ok(()),
            (ReceiptLevel::QueuedOnDisk, _) => "this client's outbox is in memory",
            (ReceiptLevel::Replicated, _) => "the server is not a cluster",
        };
        Err(unavailable(level, problem))
    }

    /// Queues a control frame.
    fn say(&mut self, frame: &Frame<'_>) {
        self.control.append(CONTROL, |out| encode(frame, out));
    }

    /// Queues the `SUB` of a subscription.
    fn ask_for(&mut self, sub: u32) {
        if let Some(entry) = self.subscriptions.find(sub)
            && let Some(frame) = entry.frame(sub)
        {
            self.control.append(CONTROL, |out| encode(&Frame::Subscribe(frame), out));
        }
    }
}

/// What the server keeps, as it said in its last `WELCOME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Unknown,
    No,
    InMemory,
    OnDisk,
}

const IN_MEMORY: &str =
    "a message that is private, or does not wait for a connection, stays in memory";

const NOT_STORED: &str = "the server does not store this topic; the message itself is published";

fn unavailable(level: ReceiptLevel, problem: &str) -> Error {
    Error::new(ErrorKind::ReceiptUnavailable, format!("{}: {problem}", level.as_str()))
}

/// Bytes that must not be seen, not even by someone who looks for a mistake.
#[derive(Default)]
struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "hidden" })
    }
}

/// About what a control frame takes, in bytes.
const CONTROL: usize = 64;

#[cold]
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client is closed; connect a new one")
}
