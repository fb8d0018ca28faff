//! History and durable subscriptions: publishers, readers and workers, a broker that dies now and then
//! and finds again what its disk had committed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use kps_proto::{
    ErrorKind,
    bus::{Bus, BusConfig, HistoryConfig, Notice},
    clock::Time,
    history::{HistoryRule, Write},
    message::{Answer, ContentType, Extras, HandlerError, Message, Payload, ReceiptLevel},
    options::{Limits, Overflow, Redelivery, StartAt, SubscribeOptions, Timings},
    session::{
        Backoff, Destination, Event, Events, PublishOptions, Session, SessionConfig, State, SubId,
        Target,
    },
    topic::Pattern,
};

use crate::{
    link::Link,
    random::Dice,
    server::{Peer, fatal},
    shelf::Shelf,
    truth::{Token, payload, token},
};

/// Virtual time in which everything must settle once there is no more trouble.
const SETTLE: Duration = Duration::from_secs(900);

const TOPICS: [&str; 4] = ["h.a", "h.b", "h.c.d", "plain"];

pub(crate) struct World {
    dice: Dice,
    now: Time,
    bus: Bus,
    config: BusConfig,
    shelf: Shelf,
    programs: Vec<Program>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// Every publish to a topic with history, and whether its publisher heard that it is stored.
    published: BTreeMap<Token, bool>,
    trace: u64,
}

struct Connection {
    client: usize,
    link: Link,
    peer: Peer,
}

/// A client and what it does: publishes, or reads all there is, or works for the durable.
struct Program {
    index: usize,
    session: Session,
    role: Role,
    mailbox: VecDeque<(SubId, Message, Option<u64>)>,
    next_message: Option<Time>,
    pace: u64,
    wants: usize,
}

