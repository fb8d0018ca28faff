//! `ws://` and `wss://` from the client's side: connecting, and the link afterwards.
//!
//! The link owns the socket. Whoever publishes may write to it directly and without waiting; only
//! reading, and what the socket does not take at once, is the runtime thread's.

use std::{
    cell::Cell,
    io::{self, Read as _, Write},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use kps_proto::{Error, ErrorKind, Result};
use rustls::{ClientConnection, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_rustls::TlsConnector;

use super::{
    Address, BoxFuture, Connection, Health, LinkState, Sent, TlsOptions, Transport, tls, upgrade,
    websocket::{self, Decoder, MaskKeys, Opcode, Received, Role, Violation},
};
use crate::runtime::OwnedByProcess;

/// Bytes of the buffer that all links read into.
const READ_BUFFER: usize = 64 << 10;

/// The largest message a server may send: its batches stay far below, a payload of the default
/// limit fits several times; a server with a higher limit sends larger payloads up to here.
const MAX_MESSAGE: usize = 256 << 20;

/// Connects over TCP, with TLS if the URL says `wss`.
#[derive(Debug)]
pub(crate) struct WebSocketTransport;

impl Transport for WebSocketTransport {
    fn connect<'a>(
        &'a self,
        url: &'a str,
        tls: &'a TlsOptions,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>>> {
        Box::pin(async move {
            let address = Address::parse(url)?;
            let stream = open(&address).await?;
            let owned = OwnedByProcess::new(&stream);
            if !address.secure {
                let (stream, early) = upgrade::upgrade(stream, &address).await?;
                return Link::new(owned, stream, None, early).map(|link| Arc::new(link) as _);
            }
            let name = ServerName::try_from(address.host.clone()).map_err(|_| {
                let sentence = format!("{:?} is no name that TLS can check", address.host);
                Error::new(ErrorKind::InvalidArgument, sentence)
            })?;
            let stream = TlsConnector::from(tls.config()?)
                .connect(name, stream)
                .await
                .map_err(|error| tls::handshake_error(&address.host, &error))?;
            let (stream, early) = upgrade::upgrade(stream, &address).await?;
            let (stream, session) = stream.into_inner();
            Link::new(owned, stream, Some(session), early).map(|link| Arc::new(link) as _)
        })
    }
}

async fn open(address: &Address) -> Result<TcpStream> {
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::ConnectionRefused => "; is the server running there?",
            _ => "",
        };
        let sentence = format!("cannot connect to {}: {error}{hint}", address.authority());
        Error::new(ErrorKind::ConnectFailed, sentence)
    };
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(failed)?;
    // Messages are coalesced by what waits, so Nagle's algorithm could only delay.
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

struct Link {
    /// Before the halves: its mark must go before the descriptor's number is free again.
    _owned: OwnedByProcess,
    reading: Mutex<Reading>,
    writing: Mutex<Writing>,
    stream: OwnedWriteHalf,
    /// A filter between the frames and the socket, so that any thread can write through it.
    tls: Option<Mutex<Box<ClientConnection>>>,
    /// Something waits for the socket to become writable.
    blocked: AtomicBool,
    closed: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

struct Reading {
    stream: OwnedReadHalf,
    decoder: Decoder,
    /// What came together with the answer to the upgrade.
    early: BytesMut,
}

#[derive(Default)]
struct Writing {
    /// Frames (and of the first one perhaps only the rest) that the socket did not take yet.
    waiting: BytesMut,
    keys: MaskKeys,
    said_goodbye: bool,
}

impl Link {
    fn new(
        owned: OwnedByProcess,
        stream: TcpStream,
        tls: Option<ClientConnection>,
        early: BytesMut,
    ) -> Result<Link> {
        let (read, write) = stream.into_split();
        let tls = tls.map(|mut tls| {
            // The bound is the caller's: who sends no more while something waits.
            tls.set_buffer_limit(None);
            Mutex::new(Box::new(tls))
        });
        Ok(Link {
            _owned: owned,
            reading: Mutex::new(Reading {
                stream: read,
                decoder: Decoder::new(Role::Client, MAX_MESSAGE),
                early,
            }),
            writing: Mutex::default(),
            stream: write,
            tls,
            blocked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        })
    }

