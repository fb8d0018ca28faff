//! From core's events to whoever waits for them.

use std::sync::{Arc, Weak};

use kps::{
    ClientKey, ClientState, Error, ErrorKind, Event, Item, SubId,
    events::{Value, vocabulary},
    message::Answer,
};
use pyo3::{IntoPyObjectExt, prelude::*, types::PyTuple};

use crate::{
    errors,
    host::Host,
    message::{Message, Reply},
    shared::Shared,
    subscription::{Entry, Sub, Subscription},
    values::{AckRow, Gap, Resumed},
};

/// The event behind `on_server_message`.
pub(crate) const SERVER_MESSAGE: &str = "server_message";

/// One batch on its way. Remembers the last subscription: messages come in runs.
pub(crate) struct Dispatch<'py, 'a> {
    py: Python<'py>,
    host: &'a Arc<Host>,
    last: Option<((ClientKey, SubId), Arc<Sub>)>,
}

impl Drop for Dispatch<'_, '_> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl<'py, 'a> Dispatch<'py, 'a> {
    pub(crate) fn new(py: Python<'py>, host: &'a Arc<Host>) -> Self {
        Dispatch { py, host, last: None }
    }

    /// An error is one that ends the program (`KeyboardInterrupt`).
    #[inline]
    pub(crate) fn item(&mut self, item: Item) -> PyResult<()> {
        let client = item.client;
        match item.event {
            Event::Message { sub, message, delivery, request: _ } => {
                let Some(found) = self.sub(client, sub) else {
                    return self.nobodys(client, sub, message, delivery);
                };
                let reply =
                    delivery.map(|delivery| Arc::new(Reply::new(found.shared.clone(), delivery)));
                if found.shared.hears_messages() {
                    self.emit(&found.shared, false, "message_received", |py| {
                        (Message::new(message.clone(), reply.clone()),).into_pyobject(py)
                    });
                }
                found.deliver(self.py, self.host, message, reply)
            }
            event => self.rare(client, event),
        }
    }

    #[inline]
    fn sub(&mut self, client: ClientKey, sub: SubId) -> Option<Arc<Sub>> {
        let key = (client, sub);
        if let Some((last, found)) = &self.last
            && *last == key
        {
            return Some(found.clone());
        }
        let found = self.host.tables.lock().subs.get(&key).cloned()?;
        self.settle();
        self.last = Some((key, found.clone()));
        Some(found)
    }

    /// The run of messages for one subscription is over.
    fn settle(&mut self) {
        if let Some((_, sub)) = self.last.take()
            && sub.handler.is_some()
        {
            sub.report(self.py);
        }
    }

