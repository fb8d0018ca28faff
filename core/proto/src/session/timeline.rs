//! The last things that happened to a connection, for people who ask what went wrong.

use std::collections::VecDeque;

use crate::clock::Time;

/// How many moments are kept.
const LENGTH: usize = 256;

/// One line of [`Session::timeline`](super::Session::timeline).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Time,
    /// What happened: `connection_opened`, `connection_closed`, `subscribed`, …
    pub what: &'static str,
    /// More about it; may be empty. Never a secret.
    pub detail: String,
}

#[derive(Debug, Default)]
pub(super) struct Timeline(VecDeque<Moment>);

impl Timeline {
    pub(super) fn note(&mut self, at: Time, what: &'static str, detail: impl Into<String>) {
        if self.0.len() == LENGTH {
            self.0.pop_front();
        }
        self.0.push_back(Moment { at, what, detail: detail.into() });
    }

    pub(super) fn moments(&self) -> impl Iterator<Item = &Moment> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_last_moments() {
        let mut timeline = Timeline::default();
        for micros in 0..300 {
            timeline.note(Time::from_micros(micros), "tick", "");
        }
        assert_eq!(timeline.moments().count(), LENGTH);
        assert_eq!(timeline.moments().next().map(|moment| moment.at.as_micros()), Some(44));
    }
}