    /// Appends a frame and writes what the socket takes.
    fn put(&self, opcode: Opcode, payload: &[u8]) -> Result<Sent> {
        let mut writing = lock(&self.writing);
        let key = writing.keys.next_key();
        websocket::put_frame(&mut writing.waiting, opcode, payload, Some(key));
        self.write(&mut writing).map_err(|error| self.lost(&error))
    }

    /// Writes what waits, as far as the socket takes it.
    fn write(&self, writing: &mut Writing) -> io::Result<Sent> {
        let sent = match &self.tls {
            None => self.write_plain(&mut writing.waiting)?,
            Some(tls) => {
                let mut tls = lock(tls);
                tls.writer().write_all(&writing.waiting)?;
                writing.waiting.clear();
                self.write_tls(&mut tls)?
            }
        };
        if sent == Sent::All && writing.waiting.capacity() > READ_BUFFER * 4 {
            writing.waiting = BytesMut::new();
        }
        self.blocked.store(sent == Sent::Blocked, Ordering::Relaxed);
        Ok(sent)
    }

    fn write_plain(&self, waiting: &mut BytesMut) -> io::Result<Sent> {
        while !waiting.is_empty() {
            match self.stream.try_write(waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.sent.fetch_add(count as u64, Ordering::Relaxed);
                    waiting.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Sent::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
        waiting.clear();
        Ok(Sent::All)
    }

    fn write_tls(&self, tls: &mut ClientConnection) -> io::Result<Sent> {
        while tls.wants_write() {
            match tls.write_tls(&mut Writer(&self.stream)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.sent.fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Sent::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Sent::All)
    }

    /// Decodes what the socket brought; `bytes` is what was read from it.
    fn feed(
        &self,
        decoder: &mut Decoder,
        bytes: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(tls) = &self.tls else { return self.decode(decoder, bytes, sink) };
        let mut cipher = &*bytes;
        let mut plain = Vec::new();
        let mut tls = lock(tls);
        while !cipher.is_empty() {
            tls.read_tls(&mut cipher).map_err(|error| self.lost(&error))?;
            let state = tls.process_new_packets().map_err(|error| self.lost(&error))?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut plain[start..]).map_err(|error| self.lost(&error))?;
        }
        // Key updates and alerts want answers.
        let sent = self.write_tls(&mut tls).map_err(|error| self.lost(&error))?;
        drop(tls);
        if sent == Sent::Blocked {
            self.blocked.store(true, Ordering::Relaxed);
        }
        self.decode(decoder, &mut plain, sink)
    }

    fn decode(
        &self,
        decoder: &mut Decoder,
        bytes: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        decoder
            .feed(bytes, &mut |received| match received {
                Received::Binary(batch) => sink(batch).map_err(Ended::Error),
                Received::Text(_) => {
                    Err(Ended::Violation(Violation { code: 1003, reason: "kps.v1 is binary" }))
                }
                Received::Ping(payload) => {
                    self.put(Opcode::Pong, payload).map(|_| ()).map_err(Ended::Error)
                }
                Received::Pong(_) => Ok(()),
                Received::Close { code, reason } => {
                    Err(Ended::Error(closed_by_server(code, reason)))
                }
            })
            .map_err(|ended| {
                self.closed.store(true, Ordering::Relaxed);
                match ended {
                    Ended::Error(error) => error,
                    Ended::Violation(violation) => {
                        self.goodbye(&mut lock(&self.writing), violation.code, violation.reason);
                        Error::new(ErrorKind::Protocol, format!("the server sent {violation}"))
                    }
                }
            })
    }

    /// Queues a close frame, once.
    fn goodbye(&self, writing: &mut Writing, code: u16, reason: &str) {
        if !std::mem::replace(&mut writing.said_goodbye, true) {
            let key = writing.keys.next_key();
            websocket::put_close(&mut writing.waiting, code, reason, Some(key));
        }
        // The peer may be gone; there is nobody else to tell.
        let _ = self.write(writing);
    }

    fn lost(&self, error: &dyn std::error::Error) -> Error {
        self.closed.store(true, Ordering::Relaxed);
        Error::new(ErrorKind::NotConnected, format!("the connection was lost: {error}"))
    }
}

impl Connection for Link {
    fn send(&self, batch: &[u8]) -> Result<Sent> {
        self.put(Opcode::Binary, batch)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.blocked.load(Ordering::Relaxed) {
            ready!(self.stream.as_ref().poll_write_ready(cx)).map_err(|error| self.lost(&error))?;
            self.write(&mut lock(&self.writing)).map_err(|error| self.lost(&error))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Poll<Result<()>> {
        if self.poll_ready(cx)?.is_pending() {
            // Only asked so that what waits goes on; reading does not depend on it.
        }
        let mut reading = lock(&self.reading);
        let Reading { stream, decoder, early } = &mut *reading;
        if !early.is_empty() {
            return Poll::Ready(self.feed(decoder, &mut std::mem::take(early), sink));
        }
        let mut buffer = ReadBuffer::take();
        let mut read = ReadBuf::new(buffer.bytes());
        ready!(Pin::new(stream).poll_read(cx, &mut read)).map_err(|error| self.lost(&error))?;
        let bytes = read.filled_mut();
        if bytes.is_empty() {
            return Poll::Ready(Err(self.lost(&io::Error::from(io::ErrorKind::UnexpectedEof))));
        }
        self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Poll::Ready(self.feed(decoder, bytes, sink))
    }

    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.closed.store(true, Ordering::Relaxed);
        let mut writing = lock(&self.writing);
        if !writing.said_goodbye {
            self.goodbye(&mut writing, 1000, "");
        }
        drop(writing);
        if ready!(self.poll_ready(cx)).is_err() {
            return Poll::Ready(());
        }
        // Reading up to the server's own goodbye: closing with unread bytes would reset the
        // connection, and a reset may overtake what was sent.
        loop {
            if ready!(self.poll_receive(cx, &mut |_| Ok(()))).is_err() {
                return Poll::Ready(());
            }
        }
    }

    fn state(&self) -> LinkState {
        match self.closed.load(Ordering::Relaxed) {
            true => LinkState::Closed,
            false => LinkState::Open,
        }
    }

    fn health(&self) -> Health {
        Health {
            sent_bytes: self.sent.load(Ordering::Relaxed),
            received_bytes: self.received.load(Ordering::Relaxed),
            waiting_bytes: lock(&self.writing).waiting.len(),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

enum Ended {
    Error(Error),
    Violation(Violation),
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Ended::Violation(violation)
    }
}

fn closed_by_server(code: u16, reason: &str) -> Error {
    let sentence = match reason {
        "" => format!("the server closed the connection (code {code})"),
        reason => format!("the server closed the connection (code {code}): {reason}"),
    };
    Error::new(ErrorKind::NotConnected, sentence)
}

/// The buffer this thread reads into; shared by its links, so that an idle link owns none.
struct ReadBuffer(Vec<u8>);

impl ReadBuffer {
    fn take() -> Self {
        ReadBuffer(BUFFER.take())
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.0.resize(READ_BUFFER, 0);
        &mut self.0
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        BUFFER.set(std::mem::take(&mut self.0));
    }
}

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// tokio's socket under std's trait: `WouldBlock` instead of waiting.
struct Writer<'a>(&'a OwnedWriteHalf);

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }
    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Not parking_lot's: its table of waiters is shared by the process and may be locked in a fork.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
