//! Who owns a subscription in a case: it reads for `next`, or calls the scripted handler.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use kps::{Error, ErrorKind, Received, Subscription, client::Delivered, message::Payload};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::{log::Logs, value};

pub(crate) enum Command {
    /// The next item; `None` when it has ended.
    Next(oneshot::Sender<Option<Received>>),
    /// All items that are there.
    Batch(oneshot::Sender<Option<Vec<Received>>>),
    Unsubscribe(oneshot::Sender<()>),
}

/// Whose subscription, for what it tells beside messages.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) client: String,
    pub(crate) topic: String,
    pub(crate) logs: Rc<Logs>,
}

impl Owner {
    fn tell(&self, item: &Received) {
        match item {
            Received::Gap(gap) => self.logs.put(&self.client, "gap", json!([value::gap(gap)])),
            Received::Resumed(replayed) => {
                let resumed = json!([{ "topic": self.topic, "replayed": replayed }]);
                self.logs.put(&self.client, "resumed", resumed);
            }
            Received::Closed(error) => {
                let closed = json!([value::code(Some(error))]);
                self.logs.put(&self.client, "subscription_closed", closed);
            }
            Received::Message(_) => {}
        }
    }
}

/// Reads as it is told.
pub(crate) async fn read(
    mut sub: Subscription,
    mut commands: mpsc::UnboundedReceiver<Command>,
    owner: Owner,
) {
    let mut asked = None;
    loop {
        let command = match asked.take() {
            Some(command) => command,
            None => match commands.recv().await {
                Some(command) => command,
                None => return,
            },
        };
        match command {
            Command::Unsubscribe(done) => {
                sub.unsubscribe().await;
                let _ = done.send(());
                return;
            }
            Command::Batch(reply) => {
                let batch = sub.batch().await;
                batch.iter().flatten().for_each(|item| owner.tell(item));
                let _ = reply.send(batch);
            }
            Command::Next(reply) => loop {
                tokio::select! {
                    item = sub.next() => match item {
                        Some(item @ (Received::Resumed(_) | Received::Closed(_))) => owner.tell(&item),
                        item => {
                            item.iter().for_each(|item| owner.tell(item));
                            let _ = reply.send(item);
                            break;
                        }
                    },
                    next = commands.recv() => {
                        // Dropping the reply says that the iterator ended.
                        asked = next;
                        break;
                    }
                }
            },
        }
    }
}

/// Calls the handler, one message at a time.
pub(crate) async fn serve(
    mut sub: Subscription,
    mut commands: mpsc::UnboundedReceiver<Command>,
    owner: Owner,
    handler: Rc<Handler>,
) {
    loop {
        let unsubscribe = tokio::select! {
            biased;
            command = commands.recv() => command,
            item = sub.next() => {
                let Some(item) = item else { return };
                owner.tell(&item);
                let Received::Message(message) = item else { continue };
                tokio::select! {
                    biased;
                    command = commands.recv() => command,
                    () = handler.answer(&owner, message) => continue,
                }
            }
        };
        if let Some(Command::Unsubscribe(done)) = unsubscribe {
            sub.unsubscribe().await;
            let _ = done.send(());
        }
        return;
    }
}

/// A scripted handler.
pub(crate) struct Handler {
    pub(crate) name: String,
    script: Vec<Value>,
    calls: RefCell<usize>,
    /// When the handler that just failed wants its message again.
    retry: Cell<Option<Duration>>,
    gates: Rc<Gates>,
    logs: Rc<Logs>,
}

impl Handler {
    /// What it gets is logged for `client` as `name`.
    pub(crate) fn new(script: &Value, name: &str, gates: &Rc<Gates>, logs: &Rc<Logs>) -> Rc<Self> {
        let script = script.as_array().cloned().unwrap_or_else(|| vec![script.clone()]);
        let (gates, logs) = (gates.clone(), logs.clone());
        let name = name.into();
        let (calls, retry) = (RefCell::default(), Cell::default());
        Rc::new(Handler { name, script, calls, retry, gates, logs })
    }

    pub(crate) async fn call(&self, client: &str, message: &Delivered) -> kps::Result<Payload> {
        let behaviour = {
            let mut calls = self.calls.borrow_mut();
            *calls += 1;
            self.script[(*calls).min(self.script.len()) - 1].clone()
        };
        self.logs.put(client, &self.name, json!([value::message(message)]));
        if behaviour == "never" {
            std::future::pending::<()>().await;
        }
        if let Some(gate) = behaviour["hold"].as_str() {
            self.gates.hold(gate).await;
        }
        if let Some(delay) = behaviour["retry"].as_f64() {
            self.retry.set(Some(Duration::from_secs_f64(delay)));
            return Err(Error::new(ErrorKind::HandlerFailed, "retry"));
        }
        match behaviour["raise"].as_str() {
            Some(text) => Err(Error::new(ErrorKind::HandlerFailed, text.to_owned())),
            None => Ok(value::payload(&behaviour["return"])),
        }
    }

    async fn answer(&self, owner: &Owner, message: Delivered) {
        let answered = match self.call(&owner.client, &message).await {
            Ok(payload) => message.respond(payload),
            Err(error) => {
                let told = json!([value::code(Some(&error)), value::message(&message)]);
                owner.logs.put(&owner.client, "handler_error", told);
                match self.retry.take() {
                    Some(delay) => message.fail_for(delay, "Retry", error.message()),
                    None => message.fail("ValueError", error.message()),
                }
            }
        };
        // The publisher may have given up.
        drop(answered);
    }
}

/// Places where handlers wait until the case goes on.
#[derive(Default)]
pub(crate) struct Gates {
    gates: RefCell<HashMap<String, (usize, watch::Sender<bool>)>>,
    held: Notify,
}

impl Gates {
    pub(crate) async fn hold(&self, name: &str) {
        let mut open = {
            let mut gates = self.gates.borrow_mut();
            let gate = gates.entry(name.into()).or_default();
            gate.0 += 1;
            gate.1.subscribe()
        };
        self.held.notify_waiters();
        open.wait_for(|open| *open).await.expect("gates outlive handlers");
    }

    pub(crate) async fn started(&self, name: &str, count: usize) {
        loop {
            let held = self.held.notified();
            if self.gates.borrow().get(name).is_some_and(|gate| gate.0 >= count) {
                return;
            }
            held.await;
        }
    }

    pub(crate) fn release(&self, name: &str) {
        self.gates.borrow_mut().entry(name.into()).or_default().1.send_replace(true);
    }
}
