//! The server: a bus with a listener.
//!
//! One HTTP listener takes every connection; `http` checks it and upgrades it, `handshake`
//! finds out who it is, and from then on a `connection` carries frames (`native`) or actions
//! (`kps_json`) to the bus that the `hub` guards. Everything runs on the runtime's thread.

mod calls;
mod connection;
mod cors;
mod dialogue;
mod egress;
mod events;
mod gate;
mod handshake;
mod host;
mod http;
mod hub;
#[cfg_attr(not(feature = "store"), path = "without_store.rs")]
mod keeper;
mod kps_json;
mod local;
mod metrics;
mod native;
mod options;
mod patient;
mod relay;
mod socket;
#[cfg(feature = "yjs")]
mod yjs;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kps_proto::{
    Error, ErrorKind, Result,
    bus::{Ledger, Principal},
    session::Moment,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

use self::{
    connection::End,
    gate::Gate,
    handshake::Guest,
    http::{Dialect, Ends, Introduction, Patience, Site, Upgraded},
    hub::Hub,
    keeper::Keeper,
    socket::Socket,
};
pub use self::{
    events::ServerEvents,
    local::connect,
    options::{AuditOptions, DEFAULT_PORT, ServerOptions},
};
use crate::{
    auth::OnConnect,
    client::{Bridge, Client, ConnectOptions},
    events::{MailboxRef, ServerEvent},
    gateway::http::Gateway,
    net::{
        BoxFuture, listener,
        mem::{self, MemTransport},
    },
    runtime::{self, Exit, OwnedByProcess},
};

/// For the fuzzer: see `http`.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn fuzz_upgrade(request: &[u8]) {
    http::fuzz(request);
}

/// A running server. Dropping the last handle closes it without waiting for anybody.
///
/// It stays with the process that started it: in a forked child there is no server, and the
/// counts are 0.
#[derive(Clone)]
pub struct Server(Arc<Running>);

struct Running {
    hub: Arc<Hub>,
    address: Option<SocketAddr>,
    secure: bool,
    _name: Option<mem::Registered>,
    closed: AtomicBool,
}

impl Server {
    /// Binds and starts serving. Besides `host:port`, `mem://name` listens inside the process
    /// alone, and `mem://` to [`Server::connect`] alone.
    ///
    /// Fails with `bind_failed` when the address cannot be used, and with `invalid_argument` when
    /// it is reachable from other machines and nobody is kept out.
    pub fn start(options: ServerOptions) -> Result<Server> {
        let hub = Hub::new(options)?;
        let options = &hub.options;
        let secure = options.tls.is_some();
        let (mut address, mut name) = (None, None);
        if let Some(wanted) = options.listen.strip_prefix("mem://") {
            if options.listen != mem::PRIVATE {
                let hub = Arc::downgrade(&hub);
                name = Some(mem::register(wanted, Arc::new(move |end| attach(&hub, end)))?);
            }
        } else {
            let resolved = listener::resolve(&options.listen)?;
            options.check_exposure(resolved)?;
            let runtime = runtime::handle();
            let listener = {
                let _context = runtime.enter();
                listener::bind(resolved)?
            };
            let bound = listener.local_addr().map_err(|error| {
                Error::new(ErrorKind::BindFailed, format!("cannot listen on {resolved}: {error}"))
            })?;
            address = Some(bound);
            runtime.spawn(listen(hub.clone(), listener));
        }
        runtime::spawn(hub.clone().run_clock());
        let keeping = hub.clone();
        runtime::spawn(async move { Keeper::run(&keeping).await });
        let running = Arc::new(Running {
            hub: hub.clone(),
            address,
            secure,
            _name: name,
            closed: AtomicBool::new(false),
        });
        let exit: Weak<Running> = Arc::downgrade(&running);
        runtime::close_at_exit(exit);
        let server = Server(running);
        hub.tell(ServerEvent::NodeStarted { address: server.address().into() });
        Ok(server)
    }

    /// `host:port` as bound, or `mem://name`.
    pub fn address(&self) -> String {
        match self.0.address {
            Some(address) => address.to_string(),
            None => self.0.hub.options.listen.clone(),
        }
    }

