//! What a broker with history keeps, in the words that the bus and a store share.
//!
//! The bus says what to write, in order ([`Write`]), and asks for what it needs to read ([`Query`]);
//! a store does both and says how far it has come. Every message that is kept has a *position*: its
//! place in the store's one sequence, consecutive from 1 over all topics and all epochs, below 2^53.

use std::{sync::Arc, time::Duration};

use crate::{
    error::{Error, ErrorKind, Result},
    message::{Extras, Payload, Sender},
    topic::Pattern,
};

/// Which topics have history, and how much of it. Of several rules that match a topic the first holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRule {
    /// The topics.
    pub pattern: Pattern,
    /// Older messages are removed.
    pub max_age: Option<Duration>,
    /// Messages that all topics of the rule hold together; the oldest are removed.
    pub max_count: Option<u64>,
    /// Payload bytes that all topics of the rule hold together; the oldest are removed.
    pub max_bytes: Option<u64>,
}

impl HistoryRule {
    /// All topics that match `pattern`, without limits.
    pub fn new(pattern: Pattern) -> HistoryRule {
        HistoryRule { pattern, max_age: None, max_count: None, max_bytes: None }
    }

    /// From a pattern and limits with blanks between: `orders.> age=7d count=1000000 bytes=10G`. An
    /// age ends in `s`, `m`, `h` or `d`; bytes may end in `K`, `M` or `G` (powers of 1024).
    ///
    /// # Errors
    /// `InvalidTopic` for the pattern, `InvalidArgument` for a limit.
    ///
    /// ```
    /// use kps_proto::history::HistoryRule;
    /// let rule = HistoryRule::parse("orders.> age=7d bytes=10G")?;
    /// assert_eq!(rule.max_age.map(|age| age.as_secs()), Some(7 * 86_400));
    /// assert_eq!(rule.max_bytes, Some(10 << 30));
    /// # Ok::<(), kps_proto::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<HistoryRule> {
        let mut words = text.split_whitespace();
        let mut rule = HistoryRule::new(Pattern::parse(words.next().unwrap_or_default())?);
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let limit = match name {
                "age" => scaled(value, &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]),
                "bytes" => {
                    scaled(value, &[("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("", 1)])
                }
                "count" => scaled(value, &[("", 1)]),
                _ => None,
            };
            match (name, limit) {
                ("age", Some(seconds)) => rule.max_age = Some(Duration::from_secs(seconds)),
                ("bytes", Some(_)) => rule.max_bytes = limit,
                ("count", Some(_)) => rule.max_count = limit,
                _ => {
                    return Err(Error::new(
                        ErrorKind::InvalidArgument,
                        format!(
                            "in the history rule {text:?}, {word:?} is no limit; one is like age=7d, \
                             count=1000000 or bytes=10G"
                        ),
                    ));
                }
            }
        }
        Ok(rule)
    }
}

/// A number above 0 with one of these units behind it.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, scale)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*scale).filter(|product| *product > 0)
    })
}

/// A message as history keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the store; 0 for a retained message of a topic without history.
    pub position: u64,
    /// The broker's run that accepted it.
    pub epoch: u64,
    /// Whose topic it is.
    pub namespace: Arc<str>,
    /// Where it was published.
    pub topic: Arc<str>,
    /// Consecutive within (topic, epoch).
    pub seq: u64,
    /// Who published it.
    pub sender: Arc<Sender>,
    /// The publisher's number for it.
    pub number: u64,
    /// When it was accepted, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Sent again after the publisher's session was lost.
    pub maybe_duplicate: bool,
    /// The payload.
    pub payload: Payload,
    /// Headers, the publisher's own id, time to live, policies. Of a private message history has the
    /// place alone: payload and sender are empty, and here are [`Extras::private`] and [`Extras::to`].
    pub extras: Option<Box<Extras>>,
    /// Not to be delivered from then on, milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
}

/// How far a publisher's session has come, kept with its messages: what it sends again to a restarted
/// broker is recognised by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// See [`Sender::origin`].
    pub origin: String,
    /// The last publish number dealt with: every message up to it that was to be kept is.
    pub published: u64,
}

