//! The interpreter of conformance steps: what `tests/conformance/README.md` describes, over kps.

#[path = "calls.rs"]
mod calls;
#[path = "documents.rs"]
mod documents;
#[path = "values.rs"]
mod values;

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use kps::{
    Ack, AuditOptions, Client, ConnectOptions, Error, ErrorKind, Event, HostMailbox, Receipt,
    Received, Result, Server, ServerOptions, To,
    auth::{self, Token},
    document::Refused,
    events::vocabulary,
    message::{Extras, Offline, Payload, ReceiptLevel},
    options::{OutboxOverflow, Overflow, Redelivery, StartAt, SubscribeOptions},
    proto::history::HistoryRule,
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_local},
    time::Instant,
};

use crate::{
    link::Link,
    log::Logs,
    reader::{self, Command, Gates, Handler, Owner},
    value::{self, int, matches, payload, seconds, text},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Why a step failed: an error of kps that the case may have expected, or what the case did not.
pub(crate) enum Failure {
    Kps(Error),
    Refused(Refused),
    Case(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Kps(error)
    }
}

type Outcome<T = ()> = std::result::Result<T, Failure>;

/// Everything a case names: servers, links, clients, subscriptions, acks, gates, background steps.
#[derive(Default)]
pub(crate) struct World {
    servers: RefCell<HashMap<String, Server>>,
    addresses: RefCell<HashMap<String, String>>,
    links: RefCell<HashMap<String, Rc<Link>>>,
    clients: RefCell<HashMap<String, Client>>,
    subs: RefCell<HashMap<String, Sub>>,
    acks: RefCell<HashMap<String, Rc<tokio::sync::RwLock<Ack>>>>,
    tasks: RefCell<HashMap<String, JoinHandle<Outcome>>>,
    gates: Rc<Gates>,
    logs: Rc<Logs>,
    cursors: RefCell<HashMap<String, String>>,
    kept: RefCell<HashMap<String, Value>>,
    documents: documents::Documents,
    folder: Folder,
}

/// The case's own folder, gone with it.
struct Folder(PathBuf);

impl Default for Folder {
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kps-conformance-{}-{number}", std::process::id());
        Folder(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Most cases never made it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone)]
struct Sub {
    client: String,
    topic: String,
    /// Whether it reads what it is told to, rather than calling a handler.
    reads: bool,
    commands: mpsc::UnboundedSender<Command>,
}

impl World {
    pub(crate) async fn take(self: &Rc<Self>, step: &Value) -> std::result::Result<(), String> {
        let (world, given) = (self.clone(), step.clone());
        let work = async move { world.judged(&given).await };
        let outcome = match step["as"].as_str() {
            Some(name) => {
                self.tasks.borrow_mut().insert(name.into(), spawn_local(work));
                Ok(())
            }
            None => patiently(work).await,
        };
        told(outcome)
    }

    pub(crate) async fn join_all(&self) -> std::result::Result<(), String> {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        for task in tasks.into_values() {
            told(patiently(async { task.await.expect("steps do not panic") }).await)?;
        }
        Ok(())
    }

    pub(crate) async fn end(&self) {
        let servers = std::mem::take(&mut *self.servers.borrow_mut());
        self.documents.borrow_mut().clear();
        for (name, client) in std::mem::take(&mut *self.clients.borrow_mut()) {
            if !servers.contains_key(&name) {
                client.close_within(Duration::ZERO).await;
            }
        }
        for server in servers.into_values() {
            server.close(Duration::ZERO).await;
        }
    }

    /// Acts, and compares an error with the one that the step expects.
    async fn judged(self: Rc<Self>, step: &Value) -> Outcome {
        let outcome = self.act(step).await;
        match (step["error"].as_str(), outcome) {
            (None, outcome) => outcome,
            (Some(wanted), Err(Failure::Kps(error))) if error.code() == wanted => Ok(()),
            (Some(wanted), Err(Failure::Refused(refused))) if refused.code == wanted => {
                let event = refused.event.as_deref().map(serde_json::from_slice);
                let event = event.transpose().expect("events are JSON").unwrap_or(Value::Null);
                step.get("refused").map_or(Ok(()), |wanted| expect(wanted, &event))
            }
            (Some(wanted), Err(Failure::Refused(it))) => fail(format!("{it}; expected {wanted}")),
            (Some(wanted), Err(Failure::Kps(error))) => fail(format!("{error}; expected {wanted}")),
            (Some(wanted), Ok(())) => fail(format!("no error; expected {wanted}")),
            (Some(_), outcome) => outcome,
        }
    }

    async fn act(self: &Rc<Self>, step: &Value) -> Outcome {
        match string(step, "do") {
            "start_server" => self.start_server(step),
            "remove_durable" => self.remove_durable(step),
            "stop_server" => self.stop_server(step).await,
            "connect" => self.connect(step).await,
            "close" => self.close(step).await,
            "flush" => Ok(self.client(step).flush().await?),
            "state" => {
                let client = self.client(step);
                until(|| json!(client.state().as_str()), &step["is"]).await
            }
            "count" => self.count(step).await,
            "event" => self.event(step).await,
            "on" => self.on(step),
            "cut" => Ok(self.link(step).cut()),
            "restore" => Ok(self.link(step).restore()),
            "freeze" => Ok(self.link(step).freeze(true)),
            "thaw" => Ok(self.link(step).freeze(false)),
            "let_pass" => Ok(tokio::time::sleep(seconds(&step["time"])?).await),
            "subscribe" => self.subscribe(step).await,
            "unsubscribe" => self.unsubscribe(step).await,
            "next" => self.next(step).await,
            "next_many" => self.next_many(step).await,
            "expect" => self.expect(step).await,
            "expect_last" => self.expect_last(step).await,
            "expect_nothing" => match self.logs.len(&self.sub_owner(step), &self.sub_name(step)) {
                0 => Ok(()),
                count => fail(format!("{count} messages came nevertheless")),
            },
            "expect_many" => self.expect_many(step).await,
            "started" => {
                let count = step.get("count").map_or(1, int);
                Ok(self.gates.started(string(step, "gate"), count).await)
            }
            "release" => Ok(self.gates.release(string(step, "gate"))),
            "ledger" => self.ledger(step).await,
            "publish" => self.publish(step).await,
            "publish_many" => {
                for number in 0..int(&step["count"]) {
                    let topic = string(step, "topic");
                    self.client(step).publish(topic, kps::Json(number))?.await?;
                }
                Ok(())
            }
            "publish_to_id" => {
                let receipt =
                    self.client(step).publish_to_id(string(step, "to"), payload(&step["data"]))?;
                settled(receipt, step).await
            }
            "publish_to_server" => {
                let to = self.address(&step["to"]);
                let receipt = self.client(step).publish_to_server(&to, payload(&step["data"]))?;
                settled(receipt, step).await
            }
            "publish_with_ack" => {
                let (topic, data) = (text(&step["topic"]), payload(&step["data"]));
                self.publish_with_ack(step, To::Topic(&topic), data)
            }
            "publish_to_id_with_ack" => {
                let (to, data) = (string(step, "to"), payload(&step["data"]));
                self.publish_with_ack(step, To::Client(to), data)
            }
            "request" => {
                let (topic, data) = (text(&step["topic"]), payload(&step["data"]));
                let (client, extras) = (self.client(step), extras(&step["options"])?);
                let answer = client.request_with(&topic, data, timeout(step)?, &extras).await?;
                step.get("answer").map_or(Ok(()), |wanted| expect(wanted, &value::data(&answer)))
            }
            "wait" => {
                let rows = value::rows(&self.ack(step).read().await.wait().await?);
                let Some(wanted) = step.get("rows") else { return Ok(()) };
                expect(&json!(keys(wanted)), &json!(keys(&rows)))?;
                expect(wanted, &rows)
            }
            "wait_any" => {
                let row = self.ack(step).read().await.wait_any().await?;
                expect(&step["row"], &row.as_ref().map_or(Value::Null, value::row))
            }
            "next_row" => {
                let row = self.ack(step).write().await.next().await?;
                expect(&step["row"], &row.as_ref().map_or(Value::Null, value::row))
            }
            "status" => {
                let ack = self.ack(step);
                let ack = ack.read().await;
                until(
                    || {
                        ack.status()
                            .iter()
                            .map(|(id, acked)| (id.to_string(), json!(acked)))
                            .collect()
                    },
                    &step["is"],
                )
                .await?;
                step.get("complete").map_or(Ok(()), |is| expect(is, &json!(ack.is_complete())))
            }
            "cancel_ack" => Ok(self.ack(step).read().await.cancel()),
            "dispatch" => self.dispatch(step).await,
            "register" => self.register(step).await,
            "unregister" => self.unregister(step).await,
            "register_task" => self.register_task(step).await,
            "unregister_task" | "share_task" | "unshare_task" => self.change_task(step).await,
            "save_stream" => self.save_stream(step).await,
            "read_stream" => self.read_stream(step).await,
            "abandon" => self.abandon(step).await,
            "open_document" => self.open_document(step).await,
            "edit" => self.edit(step).await,
            "edit_batch" => self.edit_batch(step).await,
            "undo" => self.undo(step).await,
            "reads" => self.reads(step).await,
            "read_at" => self.read_at(step).await,
            "versions" => self.versions(step).await,
            "compact" => self.compact(step).await,
            "stream" => self.stream(step).await,
            "set_presence" => Ok(self.set_presence(step)),
            "present" => self.present(step).await,
            "unsynced" => self.unsynced(step).await,
            "flush_document" => self.flush_document(step).await,
            "close_document" => self.close_document(step).await,
            "same_bytes" => self.same_bytes(step).await,
            "join" => {
                let task = self.tasks.borrow_mut().remove(string(step, "name"));
                task.expect("a step with this name").await.expect("steps do not panic")
            }
            other => fail(format!("no step is called {other}")),
        }
    }

    /// Events are a type in Rust; here the names are those that hosts check.
    fn on(&self, step: &Value) -> Outcome {
        let (client, name) = (string(step, "client"), string(step, "name"));
        let server = self.servers.borrow().get(client).cloned();
        match &server {
            Some(_) => vocabulary::check_server(name)?,
            None => vocabulary::check_client(name)?,
        }
        if name == "message_published" {
            match server {
                Some(server) => server.tell_messages(true),
                None => self.client(step).bridge().tell_published(true),
            }
        }
        Ok(())
    }

    // Servers and links.

    fn start_server(self: &Rc<Self>, step: &Value) -> Outcome {
        let name = step["server"].as_str().unwrap_or("server").to_owned();
        let given = &step["options"];
        let before = self.addresses.borrow().get(&name).cloned();
        let listen = match given.get("listen") {
            Some(listen) => self.address(listen),
            None => before.unwrap_or_else(|| "127.0.0.1:0".into()),
        };
        let mut options = server_options(listen, given, &self.folder.0)?;
        if let Some(storage) = given.get("storage") {
            options.storage = Some(self.storage_options(storage)?);
        }
        let server = Server::start(options)?;
        let own = Client::from(server.bridge()?.clone());
        let (woken, mut wakes) = mpsc::unbounded_channel();
        let mailbox = Arc::new(HostMailbox::new(move || {
            // The case may be over.
            let _ = woken.send(());
        }));
        server.listen_to_events(&mailbox)?;
        let (logs, owner) = (self.logs.clone(), name.clone());
        spawn_local(async move {
            let mut items = Vec::new();
            while wakes.recv().await.is_some() {
                mailbox.drain(64, &mut items);
                // Of its own client's events, those that have no name of the server's.
                let told = items.drain(..).filter(|item| {
                    !matches!(
                        &item.event,
                        Event::State { .. }
                            | Event::MessagePublished { .. }
                            | Event::Backpressure { .. }
                            | Event::Error { .. }
                    )
                });
                told.for_each(|item| log_event(&logs, &owner, &item.event));
            }
        });
        let (logs, owner) = (self.logs.clone(), name.clone());
        let mut direct = own.direct();
        spawn_local(async move {
            while let Some(message) = direct.message().await {
                logs.put(&owner, "message_to_id", json!([value::message(&message)]));
            }
        });
        self.addresses.borrow_mut().insert(name.clone(), server.address());
        self.clients.borrow_mut().insert(name.clone(), own);
        self.servers.borrow_mut().insert(name, server);
        Ok(())
    }

    async fn stop_server(&self, step: &Value) -> Outcome {
        let name = step["server"].as_str().unwrap_or("server");
        let server = self.servers.borrow_mut().remove(name).expect("a server with this name");
        self.clients.borrow_mut().remove(name);
        server.close(Duration::from_secs(1)).await;
        Ok(())
    }

    fn address(&self, to: &Value) -> String {
        match to["server"].as_str() {
            Some(server) => self.addresses.borrow()[server].clone(),
            None => text(to),
        }
    }

    async fn count(&self, step: &Value) -> Outcome {
        let server = self.servers.borrow()["server"].clone();
        match step.get("clients") {
            Some(clients) => until(|| json!(server.count_clients()), clients).await,
            None => {
                let topic = string(step, "topic");
                until(|| json!(server.count_subscribers(topic)), &step["subscribers"]).await
            }
        }
    }

    fn link(&self, step: &Value) -> Rc<Link> {
        self.links.borrow()[string(step, "client")].clone()
    }

    // Clients.

    async fn connect(self: &Rc<Self>, step: &Value) -> Outcome {
        let name = string(step, "client");
        let target = self.addresses.borrow()[step["server"].as_str().unwrap_or("server")].clone();
        let (cut, frozen) = (step["cut"] == true, step["frozen"] == true);
        let link = Link::open(target, cut, frozen).await;
        self.links.borrow_mut().insert(name.into(), link.clone());
        let url = step["url"].as_str().map_or_else(|| format!("ws://{}", link.address), Into::into);
        let given = &step["options"];
        let mut options = ConnectOptions {
            id: Some(given["id"].as_str().unwrap_or(name).into()),
            token: given["token"].as_str().map(Into::into),
            namespace: given["namespace"].as_str().map(Into::into),
            wait: given["wait"] != false,
            reconnect: given["reconnect"] != false,
            reconnect_min: Duration::from_millis(10),
            reconnect_max: Duration::from_millis(50),
            ..ConnectOptions::new(url)
        };
        if let Some(name) = given["outbox"]["$file"].as_str() {
            std::fs::create_dir_all(&self.folder.0).expect("a temporary folder");
            options.outbox = Some(self.folder.0.join(name));
        }
        if let Some(storage) = given.get("storage") {
            options.storage = Some(self.storage_options(storage)?);
        }
        if let Some(timeout) = given.get("timeout") {
            options.timeout = seconds(timeout)?;
        }
        if let Some(soft) = given.get("outbox_soft") {
            options.outbox_soft = int(soft);
        }
        if let Some(hard) = given.get("outbox_hard") {
            options.outbox_hard = int(hard);
        }
        if let Some(name) = given["outbox_overflow"].as_str() {
            options.outbox_overflow = OutboxOverflow::from_name(name).ok_or_else(|| {
                Error::new(ErrorKind::InvalidArgument, format!("no policy is called {name}"))
            })?;
        }
        let client = match &*options.url {
            "mem://" => {
                let client = Client::from(kps::server::connect(options)?);
                client.bridge().ready().await?;
                client.capabilities().open().await.map_err(|failure| failure.into_error())?;
                client
            }
            _ => Client::connect(options).await?,
        };
        let (logs, owner) = (self.logs.clone(), name.to_owned());
        let mut events = client.events();
        spawn_local(async move {
            while let Some(event) = events.next().await {
                log_event(&logs, &owner, &event);
            }
        });
        if let Some(script) = step.get("direct") {
            let handler = Handler::new(script, "message_to_id", &self.gates, &self.logs);
            let owner =
                Owner { client: name.into(), topic: String::new(), logs: self.logs.clone() };
            let (keep, commands) = mpsc::unbounded_channel();
            let direct = client.direct();
            spawn_local(async move {
                reader::serve(direct, commands, owner, handler).await;
                drop(keep);
            });
        }
        self.clients.borrow_mut().insert(name.into(), client);
        Ok(())
    }

    fn client(&self, step: &Value) -> Client {
        self.clients.borrow()[string(step, "client")].clone()
    }

    async fn close(&self, step: &Value) -> Outcome {
        let timeout = step.get("timeout").map_or(Ok(Duration::from_secs(5)), seconds)?;
        let report = self.client(step).close_within(timeout).await;
        let report = json!({ "flushed": report.flushed, "kept": report.kept, "abandoned": report.abandoned });
        step.get("report").map_or(Ok(()), |wanted| expect(wanted, &report))
    }

    async fn event(&self, step: &Value) -> Outcome {
        let (client, name) = (string(step, "client"), string(step, "name"));
        let wanted = step["args"].as_array().cloned().unwrap_or_default();
        loop {
            let args = tokio::select! {
                args = self.logs.take(client, name) => args,
                () = self.read_for(client) => unreachable!("it reads for ever"),
            };
            let args = args.as_array().cloned().unwrap_or_default();
            let args = json!(args[..wanted.len().min(args.len())]);
            if matches(&json!(wanted), &args) {
                return Ok(());
            }
            if step["skip"] != true {
                return fail(format!("{name}: {args} is not {}", json!(wanted)));
            }
        }
    }

    /// In Rust a subscription tells what happens to it in its stream, so that somebody must read.
    async fn read_for(&self, client: &str) {
        let all: Vec<Sub> = self.subs.borrow().values().cloned().collect();
        for sub in all.iter().filter(|sub| sub.client == client && sub.reads) {
            loop {
                let (reply, item) = oneshot::channel();
                if sub.commands.send(Command::Next(reply)).is_err()
                    || !matches!(item.await, Ok(Some(_)))
                {
                    break;
                }
            }
        }
        std::future::pending().await
    }

    // Subscriptions.

    fn sub_name(&self, step: &Value) -> String {
        step["sub"].as_str().unwrap_or("sub").to_owned()
    }

    async fn subscribe(self: &Rc<Self>, step: &Value) -> Outcome {
        let (client, topic) = (self.client(step), text(&step["topic"]));
        let given = &step["options"];
        let concurrency = given.get("concurrency").map_or(1, int);
        if concurrency == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, "not expressible in Rust").into());
        }
        let overflow = match given["overflow"].as_str() {
            Some(name) => Overflow::from_name(name)
                .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "no such policy"))?,
            None => Overflow::default(),
        };
        let options = SubscribeOptions {
            group: given["group"].as_str().map(Into::into),
            overflow,
            capacity: given.get("capacity").map(|count| u32::try_from(int(count)).expect("small")),
            start: self.start(&given["start"])?,
            durable: given["durable"].as_str().map(Into::into),
            redelivery: redelivery(given)?,
        };
        let sub = client.subscribe_with(&topic, options).await?;
        let name = self.sub_name(step);
        let (sender, commands) = mpsc::unbounded_channel();
        let owner = Owner {
            client: string(step, "client").into(),
            topic: topic.clone(),
            logs: self.logs.clone(),
        };
        match step.get("handler") {
            None => drop(spawn_local(reader::read(sub, commands, owner))),
            Some(script) => {
                let handler = Handler::new(script, &name, &self.gates, &self.logs);
                if concurrency == 1 {
                    drop(spawn_local(reader::serve(sub, commands, owner, handler)));
                } else {
                    let client = owner.client;
                    drop(spawn_local(sub.serve(concurrency, move |message| {
                        let (handler, client) = (handler.clone(), client.clone());
                        async move { handler.call(&client, &message).await }
                    })));
                }
            }
        }
        let reads = step.get("handler").is_none();
        let sub = Sub { client: string(step, "client").into(), topic, reads, commands: sender };
        self.subs.borrow_mut().insert(name, sub);
        Ok(())
    }

    fn start(&self, given: &Value) -> Result<StartAt> {
        match given {
            Value::Null => Ok(StartAt::New),
            Value::Number(_) => {
                Ok(StartAt::Time(u64::try_from(seconds(given)?.as_millis()).unwrap_or(u64::MAX)))
            }
            Value::String(text) => StartAt::parse(text),
            other => StartAt::parse(&self.cursors.borrow()[string(other, "$cursor")]),
        }
    }

    fn remember(&self, step: &Value, message: &Value) {
        if let Some(name) = step["cursor"].as_str() {
            let cursor = message["cursor"].as_str().expect("a message with a cursor");
            self.cursors.borrow_mut().insert(name.into(), cursor.into());
        }
    }

    fn remove_durable(&self, step: &Value) -> Outcome {
        let server = step["server"].as_str().unwrap_or("server");
        let server = self.servers.borrow()[server].clone();
        Ok(server.remove_durable(string(step, "name"))?)
    }

    async fn unsubscribe(&self, step: &Value) -> Outcome {
        let subs: Vec<Sub> = match step["topic"].as_str() {
            Some(topic) => {
                let wanted =
                    |sub: &&Sub| sub.topic == topic && sub.client == string(step, "client");
                self.subs.borrow().values().filter(wanted).cloned().collect()
            }
            None => vec![self.subs.borrow()[&self.sub_name(step)].clone()],
        };
        if subs.is_empty() {
            // A Rust program holds its subscriptions; it cannot name one that is not there.
            return Err(Error::new(ErrorKind::NotFound, "no such subscription").into());
        }
        for sub in subs {
            let (reply, done) = oneshot::channel();
            if sub.commands.send(Command::Unsubscribe(reply)).is_ok() {
                let _ = done.await;
            }
        }
        Ok(())
    }

    async fn next(&self, step: &Value) -> Outcome {
        let sub = self.subs.borrow()[&self.sub_name(step)].clone();
        let (reply, item) = oneshot::channel();
        let item = match sub.commands.send(Command::Next(reply)) {
            Ok(()) => item.await.ok().flatten(),
            Err(_) => None,
        };
        match (item, step.get("gap"), step.get("message")) {
            (None, None, Some(Value::Null)) => Ok(()),
            (Some(Received::Gap(gap)), Some(wanted), _) => expect(wanted, &value::gap(&gap)),
            (Some(Received::Message(message)), None, wanted) if wanted != Some(&Value::Null) => {
                let seen = value::message(&message);
                wanted.map_or(Ok(()), |wanted| expect(wanted, &seen))?;
                self.remember(step, &seen);
                if let Some(answer) = step["then"].get("respond") {
                    message.respond(payload(answer))?;
                }
                if let Some(text) = step["then"]["fail"].as_str() {
                    match step["then"]["delay"].as_f64() {
                        Some(delay) => {
                            let delay = Duration::from_secs_f64(delay);
                            message.fail_for(delay, "ValueError", text)?;
                        }
                        None => message.fail("ValueError", text)?,
                    }
                }
                Ok(())
            }
            (item, ..) => fail(format!("the next item is {item:?}")),
        }
    }

    async fn next_many(&self, step: &Value) -> Outcome {
        let sub = self.subs.borrow()[&self.sub_name(step)].clone();
        let mut seen = Vec::new();
        while seen.len() < int(&step["count"]) {
            let (reply, batch) = oneshot::channel();
            let batch = match sub.commands.send(Command::Batch(reply)) {
                Ok(()) => batch.await.ok().flatten(),
                Err(_) => None,
            };
            for item in batch.into_iter().flatten() {
                match item {
                    Received::Message(message) => seen.push(value::data(&message.payload)),
                    other => return fail(format!("in between came {other:?}")),
                }
            }
        }
        numbers(&seen, int(&step["count"]))
    }

    /// The data or messages that a handler got are logged under its subscription's name.
    async fn handled(&self, step: &Value) -> Value {
        let (sub, name) = (self.sub_owner(step), self.sub_name(step));
        self.logs.take(&sub, &name).await[0].clone()
    }

    /// Nobody owns what callbacks and capabilities were called with.
    fn sub_owner(&self, step: &Value) -> String {
        let subs = self.subs.borrow();
        subs.get(&self.sub_name(step)).map(|sub| sub.client.clone()).unwrap_or_default()
    }

    async fn expect(&self, step: &Value) -> Outcome {
        for wanted in step["messages"].as_array().expect("messages") {
            let message = self.handled(step).await;
            expect(&self.filled(wanted), &message)?;
            self.remember(step, &message);
        }
        Ok(())
    }

    async fn expect_last(&self, step: &Value) -> Outcome {
        for wanted in step["messages"].as_array().expect("messages") {
            let mut message = self.handled(step).await;
            let wanted = self.filled(wanted);
            while !matches(&wanted, &message) {
                message = self.handled(step).await;
            }
            self.remember(step, &message);
        }
        Ok(())
    }

    async fn expect_many(&self, step: &Value) -> Outcome {
        let count = int(&step["count"]);
        let mut seen = Vec::new();
        let Some(subs) = step["subs"].as_array() else {
            while seen.len() < count {
                seen.push(self.handled(step).await["data"].clone());
            }
            return numbers(&seen, count);
        };
        let names: Vec<(String, String)> = subs
            .iter()
            .map(|name| (self.subs.borrow()[&text(name)].client.clone(), text(name)))
            .collect();
        let total = || names.iter().map(|(client, sub)| self.logs.len(client, sub)).sum::<usize>();
        until(|| json!(total()), &step["count"]).await?;
        let mut all = Vec::new();
        for (client, sub) in &names {
            let mut mine = Vec::new();
            while let Some(entry) = self.logs.try_take(client, sub) {
                mine.push(entry[0]["data"].as_u64().expect("a number"));
            }
            if mine.is_empty() || !mine.is_sorted() {
                return fail(format!("{sub}: {mine:?}"));
            }
            all.extend(mine);
        }
        all.sort_unstable();
        numbers(&all.into_iter().map(Value::from).collect::<Vec<_>>(), count)
    }

    async fn ledger(&self, step: &Value) -> Outcome {
        let sub = self.subs.borrow()[&self.sub_name(step)].clone();
        let client = self.clients.borrow()[&sub.client].clone();
        let read = || {
            let ledger = client.ledger();
            let entry = ledger.subscriptions.iter().find(|entry| entry.pattern == sub.topic);
            let counts = entry.map_or(ledger.totals, |entry| entry.counts);
            let all = json!({
                "accepted": counts.accepted(), "delivered": counts.delivered,
                "dropped": counts.dropped_total(), "expired": counts.expired,
                "cancelled": counts.cancelled, "pending": counts.pending,
            });
            keys(&step["is"]).into_iter().map(|key| (key.clone(), all[key].clone())).collect()
        };
        until(read, &step["is"]).await
    }

    // Publishing.

    async fn publish(&self, step: &Value) -> Outcome {
        let given = &step["options"];
        let extras = extras(given)?;
        let receipt = given["receipt"].as_str().map(receipt_level).transpose()?;
        let topic = text(&step["topic"]);
        let data = payload(&step["data"]);
        let client = self.client(step);
        let receipt = match given["retain"] == true {
            true => client.publish_retained_with(&topic, data, &extras, receipt)?,
            false => client.publish_with(To::Topic(&topic), data, &extras, receipt)?,
        };
        settled(receipt, step).await
    }

    fn publish_with_ack(&self, step: &Value, to: To<'_>, data: Payload) -> Outcome {
        let (timeout, extras) = (timeout(step)?, extras(&step["options"])?);
        let ack = self.client(step).publish_with_ack_with(to, data, timeout, &extras)?;
        let ack = Rc::new(tokio::sync::RwLock::new(ack));
        self.acks.borrow_mut().insert(step["ack"].as_str().unwrap_or("ack").into(), ack);
        Ok(())
    }

    fn ack(&self, step: &Value) -> Rc<tokio::sync::RwLock<Ack>> {
        self.acks.borrow()[step["ack"].as_str().unwrap_or("ack")].clone()
    }
}

