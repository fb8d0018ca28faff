//! Names that JavaScript has already: topics and senders cross the boundary once, then as numbers.

use std::{collections::HashMap, sync::Arc};

use kps::message::Sender;

/// Above this many names the table starts anew with the next slab. Bounds what a stream of
/// ever-new topics can hold on both sides.
const FULL: usize = 8192;

/// The table's Rust side: which number a name has, and which names JavaScript must still learn.
#[derive(Default)]
pub(crate) struct Strings {
    numbers: HashMap<Arc<str>, u32>,
    senders: HashMap<Arc<Sender>, u32>,
    length: u32,
    fresh: Vec<Arc<str>>,
    last_topic: Option<(Arc<str>, u32)>,
    last_sender: Option<(Arc<Sender>, u32)>,
}

impl Strings {
    /// The number of `name`.
    pub(crate) fn number(&mut self, name: &Arc<str>) -> u32 {
        // Messages of one topic share its name, so the usual case is one comparison of pointers.
        if let Some((last, number)) = &self.last_topic
            && Arc::ptr_eq(last, name)
        {
            return *number;
        }
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = self.add(name.clone());
                self.numbers.insert(name.clone(), number);
                number
            }
        };
        self.last_topic = Some((name.clone(), number));
        number
    }

    /// The number of the sender's id; its origin has the next one.
    pub(crate) fn sender(&mut self, sender: &Arc<Sender>) -> u32 {
        if let Some((last, number)) = &self.last_sender
            && Arc::ptr_eq(last, sender)
        {
            return *number;
        }
        let number = match self.senders.get(sender) {
            Some(number) => *number,
            None => {
                let number = self.add(sender.id.as_str().into());
                self.add(sender.origin.as_str().into());
                self.senders.insert(sender.clone(), number);
                number
            }
        };
        self.last_sender = Some((sender.clone(), number));
        number
    }

    /// The names given numbers since the last call, in the order of their numbers.
    pub(crate) fn take_fresh(&mut self) -> std::vec::Drain<'_, Arc<str>> {
        self.fresh.drain(..)
    }

    /// Forgets everything if the table is full; `true` if it did.
    pub(crate) fn renew(&mut self) -> bool {
        let full = self.length as usize >= FULL;
        if full {
            *self = Strings::default();
        }
        full
    }

    fn add(&mut self, name: Arc<str>) -> u32 {
        let number = self.length;
        self.length += 1;
        self.fresh.push(name);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_once() {
        let mut strings = Strings::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert_eq!([strings.number(&a), strings.number(&b), strings.number(&a)], [0, 1, 0]);
        assert_eq!(strings.number(&Arc::from("b")), 1, "equal names share a number");
        assert_eq!(strings.take_fresh().collect::<Vec<_>>(), [a, b]);
        assert_eq!(strings.take_fresh().count(), 0);
    }

    #[test]
    fn a_sender_takes_two_numbers() {
        let mut strings = Strings::default();
        let sender = Arc::new(Sender { id: "me".into(), origin: "o".into() });
        assert_eq!(strings.sender(&sender), 0);
        assert_eq!(strings.number(&Arc::from("topic")), 2);
        assert_eq!(strings.sender(&Arc::new(Sender { id: "me".into(), origin: "o".into() })), 0);
        let fresh: Vec<_> = strings.take_fresh().map(|name| name.to_string()).collect();
        assert_eq!(fresh, ["me", "o", "topic"]);
    }

    #[test]
    fn a_full_table_starts_anew() {
        let mut strings = Strings::default();
        for n in 0..FULL {
            assert!(!strings.renew());
            strings.number(&Arc::from(n.to_string()));
        }
        assert!(strings.renew());
        assert_eq!(strings.number(&Arc::from("again")), 0);
    }
}
