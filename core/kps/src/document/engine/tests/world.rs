use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

use proptest::prelude::*;

use super::super::*;

/// A server's document, what is stored of it, and clients.
struct World {
    document: Document,
    stored: (Vec<u8>, Vec<u8>),
    checkpointed: Version,
    limits: Arc<Limits>,
    clients: Vec<Client>,
    on_its_way: Vec<Vec<Outgoing>>,
    last_op: usize,
    /// No version above it was told.
    last_told: u64,
    /// Per operation the safest level its client was told.
    told: BTreeMap<Arc<str>, Level>,
    failed: HashSet<Arc<str>>,
}

struct Client {
    replica: Replica,
    inbox: VecDeque<Heard>,
    /// What is told goes nowhere, until it is back.
    is_away: bool,
    /// It has to open the document again.
    is_lost: bool,
    /// What it was told when it asked for the document, and has not looked at.
    answer: Option<Vec<Opened>>,
}

#[derive(Clone)]
enum Heard {
    Event(DocumentEvent),
    /// There is another server now, and nobody knows what is missing.
    Gap,
    /// Messages of the same server are missing.
    Overflow,
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        client: usize,
        at: usize,
    },
    Delete {
        client: usize,
        at: usize,
        length: usize,
    },
    Append {
        client: usize,
    },
    Merge {
        client: usize,
        key: u8,
    },
    /// What it has to send is on its way.
    Send {
        client: usize,
    },
    /// One of the messages that are on their way is there, maybe at another server than it was sent to.
    Arrive {
        which: usize,
    },
    /// One more opens the document.
    Join,
    Hear {
        client: usize,
        count: usize,
    },
    /// Messages to it are lost: it opens the document again.
    Gap {
        client: usize,
    },
    /// It has a line again, after a crash.
    Back {
        client: usize,
    },
    /// Asks for the document.
    Ask {
        client: usize,
    },
    /// Looks at the answer.
    Answer {
        client: usize,
    },
    /// It does not know what became of what it sent.
    Doubt {
        client: usize,
    },
    Checkpoint,
    /// So many of the messages to a client, and at most one more to each next one, are there before the server is not.
    Crash {
        heard: usize,
    },
    Fold,
}

impl World {
    fn new(kind: Kind, clients: usize) -> World {
        World::with(kind, clients, Limits::default())
    }

    fn with(kind: Kind, clients: usize, limits: Limits) -> World {
        let limits = Arc::new(limits);
        let mut document = Document::new(kind, "l".into(), limits.clone());
        document.stored(Version(0));
        let mut world = World {
            stored: stored(&document),
            document,
            checkpointed: Version(0),
            limits,
            clients: Vec::new(),
            on_its_way: Vec::new(),
            last_op: 0,
            last_told: 0,
            told: BTreeMap::new(),
            failed: HashSet::new(),
        };
        (0..clients).for_each(|_| world.join());
        world
    }

    fn join(&mut self) {
        let (inbox, answer) = (VecDeque::new(), None);
        let replica = Replica::new(self.opened("", &[], true), 1000);
        // It may have been told a part.
        let is_lost = replica.version() < self.document.version();
        self.clients.push(Client { replica, inbox, is_away: false, is_lost, answer });
    }

    /// What an answer of the server comes to.
    fn opened(&self, lineage: &str, known: &[Version], in_parts: bool) -> Opened {
        let told = self.document.introduce(Some(lineage), known, in_parts, Some(self.checkpointed));
        Opened {
            kind: self.document.kind(),
            lineage: self.document.lineage().clone(),
            version: told.version,
            checkpointed: self.checkpointed,
            durable: true,
            since: told.since,
            snapshot: told.needs_content.then(|| self.document.at(told.version).unwrap()),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Insert { client, at } => {
                let token = self.token();
                let length = self.length(client);
                self.edit(client, token.clone(), Edit::insert(at % (length + 1), &*token));
            }
            Step::Delete { client, at, length } => {
                let all = self.length(client);
                let at = at % (all + 1);
                let token = self.token();
                self.edit(client, token, Edit::delete(at, length.min(all - at)));
            }
            Step::Append { client } => {
                let token = self.token();
                self.edit(client, token.clone(), Edit::append(&*token));
            }
            Step::Merge { client, key } => {
                let token = self.token();
                let merge = serde_json::json!({ key.to_string(): &*token });
                self.edit(client, token, Edit::Merge { merge });
            }
            Step::Send { client } => self.send(client),
            Step::Arrive { which } => self.arrive(which),
            Step::Join if self.clients.len() < 9 => self.join(),
            Step::Join => {}
            Step::Hear { client, count } => {
                for _ in 0..count {
                    self.hear(client);
                }
            }
            Step::Gap { client } => {
                let client = self.client(client);
                client.inbox.retain(|heard| matches!(heard, Heard::Gap));
                client.inbox.push_back(Heard::Overflow);
            }
            Step::Back { client } => self.back(client),
            Step::Ask { client } => self.ask(client),
            Step::Answer { client } => self.answer(client),
            Step::Doubt { client } => self.client(client).replica.lost(),
            Step::Checkpoint => {
                self.stored = stored(&self.document);
                self.checkpointed = self.document.version();
                self.document.stored(self.checkpointed);
                let (version, level) = (self.checkpointed, Level::Checkpointed);
                self.tell(&DocumentEvent::Checkpoint { id: "d".into(), version, level });
            }
            Step::Crash { heard } => self.crash(heard),
            Step::Fold => {
                // Only what is stored: the rest may be needed again.
                self.document.compact(2, usize::MAX);
                assert!(self.document.oldest() <= self.checkpointed);
            }
        }
    }

