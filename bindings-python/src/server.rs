//! The broker inside a Python program. `kps/_server.py` makes it a client as well.

use std::sync::Arc;

use kps::{
    AuditOptions, ErrorKind, Server, ServerOptions,
    auth::{ConnectRequest as CoreRequest, Decision, OnConnect, Token},
    document::DocumentOptions,
    net::identity::TlsIdentity,
    proto::{bus::Principal, history::HistoryRule, topic::Pattern},
};
use parking_lot::Mutex;
use pyo3::{
    prelude::*,
    types::{PyBool, PyDict, PyList},
};
use tokio::sync::oneshot;

use crate::{
    arguments::{callable, count, given, invalid, seconds, text, texts},
    calls,
    client::{Client, finish},
    errors::{self, OrRaise},
    host::Host,
    ledger,
    shared::Shared,
    wait::Await,
};

/// A listening server.
#[pyclass(frozen, module = "kps._kps")]
pub(crate) struct Broker(Server);

#[pymethods]
impl Broker {
    /// Binds and listens; `client` becomes the server's own client.
    #[new]
    #[pyo3(signature = (client, listen, options, on_connect = None))]
    fn new(
        py: Python<'_>,
        client: &Bound<'_, Client>,
        listen: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
        on_connect: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let host = Host::current(py)?;
        let mut settings = ServerOptions::listen(text(listen, "listen")?);
        read(&mut settings, options)?;
        if let Some(handler) = given(on_connect) {
            settings.on_connect = Some(ask(callable(handler, "on_connect")?, host.clone()));
        }
        let server = Server::start(settings).or_raise(py)?;
        let shared = Shared::new(server.bridge().or_raise(py)?.clone());
        shared.set_home(&host);
        shared.set_server(server.clone());
        host.attach(&shared);
        server.listen_to_events(host.mailbox()).or_raise(py)?;
        client.get().set_shared(Some(shared));
        Ok(Broker(server))
    }

    #[getter]
    fn address(&self) -> String {
        self.0.address()
    }

    #[getter]
    fn url(&self) -> String {
        self.0.url()
    }

    /// The last events, oldest first.
    fn timeline<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        ledger::timeline(py, &self.0.timeline())
    }

    /// Tells that it is about to stop.
    fn announce_stop(&self) {
        self.0.announce_stop();
    }

    fn count_clients(&self) -> usize {
        self.0.count_clients()
    }

    fn count_subscribers(&self, topic: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(self.0.count_subscribers(text(topic, "topic")?))
    }

    fn remove_durable(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.remove_durable(text(name, "name")?).or_raise(py)
    }

    fn close(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Await> {
        let timeout = seconds(timeout, "timeout")?;
        let server = self.0.clone();
        Ok(finish("close", async move { server.close(timeout).await }, |py, ()| Ok(py.None())))
    }
}

fn read(settings: &mut ServerOptions, options: &Bound<'_, PyDict>) -> PyResult<()> {
    let py = options.py();
    let (mut certificate, mut key) = (None, None);
    for (name, value) in options {
        let name = text(&name, "an option's name")?;
        if value.is_none() {
            continue;
        }
        if let Some(name) = name.strip_prefix("document_") {
            keep_documents(&mut settings.documents, name, &value)?;
            continue;
        }
        let (limits, timings) = (&mut settings.limits, &mut settings.timings);
        match name {
            "id" => settings.id = Some(text(&value, name)?.to_owned()),
            "token" => settings.tokens.push(Token::new(text(&value, name)?)),
            "tokens" => settings.tokens.extend(tokens(&value)?),
            "insecure" => settings.insecure = value.is_truthy()?,
            "tls_cert" => certificate = Some(value.extract::<std::path::PathBuf>()?),
            "tls_key" => key = Some(value.extract::<std::path::PathBuf>()?),
            "allowed_origins" => settings.allowed_origins = texts(&value, name)?,
            "allowed_hosts" => settings.allowed_hosts = texts(&value, name)?,
            "server_addresses" => settings.server_addresses = texts(&value, name)?,
            "history" => settings.history = rules(&value)?,
            "data" => settings.data = Some(value.extract::<std::path::PathBuf>()?),
            "storage" => settings.storage = Some(calls::storage_options(&value)?),
            "audit" => settings.audit = audit(&value)?,
            "duplicate_window" => settings.duplicate_window = seconds(&value, name)?,
            "forbid_block" => settings.forbid_block = value.is_truthy()?,
            "max_payload" => limits.payload = size(&value, name)?,
            "queue_bytes" => limits.queue_bytes = size(&value, name)?,
            "server_bytes" => limits.server_bytes = size(&value, name)?,
            "heartbeat" => timings.heartbeat = seconds(&value, name)?,
            "silence" => timings.silence = seconds(&value, name)?,
            "resume_window" => timings.resume_window = seconds(&value, name)?,
            "stall_timeout" => timings.stall_timeout = seconds(&value, name)?,
            "ack_timeout" => timings.ack_timeout = seconds(&value, name)?,
            _ => return Err(invalid(py, format!("a server has no option {name:?}"))),
        }
    }
    settings.tls = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            Some(TlsIdentity::from_files(certificate, key).or_raise(py)?)
        }
        _ => return Err(invalid(py, "tls_cert and tls_key belong together")),
    };
    Ok(())
}

