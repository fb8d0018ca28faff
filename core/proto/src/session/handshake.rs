//! From a fresh connection to a session that goes on where it stopped, or starts again.

use super::{
    CONTROL, Event, Events, Kept, Phase, Secret, Session, State, SubId, event::Target, log::Log,
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    message::{Gap, GapReason, ReceiptLevel, RowStatus},
    wire::{
        encode,
        frame::{Frame, Hello, REPORTS, Welcome, features},
        v1::VERSION,
    },
};

/// A session's secret is no longer than this.
const SECRET: usize = 64;

impl Session {
    /// Whether to make a connection now; true once per attempt, which ends with
    /// [`Session::connected`] or [`Session::disconnected`].
    pub fn should_connect(&mut self, now: Time) -> bool {
        self.now = now;
        let attempt = self.link.should_connect(now);
        if attempt {
            self.timeline.note(now, "connecting", "");
        }
        attempt
    }

    /// The transport is up: the handshake is to be sent.
    pub fn connected(&mut self, now: Time) {
        self.now = now;
        if self.link.is_closed() {
            return;
        }
        self.link.connected(now, self.config.handshake_timeout);
        self.control = Log::default();
        let is_new = self.secret.0.is_empty();
        self.offered_origin =
            if is_new { self.outbox.origin().to_owned() } else { self.random.name() };
        let mut received = Vec::new();
        if !is_new {
            received = self.subscriptions.received();
            received.push((REPORTS, self.reports.received()));
        }
        let hello = Frame::Hello(Hello {
            versions: (VERSION, VERSION),
            features: features::HISTORY | features::POLICIES | features::RETAINED | features::SKIPS,
            client_id: &self.id,
            origin: &self.offered_origin,
            namespace: &self.config.namespace,
            token: self.config.token.as_deref().unwrap_or_default(),
            agent: &self.config.agent,
            session: &self.secret.0,
            received,
        });
        self.control.append(CONTROL, |out| encode(&hello, out));
    }

    /// The connection is gone or could not be made. An error that the session itself returned
    /// from [`Session::receive`] or [`Session::tick`] need not be repeated.
    pub fn disconnected(&mut self, now: Time, reason: Option<Error>, events: &mut Events) {
        self.now = now;
        if self.link.is_closed() {
            return;
        }
        let was_ready = self.link.is_ready();
        let (error, next) = self.link.disconnected(now, reason, &mut self.random);
        self.control = Log::default();
        self.credit_at = None;
        self.hurry = None;
        self.pong = None;
        self.answers.disconnect(|sub| {
            self.subscriptions.find(sub.0).is_some_and(|entry| entry.is_durable())
        });
        self.subscriptions.disconnect();
        let what = if was_ready { "connection_closed" } else { "connect_failed" };
        self.timeline.note(now, what, error.to_string());
        self.confirm_closing(events);
        if next.is_err() {
            return self.finish(&error, events);
        }
        if was_ready {
            let event =
                Event::State { state: State::Reconnecting, error: Some(error), resumed: false };
            events.push((self.config.target, event));
        }
    }

    /// Ended subscriptions whose confirmation was lost with the connection.
    pub(super) fn confirm_closing(&mut self, events: &mut Events) {
        let mut closing: Vec<(u32, Target)> = self.closing.drain().collect();
        closing.sort_unstable();
        for (sub, target) in closing {
            events.push((target, Event::Unsubscribed { sub: SubId(sub) }));
        }
    }

