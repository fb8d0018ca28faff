//! What the clients of kept messages do: publish, or read all there is, or work for a durable.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use kps_proto::{
    ErrorKind,
    clock::Time,
    message::{
        Answer, ContentType, Extras, Gap, GapReason, HandlerError, Message, Offline, Payload,
        ReceiptLevel,
    },
    options::{Overflow, Redelivery, StartAt, SubscribeOptions},
    session::{
        Backoff, Destination, Event, Events, OutboxBounds, PublishOptions, Session, SessionConfig,
        State, SubId, Target,
    },
};

use crate::{
    fates::Fates,
    random::Dice,
    truth::{Token, payload, token},
    world::OUTBOX_OVERFLOWS,
};

pub(crate) const TOPICS: [&str; 4] = ["h.a", "h.b", "h.c.d", "plain"];

/// A client and what it does.
pub(crate) struct Program {
    pub(crate) index: usize,
    pub(crate) session: Session,
    pub(crate) role: Role,
    mailbox: VecDeque<Item>,
    next_message: Option<Time>,
    pub(crate) pace: u64,
    /// The last run of the broker in which its subscription was heard of.
    run: u64,
    /// The disk that its subscription was on is gone, and it has not heard of that.
    is_owed_a_gap: bool,
}

pub(crate) enum Role {
    Publisher {
        left: u64,
        number: u64,
        waits: BTreeSet<u64>,
        at: Time,
    },
    Reader {
        seen: HashMap<Token, u32>,
        last: HashMap<(usize, Arc<str>), u64>,
        /// Reported missing because their time was over, or they were not for who was away, or private.
        expired: u64,
        /// It was told that history does not go back far enough any more.
        aged: bool,
    },
    Worker {
        done: BTreeMap<Token, u32>,
        fails: u64,
    },
    /// Comes last, and asks for the last value of every topic.
    Witness {
        got: BTreeMap<Arc<str>, Token>,
    },
}

enum Item {
    Message(SubId, Message, Option<u64>),
    Gap(Gap),
}