    /// The URL under which clients of this machine reach it.
    pub fn url(&self) -> String {
        match self.0.address {
            None => self.address(),
            Some(mut address) => {
                if address.ip().is_unspecified() {
                    address.set_ip(match address {
                        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                    });
                }
                format!("{}://{address}", if self.0.secure { "wss" } else { "ws" })
            }
        }
    }

    /// The server's own client: every client method works on the server itself. It is made at the
    /// first call, has the id [`ServerOptions::id`], and needs no token.
    pub fn bridge(&self) -> Result<Bridge> {
        self.0.hub.calls.client(&self.0.hub, "")
    }

    /// The server's own client, as Rust programs use it.
    pub fn client(&self) -> Result<Client> {
        self.bridge().map(Client::from)
    }

    /// Another client inside the process, without any socket. `url` and `transport` of `options`
    /// are not looked at.
    pub fn connect(&self, options: ConnectOptions) -> Result<Bridge> {
        let hub = Arc::downgrade(&self.0.hub);
        Bridge::start(ConnectOptions {
            url: "mem://server".into(),
            transport: Some(Arc::new(MemTransport(move |end| attach(&hub, end)))),
            ..options
        })
    }

    /// What happens at this server from now on; see [`ServerEvent`].
    ///
    /// ```
    /// # async fn run() -> kps::Result<()> {
    /// use kps::events::ServerEvent;
    /// let server = kps::Server::start(kps::ServerOptions::listen("127.0.0.1:0"))?;
    /// let mut events = server.events();
    /// let options = kps::ConnectOptions { id: Some("ann".into()), ..kps::ConnectOptions::new(server.url()) };
    /// let client = kps::Client::connect(options).await?;
    ///
    /// let event = events.next().await.expect("the server runs");
    /// assert_eq!(event.name(), "connection_opened");
    /// let ServerEvent::ConnectionOpened { client_id, .. } = &*event else { panic!("{event:?}") };
    /// assert_eq!(&**client_id, "ann");
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn events(&self) -> ServerEvents {
        self.0.hub.listeners.follow()
    }

    /// Whether every accepted message is told from now on, as [`ServerEvent::MessagePublished`].
    pub fn tell_messages(&self, on: bool) {
        self.0.hub.tell_messages(on);
    }

    /// The last 256 events, oldest first, each with how long ago it was. Messages are not among them.
    pub fn timeline(&self) -> Vec<(Duration, Moment)> {
        self.0.hub.listeners.timeline()
    }

    /// Tells that the server is about to stop; [`close`](Self::close) does it if nobody has before.
    pub fn announce_stop(&self) {
        if self.0.hub.note_stopping() {
            self.0.hub.tell(ServerEvent::NodeStopping);
        }
    }

    /// From now on `mailbox` gets the server's events ([`Event::Server`], [`Event::ServerMessage`])
    /// under the number of the server's own client; first of all that it has started. At most 4,096 of
    /// them wait there; what comes then is counted ([`ServerEvent::EventsDropped`]).
    ///
    /// [`Event::Server`]: crate::Event::Server
    /// [`Event::ServerMessage`]: crate::Event::ServerMessage
    pub fn listen_to_events(&self, mailbox: &MailboxRef) -> Result<()> {
        let key = self.bridge()?.key();
        self.0.hub.listeners.add(mailbox.clone(), key);
        Ok(())
    }

    /// From now on `hook` sees every connection, instead of [`ServerOptions::on_connect`].
    pub fn on_connect(&self, hook: OnConnect) {
        *self.0.hub.on_connect.lock() = Some(hook);
    }

    /// Clients connected to the default namespace, this process' own left out.
    pub fn count_clients(&self) -> usize {
        self.0.hub.count_clients("")
    }

    /// Subscriptions in the default namespace that a message on `topic` would reach.
    pub fn count_subscribers(&self, topic: &str) -> usize {
        self.0.hub.if_here(|bus| bus.count_subscribers("", topic))
    }

    /// The sum over all subscriptions there ever were.
    pub fn ledger(&self) -> Ledger {
        self.0.hub.if_here(|bus| bus.ledger())
    }

    /// Forgets a durable subscription of the default namespace and its progress; its clients' streams
    /// end with `not_found`. Fails with `not_found` if there is none.
    pub fn remove_durable(&self, name: &str) -> Result<()> {
        let removed = match self.0.hub.is_here() {
            true => self.0.hub.with_bus(|bus, now| bus.remove_durable(now, "", name)),
            false => Err(Error::new(ErrorKind::Closed, "the server is in another process")),
        };
        let hub = self.0.hub.clone();
        runtime::spawn(async move { hub.send_ready() });
        removed
    }

