//! A document and a hundred who write it, in virtual time: lines that are slow and break, a server that
//! crashes, a store that fails for a while. Everything comes from a seed.
//!
//! `KPS_DOCUMENT_SEEDS=1000 cargo test -p kps --lib document::tests::world -- --nocapture` runs that many.

mod client;
mod truth;

use std::collections::{BTreeMap, VecDeque};

use self::{
    client::{Client, Heard},
    truth::Truth,
};
use super::{super::engine::Kind, *};

/// What a world is like.
#[derive(Clone, Copy)]
struct Plan {
    clients: usize,
    /// Operations of each.
    operations: usize,
    /// Between two operations of one client, at most, in milliseconds.
    pause: u64,
    /// One way, at most, in milliseconds.
    latency: u64,
    /// Whether they also delete; without it the text has every letter in the end.
    deletes: bool,
    /// Between two crashes, about, in milliseconds; 0: none.
    crashes: u64,
    /// Between two lost lines, about, in milliseconds; 0: none.
    cuts: u64,
    /// Between two failures of the store, about, in milliseconds; 0: none.
    failures: u64,
    /// The first one is far away and streams text to the end, a bit at a time.
    streams: bool,
}

const CALM: Plan = Plan {
    clients: 100,
    operations: 100,
    pause: 400,
    latency: 60,
    deletes: true,
    crashes: 0,
    cuts: 0,
    failures: 0,
    streams: false,
};

enum Step {
    Write(usize),
    Send(usize),
    /// A batch arrives at the server, on a line.
    Asked(usize, u32, serde_json::Value),
    Hear(usize),
    /// A client has a line again.
    Back(usize),
    Cut(usize),
    Crash,
    Fail,
    Heal,
    Look,
}

struct World {
    plan: Plan,
    room: Room,
    random: Random,
    steps: BTreeMap<(u64, u64), Step>,
    last_step: u64,
    /// Steps that are more than waiting for something to go wrong.
    work: usize,
    clients: Vec<Client>,
    truth: Truth,
    last_op: usize,
    is_failing: bool,
}

impl World {
    async fn run(seed: u64, plan: Plan) -> Truth {
        let mut world = World::new(seed, plan).await;
        while let Some(((at, _), step)) = world.steps.pop_first() {
            world.room.clock.store(at, Ordering::Relaxed);
            world.work -= usize::from(step.is_work());
            world.step(step).await;
            if world.work == 0 && world.is_settled() {
                break;
            }
        }
        world.finish().await;
        world.truth
    }

    async fn new(seed: u64, plan: Plan) -> World {
        let limits =
            Arc::new(Limits { history: 1_000_000, history_bytes: 1 << 30, ..Limits::default() });
        let room = Room::with(DocumentOptions { limits, ..DocumentOptions::default() });
        room.open().await;
        let mut world = World {
            plan,
            room,
            random: Random(seed),
            steps: BTreeMap::new(),
            last_step: 0,
            work: 0,
            clients: Vec::new(),
            truth: Truth::default(),
            last_op: 0,
            is_failing: false,
        };
        for number in 0..plan.clients {
            let is_far = plan.streams && number == 0;
            let latency =
                if is_far { plan.latency * 4 } else { world.random.below(plan.latency) + 1 };
            world.clients.push(Client::new(number, latency, plan.operations));
            world.after(0, Step::Back(number));
            if plan.cuts > 0 {
                world.sometime(plan.cuts, Step::Cut(number));
            }
        }
        world.after(500, Step::Look);
        for (every, step) in [(plan.crashes, Step::Crash), (plan.failures, Step::Fail)] {
            if every > 0 {
                world.sometime(every, step);
            }
        }
        world
    }

    fn now(&self) -> u64 {
        self.room.clock.load(Ordering::Relaxed)
    }

    fn after(&mut self, pause: u64, step: Step) {
        self.last_step += 1;
        self.work += usize::from(step.is_work());
        self.steps.insert((self.now() + pause, self.last_step), step);
    }

    fn sometime(&mut self, about: u64, step: Step) {
        let pause = self.random.below(2 * about) + 1;
        self.after(pause, step);
    }

