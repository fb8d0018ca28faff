//! One run: clients, links and a broker in virtual time.

use std::{collections::BTreeMap, time::Duration};

use bytes::BytesMut;
use kps_proto::{
    ErrorKind,
    bus::{Attach, Bus, BusConfig, Output, PortId, PortKind, Principal},
    clock::Time,
    message::ContentType,
    options::{Limits, OutboxOverflow, Timings},
    session::{Backoff, Events, OutboxBounds, Session, SessionConfig},
    wire::frame::{AnswerFrame, Destination, Extensions, Frame, Name, Publish, Subscribe},
};

use crate::{
    app::{App, TOPICS},
    clock::jump,
    link::Link,
    random::Dice,
    server::{Peer, Told, fatal},
    truth::Truth,
};

/// Virtual time in which everything must settle once the network is well.
const SETTLE: Duration = Duration::from_secs(600);

pub(crate) const OUTBOX_OVERFLOWS: [OutboxOverflow; 2] =
    [OutboxOverflow::Refuse, OutboxOverflow::DropOldest];

pub(crate) struct World {
    dice: Dice,
    now: Time,
    bus: Bus,
    config: BusConfig,
    apps: Vec<App>,
    /// By number; a client's newest is its own.
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    spy: Spy,
    truth: Truth,
    /// While the network is down, nobody can connect.
    down_until: Time,
    trouble: bool,
    trace: u64,
}

struct Connection {
    client: usize,
    link: Link,
    peer: Peer,
}

