//! `mem://`: a pair of connected ends inside one process. What travels are whole kps.v1 messages;
//! there is no WebSocket around them.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use kps_proto::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use super::{BoxFuture, Connection, Health, LinkState, Sent, TlsOptions, Transport};

/// The address of a server that is not found under a name.
pub(crate) const PRIVATE: &str = "mem://";

/// Bytes that may wait in one direction before its writer has to wait for room.
const ROOM: usize = 256 << 10;

/// One end. Dropping it closes both directions.
#[derive(Debug)]
pub(crate) struct End {
    inbox: Arc<Lane>,
    outbox: Arc<Lane>,
}

/// Two connected ends.
pub(crate) fn pipe() -> (End, End) {
    let (left, right) = (Arc::<Lane>::default(), Arc::<Lane>::default());
    (End { inbox: left.clone(), outbox: right.clone() }, End { inbox: right, outbox: left })
}

impl End {
    /// The next message; `None` once the other end is gone and all it sent was taken.
    pub(crate) fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut lane = self.inbox.0.lock();
        let Some(message) = lane.queue.pop_front() else {
            if lane.closed {
                return Poll::Ready(None);
            }
            remember(&mut lane.reader, cx);
            return Poll::Pending;
        };
        let was_full = lane.bytes >= ROOM;
        lane.bytes -= message.len();
        let writer = if was_full && lane.bytes < ROOM { lane.writer.take() } else { None };
        drop(lane);
        wake(writer);
        Poll::Ready(Some(message))
    }

    /// Ready when [`End::send`] would take a message, or would say that the other end is gone.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut lane = self.outbox.0.lock();
        if lane.closed || lane.bytes < ROOM {
            return Poll::Ready(());
        }
        remember(&mut lane.writer, cx);
        Poll::Pending
    }

    /// Whether [`End::send`] would take a message now.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.0.lock().bytes < ROOM
    }

    /// Sends one message, however long, even beyond the room. `false`: the other end is gone.
    pub(crate) fn send(&self, message: Bytes) -> bool {
        let mut lane = self.outbox.0.lock();
        if lane.closed {
            return false;
        }
        lane.bytes += message.len();
        lane.queue.push_back(message);
        let reader = lane.reader.take();
        drop(lane);
        wake(reader);
        true
    }

    /// Ends both directions; the other end still takes what was sent.
    pub(crate) fn hang_up(&self) {
        self.inbox.close();
        self.outbox.close();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// The client's side of a pipe whose other end a server in this process holds.
#[derive(Debug)]
struct Link {
    end: End,
    closed: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

/// Messages taken from the pipe before others get their turn.
const TURN: usize = 64;

impl Connection for Link {
    fn send(&self, batch: &[u8]) -> Result<Sent> {
        if !self.end.send(Bytes::copy_from_slice(batch)) {
            return Err(self.lost());
        }
        self.sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(if self.end.has_room() { Sent::All } else { Sent::Blocked })
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.end.poll_writable(cx).map(Ok)
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Poll<Result<()>> {
        for turn in 0..TURN {
            match self.end.poll_receive(cx) {
                Poll::Ready(Some(message)) => {
                    self.received.fetch_add(message.len() as u64, Ordering::Relaxed);
                    sink(&message)?;
                }
                Poll::Ready(None) => return Poll::Ready(Err(self.lost())),
                Poll::Pending if turn == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&self, _: &mut Context<'_>) -> Poll<()> {
        self.end.hang_up();
        self.closed.store(true, Ordering::Relaxed);
        Poll::Ready(())
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
            waiting_bytes: self.end.outbox.0.lock().bytes,
        }
    }
}

impl Link {
    fn lost(&self) -> Error {
        self.closed.store(true, Ordering::Relaxed);
        Error::new(ErrorKind::Closed, "the server in this process was closed")
    }
}

/// Reaches a server in this process: `accept` takes the server's end of each new pipe, and says
/// whether the server still runs.
pub(crate) struct MemTransport<F>(pub(crate) F);

impl<F> fmt::Debug for MemTransport<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemTransport")
    }
}

impl<F: Fn(End) -> bool + Send + Sync + 'static> Transport for MemTransport<F> {
    fn connect<'a>(
        &'a self,
        _: &'a str,
        _: &'a TlsOptions,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>>> {
        let (end, servers) = pipe();
        let connected = match (self.0)(servers) {
            true => Ok(Arc::new(Link {
                end,
                closed: AtomicBool::new(false),
                sent: AtomicU64::new(0),
                received: AtomicU64::new(0),
            }) as Arc<dyn Connection>),
            false => {
                Err(Error::new(ErrorKind::ConnectFailed, "the server in this process was closed"))
            }
        };
        Box::pin(std::future::ready(connected))
    }
}