    fn token(&mut self) -> Arc<str> {
        self.last_op += 1;
        format!("<{}>", self.last_op).into()
    }

    fn length(&mut self, client: usize) -> usize {
        match self.client(client).replica.snapshot() {
            Snapshot::Text(text) => text.chars().count(),
            Snapshot::Value(_) => 0,
        }
    }

    fn client(&mut self, client: usize) -> &mut Client {
        let count = self.clients.len();
        &mut self.clients[client % count]
    }

    fn edit(&mut self, client: usize, op_id: Arc<str>, edit: Edit) {
        self.client(client).replica.edit(op_id, vec![edit], Manners::default()).unwrap();
    }

    fn send(&mut self, client: usize) {
        if self.client(client).is_lost || self.client(client).is_away {
            return;
        }
        let batch = self.client(client).replica.outgoing(5, usize::MAX);
        if !batch.is_empty() {
            self.on_its_way.push(batch);
        }
    }

    fn arrive(&mut self, which: usize) {
        if self.on_its_way.is_empty() {
            return;
        }
        let batch = self.on_its_way.remove(which % self.on_its_way.len());
        let mut before: Option<Version> = None;
        let mut is_broken = false;
        for (n, outgoing) in batch.into_iter().enumerate() {
            let (base_version, lineage) = match (outgoing.base, before) {
                (Some((version, lineage)), _) => (version, Some(lineage)),
                (None, Some(version)) => (version, None),
                (None, None) => (Version(0), None),
            };
            let (id, author): (Arc<str>, Arc<str>) = ("d".into(), "a".into());
            let op_id = outgoing.op_id.clone();
            if is_broken && n > 0 {
                let (code, message) = (Code::Skipped.to_string(), String::new());
                let version = self.document.version();
                self.tell(&DocumentEvent::Rejected { id, op_id, author, code, message, version });
                continue;
            }
            let operation = Operation {
                op_id: op_id.clone(),
                author: author.clone(),
                base_version,
                lineage,
                edits: outgoing.edits,
            };
            let level = Level::Applied;
            match self.document.apply(&operation, 1) {
                Outcome::Applied(previous, applied) => {
                    before = Some(applied.version);
                    let version = applied.version;
                    self.tell(&DocumentEvent::Change { id: id.clone(), previous, applied });
                    self.tell(&DocumentEvent::Ack { id, op_id, author, version, level });
                }
                Outcome::Repeated(version) => {
                    before = Some(version);
                    self.tell(&DocumentEvent::Ack { id, op_id, author, version, level });
                }
                Outcome::Conflict { server_version, missing_ops, snapshot } => {
                    is_broken = true;
                    self.tell(&DocumentEvent::Conflict {
                        id,
                        op_id,
                        author,
                        base_version,
                        server_version,
                        missing_ops,
                        snapshot,
                    });
                }
                Outcome::Rejected(reject) => {
                    is_broken = true;
                    let (code, message) = (reject.code.to_string(), reject.message);
                    let version = self.document.version();
                    self.tell(&DocumentEvent::Rejected {
                        id,
                        op_id,
                        author,
                        code,
                        message,
                        version,
                    });
                }
            }
        }
    }

    /// As it travels.
    fn tell(&mut self, event: &DocumentEvent) {
        let event: DocumentEvent = serde_json::from_slice(&event.to_json()).unwrap();
        for client in self.clients.iter_mut().filter(|client| !client.is_away) {
            client.inbox.push_back(Heard::Event(event.clone()));
        }
    }

