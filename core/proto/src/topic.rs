//! Topics, patterns, and the table that finds the patterns a topic matches.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crate::error::{Error, ErrorKind, Result};

/// Longest topic or pattern, in bytes.
pub const MAX_LENGTH: usize = 1024;

/// Topics below this prefix belong to the server.
pub const RESERVED: &str = "kps.";

/// Calls of capabilities that clients offer: `kps.call.<capability>.<operation>`.
pub const CALLS: &str = "kps.call.";

/// Calls of the server's own capabilities, which only the server hears.
pub const SERVER_CALLS: &str = "kps.server.";

/// Calls of the server's documents, for which the broker says which ones the caller may read and change.
pub const DOCUMENT_CALLS: &str = "kps.server.document.";

/// What happens in the channels of `sync`: `kps.sync.<channel>.event`, and who is there:
/// `kps.sync.<channel>.presence`.
pub const CHANNELS: &str = "kps.sync.";

/// What is changed in the server's storage; the server alone publishes here.
pub const CHANGES: &str = "kps.storage.changes";

/// Where [`CHANGES`] is.
const STORAGE: &str = "kps.storage.";

/// What happens to documents: `kps.document.<id>`. Only the server publishes there.
pub const DOCUMENTS: &str = "kps.document.";

/// How topics end on which the server alone tells who is in a channel.
pub const PRESENCE: &str = ".presence";

/// Whether only the server may publish to `topic`: who is in a channel, what is changed in its storage.
pub(crate) fn is_servers(topic: &str) -> bool {
    (topic.ends_with(PRESENCE) && topic.starts_with(CHANNELS)) || topic.starts_with(STORAGE)
}

/// The reserved prefix that clients may publish under, if `topic` has one. Only patterns that spell it
/// out match there: somebody who follows everything with `>` must neither hear calls nor answer them.
pub fn open_prefix(topic: &str) -> Option<&'static str> {
    if !topic.starts_with(RESERVED) {
        return None;
    }
    let open = [CALLS, SERVER_CALLS, CHANNELS, STORAGE, DOCUMENTS];
    open.into_iter().find(|prefix| topic.starts_with(prefix))
}

/// Checks that `topic` is one a client may publish to: not empty, not over-long, no wildcard
/// level, not reserved.
pub fn check_name(topic: &str) -> Result<()> {
    check_length(topic)?;
    if topic.split('.').any(|level| level == "*" || level == ">") {
        return invalid(format!(
            "{topic:?} holds a wildcard level; publish to a topic, subscribe to a pattern"
        ));
    }
    if topic.starts_with(RESERVED) && open_prefix(topic).is_none() {
        return invalid(format!("{topic:?} is reserved: topics under `kps.` belong to the server"));
    }
    Ok(())
}

fn check_length(topic: &str) -> Result<()> {
    if topic.is_empty() {
        return invalid("a topic must not be empty");
    }
    if topic.len() > MAX_LENGTH {
        return invalid(format!(
            "the topic is {} bytes long; the limit is {MAX_LENGTH}",
            topic.len()
        ));
    }
    Ok(())
}

fn invalid<T>(message: impl Into<Cow<'static, str>>) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidTopic, message))
}

/// A topic or a pattern: a level that is `*` matches any one level, a last level `>` one or more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Arc<str>,
    wild: bool,
}