    fn rare(&mut self, client: ClientKey, event: Event) -> PyResult<()> {
        let py = self.py;
        match event {
            Event::State { state, error, resumed } => {
                self.state(client, state, error.as_ref(), resumed);
                Ok(())
            }
            Event::Subscribed { sub } => {
                let slot = self.sub(client, sub).and_then(|sub| {
                    let slot = sub.state.lock().confirmed.take()?;
                    Some((slot, sub))
                });
                if let Some((slot, sub)) = slot {
                    let subscription = Py::new(py, Subscription::new(sub))?;
                    slot.fill(py, Ok(subscription.into_any()));
                }
                Ok(())
            }
            Event::SubscribeFailed { sub, error } => self.ended(client, sub, Some(error)),
            Event::Unsubscribed { sub } => self.ended(client, sub, None),
            Event::SubscriptionClosed { sub, error } => {
                if let Some(sub) = self.sub(client, sub) {
                    self.emit(&sub.shared.clone(), false, "subscription_closed", |py| {
                        let error = errors::to_py(py, &error).into_value(py);
                        (error, Subscription::new(sub)).into_pyobject(py)
                    });
                }
                self.ended(client, sub, Some(error))
            }
            Event::Gap { sub, gap } => {
                if let Some(sub) = self.sub(client, sub) {
                    self.emit(&sub.shared.clone(), false, "gap", |py| {
                        (Gap::from(&gap), Subscription::new(sub.clone())).into_pyobject(py)
                    });
                    if sub.handler.is_none() {
                        sub.push(py, Entry::Gap(gap));
                    }
                }
                Ok(())
            }
            Event::Resumed { sub, replayed } => {
                if let Some(sub) = self.sub(client, sub) {
                    self.emit(&sub.shared.clone(), false, "resumed", |py| {
                        let resumed = Resumed { topic: sub.topic.clone(), replayed };
                        (resumed, Subscription::new(sub)).into_pyobject(py)
                    });
                }
                Ok(())
            }
            Event::CancelDelivery { sub, delivery } => {
                if let Some(sub) = self.sub(client, sub) {
                    sub.cancel(py, delivery)?;
                }
                Ok(())
            }
            Event::Receipt { number, level } => {
                let level = level.as_str().into_py_any(py)?;
                self.receipts(client, number, &|| Ok(level.clone_ref(py)));
                Ok(())
            }
            Event::PublishFailed { number, id, error } => {
                self.receipts(client, number, &|| Err(errors::to_py(py, &error)));
                if let Some(shared) = self.client(client) {
                    self.emit(&shared, true, "publish_failed", |py| {
                        let error_object = errors::to_py(py, &error).into_value(py);
                        (id, error_object).into_pyobject(py)
                    });
                }
                let ack = self.host.tables.lock().acks.remove(&(client, number));
                if let Some(ack) = ack {
                    ack.get().failed(py, error);
                }
                Ok(())
            }
            Event::OutboxFlushed { count } => {
                if let Some(shared) = self.client(client) {
                    self.emit(&shared, true, "outbox_flushed", |py| (count,).into_pyobject(py));
                }
                Ok(())
            }
            Event::Room => {
                if let Some(shared) = self.client(client) {
                    shared.room.ring(py);
                }
                Ok(())
            }
            Event::Recipients { ack, clients } => {
                self.ack(client, ack, |ack| ack.recipients(py, clients));
                Ok(())
            }
            Event::Row { ack, row } => {
                self.ack(client, ack, |ack| ack.row(py, row));
                Ok(())
            }
            Event::AckDone { ack, error } => {
                let ack = self.host.tables.lock().acks.remove(&(client, ack));
                match (ack, error) {
                    (Some(ack), None) => ack.get().done(py),
                    (Some(ack), Some(error)) => ack.get().failed(py, error),
                    (None, _) => {}
                }
                Ok(())
            }
            Event::RequestDone { ack, result } => {
                let slot = self.host.tables.lock().requests.remove(&(client, ack));
                if let Some(slot) = slot {
                    let answer = match result {
                        Ok(row) => AckRow::new(row).data(py),
                        Err(error) => Err(errors::to_py(py, &error)),
                    };
                    slot.fill(py, answer);
                }
                Ok(())
            }
            Event::Flushed { token, error } => {
                let slot = self.host.tables.lock().flushes.remove(&(client, token));
                if let Some(slot) = slot {
                    slot.fill(
                        py,
                        error.map_or(Ok(py.None()), |error| Err(errors::to_py(py, &error))),
                    );
                }
                Ok(())
            }
            Event::MessagePublished { id, .. } => {
                if let Some(shared) = self.client(client) {
                    self.emit(&shared, true, "message_published", |py| (id,).into_pyobject(py));
                }
                Ok(())
            }
            Event::Backpressure { on } => {
                if let Some(shared) = self.client(client) {
                    self.emit(&shared, true, "backpressure", |py| (on,).into_pyobject(py));
                }
                Ok(())
            }
            Event::Goaway { reason } => {
                if let Some(shared) = self.client(client) {
                    self.emit(&shared, true, "goaway", |py| (reason,).into_pyobject(py));
                }
                Ok(())
            }
            Event::Error { error } => {
                if let Some(shared) = self.client(client) {
                    let error = errors::to_py(py, &error).into_value(py);
                    shared.emit_error(py, self.host, true, error.bind(py).as_any());
                }
                Ok(())
            }
            Event::Server { event, place: _ } => {
                self.server_event(client, event.name(), |py| {
                    let values = event.arguments().into_iter().map(|value| argument(py, value));
                    PyTuple::new(py, values.collect::<PyResult<Vec<_>>>()?)
                });
                Ok(())
            }
            Event::ServerMessage { from, payload } => {
                self.server_event(client, SERVER_MESSAGE, |py| {
                    (Message::to_server(&from, payload),).into_pyobject(py)
                });
                Ok(())
            }
            // A core newer than this binding may say more.
            _ => Ok(()),
        }
    }

    fn state(&self, client: ClientKey, state: ClientState, error: Option<&Error>, resumed: bool) {
        let Some(shared) = self.client(client) else { return };
        self.emit(&shared, true, "state", |py| (state.as_str(),).into_pyobject(py));
        let with_error = |py| {
            let error = error.map(|error| errors::to_py(py, error).into_value(py));
            (error,).into_pyobject(py)
        };
        match state {
            ClientState::Connecting => {}
            ClientState::Connected => {
                self.emit(&shared, true, "connection_opened", |py| (resumed,).into_pyobject(py));
            }
            ClientState::Reconnecting => {
                self.emit(&shared, true, "connection_closed", with_error);
            }
            ClientState::Closed => {
                self.emit(&shared, true, "closed", with_error);
                self.over(client, &shared, error);
            }
        }
    }

