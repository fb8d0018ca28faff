//! What a connection is to send next.

use super::{
    Bus, Output, PortKind,
    publish::LAZY,
    queue::Entry,
    state::{PortId, SubKey, Timer},
};
use crate::{
    clock::Time,
    message::{GapReason, RowStatus},
    wire::frame::Reference,
};

/// Bytes one subscription may take from a pull before the next one has its turn.
const TURN: usize = 64 << 10;

impl Bus {
    /// Appends about `max_bytes` of what `port` is to send to `out`. True if more waits: pull
    /// again when the socket has room. Otherwise the port is named by [`Bus::take_ready`] when
    /// there is something new.
    pub fn pull(
        &mut self,
        now: Time,
        port: PortId,
        max_bytes: usize,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(record) = self.ports.get_mut(port) else { return false };
        let mut size = 0;
        let mut push = |output: Output, out: &mut Vec<Output>| {
            size += output.size();
            out.push(output);
            size < max_bytes
        };
        let mut room = true;
        while room {
            let Some(control) = record.controls.pop_front() else { break };
            room = push(control, out);
        }
        // One whose session ended or went on elsewhere only hears why.
        let session = self.sessions.get_mut(record.session);
        let Some(session) = session.filter(|session| session.port == Some(port)) else {
            record.ready = !record.controls.is_empty();
            return record.ready;
        };
        let reports = &mut session.reports;
        while room {
            let Some(report) = reports.log.get(reports.sent) else { break };
            room = push(report.clone(), out);
            reports.sent += 1;
            if record.kind == PortKind::KpsJson {
                reports.release(reports.received + 1);
            }
        }
        // After the reports: a refusal must be known before its number is confirmed.
        let reported = session.reports.sent == session.reports.log.len();
        let news =
            record.told_published < session.published || record.told_answered < session.answered;
        if reported && news {
            record.told_published = session.published;
            record.told_answered = session.answered;
            record.untold_bytes = 0;
            let (published, answered) = (session.published, session.answered);
            out.push(Output::Accepted { published, answered });
        }
        // Behind the confirmation of the same number.
        let stored = session.stored.min(record.told_published);
        if record.told_stored < stored {
            record.told_stored = stored;
            out.push(Output::Stored { published: stored });
        }
        while room {
            let Some(sub) = self.ports[port].sendable.pop_front() else { break };
            room = self.pull_subscription(now, port, sub, &mut size, max_bytes, out);
        }
        // Also what this very pull has caused.
        let more = !room || self.has_news(port);
        self.ports[port].ready = more;
        more
    }

    /// One subscription's turn. False if `max_bytes` are reached.
    fn pull_subscription(
        &mut self,
        now: Time,
        port: PortId,
        key: SubKey,
        size: &mut usize,
        max_bytes: usize,
        out: &mut Vec<Output>,
    ) -> bool {
        let keep = self.ports[port].kind == PortKind::Native;
        let Some(sub) = self.subscriptions.get_mut(key) else { return true };
        let number = sub.number;
        let end = (*size + TURN).min(max_bytes);
        let mut delivered = 0;
        let mut expired = Vec::new();
        let mut expired_count = 0;
        while *size < end {
            let Some(entry) = sub.queue.take(keep) else { break };
            let output = match entry {
                Entry::Message { published, delivery } if published.is_expired(now) => {
                    sub.queue.expire(&published, keep);
                    sub.count.expired += 1;
                    expired_count += 1;
                    expired.extend(delivery);
                    continue;
                }
                Entry::Message { published, delivery } => {
                    delivered += u64::from(!keep);
                    Output::Deliver { sub: number, published, delivery }
                }
                Entry::Gap(gap) => Output::Gap { sub: number, gap: *gap },
                Entry::Close(error) => {
                    Output::Error { reference: Reference::Subscription(number), error: *error }
                }
            };
            *size += output.size();
            out.push(output);
        }
        let session = sub.session;
        if sub.queue.can_send() {
            self.ports[port].sendable.push_back(key);
        } else {
            sub.scheduled = false;
        }
        self.observe_drop(now, key, expired_count, GapReason::Expired);
        for delivery in expired {
            self.settle_delivery(now, session, delivery, RowStatus::Timeout);
        }
        if !keep {
            self.took(now, key, delivered);
        }
        if expired_count > 0 {
            self.moved(now, key);
        }
        // What was sent makes room for the next page, before its client says that it took it.
        if self.subscriptions.get(key).is_some_and(|sub| sub.replay.is_some() || sub.walk.is_some())
        {
            self.go_on(now, key);
        }
        *size < max_bytes
    }

    /// Puts a subscription in line if it has something that may be sent.
    pub(super) fn schedule(&mut self, key: SubKey) {
        let sub = &mut self.subscriptions[key];
        if sub.scheduled || !sub.queue.can_send() {
            return;
        }
        if let Some(port) = self.sessions[sub.session].port {
            sub.scheduled = true;
            self.ports[port].sendable.push_back(key);
            self.mark_ready(port);
        }
    }

    pub(super) fn mark_ready(&mut self, id: PortId) {
        let port = &mut self.ports[id];
        if !std::mem::replace(&mut port.ready, true) {
            self.ready.push(id);
        }
    }

    /// Something waits that need not travel alone: it goes with the next thing, or after
    /// [`LAZY`].
    pub(super) fn say_later(&mut self, now: Time, id: PortId) {
        let port = &mut self.ports[id];
        if !port.ready && !std::mem::replace(&mut port.lazy, true) {
            self.timers.insert((now + LAZY, Timer::Lazy(id)));
        }
    }

    pub(super) fn lazy_due(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(id) else { return };
        port.lazy = false;
        self.say_now(id);
    }

    /// What was held back travels now.
    pub(super) fn say_now(&mut self, id: PortId) {
        if self.has_news(id) {
            self.mark_ready(id);
        }
    }

    /// Whether there is something to say that belongs to no subscription.
    fn has_news(&self, id: PortId) -> bool {
        let Some(port) = self.ports.get(id) else { return false };
        let session = self.sessions.get(port.session).filter(|session| session.port == Some(id));
        !port.controls.is_empty()
            || session.is_some_and(|session| {
                port.told_published < session.published
                    || port.told_answered < session.answered
                    || port.told_stored < session.stored
                    || session.reports.sent < session.reports.log.len()
            })
    }
}