enum Role {
    Publisher { left: u64, number: u64, waits: BTreeSet<u64>, at: Time },
    Reader { seen: HashMap<Token, u32>, last: HashMap<(usize, Arc<str>), u64>, gaps: usize },
    Worker { done: BTreeMap<Token, u32>, fails: u64 },
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut dice = Dice::new(!seed);
        let rules = ["h.>", "kps.dead.>"].map(|pattern| HistoryRule {
            pattern: Pattern::parse(pattern).expect("a pattern"),
            max_age: None,
            max_count: None,
            max_bytes: None,
        });
        let config = BusConfig {
            limits: Limits {
                queue_bytes: *dice.pick(&[3_000, 32 << 20]),
                publish_window: *dice.pick(&[4, 65_536]),
                ..Limits::default()
            },
            timings: Timings {
                heartbeat: Duration::from_millis(500),
                silence: Duration::from_millis(1250),
                resume_window: Duration::from_secs(3),
                stall_timeout: Duration::from_secs(3600),
                ..Timings::default()
            },
            epoch: 1,
            time_base_ms: 1_000_000,
            history: HistoryConfig {
                rules: Arc::new(rules),
                on_disk: true,
                ..HistoryConfig::default()
            },
            ..BusConfig::default()
        };
        let roles = [(dice.between(1, 2), 0), (dice.between(1, 2), 1), (dice.between(1, 3), 2)];
        let mut programs = Vec::new();
        for (count, role) in roles {
            for _ in 0..count {
                let index = programs.len();
                programs.push(Program::new(index, role, &mut dice));
            }
        }
        let mut world = World {
            bus: Bus::new(config.clone()),
            dice,
            now: Time::ZERO,
            config,
            shelf: Shelf::default(),
            programs,
            connections: BTreeMap::new(),
            next_connection: 0,
            published: BTreeMap::new(),
            trace: 0,
        };
        world.shelf.reopen(Time::ZERO, 1);
        world
    }

    /// Runs to the end and checks; returns a number that the same seed always gives.
    pub(crate) fn run(mut self) -> u64 {
        for _ in 0..self.dice.between(10, 60) {
            let pause = self.dice.below(400_000);
            self.run_until(self.now + Duration::from_micros(pause), |_| false);
            self.disturb();
        }
        for program in &mut self.programs {
            program.pace = 50;
            if let Role::Worker { fails, .. } = &mut program.role {
                *fails = 0;
            }
        }
        let end = self.now + SETTLE;
        self.run_until(end, |world| world.unsettled().is_none());
        if let Some(problem) = self.unsettled() {
            panic!("it does not settle: {problem}");
        }
        self.check();
        self.trace
    }

    fn disturb(&mut self) {
        let short = Duration::from_micros(self.dice.below(5_000));
        let long = Duration::from_micros(self.dice.below(5_000_000));
        let any = self.dice.below(self.connections.len() as u64) as usize;
        let choice = self.dice.below(8);
        if choice == 7 {
            return self.restart_broker();
        }
        if let Some(program) = self.programs.get_mut(any) {
            program.pace = *self.dice.pick(&[50, 50, 5_000, 200_000]);
        }
        let Some(connection) = self.connections.values_mut().nth(any) else { return };
        match choice {
            0 => connection.link.up.stall(self.now + long),
            1 => connection.link.down.stall(self.now + long),
            2 | 3 => connection.link.cut(self.now, short, short),
            4 => connection.link.cut(self.now, short, long),
            5 => connection.link.cut(self.now, long, short),
            _ => {}
        }
    }

    /// The broker is killed: what its disk had not committed is gone, and so are all sessions.
    fn restart_broker(&mut self) {
        for connection in self.connections.values_mut() {
            connection.link.cut(self.now, Duration::ZERO, Duration::ZERO);
            connection.link.server_learns = None;
            connection.peer.port = None;
        }
        self.config.epoch += 1;
        self.config.history.recovered = self.shelf.reopen(self.now, self.config.epoch);
        self.bus = Bus::new(self.config.clone());
    }

    fn unsettled(&self) -> Option<String> {
        for program in &self.programs {
            let state = program.session.state();
            if state != State::Connected {
                return Some(format!("c{} is {state:?}", program.index));
            }
            if !program.mailbox.is_empty() || program.wants > 0 {
                return Some(format!("c{} has messages to handle", program.index));
            }
            match &program.role {
                Role::Publisher { left, waits, .. } if *left > 0 || !waits.is_empty() => {
                    return Some(format!("c{} has {left} left and waits {waits:?}", program.index));
                }
                Role::Reader { seen, .. } => {
                    if let Some(missing) = self.published.keys().find(|t| !seen.contains_key(t)) {
                        return Some(format!("c{} misses {missing:?}", program.index));
                    }
                }
                _ => {}
            }
        }
        let done = |token: &Token| {
            self.programs.iter().any(|program| {
                matches!(&program.role, Role::Worker { done, .. } if done.contains_key(token))
            }) || self.is_dead(*token)
        };
        self.published
            .keys()
            .find(|token| !done(token))
            .map(|token| format!("{token:?} is not done"))
    }

    fn is_dead(&self, wanted: Token) -> bool {
        self.shelf.records.iter().any(|record| {
            record.topic.starts_with("kps.dead.") && token(&record.payload.bytes) == wanted
        })
    }

    fn check(&self) {
        let mut stored: BTreeMap<Token, usize> = BTreeMap::new();
        for record in self.shelf.records.iter().filter(|record| record.topic.starts_with("h.")) {
            *stored.entry(token(&record.payload.bytes)).or_default() += 1;
        }
        for (token, count) in &stored {
            assert_eq!(*count, 1, "{token:?} is stored {count} times");
        }
        assert!(self.published.keys().all(|token| stored.contains_key(token)));
        assert_eq!(stored.len(), self.published.len());
        assert!(self.bus.ledger().is_balanced(), "{:?}", self.bus.ledger());
        for program in &self.programs {
            if let Role::Reader { gaps, .. } = program.role {
                assert_eq!(gaps, 0, "c{} was told of gaps in what is kept", program.index);
            }
        }
    }

    fn run_until(&mut self, end: Time, done: impl Fn(&World) -> bool) {
        let mut steps = 0;
        while !done(self) {
            let programs = self.programs.iter().flat_map(|program| {
                [program.deadline(), program.session.deadline()].into_iter().flatten()
            });
            let links = self.connections.values().filter_map(|connection| connection.link.next());
            let next = programs.chain(links).chain(self.bus.deadline()).chain(self.shelf.next());
            match next.min() {
                Some(next) if next <= end => {
                    steps = if next <= self.now { steps + 1 } else { 0 };
                    self.now = self.now.max(next);
                }
                _ => break,
            }
            assert!(steps < 10_000, "time stands still at {:?}", self.now);
            self.step();
        }
        if !done(self) {
            self.now = self.now.max(end);
        }
    }

    fn step(&mut self) {
        self.trace = self.trace.rotate_left(5) ^ self.now.as_micros();
        self.bus.tick(self.now);
        if let Some(position) = self.shelf.commit(self.now) {
            self.bus.stored(self.now, position);
        }
        while let Some((reader, page)) = self.shelf.answer(self.now) {
            self.bus.take_page(self.now, reader, Ok(page));
        }
        for number in self.connections.keys().copied().collect::<Vec<_>>() {
            self.serve(number);
        }
        self.flush_bus();
        for client in 0..self.programs.len() {
            self.drive(client);
        }
        self.connections.retain(|_, connection| {
            let link = &connection.link;
            !(link.is_cut && link.client_learns.is_none() && link.server_learns.is_none())
        });
    }

    fn serve(&mut self, number: u64) {
        let Some(Connection { client, link, peer }) = self.connections.get_mut(&number) else {
            return;
        };
        while let Some(message) = link.up.receive(self.now) {
            crate::trace(self.now, format_args!("c{client} → bus"), &message);
            let mut replies = BytesMut::new();
            let taken = peer.receive(
                &mut self.bus,
                self.now,
                &message,
                &mut self.dice,
                &mut replies,
                |_, _| {},
            );
            if !replies.is_empty() {
                link.down.send(self.now, replies.freeze());
            }
            if let Err(error) = taken {
                assert_eq!(error.kind(), ErrorKind::Closed, "c{client}: {error}");
                link.server_learns = Some(self.now);
            }
        }
        if link.server_learns.is_some_and(|at| at <= self.now) {
            if let Some(port) = peer.port.take() {
                self.bus.detach(self.now, port, true);
            }
            if !link.is_cut {
                link.cut(self.now, Duration::ZERO, Duration::ZERO);
            }
            link.server_learns = None;
        }
    }

    /// What the bus has to say, to write and to read.
    fn flush_bus(&mut self) {
        let mut ready = Vec::new();
        self.bus.take_ready(&mut ready);
        for Connection { link, peer, .. } in self.connections.values_mut() {
            peer.waits |= peer.port.is_some_and(|port| ready.contains(&port));
            while peer.waits && link.down.has_room() {
                let max = *self.dice.pick(&[100, 4_000, 64_000]);
                let (message, closed) = peer.pull(&mut self.bus, self.now, max);
                if !message.is_empty() {
                    link.down.send(self.now, message);
                }
                if let Some(error) = closed {
                    link.down.send(self.now, fatal(&error));
                    peer.waits = false;
                    link.server_learns = Some(self.now);
                }
            }
        }
        let mut writes: Vec<Write> = Vec::new();
        self.bus.take_writes(&mut writes);
        if !writes.is_empty() {
            self.shelf.write(self.now, writes, &mut self.dice);
        }
        let notices: Vec<Notice> = self.bus.take_notices().collect();
        for notice in notices {
            if let Notice::Read { reader, query } = notice {
                self.shelf.read(self.now, reader, query, &mut self.dice);
            }
        }
    }

    fn drive(&mut self, client: usize) {
        let own = self.connections.iter().rev().find(|(_, other)| other.client == client);
        let own = own.map(|(number, _)| *number);
        for (number, connection) in &mut self.connections {
            if connection.client == client && Some(*number) != own {
                connection.link.forget();
            }
        }
        let program = &mut self.programs[client];
        let mut events = Events::new();
        let mut lost = None;
        if let Some(Connection { link, .. }) = own.and_then(|own| self.connections.get_mut(&own)) {
            if link.client_learns.is_some_and(|at| at <= self.now) {
                lost = Some(None);
            }
            while lost.is_none()
                && let Some(message) = link.down.receive(self.now)
            {
                crate::trace(self.now, format_args!("bus → c{client}"), &message);
                if let Err(error) = program.session.receive_shared(self.now, &message, &mut events)
                {
                    lost = Some(Some(error));
                }
            }
        }
        if lost.is_none()
            && let Err(error) = program.session.tick(self.now, &mut events)
        {
            lost = Some(Some(error));
        }
        if let Some(error) = lost {
            if let Some(error) = &error {
                assert_ne!(error.kind(), ErrorKind::Protocol, "c{client}: {error}");
            }
            program.session.disconnected(self.now, error, &mut events);
            if let Some(connection) = own.and_then(|own| self.connections.get_mut(&own)) {
                if !connection.link.is_cut {
                    connection.link.cut(self.now, Duration::ZERO, Duration::ZERO);
                }
                connection.link.client_learns = None;
            }
        }
        program.take(events, &mut self.published);
        program.act(self.now, &mut self.dice, &mut self.published);
        if program.session.should_connect(self.now) {
            program.session.connected(self.now);
            let connection = Connection {
                client,
                link: Link::new(&mut self.dice),
                peer: Peer::new(self.config.limits.aliases as u32),
            };
            self.connections.insert(self.next_connection, connection);
            self.next_connection += 1;
        }
        let own = self.connections.values_mut().rev().find(|other| other.client == client);
        let Some(connection) = own else { return };
        while program.session.has_output() && connection.link.up.has_room() {
            let max = *self.dice.pick(&[50, 2_000, 64_000]);
            let mut out = BytesMut::new();
            program.session.transmit(self.now, max, &mut out);
            if out.is_empty() {
                return;
            }
            connection.link.up.send(self.now, out.freeze());
        }
    }
}

