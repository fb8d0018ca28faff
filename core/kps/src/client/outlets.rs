//! Where a client's events go: each to the mailbox it names, all of a batch with one wake.

use std::{collections::VecDeque, mem};

use kps_proto::session::{self, Events};
use smallvec::SmallVec;

use super::{desk::Desk, lock::Lock};
use crate::events::{ClientKey, Event, Item, MailboxRef, SubId, Target};

/// Belongs to nobody in particular: connection state, direct messages, unwatched failures.
pub(super) const EVERYBODY: Target = Target(0);
/// The waits of `close`.
pub(super) const CLOSING: Target = Target(u32::MAX);
/// The Rust face's own events.
pub(super) const NATIVE: Target = Target(u32::MAX - 1);

#[derive(Default)]
pub(super) struct Outlets(Lock<Boxes>);

#[derive(Default)]
struct Boxes {
    mailboxes: Vec<(Target, MailboxRef)>,
    /// Who takes direct messages; without one the first mailbox does.
    direct: Option<Target>,
    subscriptions: Vec<(SubId, Target)>,
    /// Unanswered [`flush`](Outlets::flushing) calls in their order.
    flushes: VecDeque<(Target, u64)>,
    last_token: u64,
}

/// A message that nobody takes any more.
pub(super) struct Orphan {
    pub(super) sub: SubId,
    /// Whether it was a message, not just news about the subscription.
    pub(super) message: bool,
}

impl Outlets {
    pub(super) fn attach(&self, mailbox: &MailboxRef) -> Target {
        let target = Target(mailbox.id());
        let mut boxes = self.0.lock();
        if !boxes.mailboxes.iter().any(|(known, _)| *known == target) {
            boxes.mailboxes.push((target, mailbox.clone()));
        }
        target
    }

    /// Forgets the mailbox; returns the subscriptions that end with it.
    pub(super) fn detach(&self, target: Target) -> Vec<SubId> {
        let mut boxes = self.0.lock();
        boxes.mailboxes.retain(|(known, _)| *known != target);
        boxes.flushes.retain(|(known, _)| *known != target);
        boxes.direct = boxes.direct.filter(|known| *known != target);
        let ends = boxes.subscriptions.extract_if(.., |(_, known)| *known == target);
        ends.map(|(sub, _)| sub).collect()
    }

    pub(super) fn set_direct(&self, target: Target) {
        self.0.lock().direct = Some(target);
    }

    pub(super) fn subscribed(&self, sub: SubId, target: Target) {
        self.0.lock().subscriptions.push((sub, target));
    }

    pub(super) fn unsubscribed(&self, sub: SubId) {
        self.0.lock().subscriptions.retain(|(known, _)| *known != sub);
    }

    /// A token for the next flush that `target` asks of the session.
    pub(super) fn flushing(&self, target: Target) -> u64 {
        let mut boxes = self.0.lock();
        boxes.last_token += 1;
        let token = boxes.last_token;
        boxes.flushes.push_back((target, token));
        token
    }

    /// The token is not needed: the flush needed no waiting, or failed.
    pub(super) fn not_flushing(&self, token: u64) {
        self.0.lock().flushes.retain(|(_, known)| *known != token);
    }

    /// Hands over `events`; returns what nobody takes.
    pub(super) fn deliver(&self, key: ClientKey, desk: &Desk, events: &mut Events) -> Vec<Orphan> {
        let mut boxes = self.0.lock();
        let mut orphans = Vec::new();
        if let Some(mailbox) = boxes.only_mailbox(events) {
            drop(boxes);
            if mailbox.is_closed() {
                orphans.extend(events.drain(..).filter_map(|(_, event)| Orphan::of(&event.into())));
            } else {
                let item = |(_, event): (Target, session::Event)| Item {
                    client: key,
                    event: event.into(),
                };
                mailbox.push_all(events.drain(..).map(item));
            }
            return orphans;
        }
        let mut sorted = Sorted::default();
        for (target, event) in events.drain(..) {
            let event = boxes.complete(target, event);
            match target {
                CLOSING => {}
                NATIVE => sorted.native.push(event),
                EVERYBODY if is_direct(&event) => match boxes.direct_taker() {
                    Some(NATIVE) => sorted.native.push(event),
                    Some(taker) => sorted.put(&boxes, taker, event, &mut orphans),
                    None => orphans.extend(Orphan::of(&event)),
                },
                _ if target == EVERYBODY || matches!(event, Event::PublishFailed { .. }) => {
                    for (target, mailbox) in &boxes.mailboxes {
                        sorted.batch(*target, mailbox).push(event.clone());
                    }
                    sorted.native.push(event);
                }
                target => sorted.put(&boxes, target, event, &mut orphans),
            }
        }
        drop(boxes);
        for (_, mailbox, batch) in sorted.mailboxes {
            let item = |event| Item { client: key, event };
            if mailbox.is_closed() {
                orphans.extend(batch.iter().filter_map(Orphan::of));
            } else {
                mailbox.push_all(batch.into_iter().map(item));
            }
        }
        for event in sorted.native {
            orphans.extend(desk.route(event).as_ref().and_then(Orphan::of));
        }
        orphans
    }
}

