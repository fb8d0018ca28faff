//! The topics as the writer changes them within a transaction.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use rusqlite::Connection;

use super::{
    catalogue::Catalogue,
    fault::Result,
    schema::{State, Stats, TopicRow, signed},
};

/// Topics without messages that are remembered, for what was removed from them.
const MAX_EMPTY: usize = 16_384;

/// A topic, with what is not on disk.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) row: TopicRow,
    /// The first rule that matches, by its place.
    pub(super) rule: Option<usize>,
    changed: bool,
    /// The checksum of its row on disk.
    on_disk: Option<i64>,
}

/// Every topic.
#[derive(Debug, Default)]
pub(super) struct Topics {
    by_id: HashMap<u64, Topic>,
    by_name: HashMap<Arc<str>, HashMap<Arc<str>, u64>>,
    /// The one looked up last: most messages come in runs.
    recent: Option<(Arc<str>, Arc<str>, u64)>,
    /// Those without messages, by their last position.
    empty: BTreeSet<(u64, u64)>,
    changed: Vec<u64>,
    forgotten: Vec<(Arc<str>, Arc<str>)>,
}

impl Topics {
    /// Adds a topic; `on_disk` if it has a row there.
    pub(super) fn insert(&mut self, row: TopicRow, rule: Option<usize>, on_disk: bool) {
        let names = self.by_name.entry(row.namespace.clone()).or_default();
        names.insert(row.name.clone(), row.id);
        if row.stats.messages == 0 {
            self.empty.insert((row.stats.last, row.id));
        }
        let on_disk = on_disk.then(|| row.checksum());
        self.by_id.insert(row.id, Topic { row, rule, changed: false, on_disk });
    }

    /// The topic's number, if it is known.
    pub(super) fn find(&mut self, namespace: &Arc<str>, name: &Arc<str>) -> Option<u64> {
        if let Some((known_namespace, known_name, id)) = &self.recent
            && same(known_name, name)
            && same(known_namespace, namespace)
        {
            return Some(*id);
        }
        let id = *self.by_name.get(namespace)?.get(name)?;
        self.recent = Some((namespace.clone(), name.clone(), id));
        Some(id)
    }

    /// The position of the topic's newest message.
    pub(super) fn last(&self, id: u64) -> Option<u64> {
        self.by_id.get(&id).map(|topic| topic.row.stats.last)
    }

    /// Lets `change` change what the topic counts.
    pub(super) fn change(&mut self, id: u64, change: impl FnOnce(&mut Stats)) -> Option<&Topic> {
        let topic = self.by_id.get_mut(&id)?;
        let before = topic.row.stats;
        change(&mut topic.row.stats);
        if !topic.changed {
            topic.changed = true;
            self.changed.push(id);
        }
        let now = topic.row.stats;
        if before.messages == 0 {
            self.empty.remove(&(before.last, id));
        }
        if now.messages == 0 {
            self.empty.insert((now.last, id));
        }
        Some(topic)
    }

    /// Forgets the longest empty topics when there are too many: anybody may name any number. At
    /// most `max`; how many those were.
    pub(super) fn forget(
        &mut self,
        connection: &Connection,
        state: &mut State,
        max: u64,
    ) -> Result<u64> {
        let mut count = 0;
        while count < max && self.empty.len() > MAX_EMPTY {
            let Some((last, id)) = self.empty.pop_first() else { break };
            count += 1;
            let Some(topic) = self.by_id.remove(&id) else { continue };
            let sql = "DELETE FROM topics WHERE id = ?";
            connection.prepare_cached(sql)?.execute([signed(id)])?;
            if let Some(sum) = topic.on_disk {
                state.topics.remove(sum);
            }
            let TopicRow { namespace, name, .. } = topic.row;
            if let Some(names) = self.by_name.get_mut(&namespace) {
                names.remove(&name);
                if names.is_empty() {
                    self.by_name.remove(&namespace);
                }
            }
            self.recent = None;
            self.forgotten.push((namespace, name));
            state.forgotten = state.forgotten.max(last);
        }
        Ok(count)
    }

    /// Writes what changed.
    pub(super) fn save(&mut self, connection: &Connection, state: &mut State) -> Result<()> {
        for id in &self.changed {
            // Topics made and forgotten within the transaction are gone already.
            let Some(topic) = self.by_id.get_mut(id) else { continue };
            topic.row.save(connection)?;
            let sum = topic.row.checksum();
            if let Some(before) = topic.on_disk.replace(sum) {
                state.topics.remove(before);
            }
            state.topics.add(sum);
        }
        Ok(())
    }

    /// What changed is committed: tells the readers.
    pub(super) fn publish(&mut self, catalogue: &mut Catalogue) {
        for (namespace, name) in self.forgotten.drain(..) {
            catalogue.remove(&namespace, &name);
        }
        for id in self.changed.drain(..) {
            if let Some(topic) = self.by_id.get_mut(&id) {
                topic.changed = false;
                catalogue.put(&topic.row);
            }
        }
    }
}

/// Whether two names are the same, mostly without looking at their bytes.
fn same(a: &Arc<str>, b: &Arc<str>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
