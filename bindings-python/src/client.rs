//! The client, as Python sees it. `kps/_client.py` puts the names of KPS beside these.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kps::{
    AckRequest, ConnectOptions, ErrorKind, PublishOptions, Target, To,
    events::vocabulary,
    net::{Ca, TlsOptions},
    options::{OutboxOverflow, Overflow, SubscribeOptions},
    runtime,
};
use parking_lot::RwLock;
use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};

use crate::{
    ack::Ack,
    arguments::{self, Given, callable, count, given, invalid, seconds, start_at, text},
    calls, direct,
    dispatch::SERVER_MESSAGE,
    document,
    errors::{self, OrRaise},
    exit::Inside,
    host::Host,
    ledger, payload,
    receipt::Receipt,
    shared::Shared,
    subscription::Sub,
    values::CloseReport,
    wait::{Await, Lazy, Slot},
};

/// A participant with an id: it publishes and subscribes.
#[pyclass(frozen, subclass, weakref, module = "kps._kps", name = "Client")]
pub(crate) struct Client {
    /// `None` in a server that was not started.
    shared: RwLock<Option<Arc<Shared>>>,
}

impl Client {
    pub(crate) fn shared(&self, py: Python<'_>) -> PyResult<Arc<Shared>> {
        self.shared.read().clone().ok_or_else(|| {
            let sentence = "the server is not started: use `async with`, or await start()";
            errors::raise(py, ErrorKind::NotConnected, sentence)
        })
    }

