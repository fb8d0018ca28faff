//! A program that uses a session: its mailbox, its handlers, and what it must never see.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use kps_proto::{
    ErrorKind,
    clock::Time,
    message::{Answer, Extras, HandlerError, Message, Offline, Payload, ReceiptLevel, RowStatus},
    options::{Overflow, StartAt, SubscribeOptions},
    session::{
        AckRequest, Destination, Event, Events, PublishOptions, Room, Session, State, SubId, Target,
    },
    topic::Pattern,
};

use crate::{
    random::Dice,
    truth::{self, Outcome, Retained, Sent, Token, Truth},
};

pub(crate) const TOPICS: [&str; 5] = ["t.a", "t.b.c", "t.b.d", "t.e", "q.x"];
const PATTERNS: [&str; 7] = ["t.a", "t.b.c", "t.*", "t.b.*", "t.>", ">", "q.x"];
/// Longer than anything waits in a run.
const LONG: Duration = Duration::from_secs(3600);
const OVERFLOWS: [Overflow; 5] = [
    Overflow::Block,
    Overflow::DropOldest,
    Overflow::DropNewest,
    Overflow::Latest,
    Overflow::Disconnect,
];

pub(crate) struct App {
    index: usize,
    pub(crate) id: String,
    pub(crate) session: Session,
    mailbox: VecDeque<Event>,
    /// How long a handler takes, in microseconds.
    pub(crate) pace: u64,
    next_message: Option<Time>,
    answers: Vec<(Time, u64, Token, Answer)>,
    subs: HashMap<u32, Sub>,
    acks: HashMap<u64, Ack>,
    published: u64,
    receipts: HashSet<u64>,
    flushes: usize,
    rooms: usize,
    unsubscribing: usize,
    delivered: u64,
}

struct Sub {
    pattern: Pattern,
    group: bool,
    /// It begins with the retained messages.
    from_last: bool,
    /// The retained messages it was given.
    retained: HashSet<Token>,
    confirmed: bool,
    closed: bool,
    /// Since its stream began.
    delivered: u64,
    missing: u64,
    /// It began with a gap of unknown size, which may hold drops from after its beginning too.
    blurred: bool,
    /// The last seq of each topic, within an epoch.
    last: HashMap<(u64, Arc<str>), u64>,
    /// The last number of each publisher on each topic.
    numbers: HashMap<(usize, Arc<str>), u64>,
}

struct Ack {
    request: bool,
    /// Nobody waits that long for its end.
    is_long: bool,
    token: Token,
    recipients: Option<Arc<[Arc<str>]>>,
    rows: HashSet<Arc<str>>,
}

impl App {
    pub(crate) fn new(index: usize, id: String, session: Session) -> App {
        App {
            index,
            id,
            session,
            mailbox: VecDeque::new(),
            pace: 100,
            next_message: None,
            answers: Vec::new(),
            subs: HashMap::new(),
            acks: HashMap::new(),
            published: 0,
            receipts: HashSet::new(),
            flushes: 0,
            rooms: 0,
            unsubscribing: 0,
            delivered: 0,
        }
    }