impl Pattern {
    /// Parses `text`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Pattern> {
        check_length(text)?;
        let mut levels = text.split('.').peekable();
        let mut wild = false;
        while let Some(level) = levels.next() {
            if level == ">" && levels.peek().is_some() {
                return invalid(format!("in {text:?} the wildcard `>` must be the last level"));
            }
            wild |= level == "*" || level == ">";
        }
        Ok(Pattern { text: text.into(), wild })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern as it was written, shared.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether `topic` matches.
    pub fn matches(&self, topic: &str) -> bool {
        if !self.wild {
            return *self.text == *topic;
        }
        if !self.spells(topic) {
            return false;
        }
        let mut levels = topic.split('.');
        for want in self.text.split('.') {
            match (want, levels.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (want, Some(level)) if want == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Whether it spells out the [open prefix](open_prefix) of `topic`, if that has one.
    pub(crate) fn spells(&self, topic: &str) -> bool {
        open_prefix(topic).is_none_or(|prefix| self.text.starts_with(prefix))
    }

    /// Whether it stands for one topic, the one of its own name.
    pub(crate) fn is_name(&self) -> bool {
        !self.wild
    }

    /// Whether every topic that `other` matches matches this one too: `a.*` is covered by `a.*` and
    /// `a.>`, not by `a.b`.
    pub fn covers(&self, other: &Pattern) -> bool {
        if !self.spells(&other.text) {
            return false;
        }
        let mut levels = other.text.split('.');
        for want in self.text.split('.') {
            match (want, levels.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                (_, Some(">")) => return false,
                ("*", Some(_)) => {}
                (want, Some(level)) if want == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

/// Finds, for a topic, every value inserted under a pattern that matches it.
#[derive(Debug)]
pub struct TopicTable<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    children: HashMap<Box<str>, Node<T>>,
    any: Option<Box<Node<T>>>,
    here: Vec<T>,
    rest: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node { children: HashMap::default(), any: None, here: Vec::new(), rest: Vec::new() }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.rest.is_empty()
    }
}

impl<T> Default for TopicTable<T> {
    fn default() -> Self {
        TopicTable { root: Node::default(), len: 0 }
    }
}

impl<T: Copy + PartialEq> TopicTable<T> {
    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `value` under `pattern`.
    pub fn insert(&mut self, pattern: &Pattern, value: T) {
        let mut node = &mut self.root;
        self.len += 1;
        for level in pattern.as_str().split('.') {
            match level {
                ">" => return node.rest.push(value),
                "*" => node = node.any.get_or_insert_default(),
                _ => {
                    if !node.children.contains_key(level) {
                        node.children.insert(level.into(), Node::default());
                    }
                    node = node.children.get_mut(level).expect("inserted above if it was missing");
                }
            }
        }
        node.here.push(value);
    }

    /// Takes `value` out from under `pattern` again; false if it is not there.
    pub fn remove(&mut self, pattern: &Pattern, value: T) -> bool {
        let removed = remove(&mut self.root, &mut pattern.as_str().split('.'), value);
        self.len -= usize::from(removed);
        removed
    }

    /// Appends to `out` every value whose pattern matches `topic`, in no particular order.
    pub fn find(&self, topic: &str, out: &mut Vec<T>) {
        find(&self.root, Some(topic), out);
    }
}

fn remove<'a, T: Copy + PartialEq>(
    node: &mut Node<T>,
    levels: &mut impl Iterator<Item = &'a str>,
    value: T,
) -> bool {
    fn take<T: PartialEq>(values: &mut Vec<T>, value: &T) -> bool {
        let place = values.iter().position(|held| held == value);
        place.map(|place| values.swap_remove(place)).is_some()
    }
    match levels.next() {
        None => take(&mut node.here, &value),
        Some(">") => take(&mut node.rest, &value),
        Some("*") => {
            let Some(any) = &mut node.any else { return false };
            let removed = remove(any, levels, value);
            if any.is_empty() {
                node.any = None;
            }
            removed
        }
        Some(level) => {
            let Some(child) = node.children.get_mut(level) else { return false };
            let removed = remove(child, levels, value);
            if child.is_empty() {
                node.children.remove(level);
            }
            removed
        }
    }
}

fn find<T: Copy>(node: &Node<T>, topic: Option<&str>, out: &mut Vec<T>) {
    let Some(topic) = topic else {
        out.extend_from_slice(&node.here);
        return;
    };
    out.extend_from_slice(&node.rest);
    let (level, rest) = match topic.split_once('.') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    };
    if let Some(child) = node.children.get(level) {
        find(child, rest, out);
    }
    if let Some(any) = &node.any {
        find(any, rest, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_covers_only_patterns_inside_it() {
        for (outer, inner, expected) in [
            ("a.>", "a.b", true),
            ("a.>", "a.*", true),
            ("a.>", "a.>", true),
            ("a.*", "a.>", false),
            ("a.*", "a.*", true),
            ("a.b", "a.*", false),
            (">", ">", true),
            ("a.>", ">", false),
        ] {
            let (outer, inner) = (Pattern::parse(outer).unwrap(), Pattern::parse(inner).unwrap());
            assert_eq!(outer.covers(&inner), expected, "{} {}", outer.as_str(), inner.as_str());
        }
    }

    #[test]
    fn wildcards_match_whole_levels_only() {
        for (text, topic, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("a*", "ab", false),
            ("a*", "a*", true),
            ("*.b.>", "a.b.c", true),
            ("a b/ü", "a b/ü", true),
            // Calls are heard by those who say so.
            (">", "kps.call.a.b", false),
            ("kps.>", "kps.call.a.b", false),
            ("kps.call.>", "kps.call.a.b", true),
            ("*.server.>", "kps.server.a.b", false),
            ("kps.>", "kps.document.a", false),
            ("kps.document.>", "kps.document.a", true),
            ("kps.>", "kps.dead.a", true),
        ] {
            assert_eq!(pattern(text).matches(topic), expected, "{text} {topic}");
        }
    }

    #[test]
    fn bad_topics_are_refused_with_a_reason() {
        for topic in ["", "a.*", ">", "a.>", "kps.clients", &"x".repeat(1025)] {
            assert_eq!(check_name(topic).unwrap_err().kind(), ErrorKind::InvalidTopic, "{topic}");
        }
        assert!(Pattern::parse("a.>.b").is_err());
        assert!(Pattern::parse("").is_err());
        assert!(check_name("a > b").is_ok());
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![Just("a".into()), Just("b".into()), Just("".into()), Just("*x".into())]
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5)
            .prop_map(|levels| levels.join("."))
            .prop_filter("not empty", |topic| !topic.is_empty())
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 1 => Just("*".to_owned())];
        (prop::collection::vec(level, 1..5), any::<bool>())
            .prop_map(|(mut levels, rest)| {
                if rest {
                    levels.push(">".into());
                }
                levels.join(".")
            })
            .prop_filter("not empty", |text| !text.is_empty())
    }

    /// A naive model: recursion over vectors of levels.
    fn model(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            ([want, pattern @ ..], [level, topic @ ..]) => {
                (*want == "*" || want == level) && model(pattern, topic)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_naive_model(
            patterns in prop::collection::vec(any_pattern(), 0..30),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            topic in topic(),
        ) {
            let mut table = TopicTable::default();
            let mut held: Vec<(usize, Pattern)> =
                patterns.iter().map(|text| pattern(text)).enumerate().collect();
            for (value, pattern) in &held {
                table.insert(pattern, *value);
            }
            for index in removed {
                if !held.is_empty() {
                    let (value, pattern) = held.swap_remove(index.index(held.len()));
                    prop_assert!(table.remove(&pattern, value));
                    prop_assert!(!table.remove(&pattern, value));
                }
            }
            let levels: Vec<&str> = topic.split('.').collect();
            let mut expected: Vec<usize> = held
                .iter()
                .filter(|(_, pattern)| {
                    let pattern: Vec<&str> = pattern.as_str().split('.').collect();
                    model(&pattern, &levels)
                })
                .map(|(value, _)| *value)
                .collect();
            for (_, pattern) in &held {
                let text: Vec<&str> = pattern.as_str().split('.').collect();
                prop_assert_eq!(pattern.matches(&topic), model(&text, &levels));
            }
            let mut found = Vec::new();
            table.find(&topic, &mut found);
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(table.len(), held.len());
        }
    }
}
