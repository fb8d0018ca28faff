//! Subscriptions: made, credited, closed.

use std::sync::Arc;

use super::{
    Bus, Output,
    ledger::Ledger,
    queue::{Bounds, Queue},
    state::{PortId, SessionKey, SubKey, Subscription},
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    message::{Gap, GapReason, RowStatus},
    options::Overflow,
    topic::Pattern,
    wire::frame::{REPORTS, Reference, Start, Subscribe},
};

impl Bus {
    pub(super) fn subscribe(
        &mut self,
        port: PortId,
        key: SessionKey,
        frame: &Subscribe<'_>,
    ) -> Result<()> {
        let output = match self.try_subscribe(key, frame) {
            Ok(()) => Output::Subscribed { sub: frame.sub },
            Err(error) => Output::Error { reference: Reference::Subscription(frame.sub), error },
        };
        let failed = matches!(output, Output::Error { .. });
        self.ports[port].controls.push_back(output);
        if frame.again && !failed {
            let gap = Gap {
                topic: frame.pattern.into(),
                count: None,
                first: None,
                last: None,
                reason: GapReason::SessionExpired,
            };
            let sub = self.sessions[key].subs[&frame.sub];
            self.subscriptions[sub].queue.note_gap(gap);
            self.schedule(sub);
        }
        self.mark_ready(port);
        Ok(())
    }

    fn try_subscribe(&mut self, key: SessionKey, frame: &Subscribe<'_>) -> Result<()> {
        let limits = &self.config.limits;
        let session = &self.sessions[key];
        let pattern = Pattern::parse(frame.pattern)?;
        if let Some(existing) = session.subs.get(&frame.sub) {
            if self.subscriptions[*existing].pattern == pattern {
                return Ok(());
            }
            return invalid(format!("subscription number {} is in use", frame.sub));
        }
        if frame.sub == 0 || frame.sub == REPORTS {
            return invalid("subscription numbers are between 1 and 2^32 - 2");
        }
        if frame.group.len() > limits.id {
            return invalid(format!("the group's name is over {} bytes", limits.id));
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
        if self.config.forbid_block && frame.overflow == Overflow::Block {
            return invalid("this server forbids overflow \"block\"; choose another policy");
        }
        if frame.start != Start::New || !frame.durable.is_empty() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this server keeps no history: subscribe with start \"new\" and without durable",
            ));
        }
        session.principal.check_subscribe(frame.pattern)?;
        let group = (!frame.group.is_empty()).then(|| Arc::from(frame.group));
        let messages = if frame.capacity == 0 { u32::MAX } else { frame.capacity };
        let bounds = Bounds {
            overflow: frame.overflow,
            messages: messages as usize,
            bytes: limits.queue_bytes,
            window: frame.window.clamp(1, messages) as usize,
            window_bytes: usize::try_from(frame.window_bytes.max(1))
                .unwrap_or(usize::MAX)
                .min(limits.queue_bytes),
        };
        let space = session.space;
        let sub = self.insert_subscription(key, frame.sub, pattern.clone(), group, bounds);
        self.sessions[key].subs.insert(frame.sub, sub);
        self.spaces[space].insert(&pattern, sub);
        Ok(())
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
        let Some(mut sub) = self.subscriptions.remove(key) else { return };
        let space = self.sessions[sub.session].space;
        self.spaces[space].remove(&sub.pattern, key);
        let pending = sub.queue.messages() as u64;
        if status == RowStatus::Disconnected {
            sub.count.dropped += pending;
        } else {
            sub.count.cancelled += pending;
        }
        self.closed = self.closed + sub.count;
        for delivery in sub.queue.waiting_deliveries() {
            self.settle_delivery(now, sub.session, delivery, status);
        }
        for waiter in sub.waiters {
            self.unpark(now, waiter);
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
        if std::mem::replace(&mut sub.closing, true) {
            return;
        }
        let session = sub.session;
        let mut dropped = Vec::new();
        sub.count.dropped += sub.queue.close(error, reason, |delivery| dropped.push(delivery));
        let waiters = std::mem::take(&mut sub.waiters);
        let space = self.sessions[session].space;
        self.spaces[space].remove(&sub.pattern, key);
        for delivery in dropped {
            self.settle_delivery(now, session, delivery, RowStatus::Dropped);
        }
        self.schedule(key);
        for waiter in waiters {
            self.unpark(now, waiter);
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
            self.unpark(now, waiter);
        }
    }
}

fn invalid<T>(message: impl Into<std::borrow::Cow<'static, str>>) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidArgument, message))
}
