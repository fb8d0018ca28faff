//! A server inside a Node program.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use kps::{
    AuditOptions, Error, ErrorKind, Server, ServerOptions,
    auth::{ConnectRequest, OnConnect, Token, decide_later},
    net::identity::TlsIdentity,
    proto::{bus::Principal, history::HistoryRule, topic::Pattern},
};
use napi_derive::napi;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use crate::{
    bridge::{Bridge, report_json},
    complete::Completions,
    documents::Kept,
    error::{Result, invalid, thrown},
    ledger,
    options::{millis, set, storage},
};

/// `Server.start`'s options.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    listen: Option<String>,
    id: Option<String>,
    token: Option<String>,
    #[serde(default)]
    tokens: HashMap<String, Grant>,
    insecure: Option<bool>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
    #[serde(default)]
    allowed_origins: Vec<String>,
    #[serde(default)]
    allowed_hosts: Vec<String>,
    #[serde(default)]
    server_addresses: Vec<String>,
    /// Whether JavaScript wants to be asked, from the first connection on.
    #[serde(default)]
    on_connect: bool,
    #[serde(default)]
    history: Vec<String>,
    data: Option<std::path::PathBuf>,
    storage: Option<serde_json::Value>,
    audit: Option<Audit>,
    duplicate_window: Option<f64>,
    forbid_block: Option<bool>,
    max_payload: Option<usize>,
    queue_bytes: Option<usize>,
    server_bytes: Option<usize>,
    heartbeat: Option<f64>,
    silence: Option<f64>,
    resume_window: Option<f64>,
    stall_timeout: Option<f64>,
    ack_timeout: Option<f64>,
    #[serde(flatten)]
    documents: Kept,
}

/// Whether to keep an audit log, or what of it, in words.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audit {
    On(bool),
    Words(String),
}

impl Audit {
    fn options(self) -> kps::Result<Option<AuditOptions>> {
        match self {
            Audit::On(on) => Ok(on.then(AuditOptions::default)),
            Audit::Words(words) => AuditOptions::parse(&words).map(Some),
        }
    }
}

/// What a token's bearer, or whom `onConnect` lets in, may do. What is left out stays as it is.
#[derive(Default, Deserialize)]
struct Grant {
    name: Option<String>,
    namespace: Option<String>,
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
}

impl Grant {
    fn apply(self, mut principal: Principal) -> kps::Result<Principal> {
        let patterns = |texts: Vec<String>| -> kps::Result<Vec<Pattern>> {
            texts.iter().map(|text| Pattern::parse(text)).collect()
        };
        if self.name.is_some() {
            principal.name = self.name;
        }
        set(&mut principal.namespace, self.namespace);
        if let Some(texts) = self.publish {
            principal.publish = Some(patterns(texts)?);
        }
        if let Some(texts) = self.subscribe {
            principal.subscribe = Some(patterns(texts)?);
        }
        Ok(principal)
    }
}

impl Start {
    fn options(self, asker: &OnConnect) -> kps::Result<ServerOptions> {
        let mut options = ServerOptions::default();
        set(&mut options.listen, self.listen);
        options.id = self.id;
        set(&mut options.insecure, self.insecure);
        set(&mut options.forbid_block, self.forbid_block);
        let rules = self.history.iter().map(|text| HistoryRule::parse(text));
        options.history = rules.collect::<kps::Result<_>>()?;
        options.data = self.data;
        options.storage = self.storage.as_ref().map(storage).transpose()?;
        options.audit = self.audit.map(Audit::options).transpose()?.flatten();
        set(&mut options.duplicate_window, self.duplicate_window.map(millis));
        options.allowed_origins = self.allowed_origins;
        options.allowed_hosts = self.allowed_hosts;
        options.server_addresses = self.server_addresses;
        options.tokens.extend(self.token.map(Token::new));
        for (secret, grant) in self.tokens {
            let mut token = Token::new(secret);
            token.principal = grant.apply(token.principal)?;
            options.tokens.push(token);
        }
        options.tls = match (self.tls_cert, self.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsIdentity::from_files(certificate, key)?),
            (None, None) => None,
            _ => {
                let message = "tlsCert and tlsKey are given together or not at all";
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        };
        set(&mut options.limits.payload, self.max_payload);
        set(&mut options.limits.queue_bytes, self.queue_bytes);
        set(&mut options.limits.server_bytes, self.server_bytes);
        let time = |slot: &mut Duration, ms: Option<f64>| set(slot, ms.map(millis));
        time(&mut options.timings.heartbeat, self.heartbeat);
        time(&mut options.timings.silence, self.silence);
        time(&mut options.timings.resume_window, self.resume_window);
        time(&mut options.timings.stall_timeout, self.stall_timeout);
        time(&mut options.timings.ack_timeout, self.ack_timeout);
        self.documents.apply(&mut options.documents);
        options.on_connect = self.on_connect.then(|| asker.clone());
        Ok(options)
    }
}

/// Connections that wait for JavaScript's decision.
#[derive(Default)]
pub(crate) struct Asked {
    waiting: Mutex<HashMap<u32, (Principal, oneshot::Sender<kps::auth::Decision>)>>,
    last: AtomicU32,
}

