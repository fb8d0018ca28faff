//! A connection before it has a place at the bus: bounded in time and memory.

use std::{
    collections::VecDeque, future::poll_fn, net::SocketAddr, sync::Arc, task::Poll, time::Duration,
};

use bytes::Bytes;
use kps_proto::{
    Error, ErrorKind, Result,
    bus::{Attached, Principal},
    wire::v1::SUBPROTOCOL,
};
use tokio::time::{Instant, timeout_at};

use super::{
    connection::{Connection, Dialect, Peer, close, close_code},
    egress::{Backlog, Egress},
    http::{Introduction, Upgraded},
    hub::Hub,
    kps_json, native,
    socket::{Chunk, Socket},
};
use crate::{
    auth::ConnectRequest,
    events::ServerEvent,
    net::websocket::{Decoder, Opcode, Received, Role, Violation},
};

/// How long a refused connection may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// A message that came before the connection has its place.
#[derive(Debug)]
pub(super) enum Early {
    Binary(Bytes),
    Text(String),
}

/// A connection that asks for its place.
pub(super) struct Guest {
    pub(super) hub: Arc<Hub>,
    pub(super) introduction: Introduction,
    remote: Option<SocketAddr>,
    /// Taken when it gets its place.
    socket: Option<Socket>,
    decoder: Decoder,
    early: VecDeque<Early>,
    /// The guest closed, with this code, after all that came early.
    closed: Option<u16>,
    deadline: Instant,
}

impl Guest {
    /// `None` if what came with the upgrade breaks the protocol.
    pub(super) fn new(
        hub: Arc<Hub>,
        upgraded: Upgraded<Socket>,
        remote: Option<SocketAddr>,
    ) -> Option<Self> {
        let Upgraded { io: socket, read, introduction } = upgraded;
        let deadline = Instant::now() + hub.options.handshake_timeout;
        // An oversized payload is to be refused by name, not by closing, unless it is absurd.
        let largest = hub.options.limits.payload.saturating_mul(4).saturating_add(64 << 10);
        let mut guest = Guest {
            hub,
            introduction,
            remote,
            socket: Some(socket),
            decoder: Decoder::new(Role::Server, largest),
            early: VecDeque::new(),
            closed: None,
            deadline,
        };
        guest.take(&mut read.to_vec()).ok()?;
        Some(guest)
    }