    /// Bytes of all messages that wait in the server.
    pub fn memory(&self) -> usize {
        self.0.hub.if_here(|bus| bus.memory())
    }

    /// Takes no more connections, tells clients to come back later, and returns when all have
    /// gone, at most after `timeout`.
    pub async fn close(&self, timeout: Duration) {
        // An error means that the runtime was shut down: then everything is closed.
        let _ = runtime::spawn(self.0.clone().close_here(timeout)).await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Running {
    /// Closes on the runtime's thread, where it must be called: only that touches connections.
    async fn close_here(self: Arc<Self>, timeout: Duration) {
        if self.closed.swap(true, Ordering::Relaxed) || !self.hub.is_here() {
            return;
        }
        let deadline = tokio::time::Instant::now() + timeout;
        Server(self.clone()).announce_stop();
        // While there are clients that hear of it, and with all the time there is: it is not to be lost.
        let _ = tokio::time::timeout_at(deadline, self.hub.calls.close_documents()).await;
        self.hub.calls.close(timeout / 2).await;
        // What was accepted is stored, and its publishers hear so, before anybody says goodbye.
        let _ = tokio::time::timeout_at(deadline, Keeper::flush(&self.hub)).await;
        self.hub.start_closing();
        // Whoever has not gone by then is left alone.
        let _ = tokio::time::timeout_at(deadline, self.hub.wait_until_empty()).await;
        self.hub.links().iter().for_each(|link| link.abandon());
        // A disk that hangs must not keep the process.
        let _ = tokio::time::timeout_at(deadline, Keeper::close(&self.hub)).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !*self.closed.get_mut() && self.hub.is_here() {
            let hub = self.hub.clone();
            runtime::spawn(async move {
                hub.start_closing();
                hub.calls.close(Duration::ZERO).await;
            });
        }
    }
}

impl Exit for Running {
    fn close(self: Arc<Self>, timeout: Duration) -> BoxFuture<'static, usize> {
        Box::pin(async move {
            self.close_here(timeout).await;
            0
        })
    }
}

async fn listen(hub: Arc<Hub>, listener: TcpListener) {
    let _owned = OwnedByProcess::new(&listener);
    let (counted, options) = (Arc::downgrade(&hub), &hub.options);
    let site = Arc::new(Site {
        gate: Gate::new(&options.allowed_origins, &options.allowed_hosts),
        gateway: Some(Arc::new(Gateway::new(Arc::new(host::Server::new(&hub))))),
        metrics: Some(Box::new(move |token| metrics::page(&counted, token))),
    });
    while !hub.is_closing() {
        let (stream, remote) = tokio::select! {
            accepted = listener::accept(&listener) => accepted,
            () = hub.stop.notified() => break,
        };
        match hub.admit() {
            Some(admission) => {
                let (hub, site) = (hub.clone(), site.clone());
                tokio::spawn(async move {
                    let upgraded = welcome(&hub, site, stream, remote).await;
                    // A task of its own: what the handshake needed is freed.
                    if let Some(upgraded) = upgraded {
                        tokio::spawn(async move {
                            serve(&hub, upgraded, Some(remote)).await;
                            drop(admission);
                        });
                    }
                });
            }
            None => turn_away(&hub, &stream, remote),
        }
    }
}

/// TLS and HTTP, up to the upgrade.
async fn welcome(
    hub: &Hub,
    site: Arc<Site>,
    stream: TcpStream,
    remote: SocketAddr,
) -> Option<Upgraded<Socket>> {
    let local = stream.local_addr().ok();
    let patience = hub.options.handshake_timeout;
    let ends = Ends { local, remote: Some(remote) };
    let Some(tls) = &hub.options.tls else {
        return upgrade(hub, stream, site, ends).await;
    };
    let accepting = tokio::time::timeout(patience, tls.acceptor().accept(stream));
    let accepted = tokio::select! {
        accepted = accepting => accepted,
        () = hub.stopped() => return None,
    };
    match accepted {
        Ok(Ok(stream)) => upgrade(hub, stream, site, ends).await,
        Ok(Err(error)) => {
            tracing::info!(%error, %remote, "a TLS handshake failed");
            let error =
                Error::new(ErrorKind::Protocol, format!("the TLS handshake failed: {error}"));
            hub.tell_error(&error, None, Some(remote));
            None
        }
        Err(_) => None,
    }
}

async fn upgrade<I>(hub: &Hub, stream: I, site: Arc<Site>, ends: Ends) -> Option<Upgraded<Socket>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Socket: From<I>,
{
    let options = &hub.options;
    let patience =
        Patience { head: options.handshake_timeout, stall: options.timings.stall_timeout };
    match http::serve(stream, site, ends, patience, hub.stopped()).await {
        Ok(Upgraded { io, read, introduction }) => {
            Some(Upgraded { io: io.into(), read, introduction })
        }
        Err(refused) => {
            if let Some(error) = refused {
                hub.tell_error(&error, None, ends.remote);
            }
            None
        }
    }
}

async fn serve(hub: &Arc<Hub>, upgraded: Upgraded<Socket>, remote: Option<SocketAddr>) {
    let dialect = upgraded.introduction.dialect.clone();
    #[cfg(feature = "yjs")]
    if let Dialect::Yjs(id) = &dialect {
        return yjs::serve(hub.clone(), id, upgraded, remote).await;
    }
    // Boxed, and over before the connection runs: what the handshake needed is not kept.
    let greeted = match Guest::new(hub.clone(), upgraded, remote) {
        None => return,
        Some(guest) => match dialect {
            Dialect::Native => Box::pin(native::greet(guest)).await,
            Dialect::KpsJson => Box::pin(kps_json::greet(guest)).await,
            #[cfg(feature = "yjs")]
            Dialect::Yjs(_) => unreachable!("it is served above"),
        },
    };
    if let Some((link, guest)) = greeted {
        let decoder = guest.settle(&link);
        let end = link.run(hub, decoder).await;
        let (namespace, client_id) = hub.with_bus(|bus, _| {
            (bus.namespace(link.port).cloned(), bus.client_id(link.port).cloned())
        });
        hub.unlink(link.port, end == End::Lost);
        if let (Some(namespace), Some(client_id)) = (&namespace, &client_id) {
            hub.calls.connection_ended(namespace, client_id, link.was_missed(end));
        }
        if let Some(event) = link.closed(client_id, end) {
            hub.tell(event);
        }
    }
}

/// One connection too many.
fn turn_away(hub: &Hub, stream: &TcpStream, remote: SocketAddr) {
    tracing::warn!("the limit of connections is reached; turned one away");
    let sentence = "the limit of connections is reached; raise --max-connections";
    hub.tell_error(&Error::new(ErrorKind::LimitExceeded, sentence), None, Some(remote));
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\
        Content-Type: text/plain\r\nContent-Length: 32\r\n\r\nthis server has no room for more";
    // If even this does not fit, closing says it.
    let _ = stream.try_write(answer);
}

/// A client of this process brings its pipe.
fn attach(hub: &Weak<Hub>, end: mem::End) -> bool {
    take_pipe(hub, end, false, None)
}

/// A client that acts for somebody who was looked at before does.
fn attach_as(hub: &Weak<Hub>, end: mem::End, principal: Principal) -> bool {
    take_pipe(hub, end, false, Some(principal))
}

/// The server's own client does.
fn attach_own(hub: &Weak<Hub>, end: mem::End) -> bool {
    take_pipe(hub, end, true, None)
}

fn take_pipe(hub: &Weak<Hub>, end: mem::End, is_own: bool, principal: Option<Principal>) -> bool {
    let Some(hub) = hub.upgrade().filter(|hub| hub.is_here()) else { return false };
    // The server's own clients take nobody's place.
    let admission = if is_own { None } else { hub.admit() };
    if (admission.is_none() && !is_own) || hub.is_closing() {
        return false;
    }
    runtime::spawn(async move {
        let introduction = Introduction {
            dialect: Dialect::Native,
            token: String::new(),
            path: String::new(),
            headers: Vec::new(),
            is_own,
            principal,
        };
        let upgraded = Upgraded { io: Socket::Memory(end), read: Bytes::new(), introduction };
        serve(&hub, upgraded, None).await;
        drop(admission);
    });
    true
}
