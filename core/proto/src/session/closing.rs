//! The end of a session, wanted or not: everybody who waits is told.

use super::{Event, Events, Phase, Session, State, SubId, closed};
use crate::{clock::Time, error::Error, message::RowStatus};

/// What [`Session::close`] leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// The messages that were not accepted, oldest first: number and id.
    pub abandoned: Vec<(u64, String)>,
}

impl Session {
    /// Ends the session. What was not accepted by now is abandoned, and named; flush before.
    pub fn close(&mut self, now: Time, events: &mut Events) -> CloseReport {
        self.now = now;
        self.tell_replaced(events);
        let abandoned = self.outbox.ids();
        if !self.link.is_closed() {
            self.timeline.note(now, "closed", format!("{} messages abandoned", abandoned.len()));
            self.link.close();
            self.confirm_closing(events);
            self.finish(&closed(), events);
        }
        self.abandoned += abandoned.len() as u64;
        self.outbox.abandon();
        let subs: Vec<u32> = self.subscriptions.opened().iter().map(|(sub, _)| *sub).collect();
        for sub in subs {
            self.subscriptions.close(sub);
        }
        CloseReport { abandoned }
    }

    /// Nothing will come any more, because of `error`.
    pub(super) fn finish(&mut self, error: &Error, events: &mut Events) {
        self.control = super::Log::default();
        self.answers.clear();
        self.cancels.clear();
        let subs: Vec<(u32, Phase)> =
            self.subscriptions.opened().iter().map(|(sub, entry)| (*sub, entry.phase)).collect();
        for (number, phase) in subs {
            let sub = SubId(number);
            match phase {
                Phase::Requested => {
                    if let Some(entry) = self.subscriptions.close(number) {
                        let error = error.clone();
                        events.push((entry.target, Event::SubscribeFailed { sub, error }));
                    }
                }
                Phase::Active | Phase::Again => {
                    if let Some(target) = self.subscriptions.end(number) {
                        let error = error.clone();
                        events.push((target, Event::SubscriptionClosed { sub, error }));
                    }
                }
                Phase::Ended => {}
            }
        }
        self.subscriptions.disconnect();
        for number in self.acks.up_to(u64::MAX) {
            self.acks.end(number, RowStatus::Cancelled, error, events);
        }
        for number in self.receipts.numbers() {
            let id = self.outbox.id_of(number);
            for target in self.receipts.fail(number) {
                let (id, error) = (id.clone(), error.clone());
                events.push((target, Event::PublishFailed { number, id, error }));
            }
        }
        self.receipts.close(error, events);
        let event =
            Event::State { state: State::Closed, error: Some(error.clone()), resumed: false };
        events.push((self.config.target, event));
    }
}
