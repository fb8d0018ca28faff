//! One environment's (a thread's) link to the core: its clients, its mailbox, its one wake.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use kps::{
    CloseReport, HostMailbox, Item, MailboxRef, SubId, Target,
    capability::{Failure, Router, Task},
};
use napi::{Env, bindgen_prelude::Function};
use napi_derive::napi;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    batch::Batch,
    calls::{Host, Stream},
    complete::{Completion, Completions},
    documents::Table,
    error::{Result, internal, invalid, thrown},
    hot, ledger, options,
    server::Asked,
    strings::Strings,
    wake::Wake,
};

/// The environment's link to the core. One per loaded copy of the package.
#[napi]
pub struct Bridge {
    pub(crate) shared: Rc<Shared>,
}

/// What the methods and the raw functions share. Only the environment's own thread touches it.
pub(crate) struct Shared {
    pub(crate) mailbox: MailboxRef,
    pub(crate) completions: Arc<Completions>,
    pub(crate) host: Arc<Host>,
    /// Calls that JavaScript may cancel, by its numbers for them.
    pub(crate) tasks: RefCell<HashMap<u32, Task>>,
    /// By the keys of their own clients.
    pub(crate) servers: RefCell<HashMap<u32, kps::Server>>,
    pub(crate) asked: Arc<Asked>,
    /// Values that are saved or read in pieces.
    pub(crate) streams: Arc<Mutex<HashMap<u32, Stream>>>,
    pub(crate) documents: Arc<Table>,
    clients: RefCell<HashMap<u32, Client>>,
    /// Topics, ids and addresses that JavaScript publishes to, by the number it calls them.
    pub(crate) names: RefCell<Vec<Box<str>>>,
    /// Where a publish's payload is read to.
    pub(crate) scratch: RefCell<Vec<u8>>,
    inbound: RefCell<Inbound>,
    /// Whether this environment ends with the process.
    main: bool,
    ended: Cell<bool>,
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) bridge: kps::Bridge,
    pub(crate) target: Target,
    router: OnceCell<Router>,
}

impl Client {
    /// Its way to capabilities.
    pub(crate) fn router(&self) -> Router {
        let make = || kps::Client::from(self.bridge.clone()).capabilities();
        self.router.get_or_init(make).clone()
    }
}

#[derive(Default)]
struct Inbound {
    strings: Strings,
    /// Taken from the mailbox, newest first, and not yet written to a slab.
    waiting: Vec<Item>,
}

/// What one drain did.
pub(crate) struct Drained {
    pub(crate) count: usize,
    pub(crate) tail: usize,
    /// Something waits that found no room.
    pub(crate) more: bool,
    /// Everything written is ASCII.
    pub(crate) ascii: bool,
    /// The names started anew.
    pub(crate) renewed: bool,
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) large: Vec<Bytes>,
}

impl Shared {
    /// The client with this key.
    pub(crate) fn client(&self, key: u32) -> kps::Result<Client> {
        self.clients.borrow().get(&key).cloned().ok_or_else(|| {
            kps::Error::new(kps::ErrorKind::Closed, "this client is closed: connect a new one")
        })
    }

    /// Runs `with` on the client with this key, without cloning its handle.
    pub(crate) fn with_client<T>(
        &self,
        key: u32,
        with: impl FnOnce(&Client) -> kps::Result<T>,
    ) -> kps::Result<T> {
        match self.clients.borrow().get(&key) {
            Some(client) => with(client),
            None => self.client(key).and_then(|client| with(&client)),
        }
    }

    /// Adopts a client: its events come here.
    pub(crate) fn adopt(&self, bridge: kps::Bridge) -> u32 {
        let key = bridge.key().0;
        let target = bridge.attach(&self.mailbox);
        self.clients.borrow_mut().insert(key, Client { bridge, target, router: OnceCell::new() });
        key
    }

