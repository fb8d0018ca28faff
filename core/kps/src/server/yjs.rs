//! `/yjs/{id}`: Yjs providers, such as `y-websocket`, at a document.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kps_proto::{
    bus::{Grants, Principal},
    topic::SERVER_CALLS,
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use super::{
    handshake,
    http::{Introduction, Upgraded},
    hub::Hub,
    socket::{Chunk, Socket},
};
use crate::{
    auth::ConnectRequest,
    capability::Failure,
    document::{Leave, Seat, yjs_protocol as protocol},
    net::websocket::{self, Decoder, Opcode, Received, Role, Violation},
};

/// Where documents are.
pub(super) const PREFIX: &str = "/yjs/";

/// Who was told nothing for so long is told something: `y-websocket` takes a connection for lost after 30 s.
const SILENCE: Duration = Duration::from_secs(15);

/// Who said nothing for so long, to pings neither, is gone.
const GONE: Duration = Duration::from_secs(60);

/// Who takes nothing of what is written for so long is too slow.
const STALL: Duration = Duration::from_secs(20);

/// How long one who leaves may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// What one read takes at most.
const READ: usize = 16 << 10;

/// WebSocket close codes (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;
const AWAY: u16 = 1001;
const UNSUPPORTED: u16 = 1003;

/// An awareness update of nobody.
const NOBODY: &[u8] = &[0];

/// Serves one connection to the document `id` until it ends.
pub(super) async fn serve(
    hub: Arc<Hub>,
    id: &str,
    upgraded: Upgraded<Socket>,
    remote: Option<SocketAddr>,
) {
    let Upgraded { io: socket, read, introduction } = upgraded;
    let line = Line {
        socket,
        pong: Mutex::default(),
        news: Notify::new(),
        heard: Mutex::new(Instant::now()),
        is_closed: AtomicBool::new(false),
    };
    let seated = tokio::select! {
        seated = sit(&hub, id, introduction, remote) => seated,
        () = hub.stopped() => return,
    };
    let mut decoder = Decoder::new(Role::Server, 64 << 10);
    let leave = match seated {
        Ok((seat, largest)) => {
            decoder = Decoder::new(Role::Server, largest);
            let mut speaking = pin!(line.speak(&seat));
            let (leave, speaks) = tokio::select! {
                leave = line.listen(&mut decoder, &seat, read) => (leave, true),
                leave = &mut speaking => (leave, false),
                () = hub.stopped() => (Leave::new(AWAY, "the server closes"), true),
            };
            if speaks {
                // What was said before that is told still, and no message is cut.
                seat.dismiss(leave.clone());
                let _ = timeout(FAREWELL, speaking).await;
            }
            leave
        }
        Err(failure) => {
            tracing::info!(%failure, id, "refused a Yjs editor");
            let leave = Leave::of(&failure);
            let denied = protocol::denied(&leave.reason);
            let _ = timeout(FAREWELL, line.say(Opcode::Binary, &denied)).await;
            leave
        }
    };
    tracing::debug!(id, code = leave.code, reason = leave.reason, "a Yjs editor left");
    let _ = timeout(FAREWELL, line.part(&mut decoder, &leave)).await;
    line.socket.say_closed();
}

/// Gives whom the token and the hook let in a place, and says how large its messages may be.
async fn sit(
    hub: &Arc<Hub>,
    id: &str,
    introduction: Introduction,
    remote: Option<SocketAddr>,
) -> Result<(Seat, usize), Failure> {
    let Introduction { token, path, headers, .. } = introduction;
    let (client_id, principal) = (String::new(), Principal::default());
    let asked = ConnectRequest { client_id, principal, remote, headers, path };
    let principal = handshake::admit(hub, &token, "", asked).await.inspect_err(|error| {
        hub.tell_error(error, None, remote);
    })?;
    let may = |name: &str| principal.check_publish(&format!("{SERVER_CALLS}document.{name}"));
    may("open")?;
    let (grants, may_update) = (Grants::of(&principal), may("update").is_ok());
    let author = principal.name.as_deref().unwrap_or("yjs").into();
    let documents = hub.calls.documents(hub, &principal.namespace).await?;
    let namespace = principal.namespace.into();
    let seat = documents.sit(namespace, id, author, &grants, may_update).await?;
    Ok((seat, documents.largest_message()))
}

/// A connection.
struct Line {
    socket: Socket,
    /// What the last ping is to be answered with.
    pong: Mutex<Option<Vec<u8>>>,
    news: Notify,
    /// When something came last.
    heard: Mutex<Instant>,
    /// The editor said that it closes.
    is_closed: AtomicBool,
}

/// What came.
#[derive(Default)]
struct Heard {
    messages: Vec<Bytes>,
    ping: Option<Vec<u8>>,
    leave: Option<Leave>,
}