impl Program {
    fn new(index: usize, role: u64, dice: &mut Dice) -> Program {
        let config = SessionConfig {
            id: Some(format!("c{index}")),
            backoff: Backoff {
                reconnect: true,
                min: Duration::from_millis(20),
                max: Duration::from_millis(500),
            },
            ..SessionConfig::default()
        };
        let mut session = Session::new(config, dice.next());
        let capacity = *dice.pick(&[None, Some(3), Some(40)]);
        let mut subscribe = |options| {
            session.subscribe(Target(0), "h.>", options).expect("a good pattern");
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
                subscribe(SubscribeOptions {
                    start,
                    capacity,
                    overflow,
                    ..SubscribeOptions::default()
                });
                Role::Reader { seen: HashMap::new(), last: HashMap::new(), gaps: 0 }
            }
            _ => {
                subscribe(SubscribeOptions {
                    start: StartAt::All,
                    capacity,
                    durable: Some("work".into()),
                    redelivery: Redelivery {
                        ack_wait: Duration::from_secs(2),
                        retry_delay: Duration::from_millis(100),
                        max_attempts: 4,
                    },
                    ..SubscribeOptions::default()
                });
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
            wants: 0,
        }
    }

    fn deadline(&self) -> Option<Time> {
        let publish = match &self.role {
            Role::Publisher { left: 1.., at, .. } => Some(*at),
            _ => None,
        };
        self.next_message.into_iter().chain(publish).min()
    }

