//! What really happened, as someone who sees everything writes it down.

use std::collections::{BTreeMap, HashMap, HashSet};

use kps_proto::{
    message::{Gap, Message},
    topic::Pattern,
};

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

/// What was published.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) topic: Option<String>,
    pub(crate) id: String,
    /// It may run out of time before the spy sees it.
    pub(crate) may_expire: bool,
    /// Who may have it.
    pub(crate) to: Option<Vec<String>>,
    pub(crate) private: bool,
    pub(crate) retained: Option<Retained>,
}

impl Sent {
    pub(crate) fn is_for(&self, client: &str) -> bool {
        self.to.as_ref().is_none_or(|to| to.iter().any(|id| id == client))
    }
}

/// What a publish does to its topic's retained message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retained {
    Set,
    /// Until its time is over.
    ForAWhile,
    Removed,
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) sent: Sent,
    pub(crate) outcome: Outcome,
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
    /// Accepted in this epoch, and not for everybody: topic, seq, token.
    for_some: Vec<(String, u64, Token)>,
    /// Each topic's retained message.
    retained: BTreeMap<String, Token>,
    /// Topics whose retained message may have gone by itself.
    unsure: HashSet<String>,
    /// The retained messages there were at each beginning of a subscription.
    offers: HashMap<(usize, u32), Vec<BTreeMap<String, Token>>>,
}

impl Truth {
    pub(crate) fn published(&mut self, token: Token, sent: Sent) {
        let other = self.ids.insert(sent.id.clone(), token);
        assert_eq!(other, None, "the id {} is given twice, now to {token:?}", sent.id);
        if let (Some(Retained::ForAWhile), Some(topic)) = (sent.retained, &sent.topic) {
            self.unsure.insert(topic.clone());
        }
        let (outcome, accepted, acked) = (Outcome::Open, Vec::new(), HashSet::new());
        self.records.insert(token, Record { sent, outcome, accepted, acked });
    }

    /// The publish that a message comes from.
    pub(crate) fn token(&self, message: &Message) -> Token {
        self.token_of(&message.id(), &message.payload.bytes)
    }

    /// What removes a retained message is empty, and so cannot name its token.
    fn token_of(&self, id: &str, payload: &[u8]) -> Token {
        if payload.is_empty() { self.ids[id] } else { token(payload) }
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
        let token = self.token_of(id, payload);
        let record = self.records.get_mut(&token).expect("published before accepted");
        assert_eq!(record.sent.id, id, "{token:?} kept its id");
        if record.sent.to.is_some() {
            self.for_some.push((topic.to_owned(), seq, token));
        }
        match record.sent.retained {
            None => {}
            Some(Retained::Removed) => drop(self.retained.remove(topic)),
            Some(_) => drop(self.retained.insert(topic.to_owned(), token)),
        }
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
        self.offers.entry((client, sub)).or_default().push(self.retained.clone());
    }

    /// A new broker knows nothing.
    pub(crate) fn restart(&mut self) {
        self.topics.clear();
        self.starts.clear();
        self.blurred = 0;
        self.for_some.clear();
        self.retained.clear();
    }

    /// How many messages a subscription should have heard of since it started.
    pub(crate) fn since_start(
        &self,
        (client, id): (usize, &str),
        sub: u32,
        pattern: &Pattern,
    ) -> Option<u64> {
        let start = self.starts.get(&(client, sub))?.as_ref().filter(|_| self.blurred == 0)?;
        let begin = |topic: &str| start.get(topic).copied().unwrap_or(0);
        let matching = self.topics.iter().filter(|(topic, _)| pattern.matches(topic));
        let all: u64 = matching.map(|(topic, last)| last - begin(topic)).sum();
        let hidden = self.for_some.iter().filter(|(topic, seq, token)| {
            pattern.matches(topic) && *seq > begin(topic) && !self.records[token].sent.is_for(id)
        });
        Some(all - hidden.count() as u64)
    }

    /// Whether this was the topic's retained message when the subscription began, or began again.
    pub(crate) fn was_offered(&self, client: usize, sub: u32, topic: &str, token: Token) -> bool {
        let offers = self.offers.get(&(client, sub));
        let watched = topic.starts_with("t.");
        !watched || offers.into_iter().flatten().any(|offer| offer.get(topic) == Some(&token))
    }

    /// The retained messages that a subscription must have been given: they were there at its
    /// beginning and are still.
    pub(crate) fn owed(&self, client: usize, sub: u32, pattern: &Pattern) -> Vec<Token> {
        let offers = self.offers.get(&(client, sub)).map_or(&[][..], |offers| offers);
        let is_owed = |(topic, token): &(&String, &Token)| {
            let was_there = offers.iter().all(|offer| offer.get(*topic) == Some(*token));
            was_there && pattern.matches(topic) && !self.unsure.contains(*topic)
        };
        if offers.is_empty() {
            return Vec::new();
        }
        self.retained.iter().filter(is_owed).map(|(_, token)| *token).collect()
    }

    /// Once everything has settled: each publish to a watched topic was accepted or refused, never
    /// both, never neither.
    pub(crate) fn check_outcomes(&self) {
        for (token, record) in &self.records {
            let sent = &record.sent;
            let watched = sent.topic.as_ref().is_some_and(|topic| topic.starts_with("t."));
            let unmarked = record.accepted.iter().filter(|again| !**again).count();
            assert!(unmarked <= 1, "{token:?} was accepted {unmarked} times");
            match &record.outcome {
                Outcome::Open if watched && !sent.may_expire => {
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
