//! How many keys and bytes each namespace has, and which version is its next.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{Connection, params};

use crate::store::{
    checksum::Checksum,
    fault::{Result, corrupt},
    schema::{int, signed},
};

/// What is true of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(super) id: i64,
    /// The last version of any of its keys.
    pub(super) version: u64,
    pub(crate) keys: u64,
    /// Of keys and values, those of old versions as well.
    pub(crate) bytes: u64,
}

impl Tally {
    fn checksum(&self, name: &str) -> i64 {
        let Tally { id, version, keys, bytes } = *self;
        Checksum::of("namespaces")
            .ints([id.cast_unsigned(), version, keys, bytes])
            .text(name)
            .done()
    }
}

/// The namespaces; changes are undone unless they are committed.
#[derive(Debug, Default)]
pub(super) struct Book {
    namespaces: HashMap<Arc<str>, Tally>,
    names: HashMap<i64, Arc<str>>,
    /// What changed in this transaction, as it was before.
    before: Vec<(Arc<str>, Option<Tally>)>,
    /// The sum of all versions: how many changes there were.
    versions: u64,
}

impl Book {
    pub(super) fn load(connection: &Connection) -> Result<Book> {
        let mut book = Book::default();
        let sql = "SELECT id, name, version, keys, bytes, checksum FROM namespaces";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: Arc<str> = row.get::<_, String>(1)?.into();
            let tally = Tally {
                id: row.get(0)?,
                version: int(row, 2)?,
                keys: int(row, 3)?,
                bytes: int(row, 4)?,
            };
            if row.get::<_, i64>(5)? != tally.checksum(&name) {
                return corrupt(format!("the namespace {name:?} does not have its checksum"));
            }
            book.versions += tally.version;
            book.names.insert(tally.id, name.clone());
            book.namespaces.insert(name, tally);
        }
        Ok(book)
    }

    pub(super) fn get(&self, name: &str) -> Option<Tally> {
        self.namespaces.get(name).copied()
    }

    pub(super) fn name(&self, id: i64) -> Option<Arc<str>> {
        self.names.get(&id).cloned()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Tally)> {
        self.namespaces.iter()
    }

    /// The namespace, to be changed; a new one gets a number.
    pub(super) fn change(&mut self, name: &Arc<str>) -> &mut Tally {
        let Book { namespaces, names, before, .. } = self;
        let tally = namespaces.get(name).copied();
        before.push((name.clone(), tally));
        namespaces.entry(name.clone()).or_insert_with(|| {
            let id = names.keys().max().map_or(1, |last| last + 1);
            names.insert(id, name.clone());
            Tally { id, ..Tally::default() }
        })
    }

    /// The next version in a namespace.
    pub(super) fn next_version(&mut self, name: &Arc<str>) -> (i64, u64) {
        let tally = self.change(name);
        tally.version += 1;
        let next = (tally.id, tally.version);
        self.versions += 1;
        next
    }

    /// Where [`undo`](Self::undo) goes back to.
    pub(super) fn point(&self) -> usize {
        self.before.len()
    }

    /// Everything since `point` did not happen.
    pub(super) fn undo(&mut self, point: usize) {
        while self.before.len() > point
            && let Some((name, tally)) = self.before.pop()
        {
            let gone = self.namespaces.get(&name).copied().unwrap_or_default();
            self.versions -= gone.version - tally.map_or(0, |tally| tally.version);
            match tally {
                Some(tally) => {
                    self.namespaces.insert(name, tally);
                }
                None => {
                    self.namespaces.remove(&name);
                    self.names.remove(&gone.id);
                }
            }
        }
    }

    /// Writes what changed.
    pub(super) fn save(&self, connection: &Connection) -> Result<()> {
        const SQL: &str = "INSERT INTO namespaces VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE \
            SET version = excluded.version, keys = excluded.keys, bytes = excluded.bytes, \
            checksum = excluded.checksum";
        for (place, (name, _)) in self.before.iter().enumerate() {
            let later = &self.before[place + 1..];
            let Some(tally) = self.get(name) else { continue };
            // A change that another follows need not be written.
            if later.first().is_some_and(|(next, _)| next == name) {
                continue;
            }
            connection.prepare_cached(SQL)?.execute(params![
                tally.id,
                &**name,
                signed(tally.version),
                signed(tally.keys),
                signed(tally.bytes),
                tally.checksum(name)
            ])?;
        }
        Ok(())
    }

    /// Namespaces that this transaction made.
    pub(super) fn new_ids(&self) -> impl Iterator<Item = (Arc<str>, i64)> {
        let new = self.before.iter().filter(|(_, before)| before.is_none());
        new.filter_map(|(name, _)| Some((name.clone(), self.get(name)?.id)))
    }

    /// What happened stays. How many changes there were, from the beginning.
    pub(super) fn commit(&mut self) -> u64 {
        self.before.clear();
        self.versions
    }
}