    /// The client is closed: nothing that waits for it here gets another event.
    fn over(&self, client: ClientKey, shared: &Shared, error: Option<&Error>) {
        let py = self.py;
        let mut tables = self.host.tables.lock();
        let of = |key: &ClientKey| *key == client;
        let subs: Vec<_> =
            tables.subs.extract_if(|key, _| of(&key.0)).map(|(_, sub)| sub).collect();
        let acks: Vec<_> =
            tables.acks.extract_if(|key, _| of(&key.0)).map(|(_, ack)| ack).collect();
        let mut slots: Vec<_> =
            tables.requests.extract_if(|key, _| of(&key.0)).map(|(_, slot)| slot).collect();
        slots.extend(tables.flushes.extract_if(|key, _| of(&key.0)).map(|(_, slot)| slot));
        slots.extend(tables.receipts.extract_if(|key, _| of(&key.0)).flat_map(|(_, slots)| slots));
        tables.clients.remove(&client);
        drop(tables);
        let closed = Error::new(ErrorKind::Closed, "the client was closed");
        let error = error.unwrap_or(&closed);
        for sub in subs {
            sub.end(py, Some(error.clone()).filter(|error| error.kind() != ErrorKind::Closed));
        }
        for ack in acks {
            ack.get().failed(py, error.clone());
        }
        for slot in slots {
            slot.fill(py, Err(errors::to_py(py, error)));
        }
        shared.room.ring(py);
        shared.forget_at(self.host);
    }

    fn ended(&mut self, client: ClientKey, sub: SubId, error: Option<Error>) -> PyResult<()> {
        self.settle();
        let sub = self.host.tables.lock().subs.remove(&(client, sub));
        if let Some(sub) = sub {
            // Its own end is no error: the stream just stops.
            sub.end(self.py, error.filter(|error| error.kind() != ErrorKind::Closed));
        }
        Ok(())
    }

    /// A message for no subscription of this loop: one that was just ended, or one sent to the
    /// client's id that nobody handles.
    #[cold]
    fn nobodys(
        &self,
        client: ClientKey,
        sub: SubId,
        message: kps::message::Message,
        delivery: Option<u64>,
    ) -> PyResult<()> {
        let Some(shared) = self.client(client) else { return Ok(()) };
        if shared.hears_messages() {
            self.emit(&shared, false, "message_received", |py| {
                (Message::new(message, None),).into_pyobject(py)
            });
        }
        shared.send(self.py, |link, hint| {
            if let Some(delivery) = delivery {
                // Closed meanwhile: the broker tells the publisher.
                let _ = link.answer(delivery, Answer::NoHandler, hint);
            }
            link.consumed(sub, 1, hint);
        });
        Ok(())
    }

    fn server_event(
        &self,
        client: ClientKey,
        event: &str,
        arguments: impl FnOnce(Python<'py>) -> PyResult<Bound<'py, PyTuple>>,
    ) {
        if let Some(shared) = self.client(client) {
            shared.emit(self.py, self.host, true, event, || arguments(self.py));
        }
    }

    fn receipts(&self, client: ClientKey, number: u64, result: &dyn Fn() -> PyResult<Py<PyAny>>) {
        let slots = self.host.tables.lock().receipts.remove(&(client, number));
        for slot in slots.into_iter().flatten() {
            slot.fill(self.py, result());
        }
    }

    fn ack(&self, client: ClientKey, number: u64, tell: impl FnOnce(&crate::ack::Ack)) {
        let ack = {
            let tables = self.host.tables.lock();
            tables.acks.get(&(client, number)).map(|ack| ack.clone_ref(self.py))
        };
        if let Some(ack) = ack {
            tell(ack.get());
        }
    }

    fn client(&self, client: ClientKey) -> Option<Arc<Shared>> {
        self.host.tables.lock().clients.get(&client).and_then(Weak::upgrade)
    }

    /// What a client tells; a server's own one nothing that the server tells under the same name.
    fn emit(
        &self,
        shared: &Arc<Shared>,
        here_only: bool,
        event: &str,
        arguments: impl FnOnce(Python<'py>) -> PyResult<Bound<'py, PyTuple>>,
    ) {
        let py = self.py;
        if shared.server().is_none() || !vocabulary::is_servers(event) {
            shared.emit(py, self.host, here_only, event, || arguments(py));
        }
    }
}

/// An argument of a server's event.
fn argument(py: Python<'_>, value: Value<'_>) -> PyResult<Py<PyAny>> {
    match value {
        Value::None => Ok(py.None()),
        Value::Text(text) => text.into_py_any(py),
        Value::Number(number) => number.into_py_any(py),
        Value::Flag(flag) => flag.into_py_any(py),
        Value::Error(error) => errors::to_py(py, error).into_value(py).into_py_any(py),
    }
}