/// Subscribes to everything watched, at the bus itself, and answers at once.
struct Spy {
    port: PortId,
    consumed: u64,
    answered: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed);
        let config = config(&mut dice, 1);
        let mut bus = Bus::new(config.clone());
        let spy = Spy::attach(&mut bus, Time::ZERO);
        let clients = dice.between(1, 4) as usize;
        let apps = (0..clients)
            .map(|index| {
                let id = format!("c{index}");
                let soft_bytes = *dice.pick(&[2_000, 8 << 20]);
                let config = SessionConfig {
                    id: Some(id.clone()),
                    outbox: OutboxBounds {
                        soft_bytes,
                        hard_bytes: 4 * soft_bytes,
                        hard_messages: *dice.pick(&[1 << 19, 1 << 19, 40, 3]),
                        overflow: *dice.pick(&OUTBOX_OVERFLOWS),
                    },
                    backoff: Backoff {
                        reconnect: true,
                        min: Duration::from_millis(20),
                        max: Duration::from_millis(500),
                    },
                    ..SessionConfig::default()
                };
                App::new(index, id, Session::new(config, dice.next()))
            })
            .collect();
        World {
            dice,
            now: Time::ZERO,
            bus,
            config,
            apps,
            connections: BTreeMap::new(),
            next_connection: 0,
            spy,
            truth: Truth::default(),
            down_until: Time::ZERO,
            trouble: true,
            trace: 0,
        }
    }

    /// Runs to the end and checks; returns a number that the same seed always gives.
    pub(crate) fn run(mut self) -> u64 {
        let operations = self.dice.between(20, 150);
        for _ in 0..operations {
            let pause = *self.dice.pick(&[0, 500, 10_000, 50_000, 300_000]);
            let next = self.now + Duration::from_micros(self.dice.below(pause + 1));
            self.run_until(next, |_| false);
            let ledger = self.bus.ledger();
            assert!(ledger.is_balanced(), "{ledger:?}");
            if self.dice.chance(8) {
                self.disturb();
            } else {
                self.operate();
            }
        }
        self.settle();
        self.leave();
        self.trace
    }

    fn operate(&mut self) {
        let client = self.dice.below(self.apps.len() as u64) as usize;
        let clients = self.apps.len();
        self.apps[client].operate(self.now, &mut self.dice, &mut self.truth, clients);
        self.flush_client(client);
    }

    fn disturb(&mut self) {
        let short = Duration::from_micros(self.dice.below(5_000));
        let long = Duration::from_micros(self.dice.below(3_000_000));
        let any = self.dice.below(self.connections.len() as u64) as usize;
        let Some(connection) = self.connections.values_mut().nth(any) else { return };
        match self.dice.below(10) {
            0..2 => connection.link.up.stall(self.now + long),
            2..4 => connection.link.down.stall(self.now + long),
            4..6 => connection.link.cut(self.now, short, short),
            6 => connection.link.cut(self.now, short, long),
            7 => connection.link.cut(self.now, long, short),
            8 => {
                // Long enough for sessions to expire, now and then.
                let outage = Duration::from_micros(self.dice.below(6_000_000));
                self.down_until = self.now + outage;
                for connection in self.connections.values_mut() {
                    connection.link.cut(self.now, short, short);
                }
            }
            _ => self.restart_broker(),
        }
    }

    /// The broker dies with all it knew, and another one begins.
    fn restart_broker(&mut self) {
        for connection in self.connections.values_mut() {
            connection.link.cut(self.now, Duration::ZERO, Duration::ZERO);
            connection.link.server_learns = None;
        }
        self.config.epoch += 1;
        self.config.time_base_ms = jump(self.config.time_base_ms, &mut self.dice);
        self.bus = Bus::new(self.config.clone());
        self.spy = Spy::attach(&mut self.bus, self.now);
        self.truth.restart();
        for connection in self.connections.values_mut() {
            connection.peer.port = None;
        }
    }

    fn settle(&mut self) {
        self.trouble = false;
        self.down_until = self.now;
        for app in &mut self.apps {
            app.hurry(self.now, &mut self.dice, &mut self.truth);
        }
        let end = self.now + SETTLE;
        self.run_until(end, |world| world.apps.iter().all(|app| app.unsettled().is_none()));
        for app in &self.apps {
            if let Some(problem) = app.unsettled() {
                panic!("it does not settle: {problem}");
            }
        }
        // Gaps under way; credit that may be told late.
        self.run_until(self.now + Duration::from_secs(8), |_| false);
        let rest = self.now + SETTLE;
        self.run_until(rest, |world| world.bus.ledger().pending == 0);
        self.truth.check_outcomes();
        for app in &self.apps {
            app.check_streams(&self.truth);
        }
        let ledger = self.bus.ledger();
        assert!(ledger.is_balanced(), "{ledger:?}");
        assert_eq!(ledger.pending, 0, "{ledger:?}");
    }

    fn leave(&mut self) {
        for client in 0..self.apps.len() {
            self.apps[client].unsubscribe_all(self.now, &mut self.dice, &mut self.truth);
            self.flush_client(client);
        }
        let end = self.now + SETTLE;
        self.run_until(end, |world| world.apps.iter().all(|app| app.unsettled().is_none()));
        let rest = self.now + Duration::from_secs(3);
        self.run_until(rest, |_| false);
        for app in &mut self.apps {
            let report = app.session.close(self.now, &mut Events::new());
            assert!(report.abandoned.is_empty());
            assert_eq!(app.session.ledger().subscriptions.len(), 1, "the direct messages'");
        }
        self.spy.clear_retained(&mut self.bus, self.now);
        let ports = self.connections.values().filter_map(|connection| connection.peer.port);
        for port in ports.chain([self.spy.port]) {
            self.bus.detach(self.now, port, false);
        }
        while let Some(deadline) = self.bus.deadline() {
            self.now = self.now.max(deadline);
            self.bus.tick(self.now);
        }
        assert!(self.bus.is_empty(), "{:#?}", self.bus);
        assert!(self.bus.ledger().is_balanced());
        self.bus.take_notices().for_each(drop);
        assert_eq!(self.bus.memory(), 0);
    }

    fn run_until(&mut self, end: Time, done: impl Fn(&World) -> bool) {
        let mut steps = 0;
        while !done(self) {
            let apps =
                self.apps.iter().flat_map(|app| [app.deadline(), app.session.deadline()]).flatten();
            let links = self.connections.values().filter_map(|connection| connection.link.next());
            let next = apps.chain(links).chain(self.bus.deadline()).min();
            match next {
                Some(next) if next <= end => {
                    steps = if next <= self.now { steps + 1 } else { 0 };
                    self.now = self.now.max(next);
                }
                _ => break,
            }
            assert!(steps < 10_000, "time stands still: {}", self.who_hurries());
            self.step();
        }
        if !done(self) {
            self.now = self.now.max(end);
        }
    }

    /// Whose deadline is now.
    fn who_hurries(&self) -> String {
        let due = |deadline: Option<Time>| deadline.is_some_and(|at| at <= self.now);
        let mut who = String::new();
        for app in &self.apps {
            if due(app.deadline()) {
                who += &format!("the program of {}, ", app.id);
            }
            if due(app.session.deadline()) {
                who += &format!("the session of {} ({:?}), ", app.id, app.session.state());
            }
        }
        for (number, Connection { client, link, .. }) in &self.connections {
            if due(link.next()) {
                who += &format!("connection {number} of c{client}, ");
            }
        }
        if due(self.bus.deadline()) {
            who += "the bus";
        }
        who
    }

    fn step(&mut self) {
        self.trace = self.trace.rotate_left(5) ^ self.now.as_micros();
        self.bus.tick(self.now);
        for number in self.connections.keys().copied().collect::<Vec<_>>() {
            self.serve(number);
        }
        self.flush_bus();
        for client in 0..self.apps.len() {
            self.drive_client(client);
        }
        self.connections.retain(|_, connection| {
            let link = &connection.link;
            !(link.is_cut && link.client_learns.is_none() && link.server_learns.is_none())
        });
    }

    /// The server's side of a connection.
    fn serve(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let Connection { client, link, peer } = connection;
        let client = *client;
        while let Some(message) = link.up.receive(self.now) {
            self.trace = self.trace.rotate_left(5) ^ message.len() as u64;
            crate::trace(self.now, format_args!("c{client} → bus"), &message);
            let mut replies = BytesMut::new();
            let (truth, spy, now) = (&mut self.truth, &mut self.spy, self.now);
            let taken = peer.receive(
                &mut self.bus,
                now,
                &message,
                &mut self.dice,
                &mut replies,
                |told, bus| match told {
                    Told::Attached { received, lost } => {
                        truth.losses += usize::from(lost);
                        truth.starts.retain(|(who, sub), _| {
                            *who != client || received.iter().any(|(kept, _)| kept == sub)
                        });
                    }
                    Told::Subscribe { sub } => {
                        spy.look(bus, now, truth);
                        truth.subscribed(client, sub);
                    }
                },
            );
            if !replies.is_empty() {
                link.down.send(self.now, replies.freeze());
            }
            if let Err(error) = taken {
                // It was told to close the connection before.
                assert_eq!(error.kind(), ErrorKind::Closed, "c{client}: {error}");
                link.server_learns = Some(self.now);
            }
            self.spy.look(&mut self.bus, self.now, &mut self.truth);
        }
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.link.server_learns.is_some_and(|at| at <= self.now) {
            connection.link.server_learns = None;
            if let Some(port) = connection.peer.port.take() {
                self.bus.detach(self.now, port, true);
            }
            if !connection.link.is_cut {
                connection.link.cut(self.now, Duration::ZERO, Duration::ZERO);
                connection.link.server_learns = None;
            }
        }
    }

    /// Pulls what the bus has for whoever can take it.
    fn flush_bus(&mut self) {
        self.spy.look(&mut self.bus, self.now, &mut self.truth);
        let mut ready = Vec::new();
        self.bus.take_ready(&mut ready);
        for connection in self.connections.values_mut() {
            let Connection { link, peer, .. } = connection;
            peer.waits |= peer.port.is_some_and(|port| ready.contains(&port));
            while peer.waits && link.down.has_room() {
                let max = *self.dice.pick(&[100, 4_000, 64_000]);
                let (message, closed) = peer.pull(&mut self.bus, self.now, max);
                if !message.is_empty() {
                    self.trace = self.trace.rotate_left(5) ^ message.len() as u64;
                    link.down.send(self.now, message);
                }
                if let Some(error) = closed {
                    link.down.send(self.now, fatal(&error));
                    peer.waits = false;
                    link.server_learns = Some(self.now);
                }
            }
        }
    }

    /// The client's side: the driver around its session, and its program.
    fn drive_client(&mut self, client: usize) {
        let own = self.connections.iter().rev().find(|(_, other)| other.client == client);
        let own = own.map(|(number, _)| *number);
        for (number, connection) in &mut self.connections {
            if connection.client == client && Some(*number) != own {
                connection.link.forget();
            }
        }
        let app = &mut self.apps[client];
        let mut events = Events::new();
        let mut lost = None;
        if let Some(connection) = own.and_then(|number| self.connections.get_mut(&number)) {
            let Connection { link, .. } = connection;
            if link.client_learns.is_some_and(|at| at <= self.now) {
                lost = Some(None);
            }
            while lost.is_none()
                && let Some(message) = link.down.receive(self.now)
            {
                crate::trace(self.now, format_args!("bus → {}", app.id), &message);
                if let Err(error) = app.session.receive_shared(self.now, &message, &mut events) {
                    assert!(self.trouble, "the client gives up: {error}");
                    lost = Some(Some(error));
                }
            }
        }
        if lost.is_none()
            && let Err(error) = app.session.tick(self.now, &mut events)
        {
            lost = Some(Some(error));
        }
        if let Some(error) = lost {
            app.session.disconnected(self.now, error, &mut events);
            if let Some(connection) = own.and_then(|number| self.connections.get_mut(&number)) {
                let late = Duration::from_micros(self.dice.below(1_000_000));
                if !connection.link.is_cut {
                    connection.link.cut(self.now, Duration::ZERO, late);
                }
                connection.link.client_learns = None;
            }
        }
        app.take(self.now, events, &mut self.dice, &mut self.truth);
        app.act(self.now, &mut self.dice, &mut self.truth);
        if app.session.should_connect(self.now) {
            self.connect(client);
        }
        self.flush_client(client);
    }

    fn connect(&mut self, client: usize) {
        let app = &mut self.apps[client];
        if self.now < self.down_until {
            let mut events = Events::new();
            app.session.disconnected(self.now, None, &mut events);
            app.take(self.now, events, &mut self.dice, &mut self.truth);
            return;
        }
        app.session.connected(self.now);
        let connection = Connection {
            client,
            link: Link::new(&mut self.dice),
            peer: Peer::new(self.config.limits.aliases as u32),
        };
        self.connections.insert(self.next_connection, connection);
        self.next_connection += 1;
    }

    fn flush_client(&mut self, client: usize) {
        let own = self.connections.values_mut().rev().find(|other| other.client == client);
        let Some(connection) = own else { return };
        let session = &mut self.apps[client].session;
        while session.has_output() && connection.link.up.has_room() {
            let max = *self.dice.pick(&[50, 2_000, 64_000]);
            let mut out = BytesMut::new();
            let more = session.transmit(self.now, max, &mut out);
            if out.is_empty() {
                // What it had to say was about something that ended meanwhile.
                assert!(!more, "it has something to say and does not say it");
                return;
            }
            self.trace = self.trace.rotate_left(5) ^ out.len() as u64;
            connection.link.up.send(self.now, out.freeze());
        }
    }
}