fn extras(given: &Value) -> Result<Extras> {
    let headers = given["headers"].as_object().into_iter().flatten();
    Ok(Extras {
        headers: headers.map(|(name, value)| (name.clone(), text(value))).collect(),
        id: given["id"].as_str().map(Into::into),
        ttl: given.get("ttl").map(seconds).transpose()?,
        to: given["to"].as_array().map(|to| to.iter().map(text).collect()),
        private: given["private"] == true,
        offline: match given["offline"].as_str() {
            Some(name) => Offline::parse(name)?,
            None => Offline::Keep,
        },
    })
}

fn redelivery(given: &Value) -> Result<Redelivery> {
    let mut redelivery = Redelivery::default();
    if let Some(time) = given.get("ack_wait") {
        redelivery.ack_wait = seconds(time)?;
    }
    if let Some(time) = given.get("retry_delay") {
        redelivery.retry_delay = seconds(time)?;
    }
    if let Some(attempts) = given.get("max_attempts") {
        redelivery.max_attempts = u32::try_from(int(attempts)).expect("a small number");
    }
    Ok(redelivery)
}

fn server_options(listen: String, given: &Value, folder: &Path) -> Result<ServerOptions> {
    let mut options = ServerOptions::listen(listen);
    for (name, value) in given.as_object().into_iter().flatten() {
        match name.as_str() {
            "listen" | "storage" => {}
            "id" => options.id = Some(text(value)),
            "token" => options.tokens.push(Token::new(text(value))),
            "tokens" => {
                for (secret, principal) in value.as_object().expect("tokens by secret") {
                    let mut token = Token::new(secret).name(text(&principal["name"]));
                    if let Some(patterns) = principal["publish"].as_array() {
                        token = token.publish(patterns.iter().filter_map(Value::as_str))?;
                    }
                    if let Some(patterns) = principal["subscribe"].as_array() {
                        token = token.subscribe(patterns.iter().filter_map(Value::as_str))?;
                    }
                    options.tokens.push(token);
                }
            }
            "history" => {
                let rules = value.as_array().expect("a list of rules").iter();
                options.history =
                    rules.map(|rule| HistoryRule::parse(&text(rule))).collect::<Result<_>>()?;
            }
            "data" => options.data = Some(folder.into()),
            "audit" => options.audit = Some(AuditOptions::parse(value.as_str().unwrap_or(""))?),
            "duplicate_window" => options.duplicate_window = seconds(value)?,
            "insecure" => options.insecure = value == true,
            "forbid_block" => options.forbid_block = value == true,
            "max_payload" => options.limits.payload = int(value),
            "heartbeat" => options.timings.heartbeat = seconds(value)?,
            "silence" => options.timings.silence = seconds(value)?,
            "resume_window" => options.timings.resume_window = seconds(value)?,
            "stall_timeout" => options.timings.stall_timeout = seconds(value)?,
            "on_connect" => {
                let script = value.clone();
                options.on_connect =
                    Some(auth::decide_at_once(move |request| decide(&script, request)));
            }
            other => panic!("no server option is called {other}"),
        }
    }
    Ok(options)
}

