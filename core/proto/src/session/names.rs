//! The names the server gave numbers on this connection: topics and senders.
//!
//! A name that has a number is shared by all its messages: no allocation per message.

use std::sync::Arc;

use crate::{
    error::{Error, ErrorKind, Result},
    message::Sender,
    wire::frame::Name,
};

/// Bounds what a wrong server makes us keep: numbers, and bytes of a name (a sender is two ids, a
/// topic 1 KiB).
const MOST: usize = 1 << 16;
const LONGEST: usize = 4 << 10;

#[derive(Debug, Default)]
pub(super) struct Names {
    entries: Vec<Option<Entry>>,
    limit: usize,
    /// The last name that came without a number, as a topic and as a sender.
    topic: Option<Arc<str>>,
    sender: Option<Arc<Sender>>,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    /// Set when the number is first used as a sender.
    sender: Option<Arc<Sender>>,
}

impl Names {
    /// A new connection: nothing has a number.
    pub(super) fn connect(&mut self, limit: u32) {
        *self = Names { limit: (limit as usize).min(MOST), ..Names::default() };
    }

    pub(super) fn set(&mut self, number: u32, name: &str) -> Result<()> {
        let at = number as usize;
        if at >= self.limit || name.len() > LONGEST {
            return wrong("the server numbered a name beyond the limits it named");
        }
        if at >= self.entries.len() {
            self.entries.resize_with(at + 1, || None);
        }
        self.entries[at] = Some(Entry { name: name.into(), sender: None });
        Ok(())
    }

    pub(super) fn unset(&mut self, number: u32) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            *entry = None;
        }
    }

    #[inline]
    pub(super) fn topic(&mut self, name: Name<'_>) -> Result<Arc<str>> {
        match name {
            Name::Alias(number) => Ok(self.entry(number)?.name.clone()),
            Name::Inline(name) => {
                if self.topic.as_deref() != Some(name) {
                    self.topic = Some(name.into());
                }
                Ok(self.topic.clone().expect("set above"))
            }
        }
    }

    #[inline]
    pub(super) fn sender(&mut self, name: Name<'_>) -> Result<Arc<Sender>> {
        match name {
            Name::Alias(number) => {
                let Entry { name, sender } = self.entry(number)?;
                Ok(sender.get_or_insert_with(|| Arc::new(parse_sender(name))).clone())
            }
            Name::Inline(name) => {
                let known = self.sender.as_ref().filter(|sender| is_sender(sender, name)).cloned();
                let sender = known.unwrap_or_else(|| Arc::new(parse_sender(name)));
                self.sender = Some(sender.clone());
                Ok(sender)
            }
        }
    }

    #[inline]
    fn entry(&mut self, number: u32) -> Result<&mut Entry> {
        match self.entries.get_mut(number as usize) {
            Some(Some(entry)) => Ok(entry),
            _ => wrong("the server used a number that stands for no name"),
        }
    }
}

/// `origin/id`; an id may itself hold slashes, an origin does not.
fn parse_sender(name: &str) -> Sender {
    let (origin, id) = name.split_once('/').unwrap_or(("", name));
    Sender { id: id.into(), origin: origin.into() }
}

fn is_sender(sender: &Sender, name: &str) -> bool {
    name.strip_prefix(&*sender.origin).and_then(|rest| rest.strip_prefix('/')) == Some(&*sender.id)
}

#[cold]
fn wrong<T>(problem: &'static str) -> Result<T> {
    Err(Error::new(ErrorKind::Protocol, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_shares_its_name_until_it_is_taken_back() {
        let mut names = Names::default();
        names.connect(4);
        names.set(3, "o/a/b").unwrap();
        let sender = names.sender(Name::Alias(3)).unwrap();
        assert_eq!((&*sender.origin, &*sender.id), ("o", "a/b"));
        assert!(Arc::ptr_eq(&sender, &names.sender(Name::Alias(3)).unwrap()));
        let topic = names.topic(Name::Alias(3)).unwrap();
        assert!(Arc::ptr_eq(&topic, &names.topic(Name::Alias(3)).unwrap()));
        names.unset(3);
        assert!(names.topic(Name::Alias(3)).is_err());
    }

    #[test]
    fn names_without_a_number_are_shared_while_they_repeat() {
        let mut names = Names::default();
        let sender = names.sender(Name::Inline("o/a")).unwrap();
        assert!(Arc::ptr_eq(&sender, &names.sender(Name::Inline("o/a")).unwrap()));
        assert!(!Arc::ptr_eq(&sender, &names.sender(Name::Inline("o/b")).unwrap()));
    }

    #[test]
    fn a_server_cannot_number_more_than_it_said() {
        let mut names = Names::default();
        names.connect(4);
        assert!(names.set(4, "a").is_err());
        assert!(names.set(0, &"a".repeat(LONGEST + 1)).is_err());
        assert!(names.topic(Name::Alias(u32::MAX)).is_err());
    }
}
