//! What became of the messages that were to be kept.

use std::collections::BTreeSet;

use crate::truth::Token;

#[derive(Default)]
pub(crate) struct Fates {
    /// Every publish to a topic with history, but those that the outbox dropped.
    pub(crate) published: BTreeSet<Token>,
    /// Those with a time to live.
    pub(crate) mortal: BTreeSet<Token>,
    /// Those that the outbox dropped though they may have been accepted, and their publishers know it.
    pub(crate) dropped: BTreeSet<Token>,
    /// Those that were stored on a disk that is not there any more. Whoever subscribed before that
    /// must have heard of a gap.
    pub(crate) gone: BTreeSet<Token>,
    /// How often the disk was lost or replaced.
    pub(crate) swaps: usize,
}
