//! What waited for the connection is sent in bursts, each when the server has dealt with the one before
//! and has had three times as long for everybody else: a long backlog must not make others wait.

use std::time::Duration;

use super::log::Log;
use crate::clock::Time;

/// Messages of a burst. A server takes some 100 µs for so many, about what an answer takes to travel on
/// one machine.
const MESSAGES: usize = 64;

/// Bytes of a burst, unless its first message is larger.
const BYTES: usize = 64 << 10;

/// How much longer than for a burst a server has for everybody else before the next one.
const SHARE: u32 = 3;

/// A server that is slow for another reason is not waited for longer than this.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// The last number of the backlog, and of the present burst.
    last: u64,
    burst: u64,
    begun: Time,
    /// When the next burst begins; the present one is dealt with.
    pause: Option<Time>,
    /// What the server has dealt with. It may be ahead: of what an earlier connection brought, some
    /// waited when this one began.
    dealt_with: u64,
    /// The server is to say when it has dealt with the burst: more follows.
    asks: bool,
}

impl Backlog {
    /// The connection is made: everything up to `last` has waited for it.
    pub(super) fn begin(&mut self, now: Time, last: u64, sent: u64, log: &Log) {
        *self = Backlog { last, ..Backlog::default() };
        self.next(now, sent, log);
    }

    fn next(&mut self, now: Time, sent: u64, log: &Log) {
        if sent < self.last {
            let fitting = log.fitting(BYTES, MESSAGES).0.max(1);
            let is_last = fitting >= log.unsent();
            self.burst = if is_last { self.last } else { self.last.min(sent + fitting as u64) };
            self.begun = now;
            self.asks = self.burst < self.last;
        }
    }

    /// How many messages of the present burst are to be sent, if everything up to `sent` is; `None`: no
    /// backlog is left.
    pub(super) fn left(&self, sent: u64) -> Option<usize> {
        let left = self.burst.saturating_sub(sent);
        (sent < self.last).then(|| usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Whether a burst has just been sent whole, and the server is to be asked to say when it has dealt
    /// with it. True once for each.
    pub(super) fn asks(&mut self, sent: u64) -> bool {
        let is_sent = self.asks && sent >= self.burst;
        self.asks &= !is_sent;
        let is_old_news = self.dealt_with >= self.burst;
        if is_sent && is_old_news {
            self.pause = Some(self.begun);
        }
        is_sent && !is_old_news
    }

    /// The server has dealt with everything up to `number`.
    pub(super) fn dealt_with(&mut self, now: Time, number: u64) {
        self.dealt_with = self.dealt_with.max(number);
        if self.burst < self.last && number >= self.burst && self.pause.is_none() {
            let took = now.since(self.begun);
            self.pause = Some(now + (SHARE * took).min(LONGEST_PAUSE));
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.pause
    }

    /// Begins the next burst if it is time.
    pub(super) fn tick(&mut self, now: Time, sent: u64, log: &Log) {
        if self.pause.take_if(|pause| *pause <= now).is_some() {
            self.next(now, sent, log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_that_was_dealt_with_before_it_was_sent_is_followed_by_the_next() {
        let mut backlog = Backlog { last: 10, burst: 5, asks: true, ..Backlog::default() };
        backlog.pause = Some(Time::ZERO);
        backlog.dealt_with(Time::ZERO, 7);
        backlog.pause = None;
        assert!(!backlog.asks(4));
        assert_eq!(backlog.deadline(), None);
        assert!(!backlog.asks(5), "the server has nothing new to say");
        assert_eq!(backlog.deadline(), Some(Time::ZERO));
    }
}