    /// When it wants to act by itself.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let answer = self.answers.iter().map(|(at, ..)| *at).min();
        [self.next_message, answer].into_iter().flatten().min()
    }

    pub(crate) fn act(&mut self, now: Time, dice: &mut Dice, truth: &mut Truth) {
        if self.next_message.is_some_and(|at| at <= now) {
            self.next_message = None;
            if let Some(event) = self.mailbox.pop_front() {
                self.handle(now, event, dice, truth);
            }
            self.wait_for_message(now, dice);
        }
        let mut at = 0;
        while at < self.answers.len() {
            if self.answers[at].0 > now {
                at += 1;
                continue;
            }
            let (_, delivery, token, answer) = self.answers.swap_remove(at);
            self.answer(delivery, token, &answer, truth);
        }
    }

    fn answer(&mut self, delivery: u64, token: Token, answer: &Answer, truth: &mut Truth) {
        // Fails when nobody waits any more, which is no fault.
        if self.session.answer(delivery, answer).is_ok() && matches!(answer, Answer::Acked(_)) {
            let record = truth.records.get_mut(&token).expect("delivered, so published");
            record.acked.insert(self.id.clone());
        }
    }

    fn wait_for_message(&mut self, now: Time, dice: &mut Dice) {
        if self.next_message.is_none() && !self.mailbox.is_empty() {
            let pause = if self.pace == 0 { 0 } else { dice.below(2 * self.pace) };
            self.next_message = Some(now + Duration::from_micros(pause));
        }
    }

    /// What came from the session: streams go through the mailbox, the rest is looked at here.
    pub(crate) fn take(&mut self, now: Time, events: Events, dice: &mut Dice, truth: &mut Truth) {
        for (_, event) in events {
            match event {
                Event::Message { .. } | Event::Gap { .. } | Event::SubscriptionClosed { .. } => {
                    self.mailbox.push_back(event);
                }
                Event::Subscribed { sub } => {
                    let sub = self.subs.get_mut(&sub.0).expect("asked for");
                    assert!(!sub.confirmed, "confirmed twice");
                    sub.confirmed = true;
                }
                Event::SubscribeFailed { sub, .. } => {
                    self.subs.remove(&sub.0);
                }
                Event::Unsubscribed { .. } => {
                    self.unsubscribing =
                        self.unsubscribing.checked_sub(1).expect("told once per call");
                }
                Event::Receipt { number, level } => {
                    assert_eq!(level, ReceiptLevel::Accepted);
                    assert!(self.receipts.remove(&number), "a receipt nobody asked for");
                    let record = &truth.records[&(self.index, number)];
                    assert_eq!(record.outcome, Outcome::Open, "refused, and yet accepted");
                }
                Event::PublishFailed { number, id, error } => {
                    self.receipts.remove(&number);
                    let record = truth
                        .records
                        .get_mut(&(self.index, number))
                        .expect("only what was published can fail");
                    assert_eq!(record.sent.id, id);
                    assert_eq!(record.outcome, Outcome::Open, "it fails once");
                    if let (true, Some(topic)) = (record.sent.private, &record.sent.topic) {
                        let quotes =
                            [topic, &id].iter().any(|text| error.message().contains(*text));
                        assert!(!quotes, "{error} quotes a private message");
                    }
                    // It was sent before the connection was lost.
                    let perhaps = error.message().contains("may have been received");
                    record.outcome = Outcome::Failed { perhaps };
                }
                Event::Flushed { error } => {
                    assert_eq!(error, None);
                    self.flushes = self.flushes.checked_sub(1).expect("told once per call");
                }
                Event::Room => {
                    self.rooms = self.rooms.checked_sub(1).expect("told once per call");
                    assert_eq!(self.session.room(), Room::Free);
                }
                Event::Recipients { ack, clients } => {
                    let ack = self.acks.get_mut(&ack).expect("open");
                    let sent = &truth.records[&ack.token].sent;
                    assert!(clients.iter().all(|id| sent.is_for(id)), "{clients:?} of {sent:?}");
                    assert!(ack.recipients.replace(clients).is_none(), "frozen once");
                }
                Event::Row { ack, row } => {
                    let ack = self.acks.get_mut(&ack).expect("open");
                    let recipients = ack.recipients.as_ref().expect("told before their rows");
                    assert!(recipients.contains(&row.client_id));
                    assert!(ack.rows.insert(row.client_id.clone()), "one row per recipient");
                    if row.status == RowStatus::Acked && &*row.client_id != "spy" {
                        let record = &truth.records[&ack.token];
                        assert!(record.acked.contains(&*row.client_id), "nobody said so");
                    }
                }
                Event::AckDone { ack, error } => {
                    let ack = self.acks.remove(&ack).expect("it ends once");
                    assert!(!ack.request);
                    match ack.recipients {
                        Some(recipients) => {
                            assert_eq!(error, None);
                            assert_eq!(recipients.len(), ack.rows.len(), "every row came");
                        }
                        None => assert!(error.is_some(), "over, and nobody knows for whom"),
                    }
                }
                Event::RequestDone { ack, result } => {
                    let ack = self.acks.remove(&ack).expect("it ends once");
                    assert!(ack.request && ack.rows.is_empty());
                    if let Ok(row) = result {
                        assert!(row.success());
                    }
                }
                Event::State { state, error, .. } => {
                    assert_ne!(state, State::Closed, "{error:?}");
                }
                Event::Resumed { .. }
                | Event::CancelDelivery { .. }
                | Event::OutboxFlushed { .. }
                | Event::Goaway { .. }
                | Event::MessagePublished { .. }
                | Event::Backpressure { .. }
                | Event::Error { .. } => {}
            }
        }
        self.wait_for_message(now, dice);
    }

    fn handle(&mut self, now: Time, event: Event, dice: &mut Dice, truth: &Truth) {
        match event {
            Event::Message { sub, message, delivery, .. } => {
                self.session.consumed(sub, 1);
                self.delivered += 1;
                let token = truth.token(&message);
                let sent = &truth.records[&token].sent;
                assert!(sent.is_for(&self.id), "{} got {sent:?}", self.id);
                if sub == SubId::DIRECT {
                    assert_eq!(*message.topic, format!("kps.id.{}", self.id));
                } else {
                    let of = (self.index, sub.0);
                    let sub = self.subs.get_mut(&sub.0).expect("subscribed");
                    if message.retained {
                        let offered = truth.was_offered(of.0, of.1, &message.topic, token);
                        assert!(offered, "{of:?}: {token:?} was not retained when it began");
                    }
                    sub.note(token, &message);
                }
                if let Some(delivery) = delivery {
                    let answer = match dice.below(10) {
                        0 => return,
                        1 => Answer::NoHandler,
                        2 => Answer::Failed(HandlerError { kind: "E".into(), text: "e".into() }),
                        _ => Answer::Acked(Payload::json("1")),
                    };
                    let at = now + Duration::from_micros(dice.below(3 * self.pace));
                    self.answers.push((at, delivery, token, answer));
                }
            }
            Event::Gap { sub, gap } => {
                let Some(sub) = self.subs.get_mut(&sub.0) else { return };
                match gap.count {
                    Some(count) => sub.missing += count,
                    // A stream of another session follows.
                    None => {
                        sub.delivered = 0;
                        sub.missing = 0;
                        sub.blurred = true;
                    }
                }
            }
            Event::SubscriptionClosed { sub, .. } => {
                self.subs
                    .get_mut(&sub.0)
                    .unwrap_or_else(|| panic!("{sub:?} is closed, but not subscribed"))
                    .closed = true;
            }
            other => unreachable!("not for the mailbox: {other:?}"),
        }
    }

    /// One random thing that a program might do.
    pub(crate) fn operate(
        &mut self,
        now: Time,
        dice: &mut Dice,
        truth: &mut Truth,
        clients: usize,
    ) {
        match dice.below(100) {
            0..50 => {
                for _ in 0..*dice.pick(&[1, 1, 3, 30]) {
                    self.publish(now, dice, truth, clients);
                }
            }
            50..65 => self.subscribe(dice),
            65..75 => self.unsubscribe(now, dice, truth),
            75..80 => {
                if let Ok(false) = self.session.flush(Target(0)) {
                    self.flushes += 1;
                }
            }
            80..85 => {
                if self.rooms == 0 && !self.session.watch_room(Target(0)) {
                    self.rooms = 1;
                }
            }
            85..90 => {
                let ack = self.acks.keys().min().copied();
                if let Some(ack) = ack {
                    let mut events = Events::new();
                    self.session.cancel_ack(ack, &mut events);
                    assert!(!events.is_empty());
                    self.take(now, events, dice, truth);
                }
            }
            _ => self.pace = *dice.pick(&[0, 100, 5_000, 100_000, 700_000]),
        }
    }

    fn publish(&mut self, now: Time, dice: &mut Dice, truth: &mut Truth, clients: usize) {
        let topic = *dice.pick(&TOPICS);
        let client = format!("c{}", dice.below(clients as u64 + 1));
        let to = match dice.below(10) {
            0 => Destination::Client(&client),
            _ => Destination::Topic(topic),
        };
        let token = (self.index, self.published + 1);
        let length = *dice.pick(&[0, 20, 100, 100, 3000]);
        let is_for_topic = matches!(to, Destination::Topic(_));
        let retained = (is_for_topic && dice.chance(10)).then(|| {
            *dice.pick(&[Retained::Set, Retained::Set, Retained::ForAWhile, Retained::Removed])
        });
        let extras = match retained {
            Some(retained) => Extras {
                ttl: match retained {
                    Retained::Set => *dice.pick(&[None, Some(LONG)]),
                    Retained::ForAWhile => Some(Duration::from_millis(dice.below(3000))),
                    Retained::Removed => None,
                },
                ..Extras::default()
            },
            None => extras(token, is_for_topic, dice, clients),
        };
        let for_some = extras.to.is_some();
        let ack = dice.chance(20).then(|| {
            let request = retained.is_none() && dice.chance(30);
            // That it ran out of time would not tell whom it was for.
            let is_long = request && for_some;
            let timeout = Duration::from_millis(dice.between(1, 3000));
            AckRequest { timeout: if is_long { LONG } else { timeout }, request, target: Target(1) }
        });
        let options = PublishOptions {
            extras: Some(&extras),
            receipt: dice.chance(10).then_some(ReceiptLevel::Accepted),
            target: Target(0),
            ack,
            retain: retained.is_some(),
            ..PublishOptions::default()
        };
        let payload = match retained {
            Some(Retained::Removed) => Vec::new(),
            _ => truth::payload(token, length),
        };
        let content_type = kps_proto::message::ContentType::Text;
        let number = match self.session.publish(now, to, content_type, &payload, &options) {
            Ok(number) => number,
            Err(error) => {
                let is_away = extras.offline == Offline::Drop
                    && self.session.state() != State::Connected
                    && error.kind() == ErrorKind::NotConnected;
                assert!(is_away || error.kind() == ErrorKind::OutboxFull, "{error}");
                assert_eq!(self.session.ledger().published.total, self.published, "not queued");
                return;
            }
        };
        self.published += 1;
        assert_eq!(number, self.published);
        let is_brief = extras.ttl.is_some_and(|ttl| ttl < LONG);
        let sent = Sent {
            topic: is_for_topic.then(|| topic.to_owned()),
            id: extras.id.clone().unwrap_or_else(|| self.session.message_id(number)),
            may_expire: is_brief || ack.is_some_and(|ack| ack.request && ack.timeout < LONG),
            to: extras.to.clone(),
            private: extras.private,
            retained,
        };
        truth.published(token, sent);
        if options.receipt.is_some() {
            self.receipts.insert(number);
        } else if dice.chance(5) {
            match self.session.watch(number, ReceiptLevel::Accepted, Target(0)) {
                Ok(false) => assert!(self.receipts.insert(number)),
                other => panic!("just published, and {other:?}"),
            }
        }
        if let Some(AckRequest { request, timeout, .. }) = ack {
            let is_long = timeout >= LONG;
            let ack = Ack { request, is_long, token, recipients: None, rows: HashSet::new() };
            self.acks.insert(number, ack);
        }
    }

    fn subscribe(&mut self, dice: &mut Dice) {
        if self.subs.len() > 6 {
            return;
        }
        let pattern = *dice.pick(&PATTERNS);
        let group = dice.chance(15);
        let options = SubscribeOptions {
            group: group.then(|| "g".to_owned()),
            overflow: *dice.pick(&OVERFLOWS),
            capacity: *dice.pick(&[None, None, Some(1), Some(3), Some(20)]),
            start: if dice.chance(40) { StartAt::Last } else { StartAt::New },
            ..SubscribeOptions::default()
        };
        let from_last = options.start == StartAt::Last && !group;
        let sub = self.session.subscribe(Target(0), pattern, options).expect("a good pattern");
        let pattern = Pattern::parse(pattern).expect("a good pattern");
        let sub_record = Sub {
            pattern,
            group,
            from_last,
            retained: HashSet::new(),
            confirmed: false,
            closed: false,
            delivered: 0,
            missing: 0,
            blurred: false,
            last: HashMap::new(),
            numbers: HashMap::new(),
        };
        self.subs.insert(sub.0, sub_record);
    }

    fn unsubscribe(&mut self, now: Time, dice: &mut Dice, truth: &mut Truth) {
        let mut subs: Vec<u32> = self.subs.keys().copied().collect();
        subs.sort_unstable();
        if !subs.is_empty() {
            let sub = *dice.pick(&subs);
            self.end(now, sub, dice, truth);
        }
    }

    fn end(&mut self, now: Time, number: u32, dice: &mut Dice, truth: &mut Truth) {
        let sub = SubId(number);
        let mut events = Events::new();
        self.unsubscribing += 1;
        let ended = self.session.unsubscribe(sub, &mut events);
        if ended.is_err() {
            // Closed by the server, and all its messages were handled.
            self.unsubscribing -= 1;
        }
        let (gone, kept): (Vec<_>, Vec<_>) =
            self.mailbox.drain(..).partition(|event| stream_of(event) == sub);
        self.mailbox = kept.into();
        for event in gone {
            if let Event::Message { delivery: Some(delivery), .. } = event {
                // It may be cancelled or its session lost: then nobody needs the answer.
                self.session.answer(delivery, &Answer::NoHandler).ok();
            }
        }
        self.subs.remove(&number);
        truth.starts.remove(&(self.index, number));
        self.take(now, events, dice, truth);
    }

    /// Handlers are quick from now on, and answer.
    pub(crate) fn hurry(&mut self, now: Time, dice: &mut Dice, truth: &mut Truth) {
        self.pace = 50;
        let mut long: Vec<u64> =
            self.acks.iter().filter(|(_, ack)| ack.is_long).map(|(ack, _)| *ack).collect();
        long.sort_unstable();
        for ack in long {
            let mut events = Events::new();
            self.session.cancel_ack(ack, &mut events);
            self.take(now, events, dice, truth);
        }
    }

    /// What is not over yet.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let pending = self.session.ledger().published.pending;
        let waits = [
            (self.session.state() != State::Connected, "is not connected"),
            (pending > 0, "has publishes pending"),
            (!self.mailbox.is_empty(), "has messages to handle"),
            (!self.answers.is_empty(), "has answers to give"),
            (!self.acks.is_empty() || self.session.open_acks() > 0, "waits for acks"),
            (!self.receipts.is_empty(), "waits for receipts"),
            (self.flushes > 0, "waits for a flush"),
            (self.rooms > 0, "waits for room"),
            (self.unsubscribing > 0, "waits for an unsubscribe"),
            (self.subs.values().any(|sub| !sub.confirmed && !sub.closed), "waits for a subscribe"),
        ];
        let (_, what) = waits.into_iter().find(|(waits, _)| *waits)?;
        Some(format!("{} {what} ({pending} publishes pending)", self.id))
    }

    /// Everything has settled: each open subscription heard of every message since it began, by
    /// delivery or by gap.
    pub(crate) fn check_streams(&self, truth: &Truth) {
        for (number, sub) in &self.subs {
            // A group's messages go to one member each, and only watched topics are counted.
            let counted = !sub.group && !sub.closed && sub.pattern.as_str().starts_with("t.");
            let own = (self.index, &*self.id);
            if counted && sub.from_last && sub.missing == 0 && !sub.blurred {
                for token in truth.owed(self.index, *number, &sub.pattern) {
                    let has = sub.retained.contains(&token);
                    assert!(has, "{own:?} {number}: {token:?} is retained, and it did not get it");
                }
            }
            let Some(expected) = truth.since_start(own, *number, &sub.pattern) else {
                continue;
            };
            if counted {
                let heard = sub.delivered + sub.missing;
                assert!(
                    heard == expected
                        || sub.blurred && heard < expected
                        // Retained messages may be reported missing, too.
                        || sub.from_last && sub.missing > 0 && heard > expected,
                    "{} {number} {:?}: {} delivered, {} reported missing, of {expected}",
                    self.id,
                    sub.pattern.as_str(),
                    sub.delivered,
                    sub.missing,
                );
            }
        }
        let ledger = self.session.ledger();
        assert_eq!(ledger.totals.delivered, self.delivered);
        assert_eq!(ledger.totals.pending, 0);
        assert_eq!(ledger.published.total, self.published);
    }

    /// Leaves everything.
    pub(crate) fn unsubscribe_all(&mut self, now: Time, dice: &mut Dice, truth: &mut Truth) {
        let mut subs: Vec<u32> = self.subs.keys().copied().collect();
        subs.sort_unstable();
        for sub in subs {
            self.end(now, sub, dice, truth);
        }
    }
}