impl Program {
    pub(crate) fn new(index: usize, role: u64, dice: &mut Dice) -> Program {
        let most = OutboxBounds::default().hard_messages;
        let config = SessionConfig {
            id: Some(format!("c{index}")),
            backoff: Backoff {
                reconnect: true,
                min: Duration::from_millis(20),
                max: Duration::from_millis(500),
            },
            outbox: OutboxBounds {
                hard_messages: *dice.pick(&[most, most, 8, 2]),
                overflow: *dice.pick(&OUTBOX_OVERFLOWS),
                ..OutboxBounds::default()
            },
            ..SessionConfig::default()
        };
        let mut session = Session::new(config, dice.next());
        let capacity = *dice.pick(&[None, Some(3), Some(40)]);
        let mut subscribe = |pattern, options| {
            session.subscribe(Target(0), pattern, options).expect("a good pattern");
        };
        let role = match role {
            0 => Role::Publisher {
                left: dice.between(5, 120),
                number: 0,
                waits: BTreeSet::new(),
                at: Time::ZERO,
            },
            1 => {
                let start = StartAt::All;
                let overflow = *dice.pick(&[Overflow::Block, Overflow::Spill]);
                let rest = SubscribeOptions::default();
                subscribe("h.>", SubscribeOptions { start, capacity, overflow, ..rest });
                let (seen, last) = (HashMap::new(), HashMap::new());
                Role::Reader { seen, last, expired: 0, aged: false }
            }
            3 => {
                let start = StartAt::Last;
                subscribe("h.>", SubscribeOptions { start, ..SubscribeOptions::default() });
                let start = StartAt::Last;
                subscribe("plain", SubscribeOptions { start, ..SubscribeOptions::default() });
                Role::Witness { got: BTreeMap::new() }
            }
            _ => {
                let options = SubscribeOptions {
                    start: StartAt::All,
                    capacity,
                    durable: Some("work".into()),
                    redelivery: Redelivery {
                        ack_wait: Duration::from_secs(2),
                        retry_delay: Duration::from_millis(100),
                        max_attempts: 4,
                    },
                    ..SubscribeOptions::default()
                };
                subscribe("h.>", options);
                Role::Worker { done: BTreeMap::new(), fails: *dice.pick(&[0, 10, 60]) }
            }
        };
        Program {
            index,
            session,
            role,
            mailbox: VecDeque::new(),
            next_message: None,
            pace: 50,
            run: 0,
            is_owed_a_gap: false,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let publish = match &self.role {
            Role::Publisher { left: 1.., at, .. } => Some(*at),
            _ => None,
        };
        self.next_message.into_iter().chain(publish).min()
    }

    /// What is not over yet.
    pub(crate) fn unsettled(&self) -> Option<String> {
        if !self.mailbox.is_empty() {
            return Some("has messages to handle".into());
        }
        if self.is_owed_a_gap {
            return Some(format!("was not told what it lost after run {}", self.run));
        }
        let pending = self.session.ledger().published.pending;
        if pending > 0 {
            return Some(format!("has {pending} publishes pending"));
        }
        match &self.role {
            Role::Publisher { left, waits, .. } if *left > 0 || !waits.is_empty() => {
                Some(format!("has {left} left and waits {waits:?}"))
            }
            _ => None,
        }
    }

    /// The broker's disk knows nothing of the runs after `epoch` any more.
    pub(crate) fn disk_swapped(&mut self, epoch: u64) {
        self.is_owed_a_gap = self.run > epoch;
        if let Role::Worker { done, .. } = &mut self.role {
            // What was handled may come back as if it were new.
            done.values_mut().for_each(|times| *times = 0);
        }
    }

    pub(crate) fn take(&mut self, events: Events, run: u64, fates: &mut Fates) {
        for (_, event) in events {
            match (event, &mut self.role) {
                (Event::Message { sub, message, delivery, .. }, role) => {
                    let token = token(&message.payload.bytes);
                    assert!(fates.is_for(token, self.index), "c{} got {token:?}", self.index);
                    if fates.private.contains(&token) {
                        // A durable reads what is committed alone.
                        let is_worker = matches!(role, Role::Worker { .. });
                        assert!(!is_worker, "{token:?} was on the disk");
                        let place = (message.epoch, message.topic.clone(), message.seq);
                        fates.places.insert(place, token);
                    }
                    if matches!(role, Role::Reader { .. }) {
                        self.run = self.run.max(message.epoch);
                    }
                    self.mailbox.push_back(Item::Message(sub, message, delivery));
                }
                (Event::Subscribed { .. } | Event::Resumed { .. }, _) => self.run = run,
                (Event::Gap { sub, gap }, _) if sub != SubId::DIRECT => {
                    self.run = run;
                    match gap.reason {
                        GapReason::Expired | GapReason::Private | GapReason::Offline => {}
                        GapReason::HistoryExpired => {
                            assert!(fates.may_age, "c{}: {gap:?}, without limits", self.index);
                        }
                        GapReason::NewEpoch => {
                            assert!(fates.swaps > 0, "c{}: {gap:?} in what is kept", self.index);
                            self.is_owed_a_gap = false;
                        }
                        _ => panic!("c{}: {gap:?}", self.index),
                    }
                    self.mailbox.push_back(Item::Gap(gap));
                }
                (Event::Receipt { number, level }, Role::Publisher { waits, .. }) => {
                    assert_eq!(level, ReceiptLevel::Stored);
                    assert!(waits.remove(&number), "nobody waits for it");
                }
                (Event::PublishFailed { number, error, .. }, Role::Publisher { waits, .. }) => {
                    let token = (self.index, number);
                    let by_policy = fates.mortal.contains(&token)
                        && matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::Cancelled);
                    assert!(
                        by_policy || error.kind() == ErrorKind::OutboxFull,
                        "{token:?}: {error}"
                    );
                    waits.remove(&number);
                    fates.failed(token, error.message().contains("may have been received"));
                }
                (
                    Event::SubscribeFailed { error, .. } | Event::SubscriptionClosed { error, .. },
                    _,
                ) => {
                    panic!("c{}: {error}", self.index);
                }
                _ => {}
            }
        }
    }

    /// `clients` are there in all.
    pub(crate) fn act(&mut self, now: Time, dice: &mut Dice, fates: &mut Fates, clients: usize) {
        if self.next_message.is_some_and(|at| at <= now) {
            self.next_message = None;
            match self.mailbox.pop_front() {
                Some(Item::Message(sub, message, delivery)) => {
                    self.session.consumed(sub, 1);
                    self.handle(message, delivery, dice);
                }
                Some(Item::Gap(gap)) => self.miss(&gap),
                None => {}
            }
        }
        if self.next_message.is_none() && !self.mailbox.is_empty() {
            self.next_message = Some(now + Duration::from_micros(dice.below(2 * self.pace + 1)));
        }
        self.publish(now, dice, fates, clients);
    }

