//! The connection's life: when to make it, whether it is alive, why it ended.

use std::time::Duration;

use super::{config::Backoff, event::State, random::Random};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
};

/// A server without a heartbeat of its own, or with an absurd one, is held to these.
const HEARTBEATS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// The longest a server may ask us to stay away.
const LONGEST_DELAY: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Link {
    phase: Phase,
    backoff: Backoff,
    /// Attempts since a connection lasted.
    attempts: u32,
    /// Whether a handshake was ever done.
    known: bool,
    welcomed: Time,
    sent: Time,
    received: Time,
    /// A `PING` waits to be sent.
    pinging: bool,
    heartbeat: Duration,
    /// Asked for by the server's `GOAWAY`.
    delay: Option<Duration>,
    /// Why this connection ends, if known before the transport says so.
    error: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting { until: Time },
    Dialing,
    Handshake { until: Time },
    Ready,
    Closed,
}

impl Link {
    pub(super) fn new(backoff: Backoff) -> Link {
        Link {
            phase: Phase::Waiting { until: Time::ZERO },
            backoff,
            attempts: 0,
            known: false,
            welcomed: Time::ZERO,
            sent: Time::ZERO,
            received: Time::ZERO,
            pinging: false,
            heartbeat: HEARTBEATS.1,
            delay: None,
            error: None,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Ready => State::Connected,
            Phase::Closed => State::Closed,
            _ if self.known => State::Reconnecting,
            _ => State::Connecting,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    pub(super) fn is_shaking_hands(&self) -> bool {
        matches!(self.phase, Phase::Handshake { .. })
    }

    /// Whether to connect now. True once per attempt.
    pub(super) fn should_connect(&mut self, now: Time) -> bool {
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.phase = Phase::Dialing;
                true
            }
            _ => false,
        }
    }

    pub(super) fn connected(&mut self, now: Time, handshake_timeout: Duration) {
        self.phase = Phase::Handshake { until: now + handshake_timeout };
        self.sent = now;
        self.received = now;
        self.pinging = false;
        self.delay = None;
        self.error = None;
    }

    pub(super) fn welcomed(&mut self, now: Time, heartbeat_ms: u64) {
        self.phase = Phase::Ready;
        self.known = true;
        self.welcomed = now;
        self.heartbeat = Duration::from_millis(heartbeat_ms).clamp(HEARTBEATS.0, HEARTBEATS.1);
    }

    /// The connection is gone, or could not be made. Returns how long to wait before the next
    /// attempt; an error if there will be none.
    pub(super) fn disconnected(
        &mut self,
        now: Time,
        reason: Option<Error>,
        random: &mut Random,
    ) -> (Error, Result<Duration>) {
        let error = self
            .error
            .take()
            .or(reason)
            .unwrap_or_else(|| Error::new(ErrorKind::Disconnected, "the connection was lost"));
        if is_final(error.kind()) || !self.backoff.reconnect {
            self.phase = Phase::Closed;
            return (error.clone(), Err(error));
        }
        if self.is_ready() && now.since(self.welcomed) >= self.backoff.max {
            self.attempts = 0;
        }
        let doubled = 2u32.saturating_pow(self.attempts).max(1);
        self.attempts = self.attempts.saturating_add(1);
        let delay = self.backoff.min.saturating_mul(doubled).min(self.backoff.max);
        // Half of it is random, so that the clients of a restarted server do not come all at once.
        let delay = delay.mul_f64(0.5 + random.fraction() / 2.0);
        let delay = delay + self.delay.take().unwrap_or_default();
        self.phase = Phase::Waiting { until: now + delay };
        (error, Ok(delay))
    }