impl Sub {
    fn note(&mut self, token: Token, message: &Message) {
        assert!(self.pattern.matches(&message.topic));
        let last = self.last.entry((message.epoch, message.topic.clone())).or_default();
        if message.retained {
            assert!(self.from_last, "it did not ask for {} {}", message.topic, message.seq);
            let is_first = self.retained.insert(token) && message.seq > *last;
            assert!(is_first || self.blurred, "{} {} is late", message.topic, message.seq);
            *last = message.seq.max(*last);
            return;
        }
        self.delivered += 1;
        assert!(
            message.seq > *last,
            "{} {} came after {last}: repeated or out of order",
            message.topic,
            message.seq
        );
        *last = message.seq;
        if !message.maybe_duplicate {
            let last = self.numbers.entry((token.0, message.topic.clone())).or_default();
            assert!(token.1 > *last, "{token:?} came after {last} of the same publisher");
            *last = token.1;
        }
    }
}

/// What a publish may say of its message.
fn extras(token: Token, is_for_topic: bool, dice: &mut Dice, clients: usize) -> Extras {
    let mut extras = Extras::default();
    if dice.chance(5) {
        extras.id = Some(format!("own-{}-{}", token.0, token.1));
    }
    if is_for_topic && dice.chance(10) {
        // The spy must see everything.
        let some = (0..clients).filter(|_| dice.chance(50)).map(|client| format!("c{client}"));
        extras.to = Some(some.chain(["spy".to_owned()]).collect());
    }
    if dice.chance(5) {
        let brief = Duration::from_millis(dice.below(2000));
        extras.ttl = Some(if extras.to.is_some() { LONG } else { brief });
    }
    extras.private = dice.chance(5);
    if dice.chance(10) {
        extras.offline = *dice.pick(&[Offline::Drop, Offline::Latest]);
    }
    extras
}

fn stream_of(event: &Event) -> SubId {
    match event {
        Event::Message { sub, .. }
        | Event::Gap { sub, .. }
        | Event::SubscriptionClosed { sub, .. } => *sub,
        other => unreachable!("not for the mailbox: {other:?}"),
    }
}