impl Line {
    /// Hears what the editor says until one of both leaves.
    async fn listen(&self, decoder: &mut Decoder, seat: &Seat, read: Bytes) -> Leave {
        let mut buffer = read.to_vec();
        let mut count = buffer.len();
        buffer.resize(READ.max(count), 0);
        loop {
            match self.hear(decoder, &mut buffer[..count], seat).await {
                Ok(()) => {}
                Err(leave) => return leave,
            }
            buffer.truncate(READ);
            let reading = std::future::poll_fn(|cx| self.socket.poll_read(cx, &mut buffer));
            count = match reading.await {
                Ok(Chunk::Bytes(count)) if count > 0 => count,
                _ => return Leave::new(NORMAL, "it is gone"),
            };
            *self.heard.lock() = Instant::now();
        }
    }

    async fn hear(
        &self,
        decoder: &mut Decoder,
        bytes: &mut [u8],
        seat: &Seat,
    ) -> Result<(), Leave> {
        let mut heard = Heard::default();
        let fed = decoder.feed(bytes, &mut |received| {
            match received {
                Received::Binary(bytes) => heard.messages.push(Bytes::copy_from_slice(bytes)),
                Received::Text(_) => {
                    heard.leave = Some(Leave::new(UNSUPPORTED, "Yjs speaks in binary messages"));
                }
                Received::Ping(payload) => heard.ping = Some(payload.to_vec()),
                Received::Pong(_) => {}
                Received::Close { .. } => {
                    self.is_closed.store(true, Ordering::Relaxed);
                    heard.leave = Some(Leave::new(NORMAL, ""));
                }
            }
            Ok::<_, Violation>(())
        });
        for message in &heard.messages {
            seat.take(message).await?;
        }
        if let Some(ping) = heard.ping {
            *self.pong.lock() = Some(ping);
            self.news.notify_one();
        }
        fed.map_err(|violation| Leave::new(violation.code, violation.reason))?;
        heard.leave.map_or(Ok(()), Err)
    }

    /// Tells the editor what there is to tell until it is to leave.
    async fn speak(&self, seat: &Seat) -> Leave {
        let mut said = Instant::now();
        // Set again when it goes off: for every message would cost more than the message.
        let mut silence = pin!(sleep_until(said + SILENCE));
        loop {
            let saying = tokio::select! {
                () = self.news.notified() => {
                    let pong = self.pong.lock().take().unwrap_or_default();
                    timeout(STALL, self.say(Opcode::Pong, &pong)).await
                }
                frames = seat.next() => match frames {
                    Ok(frames) => timeout(STALL, self.write(&frames, &[])).await,
                    Err(leave) => return leave,
                },
                () = &mut silence => {
                    if said.elapsed() < SILENCE {
                        silence.as_mut().reset(said + SILENCE);
                        continue;
                    }
                    if self.heard.lock().elapsed() > GONE {
                        return Leave::new(AWAY, "nothing was heard for too long");
                    }
                    timeout(STALL, self.keep_alive()).await
                }
            };
            match saying {
                Ok(Ok(())) => said = Instant::now(),
                Ok(Err(_)) => return Leave::new(NORMAL, "it is gone"),
                Err(_) => return Leave::new(AWAY, "it takes nothing any more"),
            }
        }
    }

    async fn keep_alive(&self) -> io::Result<()> {
        // A page does not see pings; a dead connection shows by the pong that does not come.
        self.say(Opcode::Binary, &protocol::awareness(NOBODY)).await?;
        self.say(Opcode::Ping, &[]).await
    }

    async fn say(&self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let (header, length) = websocket::server_header(opcode, payload.len());
        self.write(&header[..length], payload).await
    }

    async fn write(&self, mut head: &[u8], mut body: &[u8]) -> io::Result<()> {
        while !head.is_empty() || !body.is_empty() {
            match self.socket.try_write(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(count) => {
                    let of_head = count.min(head.len());
                    (head, body) = (&head[of_head..], &body[count - of_head..]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.room().await?,
                Err(error) => return Err(error),
            }
        }
        while !self.socket.has_room() {
            self.room().await?;
        }
        Ok(())
    }

    /// Waits until something more can be written.
    async fn room(&self) -> io::Result<()> {
        self.socket.flush()?;
        std::future::poll_fn(|cx| self.socket.poll_writable(cx)).await?;
        self.socket.flush()
    }

    /// Says why it ends, and waits until that was heard: closed at once, what is not read yet would reset it.
    async fn part(&self, decoder: &mut Decoder, leave: &Leave) {
        let mut frame = BytesMut::new();
        websocket::put_close(&mut frame, leave.code, &leave.reason, None);
        if self.write(&frame, &[]).await.is_err() {
            return;
        }
        let mut buffer = [0; 4096];
        // Nothing is read after its own close: the connection is to be ended here.
        let mut is_closed = self.is_closed.load(Ordering::Relaxed);
        while !is_closed
            && let Ok(Chunk::Bytes(count @ 1..)) =
                std::future::poll_fn(|cx| self.socket.poll_read(cx, &mut buffer)).await
        {
            let fed = decoder.feed(&mut buffer[..count], &mut |received| {
                is_closed |= matches!(received, Received::Close { .. });
                Ok::<_, Violation>(())
            });
            is_closed |= fed.is_err();
        }
    }
}
