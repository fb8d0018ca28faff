//! Subscriptions: made, credited, closed.

use std::sync::Arc;

use super::{
    Bus, Output,
    ledger::Ledger,
    queue::{Bounds, Queue},
    replay::{Beginning, unknown_gap},
    state::{DurableKey, ParkedOn, PortId, SessionKey, SubKey, Subscription},
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    history::ReadFrom,
    message::{GapReason, RowStatus},
    options::Overflow,
    topic::{DOCUMENTS, Pattern},
    wire::frame::{REPORTS, Reference, Start, Subscribe},
};

impl Bus {
    pub(super) fn subscribe(
        &mut self,
        now: Time,
        port: PortId,
        key: SessionKey,
        frame: &Subscribe<'_>,
    ) -> Result<()> {
        let asked = self.try_subscribe(now, key, frame);
        let output = match &asked {
            Ok(_) => {
                let cursor = self.has_history().then(|| self.cursor_now());
                Output::Subscribed { sub: frame.sub, cursor }
            }
            Err(error) => Output::Error {
                reference: Reference::Subscription(frame.sub),
                error: error.clone(),
            },
        };
        self.ports[port].controls.push_back(output);
        if let Ok(Some(opened)) = asked {
            self.begin(now, port, opened, frame);
        }
        self.mark_ready(port);
        Ok(())
    }

