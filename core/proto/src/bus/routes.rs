//! A namespace: its clients, its patterns, and for each topic in use the subscriptions it reaches.

use std::{collections::HashMap, sync::Arc};

use slotmap::{SlotMap, new_key_type};

use super::{
    retained::Retained,
    state::{SessionKey, SubKey, Subscription},
};
use crate::{
    history::HistoryRule,
    topic::{Pattern, TopicTable, open_prefix},
};

new_key_type! {
    pub(super) struct TopicKey;
}

/// Topics remembered per namespace, for their `seq` and routes. Beyond it those not used lately
/// are forgotten.
const MAX_TOPICS: usize = 100_000;

#[derive(Debug)]
pub(super) struct Space {
    pub(super) name: Arc<str>,
    rules: Arc<[HistoryRule]>,
    pub(super) clients: HashMap<Arc<str>, SessionKey>,
    table: TopicTable<SubKey>,
    topics: SlotMap<TopicKey, Topic>,
    names: HashMap<Arc<str>, TopicKey>,
    pub(super) retained: Retained,
    /// Counts changes of the table; a topic's routes of another version are stale.
    version: u64,
    /// Where a topic's `seq` starts: no lower than that of any topic forgotten.
    floor: u64,
}

/// A topic in use.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) seq: u64,
    /// The position of its newest message since the start; 0: none is known.
    pub(super) last: u64,
    /// Its messages are kept.
    pub(super) has_history: bool,
    /// It has a retained message.
    pub(super) is_retained: bool,
    pub(super) direct: Vec<SubKey>,
    pub(super) groups: Vec<Group>,
    version: u64,
    used: bool,
}

/// The members of one group that a topic reaches.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) members: Vec<SubKey>,
    /// Whose turn it is.
    pub(super) turn: usize,
}

impl Space {
    pub(super) fn new(name: &str, rules: Arc<[HistoryRule]>) -> Space {
        Space {
            name: name.into(),
            rules,
            clients: HashMap::default(),
            table: TopicTable::default(),
            topics: SlotMap::with_key(),
            names: HashMap::default(),
            retained: Retained::default(),
            version: 1,
            floor: 0,
        }
    }

    pub(super) fn insert(&mut self, pattern: &Pattern, sub: SubKey) {
        self.table.insert(pattern, sub);
        self.version += 1;
    }

    pub(super) fn remove(&mut self, pattern: &Pattern, sub: SubKey) {
        if self.table.remove(pattern, sub) {
            self.version += 1;
        }
    }

    pub(super) fn count(&self, topic: &str) -> usize {
        let mut found = Vec::new();
        self.table.find(topic, &mut found);
        found.len()
    }

    /// The key of `name`, remembered from now on.
    pub(super) fn topic(&mut self, name: &str) -> TopicKey {
        if let Some(key) = self.names.get(name) {
            return *key;
        }
        if self.topics.len() >= MAX_TOPICS {
            self.forget_unused();
        }
        let has_history = self.rules.iter().any(|rule| rule.pattern.matches(name));
        let name: Arc<str> = name.into();
        let key = self.topics.insert(Topic {
            name: name.clone(),
            seq: self.floor,
            last: 0,
            has_history,
            is_retained: self.retained.has(&name),
            direct: Vec::new(),
            groups: Vec::new(),
            version: 0,
            used: true,
        });
        self.names.insert(name, key);
        key
    }

    /// A topic has a retained message from now on, or none any more.
    pub(super) fn mark_retained(&mut self, name: &str, is_retained: bool) {
        if let Some(key) = self.names.get(name) {
            self.topics[*key].is_retained = is_retained;
        }
    }

    /// The name of a topic that is known.
    pub(super) fn name(&self, key: TopicKey) -> &Arc<str> {
        &self.topics[key].name
    }

    /// The position of the newest message on a topic, as far as it is known.
    pub(super) fn last(&self, name: &str) -> u64 {
        self.names.get(name).map_or(0, |key| self.topics[*key].last)
    }

    /// The topic with its routes up to date. `key` may be of before it was forgotten.
    pub(super) fn routes(
        &mut self,
        key: TopicKey,
        name: &str,
        subscriptions: &SlotMap<SubKey, Subscription>,
    ) -> &mut Topic {
        let key = if self.topics.contains_key(key) { key } else { self.topic(name) };
        let topic = &mut self.topics[key];
        topic.used = true;
        if topic.version != self.version {
            topic.version = self.version;
            topic.direct.clear();
            topic.groups.clear();
            self.table.find(&topic.name, &mut topic.direct);
            if open_prefix(&topic.name).is_some() {
                topic.direct.retain(|sub| subscriptions[*sub].pattern.spells(&topic.name));
            }
            topic.direct.sort_unstable();
            let mut names: Vec<Arc<str>> = Vec::new();
            let groups = &mut topic.groups;
            topic.direct.retain(|sub| {
                let Some(group) = &subscriptions[*sub].group else { return true };
                match names.iter().position(|name| name == group) {
                    Some(place) => groups[place].members.push(*sub),
                    None => {
                        names.push(group.clone());
                        groups.push(Group { members: vec![*sub], turn: 0 });
                    }
                }
                false
            });
        }
        topic
    }

    /// Forgets every topic that was not used since the last time; if all were, a part of them.
    fn forget_unused(&mut self) {
        let mut spare = self.topics.len() - self.topics.len() / 8;
        self.topics.retain(|_, topic| {
            let keep = std::mem::take(&mut topic.used) && spare > 0;
            if keep {
                spare -= 1;
            } else {
                self.floor = self.floor.max(topic.seq);
                self.names.remove(&topic.name);
            }
            keep
        });
    }
}
