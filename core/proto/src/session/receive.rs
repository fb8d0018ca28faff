//! What comes in: each frame checked, counted, and turned into events.

use bytes::Bytes;

use super::{
    CREDIT_DELAY, Event, Events, Phase, Room, Session, SubId, Subscriptions, outbox::GivenUp,
    refusals::Refusal,
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    message::{Extras, Gap, GapReason, Message, Payload, RowStatus},
    options::Cursor,
    wire::{
        Frames,
        frame::{ErrorFrame, Extensions, Frame, GapFrame, MessageFrame, Reference},
    },
};

impl Session {
    /// Takes a whole WebSocket message. An error means: close the connection, then
    /// [`Session::disconnected`]. Payloads are copied.
    pub fn receive(&mut self, now: Time, bytes: &[u8], events: &mut Events) -> Result<()> {
        self.receive_frames(now, bytes, None, events)
    }

    /// As [`Session::receive`], but a payload that makes up much of `bytes` shares its memory
    /// instead of being copied.
    pub fn receive_shared(&mut self, now: Time, bytes: &Bytes, events: &mut Events) -> Result<()> {
        self.receive_frames(now, bytes, Some(bytes), events)
    }

    fn receive_frames(
        &mut self,
        now: Time,
        bytes: &[u8],
        shared: Option<&Bytes>,
        events: &mut Events,
    ) -> Result<()> {
        self.now = now;
        // Before their numbers are confirmed.
        self.give_up(events);
        self.link.note_received(now);
        for frame in Frames::new(bytes) {
            let taken = frame.and_then(|frame| match frame {
                Frame::Message(message) if self.link.is_ready() => {
                    self.message(&message, shared, events)
                }
                frame => self.control_frame(now, &frame, events),
            });
            if let Err(error) = taken {
                return Err(self.link.fail(error));
            }
        }
        if self.credit_at.is_none() && self.link.is_ready() {
            self.credit_at = Some(now + CREDIT_DELAY);
        }
        Ok(())
    }

    /// When to call [`Session::tick`], or [`Session::should_connect`].
    pub fn deadline(&self) -> Option<Time> {
        let untold = (self.outbox.untold() > 0).then_some(self.now);
        let due =
            [self.link.deadline(), self.credit_at, self.acks.deadline(), self.outbox.deadline()];
        due.into_iter().chain([untold]).flatten().min()
    }

    /// Does what is due at `now`. An error means: close the connection, then
    /// [`Session::disconnected`].
    pub fn tick(&mut self, now: Time, events: &mut Events) -> Result<()> {
        self.now = now;
        self.give_up(events);
        self.acks.expire(now, events);
        if self.credit_at.is_some_and(|at| at <= now) {
            self.credit_at = None;
            self.subscriptions.hasten();
            self.reports.hasten();
        }
        self.outbox.tick(now);
        self.link.check_alive(now)?;
        if self.link.should_ping(now) {
            self.say(&Frame::Ping { nonce: 0 });
        }
        Ok(())
    }