    fn take(&mut self, events: Events, published: &mut BTreeMap<Token, bool>) {
        for (_, event) in events {
            match (event, &mut self.role) {
                (Event::Message { sub, message, delivery, .. }, _) => {
                    self.mailbox.push_back((sub, message, delivery));
                }
                (Event::Gap { sub, gap }, Role::Reader { gaps, .. }) if sub != SubId::DIRECT => {
                    panic!("c{}: {gap:?} after {gaps} gaps", self.index);
                }
                (Event::Receipt { number, level }, Role::Publisher { waits, .. }) => {
                    assert_eq!(level, ReceiptLevel::Stored);
                    assert!(waits.remove(&number), "nobody waits for it");
                    published.insert((self.index, number), true);
                }
                (Event::PublishFailed { number, error, .. }, Role::Publisher { .. }) => {
                    panic!("c{} {number}: {error}", self.index);
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

    fn act(&mut self, now: Time, dice: &mut Dice, published: &mut BTreeMap<Token, bool>) {
        if self.next_message.is_some_and(|at| at <= now) {
            self.next_message = None;
            if let Some((sub, message, delivery)) = self.mailbox.pop_front() {
                self.session.consumed(sub, 1);
                self.handle(message, delivery, dice);
            }
        }
        if self.next_message.is_none() && !self.mailbox.is_empty() {
            self.next_message = Some(now + Duration::from_micros(dice.below(2 * self.pace + 1)));
        }
        self.publish(now, dice, published);
    }

    fn publish(&mut self, now: Time, dice: &mut Dice, published: &mut BTreeMap<Token, bool>) {
        let Role::Publisher { left, number, waits, at } = &mut self.role else { return };
        if *left == 0 || *at > now {
            return;
        }
        *at = now + Duration::from_micros(dice.below(*dice.clone().pick(&[100, 20_000, 300_000])));
        *left -= 1;
        let topic = *dice.pick(&TOPICS);
        let token = (self.index, *number + 1);
        let own = Extras { id: Some(format!("own-{token:?}")), ..Extras::default() };
        let kept = topic != "plain";
        let options = PublishOptions {
            extras: dice.chance(10).then_some(&own),
            receipt: (kept && dice.chance(50)).then_some(ReceiptLevel::Stored),
            target: Target(0),
            ..PublishOptions::default()
        };
        let text = payload(token, 20);
        let to = Destination::Topic(topic);
        *number = self.session.publish(now, to, ContentType::Text, &text, &options).expect("room");
        assert_eq!(*number, token.1);
        if kept {
            published.insert(token, false);
        }
        if options.receipt.is_some() {
            waits.insert(*number);
        }
    }

    fn handle(&mut self, message: Message, delivery: Option<u64>, dice: &mut Dice) {
        let token = token(&message.payload.bytes);
        match &mut self.role {
            Role::Publisher { .. } => {}
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