    fn hear(&mut self, client: usize) {
        if self.client(client).answer.is_some() {
            // It looks at that first.
            return;
        }
        match self.client(client).inbox.pop_front() {
            None => {}
            Some(Heard::Gap | Heard::Overflow) => self.client(client).is_lost = true,
            // What is opened has it.
            Some(Heard::Event(_)) if self.client(client).is_lost => {}
            Some(Heard::Event(event)) => {
                let news = self.client(client).replica.hear(event);
                self.client(client).is_lost |= self.take(news);
            }
        }
    }

    fn take(&mut self, news: Vec<News>) -> bool {
        let mut is_lost = false;
        for news in news {
            match news {
                News::Acked { op_id, level, .. } => {
                    let told = self.told.entry(op_id).or_insert(level);
                    *told = level.max(*told);
                }
                News::Failed { op_id, .. } => {
                    self.failed.insert(op_id);
                }
                News::OutOfStep => is_lost = true,
                News::Changed { .. } | News::Conflict { .. } => {}
            }
        }
        is_lost
    }

    fn back(&mut self, client: usize) {
        let client = self.client(client);
        if std::mem::take(&mut client.is_away) {
            client.inbox.push_back(Heard::Gap);
        }
    }

    fn ask(&mut self, client: usize) {
        let it = self.client(client);
        if it.is_away || !it.is_lost || it.answer.is_some() {
            return;
        }
        let ((lineage, known), has_own) = (it.replica.known(), it.replica.has_own());
        let mut parts = vec![self.opened(&lineage, &known, has_own)];
        while let Some(last) = parts.last()
            && last.version < self.document.version()
        {
            parts.push(self.opened(&last.lineage.clone(), &[last.version], true));
        }
        self.client(client).answer = Some(parts);
    }

    fn answer(&mut self, client: usize) {
        let it = self.client(client);
        let Some(parts) = it.answer.take() else { return };
        if let Some(last) = it.inbox.iter().rposition(|heard| matches!(heard, Heard::Gap)) {
            it.inbox.drain(..=last);
            return;
        }
        it.is_lost = false;
        for opened in parts {
            let news = self.client(client).replica.reopened(opened);
            assert!(!self.take(news));
        }
    }

    fn crash(&mut self, heard: usize) {
        let next = self.document.version().0.max(self.last_told) + 1000;
        let base = serde_json::from_slice(&self.stored.0).unwrap();
        let segment = serde_json::from_slice(&self.stored.1).unwrap();
        self.document = Document::restored(base, vec![segment], self.limits.clone()).unwrap();
        self.document.reserve(Version(next));
        self.document.stored(self.checkpointed);
        self.last_told = next;
        for (op_id, level) in &self.told {
            let is_here = self.document.seen.contains_key(op_id);
            assert!(*level == Level::Applied || is_here, "{op_id} was checkpointed");
        }
        for (n, client) in self.clients.iter_mut().enumerate() {
            client.inbox.truncate((heard + n) % (client.inbox.len() + 1));
            client.is_away = true;
        }
    }

    /// Everybody hears and sends until there is nothing left.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let is_quiet = |it: &Client| {
                it.inbox.is_empty() && !it.is_lost && !it.is_away && it.answer.is_none()
            };
            let was_quiet = self.clients.iter().all(is_quiet);
            for client in 0..self.clients.len() {
                self.back(client);
                self.answer(client);
                while !self.clients[client].inbox.is_empty() {
                    self.hear(client);
                }
                self.ask(client);
                self.answer(client);
                self.send(client);
            }
            while !self.on_its_way.is_empty() {
                self.arrive(0);
            }
            if was_quiet && self.clients.iter().all(is_quiet) {
                return;
            }
        }
        panic!("it does not settle");
    }

    fn check(&mut self) {
        self.settle();
        let server = self.document.snapshot();
        for client in &self.clients {
            assert_eq!(client.replica.snapshot(), server);
        }
    }

    /// Nothing was deleted: every operation is there once.
    fn check_letters(&mut self) {
        self.check();
        let Snapshot::Text(text) = self.document.snapshot() else { panic!("it is text") };
        for n in 1..=self.last_op {
            let count = text.matches(&format!("<{n}>")).count();
            // Somebody may have written inside of it: its characters are there all the same.
            assert!(count <= 1, "{n} is there {count} times in {text}");
        }
        let expected: usize = (1..=self.last_op).map(|n| format!("<{n}>").len()).sum();
        assert_eq!(text.len(), expected, "{:?} failed", self.failed);
    }
}

