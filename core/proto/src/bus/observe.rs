//! What the bus tells of its own state: each change once, and floods merged, so that the news stays
//! small whatever its clients do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Bus, Notice, Published,
    state::{SubKey, Timer},
};
use crate::{clock::Time, message::GapReason, topic::RESERVED};

/// Drops are summed up over so long, and pressure is over when nobody had to wait for so long: a
/// queue at its bound goes to and fro many times a second.
const SETTLE: Duration = Duration::from_secs(1);

/// What is merged and not told yet.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Somebody wants to hear of every message.
    messages: bool,
    dropped: BTreeMap<(SubKey, GapReason), u64>,
    /// Subscriptions that publishers wait for, with when one last had to.
    pressed: BTreeMap<SubKey, Time>,
    /// When [`Timer::Survey`] is due.
    due: Option<Time>,
}

impl Bus {
    /// Whether [`Notice::Published`] tells of every message from now on.
    pub fn observe_messages(&mut self, on: bool) {
        self.observed.messages = on;
    }

    /// A message was accepted.
    #[inline]
    pub(super) fn observe_message(&mut self, published: &Arc<Published>) {
        if self.observed.messages {
            self.notices.push_back(Notice::Published(published.clone()));
        }
    }

    /// A subscription lost `count` messages.
    pub(super) fn observe_drop(&mut self, now: Time, key: SubKey, count: u64, reason: GapReason) {
        if count > 0 {
            *self.observed.dropped.entry((key, reason)).or_default() += count;
            self.survey_later(now);
        }
    }

    /// A publisher had to wait for room in the subscription.
    pub(super) fn observe_pressure(&mut self, now: Time, key: SubKey) {
        if self.observed.pressed.insert(key, now).is_none() {
            self.tell_pressure(key, true);
            self.survey_later(now);
        }
    }

    /// The subscription is there and its client knows it.
    pub(super) fn observe_opened(&mut self, key: SubKey) {
        if self.is_servers_own(key) {
            return;
        }
        let (client_id, topic) = self.whose(key);
        self.notices.push_back(Notice::SubscriptionOpened { client_id, topic });
    }

    /// Whether the server answers calls there: that is no news.
    fn is_servers_own(&self, key: SubKey) -> bool {
        let sub = &self.subscriptions[key];
        self.sessions[sub.session].principal.is_server && sub.pattern.as_str().starts_with(RESERVED)
    }

    /// The subscription ends: what was not told of it is told now.
    pub(super) fn observe_closed(&mut self, key: SubKey) {
        for (reason, count) in self.take_drops(key) {
            self.tell_drops(key, count, reason);
        }
        if self.observed.pressed.remove(&key).is_some() {
            self.tell_pressure(key, false);
        }
        if self.observed.is_settled()
            && let Some(due) = self.observed.due.take()
        {
            self.timers.remove(&(due, Timer::Survey));
        }
        let (client_id, topic) = self.whose(key);
        let sub = &self.subscriptions[key];
        // Told when the bus closed it; and nobody opens or closes the one to a client's own id.
        if !sub.closing && sub.number != 0 && !self.is_servers_own(key) {
            self.notices.push_back(Notice::SubscriptionClosed { client_id, topic });
        }
    }

    /// Tells what was merged, and which queues have settled.
    pub(super) fn survey(&mut self, now: Time) {
        self.observed.due = None;
        for ((key, reason), count) in std::mem::take(&mut self.observed.dropped) {
            self.tell_drops(key, count, reason);
        }
        let settled = self
            .observed
            .pressed
            .iter()
            .filter(|(key, since)| **since + SETTLE <= now && !self.is_waited_for(**key));
        let settled: Vec<SubKey> = settled.map(|(key, _)| *key).collect();
        for key in settled {
            self.observed.pressed.remove(&key);
            self.tell_pressure(key, false);
        }
        if !self.observed.is_settled() {
            self.survey_later(now);
        }
    }

    fn survey_later(&mut self, now: Time) {
        if self.observed.due.is_none() {
            self.observed.due = Some(now + SETTLE);
            self.timers.insert((now + SETTLE, Timer::Survey));
        }
    }

    fn take_drops(&mut self, key: SubKey) -> Vec<(GapReason, u64)> {
        let dropped = &mut self.observed.dropped;
        let reasons = GapReason::ALL.into_iter();
        reasons.filter_map(|reason| Some((reason, dropped.remove(&(key, reason))?))).collect()
    }

    fn tell_drops(&mut self, key: SubKey, count: u64, reason: GapReason) {
        let (client_id, topic) = self.whose(key);
        self.notices.push_back(Notice::Dropped { client_id, topic, count, reason });
    }

    fn tell_pressure(&mut self, key: SubKey, on: bool) {
        let (client_id, topic) = self.whose(key);
        self.notices.push_back(Notice::Backpressure { client_id, topic, on });
    }

    /// The client of a subscription, and what it subscribes to.
    fn whose(&self, key: SubKey) -> (Arc<str>, Arc<str>) {
        let sub = &self.subscriptions[key];
        (self.sessions[sub.session].id.clone(), sub.pattern.text().clone())
    }
}

impl Observed {
    fn is_settled(&self) -> bool {
        self.dropped.is_empty() && self.pressed.is_empty()
    }
}
