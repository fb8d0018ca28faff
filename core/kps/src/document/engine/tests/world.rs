//! A server and its clients, step by step.

mod schedules;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

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
