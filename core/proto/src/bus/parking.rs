//! Publishers that wait: for room in full `block` subscriptions, or for the store.

use super::{
    Bus,
    publish::Draft,
    state::{Parked, ParkedOn, Session, SessionKey, SubKey, Timer},
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind},
    options::Limits,
};

impl Session {
    /// `draft` waits before all others.
    pub(super) fn park(&mut self, on: ParkedOn, draft: Draft) {
        self.parked_on = Some(on);
        self.parked_bytes += draft.sent_bytes();
        self.parked.push_front(Parked::Message(Box::new(draft)));
    }

    /// Whether its client sent more than it may while the first waits.
    pub(super) fn is_beyond_window(&self, limits: &Limits) -> bool {
        // Between two messages numbers may be skipped, which no window counts.
        self.parked.len() as u64 > limits.publish_window.saturating_mul(2)
            || self.parked_bytes as u64 > limits.publish_window_bytes + limits.payload as u64
    }

    fn next_parked(&mut self) -> Option<Parked> {
        let next = self.parked.pop_front()?;
        if let Parked::Message(draft) = &next {
            self.parked_bytes -= draft.sent_bytes();
        }
        Some(next)
    }

    /// What waits is never published.
    pub(super) fn forget_parked(&mut self) {
        self.parked.clear();
        self.parked_bytes = 0;
        self.parked_on = None;
    }
}

impl Bus {
    /// Makes the publisher wait.
    pub(super) fn park(&mut self, now: Time, key: SessionKey, draft: Draft, full: &[SubKey]) {
        let timings = &self.config.timings;
        let (stall, self_stall) = (timings.stall_timeout, timings.self_stall_timeout);
        let mut own_since = None;
        for target in full {
            let sub = &mut self.subscriptions[*target];
            let since = *sub.stalled_since.get_or_insert_with(|| {
                self.timers.insert((now + stall, Timer::Stall(*target)));
                now
            });
            if sub.session == key {
                own_since = Some(since);
            }
            if !sub.waiters.contains(&key) {
                sub.waiters.push(key);
            }
            self.observe_pressure(now, *target);
        }
        if let Some(since) = own_since {
            let due = since + self_stall;
            if due <= now {
                return self.refuse_deadlock(now, key, draft.number);
            }
            self.timers.insert((due, Timer::SelfStall(key)));
        }
        if let Some(first) = full.first() {
            self.sessions[key].park(ParkedOn::Sub(*first), draft);
        }
    }

    /// Goes on with what a publisher has parked, until it must wait again.
    pub(super) fn unpark(&mut self, now: Time, key: SessionKey, moved: ParkedOn) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        // Room in a subscription is no news to who waits for the store.
        if session.parked_on.is_none_or(|on| (on == ParkedOn::Store) != (moved == ParkedOn::Store))
        {
            return;
        }
        session.parked_on = None;
        while let Some(session) = self.sessions.get_mut(key) {
            if session.parked_on.is_some() {
                return;
            }
            match session.next_parked() {
                None => {
                    if let Some(port) = session.port {
                        self.mark_ready(port);
                    }
                    return;
                }
                Some(Parked::Number(number)) => self.dealt_with(now, key, number, 0, true),
                Some(Parked::Message(draft)) => self.accept(now, key, *draft),
            }
        }
    }

    fn refuse_deadlock(&mut self, now: Time, key: SessionKey, number: u64) {
        let error = Error::new(
            ErrorKind::WouldDeadlock,
            "this client's own subscription is full and does not move while its publish waits; \
             consume first, publish to fewer, or choose another overflow policy",
        );
        self.refuse(key, number, error);
        self.dealt_with(now, key, number, 0, true);
    }

    pub(super) fn check_self_stall(&mut self, now: Time, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ParkedOn::Sub(target)) = session.parked_on else { return };
        let Some(sub) = self.subscriptions.get(target) else { return };
        let stalled = sub.session == key
            && sub
                .stalled_since
                .is_some_and(|since| since + self.config.timings.self_stall_timeout <= now);
        if stalled {
            // Trying again refuses it, and the ones behind it that wait for the same thing.
            self.unpark(now, key, ParkedOn::Sub(target));
        }
    }

    /// Whether a publisher waits for room in the subscription.
    pub(super) fn is_waited_for(&self, key: SubKey) -> bool {
        self.subscriptions.get(key).is_some_and(|sub| {
            let waits = |waiter: &SessionKey| {
                self.sessions.get(*waiter).is_some_and(|session| !session.parked.is_empty())
            };
            !sub.closing && sub.waiters.iter().any(waits)
        })
    }

    pub(super) fn check_stall(&mut self, now: Time, key: SubKey) {
        let timeout = self.config.timings.stall_timeout;
        let waited_for = self.is_waited_for(key);
        let Some(sub) = self.subscriptions.get_mut(key) else { return };
        match sub.stalled_since {
            Some(since) if waited_for && since + timeout <= now => self.close_slow(now, key),
            Some(since) if waited_for => {
                self.timers.insert((since + timeout, Timer::Stall(key)));
            }
            _ => sub.stalled_since = None,
        }
    }
}