    pub(super) fn welcome(
        &mut self,
        now: Time,
        welcome: &Welcome<'_>,
        events: &mut Events,
    ) -> Result<()> {
        if welcome.version != VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the server speaks version {} of kps, this client {VERSION}",
                    welcome.version
                ),
            ));
        }
        let known = !self.secret.0.is_empty();
        if welcome.session.is_empty() || welcome.session.len() > SECRET || welcome.resumed && !known
        {
            return Err(Error::new(ErrorKind::Protocol, "WELCOME does not fit its HELLO"));
        }
        self.names.connect(welcome.aliases);
        if welcome.resumed {
            self.answers.resume(welcome.answered)?;
            self.subscriptions.resume();
            let ids = self.ids_until(welcome.published);
            let released = self.outbox.resume(now, welcome)?;
            self.settle(released, events);
            self.tell_accepted(ids, events);
            // Ended after HELLO had listed them.
            let mut closing: Vec<u32> = self.closing.keys().copied().collect();
            closing.sort_unstable();
            for sub in closing {
                self.say(&Frame::Unsubscribe { sub });
            }
        } else {
            self.confirm_closing(events);
            if known {
                self.restart(welcome, events);
            } else {
                self.outbox.connect(now, welcome);
            }
        }
        self.link.welcomed(now, welcome.heartbeat_ms);
        self.id = welcome.client_id.to_owned();
        self.secret = Secret(welcome.session.to_vec());
        self.epoch = welcome.epoch;
        self.time_base_ms = welcome.time_base_ms;
        self.history = match (welcome.features & features::HISTORY, welcome.history.on_disk) {
            (0, _) => Kept::No,
            (_, false) => Kept::InMemory,
            (_, true) => Kept::OnDisk,
        };
        self.can_retain = Some(welcome.features & features::RETAINED != 0);
        self.refuse_receipts(events);
        self.knows_policies = Some(welcome.features & features::POLICIES != 0);
        self.give_up(events);
        let (last, waiting) = (self.outbox.last(), self.outbox.pending());
        self.backlog = (waiting > 0).then_some((last, waiting));
        let detail = if welcome.resumed { "resumed" } else { "new session" };
        self.timeline.note(now, "connection_opened", detail);
        let resumed = welcome.resumed;
        let event = Event::State { state: State::Connected, error: None, resumed };
        events.push((self.config.target, event));

        let wanted: Vec<u32> = self
            .subscriptions
            .opened()
            .into_iter()
            .filter(|(_, entry)| matches!(entry.phase, Phase::Requested | Phase::Again))
            .map(|(sub, _)| sub)
            .collect();
        for sub in wanted {
            self.ask_for(sub);
        }
        Ok(())
    }

    /// Receipts asked for before it was known that they never come.
    fn refuse_receipts(&mut self, events: &mut Events) {
        for number in self.receipts.waiting_for(ReceiptLevel::Stored) {
            if self.outbox.is_unstored(number) {
                continue;
            }
            let error = super::unavailable(ReceiptLevel::Stored, super::NOT_STORED);
            self.refuse_receipt(number, ReceiptLevel::Stored, &error, events);
        }
    }

    /// The server knows nothing of the session we had.
    fn restart(&mut self, welcome: &Welcome<'_>, events: &mut Events) {
        self.is_new_epoch = welcome.epoch != self.epoch;
        let origin = std::mem::take(&mut self.offered_origin);
        let released = self.outbox.restart(self.now, welcome, origin);
        self.settle(released, events);
        let accepted = self.outbox.accepted();
        self.refusals.restart();
        self.answers.clear();
        self.reports.restart();
        self.subscriptions.restart(welcome.features & features::HISTORY != 0);
        self.cancels.retain(|number| *number > accepted);
        let lost = Error::new(
            ErrorKind::SessionLost,
            "the server lost the session, and with it the answers to come",
        );
        for number in self.acks.up_to(accepted) {
            self.acks.end(number, RowStatus::Disconnected, &lost, events);
        }
        // Subscriptions get their gap from the server, when it has confirmed them again.
        let reason =
            if self.is_new_epoch { GapReason::NewEpoch } else { GapReason::SessionExpired };
        let topic = format!("kps.id.{}", self.id).into();
        let gap = Gap { topic, count: None, first: None, last: None, reason };
        if let Some(direct) = self.subscriptions.find(SubId::DIRECT.0) {
            direct.counts.note(&gap);
            events.push((direct.target, Event::Gap { sub: SubId::DIRECT, gap }));
        }
    }
}