impl Boxes {
    /// The one mailbox that all of `events` are for, if it is so simple: the common case.
    fn only_mailbox(&self, events: &Events) -> Option<MailboxRef> {
        let (target, _) = events.first()?;
        let plain = |event: &session::Event| {
            use session::Event as E;
            matches!(
                event,
                E::Message { .. }
                    | E::Row { .. }
                    | E::Recipients { .. }
                    | E::AckDone { .. }
                    | E::RequestDone { .. }
            )
        };
        if !events.iter().all(|(other, event)| other == target && plain(event)) {
            return None;
        }
        self.mailbox(*target).cloned()
    }

    fn mailbox(&self, target: Target) -> Option<&MailboxRef> {
        self.mailboxes.iter().find(|(known, _)| *known == target).map(|(_, mailbox)| mailbox)
    }

    fn direct_taker(&self) -> Option<Target> {
        self.direct.or_else(|| self.mailboxes.first().map(|(target, _)| *target))
    }

    /// Adds what the session does not know, and takes note of what ends.
    fn complete(&mut self, target: Target, event: session::Event) -> Event {
        let event = match event {
            session::Event::Flushed { error } => {
                let at = self.flushes.iter().position(|(known, _)| *known == target);
                let token = at.and_then(|at| self.flushes.remove(at)).map_or(0, |(_, token)| token);
                return Event::Flushed { token, error };
            }
            event => Event::from(event),
        };
        if let Event::SubscribeFailed { sub, .. } | Event::SubscriptionClosed { sub, .. } = &event {
            self.subscriptions.retain(|(known, _)| known != sub);
        }
        event
    }
}

/// Events by mailbox, each mailbox's in their order.
#[derive(Default)]
struct Sorted {
    mailboxes: SmallVec<[(Target, MailboxRef, Vec<Event>); 4]>,
    native: Vec<Event>,
}

impl Sorted {
    fn put(&mut self, boxes: &Boxes, target: Target, event: Event, orphans: &mut Vec<Orphan>) {
        match boxes.mailbox(target) {
            Some(mailbox) => self.batch(target, mailbox).push(event),
            None => orphans.extend(Orphan::of(&event)),
        }
    }

    fn batch(&mut self, target: Target, mailbox: &MailboxRef) -> &mut Vec<Event> {
        let known = self.mailboxes.iter().position(|(known, ..)| *known == target);
        let at = known.unwrap_or_else(|| {
            self.mailboxes.push((target, mailbox.clone(), Vec::new()));
            self.mailboxes.len() - 1
        });
        &mut self.mailboxes[at].2
    }
}

impl Orphan {
    fn of(event: &Event) -> Option<Orphan> {
        match *event {
            Event::Message { sub, .. } => Some(Orphan { sub, message: true }),
            Event::Subscribed { sub } => Some(Orphan { sub, message: false }),
            _ => None,
        }
    }
}

fn is_direct(event: &Event) -> bool {
    matches!(
        event,
        Event::Message { sub: SubId::DIRECT, .. }
            | Event::Gap { sub: SubId::DIRECT, .. }
            | Event::Resumed { sub: SubId::DIRECT, .. }
            | Event::CancelDelivery { sub: SubId::DIRECT, .. }
    )
}

impl std::fmt::Debug for Outlets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let boxes = self.0.lock();
        let targets: Vec<u32> = boxes.mailboxes.iter().map(|(target, _)| target.0).collect();
        f.debug_struct("Outlets").field("mailboxes", &targets).finish_non_exhaustive()
    }
}

/// So that a mailbox, which may hold a reference to the client, does not outlive it in a circle.
impl Outlets {
    pub(super) fn clear(&self) {
        let boxes = mem::take(&mut *self.0.lock());
        drop(boxes);
    }
}
