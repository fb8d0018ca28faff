//! One connection after its handshake: whichever task has something for it writes at once; its
//! own task reads, and goes on writing when the socket had no room.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::BufMut;
use kps_proto::{
    Error, ErrorKind,
    bus::{Output, PortId},
    clock::Time,
};
use parking_lot::Mutex;

use super::{
    egress::{Backlog, Egress},
    hub::Hub,
    kps_json, native,
    socket::{Chunk, Socket},
};
use crate::{
    events::ServerEvent,
    net::websocket::{Decoder, Opcode, Received, Violation},
};

/// What one read takes at most, into a buffer that all connections of a thread share; after so much
/// others have their turn. The smallest messages that are to be stored take a millisecond then.
const READ: usize = 32 << 10;

/// Reads or writes before others have their turn, however small they are.
const TURNS: usize = 4;

/// Bytes a peer may leave unread before its pings are not answered.
const UNREAD: usize = 64 << 10;

/// Requests that a peer may make while it reads nothing of what it got. Each costs memory for an
/// answer that cannot leave.
const UNANSWERED: u64 = 1 << 16;

/// Why a connection ended of which nothing was heard for too long.
const SILENT: &str = "silent";

/// WebSocket close codes (RFC 6455 §7.4.1).
pub(super) mod close {
    pub(crate) const NORMAL: u16 = 1000;
    pub(crate) const GOING_AWAY: u16 = 1001;
    pub(crate) const PROTOCOL: u16 = 1002;
    pub(crate) const UNSUPPORTED: u16 = 1003;
    pub(crate) const NO_CODE: u16 = 1005;
    pub(crate) const POLICY: u16 = 1008;
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// What is spoken over a connection.
pub(super) enum Dialect {
    Native(native::Encoder),
    KpsJson(Box<kps_json::Dialogue>),
}

pub(super) struct Connection {
    pub(super) port: PortId,
    peer: Peer,
    socket: Socket,
    outgoing: Mutex<Outgoing>,
    /// Its own task.
    task: Mutex<Option<Waker>>,
    /// The bus has more than was pulled.
    hungry: AtomicBool,
    /// Its publishes wait for room, and it has no credit to tell it so: it is not read.
    paused: AtomicBool,
    /// Microseconds: when something last came, and last went.
    heard: AtomicU64,
    said: AtomicU64,
    dead: AtomicBool,
    /// Requests since the socket last had room for more.
    unanswered: AtomicU64,
}

/// Who is at the other end.
pub(super) struct Peer {
    pub(super) client_id: Arc<str>,
    /// `None` inside the process.
    pub(super) remote: Option<SocketAddr>,
}

struct Outgoing {
    dialect: Dialect,
    backlog: Backlog,
    end: Option<End>,
    /// Why it ends, where that is more than `end` says.
    why: Option<&'static str>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It broke; its client may come back and resume.
    Lost,
    /// Somebody said goodbye.
    Goodbye,
}

/// Why reading stops.
enum Stop {
    Violation(Violation),
    Fatal(Error),
    Closed { code: u16 },
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Stop::Violation(violation)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Fatal(error)
    }
}

impl Connection {
    pub(super) fn new(
        port: PortId,
        peer: Peer,
        socket: Socket,
        dialect: Dialect,
        now: Time,
    ) -> Self {
        let outgoing = Outgoing { dialect, backlog: Backlog::default(), end: None, why: None };
        Connection {
            port,
            peer,
            socket,
            outgoing: Mutex::new(outgoing),
            task: Mutex::new(None),
            hungry: AtomicBool::new(true),
            paused: AtomicBool::new(false),
            heard: AtomicU64::new(now.as_micros()),
            said: AtomicU64::new(now.as_micros()),
            dead: AtomicBool::new(false),
            unanswered: AtomicU64::new(0),
        }
    }

    /// Counts requests whose answers cannot leave at the moment; false if they are too many.
    pub(super) fn may_ask(&self, requests: usize) -> bool {
        if self.accepts() {
            self.unanswered.store(0, Ordering::Relaxed);
            return true;
        }
        self.unanswered.fetch_add(requests as u64, Ordering::Relaxed) < UNANSWERED
    }

    /// A client of this process.
    pub(super) fn is_local(&self) -> bool {
        self.socket.carries_messages()
    }

    pub(super) fn is_native(&self) -> bool {
        matches!(self.outgoing.lock().dialect, Dialect::Native(_))
    }