fn stored(document: &Document) -> (Vec<u8>, Vec<u8>) {
    let segment = document.saved_since(document.oldest());
    (serde_json::to_vec(&document.saved_base()).unwrap(), serde_json::to_vec(&segment).unwrap())
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..8usize;
    prop_oneof![
        6 => (client(), any::<usize>()).prop_map(|(client, at)| Step::Insert { client, at }),
        3 => (client(), any::<usize>(), 0..9usize)
            .prop_map(|(client, at, length)| Step::Delete { client, at, length }),
        2 => client().prop_map(|client| Step::Append { client }),
        8 => client().prop_map(|client| Step::Send { client }),
        8 => any::<usize>().prop_map(|which| Step::Arrive { which }),
        8 => (client(), 1..6usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Gap { client }),
        1 => client().prop_map(|client| Step::Doubt { client }),
        2 => client().prop_map(|client| Step::Ask { client }),
        2 => client().prop_map(|client| Step::Answer { client }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Fold),
    ]
}

fn writing() -> impl Strategy<Value = Step> {
    let client = || 0..8usize;
    prop_oneof![
        6 => (client(), any::<usize>()).prop_map(|(client, at)| Step::Insert { client, at }),
        2 => client().prop_map(|client| Step::Append { client }),
        8 => client().prop_map(|client| Step::Send { client }),
        8 => any::<usize>().prop_map(|which| Step::Arrive { which }),
        8 => (client(), 1..6usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Gap { client }),
        1 => client().prop_map(|client| Step::Doubt { client }),
        1 => Just(Step::Join),
        2 => client().prop_map(|client| Step::Back { client }),
        3 => client().prop_map(|client| Step::Ask { client }),
        3 => client().prop_map(|client| Step::Answer { client }),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Fold),
        2 => any::<usize>().prop_map(|heard| Step::Crash { heard }),
    ]
}

/// One crash after the other: whoever asks for the document may be told by the next server, or by the one after.
fn crashing() -> impl Strategy<Value = Step> {
    let client = || 0..3usize;
    prop_oneof![
        3 => (client(), any::<usize>()).prop_map(|(client, at)| Step::Insert { client, at }),
        5 => client().prop_map(|client| Step::Send { client }),
        6 => any::<usize>().prop_map(|which| Step::Arrive { which }),
        4 => (client(), 1..4usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Doubt { client }),
        5 => client().prop_map(|client| Step::Back { client }),
        4 => client().prop_map(|client| Step::Ask { client }),
        4 => client().prop_map(|client| Step::Answer { client }),
        1 => Just(Step::Checkpoint),
        3 => any::<usize>().prop_map(|heard| Step::Crash { heard }),
    ]
}

