//! Removes what the rules do not keep, oldest first, in slices small enough that writing goes on.

use std::{collections::BTreeSet, time::Duration};

use kps_proto::history::HistoryRule;
use rusqlite::{Connection, OptionalExtension};

use super::{
    fault::{Result, corrupt},
    schema::{IN_BLOCK, TopicRow, blocks, int, signed},
    senders::Senders,
    topics::Topics,
};

/// The rules, with what their topics hold.
#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    rule: HistoryRule,
    messages: u64,
    bytes: u64,
    /// The oldest message of each topic that has any: (position, topic).
    oldest: BTreeSet<(u64, u64)>,
    /// The time of the oldest message: (position, milliseconds).
    oldest_time: Option<(u64, u64)>,
}

/// A message about to be removed.
struct Doomed {
    position: u64,
    sender: u64,
    bytes: u64,
}

impl Rules {
    pub(super) fn new(rules: Vec<HistoryRule>) -> Rules {
        let rule =
            |rule| Rule { rule, messages: 0, bytes: 0, oldest: BTreeSet::new(), oldest_time: None };
        Rules(rules.into_iter().map(rule).collect())
    }

    /// The first rule that matches, by its place.
    pub(super) fn of(&self, topic: &str) -> Option<usize> {
        self.0.iter().position(|rule| rule.rule.pattern.matches(topic))
    }

    /// Counts what a topic has.
    pub(super) fn count(&mut self, rule: Option<usize>, topic: &TopicRow) {
        let Some(rule) = rule.and_then(|place| self.0.get_mut(place)) else { return };
        rule.messages += topic.stats.messages;
        rule.bytes += topic.stats.bytes;
        if topic.stats.messages > 0 {
            rule.oldest.insert((topic.stats.first, topic.id));
        }
    }

    /// Counts a message that was added; `first` says that its topic had none.
    pub(super) fn add(&mut self, place: usize, topic: u64, position: u64, bytes: u64, first: bool) {
        let Some(rule) = self.0.get_mut(place) else { return };
        rule.messages += 1;
        rule.bytes += bytes;
        if first {
            rule.oldest.insert((position, topic));
        }
    }

    /// Removes at most `max` messages. How many those were; `max` means that there may be more.
    pub(super) fn enforce(
        &mut self,
        connection: &Connection,
        topics: &mut Topics,
        senders: &mut Senders,
        now: u64,
        max: u64,
    ) -> Result<u64> {
        let mut removed = 0;
        for rule in &mut self.0 {
            while removed < max && rule.is_over(connection, now)? {
                removed += rule.remove_run(connection, topics, senders, now, max - removed)?;
            }
        }
        Ok(removed)
    }

    /// When the next message becomes too old, from `now` on; `None` if none does.
    pub(super) fn next_due(&self, now: u64) -> Option<Duration> {
        self.0
            .iter()
            .filter_map(|rule| rule.due())
            .min()
            .map(|due| Duration::from_millis(due.saturating_sub(now)))
    }
}

impl Rule {
    /// Whether the oldest message has to go.
    fn is_over(&mut self, connection: &Connection, now: u64) -> Result<bool> {
        let Some(&(position, _)) = self.oldest.first() else { return Ok(false) };
        if self.is_over_size(self.messages, self.bytes) {
            return Ok(true);
        }
        if self.rule.max_age.is_none() {
            return Ok(false);
        }
        if self.oldest_time.is_none_or(|(known, _)| known != position) {
            let sql = "SELECT time_ms FROM messages WHERE position = ?";
            let mut statement = connection.prepare_cached(sql)?;
            let time = statement.query_row([signed(position)], |row| int(row, 0)).optional()?;
            let Some(time) = time else {
                return corrupt(format!("message {position} is missing"));
            };
            self.oldest_time = Some((position, time));
        }
        Ok(self.due().is_some_and(|due| due <= now))
    }

    fn is_over_size(&self, messages: u64, bytes: u64) -> bool {
        self.rule.max_count.is_some_and(|max| messages > max)
            || self.rule.max_bytes.is_some_and(|max| bytes > max)
    }