    /// Writes what waits into `slab` between `head` and `tail`; only what concerns calls, if `calls`.
    pub(crate) fn drain(
        &self,
        slab: &mut [u8],
        head: usize,
        tail: usize,
        fresh: bool,
        calls: bool,
    ) -> Drained {
        let inbound = &mut *self.inbound.borrow_mut();
        let renewed = fresh && inbound.strings.renew();
        let mut large = Vec::new();
        let mut batch = Batch::new(slab, head, tail, &mut inbound.strings, &mut large);
        let mut more = !calls;
        'full: while more {
            if inbound.waiting.is_empty() {
                let room = batch.room();
                if room == 0 {
                    break;
                }
                more = self.mailbox.drain(room, &mut inbound.waiting);
                inbound.waiting.reverse();
            }
            while let Some(item) = inbound.waiting.last() {
                if !batch.item(item) {
                    more = true;
                    break 'full;
                }
                inbound.waiting.pop();
            }
        }
        // Calls end after the events before them are told.
        while !more && let Some(completion) = self.completions.next() {
            if self.host.is_stale(&completion) {
                continue;
            }
            if !batch.completion(&completion) {
                self.completions.again(completion);
                more = true;
                continue;
            }
            match completion {
                Completion::Answered { token, .. } => drop(self.tasks.borrow_mut().remove(&token)),
                Completion::Function { function, weight, .. } => function.taken(weight),
                _ => {}
            }
        }
        let (count, new_tail, ascii) = (batch.count(), batch.tail(), batch.is_ascii(tail));
        let names = inbound.strings.take_fresh().collect();
        Drained { count, tail: new_tail, more, ascii, renewed, names, large }
    }

    /// The environment ends: nothing reaches it any more. A worker's clients say goodbye in the
    /// background; those of the main thread are left to the runtime's exit handler, which flushes
    /// them and tells what it abandoned.
    fn end(&self) {
        if self.ended.replace(true) {
            return;
        }
        self.mailbox.close();
        self.host.end();
        self.streams.lock().clear();
        self.documents.end();
        let (clients, servers) = (self.clients.take(), self.servers.take());
        if self.main {
            std::mem::forget((clients, servers));
            return;
        }
        for server in servers.into_values() {
            kps::runtime::spawn(async move { server.close(kps::runtime::EXIT_TIMEOUT).await });
        }
        for client in clients.into_values() {
            kps::runtime::spawn(async move {
                client.bridge.close(kps::runtime::EXIT_TIMEOUT).await;
            });
        }
    }
}

#[napi]
impl Bridge {
    /// `wake` is called on this thread when something waits to be drained. It does not keep the
    /// process alive. `main`: this environment ends with the process.
    #[napi(constructor)]
    pub fn new(env: Env, wake: Function<'_, (), ()>, main: bool) -> Result<Self> {
        // The wake needs to know what to end, and what it ends holds the wake.
        let ending: Rc<OnceCell<Rc<Shared>>> = Rc::default();
        let end = ending.clone();
        let wake = Wake::new(env, &wake, move || {
            if let Some(shared) = end.get() {
                shared.end();
            }
        })
        .map_err(internal)?;
        let again = wake.clone();
        let mailbox = Arc::new(HostMailbox::new(move || wake.call()));
        let completions = Completions::new(move || again.call());
        let shared = Rc::new(Shared {
            mailbox,
            host: Host::new(&completions),
            completions,
            tasks: RefCell::default(),
            servers: RefCell::default(),
            asked: Arc::default(),
            streams: Arc::default(),
            documents: Arc::default(),
            clients: RefCell::default(),
            names: RefCell::default(),
            scratch: RefCell::new(Vec::with_capacity(4096)),
            inbound: RefCell::default(),
            main,
            ended: Cell::new(false),
        });
        // Nobody else has it: this is its first value.
        let _ = ending.set(shared.clone());
        Ok(Bridge { shared })
    }