    pub(super) fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    /// Why the connection is about to end. The first reason counts.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        self.error.get_or_insert(error).clone()
    }

    pub(super) fn stay_away(&mut self, delay_ms: u64) {
        self.delay = Some(Duration::from_millis(delay_ms).min(LONGEST_DELAY));
    }

    pub(super) fn note_sent(&mut self, now: Time) {
        self.sent = now;
        self.pinging = false;
    }

    pub(super) fn note_received(&mut self, now: Time) {
        self.received = now;
    }

    /// Whether a `PING` is to be queued, so that the server hears from us. True once until
    /// something is sent.
    pub(super) fn should_ping(&mut self, now: Time) -> bool {
        let due = self.is_ready() && !self.pinging && now >= self.sent + self.heartbeat;
        self.pinging |= due;
        due
    }

    /// An error when the server was silent for too long.
    pub(super) fn check_alive(&mut self, now: Time) -> Result<()> {
        let problem = match self.phase {
            Phase::Handshake { until } if now >= until => "the server did not answer the handshake",
            Phase::Ready if now >= self.received + self.silence() => {
                "the server was silent for too long"
            }
            _ => return Ok(()),
        };
        Err(self.fail(Error::new(ErrorKind::Timeout, problem)))
    }

    /// 20 s at the default heartbeat of 8 s.
    fn silence(&self) -> Duration {
        self.heartbeat * 5 / 2
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Waiting { until } | Phase::Handshake { until } => Some(until),
            Phase::Ready => {
                let dead = self.received + self.silence();
                Some(if self.pinging { dead } else { dead.min(self.sent + self.heartbeat) })
            }
            Phase::Dialing | Phase::Closed => None,
        }
    }
}

/// Whether trying again would end the same way.
fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unauthorized
            | ErrorKind::IdInUse
            | ErrorKind::Replaced
            | ErrorKind::Unsupported
            | ErrorKind::ForbiddenOrigin
            | ErrorKind::InvalidArgument
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(link: &mut Link, now: Time) -> Duration {
        link.disconnected(now, None, &mut Random::new(1)).1.unwrap()
    }

    #[test]
    fn waits_double_up_to_the_longest_and_start_again_once_a_connection_lasted() {
        let mut link = Link::new(Backoff::default());
        let mut now = Time::ZERO;
        let mut longest = Duration::ZERO;
        for attempt in 0..10 {
            assert!(link.should_connect(now) && !link.should_connect(now));
            let wait = lost(&mut link, now);
            let full = Duration::from_millis(100 << attempt).min(Duration::from_secs(5));
            assert!(wait >= full / 2 && wait <= full, "{attempt}: {wait:?}");
            longest = longest.max(wait);
            now = now + wait;
        }
        assert!(longest > Duration::from_secs(2));
        assert!(link.should_connect(now));
        link.connected(now, Duration::from_secs(5));
        link.welcomed(now, 8000);
        assert!(lost(&mut link, now) > Duration::from_secs(2), "a connection that did not last");
        link.welcomed(now, 8000);
        assert!(lost(&mut link, now + Duration::from_secs(6)) <= Duration::from_millis(100));
    }

    #[test]
    fn an_error_that_would_come_again_ends_it() {
        let mut link = Link::new(Backoff::default());
        let refused = Error::new(ErrorKind::Unauthorized, "wrong token");
        assert!(link.should_connect(Time::ZERO));
        link.fail(refused.clone());
        let (error, next) = link.disconnected(Time::ZERO, None, &mut Random::new(1));
        assert_eq!((error.kind(), next.is_err()), (ErrorKind::Unauthorized, true));
        assert_eq!(link.state(), State::Closed);
        assert_eq!(link.deadline(), None);
    }

    #[test]
    fn a_silent_server_is_found_dead_and_a_leaving_one_obeyed() {
        let mut link = Link::new(Backoff::default());
        assert!(link.should_connect(Time::ZERO));
        link.connected(Time::ZERO, Duration::from_secs(5));
        assert!(link.check_alive(Time::ZERO + Duration::from_secs(5)).is_err());
        link.connected(Time::ZERO, Duration::from_secs(5));
        link.welcomed(Time::ZERO, 8000);
        let quiet = Time::ZERO + Duration::from_secs(8);
        assert!(link.should_ping(quiet) && !link.should_ping(quiet));
        assert_eq!(link.deadline(), Some(Time::ZERO + Duration::from_secs(20)));
        assert!(link.check_alive(Time::ZERO + Duration::from_secs(19)).is_ok());
        assert!(link.check_alive(Time::ZERO + Duration::from_secs(20)).is_err());
        link.stay_away(3000);
        assert!(lost(&mut link, Time::ZERO) > Duration::from_secs(3));
    }
}