fn decide(script: &Value, request: &auth::ConnectRequest) -> auth::Decision {
    let refused = script["refuse"]
        .as_array()
        .is_some_and(|ids| ids.iter().any(|id| id == request.client_id.as_str()));
    if refused {
        return Err(Error::new(ErrorKind::Unauthorized, "refused by the script"));
    }
    let mut token = Token::new("");
    let grant = &script["grant"][&request.client_id];
    if let Some(patterns) = grant["publish"].as_array() {
        token = token.publish(patterns.iter().filter_map(Value::as_str))?;
    }
    if let Some(patterns) = grant["subscribe"].as_array() {
        token = token.subscribe(patterns.iter().filter_map(Value::as_str))?;
    }
    Ok(if grant.is_object() { token.principal } else { request.principal.clone() })
}

fn log_event(logs: &Logs, client: &str, event: &Event) {
    match event {
        Event::State { state, error, resumed } => {
            logs.put(client, "state", json!([state.as_str()]));
            match state.as_str() {
                "connected" => logs.put(client, "connection_opened", json!([resumed])),
                "reconnecting" => {
                    logs.put(client, "connection_closed", json!([value::code(error.as_ref())]))
                }
                "closed" => logs.put(client, "closed", json!([value::code(error.as_ref())])),
                _ => {}
            }
        }
        Event::PublishFailed { id, error, .. } => {
            logs.put(client, "publish_failed", json!([id, value::code(Some(error))]));
        }
        Event::OutboxFlushed { count } => logs.put(client, "outbox_flushed", json!([count])),
        Event::MessagePublished { id, .. } => logs.put(client, "message_published", json!([id])),
        Event::Backpressure { on } => logs.put(client, "backpressure", json!([on])),
        Event::Error { error } => logs.put(client, "error", json!([value::code(Some(error))])),
        Event::Goaway { reason } => logs.put(client, "goaway", json!([reason])),
        Event::Server { event, .. } => {
            let arguments = event.arguments().into_iter().map(value::told).collect();
            logs.put(client, event.name(), arguments);
        }
        Event::ServerMessage { from, payload } => {
            let message = json!([{ "data": value::data(payload), "sender": &**from }]);
            logs.put(client, "server_message", message);
        }
        _ => {}
    }
}

