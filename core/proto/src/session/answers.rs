//! Deliveries that want an answer, and answers on their way.

use std::collections::HashMap;

use super::{event::SubId, log::Log, publish::millis};
use crate::{
    error::{Error, ErrorKind, Result},
    message::{Answer, HandlerError, RowStatus},
    options::MAX_RETRY_DELAY,
    wire::{
        encode,
        frame::{AnswerFrame, Frame},
    },
};
use bytes::BytesMut;

/// Bytes of a handler error's type and of its text that travel.
const ERROR_KIND: usize = 256;
const ERROR_TEXT: usize = 8 << 10;

/// Answers kept beyond which a server is not believed to want more of those nobody gave.
const MOST_REFUSED: usize = 1 << 16;

/// Answers are kept, encoded once, until the server confirms them.
///
/// The server numbers the deliveries of a session from 1; what the host sees goes on counting over
/// lost sessions, so that a handler's late answer never reaches somebody else's message.
#[derive(Debug, Default)]
pub(super) struct Answers {
    open: HashMap<u64, SubId>,
    /// The highest delivery of the sessions before this one, and of this one.
    before: u64,
    highest: u64,
    log: Log,
    confirmed: u64,
}

impl Answers {
    /// A message came that wants an answer. Returns what the host calls the delivery.
    pub(super) fn expect(&mut self, wire: u64, sub: SubId) -> u64 {
        let delivery = self.before.saturating_add(wire);
        self.highest = self.highest.max(delivery);
        self.open.insert(delivery, sub);
        delivery
    }

    /// The server does not want it any more. Returns whose message it was, and what the host
    /// calls it.
    pub(super) fn cancel(&mut self, wire: u64) -> Option<(SubId, u64)> {
        let delivery = self.before.saturating_add(wire);
        Some((self.open.remove(&delivery)?, delivery))
    }

    pub(super) fn answer(
        &mut self,
        delivery: u64,
        answer: &Answer,
        max_payload: usize,
    ) -> Result<()> {
        if let Answer::Acked(payload) = answer {
            super::publish::check_payload(payload.bytes.len(), max_payload)?;
        }
        if let Answer::Retry(_, delay) = answer
            && *delay > MAX_RETRY_DELAY
        {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("a retry's delay is at most a day, not {} s", delay.as_secs()),
            ));
        }
        if self.open.remove(&delivery).is_none() {
            return Err(Error::new(
                ErrorKind::NotFound,
                "nobody waits for this answer any more: it was given, cancelled, or its session was lost",
            ));
        }
        self.send(delivery - self.before, answer);
        Ok(())
    }

    /// Answers whatever is open of a subscription: nobody is left to do it.
    pub(super) fn refuse_all(&mut self, sub: SubId) {
        let mut open: Vec<u64> =
            self.open.iter().filter(|(_, of)| **of == sub).map(|(delivery, _)| *delivery).collect();
        open.sort_unstable();
        for delivery in open {
            self.open.remove(&delivery);
            self.send(delivery - self.before, &Answer::NoHandler);
        }
    }

    /// Answers a delivery that never was open.
    pub(super) fn refuse(&mut self, wire: u64) -> Result<()> {
        if self.log.len() >= MOST_REFUSED {
            return Err(Error::new(ErrorKind::Protocol, "the server confirms no answers"));
        }
        self.send(wire, &Answer::NoHandler);
        Ok(())
    }

    fn send(&mut self, wire: u64, answer: &Answer) {
        let number = self.confirmed + self.log.len() as u64 + 1;
        let (status, error, data) = match answer {
            Answer::Acked(payload) => {
                (RowStatus::Acked, None, Some((payload.content_type, &payload.bytes[..])))
            }
            Answer::Failed(HandlerError { kind, text })
            | Answer::Retry(HandlerError { kind, text }, _) => {
                let error = (shorten(kind, ERROR_KIND), shorten(text, ERROR_TEXT));
                (RowStatus::Failed, Some(error), None)
            }
            Answer::NoHandler => (RowStatus::NoHandler, None, None),
        };
        let hint = 64 + data.map_or(0, |(_, bytes)| bytes.len());
        let retry_delay_ms = match answer {
            Answer::Retry(_, delay) => Some(millis(*delay)),
            _ => None,
        };
        let delivery = wire;
        let frame =
            AnswerFrame { number, delivery, more: false, status, error, data, retry_delay_ms };
        self.log.append(hint, |out| encode(&Frame::Answer(frame), out));
    }

    pub(super) fn has_output(&self) -> bool {
        self.log.unsent() > 0
    }

    /// As [`send_some`].
    pub(super) fn transmit(&mut self, start: usize, max: usize, out: &mut BytesMut) {
        send_some(&mut self.log, start, max, out);
    }

    /// The server has everything up to this number.
    pub(super) fn confirm(&mut self, number: u64) -> Result<()> {
        if number > self.confirmed + self.log.ever_sent() as u64 {
            return Err(Error::new(
                ErrorKind::Protocol,
                "the server confirmed an answer that was never sent",
            ));
        }
        if let Some(count) = number.checked_sub(self.confirmed) {
            self.log.release(usize::try_from(count).unwrap_or(usize::MAX));
            self.confirmed = number;
        }
        Ok(())
    }

    /// The connection is lost, and with it everybody who waited but durables: their rows end at the
    /// server. What was answered already may have arrived, so it is confirmed or sent again.
    pub(super) fn disconnect(&mut self, mut is_durable: impl FnMut(SubId) -> bool) {
        self.open.retain(|_, sub| is_durable(*sub));
    }

    /// A new connection in the same session: what is not confirmed is sent again.
    pub(super) fn resume(&mut self, answered: u64) -> Result<()> {
        self.confirm(answered)?;
        self.log.rewind();
        Ok(())
    }

    /// The session is lost, and with it everybody who waited.
    pub(super) fn clear(&mut self) {
        let highest = self.highest;
        *self = Answers { before: highest, highest, ..Answers::default() };
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.log.len() == 0
    }
}

