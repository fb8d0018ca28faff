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
    last_op: usize,
    /// Per operation the safest level its client was told.
    told: BTreeMap<Arc<str>, Level>,
    failed: HashSet<Arc<str>>,
}

struct Client {
    replica: Replica,
    inbox: VecDeque<DocumentEvent>,
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
    Send {
        client: usize,
    },
    Hear {
        client: usize,
        count: usize,
    },
    /// Messages to it are lost: it opens the document again.
    Gap {
        client: usize,
    },
    /// It does not know what became of what it sent.
    Doubt {
        client: usize,
    },
    Checkpoint,
    Crash,
    Fold,
}

impl World {
    fn new(kind: Kind, clients: usize) -> World {
        let limits = Arc::new(Limits::default());
        let document = Document::new(kind, "l".into(), limits.clone());
        let mut world = World {
            stored: stored(&document),
            document,
            checkpointed: Version(0),
            limits,
            clients: Vec::new(),
            last_op: 0,
            told: BTreeMap::new(),
            failed: HashSet::new(),
        };
        for _ in 0..clients {
            let replica = Replica::new(world.opened("", &[]), 1000);
            world.clients.push(Client { replica, inbox: VecDeque::new() });
        }
        world
    }

    fn opened(&self, lineage: &str, known: &[Version]) -> Opened {
        let since = self.document.since_known(lineage, known);
        let is_enough = since.as_ref().is_some_and(|(from, _)| *from == known[0]);
        Opened {
            kind: self.document.kind(),
            lineage: self.document.lineage().clone(),
            version: self.document.version(),
            checkpointed: self.checkpointed,
            durable: true,
            since,
            snapshot: (!is_enough).then(|| self.document.snapshot()),
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
            Step::Hear { client, count } => {
                for _ in 0..count {
                    self.hear(client);
                }
            }
            Step::Gap { client } => self.reopen(client),
            Step::Doubt { client } => self.client(client).replica.lost(),
            Step::Checkpoint => {
                self.stored = stored(&self.document);
                self.checkpointed = self.document.version();
                let (version, level) = (self.checkpointed, Level::Checkpointed);
                self.tell(&DocumentEvent::Checkpoint { id: "d".into(), version, level });
            }
            Step::Crash => self.crash(),
            Step::Fold => {
                // Only what is stored: the rest may be needed again.
                self.document.fold(4, usize::MAX);
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
        let batch = self.client(client).replica.outgoing(5, usize::MAX);
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
        self.clients.iter_mut().for_each(|client| client.inbox.push_back(event.clone()));
    }

    fn hear(&mut self, client: usize) {
        let Some(event) = self.client(client).inbox.pop_front() else { return };
        let news = self.client(client).replica.hear(event);
        if self.take(news) {
            self.reopen(client);
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

    fn reopen(&mut self, client: usize) {
        let (lineage, known) = self.client(client).replica.known();
        let opened = self.opened(&lineage, &known);
        let it = self.client(client);
        it.inbox.clear();
        let news = it.replica.reopened(opened);
        assert!(!self.take(news));
    }

    fn crash(&mut self) {
        let next = self.document.version().0 + 1000;
        let base = serde_json::from_slice(&self.stored.0).unwrap();
        let segment = serde_json::from_slice(&self.stored.1).unwrap();
        self.document = Document::restored(base, vec![segment], self.limits.clone()).unwrap();
        self.document.reserve(Version(next));
        for (op_id, level) in &self.told {
            let is_here = self.document.seen.contains_key(op_id);
            assert!(*level == Level::Applied || is_here, "{op_id} was checkpointed");
        }
        (0..self.clients.len()).for_each(|client| self.reopen(client));
    }

    /// Everybody hears and sends until there is nothing left.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let is_quiet = self.clients.iter().all(|it| it.inbox.is_empty());
            for client in 0..self.clients.len() {
                while !self.clients[client].inbox.is_empty() {
                    self.hear(client);
                }
                self.send(client);
            }
            if is_quiet && self.clients.iter().all(|it| it.inbox.is_empty()) {
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
        8 => (client(), 1..6usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Gap { client }),
        1 => client().prop_map(|client| Step::Doubt { client }),
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
        8 => (client(), 1..6usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Gap { client }),
        1 => client().prop_map(|client| Step::Doubt { client }),
        2 => Just(Step::Checkpoint),
        2 => Just(Step::Crash),
    ]
}

fn merging() -> impl Strategy<Value = Step> {
    let client = || 0..8usize;
    prop_oneof![
        6 => (client(), 0..4u8).prop_map(|(client, key)| Step::Merge { client, key }),
        8 => client().prop_map(|client| Step::Send { client }),
        8 => (client(), 1..6usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Gap { client }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
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
        clients in 1..6usize, steps in prop::collection::vec(writing(), 0..150),
    ) {
        let mut world = World::new(Kind::Text, clients);
        steps.into_iter().for_each(|step| world.step(step));
        world.check();
        let Snapshot::Text(text) = world.document.snapshot() else { panic!() };
        for n in 1..=world.last_op {
            let count = text.matches(&format!("<{n}>")).count();
            // Somebody may have written inside of it: its characters are there all the same.
            prop_assert!(count <= 1, "{n} is there {count} times in {text}");
        }
        let expected: usize = (1..=world.last_op).map(|n| format!("<{n}>").len()).sum();
        prop_assert_eq!(text.len(), expected, "{:?} failed", world.failed);
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
        let listener = (seed >> 50) as usize % 100;
        world.step(Step::Hear { client: listener, count: 300 });
    }
    world.check();
    assert!(world.failed.is_empty());
}
