//! What a document's editors are told next: updates that come at about the same time are told as one, which
//! costs each editor, and the connections to all of them, as much as one does.

use std::{collections::BTreeMap, mem};

use bytes::Bytes;

use super::{awareness::PeerId, merge};

/// Bytes of updates that wait for others; with more, they are told.
const MAX_BYTES: usize = 64 << 10;
/// Updates in one: the library takes longer for more at once.
const MOST: usize = 100;

/// Something to tell everybody, but `except`: who said it knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News<T> {
    pub(super) what: T,
    pub(super) except: Option<PeerId>,
}

/// What is told next.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Whose each is, and the update; the oldest first.
    updates: Vec<(Option<PeerId>, Bytes)>,
    bytes: usize,
    /// Who came, changed or left, by whose word.
    clients: BTreeMap<u64, Option<PeerId>>,
}

impl Untold {
    pub(super) fn is_empty(&self) -> bool {
        self.updates.is_empty() && self.clients.is_empty()
    }

    /// Whether it should be told at once.
    pub(super) fn is_much(&self) -> bool {
        self.bytes > MAX_BYTES
    }

    pub(super) fn add_update(&mut self, update: Bytes, of: Option<PeerId>) {
        self.bytes += update.len();
        self.updates.push((of, update));
    }

    /// What they say is looked up when it is told.
    pub(super) fn add_clients(&mut self, clients: Vec<u64>, of: Option<PeerId>) {
        for client in clients {
            let by = self.clients.entry(client).or_insert(of);
            if *by != of {
                *by = None;
            }
        }
    }

    /// The updates, as few as they can be.
    pub(super) fn take_updates(&mut self) -> Vec<News<Bytes>> {
        self.bytes = 0;
        let updates = mem::take(&mut self.updates);
        let mut news = Vec::new();
        for some in updates.chunks(MOST) {
            match merge::together(some.iter().map(|(_, update)| update)) {
                Some(what) => {
                    let except = one(some.iter().map(|(of, _)| *of));
                    news.push(News { what, except });
                }
                None => {
                    news.extend(some.iter().map(|(of, it)| News { what: it.clone(), except: *of }))
                }
            }
        }
        news
    }

    /// Who came, changed or left.
    pub(super) fn take_clients(&mut self) -> Option<News<Vec<u64>>> {
        let clients = mem::take(&mut self.clients);
        let except = one(clients.values().copied());
        let what: Vec<_> = clients.into_keys().collect();
        (!what.is_empty()).then_some(News { what, except })
    }
}

/// Whose all of it is. Of what several did each is told all: a copy of its own costs it less than one without
/// would cost here.
fn one(mut all: impl Iterator<Item = Option<PeerId>>) -> Option<PeerId> {
    let first = all.next()?;
    first.filter(|_| all.all(|of| of == first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_told_what_is_its_own_alone() {
        assert_eq!(one([Some(1), Some(1)].into_iter()), Some(1));
        assert_eq!(one([Some(1), Some(2)].into_iter()), None);
        assert_eq!(one([Some(1), None].into_iter()), None);
        assert_eq!(one([None, Some(1)].into_iter()), None);
        assert_eq!(one([].into_iter()), None);
        let mut untold = Untold::default();
        untold.add_clients(vec![7, 8], Some(1));
        untold.add_clients(vec![8], Some(2));
        let news = News { what: vec![7, 8], except: None };
        assert_eq!(untold.take_clients(), Some(news));
        assert_eq!(untold.take_clients(), None);
    }

    #[test]
    fn what_cannot_be_merged_is_told_all_the_same() {
        let mut untold = Untold::default();
        untold.add_update(Bytes::from_static(b"no"), Some(1));
        untold.add_update(Bytes::from_static(b"update"), Some(2));
        let news = |what, except| News { what: Bytes::from_static(what), except };
        assert_eq!(untold.take_updates(), [news(b"no", Some(1)), news(b"update", Some(2))]);
        assert!(untold.is_empty());
    }
}
