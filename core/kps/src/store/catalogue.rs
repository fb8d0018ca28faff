//! The topics as committed, in memory: what a read plans with.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use kps_proto::topic::Pattern;
use rusqlite::Connection;

use super::{
    checksum::{Checksum, Sum},
    fault::{Result, corrupt},
    schema::{State, Stats, TopicRow, int, signed},
};

/// Everything here was true after one and the same commit.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) state: State,
    epochs: Epochs,
    namespaces: HashMap<Arc<str>, BTreeMap<Arc<str>, Entry>>,
}

/// A topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) stats: Stats,
}

impl Catalogue {
    /// As the file says.
    pub(super) fn load(connection: &Connection, state: State) -> Result<Catalogue> {
        let epochs = Epochs::load(connection, state.epochs)?;
        let mut catalogue = Catalogue { state, epochs, namespaces: HashMap::new() };
        for topic in &TopicRow::load_all(connection, state.topics)? {
            catalogue.put(topic);
        }
        Ok(catalogue)
    }

    /// Adds the topic, or brings it up to date.
    pub(super) fn put(&mut self, topic: &TopicRow) {
        let entry = Entry { id: topic.id, stats: topic.stats };
        if let Some(known) =
            self.namespaces.get_mut(&topic.namespace).and_then(|names| names.get_mut(&topic.name))
        {
            *known = entry;
            return;
        }
        let names = self.namespaces.entry(topic.namespace.clone()).or_default();
        names.insert(topic.name.clone(), entry);
    }

    /// Forgets the topic.
    pub(super) fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(names) = self.namespaces.get_mut(namespace) {
            names.remove(name);
            if names.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
    }

    pub(super) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Begins an epoch; it must be above the earlier ones.
    pub(super) fn begin(&mut self, connection: &Connection, epoch: u64) -> Result<()> {
        let start = self.state.position;
        let sum = Epochs::checksum(epoch, start);
        let mut statement = connection.prepare_cached("INSERT INTO epochs VALUES (?, ?, ?)")?;
        statement.execute((signed(epoch), signed(start), sum))?;
        self.state.epochs.add(sum);
        self.epochs.0.push((epoch, start));
        Ok(())
    }

    /// Every topic with its namespace.
    pub(super) fn topics(&self) -> impl Iterator<Item = TopicRow> {
        self.namespaces.iter().flat_map(|(namespace, names)| {
            names.iter().map(|(name, entry)| TopicRow {
                id: entry.id,
                namespace: namespace.clone(),
                name: name.clone(),
                stats: entry.stats,
            })
        })
    }

    /// The namespace's own copy of its name, and the topics that match, by name.
    pub(super) fn matching<'a>(
        &'a self,
        namespace: &str,
        pattern: &'a Pattern,
    ) -> (Option<&'a Arc<str>>, impl Iterator<Item = (&'a Arc<str>, Entry)>) {
        let (namespace, names) = self.namespaces.get_key_value(namespace).unzip();
        // Only names that begin as the pattern does can match.
        let prefix = literal_prefix(pattern.as_str());
        let range = (Bound::Included(prefix), Bound::Unbounded);
        let found = names
            .into_iter()
            .flat_map(move |names| names.range::<str, _>(range))
            .take_while(move |(name, _)| name.starts_with(prefix))
            .filter(|(name, _)| pattern.matches(name))
            .map(|(name, entry)| (name, *entry));
        (namespace, found)
    }
}

/// Whether a pattern stands for the one topic of its own name.
pub(super) fn is_name(pattern: &str) -> bool {
    literal_prefix(pattern).len() == pattern.len()
}

/// What precedes the first wildcard level.
fn literal_prefix(pattern: &str) -> &str {
    let mut length = 0;
    for level in pattern.split('.') {
        if level == "*" || level == ">" {
            return &pattern[..length];
        }
        length += level.len() + 1;
    }
    pattern
}

/// The broker's runs in order, each with the position behind which it began.
#[derive(Clone, Debug, Default)]
pub(super) struct Epochs(Vec<(u64, u64)>);

impl Epochs {
    /// Their checksums make `sum`.
    fn load(connection: &Connection, sum: Sum) -> Result<Epochs> {
        let mut statement = connection.prepare_cached("SELECT * FROM epochs ORDER BY epoch")?;
        let mut rows = statement.query([])?;
        let mut epochs = Vec::new();
        let mut found = Sum::default();
        while let Some(row) = rows.next()? {
            let (epoch, start) = (int(row, 0)?, int(row, 1)?);
            let checksum = Self::checksum(epoch, start);
            if row.get::<_, i64>(2)? != checksum {
                return corrupt(format!("epoch {epoch} does not have its checksum"));
            }
            found.add(checksum);
            epochs.push((epoch, start));
        }
        if found != sum || !epochs.is_sorted_by_key(|&(_, start)| start) {
            return corrupt("epochs are missing or not in order");
        }
        Ok(Epochs(epochs))
    }

    pub(super) fn newest(&self) -> Option<u64> {
        self.0.last().map(|&(epoch, _)| epoch)
    }

    /// The epoch that wrote a position.
    pub(super) fn of(&self, position: u64) -> u64 {
        let after = self.0.partition_point(|&(_, start)| start < position);
        after.checked_sub(1).map_or(0, |place| self.0[place].0)
    }

    /// Each epoch with the last position it wrote, 0 if none; `position` is the store's last.
    pub(super) fn with_ends(&self, position: u64) -> Vec<(u64, u64)> {
        let ends = self.0.iter().skip(1).map(|&(_, start)| start).chain([position]);
        let with_end = |(&(epoch, start), end)| (epoch, if end > start { end } else { 0 });
        self.0.iter().zip(ends).map(with_end).collect()
    }

    fn checksum(epoch: u64, start: u64) -> i64 {
        Checksum::of("epochs").ints([epoch, start]).done()
    }
}