/// How documents are kept.
fn keep_documents(
    documents: &mut DocumentOptions,
    name: &str,
    value: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let whole = format!("document_{name}");
    let limits = Arc::make_mut(&mut documents.limits);
    match name {
        "checkpoint_every" => documents.checkpoint_every = seconds(value, &whole)?,
        "checkpoint_operations" => documents.checkpoint_operations = size(value, &whole)?,
        "idle" => documents.idle = seconds(value, &whole)?,
        "max_size" => limits.document = size(value, &whole)?,
        "max_operation" => limits.operation = size(value, &whole)?,
        "history" => limits.history = size(value, &whole)?,
        "memory" => documents.memory = size(value, &whole)?,
        _ => return Err(invalid(value.py(), format!("a server has no option {whole:?}"))),
    }
    Ok(())
}

fn size(value: &Bound<'_, PyAny>, name: &str) -> PyResult<usize> {
    Ok(usize::try_from(count(value, name, 1)?).unwrap_or(usize::MAX))
}

/// A bool, or what `AuditOptions` says in words.
fn audit(value: &Bound<'_, PyAny>) -> PyResult<Option<AuditOptions>> {
    match value.extract::<bool>() {
        Ok(on) => Ok(on.then(AuditOptions::default)),
        Err(_) => AuditOptions::parse(text(value, "audit")?).map(Some).or_raise(value.py()),
    }
}

/// History rules as text.
fn rules(value: &Bound<'_, PyAny>) -> PyResult<Vec<HistoryRule>> {
    let parse = |text: String| HistoryRule::parse(&text).or_raise(value.py());
    texts(value, "history")?.into_iter().map(parse).collect()
}

/// `{secret: {name?, namespace?, publish?, subscribe?}}`.
fn tokens(value: &Bound<'_, PyAny>) -> PyResult<Vec<Token>> {
    let wanted = "a dict of dicts";
    let table = value.cast::<PyDict>().map_err(|_| errors::wrong_type("tokens", wanted, value))?;
    let mut tokens = Vec::new();
    for (secret, grant) in table {
        let mut token = Token::new(text(&secret, "a token")?);
        token.principal = principal(&grant, "tokens", token.principal)?;
        tokens.push(token);
    }
    Ok(tokens)
}

/// `base` changed by a dict with any of `name`, `namespace`, `publish`, `subscribe`.
fn principal(grant: &Bound<'_, PyAny>, name: &str, base: Principal) -> PyResult<Principal> {
    let py = grant.py();
    let grant =
        grant.cast::<PyDict>().map_err(|_| errors::wrong_type(name, "a dict of grants", grant))?;
    let mut principal = base;
    for (key, value) in grant {
        match text(&key, "a grant's name")? {
            "name" => {
                principal.name = given(Some(&value))
                    .map(|value| text(value, "name").map(str::to_owned))
                    .transpose()?
            }
            "namespace" => principal.namespace = text(&value, "namespace")?.to_owned(),
            "publish" => principal.publish = patterns(&value, "publish")?,
            "subscribe" => principal.subscribe = patterns(&value, "subscribe")?,
            other => return Err(invalid(py, format!("{name}: no grant is called {other:?}"))),
        }
    }
    Ok(principal)
}