fn receipt_level(name: &str) -> Result<ReceiptLevel> {
    use ReceiptLevel::{Accepted, Queued, QueuedOnDisk, Replicated, Stored};
    let all = [Queued, QueuedOnDisk, Accepted, Stored, Replicated];
    all.into_iter()
        .find(|level| level.as_str() == name)
        .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "no such receipt level"))
}

async fn settled(receipt: Receipt, step: &Value) -> Outcome {
    match step.get("level") {
        Some(level) => expect(level, &json!(receipt.await?.as_str())),
        None if step.get("error").is_some() => Ok(receipt.await.map(|_| ())?),
        None => Ok(()),
    }
}

fn timeout(step: &Value) -> Result<Duration> {
    step.get("timeout").map_or(Ok(kps::client::DEFAULT_TIMEOUT), seconds)
}

fn string<'a>(step: &'a Value, name: &str) -> &'a str {
    step[name].as_str().unwrap_or_else(|| panic!("{step} has no {name}"))
}

fn keys(value: &Value) -> Vec<String> {
    let mut keys: Vec<_> =
        value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    keys.sort();
    keys
}

fn numbers(seen: &[Value], count: usize) -> Outcome {
    if seen.len() == count && seen.iter().enumerate().all(|(at, number)| *number == at) {
        return Ok(());
    }
    fail(format!("not the numbers from 0 to {count}: {}", json!(seen)))
}

fn expect(wanted: &Value, actual: &Value) -> Outcome {
    if matches(wanted, actual) { Ok(()) } else { fail(format!("{actual} is not {wanted}")) }
}

/// Waits for a value that no event announces; fails with the last one seen.
async fn until(read: impl Fn() -> Value, wanted: &Value) -> Outcome {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = read();
        if seen == *wanted {
            return Ok(());
        }
        if Instant::now() > end {
            return fail(format!("still {seen}, not {wanted}"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn patiently(work: impl Future<Output = Outcome>) -> Outcome {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(outcome) => outcome,
        Err(_) => fail("took too long".into()),
    }
}

fn fail<T>(why: String) -> Outcome<T> {
    Err(Failure::Case(why))
}

fn told(outcome: Outcome) -> std::result::Result<(), String> {
    outcome.map_err(|failure| match failure {
        Failure::Kps(error) => error.to_string(),
        Failure::Refused(refused) => refused.to_string(),
        Failure::Case(why) => why,
    })
}
