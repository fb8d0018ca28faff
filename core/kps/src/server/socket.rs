//! The byte stream below one connection: TCP, TLS on TCP, or a pipe inside the process.
//!
//! Everything takes `&self` and never waits: any task of the server's thread may write to any
//! connection, which saves a hop per delivery. TLS is a filter between the bytes and the TCP
//! socket, not a stream of its own, so that it takes the same way.

use std::{
    io::{self, IoSlice, Read, Write},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustls::ServerConnection;
use tokio::{io::Interest, net::TcpStream};

use crate::{net::mem, runtime::OwnedByProcess};

/// Plaintext that waits inside TLS at most, before its writer has to wait.
const TLS_ROOM: usize = 256 << 10;

pub(super) enum Socket {
    Plain(Tcp),
    Tls(Tcp, Mutex<Box<ServerConnection>>),
    Memory(mem::End),
}

/// A TCP socket that a forked child does not keep open.
pub(super) struct Tcp {
    /// First: its mark must go before the descriptor's number is free again.
    _owned: OwnedByProcess,
    stream: TcpStream,
}

impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        Tcp { _owned: OwnedByProcess::new(&stream), stream }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Socket::Plain(stream.into())
    }
}

impl From<tokio_rustls::server::TlsStream<TcpStream>> for Socket {
    fn from(stream: tokio_rustls::server::TlsStream<TcpStream>) -> Self {
        let (stream, mut tls) = stream.into_inner();
        tls.set_buffer_limit(Some(TLS_ROOM));
        Socket::Tls(stream.into(), Mutex::new(Box::new(tls)))
    }
}

/// What one read yields.
pub(super) enum Chunk {
    /// So many bytes are in the buffer; 0: the peer closed its side.
    Bytes(usize),
    /// A whole message.
    Message(Bytes),
}

impl Socket {
    /// Reads into `buffer`, or yields a message if the socket carries messages.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<Chunk>> {
        if let Socket::Memory(end) = self {
            return end
                .poll_receive(cx)
                .map(|message| Ok(message.map_or(Chunk::Bytes(0), Chunk::Message)));
        }
        loop {
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream().poll_read_ready(cx))?;
                }
                read => return Poll::Ready(read.map(Chunk::Bytes)),
            }
        }
    }

    fn stream(&self) -> &TcpStream {
        match self {
            Socket::Plain(tcp) | Socket::Tls(tcp, _) => &tcp.stream,
            Socket::Memory(_) => unreachable!("callers handle pipes first"),
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Socket::Tls(Tcp { stream, .. }, tls) = self else {
            return read_until_drained(self.stream(), buffer);
        };
        let mut tls = tls.lock();
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer that hangs up without `close_notify` is gone all the same.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            tls.read_tls(&mut NonBlocking(stream))?;
            let state = tls.process_new_packets();
            let flushed = flush_tls(stream, &mut tls);
            state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            flushed?;
        }
    }

    /// Ready when writing may get somewhere.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Memory(end) => end.poll_writable(cx).map(Ok),
            _ => self.stream().poll_write_ready(cx),
        }
    }

    /// Writes what can be written now and returns how much; `WouldBlock` if nothing can. A pipe
    /// takes all slices as one message, even if it [has no room](Socket::has_room).
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Plain(Tcp { stream, .. }) => match slices {
                [one] => stream.try_write(one),
                many => stream.try_write_vectored(many),
            },
            Socket::Tls(Tcp { stream, .. }, tls) => {
                let mut tls = tls.lock();
                let written = tls.writer().write_vectored(slices)?;
                flush_tls(stream, &mut tls)?;
                match written {
                    0 if !slices.iter().all(|slice| slice.is_empty()) => {
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    written => Ok(written),
                }
            }
            Socket::Memory(end) => {
                let length = slices.iter().map(|slice| slice.len()).sum();
                let mut message = BytesMut::with_capacity(length);
                slices.iter().for_each(|slice| message.extend_from_slice(slice));
                match end.send(message.freeze()) {
                    true => Ok(length),
                    false => Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
        }
    }

    /// Whether nothing that was written waits inside for the peer.
    pub(super) fn has_room(&self) -> bool {
        match self {
            Socket::Plain(_) => true,
            Socket::Tls(_, tls) => !tls.lock().wants_write(),
            Socket::Memory(end) => end.has_room(),
        }
    }

    /// Tries to send ciphertext that waits.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self {
            Socket::Tls(Tcp { stream, .. }, tls) => flush_tls(stream, &mut tls.lock()),
            _ => Ok(()),
        }
    }

    /// Says goodbye below the WebSocket: TLS' own close.
    pub(super) fn say_closed(&self) {
        if let Socket::Tls(Tcp { stream, .. }, tls) = self {
            let mut tls = tls.lock();
            tls.send_close_notify();
            // The peer may be gone already; there is nobody else to tell.
            let _ = flush_tls(stream, &mut tls);
        }
    }

    /// Whether messages travel whole, without WebSocket frames around them.
    pub(super) fn carries_messages(&self) -> bool {
        matches!(self, Socket::Memory(_))
    }
}

/// Reads, and takes the socket for drained when that fills less than the buffer: the next read then
/// waits for the poller instead of asking the kernel, which saves a call per batch. Only right where
/// the poller reports edges; tokio's own `poll_read`, which needs `&mut`, does the same.
fn read_until_drained(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    if !cfg!(any(target_os = "linux", target_os = "macos")) {
        return stream.try_read(buffer);
    }
    let mut count = 0;
    let read = stream.try_io(Interest::READABLE, || {
        count = stream.try_read(buffer)?;
        match count {
            0 => Ok(()),
            count if count == buffer.len() => Ok(()),
            // Tells tokio that the socket is not ready any more; what came meanwhile is a new edge.
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    });
    if count > 0 { Ok(count) } else { read.map(|()| 0) }
}

fn flush_tls(stream: &TcpStream, tls: &mut ServerConnection) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(&mut NonBlocking(stream)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// tokio's socket under std's traits: `WouldBlock` instead of waiting.
struct NonBlocking<'a>(&'a TcpStream);

impl Read for NonBlocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
