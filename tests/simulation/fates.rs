//! What became of the messages that were to be kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::truth::Token;

#[derive(Default)]
pub(crate) struct Fates {
    /// Every publish to a topic with history, but those that the outbox dropped.
    pub(crate) published: BTreeSet<Token>,
    /// Those that may be missed, if that is told: with a time to live, private, not for who is away.
    pub(crate) mortal: BTreeSet<Token>,
    pub(crate) private: BTreeSet<Token>,
    /// Where private ones stood, as far as somebody saw it: epoch, topic and number there.
    pub(crate) places: BTreeMap<(u64, Arc<str>, u64), Token>,
    /// Those that are for some clients only.
    pub(crate) to: BTreeMap<Token, Vec<usize>>,
    /// Those to be retained, by topic.
    pub(crate) retained: BTreeMap<&'static str, BTreeSet<Token>>,
    /// Topics of which nobody can say what is retained.
    pub(crate) unsure: BTreeSet<&'static str>,
    /// Those that the outbox dropped though they may have been accepted, and their publishers know it.
    pub(crate) dropped: BTreeSet<Token>,
    /// Those that were stored on a disk that is not there any more. Whoever subscribed before that
    /// must have heard of a gap.
    pub(crate) gone: BTreeSet<Token>,
    /// How often the disk was lost or replaced.
    pub(crate) swaps: usize,
    /// Whether history has a limit by age.
    pub(crate) may_age: bool,
    /// How often the broker died.
    pub(crate) deaths: usize,
}

impl Fates {
    pub(crate) fn is_for(&self, token: Token, client: usize) -> bool {
        self.to.get(&token).is_none_or(|to| to.contains(&client))
    }

    /// Its publisher was told that it was not accepted; `perhaps`: or cannot know.
    pub(crate) fn failed(&mut self, token: Token, perhaps: bool) {
        if self.published.remove(&token) && perhaps {
            self.dropped.insert(token);
        }
        for (topic, retained) in &mut self.retained {
            if retained.remove(&token) && perhaps {
                self.unsure.insert(topic);
            }
        }
    }

    /// What each publisher had retained last on this topic.
    pub(crate) fn last_retained(&self, topic: &str) -> BTreeMap<usize, u64> {
        // In order, so that the last one stays.
        self.retained.get(topic).into_iter().flatten().copied().collect()
    }
}
