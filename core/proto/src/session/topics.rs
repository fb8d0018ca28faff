//! Numbers for the topics this client publishes to, so that a name travels once per connection.
//!
//! The table outlives connections, because messages in the outbox refer to its numbers; each
//! connection is told what it holds. A topic gets a number at its second use: one-off topics
//! would only push others out.

use std::collections::HashMap;

use bytes::BytesMut;

use crate::wire::{
    encode,
    frame::{Frame, Name},
};

/// More aliases than any server needs: bounds what a wrong `WELCOME` makes us keep.
const MOST: usize = 1 << 16;

/// Slots that remember topics used once, by hash.
const SEEN: usize = 256;

#[derive(Debug)]
pub(super) struct Topics {
    numbers: HashMap<Box<str>, u32, ahash::RandomState>,
    names: Vec<Box<str>>,
    limit: usize,
    /// Numbers below this are known to the server.
    announced: usize,
    /// Numbers below this stand for something else at the server, until announced.
    outdated: usize,
    seen: Box<[u64; SEEN]>,
}

impl Topics {
    /// An empty table. Which topics share a slot of `seen` depends on `seed`: one seed, one run.
    pub(super) fn new(seed: u64) -> Self {
        Topics {
            numbers: HashMap::with_hasher(ahash::RandomState::with_seeds(seed, !seed, 0, 0)),
            names: Vec::new(),
            limit: 0,
            announced: 0,
            outdated: 0,
            seen: Box::new([0; SEEN]),
        }
    }

    /// The number of `topic`, if it has one.
    #[inline]
    pub(super) fn find(&self, topic: &str) -> Option<Name<'static>> {
        self.numbers.get(topic).map(|number| Name::Alias(*number))
    }

    /// How to write a valid topic that has no number yet; now it may get one.
    pub(super) fn introduce<'a>(&mut self, topic: &'a str) -> Name<'a> {
        let hash = self.numbers.hasher().hash_one(topic) | 1;
        let slot = (hash >> 32) as usize % SEEN;
        if self.seen[slot] != hash || self.is_full() {
            self.seen[slot] = hash;
            return Name::Inline(topic);
        }
        let number = u32::try_from(self.names.len()).expect("bounded by MOST");
        self.numbers.insert(topic.into(), number);
        self.names.push(topic.into());
        Name::Alias(number)
    }

    pub(super) fn is_full(&self) -> bool {
        self.names.len() >= self.limit
    }

    /// What a number stands for.
    pub(super) fn name(&self, number: u32) -> Option<&str> {
        self.names.get(number as usize).map(|name| &**name)
    }

    /// Forgets all numbers. Only when no kept message refers to one.
    pub(super) fn clear(&mut self) {
        self.outdated = self.outdated.max(self.announced);
        self.announced = 0;
        self.numbers.clear();
        self.names.clear();
    }

    /// A new connection, which knows no numbers and takes `limit` of them. False if the table
    /// holds more: then it must be cleared.
    pub(super) fn connect(&mut self, limit: u32) -> bool {
        self.limit = (limit as usize).min(MOST);
        self.announced = 0;
        self.outdated = 0;
        self.names.len() <= self.limit
    }

    pub(super) fn has_news(&self) -> bool {
        self.announced < self.names.len()
    }

    /// Tells the server the numbers that it does not know yet, each frame by itself.
    pub(super) fn announce(&mut self, mut send: impl FnMut(&mut dyn FnMut(&mut BytesMut))) {
        for at in self.announced..self.names.len() {
            let number = at as u32;
            if at < self.outdated {
                send(&mut |out| encode(&Frame::Unalias { number }, out));
            }
            send(&mut |out| encode(&Frame::Alias { number, name: &self.names[at] }, out));
        }
        self.announced = self.names.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Frames;

    fn announced(topics: &mut Topics) -> Vec<String> {
        let mut out = BytesMut::new();
        topics.announce(|encode| encode(&mut out));
        Frames::new(&out)
            .map(|frame| match frame.unwrap() {
                Frame::Alias { number, name } => format!("{number}={name}"),
                Frame::Unalias { number } => format!("-{number}"),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_topic_gets_a_number_at_its_second_use_and_each_connection_is_told_once() {
        let mut topics = Topics::new(1);
        topics.connect(8);
        assert_eq!(topics.introduce("a"), Name::Inline("a"));
        assert_eq!(topics.introduce("a"), Name::Alias(0));
        assert_eq!(topics.find("a"), Some(Name::Alias(0)));
        assert_eq!(announced(&mut topics), ["0=a"]);
        assert!(announced(&mut topics).is_empty());
        assert!(topics.connect(8));
        assert_eq!(announced(&mut topics), ["0=a"]);
    }

    #[test]
    fn a_full_table_writes_names_and_a_cleared_one_takes_numbers_back_first() {
        let mut topics = Topics::new(1);
        topics.connect(1);
        for _ in 0..2 {
            topics.introduce("a");
        }
        assert_eq!(announced(&mut topics), ["0=a"]);
        for _ in 0..3 {
            assert_eq!(topics.introduce("b"), Name::Inline("b"));
        }
        topics.clear();
        assert_eq!(topics.introduce("b"), Name::Alias(0));
        assert_eq!(announced(&mut topics), ["-0", "0=b"]);
    }
}