/// Appends what fits into `max` bytes after `start`; one frame of any size if it is the first.
pub(super) fn send_some(log: &mut Log, start: usize, max: usize, out: &mut BytesMut) {
    log.send(max.saturating_sub(out.len() - start), usize::MAX, out);
    if out.len() == start {
        log.send(usize::MAX, 1, out);
    }
}

fn shorten(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::Payload, wire::Frames};

    #[test]
    fn an_answer_is_given_once_and_kept_until_confirmed() {
        let mut answers = Answers::default();
        answers.expect(7, SubId(1));
        let acked = Answer::Acked(Payload::json("1"));
        assert!(answers.answer(7, &acked, 10).is_ok());
        assert_eq!(answers.answer(7, &acked, 10).unwrap_err().kind(), ErrorKind::NotFound);
        let mut out = BytesMut::new();
        answers.transmit(0, 1, &mut out);
        let Some(Ok(Frame::Answer(frame))) = Frames::new(&out).next() else { panic!() };
        assert_eq!((frame.number, frame.delivery), (1, 7));
        assert!(answers.resume(0).is_ok() && answers.has_output());
        assert!(answers.confirm(2).is_err());
        assert!(answers.confirm(1).is_ok() && answers.is_empty());
    }

    #[test]
    fn an_answer_to_a_lost_session_is_nobodys() {
        let mut answers = Answers::default();
        let old = answers.expect(1, SubId(1));
        answers.clear();
        let new = answers.expect(1, SubId(1));
        assert_ne!(old, new);
        assert!(answers.answer(old, &Answer::NoHandler, 10).is_err());
        assert_eq!(answers.cancel(1), Some((SubId(1), new)));
    }

    #[test]
    fn too_large_an_answer_leaves_the_delivery_open() {
        let mut answers = Answers::default();
        answers.expect(7, SubId(1));
        let acked = Answer::Acked(Payload::json("12345"));
        assert_eq!(answers.answer(7, &acked, 4).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
        assert!(answers.answer(7, &Answer::NoHandler, 4).is_ok());
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        assert_eq!(shorten("aé", 2), "a");
        assert_eq!(shorten("aé", 3), "aé");
    }
}