fn patterns(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Option<Vec<Pattern>>> {
    if value.is_none() {
        return Ok(None);
    }
    let parse = |text: String| Pattern::parse(&text).or_raise(value.py());
    texts(value, name)?.into_iter().map(parse).collect::<PyResult<_>>().map(Some)
}

/// A hook that asks `handler` on `host`'s loop.
fn ask(handler: Py<PyAny>, host: Arc<Host>) -> OnConnect {
    let handler = Arc::new(handler);
    Arc::new(move |request| {
        let (answer, answered) = oneshot::channel();
        let (handler, asked) = (handler.clone(), request.principal.clone());
        let loop_host = host.clone();
        host.complete(move |py| {
            let verdict = Verdict { answer: Mutex::new(Some(answer)), principal: asked };
            if let Err(error) = decide(py, &handler, request, verdict) {
                crate::shared::report(py, &loop_host, "kps could not ask on_connect", &error);
            }
        });
        Box::pin(async move {
            // A loop that ended cannot let anybody in.
            answered.await.unwrap_or_else(|_| Err(refusal("the server's program is ending")))
        })
    })
}

fn decide(
    py: Python<'_>,
    handler: &Py<PyAny>,
    request: CoreRequest,
    verdict: Verdict,
) -> PyResult<()> {
    let verdict = Bound::new(py, verdict)?;
    match handler.call1(py, (ConnectRequest(request),)) {
        Ok(result) if result.bind(py).hasattr("__await__")? => {
            py.import("kps._tasks")?.call_method1("tell", (result, verdict)).map(drop)
        }
        Ok(result) => verdict.get().__call__(result.bind(py), None),
        Err(error) => verdict.get().__call__(py.None().bind(py), Some(error.value(py).as_any())),
    }
}

/// Takes what the program's hook decided.
#[pyclass(frozen, module = "kps._kps")]
struct Verdict {
    answer: Mutex<Option<oneshot::Sender<Decision>>>,
    principal: Principal,
}

#[pymethods]
impl Verdict {
    #[pyo3(signature = (result, error = None))]
    fn __call__(
        &self,
        result: &Bound<'_, PyAny>,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let decision = match error {
            Some(error) => Err(refusal(error.str()?.to_string())),
            None if result.is_none() || result.is(PyBool::new(result.py(), true)) => {
                Ok(self.principal.clone())
            }
            None if result.is(PyBool::new(result.py(), false)) => {
                Err(refusal("the server does not let this client in"))
            }
            None => principal(result, "on_connect", self.principal.clone())
                .map_err(|error| refusal(error.to_string())),
        };
        if let Some(answer) = self.answer.lock().take() {
            // Nobody listens: the connection was given up meanwhile.
            let _ = answer.send(decision);
        }
        Ok(())
    }
}

fn refusal(sentence: impl Into<String>) -> kps::Error {
    kps::Error::new(ErrorKind::Unauthorized, sentence.into())
}

/// Who asks to be let in.
#[pyclass(frozen, module = "kps", name = "ConnectRequest")]
pub(crate) struct ConnectRequest(CoreRequest);

#[pymethods]
impl ConnectRequest {
    #[getter]
    fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// Who the token stands for.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.principal.name.as_deref()
    }

    #[getter]
    fn namespace(&self) -> &str {
        &self.0.principal.namespace
    }

    /// `host:port`; `None` inside the process.
    #[getter]
    fn remote(&self) -> Option<String> {
        self.0.remote.map(|remote| remote.to_string())
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = PyDict::new(py);
        for (name, value) in &self.0.headers {
            headers.set_item(name, value)?;
        }
        Ok(headers)
    }

    #[getter]
    fn path(&self) -> &str {
        &self.0.path
    }

    fn __repr__(&self) -> String {
        format!("ConnectRequest(client_id={:?}, remote={:?})", self.0.client_id, self.remote())
    }
}