    /// Whether it can send now, so that pulling for it makes sense.
    pub(super) fn accepts(&self) -> bool {
        let outgoing = self.outgoing.lock();
        outgoing.backlog.is_empty() && outgoing.end.is_none() && self.socket.has_room()
    }

    /// The bus has something that was not pulled: its own task will, once there is room.
    pub(super) fn set_hungry(&self) {
        self.hungry.store(true, Ordering::Relaxed);
    }

    /// Its publishes have room again.
    pub(super) fn resume_reading(&self) {
        self.paused.store(false, Ordering::Relaxed);
        self.wake();
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.lock() {
            task.wake_by_ref();
        }
    }

    /// Encodes and writes `outputs`; `more`: the bus has more.
    pub(super) fn send(
        &self,
        now: Time,
        outputs: impl Iterator<Item = Output>,
        more: bool,
        egress: &mut Egress,
    ) {
        self.write(now, egress, |outgoing, egress| {
            for output in outputs {
                if let Output::Close(error) = &output {
                    outgoing.end = Some(End::Goodbye);
                    outgoing.why.get_or_insert(error.code());
                }
                match &mut outgoing.dialect {
                    Dialect::Native(encoder) => encoder.encode(now, &output, egress),
                    Dialect::KpsJson(dialogue) => dialogue.encode(&output, egress),
                }
            }
            if outgoing.end.is_some() {
                finish_message(&outgoing.dialect, egress);
                egress.close(close::POLICY, "");
            }
        });
        if more {
            self.set_hungry();
            self.wake();
        }
    }

    /// Writes what `fill` puts into `egress`. Nothing is written once the connection is ending.
    fn write(&self, now: Time, egress: &mut Egress, fill: impl FnOnce(&mut Outgoing, &mut Egress)) {
        let mut outgoing = self.outgoing.lock();
        if outgoing.end.is_some() {
            return;
        }
        egress.reset(self.is_local());
        fill(&mut outgoing, egress);
        finish_message(&outgoing.dialect, egress);
        if egress.is_empty() {
            return;
        }
        self.said.store(now.as_micros(), Ordering::Relaxed);
        let Outgoing { backlog, end, .. } = &mut *outgoing;
        let was_clear = backlog.is_empty();
        if let Err(error) = egress.write(backlog, |slices| self.socket.try_write(slices)) {
            tracing::debug!(%error, "a connection broke while writing");
            *end = Some(End::Lost);
            self.dead.store(true, Ordering::Relaxed);
        }
        let blocked = was_clear && !(backlog.is_empty() && self.socket.has_room());
        let ended = end.is_some();
        drop(outgoing);
        if blocked || ended {
            self.wake();
        }
    }

    /// Answers a ping, unless the peer asks without reading the answers.
    pub(super) fn answer_ping(&self, hub: &Hub, fill: impl FnOnce(&mut Dialect, &mut Egress)) {
        if self.outgoing.lock().backlog.len() < UNREAD {
            self.say(hub, None, fill);
        }
    }

    /// Says something that does not come from the bus, and ends if `end` says so.
    pub(super) fn say(
        &self,
        hub: &Hub,
        end: Option<End>,
        fill: impl FnOnce(&mut Dialect, &mut Egress),
    ) {
        hub.with_egress(|egress| {
            self.write(hub.now(), egress, |outgoing, egress| {
                fill(&mut outgoing.dialect, egress);
                outgoing.end = end;
            });
        });
    }

    /// Lends the KPS JSON side of the connection to `act`.
    pub(super) fn with_dialogue<R>(&self, act: impl FnOnce(&mut kps_json::Dialogue) -> R) -> R {
        match &mut self.outgoing.lock().dialect {
            Dialect::KpsJson(dialogue) => act(dialogue),
            Dialect::Native(_) => unreachable!("a connection never changes its dialect"),
        }
    }

    /// The server closes: tells the client to come back later, and ends.
    pub(super) fn close_for_shutdown(&self, hub: &Hub) {
        // What was accepted is confirmed, and what waits goes as far as the socket takes it.
        while self.accepts() && hub.pump(self.port, self) {}
        self.note_why("shutdown");
        self.say(hub, Some(End::Goodbye), |dialect, egress| {
            if let Dialect::Native(encoder) = dialect {
                encoder.goaway(egress);
            }
            finish_message(dialect, egress);
            egress.close(close::GOING_AWAY, "the server closes");
        });
    }