    /// The next message; `None` if the guest left, broke the protocol, or took too long.
    pub(super) async fn next(&mut self) -> Option<Early> {
        let deadline = self.deadline;
        match timeout_at(deadline, self.read()).await {
            Ok(Ok(early)) => early,
            Ok(Err(violation)) => {
                let error = Error::new(ErrorKind::Protocol, violation.reason);
                self.note_refusal(&error, "");
                self.farewell(|egress| egress.close(violation.code, violation.reason)).await;
                None
            }
            Err(_) => {
                let reason = "the handshake took too long";
                self.note_refusal(&Error::new(ErrorKind::Timeout, reason), "");
                self.farewell(|egress| egress.close(close::POLICY, reason)).await;
                None
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Early>, Violation> {
        let mut buffer = Vec::new();
        loop {
            if let Some(early) = self.early.pop_front() {
                return Ok(Some(early));
            }
            if self.closed.is_some() {
                return Ok(None);
            }
            buffer.resize(4096, 0);
            let socket = self.socket.as_ref().expect("it has its place only once");
            match poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await {
                Err(_) | Ok(Chunk::Bytes(0)) => return Ok(None),
                Ok(Chunk::Bytes(count)) => self.take(&mut buffer[..count])?,
                Ok(Chunk::Message(message)) => self.early.push_back(Early::Binary(message)),
            }
        }
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), Violation> {
        let (early, closed) = (&mut self.early, &mut self.closed);
        self.decoder.feed(bytes, &mut |received| {
            match received {
                Received::Binary(bytes) => {
                    early.push_back(Early::Binary(Bytes::copy_from_slice(bytes)))
                }
                Received::Text(text) => early.push_back(Early::Text(text.to_owned())),
                Received::Close { code, .. } => *closed = Some(code),
                Received::Ping(_) | Received::Pong(_) => {}
            }
            Ok(())
        })
    }

    /// Who this is: by its token, the namespace it wants, and the hook.
    pub(super) async fn authorize(
        &self,
        token: &str,
        namespace: &str,
        client_id: &str,
    ) -> Result<Principal> {
        if let Some(principal) = &self.introduction.principal {
            // Somebody looked at it before.
            return Ok(Principal { namespace: namespace.into(), ..principal.clone() });
        }
        if self.remote.is_none() {
            // The program that runs the server.
            return Ok(Principal {
                name: Some("server".into()),
                namespace: namespace.into(),
                is_server: true,
                ..Principal::default()
            });
        }
        let Introduction { headers, path, .. } = &self.introduction;
        let asked = ConnectRequest {
            client_id: client_id.to_owned(),
            principal: Principal::default(),
            remote: self.remote,
            headers: headers.clone(),
            path: path.clone(),
        };
        admit(&self.hub, token, namespace, asked).await
    }

    /// Gives the connection its place: from now on it is written to, and read by
    /// [`Connection::run`].
    pub(super) fn become_link(
        &mut self,
        attached: &Attached,
        name: Option<String>,
        dialect: Dialect,
    ) -> Arc<Connection> {
        let socket = self.socket.take().expect("it gets its place only once");
        let (port, client_id) = (attached.port, attached.client_id.clone());
        let peer = Peer { client_id: client_id.clone(), remote: self.remote };
        let protocol = match dialect {
            Dialect::Native(_) => SUBPROTOCOL,
            Dialect::KpsJson(_) => "kps-json",
        };
        let link = Arc::new(Connection::new(port, peer, socket, dialect, self.hub.now()));
        self.hub.link(port, link.clone());
        if let Some(remote) = self.remote {
            self.hub.tell(ServerEvent::ConnectionOpened {
                client_id,
                name: name.map(Into::into),
                remote: remote.to_string().into(),
                protocol,
                resumed: attached.resumed,
            });
        }
        link
    }

    /// Somebody who wanted to be called `client_id` (empty: anything) may not come in.
    pub(super) fn note_refusal(&self, error: &Error, client_id: &str) {
        tracing::info!(%error, "refused a client");
        let client_id: String = client_id.chars().take(self.hub.options.limits.id).collect();
        let client_id = (!client_id.is_empty()).then(|| client_id.into());
        self.hub.tell_error(error, client_id, self.remote);
    }

    pub(super) async fn refuse_native<T>(mut self, error: &Error, client_id: &str) -> Option<T> {
        self.note_refusal(error, client_id);
        self.farewell(|egress| {
            native::put_fatal(error, egress);
            egress.end(Opcode::Binary);
            egress.close(close_code(error), error.code());
        })
        .await;
        None
    }

    /// Says what `fill` puts, and waits a little for it to leave.
    pub(super) async fn farewell(&mut self, fill: impl FnOnce(&mut Egress)) {
        self.say(fill).await;
        if let Some(socket) = self.socket.take() {
            socket.say_closed();
        }
    }

    /// Says what `fill` puts; gives up on a guest that does not read.
    pub(super) async fn say(&mut self, fill: impl FnOnce(&mut Egress)) -> bool {
        let Some(socket) = &self.socket else { return false };
        let (mut egress, mut backlog) = (Egress::default(), Backlog::default());
        egress.reset(socket.carries_messages());
        fill(&mut egress);
        if egress.write(&mut backlog, |slices| socket.try_write(slices)).is_err() {
            return false;
        }
        let leaving = poll_fn(|cx| {
            loop {
                let done = backlog.write(|slices| socket.try_write(slices)).and_then(|done| {
                    socket.flush()?;
                    Ok(done && socket.has_room())
                });
                match done {
                    Ok(false) => match socket.poll_writable(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(false),
                    },
                    done => return Poll::Ready(done.is_ok()),
                }
            }
        });
        tokio::time::timeout(FAREWELL, leaving).await.unwrap_or(false)
    }

    /// Hands what came together with the handshake to its place; what goes on is the decoder.
    pub(super) fn settle(self, link: &Arc<Connection>) -> Decoder {
        let Guest { hub, decoder, early, closed, .. } = self;
        hub.wake_clock();
        for early in early {
            match early {
                Early::Binary(message) if link.is_native() => {
                    if let Err(error) = native::receive(&hub, link, &message) {
                        link.fatal(&hub, error);
                    }
                }
                Early::Text(text) if !link.is_native() => kps_json::receive(&hub, link, &text),
                _ => link.fatal(&hub, Error::new(ErrorKind::Protocol, "text and binary are mixed")),
            }
        }
        hub.send_ready();
        if let Some(code) = closed {
            link.answer_close(&hub, code);
        }
        if hub.is_closing() {
            link.close_for_shutdown(&hub);
        }
        decoder
    }
}

/// Who asks to come in: by the token, the namespace that is wanted (empty: its own), and the hook.
pub(super) async fn admit(
    hub: &Hub,
    token: &str,
    namespace: &str,
    asked: ConnectRequest,
) -> Result<Principal> {
    let mut principal = hub.tokens.principal(token)?;
    if !namespace.is_empty() && namespace != principal.namespace {
        if principal.name.is_some() {
            return Err(Error::new(
                ErrorKind::Unauthorized,
                format!("the token does not reach the namespace {namespace:?}"),
            ));
        }
        if namespace.len() > hub.options.limits.id {
            return Err(Error::new(ErrorKind::InvalidArgument, "the namespace is too long"));
        }
        if namespace.starts_with(kps_proto::topic::RESERVED) {
            let sentence = "namespaces under `kps.` belong to the server";
            return Err(Error::new(ErrorKind::InvalidArgument, sentence));
        }
        namespace.clone_into(&mut principal.namespace);
    }
    let hook = hub.on_connect.lock().clone();
    let Some(hook) = hook else { return Ok(principal) };
    let patience = Instant::now() + hub.options.handshake_timeout;
    timeout_at(patience, hook(ConnectRequest { principal, ..asked })).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, "on_connect took too long to decide"))
    })
}

/// Bytes nobody can guess.
pub(super) fn entropy() -> [u8; 24] {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}