    #[inline]
    fn message(
        &mut self,
        frame: &MessageFrame<'_>,
        shared: Option<&Bytes>,
        events: &mut Events,
    ) -> Result<()> {
        let topic = self.names.topic(frame.topic)?;
        let sender = self.names.sender(frame.sender)?;
        let entry = match self.subscriptions.find(frame.sub) {
            Some(entry) if entry.phase != Phase::Ended => entry,
            // Unsubscribed meanwhile.
            _ => {
                return match frame.delivery {
                    Some(delivery) => self.answers.refuse(delivery),
                    None => Ok(()),
                };
            }
        };
        Subscriptions::receive(entry, frame.payload.len())?;
        let cursor = frame.extensions.as_ref().and_then(|extensions| extensions.cursor);
        let cursor = cursor.and_then(Cursor::new);
        // A durable's progress is the server's to know; should it know of none, it begins again.
        if cursor.is_some() && !entry.is_durable() {
            entry.cursor.clone_from(&cursor);
        }
        let earlier = frame.extensions.as_ref().and_then(|extensions| extensions.earlier);
        let sub = SubId(frame.sub);
        let delivery = frame.delivery.map(|wire| self.answers.expect(wire, sub));
        let message = Message {
            topic,
            payload: Payload {
                content_type: frame.content_type,
                bytes: self.payloads.keep(frame.payload, shared),
            },
            sender,
            number: frame.number,
            seq: frame.seq,
            epoch: earlier.map_or(self.epoch, |earlier| earlier.epoch),
            time_ms: earlier.map_or_else(
                || self.time_base_ms.saturating_add(frame.time),
                |earlier| earlier.time_ms,
            ),
            attempt: frame.attempt,
            maybe_duplicate: frame.maybe_duplicate,
            retained: frame.extensions.as_ref().is_some_and(|extensions| extensions.retained),
            extras: frame.extensions.as_deref().and_then(extras),
            cursor,
        };
        let event = Event::Message { sub, message, delivery, request: frame.request };
        events.push((entry.target, event));
        Ok(())
    }