/// Takes the server's end of each new pipe; says whether the server still runs.
pub(crate) type Accept = dyn Fn(End) -> bool + Send + Sync;

/// The servers of this process that `mem://name` finds.
static NAMES: Mutex<BTreeMap<String, Arc<Accept>>> = Mutex::new(BTreeMap::new());

/// Makes a server reachable as `mem://name` until the returned value is dropped.
/// Fails with `bind_failed` if another server has the name.
pub(crate) fn register(name: &str, accept: Arc<Accept>) -> Result<Registered> {
    match NAMES.lock().entry(name.to_owned()) {
        Entry::Occupied(_) => Err(Error::new(
            ErrorKind::BindFailed,
            format!("mem://{name} belongs to another server of this process"),
        )),
        Entry::Vacant(entry) => {
            entry.insert(accept);
            Ok(Registered(name.to_owned()))
        }
    }
}

/// A name under which a server is found.
#[derive(Debug)]
pub(crate) struct Registered(String);

impl Drop for Registered {
    fn drop(&mut self) {
        NAMES.lock().remove(&self.0);
    }
}

/// Reaches the servers that are [registered](register).
#[derive(Debug)]
pub(crate) struct NamedTransport;

impl Transport for NamedTransport {
    fn connect<'a>(
        &'a self,
        url: &'a str,
        tls: &'a TlsOptions,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>>> {
        let name = url.strip_prefix("mem://").unwrap_or(url);
        let Some(accept) = NAMES.lock().get(name).cloned() else {
            let sentence = format!("no server in this process is called mem://{name}");
            return Box::pin(std::future::ready(Err(Error::new(
                ErrorKind::ConnectFailed,
                sentence,
            ))));
        };
        Box::pin(async move { MemTransport(move |end| accept(end)).connect(url, tls).await })
    }
}

#[derive(Debug, Default)]
struct Lane(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let (reader, writer) = (state.reader.take(), state.writer.take());
        drop(state);
        wake(reader);
        wake(writer);
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn receive(end: &End) -> Poll<Option<Bytes>> {
        end.poll_receive(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn messages_arrive_whole_and_in_order_and_the_end_is_told() {
        let (left, right) = pipe();
        assert!(receive(&right).is_pending());
        assert!(left.send(Bytes::from_static(b"one")) && left.send(Bytes::from_static(b"two")));
        drop(left);
        assert_eq!(receive(&right), Poll::Ready(Some(Bytes::from_static(b"one"))));
        assert_eq!(receive(&right), Poll::Ready(Some(Bytes::from_static(b"two"))));
        assert_eq!(receive(&right), Poll::Ready(None));
        assert!(!right.send(Bytes::new()));
    }

    #[test]
    fn a_full_lane_asks_its_writer_to_wait_until_it_is_read() {
        let (left, right) = pipe();
        left.send(vec![0; ROOM].into());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(!left.has_room() && left.poll_writable(&mut cx).is_pending());
        assert!(receive(&right).is_ready());
        assert!(left.has_room() && left.poll_writable(&mut cx).is_ready());
    }
}
