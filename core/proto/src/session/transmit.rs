//! What goes out, in which order: control frames, answers, then publishes as the window allows.

use bytes::BytesMut;

use super::{CONTROL, Session, answers::send_some};
use crate::{
    clock::Time,
    wire::{
        encode,
        frame::{Frame, REPORTS},
    },
};

impl Session {
    /// Appends frames to send as one WebSocket message to `out`: at most `max` bytes, or one frame
    /// that is larger. True if more waits.
    pub fn transmit(&mut self, now: Time, max: usize, out: &mut BytesMut) -> bool {
        self.now = now;
        let start = out.len();
        let ready = self.link.is_ready();
        if ready {
            self.gather();
        }
        if ready || self.link.is_shaking_hands() {
            send_some(&mut self.control, start, max, out);
            self.control.release_sent();
        }
        if ready && self.control.len() == 0 {
            self.answers.transmit(start, max, out);
            if !self.answers.has_output() {
                self.outbox.transmit(now, start, max, out);
                self.follow_up(out);
            }
        }
        if out.len() > start {
            self.link.note_sent(now);
        }
        self.has_output()
    }

    /// Whether [`Session::transmit`] has something to say. It may find that it has not, when that
    /// was about something that ended meanwhile.
    pub fn has_output(&self) -> bool {
        if !self.link.is_ready() {
            return self.link.is_shaking_hands() && self.control.len() > 0;
        }
        self.control.len() > 0
            || self.outbox.has_output()
            || self.answers.has_output()
            || self.subscriptions.has_due()
            || self.reports.is_due()
            || self.pong.is_some()
            || self.has_follow_up()
    }

    /// Turns what is due into control frames.
    fn gather(&mut self) {
        let control = &mut self.control;
        let mut credit = |sub, consumed| {
            control.append(CONTROL, |out| encode(&Frame::Credit { sub, consumed }, out));
        };
        if self.subscriptions.has_due() {
            self.subscriptions.take_credit(&mut credit);
        }
        if self.reports.is_due() {
            credit(REPORTS, self.reports.take());
        }
        if let Some(nonce) = self.pong.take() {
            control.append(CONTROL, |out| encode(&Frame::Pong { nonce }, out));
        }
        if self.outbox.topics.has_news() {
            self.outbox.topics.announce(|encode| control.append(CONTROL, encode));
        }
    }

    fn has_follow_up(&self) -> bool {
        let sent = self.outbox.sent();
        self.hurry.is_some_and(|number| number <= sent)
            || self.cancels.iter().any(|number| *number <= sent)
    }

    /// What must come after the publish it is about.
    fn follow_up(&mut self, out: &mut BytesMut) {
        let sent = self.outbox.sent();
        let mut asks = self.outbox.asks_for_news();
        if self.hurry.is_some_and(|number| number <= sent) {
            asks |= self.hurry.take() > Some(self.outbox.accepted());
        }
        if asks {
            encode(&Frame::Ping { nonce: 0 }, out);
        }
        let outbox = &self.outbox;
        self.cancels.retain(|number| {
            if *number > sent {
                return true;
            }
            if let Some(number) = outbox.wire(*number) {
                encode(&Frame::Cancel { number }, out);
            }
            false
        });
    }
}