impl Spy {
    fn attach(bus: &mut Bus, now: Time) -> Spy {
        let attached = bus
            .attach(
                now,
                Attach {
                    principal: Principal::default(),
                    kind: PortKind::Native,
                    client_id: "spy",
                    origin: "spy",
                    session: &[],
                    received: &[],
                    entropy: [7; 24],
                },
            )
            .expect("the first one there");
        let subscribe = Subscribe {
            sub: 1,
            pattern: "t.>",
            window: u32::MAX,
            window_bytes: 1 << 40,
            ..Subscribe::default()
        };
        bus.handle(now, attached.port, &Frame::Subscribe(subscribe)).expect("a good pattern");
        Spy { port: attached.port, consumed: 0, answered: 0 }
    }

    /// Ends every topic's retained message.
    fn clear_retained(&self, bus: &mut Bus, now: Time) {
        for (number, topic) in (1..).zip(TOPICS) {
            let extensions = Extensions { retained: true, ..Extensions::default() };
            let publish = Publish {
                number,
                to: Destination::Topic(Name::Inline(topic)),
                ack: false,
                request: false,
                prompt: false,
                maybe_duplicate: false,
                content_type: ContentType::Text,
                extensions: Some(Box::new(extensions)),
                payload: &[],
            };
            bus.handle(now, self.port, &Frame::Publish(publish)).expect("its turn");
        }
        assert_eq!(bus.retained(now), 0);
    }