impl Asked {
    /// Has JavaScript asked about `request`, in the name of the server that it calls `server`.
    fn ask(
        &self,
        completions: &Completions,
        server: u32,
        request: ConnectRequest,
        answer: oneshot::Sender<kps::auth::Decision>,
    ) {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let told = json!({
            "clientId": request.client_id,
            "name": request.principal.name,
            "namespace": request.principal.namespace,
            "remote": request.remote.map(|remote| remote.to_string()),
            "headers": request.headers.iter().cloned().collect::<HashMap<_, _>>(),
            "path": request.path,
        });
        self.waiting.lock().insert(number, (request.principal, answer));
        completions.ask(server, number, &told);
    }

    fn decide(&self, number: u32, grant: kps::Result<Grant>) {
        let Some((principal, answer)) = self.waiting.lock().remove(&number) else {
            return;
        };
        // The connection may have gone meanwhile.
        let _ = answer.send(grant.and_then(|grant| grant.apply(principal)));
    }
}

#[napi]
impl Bridge {
    /// Starts a server and returns the key of its own client. `token` names it when
    /// `onConnect` is asked.
    #[napi]
    pub fn start_server(&self, options: String, token: u32) -> Result<u32> {
        let start: Start = serde_json::from_str(&options).map_err(invalid)?;
        let asker = self.asker(token);
        let server = start.options(&asker).and_then(Server::start).map_err(thrown)?;
        let own = server.bridge().map_err(thrown)?.clone();
        let key = self.shared.adopt(own);
        server.listen_to_events(&self.shared.mailbox).map_err(thrown)?;
        self.shared.servers.borrow_mut().insert(key, server);
        Ok(key)
    }

    /// From now on the server's questions are asked, under `token`.
    #[napi]
    pub fn ask_on_connect(&self, server: u32, token: u32) -> Result<()> {
        self.server(server)?.on_connect(self.asker(token));
        Ok(())
    }

    /// Decides about connection `number`: `{"grant": …}` or `{"refuse": reason}`.
    #[napi]
    pub fn decide(&self, number: u32, decision: String) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        enum Decision {
            Grant(Grant),
            Refuse(String),
        }
        let grant = match serde_json::from_str(&decision).map_err(invalid)? {
            Decision::Grant(grant) => Ok(grant),
            Decision::Refuse(reason) => Err(Error::new(ErrorKind::Unauthorized, reason)),
        };
        self.shared.asked.decide(number, grant);
        Ok(())
    }

    /// Where the server listens: `host:port` or `mem://name`.
    #[napi]
    pub fn server_address(&self, server: u32) -> Result<String> {
        Ok(self.server(server)?.address())
    }

    /// The URL under which clients of this machine reach it.
    #[napi]
    pub fn server_url(&self, server: u32) -> Result<String> {
        Ok(self.server(server)?.url())
    }

    /// Clients connected, this process' own left out.
    #[napi]
    pub fn count_clients(&self, server: u32) -> Result<f64> {
        Ok(self.server(server)?.count_clients() as f64)
    }

    /// Subscriptions that a message on `topic` would reach.
    #[napi]
    pub fn count_subscribers(&self, server: u32, topic: String) -> Result<f64> {
        Ok(self.server(server)?.count_subscribers(&topic) as f64)
    }

    /// Forgets a durable subscription and its progress.
    #[napi]
    pub fn remove_durable(&self, server: u32, name: String) -> Result<()> {
        self.server(server)?.remove_durable(&name).map_err(thrown)
    }

    /// The server's last events, oldest first, as JSON.
    #[napi]
    pub fn server_timeline(&self, server: u32) -> Result<String> {
        Ok(ledger::timeline(&self.server(server)?.timeline()).to_string())
    }

    /// Whether every accepted message is told.
    #[napi]
    pub fn tell_messages(&self, server: u32, on: bool) -> Result<()> {
        self.server(server)?.tell_messages(on);
        Ok(())
    }

    /// Call `token` ends when the server is closed, with the report of its own client.
    #[napi]
    pub fn close_server(&self, server: u32, timeout: f64, token: u32) -> Result<()> {
        let running = self.server(server)?;
        self.shared.servers.borrow_mut().remove(&server);
        let own = running.bridge().map_err(thrown)?.clone();
        running.announce_stop();
        let completions = self.shared.completions.clone();
        let timeout = millis(timeout);
        kps::runtime::spawn(async move {
            let report = own.close(timeout / 2).await;
            running.close(timeout).await;
            completions.end(token, Ok(report_json(&report)));
        });
        Ok(())
    }

    fn asker(&self, token: u32) -> OnConnect {
        let (asked, completions) = (self.shared.asked.clone(), self.shared.completions.clone());
        decide_later(move |request, answer| asked.ask(&completions, token, request, answer))
    }

    fn server(&self, key: u32) -> Result<Server> {
        self.shared.servers.borrow().get(&key).cloned().ok_or_else(|| {
            thrown(Error::new(ErrorKind::Closed, "this server is closed: start a new one"))
        })
    }
}