    /// The functions that run once per message, free of the cost of generated ones.
    #[napi(ts_return_type = "import('./ts/native').Hot")]
    pub fn hot(&self, env: Env) -> Result<napi::bindgen_prelude::Object<'static>> {
        hot::functions(env, &self.shared).map_err(internal)
    }

    /// Starts connecting and returns the new client's key.
    #[napi]
    pub fn connect(&self, options: String) -> Result<u32> {
        let options: options::Connect = serde_json::from_str(&options).map_err(invalid)?;
        let options = options.try_into().map_err(thrown)?;
        let bridge = kps::server::connect(options).map_err(thrown)?;
        Ok(self.shared.adopt(bridge))
    }

    /// Call `token` ends with the first handshake.
    #[napi]
    pub fn ready(&self, client: u32, token: u32) -> Result<()> {
        let client = self.client(client)?;
        let completions = self.shared.completions.clone();
        kps::runtime::spawn(async move {
            let opened = client.router().open().await.map_err(Failure::into_error);
            let result = match opened {
                Ok(()) => client.bridge.ready().await.map(|()| Value::Null),
                Err(error) => Err(error),
            };
            completions.end(token, result);
        });
        Ok(())
    }

    /// Subscribes and returns the subscription's number; confirmation or refusal follows.
    #[napi]
    pub fn subscribe(&self, client: u32, pattern: String, options: String) -> Result<u32> {
        let options: options::Subscribe = serde_json::from_str(&options).map_err(invalid)?;
        let options = options.try_into().map_err(thrown)?;
        let client = self.client(client)?;
        let sub = client.bridge.subscribe(&self.shared.mailbox, &pattern, options);
        Ok(sub.map_err(thrown)?.0)
    }

    /// Unsubscribes; the confirmation follows.
    #[napi]
    pub fn unsubscribe(&self, client: u32, sub: u32) -> Result<()> {
        self.client(client)?.bridge.unsubscribe(SubId(sub)).map_err(thrown)
    }

    /// Asks to be told when the outbox is below its soft bound; true if it is.
    #[napi]
    pub fn watch_room(&self, client: u32) -> Result<bool> {
        let client = self.client(client)?;
        Ok(client.bridge.watch_room(client.target))
    }

    /// Stops waiting for the rows of publish `number`.
    #[napi]
    pub fn cancel_ack(&self, client: u32, number: f64) -> Result<()> {
        self.client(client)?.bridge.cancel_ack(number as u64);
        Ok(())
    }

    /// The id of the message with this publish number.
    #[napi]
    pub fn message_id(&self, client: u32, number: f64) -> Result<String> {
        Ok(self.client(client)?.bridge.message_id(number as u64))
    }

    /// `flushed` with the returned token follows when everything published so far is accepted or
    /// refused.
    #[napi]
    pub fn flush(&self, client: u32) -> Result<f64> {
        Ok(self.client(client)?.bridge.flush_event(&self.shared.mailbox) as f64)
    }

    /// Call `token` ends with the report of what closing flushed, kept and abandoned.
    #[napi]
    pub fn close(&self, client: u32, timeout: f64, token: u32) -> Result<()> {
        let bridge = self.client(client)?.bridge;
        let completions = self.shared.completions.clone();
        kps::runtime::spawn(async move {
            let report = bridge.close(options::millis(timeout)).await;
            completions.end(token, Ok(report_json(&report)));
        });
        Ok(())
    }

    /// Forgets a closed client.
    #[napi]
    pub fn forget(&self, client: u32) {
        if let Some(client) = self.shared.clients.borrow_mut().remove(&client) {
            client.bridge.detach(&self.shared.mailbox);
        }
    }

    /// The client's id; `undefined` before the first handshake if the server makes it.
    #[napi]
    pub fn id(&self, client: u32) -> Result<Option<String>> {
        Ok(self.client(client)?.bridge.id())
    }

    /// The state of its connection.
    #[napi]
    pub fn state(&self, client: u32) -> Result<&'static str> {
        Ok(self.client(client)?.bridge.state().as_str())
    }

    /// What became of everything published and received, as JSON.
    #[napi]
    pub fn ledger(&self, client: u32) -> Result<String> {
        Ok(ledger::client(&self.client(client)?.bridge.ledger()).to_string())
    }

    /// What became of one subscription's messages, as JSON; `undefined` when it has ended.
    #[napi]
    pub fn subscription_ledger(&self, client: u32, sub: u32) -> Result<Option<String>> {
        let ledger = self.client(client)?.bridge.ledger();
        let found = ledger.subscriptions.iter().find(|each| each.sub == SubId(sub));
        Ok(found.map(|each| ledger::counts(&each.counts).to_string()))
    }

    /// Whether every accepted publish of the client is told.
    #[napi]
    pub fn tell_published(&self, client: u32, on: bool) -> Result<()> {
        let client = self.shared.client(client).map_err(thrown)?;
        client.bridge.tell_published(on);
        Ok(())
    }

    /// The last things that happened, oldest first, as JSON. Times are milliseconds ago.
    #[napi]
    pub fn timeline(&self, client: u32) -> Result<String> {
        Ok(ledger::timeline(&self.client(client)?.bridge.timeline()).to_string())
    }

    fn client(&self, key: u32) -> Result<Client> {
        self.shared.client(key).map_err(thrown)
    }
}

/// A close report as JavaScript reads it.
pub(crate) fn report_json(report: &CloseReport) -> Value {
    json!({ "flushed": report.flushed, "kept": report.kept, "abandoned": report.abandoned })
}
