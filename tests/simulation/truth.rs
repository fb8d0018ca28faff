//! What really happened, as someone who sees everything writes it down.

use std::collections::{BTreeMap, HashMap, HashSet};

use kps_proto::{message::Gap, topic::Pattern};

/// Which publish a payload comes from: the publisher, and its number for it.
pub(crate) type Token = (usize, u64);

/// A payload that names its token.
pub(crate) fn payload((publisher, number): Token, length: usize) -> Vec<u8> {
    let mut text = format!("{publisher}:{number}:");
    while text.len() < length {
        text.push('.');
    }
    text.into_bytes()
}

/// The token that a payload names.
pub(crate) fn token(payload: &[u8]) -> Token {
    let text = std::str::from_utf8(payload).expect("payloads are text");
    let mut parts = text.split(':');
    let mut next = || parts.next().and_then(|part| part.parse().ok()).expect("a token");
    let publisher: u64 = next();
    (publisher as usize, next())
}

/// How a publish ended, as its publisher was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Open,
    /// `perhaps`: it may have been accepted all the same, and its publisher was told so.
    Failed {
        perhaps: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) topic: Option<String>,
    pub(crate) id: String,
    pub(crate) outcome: Outcome,
    /// It may run out of time before the spy sees it.
    pub(crate) may_expire: bool,
    /// Each acceptance: whether it was marked as a possible duplicate.
    pub(crate) accepted: Vec<bool>,
    /// Who acked it.
    pub(crate) acked: HashSet<String>,
}

#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) records: BTreeMap<Token, Record>,
    /// The last seq of each topic in this epoch.
    pub(crate) topics: HashMap<String, u64>,
    /// Expired at once, on topics the spy was not told.
    blurred: u64,
    /// Where a subscription started: the last seqs then; `None` when they were blurred.
    pub(crate) starts: HashMap<(usize, u32), Option<HashMap<String, u64>>>,
    /// How often a session was lost, over all clients: then duplicates may be.
    pub(crate) losses: usize,
    ids: HashMap<String, Token>,
}

impl Truth {
    pub(crate) fn published(
        &mut self,
        token: Token,
        topic: Option<String>,
        id: String,
        may_expire: bool,
    ) {
        let other = self.ids.insert(id.clone(), token);
        assert_eq!(other, None, "the id {id} is given twice, now to {token:?}");
        let record = Record {
            topic,
            id,
            outcome: Outcome::Open,
            may_expire,
            accepted: Vec::new(),
            acked: HashSet::new(),
        };
        self.records.insert(token, record);
    }

    /// The spy saw the bus accept a message.
    pub(crate) fn accepted(
        &mut self,
        topic: &str,
        seq: u64,
        id: &str,
        payload: &[u8],
        again: bool,
    ) {
        let last = self.topics.entry(topic.to_owned()).or_default();
        let hole = seq.checked_sub(*last + 1).expect("in order");
        self.blurred = self.blurred.checked_sub(hole).expect("numbered without holes");
        *last = seq;
        let token = token(payload);
        let record = self.records.get_mut(&token).expect("published before accepted");
        assert_eq!(record.id, id, "{token:?} kept its id");
        assert!(
            record.accepted.is_empty() || again,
            "{token:?} was accepted twice, and not as a possible duplicate"
        );
        record.accepted.push(again);
    }

    /// The spy was told of messages that were accepted but not worth delivering.
    pub(crate) fn expired(&mut self, gap: &Gap) {
        match gap.last {
            Some(last)
                if gap.first == Some(self.topics.get(&*gap.topic).map_or(1, |last| last + 1)) =>
            {
                self.topics.insert(gap.topic.to_string(), last);
            }
            _ => self.blurred += gap.count.expect("the bus counts"),
        }
    }

    pub(crate) fn subscribed(&mut self, client: usize, sub: u32) {
        let start = (self.blurred == 0).then(|| self.topics.clone());
        self.starts.entry((client, sub)).or_insert(start);
    }

    /// A new broker knows nothing.
    pub(crate) fn restart(&mut self) {
        self.topics.clear();
        self.starts.clear();
        self.blurred = 0;
    }

    /// How many messages a subscription should have heard of since it started.
    pub(crate) fn since_start(&self, client: usize, sub: u32, pattern: &Pattern) -> Option<u64> {
        let start = self.starts.get(&(client, sub))?.as_ref().filter(|_| self.blurred == 0)?;
        let matching = self.topics.iter().filter(|(topic, _)| pattern.matches(topic));
        Some(matching.map(|(topic, last)| last - start.get(topic).copied().unwrap_or(0)).sum())
    }

    /// Once everything has settled: each publish to a watched topic was accepted or refused, never
    /// both, never neither.
    pub(crate) fn check_outcomes(&self) {
        for (token, record) in &self.records {
            let watched = record.topic.as_ref().is_some_and(|topic| topic.starts_with("t."));
            let unmarked = record.accepted.iter().filter(|again| !**again).count();
            assert!(unmarked <= 1, "{token:?} was accepted {unmarked} times");
            match &record.outcome {
                Outcome::Open if watched && !record.may_expire => {
                    assert!(!record.accepted.is_empty(), "{token:?} is lost: {record:?}");
                }
                Outcome::Failed { perhaps: false } if record.accepted.contains(&false) => {
                    // Accepted by a broker that was lost, and refused by the next.
                    assert!(self.losses > 0, "{token:?} was refused and accepted: {record:?}");
                }
                _ => {}
            }
        }
    }
}