    fn control_frame(&mut self, now: Time, frame: &Frame<'_>, events: &mut Events) -> Result<()> {
        match frame {
            Frame::Ping { nonce } => {
                if self.link.is_ready() {
                    self.pong = Some(*nonce);
                }
            }
            Frame::Pong { .. } => {}
            Frame::Goaway { delay_ms, reason } => {
                self.link.stay_away(*delay_ms);
                self.timeline.note(now, "goaway", *reason);
                let reason = (*reason).to_owned();
                events.push((self.config.target, Event::Goaway { reason }));
            }
            Frame::Error(error) if error.fatal => {
                return Err(Error::new(error.kind, error.message.to_owned()));
            }
            Frame::Welcome(welcome) if self.link.is_shaking_hands() => {
                return self.welcome(now, welcome, events);
            }
            _ if !self.link.is_ready() => {
                return Err(Error::new(ErrorKind::Protocol, "the server spoke before WELCOME"));
            }
            Frame::Accepted { published, answered } => {
                self.answers.confirm(*answered)?;
                let ids = self.ids_until(*published);
                let released = self.outbox.accept(self.now, *published)?;
                self.settle(released, events);
                self.tell_accepted(ids, events);
            }
            Frame::Recipients { number, clients } => {
                self.reports.note();
                if let Some(number) = self.outbox.number(*number) {
                    self.outbox.mark_handled(number);
                    self.acks.recipients(number, clients, events);
                }
            }
            Frame::Row(row) => {
                self.reports.note();
                if let Some(number) = self.outbox.number(row.number) {
                    self.outbox.mark_handled(number);
                    if self.acks.row(number, row, events) {
                        self.cancels.push(number);
                    }
                }
            }
            Frame::Error(error) => self.error(now, error, events),
            Frame::Subscribed { sub, cursor } => self.subscribed(now, *sub, cursor, events),
            Frame::Unsubscribed { sub } => {
                if let Some(target) = self.closing.remove(sub) {
                    events.push((target, Event::Unsubscribed { sub: SubId(*sub) }));
                }
            }
            Frame::Gap(gap) => self.gap(now, gap, events),
            Frame::Resumed { sub, replayed } => {
                if let Some(entry) = self.subscriptions.find(*sub) {
                    entry.epoch = Some(self.epoch);
                    let event = Event::Resumed { sub: SubId(*sub), replayed: *replayed };
                    events.push((entry.target, event));
                }
            }
            Frame::Cancel { number } => {
                if let Some((sub, delivery)) = self.answers.cancel(*number)
                    && let Some(entry) = self.subscriptions.find(sub.0)
                {
                    let event = Event::CancelDelivery { sub, delivery };
                    events.push((entry.target, event));
                }
            }
            Frame::Stored { published } => {
                if let Some(number) = self.outbox.number(*published) {
                    self.outbox.store(number);
                    self.receipts.reach_stored(number, events);
                    self.look_for_room(events);
                }
            }
            Frame::Alias { number, name } => self.names.set(*number, name)?,
            Frame::Unalias { number } => self.names.unset(*number),
            Frame::Welcome(_)
            | Frame::Hello(_)
            | Frame::Auth { .. }
            | Frame::Subscribe(_)
            | Frame::Unsubscribe { .. }
            | Frame::Publish(_)
            | Frame::Message(_)
            | Frame::Credit { .. }
            | Frame::Answer(_) => {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    "the server sent a frame that is not a server's to send now",
                ));
            }
        }
        Ok(())
    }

    /// So many more publishes are accepted or refused.
    pub(super) fn settle(&mut self, released: u64, events: &mut Events) {
        if released == 0 {
            // What a lost session had accepted may have gone.
            return self.look_for_room(events);
        }
        while let Some((number, refusal)) = self.refusals.next(self.outbox.accepted()) {
            self.publish_failed(number, refusal, events);
        }
        self.receipts.accepted(self.outbox.accepted(), events);
        if let Some((_, count)) = self.backlog.take_if(|(last, _)| *last <= self.outbox.accepted())
        {
            self.timeline.note(self.now, "outbox_flushed", format!("{count} messages"));
            events.push((self.config.target, Event::OutboxFlushed { count }));
        }
        self.look_for_room(events);
    }

    /// What is accepted, and not refused, when this wire number is, if somebody wants to know.
    pub(super) fn ids_until(&self, wire: u64) -> Vec<(u64, String)> {
        if !self.tells_published {
            return Vec::new();
        }
        let mut ids = self.outbox.ids_until(wire);
        ids.retain(|(number, _)| !self.refusals.is_waiting(*number));
        ids
    }

    pub(super) fn tell_accepted(&self, ids: Vec<(u64, String)>, events: &mut Events) {
        let told = |(number, id)| (self.config.target, Event::MessagePublished { number, id });
        events.extend(ids.into_iter().map(told));
    }

    fn look_for_room(&mut self, events: &mut Events) {
        if self.pressed && self.outbox.room() == Room::Free {
            self.pressed = false;
            self.tell_pressure(events);
            self.timeline.note(self.now, "backpressure", "off");
            events.push((self.config.target, Event::Backpressure { on: false }));
        }
        if self.receipts.waits_for_room() && self.outbox.room() == Room::Free {
            self.receipts.has_room(events);
        }
    }

    fn subscribed(&mut self, now: Time, sub: u32, cursor: &[u8], events: &mut Events) {
        let Some(entry) = self.subscriptions.find(sub) else { return };
        if !cursor.is_empty() && entry.begins_at_its_cursor() {
            entry.cursor = Cursor::new(cursor);
        }
        let before = std::mem::replace(&mut entry.phase, Phase::Active);
        if before == Phase::Requested {
            entry.epoch = Some(self.epoch);
            let pattern = entry.pattern.as_ref().map_or("", |pattern| pattern.as_str());
            self.timeline.note(now, "subscribed", pattern);
            events.push((entry.target, Event::Subscribed { sub: SubId(sub) }));
        }
    }

    fn gap(&mut self, now: Time, frame: &GapFrame<'_>, events: &mut Events) {
        let Some(entry) = self.subscriptions.find(frame.sub) else { return };
        // Only now: should this be lost with the session, it is to be told again.
        entry.epoch = Some(self.epoch);
        // The server cannot know whether it was this one that lost the session.
        let reason = match frame.reason {
            GapReason::SessionExpired if self.is_new_epoch => GapReason::NewEpoch,
            reason => reason,
        };
        let gap = Gap {
            topic: frame.topic.into(),
            count: frame.count,
            first: frame.range.map(|(first, _)| first),
            last: frame.range.map(|(_, last)| last),
            reason,
        };
        let count = gap.count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        let detail = format!("{}: {count} ({})", frame.topic, reason.as_str());
        self.timeline.note(now, "gap", detail);
        let target = entry.target;
        self.subscriptions.receive_gap(frame.sub, &gap);
        events.push((target, Event::Gap { sub: SubId(frame.sub), gap }));
    }

    /// Something was refused, or a subscription closed; the connection goes on.
    fn error(&mut self, now: Time, frame: &ErrorFrame<'_>, events: &mut Events) {
        let error = Error::new(frame.kind, frame.message.to_owned());
        match frame.reference {
            Reference::Publish(wire) => {
                self.reports.note();
                let Some(number) = self.outbox.number(wire) else { return };
                if self.outbox.is_skipped(number) {
                    // It was dropped before this was heard, and has failed.
                    return;
                }
                let refusal = self.refusal(number, error);
                self.outbox.give_up(number);
                if number > self.outbox.accepted() {
                    self.refusals.note(number, refusal);
                } else if self.refusals.remember(number, &refusal.error) {
                    // Another server could not be reached with it.
                    self.publish_failed(number, refusal, events);
                }
            }
            Reference::Subscription(sub) if sub != SubId::DIRECT.0 => {
                self.subscription_failed(now, sub, error, events);
            }
            Reference::Delivery(delivery) => {
                self.answers.cancel(delivery);
                self.timeline.note(now, "answer_refused", error.to_string());
                events.push((self.config.target, Event::Error { error }));
            }
            Reference::Connection | Reference::Subscription(_) => {
                self.timeline.note(now, "error", error.to_string());
                events.push((self.config.target, Event::Error { error }));
            }
        }
    }

    /// Tells of publishes that will not be sent.
    pub(super) fn give_up(&mut self, events: &mut Events) {
        if self.outbox.untold() == 0 {
            return;
        }
        for GivenUp { number, id, private, error } in self.outbox.take_given_up() {
            // The server may have refused it before.
            let refusal = self.refusals.withdraw(number).unwrap_or(Refusal { id, private, error });
            self.refusals.remember(number, &refusal.error);
            self.publish_failed(number, refusal, events);
            if self.config.outbox_on_disk {
                self.given_up.push(number);
            }
        }
        self.look_for_room(events);
    }

    fn publish_failed(&mut self, number: u64, refusal: Refusal, events: &mut Events) {
        let Refusal { id, private, error } = refusal;
        let named = if private { "a private message" } else { &id };
        self.timeline.note(self.now, "publish_failed", format!("{named}: {error}"));
        let mut targets = self.receipts.fail(number);
        if targets.is_empty() {
            targets.push(self.config.target);
        }
        for target in targets {
            let (id, error) = (id.clone(), error.clone());
            events.push((target, Event::PublishFailed { number, id, error }));
        }
        self.acks.end(number, RowStatus::Failed, &error, events);
    }

    fn subscription_failed(&mut self, now: Time, sub: u32, error: Error, events: &mut Events) {
        let Some(entry) = self.subscriptions.find(sub) else { return };
        let (id, target) = (SubId(sub), entry.target);
        let pattern = entry.pattern.as_ref().map_or("", |pattern| pattern.as_str());
        let detail = format!("{pattern}: {error}");
        match entry.phase {
            Phase::Requested => {
                self.timeline.note(now, "subscribe_failed", detail);
                self.subscriptions.close(sub);
                events.push((target, Event::SubscribeFailed { sub: id, error }));
            }
            Phase::Active | Phase::Again => {
                self.timeline.note(now, "subscription_closed", detail);
                self.subscriptions.end(sub);
                events.push((target, Event::SubscriptionClosed { sub: id, error }));
            }
            Phase::Ended => {}
        }
    }
}

fn extras(extensions: &Extensions<'_>) -> Option<Box<Extras>> {
    let extras = Extras {
        headers: extensions
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        id: extensions.id.map(str::to_owned),
        ttl: extensions.ttl_ms.map(std::time::Duration::from_millis),
        // What these say is between publisher and server.
        ..Extras::default()
    };
    (!extras.is_empty()).then(|| Box::new(extras))
}
