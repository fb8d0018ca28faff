//! How a message of a durable ends: acked, handed out again, or a dead letter.

use std::time::Duration;

use super::{super::Bus, DEAD_LETTERS, DOUBLINGS};
use crate::{
    bus::{
        Notice,
        state::{DurableKey, SubKey, Timer},
    },
    clock::Time,
    error::ErrorKind,
    message::{Extras, HandlerError, RowStatus},
};

impl Bus {
    /// A client answered, or its message ended otherwise.
    pub(in crate::bus) fn settle_progress(
        &mut self,
        now: Time,
        (key, position, sub): (DurableKey, u64, SubKey),
        status: RowStatus,
        error: Option<HandlerError>,
        retry: Option<Duration>,
    ) {
        if let Some(member) =
            self.subscriptions.get_mut(sub).and_then(|sub| sub.member.as_deref_mut())
        {
            member.moved = now;
            member.stalled = false;
        }
        if !self.durables.contains_key(key) {
            return;
        }
        match status {
            // A time to live that ran out is as good as an ack: it must not be handled any more.
            RowStatus::Acked | RowStatus::Timeout => {
                self.remove_out(key, position);
                self.finish(key, position);
            }
            // An answer to what others have by now says nothing.
            _ if self.durables[key].out.get(&position).is_none_or(|out| out.member != sub) => {}
            RowStatus::Failed => {
                let failed =
                    self.durables[key].tries.get(&position).map_or(0, |tries| tries.failed);
                let delay = self.durables[key].redelivery.retry_delay;
                let delay =
                    retry.unwrap_or_else(|| delay.saturating_mul(1 << failed.min(DOUBLINGS)));
                self.fail_handed_out(now, key, position, delay, &error.unwrap_or_default());
            }
            _ => {
                if let Some(published) = self.remove_out(key, position) {
                    // Whoever has no handler for it now may have one in a moment.
                    let due = now + self.durables[key].redelivery.retry_delay;
                    self.durables[key].retry.insert((due, position), published);
                }
            }
        }
        self.hand_out(now, key);
    }

    /// A message failed: it waits for another try, or is given up.
    fn fail_handed_out(
        &mut self,
        now: Time,
        key: DurableKey,
        position: u64,
        delay: Duration,
        error: &HandlerError,
    ) {
        let Some(published) = self.remove_out(key, position) else { return };
        let durable = &mut self.durables[key];
        let tries = durable.tries.entry(position).or_default();
        tries.failed += 1;
        let (failed, most) = (tries.failed, durable.redelivery.max_attempts);
        if most == 0 || failed < most {
            durable.retry.insert((now + delay, position), published);
            return;
        }
        let (space, name) = (durable.space, durable.name.clone());
        let topic = format!("{DEAD_LETTERS}{name}");
        let mut headers = vec![
            ("kps-topic".into(), published.topic.to_string()),
            ("kps-sender".into(), published.sender.id.clone()),
            ("kps-attempts".into(), failed.to_string()),
            ("kps-error".into(), format!("{}: {}", error.kind, error.text)),
        ];
        let (mut id, mut kept) = (None, Vec::new());
        if let Some(extras) = &published.extras {
            id.clone_from(&extras.id);
            kept.clone_from(&extras.headers);
        }
        headers.extend(kept);
        // Whom it was not for does not see it now.
        let to = published.extras.as_ref().and_then(|extras| extras.to.clone());
        let extras = Extras { headers, id, to, ..Extras::default() };
        self.finish(key, position);
        self.notices.push_back(Notice::DeadLettered {
            durable: name,
            published: published.clone(),
            error: error.clone(),
        });
        self.server_message(now, space, &topic, published.payload.clone(), extras);
    }

    /// A client has messages and answered nothing for a while.
    pub(in crate::bus) fn check_ack_wait(&mut self, now: Time, key: SubKey) {
        let Some(member) = self.subscriptions.get_mut(key).and_then(|sub| sub.member.as_mut())
        else {
            return;
        };
        member.armed = false;
        if member.has == 0 {
            return;
        }
        let durable = member.durable;
        let due = member.moved + self.durables[durable].redelivery.ack_wait;
        if due > now {
            member.armed = true;
            self.timers.insert((due, Timer::AckWait(key)));
            return;
        }
        member.stalled = true;
        self.take_back(now, durable, key, true);
        self.hand_out(now, durable);
    }

    /// What a client has is no longer its alone.
    pub(super) fn take_back(&mut self, now: Time, key: DurableKey, sub: SubKey, failed: bool) {
        let mine = self.durables[key].out.iter().filter(|(_, out)| out.member == sub);
        let positions: Vec<u64> = mine.map(|(position, _)| *position).collect();
        for (place, position) in positions.into_iter().enumerate() {
            if failed && place == 0 {
                let error = HandlerError {
                    kind: ErrorKind::Timeout.code().into(),
                    text: "its client did not answer".into(),
                };
                self.fail_handed_out(now, key, position, Duration::ZERO, &error);
            } else if let Some(published) = self.remove_out(key, position) {
                self.durables[key].retry.insert((now, position), published);
            }
        }
    }
}