/// How far a durable subscription has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where its topics are.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it subscribes to.
    pub pattern: String,
    /// Every message up to this position is done with.
    pub done: u64,
    /// Positions above `done` that are done with as well, ascending.
    pub beyond: Vec<u64>,
    /// Positions handed out and not done with, ascending, with how often.
    pub attempts: Vec<(u64, u32)>,
}

/// Something to write. What is written together is committed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A message; positions come in order.
    Record(Box<Record>),
    /// A topic's retained message; replaces the older one of the same namespace and topic.
    Retained(Box<Record>),
    /// This topic (namespace, topic) has no retained message any more.
    RetainedEnded(Arc<str>, Arc<str>),
    /// A session's state; replaces the older one of the same origin.
    Session(KeptSession),
    /// The session of this origin is over and need not be known any more.
    SessionEnded(String),
    /// A durable subscription's state; replaces the older one of the same namespace and name.
    Progress(Progress),
    /// This durable subscription (namespace, name) is no more.
    DurableEnded(String, String),
}

/// What a store knows when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last position written.
    pub position: u64,
    /// The latest time of any message so far, milliseconds since the Unix epoch: later than now if
    /// the clock was set back.
    pub latest_ms: u64,
    /// The run that begins: the one wished for, or a higher one if the clock was set back.
    pub epoch: u64,
    /// Epochs in order, each with the last position it wrote (0: none); the one that begins is the
    /// last of them.
    pub epochs: Vec<(u64, u64)>,
    /// Publishers' own ids seen inside the window for duplicates, oldest first: (namespace, id, when
    /// in milliseconds since the Unix epoch).
    pub ids: Vec<(String, String, u64)>,
    /// Publishers of the last resume window before the store was closed.
    pub sessions: Vec<KeptSession>,
    /// Every durable subscription.
    pub progress: Vec<Progress>,
    /// Every retained message.
    pub retained: Vec<Record>,
}

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Behind a position.
    After(u64),
    /// At the first message accepted at or after a time, milliseconds since the Unix epoch.
    Time(u64),
    /// At the newest message of each topic.
    Last,
}

/// Asks for the next messages of the topics that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Whose topics.
    pub namespace: String,
    /// Which topics.
    pub pattern: Pattern,
    /// From where on.
    pub from: ReadFrom,
    /// At most so many messages.
    pub max_count: usize,
    /// Not many more payload bytes than that; at least one message if there is one.
    pub max_bytes: usize,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages, by position.
    pub records: Vec<Record>,
    /// Every matching message up to this position is in `records` or came before; what is committed
    /// lies behind it only if `more`. Never above the last committed position.
    pub through: u64,
    /// There is more to read behind `through`.
    pub more: bool,
    /// Matching messages behind the position asked for were removed by the rules' limits before they
    /// could be read.
    pub removed: bool,
    /// The positions of those `records` with the offline policy `latest` that are not their topics'
    /// newest messages, ascending.
    pub superseded: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_pattern_and_limits() {
        let rule = HistoryRule::parse("a.* count=3 age=90m bytes=1K").unwrap();
        assert_eq!(rule.pattern.as_str(), "a.*");
        assert_eq!(rule.max_age, Some(Duration::from_secs(5400)));
        assert_eq!((rule.max_count, rule.max_bytes), (Some(3), Some(1024)));
        let plain = HistoryRule::parse(">").unwrap();
        assert_eq!(plain, HistoryRule::new(Pattern::parse(">").unwrap()));
    }

    #[test]
    fn a_wrong_limit_is_named() {
        for text in
            ["a age=7", "a age=d", "a count=0", "a count=1K", "a size=3", "a bytes=-1", "a b"]
        {
            let error = HistoryRule::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
            assert!(error.message().contains(text.rsplit(' ').next().unwrap()), "{error}");
        }
        assert_eq!(HistoryRule::parse("").unwrap_err().kind(), ErrorKind::InvalidTopic);
    }
}