    /// The new subscription; `None` if it is in force already.
    fn try_subscribe(
        &mut self,
        now: Time,
        key: SessionKey,
        frame: &Subscribe<'_>,
    ) -> Result<Option<Opened>> {
        let limits = &self.config.limits;
        let session = &self.sessions[key];
        let pattern = Pattern::parse(frame.pattern)?;
        if let Some(existing) = session.subs.get(&frame.sub) {
            if self.subscriptions[*existing].pattern == pattern {
                return Ok(None);
            }
            return invalid(format!("subscription number {} is in use", frame.sub));
        }
        if frame.sub == 0 || frame.sub == REPORTS {
            return invalid("subscription numbers are between 1 and 2^32 - 2");
        }
        if frame.group.len() > limits.id || frame.durable.len() > limits.id {
            return invalid(format!("a group's or durable's name is over {} bytes", limits.id));
        }
        if session.subs.len() >= limits.subscriptions {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "a client may hold {} subscriptions; use wildcards or unsubscribe some",
                    limits.subscriptions
                ),
            ));
        }
        if !frame.durable.is_empty() && frame.overflow != Overflow::Block {
            return invalid(
                "a durable subscription has no overflow policy: what its clients have no room for waits \
                 in history, and its publishers do not",
            );
        }
        let blocks = frame.durable.is_empty() && frame.overflow == Overflow::Block;
        if self.config.forbid_block && blocks {
            return invalid("this server forbids overflow \"block\"; choose another policy");
        }
        session.principal.check_subscribe(&pattern)?;
        self.check_history(&pattern, frame)?;
        let beginning = self.beginning(now, frame.start)?;
        let beginning = self.look_for_loss(beginning, frame);
        let space = session.space;
        let durable = match frame.durable {
            "" => None,
            name => {
                let from = beginning
                    .map_or(ReadFrom::After(self.history.last()), |beginning| beginning.from);
                let key = self.durable(space, name, &pattern, from, frame.redelivery)?;
                if frame.again {
                    self.doubt(key);
                }
                Some(key)
            }
        };
        // Who does not read what happens to documents must not stop those who write them.
        let is_told = pattern.as_str().starts_with(DOCUMENTS);
        let overflow = if blocks && is_told { Overflow::DropOldest } else { frame.overflow };
        let limits = &self.config.limits;
        let group = (!frame.group.is_empty()).then(|| Arc::from(frame.group));
        let messages = if frame.capacity == 0 { u32::MAX } else { frame.capacity };
        let bounds = Bounds {
            overflow,
            messages: messages as usize,
            bytes: limits.queue_bytes,
            window: frame.window.clamp(1, messages) as usize,
            window_bytes: usize::try_from(frame.window_bytes.max(1))
                .unwrap_or(usize::MAX)
                .min(limits.queue_bytes),
        };
        let sub = self.insert_subscription(key, frame.sub, pattern.clone(), group, bounds);
        self.sessions[key].subs.insert(frame.sub, sub);
        if durable.is_none() {
            self.spaces[space].insert(&pattern, sub);
        }
        self.observe_opened(sub);
        Ok(Some(Opened { sub, beginning, durable }))
    }

    /// What is asked of the past must be something this server keeps.
    fn check_history(&self, pattern: &Pattern, frame: &Subscribe<'_>) -> Result<()> {
        let spills = frame.overflow == Overflow::Spill;
        if frame.start == Start::New && frame.durable.is_empty() && !spills {
            return Ok(());
        }
        let is_past = frame.start != Start::Last || !frame.durable.is_empty() || spills;
        if is_past && !self.has_history() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this server keeps no history: start it with --history, or subscribe with start \
                 \"new\" or \"last\" and without durable",
            ));
        }
        if (spills || !frame.durable.is_empty()) && !self.keeps_all_of(pattern) {
            let what = if spills { "overflow \"spill\"" } else { "a durable subscription" };
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{what} needs history of all its topics, and {:?} has not: \
                     start the server with --history {:?}",
                    pattern.as_str(),
                    pattern.as_str()
                ),
            ));
        }
        if frame.durable.is_empty() && !frame.group.is_empty() {
            return invalid(
                "a group without durable starts with \"new\" and does not spill: its members share \
                 what comes, not what was; give it a durable name",
            );
        }
        Ok(())
    }

    /// A subscription that goes on without a cursor goes on in another store than it was in: what
    /// it did not get of that one is gone.
    fn look_for_loss(
        &self,
        beginning: Option<Beginning>,
        frame: &Subscribe<'_>,
    ) -> Option<Beginning> {
        let is_foreign = |epoch| epoch != self.config.epoch && self.history.is_foreign(epoch);
        if !frame.again || !frame.epoch.is_some_and(is_foreign) {
            return beginning;
        }
        let lost = Some(GapReason::NewEpoch);
        match beginning {
            Some(beginning) => Some(Beginning { lost: beginning.lost.or(lost), ..beginning }),
            // What came in this run before its clients were there again is its to have.
            None if !frame.durable.is_empty() => {
                Some(Beginning { from: ReadFrom::After(self.history.start()), lost })
            }
            None => None,
        }
    }

    /// Whether every topic that matches has history.
    fn keeps_all_of(&self, pattern: &Pattern) -> bool {
        self.config.history.rules.iter().any(|rule| rule.pattern.covers(pattern))
    }

    /// Lets a subscription that was confirmed begin where it was asked to.
    fn begin(&mut self, now: Time, port: PortId, opened: Opened, frame: &Subscribe<'_>) {
        let Opened { sub, beginning, durable } = opened;
        let pattern = self.subscriptions[sub].pattern.clone();
        if let Some(durable) = durable {
            self.join_durable(now, durable, sub);
            let lost = beginning.and_then(|beginning| beginning.lost);
            if let Some(reason) = lost {
                let gap = unknown_gap(pattern.text().clone(), reason);
                self.subscriptions[sub].queue.note_gap(gap);
                self.schedule(sub);
            } else if frame.again {
                let replayed = self.subscriptions[sub].queue.messages() as u64;
                let replayed = replayed + self.backlog(durable);
                self.ports[port].controls.push_back(Output::Resumed { sub: frame.sub, replayed });
            }
            return;
        }
        let resumes = frame.again && beginning.is_some() && self.keeps_all_of(&pattern);
        let lost = beginning.and_then(|beginning| beginning.lost);
        if let Some(reason) =
            lost.or((frame.again && !resumes).then_some(GapReason::SessionExpired))
        {
            let gap = unknown_gap(pattern.text().clone(), reason);
            self.subscriptions[sub].queue.note_gap(gap);
            self.schedule(sub);
        }
        let beginning = beginning.filter(|_| self.has_history());
        let by_cursor = frame.start != Start::Last;
        // Where nothing was missed, nothing is to be told again.
        if !by_cursor || frame.again && frame.retained && !resumes {
            self.start_walk(sub, !by_cursor && beginning.is_some(), by_cursor);
        }
        if let Some(beginning) = beginning {
            let (wants_all, resumed) = (frame.start == Start::All, resumes && lost.is_none());
            self.start_replay(sub, beginning.from, wants_all, resumed);
        }
        if self.walk(now, sub) {
            self.read_on(sub);
        }
    }

    /// A subscription whose client is there again, or has room again, gets what waits elsewhere.
    pub(super) fn go_on(&mut self, now: Time, key: SubKey) {
        let Some(sub) = self.subscriptions.get(key) else { return };
        if sub.walk.as_ref().is_some_and(|walk| walk.is_ready()) {
            if self.walk(now, key) {
                self.read_on(key);
            }
        } else if sub.replay.is_some() {
            self.read_on(key);
        } else if let Some(durable) = sub.member.as_ref().map(|member| member.durable) {
            self.hand_out(now, durable);
        }
    }

    pub(super) fn insert_subscription(
        &mut self,
        session: SessionKey,
        number: u32,
        pattern: Pattern,
        group: Option<Arc<str>>,
        bounds: Bounds,
    ) -> SubKey {
        let queue = Queue::new(bounds, pattern.text().clone());
        self.subscriptions.insert(Subscription {
            session,
            number,
            pattern,
            group,
            queue,
            scheduled: false,
            closing: false,
            waiters: Vec::new(),
            stalled_since: None,
            replay: None,
            walk: None,
            member: None,
            count: Ledger::default(),
        })
    }

    pub(super) fn unsubscribe(
        &mut self,
        now: Time,
        port: PortId,
        session: SessionKey,
        number: u32,
    ) {
        if let Some(sub) = self.sessions[session].subs.remove(&number) {
            self.remove_subscription(now, sub, RowStatus::NoHandler);
        }
        self.ports[port].controls.push_back(Output::Unsubscribed { sub: number });
        self.mark_ready(port);
    }

    /// Forgets a subscription; deliveries that never left get rows with `status`.
    pub(super) fn remove_subscription(&mut self, now: Time, key: SubKey, status: RowStatus) {
        self.end_replay(key);
        self.end_walk(key);
        let Some(sub) = self.subscriptions.get(key) else { return };
        let pending = sub.queue.messages() as u64;
        if status == RowStatus::Disconnected {
            self.observe_drop(now, key, pending, GapReason::SessionExpired);
        }
        self.observe_closed(key);
        let Some(mut sub) = self.subscriptions.remove(key) else { return };
        let space = self.sessions[sub.session].space;
        self.spaces[space].remove(&sub.pattern, key);
        if status == RowStatus::Disconnected {
            sub.count.dropped += pending;
        } else {
            sub.count.cancelled += pending;
        }
        self.closed = self.closed + sub.count;
        // First of all, so that it is given nothing more.
        if let Some(member) = &sub.member {
            let broke = status == RowStatus::Disconnected;
            self.leave_durable(now, member.durable, key, broke);
        }
        for delivery in sub.queue.waiting_deliveries() {
            self.settle_delivery(now, sub.session, delivery, status);
        }
        for waiter in sub.waiters {
            self.unpark(now, waiter, ParkedOn::Sub(key));
        }
    }

    /// The broker ends a subscription: its stream ends with a gap and `error`.
    pub(super) fn close_subscription(
        &mut self,
        now: Time,
        key: SubKey,
        error: Error,
        reason: GapReason,
    ) {
        let sub = &mut self.subscriptions[key];
        if sub.closing {
            return;
        }
        let session = sub.session;
        let mut dropped = Vec::new();
        let lost = sub.queue.close(error, reason, |delivery| dropped.push(delivery));
        sub.count.dropped += lost;
        self.observe_drop(now, key, lost, reason);
        self.observe_closed(key);
        let sub = &mut self.subscriptions[key];
        sub.closing = true;
        let waiters = std::mem::take(&mut sub.waiters);
        let space = self.sessions[session].space;
        self.spaces[space].remove(&sub.pattern, key);
        for delivery in dropped {
            self.settle_delivery(now, session, delivery, RowStatus::Dropped);
        }
        self.end_replay(key);
        self.end_walk(key);
        if let Some(member) = self.subscriptions[key].member.take() {
            self.leave_durable(now, member.durable, key, false);
        }
        self.schedule(key);
        for waiter in waiters {
            self.unpark(now, waiter, ParkedOn::Sub(key));
        }
    }

    pub(super) fn credit(&mut self, now: Time, key: SessionKey, number: u32, consumed: u64) {
        let session = &mut self.sessions[key];
        if number == REPORTS {
            return session.reports.release(consumed);
        }
        let sub = if number == 0 { Some(&session.direct) } else { session.subs.get(&number) };
        let Some(sub) = sub.copied() else { return };
        let delivered = self.subscriptions[sub].queue.credit(consumed);
        self.took(now, sub, delivered);
    }

    /// A subscription's client took `delivered` messages for good.
    pub(super) fn took(&mut self, now: Time, key: SubKey, delivered: u64) {
        let sub = &mut self.subscriptions[key];
        sub.count.delivered += delivered;
        if sub.closing && sub.queue.is_finished() {
            let (session, number) = (sub.session, sub.number);
            self.sessions[session].subs.remove(&number);
            return self.remove_subscription(now, key, RowStatus::NoHandler);
        }
        self.schedule(key);
        self.go_on(now, key);
        if delivered > 0 {
            self.moved(now, key);
        }
    }

    /// A subscription's queue has room again.
    pub(super) fn moved(&mut self, now: Time, key: SubKey) {
        let Some(sub) = self.subscriptions.get_mut(key) else { return };
        sub.stalled_since = None;
        if sub.number == 0 {
            sub.queue.set_overflow(Overflow::Block);
        }
        for waiter in std::mem::take(&mut sub.waiters) {
            self.unpark(now, waiter, ParkedOn::Sub(key));
        }
    }
}

/// A subscription just made.
struct Opened {
    sub: SubKey,
    /// Where it begins; `None`: with what comes.
    beginning: Option<Beginning>,
    durable: Option<DurableKey>,
}

fn invalid<T>(message: impl Into<std::borrow::Cow<'static, str>>) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidArgument, message))
}