    pub(crate) fn set_shared(&self, shared: Option<Arc<Shared>>) {
        let before = std::mem::replace(&mut *self.shared.write(), shared);
        drop(before);
    }
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (*_arguments, **_options))]
    fn new(
        _arguments: &Bound<'_, pyo3::types::PyTuple>,
        _options: Option<&Bound<'_, PyDict>>,
    ) -> Self {
        Client { shared: RwLock::new(None) }
    }

    /// Starts connecting. The running loop becomes the client's home.
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (url, *, id = None, token = None, namespace = None, timeout = None, reconnect = None,
        reconnect_min = None, reconnect_max = None, outbox = None, outbox_soft = None, outbox_hard = None,
        outbox_overflow = None, storage = None, ca = None))]
    fn _start(
        &self,
        py: Python<'_>,
        url: &Bound<'_, PyAny>,
        id: Option<&Bound<'_, PyAny>>,
        token: Option<&Bound<'_, PyAny>>,
        namespace: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
        reconnect: Option<bool>,
        reconnect_min: Option<&Bound<'_, PyAny>>,
        reconnect_max: Option<&Bound<'_, PyAny>>,
        outbox: Option<PathBuf>,
        outbox_soft: Option<&Bound<'_, PyAny>>,
        outbox_hard: Option<&Bound<'_, PyAny>>,
        outbox_overflow: Option<&Bound<'_, PyAny>>,
        storage: Option<&Bound<'_, PyAny>>,
        ca: Option<PathBuf>,
    ) -> PyResult<()> {
        let host = Host::current(py)?;
        let owned = |value, name| {
            given(value).map(|value| text(value, name).map(str::to_owned)).transpose()
        };
        let mut options = ConnectOptions::new(text(url, "url")?);
        options.agent = concat!("kps-python/", env!("CARGO_PKG_VERSION")).into();
        options.id = owned(id, "id")?;
        options.token = owned(token, "token")?;
        options.namespace = owned(namespace, "namespace")?;
        options.reconnect = reconnect.unwrap_or(options.reconnect);
        set(&mut options.timeout, timeout, |value| seconds(value, "timeout"))?;
        set(&mut options.reconnect_min, reconnect_min, |value| seconds(value, "reconnect_min"))?;
        set(&mut options.reconnect_max, reconnect_max, |value| seconds(value, "reconnect_max"))?;
        options.outbox = outbox;
        set(&mut options.outbox_soft, outbox_soft, |value| bytes(value, "outbox_soft"))?;
        set(&mut options.outbox_hard, outbox_hard, |value| bytes(value, "outbox_hard"))?;
        set(&mut options.outbox_overflow, outbox_overflow, |value| {
            let name = text(value, "outbox_overflow")?;
            OutboxOverflow::from_name(name).ok_or_else(|| {
                let known = "it is one of refuse, drop_oldest";
                invalid(py, format!("outbox_overflow is {name:?}; {known}"))
            })
        })?;
        options.storage = given(storage).map(calls::storage_options).transpose()?;
        options.tls = TlsOptions { ca: ca.map(Ca::File), ..TlsOptions::default() };
        let shared = Shared::new(kps::server::connect(options).or_raise(py)?);
        shared.set_home(&host);
        host.attach(&shared);
        self.set_shared(Some(shared));
        Ok(())
    }

    /// Waits for the first handshake.
    fn _ready(&self, py: Python<'_>) -> PyResult<Await> {
        let link = self.shared(py)?.link().clone();
        let ready = async move {
            calls::open(link.clone()).await?;
            link.ready().await
        };
        Ok(finish("connect", ready, |py, result: kps::Result<()>| {
            result.or_raise(py).map(|()| py.None())
        }))
    }

    /// The first handshake failed: lets go of the connection.
    fn _give_up(&self) {
        self.set_shared(None);
    }

    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.shared(py)?.link().id().unwrap_or_default())
    }

    #[getter]
    fn url(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.shared(py)?.link().options().url.clone())
    }

    #[getter]
    fn state(&self) -> &'static str {
        match &*self.shared.read() {
            Some(shared) => shared.link().state().as_str(),
            None => kps::ClientState::Closed.as_str(),
        }
    }

    /// Resolves to a `Subscription` when the broker has confirmed it.
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (topic, handler = None, *, group = None, concurrency = None, overflow = None,
        capacity = None, start = None, durable = None, ack_wait = None, retry_delay = None,
        max_attempts = None),
        text_signature = "($self, topic, handler=None, *, group=None, concurrency=1, overflow='block', capacity=None, start='new', durable=None, ack_wait=30.0, retry_delay=1.0, max_attempts=5)")]
    fn subscribe(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        handler: Option<&Bound<'_, PyAny>>,
        group: Option<&Bound<'_, PyAny>>,
        concurrency: Option<&Bound<'_, PyAny>>,
        overflow: Option<&Bound<'_, PyAny>>,
        capacity: Option<&Bound<'_, PyAny>>,
        start: Option<&Bound<'_, PyAny>>,
        durable: Option<&Bound<'_, PyAny>>,
        ack_wait: Option<&Bound<'_, PyAny>>,
        retry_delay: Option<&Bound<'_, PyAny>>,
        max_attempts: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Await> {
        let topic = text(topic, "topic")?.to_owned();
        let handler = given(handler).map(|handler| callable(handler, "handler")).transpose()?;
        let mut concurrent = 1;
        set(&mut concurrent, concurrency, |value| bytes_from(value, "concurrency", 1))?;
        let group =
            given(group).map(|group| text(group, "group").map(str::to_owned)).transpose()?;
        let mut options = SubscribeOptions { group, ..SubscribeOptions::default() };
        set(&mut options.overflow, overflow, |value| {
            let name = text(value, "overflow")?;
            Overflow::from_name(name)
                .ok_or_else(|| invalid(py, format!("overflow: no policy is called {name:?}")))
        })?;
        if let Some(capacity) = given(capacity) {
            let capacity = count(capacity, "capacity", 1)?;
            options.capacity = Some(u32::try_from(capacity).unwrap_or(u32::MAX));
        }
        set(&mut options.start, start, start_at)?;
        options.durable =
            given(durable).map(|name| text(name, "durable").map(str::to_owned)).transpose()?;
        let redelivery = &mut options.redelivery;
        set(&mut redelivery.ack_wait, ack_wait, |value| seconds(value, "ack_wait"))?;
        set(&mut redelivery.retry_delay, retry_delay, |value| seconds(value, "retry_delay"))?;
        set(&mut redelivery.max_attempts, max_attempts, |value| {
            Ok(u32::try_from(count(value, "max_attempts", 0)?).unwrap_or(u32::MAX))
        })?;
        let shared = self.shared(py)?;
        Ok(Lazy::coroutine("subscribe", move |py| {
            let host = Host::current(py)?;
            host.attach(&shared);
            let link = shared.link().clone();
            let sub = Sub::new(py, shared, &host, topic, handler, concurrent)?;
            let id = link.subscribe(host.mailbox(), &sub.topic, options).or_raise(py)?;
            let slot = Arc::new(Slot::default());
            {
                let mut state = sub.state.lock();
                state.id = Some(id);
                state.confirmed = Some(slot.clone());
            }
            let sub = Arc::new(sub);
            sub.shared.add_sub(&sub);
            let abandoned = Arc::downgrade(&sub);
            slot.on_abandon(move |py| {
                if let Some(sub) = abandoned.upgrade() {
                    // Nothing is left to tell whoever cancelled.
                    let _ = sub.unsubscribe(py);
                }
            });
            host.tables.lock().subs.insert((link.key(), id), sub);
            Ok(slot)
        }))
    }

    /// Ends every subscription of this client with this topic.
    fn unsubscribe(&self, py: Python<'_>, topic: &Bound<'_, PyAny>) -> PyResult<Await> {
        let topic = text(topic, "topic")?.to_owned();
        let shared = self.shared(py)?;
        Ok(Lazy::coroutine("unsubscribe", move |py| {
            let mut ended = None;
            for sub in shared.subs_of(&topic) {
                // The broker confirms them in this order.
                ended = Some(sub.unsubscribe(py)?);
            }
            ended.ok_or_else(|| {
                let sentence = format!("this client has no subscription to {topic:?}");
                errors::raise(py, ErrorKind::NotFound, sentence)
            })
        }))
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (topic, data, *, headers = None, id = None, ttl = None, receipt = None,
        to = None, private = None, offline = None, retain = false),
        text_signature = "($self, topic, data, *, headers=None, id=None, ttl=None, receipt=None, to=None, private=False, offline='keep', retain=False)")]
    fn publish(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyAny>>,
        id: Option<&Bound<'_, PyAny>>,
        ttl: Option<&Bound<'_, PyAny>>,
        receipt: Option<&Bound<'_, PyAny>>,
        to: Option<&Bound<'_, PyAny>>,
        private: Option<&Bound<'_, PyAny>>,
        offline: Option<&Bound<'_, PyAny>>,
        retain: bool,
    ) -> PyResult<Receipt> {
        let topic = To::Topic(text(topic, "topic")?);
        let shared = self.shared(py)?;
        let policies = to.or(private).or(offline);
        if headers.or(id).or(ttl).or(receipt).or(policies).is_none() && !retain {
            let number = send(py, &shared, topic, data, PublishOptions::default())?;
            return Ok(Receipt::new(shared, number, None, None));
        }
        let given_options = Given { headers, id, ttl, to, private, offline };
        let extras = arguments::extras(&given_options)?;
        let level = given(receipt).map(arguments::level).transpose()?;
        let options = PublishOptions {
            extras: Some(&extras).filter(|extras| !extras.is_empty()),
            receipt: level,
            target: shared.host(py).map_or_else(|_| Target::default(), |host| host.attach(&shared)),
            retain,
            ..PublishOptions::default()
        };
        let number = send(py, &shared, topic, data, options)?;
        Ok(Receipt::new(shared, number, level, extras.id))
    }

    fn publish_to_id(
        &self,
        py: Python<'_>,
        client_id: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Receipt> {
        let shared = self.shared(py)?;
        let to = To::Client(text(client_id, "client_id")?);
        let number = send(py, &shared, to, data, PublishOptions::default())?;
        Ok(Receipt::new(shared, number, None, None))
    }

    /// Through this client's server to another one at `host:port[/path]`.
    #[pyo3(signature = (address, data, *, secure = false))]
    fn publish_to_server(
        &self,
        py: Python<'_>,
        address: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        secure: bool,
    ) -> PyResult<Receipt> {
        let shared = self.shared(py)?;
        let address = text(address, "address")?;
        let secured = format!("wss://{address}");
        let to = To::Server(if secure && !address.contains("://") { &secured } else { address });
        let number = send(py, &shared, to, data, PublishOptions::default())?;
        Ok(Receipt::new(shared, number, None, None))
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (topic, data, timeout = None, *, headers = None, id = None, ttl = None,
        to = None, private = None, offline = None),
        text_signature = "($self, topic, data, timeout=30.0, *, headers=None, id=None, ttl=None, to=None, private=False, offline='keep')")]
    fn publish_with_ack(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        id: Option<&Bound<'_, PyAny>>,
        ttl: Option<&Bound<'_, PyAny>>,
        to: Option<&Bound<'_, PyAny>>,
        private: Option<&Bound<'_, PyAny>>,
        offline: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Ack>> {
        let topic = To::Topic(text(topic, "topic")?);
        self.acked(py, topic, data, timeout, &Given { headers, id, ttl, to, private, offline })
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (client_id, data, timeout = None, *, headers = None, id = None, ttl = None,
        private = None, offline = None),
        text_signature = "($self, client_id, data, timeout=30.0, *, headers=None, id=None, ttl=None, private=False, offline='keep')")]
    fn publish_to_id_with_ack(
        &self,
        py: Python<'_>,
        client_id: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        id: Option<&Bound<'_, PyAny>>,
        ttl: Option<&Bound<'_, PyAny>>,
        private: Option<&Bound<'_, PyAny>>,
        offline: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Ack>> {
        let client = To::Client(text(client_id, "client_id")?);
        self.acked(
            py,
            client,
            data,
            timeout,
            &Given { headers, id, ttl, to: None, private, offline },
        )
    }

    /// The first successful answer.
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (topic, data, timeout = None, *, headers = None, id = None, ttl = None,
        to = None, private = None, offline = None),
        text_signature = "($self, topic, data, timeout=30.0, *, headers=None, id=None, ttl=None, to=None, private=False, offline='keep')")]
    fn request(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        id: Option<&Bound<'_, PyAny>>,
        ttl: Option<&Bound<'_, PyAny>>,
        to: Option<&Bound<'_, PyAny>>,
        private: Option<&Bound<'_, PyAny>>,
        offline: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Await> {
        let topic = text(topic, "topic")?.to_owned();
        let timeout = ack_timeout(timeout)?;
        let extras = arguments::extras(&Given { headers, id, ttl, to, private, offline })?;
        let shared = self.shared(py)?;
        let data = data.clone().unbind();
        Ok(Lazy::coroutine("request", move |py| {
            let host = Host::current(py)?;
            let target = host.attach(&shared);
            let options = PublishOptions {
                ack: Some(AckRequest { timeout, request: true, target }),
                extras: (!extras.is_empty()).then_some(&extras),
                ..PublishOptions::default()
            };
            let number = send(py, &shared, To::Topic(&topic), data.bind(py), options)?;
            let slot = Arc::new(Slot::default());
            let key = (shared.link().key(), number);
            host.tables.lock().requests.insert(key, slot.clone());
            slot.on_abandon(move |_| {
                let forgotten = host.tables.lock().requests.remove(&key);
                drop(forgotten);
                shared.link().cancel_ack(number);
            });
            Ok(slot)
        }))
    }

    /// Calls `capability.operation`; resolves to a `Response`, also when it failed.
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (action, payload = None, *, timeout = None, retry = None, target = None,
        idempotency_key = None, on_progress = None),
        text_signature = "($self, action, payload=None, *, timeout=5.0, retry=0, target=None, idempotency_key=None, on_progress=None)")]
    fn dispatch(
        &self,
        py: Python<'_>,
        action: &Bound<'_, PyAny>,
        payload: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
        retry: Option<&Bound<'_, PyAny>>,
        target: Option<&Bound<'_, PyAny>>,
        idempotency_key: Option<&Bound<'_, PyAny>>,
        on_progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Await> {
        let asked = calls::Asked { timeout, retry, target, idempotency_key, on_progress };
        calls::dispatch(py, self, action, payload, &asked)
    }

    /// Makes an object's methods callable as `name.method`, by others too if it is shared.
    #[pyo3(signature = (name, capability, *, shared = false, concurrency = None, debug = None),
        text_signature = "($self, name, capability, *, shared=False, concurrency=256, debug=None)")]
    fn register(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        capability: &Bound<'_, PyAny>,
        shared: bool,
        concurrency: Option<&Bound<'_, PyAny>>,
        debug: Option<bool>,
    ) -> PyResult<Await> {
        calls::register(py, self, name, capability, shared, concurrency, debug)
    }

    /// Takes a capability away; calls that run are ended.
    fn unregister(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Await> {
        calls::unregister(py, self, name)
    }

    /// Makes an object with the method `run` a task of `compute`.
    fn _register_task(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        task: &Bound<'_, PyAny>,
        concurrency: usize,
        summary: String,
    ) -> PyResult<()> {
        calls::register_task(py, self, name, task, concurrency, summary)
    }

    /// Begins a value of `storage` that comes in pieces.
    #[pyo3(signature = (fields, target = None))]
    fn _upload(
        &self,
        py: Python<'_>,
        fields: &Bound<'_, PyDict>,
        target: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Await> {
        calls::upload(py, self, fields, target)
    }

    /// Begins to read a value of `storage` in pieces.
    #[pyo3(signature = (key, target = None))]
    fn _download(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        target: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Await> {
        calls::download(py, self, key, target)
    }

    /// Resolves to a `LivePlain`, or a `LiveYjs`.
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (id, kind, author = None, rebase = true, rebases = None, timeout = None))]
    fn _open_document(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        kind: &Bound<'_, PyAny>,
        author: Option<&Bound<'_, PyAny>>,
        rebase: bool,
        rebases: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Await> {
        document::open(py, self, id, kind, author, rebase, rebases, timeout)
    }

    /// Has this client do the task for others.
    fn share_task(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Await> {
        calls::share_task(py, self, name)
    }

    /// Ends that.
    fn unshare_task(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Await> {
        calls::unshare_task(py, self, name)
    }

    fn _unregister_task(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        calls::unregister_task(py, self, name)
    }

    /// Calls `handler` on every `event`; the function returned ends that.
    fn on(
        &self,
        py: Python<'_>,
        event: &Bound<'_, PyAny>,
        handler: &Bound<'_, PyAny>,
    ) -> PyResult<direct::Off> {
        let event = text(event, "event")?;
        let handler = callable(handler, "handler")?;
        let shared = self.shared(py)?;
        check_event(py, event, shared.server().is_some())?;
        direct::on(py, &shared, event, handler)
    }

    /// Resolves when everything published so far was accepted or refused.
    fn flush(&self, py: Python<'_>) -> PyResult<Await> {
        let shared = self.shared(py)?;
        Ok(Lazy::coroutine("flush", move |py| {
            let host = Host::current(py)?;
            host.attach(&shared);
            let link = shared.link();
            let slot = Arc::new(Slot::default());
            let token = link.flush_event(host.mailbox());
            let key = (link.key(), token);
            host.tables.lock().flushes.insert(key, slot.clone());
            slot.on_abandon(move |_| drop(host.tables.lock().flushes.remove(&key)));
            Ok(slot)
        }))
    }

    /// What became of everything published and received, counted.
    fn ledger<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let shared = self.shared(py)?;
        shared.report(py);
        ledger::client(py, &shared.link().ledger())
    }

    /// The last things that happened to the connection, oldest first.
    fn timeline<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        ledger::timeline(py, &self.shared(py)?.link().timeline())
    }

    /// Flushes, says goodbye, and reports, within `timeout` seconds.
    #[pyo3(signature = (timeout = None), text_signature = "($self, timeout=5.0)")]
    fn close(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Await> {
        let mut limit = Duration::from_secs(5);
        set(&mut limit, timeout, |value| seconds(value, "timeout"))?;
        let shared = self.shared(py)?;
        let link = shared.link().clone();
        Ok(finish("close", async move { link.close(limit).await }, |py, report| {
            Ok(Py::new(py, CloseReport::from(report))?.into_any())
        }))
    }

    fn __repr__(&self) -> String {
        match &*self.shared.read() {
            Some(shared) => {
                let link = shared.link();
                format!(
                    "Client(id={:?}, state={:?})",
                    link.id().unwrap_or_default(),
                    link.state().as_str()
                )
            }
            None => "Client(not started)".into(),
        }
    }
}

impl Client {
    fn acked(
        &self,
        py: Python<'_>,
        to: To<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
        given: &Given<'_, '_>,
    ) -> PyResult<Py<Ack>> {
        let timeout = ack_timeout(timeout)?;
        let extras = arguments::extras(given)?;
        let shared = self.shared(py)?;
        let host = shared.host(py)?;
        let options = PublishOptions {
            ack: Some(AckRequest { timeout, request: false, target: host.attach(&shared) }),
            extras: (!extras.is_empty()).then_some(&extras),
            ..PublishOptions::default()
        };
        let number = send(py, &shared, to, data, options)?;
        let ack = Py::new(py, Ack::new(shared, number, extras.id))?;
        host.tables.lock().acks.insert(ack.get().key(), ack.clone_ref(py));
        Ok(ack)
    }
}

#[inline]
fn send(
    py: Python<'_>,
    shared: &Arc<Shared>,
    to: To<'_>,
    data: &Bound<'_, PyAny>,
    options: PublishOptions<'_>,
) -> PyResult<u64> {
    let _inside = Inside::enter(py);
    payload::with_encoded(data, "data", |content_type, bytes| {
        let sent =
            shared.send(py, |link, hint| link.publish(to, content_type, bytes, options, hint));
        sent.or_raise(py)
    })
}

/// The coroutine that runs `future` on the runtime thread and brings its output to the loop.
pub(crate) fn finish<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
    convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> Await {
    Lazy::coroutine(name, move |py| {
        let host = Host::current(py)?;
        let slot = Arc::new(Slot::default());
        let result = slot.clone();
        let task = runtime::spawn(async move {
            let output = future.await;
            host.complete(move |py| result.fill(py, convert(py, output)));
        });
        slot.on_abandon(move |_| task.abort());
        Ok(slot)
    })
}

fn ack_timeout(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Duration> {
    match timeout {
        Some(timeout) => seconds(timeout, "timeout"),
        None => Ok(Duration::from_secs(30)),
    }
}

fn set<T>(
    option: &mut T,
    value: Option<&Bound<'_, PyAny>>,
    read: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>,
) -> PyResult<()> {
    if let Some(value) = given(value) {
        *option = read(value)?;
    }
    Ok(())
}

fn bytes(value: &Bound<'_, PyAny>, name: &str) -> PyResult<usize> {
    bytes_from(value, name, 0)
}

fn bytes_from(value: &Bound<'_, PyAny>, name: &str, least: u64) -> PyResult<usize> {
    Ok(usize::try_from(count(value, name, least)?).unwrap_or(usize::MAX))
}

/// Whether `on` knows this event.
#[pyfunction]
pub(crate) fn check_event(py: Python<'_>, event: &str, server: bool) -> PyResult<()> {
    match server {
        true if event == SERVER_MESSAGE => Ok(()),
        true => vocabulary::check_server(event).or_raise(py),
        false => vocabulary::check_client(event).or_raise(py),
    }
}