    /// The first millisecond in which the oldest message is too old.
    fn due(&self) -> Option<u64> {
        let (position, time) = self.oldest_time?;
        let is_oldest = self.oldest.first().is_some_and(|&(first, _)| first == position);
        let age = u64::try_from(self.rule.max_age?.as_millis()).unwrap_or(u64::MAX);
        is_oldest.then(|| time.saturating_add(age).saturating_add(1))
    }

    /// Removes the oldest message and those that follow it in the same topic, as long as they are
    /// the rule's oldest and too many. At most `max`, at least one.
    fn remove_run(
        &mut self,
        connection: &Connection,
        topics: &mut Topics,
        senders: &mut Senders,
        now: u64,
        max: u64,
    ) -> Result<u64> {
        let mut oldest = self.oldest.iter();
        let Some(&(first, topic)) = oldest.next() else { return Ok(0) };
        let others = oldest.next().map_or(u64::MAX, |&(position, _)| position);
        let cutoff = self.rule.max_age.map_or(0, |age| {
            now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
        });
        let mut doomed: Vec<Doomed> = Vec::new();
        // The oldest message that stays: its position and time.
        let mut next = None;
        let (mut messages, mut bytes) = (self.messages, self.bytes);
        let Some(newest) = topics.last(topic) else {
            return corrupt(format!("topic {topic} is missing"));
        };
        let sql = format!("SELECT position, sender, time_ms, length(payload) {IN_BLOCK}");
        let mut statement = connection.prepare_cached(&sql)?;
        'blocks: for block in blocks(first - 1, newest) {
            let mut rows = statement.query((signed(block), signed(topic), signed(first - 1)))?;
            while let Some(row) = rows.next()? {
                let (position, time) = (int(row, 0)?, int(row, 2)?);
                let over = self.is_over_size(messages, bytes) || time < cutoff;
                if doomed.len() as u64 == max || position > others || !over {
                    next = Some((position, time));
                    break 'blocks;
                }
                let size = int(row, 3)?;
                messages = messages.saturating_sub(1);
                bytes = bytes.saturating_sub(size);
                doomed.push(Doomed { position, sender: int(row, 1)?, bytes: size });
            }
        }
        let Some(last) = doomed.last().map(|doomed| doomed.position) else {
            return corrupt(format!("message {first} is missing"));
        };
        if doomed[0].position != first {
            return corrupt(format!("message {first} is missing"));
        }
        delete(connection, &doomed)?;
        release(connection, senders, &doomed)?;
        let size: u64 = doomed.iter().map(|doomed| doomed.bytes).sum();
        let mut sane = false;
        topics.change(topic, |stats| {
            stats.messages = stats.messages.wrapping_sub(doomed.len() as u64);
            stats.bytes = stats.bytes.wrapping_sub(size);
            stats.removed = last;
            stats.first = next.map_or(0, |(position, _)| position);
            let ends = if next.is_some() { stats.first <= stats.last } else { stats.last == last };
            sane = ends && (stats.messages == 0) == next.is_none();
        });
        if !sane {
            return corrupt(format!("topic {topic} does not have the messages it counts"));
        }
        (self.messages, self.bytes) = (messages, bytes);
        self.oldest.remove(&(first, topic));
        if let Some((position, time)) = next {
            self.oldest.insert((position, topic));
            if self.oldest.first() == Some(&(position, topic)) {
                self.oldest_time = Some((position, time));
            }
        }
        Ok(doomed.len() as u64)
    }
}

/// Deletes each run of consecutive positions at once.
fn delete(connection: &Connection, doomed: &[Doomed]) -> Result<()> {
    let sql = "DELETE FROM messages WHERE position BETWEEN ? AND ?";
    let mut statement = connection.prepare_cached(sql)?;
    for run in doomed.chunk_by(|a, b| a.position + 1 == b.position) {
        let (first, last) = (run[0].position, run[run.len() - 1].position);
        if statement.execute((signed(first), signed(last)))? != run.len() {
            return corrupt(format!("messages from {first} to {last} cannot be removed"));
        }
    }
    Ok(())
}

/// Tells the senders of removed messages, once for each run of the same one.
fn release(connection: &Connection, senders: &mut Senders, doomed: &[Doomed]) -> Result<()> {
    for run in doomed.chunk_by(|a, b| a.sender == b.sender) {
        senders.release(connection, run[0].sender, run.len() as u64)?;
    }
    Ok(())
}