    fn is_settled(&self) -> bool {
        let is_done = |it: &Client| it.left == 0 && it.inbox.is_empty() && it.count_pending() == 0;
        !self.is_failing && self.clients.iter().all(is_done)
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Write(client) => self.write(client),
            Step::Send(client) => self.send(client),
            Step::Asked(client, line, payload) => self.asked(client, line, payload).await,
            Step::Hear(client) => self.hear(client).await,
            Step::Back(client) => self.back(client).await,
            Step::Cut(client) => {
                self.cut(client);
                self.sometime(self.plan.cuts, Step::Cut(client));
            }
            Step::Crash => {
                self.crash().await;
                self.sometime(self.plan.crashes, Step::Crash);
            }
            Step::Fail => {
                self.is_failing = true;
                self.room.fail(|it| it.write = Some(ErrorKind::StoreFailed));
                let pause = self.random.below(8_000);
                self.after(pause, Step::Heal);
            }
            Step::Heal => {
                self.is_failing = false;
                self.room.fail(|it| it.write = None);
                self.truth.healed(self.now());
                self.sometime(self.plan.failures, Step::Fail);
            }
            Step::Look => {
                self.room.documents.tick().await;
                self.tell();
                self.after(500, Step::Look);
            }
        }
    }

    fn write(&mut self, number: usize) {
        self.last_op += 1;
        let is_stream = self.plan.streams && number == 0;
        let client = &mut self.clients[number];
        if client.is_open() {
            let op_id = client.write(self.last_op, self.plan.deletes, is_stream, &mut self.random);
            self.truth.written(op_id, number);
            client.left -= 1;
            self.send(number);
        }
        if self.clients[number].left > 0 {
            let pause = if is_stream { 100 } else { self.random.below(self.plan.pause) };
            self.after(pause, Step::Write(number));
        }
    }

    fn send(&mut self, number: usize) {
        let now = self.now();
        let client = &mut self.clients[number];
        if !client.is_connected {
            return;
        }
        if let Some(until) = client.waits_until(now) {
            if client.wakes_at < until {
                client.wakes_at = until;
                self.after(until - now, Step::Send(number));
            }
            return;
        }
        if let Some(payload) = client.outgoing() {
            let (line, latency) = (client.line, client.latency);
            self.after(latency, Step::Asked(number, line, payload));
        }
    }

    async fn asked(&mut self, number: usize, line: u32, payload: serde_json::Value) {
        if self.clients[number].line != line {
            // It was lost with its line; another time only the answer is.
            return;
        }
        let outcome = self.room.call("edit_batch", payload).await;
        self.settle().await;
        self.tell();
        if let Err(failure) = outcome {
            assert!(failure.kind == ErrorKind::StoreFailed, "{failure}");
            self.clients[number].refused();
            self.after(200, Step::Send(number));
        }
    }

    /// What is due is stored by the room itself: until that is done time stands still.
    async fn settle(&self) {
        let slot = self.room.documents.0.open.lock().values().next().cloned();
        let Some(slot) = slot else { return };
        let is_due = || {
            let desk = slot.desk.lock();
            let desk = desk.as_ref();
            desk.is_some_and(|it| {
                it.failing().is_none() && it.is_due(&self.room.documents.0.options)
            })
        };
        while is_due() {
            tokio::task::yield_now().await;
        }
    }

    /// What the server told goes to everybody who has a line.
    fn tell(&mut self) {
        let told = std::mem::take(&mut *self.room.told.lock());
        let now = self.now();
        for event in told {
            self.truth.told(&event, now);
            let event = Arc::new(event);
            for number in 0..self.clients.len() {
                let client = &mut self.clients[number];
                if !client.is_connected {
                    continue;
                }
                let is_first = client.inbox.is_empty();
                client.inbox.push_back(Heard { at: now + client.latency, event: event.clone() });
                if is_first {
                    let latency = client.latency;
                    self.after(latency, Step::Hear(number));
                }
            }
        }
    }

    async fn hear(&mut self, number: usize) {
        let now = self.now();
        let client = &mut self.clients[number];
        let mut is_lost = false;
        while client.inbox.front().is_some_and(|heard| heard.at <= now)
            && let Some(heard) = client.inbox.pop_front()
        {
            is_lost |= client.hear(&heard.event, now, &mut self.truth);
        }
        let next = client.inbox.front().map(|heard| heard.at - now);
        if let Some(pause) = next {
            self.after(pause, Step::Hear(number));
        }
        if is_lost {
            self.back(number).await;
        }
        self.send(number);
    }

    /// A client opens the document, again with what it knows.
    async fn back(&mut self, number: usize) {
        let known = self.clients[number].known();
        let (lineage, versions) = known.unzip();
        let asked =
            serde_json::json!({"id": "d", "kind": "text", "lineage": lineage, "known": versions});
        let answer = self.room.ok("open", asked).await;
        let text = self.content(&answer).await;
        let client = &mut self.clients[number];
        let is_new = !client.is_open();
        let is_in_step = client.opened(&answer, text, &mut self.truth);
        assert!(is_in_step, "what is opened is in step");
        if is_new {
            let pause = self.random.below(self.plan.pause);
            self.after(pause, Step::Write(number));
        }
        self.send(number);
    }

    async fn content(&self, answer: &serde_json::Value) -> Option<String> {
        let first = answer.get("text").or(answer.get("part"))?;
        let mut text = first.as_str()?.to_owned();
        let mut next = answer.get("next").cloned().unwrap_or_default();
        while !next.is_null() {
            let asked =
                serde_json::json!({"id": "d", "version": answer["version"], "offset": next});
            let part = self.room.ok("read", asked).await;
            text.push_str(part["part"].as_str()?);
            next = part["next"].clone();
        }
        Some(text)
    }

    fn cut(&mut self, number: usize) {
        if std::mem::take(&mut self.clients[number].is_connected) {
            self.clients[number].cut();
            let pause = self.random.below(3_000);
            self.after(pause, Step::Back(number));
        }
    }

    /// The server is gone with all that it did not store, and there again at once.
    async fn crash(&mut self) {
        self.settle().await;
        self.tell();
        for number in 0..self.clients.len() {
            self.cut(number);
        }
        let room = std::mem::replace(&mut self.room, Room::new());
        self.room = room.again();
        self.room.open().await;
        let there = self.there();
        self.truth.crashed(&there, self.now(), self.is_failing, &self.clients);
    }

    /// The operations that are in the document.
    fn there(&self) -> Vec<Arc<str>> {
        let slot = self.room.documents.0.open.lock().values().next().cloned().unwrap();
        let desk = slot.desk.lock();
        let desk = desk.as_ref().unwrap();
        assert_eq!(desk.document.kind(), Kind::Text);
        desk.document.operations().map(|applied| applied.op_id.clone()).collect()
    }

    async fn finish(&mut self) {
        self.room.ok("close", serde_json::json!({"id": "d"})).await;
        self.tell();
        let answer = self.room.ok("open", serde_json::json!({"id": "d", "kind": "text"})).await;
        let text = self.content(&answer).await.unwrap();
        for number in 0..self.clients.len() {
            // Whoever has no line gets one.
            self.back(number).await;
            let client = &mut self.clients[number];
            let inbox: VecDeque<Heard> = std::mem::take(&mut client.inbox);
            for heard in inbox {
                client.hear(&heard.event, u64::MAX / 2, &mut self.truth);
            }
            assert!(client.text() == text, "{number} has another text");
            assert_eq!(client.unsynced().count(), 0, "all is stored, and {number} knows");
        }
        let there = self.there();
        self.truth.check(&there);
        if !self.plan.deletes {
            self.truth.check_letters(&text);
        }
    }
}

