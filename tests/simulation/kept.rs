//! History and durable subscriptions: publishers, readers and workers, a broker that dies now and then
//! and finds again what its disk had committed; or an empty disk, or an older copy; and another time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::BytesMut;
use kps_proto::{
    ErrorKind,
    bus::{Bus, BusConfig, HistoryConfig, Notice},
    clock::Time,
    history::{HistoryRule, Record, Write},
    message::Offline,
    options::{Limits, Timings},
    session::{Events, State},
    topic::Pattern,
};

use crate::{
    clock::jump,
    fates::Fates,
    link::Link,
    program::{Program, Role, TOPICS},
    random::Dice,
    server::{Peer, fatal},
    shelf::{Shelf, named},
    truth::Token,
};

/// Virtual time in which everything must settle once there is no more trouble.
const SETTLE: Duration = Duration::from_secs(900);

pub(crate) struct World {
    dice: Dice,
    now: Time,
    bus: Bus,
    config: BusConfig,
    shelf: Shelf,
    programs: Vec<Program>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    fates: Fates,
    trace: u64,
}

struct Connection {
    client: usize,
    link: Link,
    peer: Peer,
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
            time_base_ms: 10_000_000_000,
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
            fates: Fates::default(),
            trace: 0,
        };
        world.shelf.max_age_ms = *world.dice.pick(&[None, None, Some(3_000), Some(600_000)]);
        world.fates.may_age = world.shelf.max_age_ms.is_some();
        world.shelf.reopen(Time::ZERO, 1, world.config.time_base_ms);
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
        self.check_last_values();
        self.trace
    }

    fn disturb(&mut self) {
        let short = Duration::from_micros(self.dice.below(5_000));
        let long = Duration::from_micros(self.dice.below(5_000_000));
        let any = self.dice.below(self.connections.len() as u64) as usize;
        let choice = self.dice.below(10);
        match choice {
            9 => return self.shelf.set_clock(&mut self.dice),
            7 => return self.restart_broker(),
            8 => return self.shelf.back_up(),
            _ => {}
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

    /// The broker is killed: what its disk had not committed is gone, and so are all sessions. Now and
    /// then what was committed is, too, and the clock is set.
    fn restart_broker(&mut self) {
        for connection in self.connections.values_mut() {
            connection.link.cut(self.now, Duration::ZERO, Duration::ZERO);
            connection.link.server_learns = None;
            connection.peer.port = None;
        }
        self.shelf.commit(self.now);
        self.fates.deaths += 1;
        match self.dice.below(10) {
            0 => {
                let lost = self.shelf.lose();
                self.swap_disk(&lost, 0);
            }
            1 => {
                if let Some((lost, epoch)) = self.shelf.put_back() {
                    self.swap_disk(&lost, epoch.expect("it is in use from the start"));
                }
            }
            _ => {}
        }
        self.config.epoch += 1;
        self.config.time_base_ms = jump(self.shelf.clock_base_ms(), &mut self.dice);
        let (epoch, time_base_ms) = (self.config.epoch, self.config.time_base_ms);
        self.config.history.recovered = self.shelf.reopen(self.now, epoch, time_base_ms);
        self.bus = Bus::new(self.config.clone());
    }

    /// The disk knows nothing of the runs after `epoch`: whoever was there in one is to be told.
    fn swap_disk(&mut self, lost: &[Record], epoch: u64) {
        self.fates.swaps += 1;
        self.fates.gone.extend(lost.iter().filter_map(named));
        for program in &mut self.programs {
            program.disk_swapped(epoch);
        }
    }

    fn unsettled(&self) -> Option<String> {
        for program in &self.programs {
            let state = program.session.state();
            if state != State::Connected {
                return Some(format!("c{} is {state:?}", program.index));
            }
            if let Some(problem) = program.unsettled() {
                return Some(format!("c{} {problem}", program.index));
            }
            if let Role::Reader { seen, expired, aged, .. } = &program.role {
                let index = program.index;
                let missing = self.fates.published.iter().filter(|token| !seen.contains_key(token));
                let missing = missing.filter(|token| self.fates.is_for(**token, index));
                let mut mortal = Vec::new();
                for token in missing.filter(|token| self.is_kept(**token)) {
                    let is_private = self.fates.private.contains(token);
                    if is_private && (self.fates.deaths > 0 || self.fates.may_age) {
                        // It may have died with a broker, or be too old: its place does not say.
                        continue;
                    }
                    if self.shelf.aged.contains(token) {
                        let untold = !aged && !self.fates.mortal.contains(token);
                        if untold && self.fates.swaps == 0 && self.was_there(program, *token) {
                            return Some(format!("c{index} was not told that {token:?} is gone"));
                        }
                        continue;
                    }
                    if !self.fates.mortal.contains(token) {
                        return Some(format!("c{} misses {token:?}", program.index));
                    }
                    mortal.push(*token);
                }
                if mortal.len() as u64 > *expired {
                    return Some(format!("c{index} misses {mortal:?}, and was told of {expired}"));
                }
            }
        }
        let done = |token: &Token| {
            self.programs.iter().any(|program| {
                matches!(&program.role, Role::Worker { done, .. } if done.contains_key(token))
            }) || self.is_dead(*token)
        };
        if self.bus.uncommitted() > 0 {
            return Some("the disk is not done".into());
        }
        let mut immortal = self.fates.published.difference(&self.fates.mortal);
        let open = immortal.find(|token| {
            let is_for_all = !self.fates.to.contains_key(token);
            !done(token) && is_for_all && self.is_kept(**token) && !self.shelf.aged.contains(token)
        });
        open.map(|token| format!("{token:?} is not done"))
    }

    /// Whether the disk must have it: it was not lost, or was sent again since.
    fn is_kept(&self, wanted: Token) -> bool {
        !self.fates.gone.contains(&wanted)
            || self
                .shelf
                .records()
                .iter()
                .any(|record| record.topic.starts_with("h.") && named(record) == Some(wanted))
    }

    fn is_dead(&self, wanted: Token) -> bool {
        self.shelf
            .records()
            .iter()
            .any(|record| record.topic.starts_with("kps.dead.") && named(record) == Some(wanted))
    }

    /// Whether a reader has something older than this message.
    fn was_there(&self, reader: &Program, token: Token) -> bool {
        let Role::Reader { seen, .. } = &reader.role else { return false };
        let position = |token: &Token| self.shelf.positions.get(token).copied();
        seen.keys().filter_map(position).any(|seen| Some(seen) < position(&token))
    }

    fn check(&self) {
        let mut stored: BTreeMap<Token, usize> = BTreeMap::new();
        for record in self.shelf.records().iter().filter(|record| record.topic.starts_with("h.")) {
            if let Some(token) = named(record) {
                *stored.entry(token).or_default() += 1;
            }
        }
        for record in self.shelf.records() {
            self.check_to(record);
        }
        for (token, count) in &stored {
            assert_eq!(*count, 1, "{token:?} is stored {count} times");
        }
        for token in &self.fates.published {
            let is_lost = self.fates.gone.contains(token) || self.shelf.aged.contains(token);
            let is_private = self.fates.private.contains(token);
            assert!(!(is_private && stored.contains_key(token)), "{token:?} is stored");
            let is_safe = is_lost || is_private || stored.contains_key(token);
            assert!(is_safe, "{token:?} is not stored");
        }
        for token in stored.keys().filter(|token| !self.fates.published.contains(token)) {
            assert!(self.fates.dropped.contains(token), "{token:?} was not published");
        }
        assert!(self.bus.ledger().is_balanced(), "{:?}", self.bus.ledger());
    }

    /// It says who may have the message, as its publisher did; so does a dead letter, and a private one's
    /// place.
    fn check_to(&self, record: &Record) {
        let place = (record.epoch, record.topic.clone(), record.seq);
        let Some(token) = named(record).or_else(|| self.fates.places.get(&place).copied()) else {
            return;
        };
        let names = |to: &Vec<usize>| to.iter().map(|client| format!("c{client}")).collect();
        let wanted: Option<Vec<String>> = self.fates.to.get(&token).map(names);
        let to = record.extras.as_ref().and_then(|extras| extras.to.clone());
        assert_eq!(to, wanted, "who may have {token:?} of {}", record.topic);
    }

    /// Who comes now and asks for the last values gets what was retained last, or the newest message.
    fn check_last_values(&mut self) {
        let index = self.programs.len();
        self.shelf.max_age_ms = None;
        // Short times to live are over.
        self.run_until(self.now + Duration::from_secs(4), |_| false);
        self.programs.push(Program::new(index, 3, &mut self.dice));
        let asked = self.now;
        self.run_until(asked + Duration::from_secs(3), |_| false);
        let witness = self.programs.last().expect("it is there");
        let Role::Witness { got } = &witness.role else { panic!("it is a witness") };
        for topic in TOPICS {
            let got = got.get(topic).copied();
            // A time to live may have ended since it asked.
            let wanted = [asked, self.now].map(|then| self.last_value(topic, then));
            let retained = self.shelf.retained(topic);
            assert!(
                wanted.contains(&got),
                "{topic} has {wanted:?}, got {got:?}; retained: {retained:?}"
            );
            let is_sure = self.fates.swaps == 0
                && !self.fates.unsure.contains(topic)
                && (topic.starts_with("h.") || self.fates.deaths == 0);
            if is_sure {
                let published = self.fates.last_retained(topic);
                match self.shelf.retained(topic).and_then(named) {
                    None => assert!(published.is_empty(), "{topic}: {published:?} is not retained"),
                    Some((publisher, number)) => assert_eq!(
                        published.get(&publisher),
                        Some(&number),
                        "{topic} retains {number} of c{publisher}"
                    ),
                }
            }
        }
    }

    /// What a client that was not there before must get as a topic's last value.
    fn last_value(&self, topic: &str, then: Time) -> Option<Token> {
        let retained = self.shelf.retained(topic);
        let newest = self.shelf.records().iter().rev().find(|record| &*record.topic == topic);
        let now_ms = self.config.time_base_ms + then.as_micros() / 1000;
        let is_for_it = |record: &&Record| {
            let extras = record.extras.clone().unwrap_or_default();
            let is_over = record.expires_ms.is_some_and(|expires| expires <= now_ms);
            !(is_over || extras.private || extras.to.is_some() || extras.offline == Offline::Drop)
        };
        let age = |record: &Record| (record.epoch, record.seq);
        let newest = newest.filter(is_for_it);
        let newest = newest.filter(|newest| retained.is_none_or(|it| age(it) < age(newest)));
        newest.or(retained).and_then(named)
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
        self.bus.retained_stored(self.now, self.shelf.retained_count);
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
        let clients = self.programs.len();
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
        program.take(events, self.config.epoch, &mut self.fates);
        program.act(self.now, &mut self.dice, &mut self.fates, clients);
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
