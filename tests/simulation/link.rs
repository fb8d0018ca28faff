//! A connection as the network treats it: delayed, stalled, cut at any byte.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use kps_proto::clock::Time;

use crate::random::Dice;

/// What the sender's socket and the network hold before the sender must wait.
const IN_FLIGHT: usize = 48 << 10;

/// One direction. Messages arrive in order; those that have not arrived when it is cut are lost,
/// for half a WebSocket message is none.
pub(crate) struct Pipe {
    messages: VecDeque<(Time, Bytes)>,
    in_flight: usize,
    delay: Duration,
    last: Time,
    is_cut: bool,
}

impl Pipe {
    fn new(dice: &mut Dice) -> Pipe {
        let most = *dice.pick(&[50, 1_000, 40_000, 300_000]);
        Pipe {
            messages: VecDeque::new(),
            in_flight: 0,
            delay: Duration::from_micros(dice.between(20, most)),
            last: Time::ZERO,
            is_cut: false,
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.in_flight < IN_FLIGHT
    }

    pub(crate) fn send(&mut self, now: Time, message: Bytes) {
        let arrives = (now + self.delay).max(self.last + Duration::from_micros(1));
        self.last = arrives;
        self.in_flight += message.len();
        if !self.is_cut {
            self.messages.push_back((arrives, message));
        }
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.messages.front().map(|(arrives, _)| *arrives)
    }

    pub(crate) fn receive(&mut self, now: Time) -> Option<Bytes> {
        let (arrives, _) = self.messages.front()?;
        if *arrives > now {
            return None;
        }
        let (_, message) = self.messages.pop_front()?;
        self.in_flight -= message.len();
        Some(message)
    }

    /// Nothing arrives before `until`.
    pub(crate) fn stall(&mut self, until: Time) {
        let mut at = until;
        for (arrives, _) in &mut self.messages {
            *arrives = (*arrives).max(at);
            at = *arrives + Duration::from_micros(1);
        }
        self.last = self.last.max(at);
    }

    fn lose(&mut self) {
        self.messages.clear();
        self.is_cut = true;
    }
}

/// Both directions, and who still believes in it.
pub(crate) struct Link {
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    /// When the client's or the server's side learns that it is gone.
    pub(crate) client_learns: Option<Time>,
    pub(crate) server_learns: Option<Time>,
    /// Nothing passes any more.
    pub(crate) is_cut: bool,
}

impl Link {
    pub(crate) fn new(dice: &mut Dice) -> Link {
        Link {
            up: Pipe::new(dice),
            down: Pipe::new(dice),
            client_learns: None,
            server_learns: None,
            is_cut: false,
        }
    }

    /// Cuts it; the sides learn of it after what they are given.
    pub(crate) fn cut(&mut self, now: Time, client: Duration, server: Duration) {
        self.up.lose();
        self.down.lose();
        self.is_cut = true;
        self.client_learns = self.client_learns.or(Some(now + client));
        self.server_learns = self.server_learns.or(Some(now + server));
    }

    /// The client has given up on it.
    pub(crate) fn forget(&mut self) {
        self.client_learns = None;
        self.down.lose();
    }

    pub(crate) fn next(&self) -> Option<Time> {
        [self.up.next(), self.down.next(), self.client_learns, self.server_learns]
            .into_iter()
            .flatten()
            .min()
    }
}