fn merging() -> impl Strategy<Value = Step> {
    let client = || 0..8usize;
    prop_oneof![
        6 => (client(), 0..4u8).prop_map(|(client, key)| Step::Merge { client, key }),
        8 => client().prop_map(|client| Step::Send { client }),
        8 => any::<usize>().prop_map(|which| Step::Arrive { which }),
        8 => (client(), 1..6usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Gap { client }),
        2 => client().prop_map(|client| Step::Back { client }),
        2 => client().prop_map(|client| Step::Ask { client }),
        2 => client().prop_map(|client| Step::Answer { client }),
        1 => Just(Step::Checkpoint),
        1 => any::<usize>().prop_map(|heard| Step::Crash { heard }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn writers_with_stale_bases_come_to_one_text(
        clients in 1..8usize, steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(Kind::Text, clients);
        steps.into_iter().for_each(|step| world.step(step));
        world.check();
        prop_assert!(world.failed.is_empty() || world.document.oldest() > Version(0));
    }

    #[test]
    fn a_crash_loses_nothing_that_is_sent_again_and_doubles_nothing(
        clients in 1..6usize, missing in prop_oneof![Just(10usize), 200..2000usize],
        steps in prop::collection::vec(writing(), 0..200),
    ) {
        let limits = Limits { missing, ..Limits::default() };
        let mut world = World::with(Kind::Text, clients, limits);
        steps.into_iter().for_each(|step| world.step(step));
        world.check_letters();
    }

    #[test]
    fn crash_after_crash_loses_nothing_either(
        clients in 1..4usize, steps in prop::collection::vec(crashing(), 0..150),
    ) {
        let mut world = World::new(Kind::Text, clients);
        steps.into_iter().for_each(|step| world.step(step));
        world.check_letters();
    }

    #[test]
    fn writers_of_json_come_to_one_value(
        clients in 1..6usize, steps in prop::collection::vec(merging(), 0..100),
    ) {
        let mut world = World::new(Kind::Json, clients);
        steps.into_iter().for_each(|step| world.step(step));
        world.check();
    }
}

#[test]
fn an_ack_of_a_server_that_is_gone_is_not_taken_for_one_of_the_next() {
    let mut world = World::new(Kind::Text, 2);
    let steps = [
        Step::Insert { client: 0, at: 0 },
        Step::Send { client: 0 },
        Step::Crash { heard: 0 },
        Step::Back { client: 0 },
        Step::Back { client: 1 },
        Step::Hear { client: 0, count: 1 },
        Step::Arrive { which: 0 },
        // The ack is heard by the one who waits to open the document again.
        Step::Crash { heard: 2 },
        Step::Back { client: 0 },
        Step::Back { client: 1 },
        Step::Hear { client: 1, count: 5 },
        Step::Ask { client: 1 },
        Step::Answer { client: 1 },
        Step::Insert { client: 1, at: 0 },
        Step::Send { client: 1 },
        Step::Arrive { which: 0 },
        Step::Ask { client: 0 },
        Step::Answer { client: 0 },
        Step::Hear { client: 0, count: 5 },
    ];
    steps.into_iter().for_each(|step| world.step(step));
    world.check_letters();
}

#[test]
fn a_hundred_writers_come_to_one_text() {
    let mut world = World::new(Kind::Text, 100);
    let mut seed = 7u64;
    for _ in 0..1_000 {
        // Knuth's numbers: any will do.
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (client, at) = ((seed >> 33) as usize % 100, (seed >> 20) as usize);
        world.step(match (seed >> 40) % 4 {
            0 => Step::Delete { client, at, length: 5 },
            _ => Step::Insert { client, at },
        });
        world.step(Step::Send { client });
        world.step(Step::Arrive { which: 0 });
        let listener = (seed >> 50) as usize % 100;
        world.step(Step::Hear { client: listener, count: 300 });
    }
    world.check();
    assert!(world.failed.is_empty());
}

/// The answer has the content alone: an operation is too large for it, or the server folded what it could not store.
#[test]
fn what_is_acked_after_an_answer_without_a_way_is_unsynced_still() {
    let limits = Limits { missing: 10, ..Limits::default() };
    let mut world = World::with(Kind::Text, 2, limits);
    let steps = [
        Step::Insert { client: 0, at: 0 },
        Step::Send { client: 0 },
        Step::Arrive { which: 0 },
        Step::Hear { client: 0, count: 5 },
        Step::Gap { client: 0 },
        Step::Hear { client: 0, count: 1 },
        Step::Insert { client: 1, at: 0 },
        Step::Hear { client: 1, count: 5 },
        Step::Send { client: 1 },
        Step::Arrive { which: 0 },
        Step::Ask { client: 0 },
        Step::Answer { client: 0 },
        Step::Send { client: 0 },
        Step::Arrive { which: 0 },
        Step::Hear { client: 0, count: 5 },
    ];
    steps.into_iter().for_each(|step| world.step(step));
    world.step(Step::Crash { heard: 0 });
    // "<1>" is in no text and in no `failed`, and nobody sends it again.
    world.check_letters();
}

/// The default limits: 17 pastes of 250 KiB within 10 s, nothing stored yet.
#[test]
fn what_is_not_stored_is_not_folded() {
    let mut world = World::new(Kind::Text, 1);
    for n in 0..17 {
        let edit = match n % 8 {
            7 => Edit::delete(0, 7 * 250_000),
            _ => Edit::insert(0, "x".repeat(250_000)),
        };
        let (op_id, author) = (format!("{n}").into(), "a".into());
        let base_version = world.document.version();
        let operation = Operation { op_id, author, base_version, lineage: None, edits: vec![edit] };
        assert!(matches!(world.document.apply(&operation, 1), Outcome::Applied(..)));
    }
    for n in 17..20 {
        let edit = Edit::insert(0, "x".repeat(250_000));
        let (op_id, author) = (format!("{n}").into(), "a".into());
        let base_version = world.document.version();
        let operation = Operation { op_id, author, base_version, lineage: None, edits: vec![edit] };
        assert!(matches!(world.document.apply(&operation, 1), Outcome::Applied(..)));
    }
    let told = world.document.introduce(None, &[], true, Some(Version(0)));
    assert!(told.since.is_some(), "a way from what is stored");
}