    fn publish(&mut self, now: Time, dice: &mut Dice, fates: &mut Fates, clients: usize) {
        let Role::Publisher { left, number, waits, at } = &mut self.role else { return };
        if *left == 0 || *at > now {
            return;
        }
        *at = now + Duration::from_micros(dice.below(*dice.clone().pick(&[100, 20_000, 300_000])));
        *left -= 1;
        let topic = *dice.pick(&TOPICS);
        let token = (self.index, *number + 1);
        let kept = topic != "plain";
        let retain = dice.chance(10);
        let mut own = Extras::default();
        if dice.chance(10) {
            own.id = Some(format!("own-{token:?}"));
        }
        if !retain {
            let ttl = dice.chance(10).then(|| *dice.pick(&[20, 3_000, 3_600_000]));
            own.ttl = ttl.map(Duration::from_millis);
            own.private = dice.chance(5);
            own.offline = match dice.below(20) {
                0 => Offline::Drop,
                1 => Offline::Latest,
                _ => Offline::Keep,
            };
        }
        let some: Vec<usize> = (0..clients).filter(|_| dice.chance(50)).collect();
        if !retain && !some.is_empty() && dice.chance(10) {
            own.to = Some(some.iter().map(|client| format!("c{client}")).collect());
        }
        let stored = kept && !own.private && dice.chance(50);
        let options = PublishOptions {
            extras: (!own.is_empty()).then_some(&own),
            receipt: stored.then_some(ReceiptLevel::Stored),
            target: Target(0),
            retain,
            ..PublishOptions::default()
        };
        let text = payload(token, 20);
        let to = Destination::Topic(topic);
        let before = self.session.ledger().published;
        match self.session.publish(now, to, ContentType::Text, &text, &options) {
            Ok(given) => *number = given,
            Err(error) => {
                let is_away = own.offline == Offline::Drop
                    && self.session.state() != State::Connected
                    && error.kind() == ErrorKind::NotConnected;
                assert!(is_away || error.kind() == ErrorKind::OutboxFull, "{error}");
                assert_eq!(self.session.ledger().published, before, "refused, and yet counted");
                return;
            }
        }
        assert_eq!(*number, token.1);
        if kept {
            fates.published.insert(token);
        }
        if own.ttl.is_some() || own.private || own.offline != Offline::Keep {
            fates.mortal.insert(token);
        }
        if own.private {
            fates.private.insert(token);
        }
        if own.to.is_some() {
            fates.to.insert(token, some);
        }
        if retain {
            fates.retained.entry(topic).or_default().insert(token);
        }
        if options.receipt.is_some() {
            waits.insert(*number);
        }
    }

    /// A gap in the stream, where it stands.
    fn miss(&mut self, gap: &Gap) {
        let Role::Reader { seen, last, expired, aged } = &mut self.role else { return };
        match gap.count {
            _ if gap.reason == GapReason::HistoryExpired => *aged = true,
            Some(count) => *expired += count,
            // What follows is from another disk, and may be what was on the old one as well.
            None => {
                last.clear();
                seen.values_mut().for_each(|times| *times = 0);
            }
        }
    }

    fn handle(&mut self, message: Message, delivery: Option<u64>, dice: &mut Dice) {
        let token = token(&message.payload.bytes);
        match &mut self.role {
            Role::Publisher { .. } => {}
            Role::Witness { got } => {
                let other = got.insert(message.topic.clone(), token);
                assert_eq!(other, None, "{} has one last value", message.topic);
            }
            Role::Reader { seen, last, .. } => {
                let times = seen.entry(token).or_default();
                *times += 1;
                assert!(*times == 1 || message.maybe_duplicate, "{token:?} came {times} times");
                if !message.maybe_duplicate {
                    let last = last.entry((token.0, message.topic.clone())).or_default();
                    assert!(token.1 > *last, "{token:?} came after {last}");
                    *last = token.1;
                }
            }
            Role::Worker { done, fails } => {
                let delivery = delivery.expect("a durable waits for an answer");
                if dice.chance(*fails) {
                    let error = HandlerError { kind: "Oops".into(), text: "not now".into() };
                    self.session.answer(delivery, &Answer::Failed(error)).ok();
                } else if self
                    .session
                    .answer(delivery, &Answer::Acked(Payload::json("null")))
                    .is_ok()
                {
                    *done.entry(token).or_default() += 1;
                    assert!(
                        done[&token] == 1 || message.attempt > 1 || message.maybe_duplicate,
                        "{token:?} was handled again and not marked"
                    );
                }
            }
        }
    }
}