impl Step {
    fn is_work(&self) -> bool {
        !matches!(self, Step::Cut(_) | Step::Crash | Step::Fail | Step::Look)
    }
}

/// Numbers that depend on a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

fn is_long() -> bool {
    std::env::var_os("KPS_DOCUMENT_SEEDS").is_some()
}

/// Runs as many seeds as are asked for, `default` otherwise.
async fn seeds(default: u64, first: u64, plan: impl Fn(u64) -> Plan) {
    let asked = std::env::var("KPS_DOCUMENT_SEEDS").ok().and_then(|text| text.parse().ok());
    let one = std::env::var("KPS_DOCUMENT_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => first..first + asked.unwrap_or(default),
    };
    for seed in seeds {
        let started = std::time::Instant::now();
        let truth = World::run(seed, plan(seed)).await;
        eprintln!("seed {seed}: {truth} in {:.1?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_hundred_who_write_ten_thousand_operations_come_to_one_text() {
    // All ten thousand take minutes without optimization: they are in the long form.
    let operations = if is_long() { 100 } else { 20 };
    seeds(1, 1, |_| Plan { operations, ..CALM }).await;
}

#[tokio::test]
async fn crashes_lose_little_and_those_who_wrote_it_send_it_again() {
    let plan = |seed| Plan {
        clients: 3 + (seed % 10) as usize,
        operations: 150,
        deletes: seed % 2 == 0,
        crashes: 4_000,
        cuts: 5_000,
        failures: if seed % 3 == 0 { 10_000 } else { 0 },
        ..CALM
    };
    seeds(6, 100, plan).await;
}

#[tokio::test]
async fn one_who_streams_from_far_away_gets_its_text_in_among_ten_who_write_all_the_time() {
    let plan = Plan {
        clients: 11,
        operations: 150,
        pause: 150,
        latency: 40,
        deletes: false,
        streams: true,
        ..CALM
    };
    let truth = World::run(7, plan).await;
    eprintln!("{truth}");
    assert!(truth.most_conflicts <= 15, "{truth}");
}