    /// Ends without any further word.
    pub(super) fn abandon(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Pings a quiet peer, gives up a silent one. `sweep`: when the next check comes.
    pub(super) fn check_heartbeat(&self, hub: &Hub, now: Time, sweep: Duration) {
        if self.is_local() {
            return;
        }
        let since = |then: &AtomicU64| now.since(Time::from_micros(then.load(Ordering::Relaxed)));
        let timings = &hub.options.timings;
        if since(&self.heard) + sweep >= timings.silence && !self.is_paused() {
            tracing::debug!("a connection fell silent");
            self.note_why(SILENT);
            self.abandon();
        } else if since(&self.said) >= timings.heartbeat {
            self.say(hub, None, |dialect, egress| match dialect {
                Dialect::Native(encoder) => encoder.ping(now, egress),
                Dialect::KpsJson(_) => egress.control(Opcode::Ping, b""),
            });
        }
    }

    /// The connection's own task.
    pub(super) async fn run(self: &Arc<Self>, hub: &Arc<Hub>, mut decoder: Decoder) -> End {
        let end = std::future::poll_fn(|cx| self.poll(hub, &mut decoder, cx)).await;
        self.socket.say_closed();
        end
    }

    fn poll(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<End> {
        {
            let mut task = self.task.lock();
            match &mut *task {
                Some(task) => task.clone_from(cx.waker()),
                None => *task = Some(cx.waker().clone()),
            }
        }
        if self.dead.load(Ordering::Relaxed) {
            return Poll::Ready(End::Lost);
        }
        match self.poll_write(hub, cx) {
            Ok(Some(end)) => return Poll::Ready(end),
            Ok(None) => {}
            Err(_) => return Poll::Ready(End::Lost),
        }
        if self.outgoing.lock().end.is_some() {
            return Poll::Pending;
        }
        let mut taken = 0;
        for _ in 0..TURNS {
            if self.is_paused() || !self.may_ask(0) {
                return Poll::Pending;
            }
            match self.poll_read(hub, decoder, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Ready(Ok(count)) => taken += count,
            }
            if taken >= READ || self.outgoing.lock().end.is_some() {
                break;
            }
        }
        give_way(cx);
        Poll::Pending
    }

    /// Writes what waits and what the bus has more; returns how the connection ends once an
    /// ending one has said all.
    fn poll_write(&self, hub: &Arc<Hub>, cx: &mut Context<'_>) -> io::Result<Option<End>> {
        for _ in 0..TURNS {
            let (clear, end) = {
                let mut outgoing = self.outgoing.lock();
                self.socket.flush()?;
                let empty = outgoing.backlog.write(|slices| self.socket.try_write(slices))?;
                (empty && self.socket.has_room(), outgoing.end)
            };
            match (clear, end) {
                (true, Some(end)) => return Ok(Some(end)),
                (true, None) if !self.hungry.swap(false, Ordering::Relaxed) => return Ok(None),
                (true, None) => {
                    hub.pump(self.port, self);
                    // Others may have room now.
                    hub.send_ready();
                }
                (false, _) => match self.socket.poll_writable(cx) {
                    Poll::Pending => return Ok(None),
                    Poll::Ready(ready) => ready?,
                },
            }
        }
        give_way(cx);
        Ok(None)
    }

    /// Reads once; returns how many bytes came.
    fn poll_read(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, End>> {
        let result = BUFFER.with_borrow_mut(|buffer| {
            let (taken, count) = match std::task::ready!(self.socket.poll_read(cx, buffer)) {
                Err(_) | Ok(Chunk::Bytes(0)) => {
                    // A pipe's end is the client's goodbye: there is no line that could break.
                    let end = if self.is_local() { End::Goodbye } else { End::Lost };
                    return Poll::Ready(Err(end));
                }
                Ok(Chunk::Bytes(count)) => {
                    (self.take_bytes(hub, decoder, &mut buffer[..count]), count)
                }
                Ok(Chunk::Message(message)) => {
                    (native::receive(hub, self, &message).map_err(Stop::from), message.len())
                }
            };
            Poll::Ready(Ok((taken, count)))
        });
        let (taken, count) = std::task::ready!(result)?;
        hub.send_ready();
        match taken {
            Ok(()) => self.heard.store(hub.now().as_micros(), Ordering::Relaxed),
            Err(stop) => self.stop(hub, stop),
        }
        Poll::Ready(Ok(count))
    }

    /// Takes bytes that a WebSocket carried.
    fn take_bytes(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        decoder: &mut Decoder,
        bytes: &mut [u8],
    ) -> Result<(), Stop> {
        let native = self.is_native();
        decoder.feed(bytes, &mut |received| match received {
            Received::Binary(frames) if native => Ok(native::receive(hub, self, frames)?),
            Received::Text(text) if !native => {
                kps_json::receive(hub, self, text);
                Ok(())
            }
            Received::Text(_) | Received::Binary(_) => Err(Stop::Violation(Violation {
                code: close::UNSUPPORTED,
                reason: "kps.v1 is binary, KPS JSON is text",
            })),
            Received::Ping(payload) => {
                self.answer_ping(hub, |_, egress| egress.control(Opcode::Pong, payload));
                Ok(())
            }
            Received::Pong(_) => Ok(()),
            Received::Close { code, .. } => Err(Stop::Closed { code }),
        })
    }

    /// Publishes of a connection without credit wait for room: reading pauses.
    pub(super) fn pause_reading(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    fn stop(&self, hub: &Hub, stop: Stop) {
        match stop {
            Stop::Closed { code } => self.answer_close(hub, code),
            Stop::Violation(Violation { code, reason }) => {
                self.note_why(ErrorKind::Protocol.code());
                self.say(hub, Some(End::Goodbye), |_, egress| egress.close(code, reason));
                self.tell_error(hub, &Error::new(ErrorKind::Protocol, reason));
            }
            Stop::Fatal(error) => self.fatal(hub, error),
        }
    }

    /// The client closed: that is answered, and the connection ends.
    pub(super) fn answer_close(&self, hub: &Hub, code: u16) {
        let end = match code {
            close::NORMAL | close::NO_CODE => End::Goodbye,
            _ => End::Lost,
        };
        let code = if code == close::NO_CODE { close::NORMAL } else { code };
        self.say(hub, Some(end), |_, egress| egress.close(code, ""));
    }

    /// Says why, and ends.
    pub(super) fn fatal(&self, hub: &Hub, error: Error) {
        self.note_why(error.code());
        self.say(hub, Some(End::Goodbye), |dialect, egress| {
            match dialect {
                Dialect::Native(_) => native::put_fatal(&error, egress),
                Dialect::KpsJson(_) => kps_json::put_error(&error, egress),
            }
            finish_message(dialect, egress);
            egress.close(close_code(&error), error.code());
        });
        self.tell_error(hub, &error);
    }

    fn tell_error(&self, hub: &Hub, error: &Error) {
        hub.tell_error(error, Some(self.peer.client_id.clone()), self.peer.remote);
    }

    /// The first reason counts.
    fn note_why(&self, why: &'static str) {
        self.outgoing.lock().why.get_or_insert(why);
    }

    /// Whether its client is not expected back soon: it said so, or was silent for too long already.
    pub(super) fn was_missed(&self, end: End) -> bool {
        end == End::Goodbye || self.outgoing.lock().why == Some(SILENT)
    }

    /// What is told of its end; of one inside the process, nothing. `client_id`: what the bus called its
    /// client last.
    pub(super) fn closed(&self, client_id: Option<Arc<str>>, end: End) -> Option<ServerEvent> {
        if self.is_local() {
            return None;
        }
        let reason = self.outgoing.lock().why.unwrap_or(match end {
            End::Lost => "lost",
            End::Goodbye => "goodbye",
        });
        let client_id = client_id.unwrap_or_else(|| self.peer.client_id.clone());
        Some(ServerEvent::ConnectionClosed { client_id, reason })
    }
}

/// Others have their turn, what waits for its socket too: a task that woke itself at once would run
/// many times before the runtime looks at sockets again.
fn give_way(cx: &mut Context<'_>) {
    let turn = std::pin::pin!(tokio::task::yield_now());
    // It wakes this task after that.
    let _ = turn.poll(cx);
}

/// The close code that says roughly what `error` says exactly.
pub(super) fn close_code(error: &Error) -> u16 {
    match error.kind() {
        ErrorKind::Protocol => close::PROTOCOL,
        _ => close::POLICY,
    }
}

/// Ends the message that outputs were collected in.
fn finish_message(dialect: &Dialect, egress: &mut Egress) {
    if egress.message_length().is_some() {
        egress.end(match dialect {
            Dialect::Native(_) => Opcode::Binary,
            Dialect::KpsJson(_) => Opcode::Text,
        });
    }
}

impl Egress {
    /// A WebSocket close frame; nothing for a pipe, whose end says it.
    pub(super) fn close(&mut self, code: u16, reason: &str) {
        let mut body = Vec::with_capacity(125);
        body.put_u16(code);
        let fits = (0..=reason.len().min(123)).rev().find(|&end| reason.is_char_boundary(end));
        body.put_slice(&reason.as_bytes()[..fits.unwrap_or(0)]);
        self.control(Opcode::Close, &body);
    }
}