    fn look(&mut self, bus: &mut Bus, now: Time, truth: &mut Truth) {
        loop {
            let mut outputs = Vec::new();
            bus.pull(now, self.port, usize::MAX, &mut outputs);
            let before = (self.consumed, self.answered);
            for output in outputs {
                match output {
                    Output::Deliver { sub: 1, published, delivery } => {
                        self.consumed += 1;
                        let own = published.extras.as_ref().and_then(|extras| extras.id.clone());
                        let id = own.unwrap_or_else(|| {
                            format!("{}-{}", published.sender.origin, published.number)
                        });
                        truth.accepted(
                            &published.topic,
                            published.seq,
                            &id,
                            &published.payload.bytes,
                            published.maybe_duplicate,
                        );
                        if let Some(delivery) = delivery {
                            self.answered += 1;
                            let answer = AnswerFrame {
                                number: self.answered,
                                delivery,
                                more: false,
                                status: kps_proto::message::RowStatus::NoHandler,
                                error: None,
                                data: None,
                                retry_delay_ms: None,
                            };
                            bus.handle(now, self.port, &Frame::Answer(answer)).expect("its turn");
                        }
                    }
                    Output::Gap { gap, .. } => {
                        // Only what ran out of time at once is missing here.
                        self.consumed += 1;
                        assert_eq!(gap.reason, kps_proto::message::GapReason::Expired);
                        truth.expired(&gap);
                    }
                    Output::Error { error, .. } => panic!("the spy is told {error}"),
                    _ => {}
                }
            }
            if before == (self.consumed, self.answered) {
                return;
            }
            let credit = Frame::Credit { sub: 1, consumed: self.consumed };
            bus.handle(now, self.port, &credit).expect("its own subscription");
        }
    }
}

fn config(dice: &mut Dice, epoch: u64) -> BusConfig {
    BusConfig {
        limits: Limits {
            queue_bytes: *dice.pick(&[5_000, 32 << 20]),
            aliases: *dice.pick(&[0, 2, 100]),
            publish_window: *dice.pick(&[4, 50, 65_536]),
            publish_window_bytes: *dice.pick(&[8_000, 8 << 20]),
            ..Limits::default()
        },
        timings: Timings {
            heartbeat: Duration::from_millis(500),
            silence: Duration::from_millis(1250),
            resume_window: Duration::from_secs(3),
            stall_timeout: Duration::from_secs(1),
            self_stall_timeout: Duration::from_millis(300),
            ..Timings::default()
        },
        epoch,
        time_base_ms: 10_000_000_000,
        ..BusConfig::default()
    }
}
