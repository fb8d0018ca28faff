//! The server's side of kps.v1: its handshake, frames in, outputs out.

use std::{cell::Cell, collections::HashMap, sync::Arc};

use kps_proto::{
    Error, ErrorKind, Result,
    bus::{Attach, Attached, Output, PortKind, Principal, Published},
    clock::Time,
    message::Sender,
    wire::{
        self, Frames,
        frame::{
            ErrorFrame, Frame, Hello, HistoryFrame, MessageFrame, Name, Reference, Welcome,
            features,
        },
        v1::VERSION,
    },
};

use super::{
    connection::{Connection, Dialect},
    egress::{Egress, SHARE_FROM},
    handshake::{Early, Guest, entropy},
    hub::Hub,
};
use crate::net::websocket::Opcode;

/// A message is ended and the next one begun here, so that its reader can start.
const MESSAGE: usize = 64 << 10;

/// Frames whose memory is kept for the next message. A batch of a busy client has some hundreds.
const KEPT_FRAMES: usize = 4096;

/// How long a client is asked to wait before it reconnects to a server that closes.
const RETURN_AFTER_MS: u64 = 500;

/// Alias numbers that the encoder cannot do without.
const MIN_ALIASES: u32 = 2;

const SERVER: &str = concat!("kps/", env!("CARGO_PKG_VERSION"));

/// Waits for `HELLO` and answers it. `None`: the guest left or was refused.
pub(super) async fn greet(mut guest: Guest) -> Option<(Arc<Connection>, Guest)> {
    let Early::Binary(first) = guest.next().await? else {
        let error =
            Error::new(ErrorKind::Protocol, "kps.v1 is binary; offer no subprotocol for KPS JSON");
        return guest.refuse_native(&error, "").await;
    };
    let (hello, rest) = match first_frame(&first) {
        Ok(first) => first,
        Err(error) => return guest.refuse_native(&error, "").await,
    };
    let principal = match authorize(&guest, &hello).await {
        Ok(principal) => principal,
        Err(error) => return guest.refuse_native(&error, hello.client_id).await,
    };
    let (hub, name) = (guest.hub.clone(), principal.name.clone());
    if !guest.introduction.is_own {
        hub.calls.serve(&hub, &principal.namespace).await;
    }
    let attached = hub.with_bus(|bus, now| {
        bus.attach(
            now,
            Attach {
                principal,
                kind: PortKind::Native,
                client_id: hello.client_id,
                origin: hello.origin,
                session: hello.session,
                received: &hello.received,
                entropy: entropy(),
            },
        )
    });
    let attached = match attached {
        Ok(attached) => attached,
        Err(error) => return guest.refuse_native(&error, hello.client_id).await,
    };
    let encoder = Encoder::new(hub.options.limits.aliases);
    let link = guest.become_link(&attached, name, Dialect::Native(encoder));
    link.say(&hub, None, |_, egress| {
        put(&Frame::Welcome(welcome(&hub, &attached, hello.features)), egress);
    });
    if let Err(error) = receive(&hub, &link, rest) {
        link.fatal(&hub, error);
    }
    Some((link, guest))
}

fn first_frame(message: &[u8]) -> Result<(Hello<'_>, &[u8])> {
    let mut frames = Frames::new(message);
    match frames.next().transpose()? {
        Some(Frame::Hello(hello)) => {
            let (low, high) = hello.versions;
            if !(low..=high).contains(&VERSION) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("this server speaks version {VERSION} of kps.v1, not {low} to {high}"),
                ));
            }
            Ok((hello, frames.rest()))
        }
        _ => Err(Error::new(ErrorKind::NotRegistered, "the first frame must be HELLO")),
    }
}

async fn authorize(guest: &Guest, hello: &Hello<'_>) -> Result<Principal> {
    let token = if hello.token.is_empty() { &guest.introduction.token } else { hello.token };
    guest.authorize(token, hello.namespace, hello.client_id).await
}

fn welcome<'a>(hub: &'a Hub, attached: &'a Attached, wanted: u64) -> Welcome<'a> {
    let (limits, timings) = (&hub.options.limits, &hub.options.timings);
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (epoch, time_base_ms) =
        hub.with_bus(|bus, _| (bus.config().epoch, bus.config().time_base_ms));
    let patterns = hub.kept_patterns();
    Welcome {
        version: VERSION,
        features: wanted
            & (features::POLICIES
                | features::RETAINED
                | features::SKIPS
                | if patterns.is_empty() { 0 } else { features::HISTORY }),
        client_id: &attached.client_id,
        session: &attached.session,
        resumed: attached.resumed,
        epoch,
        time_base_ms,
        heartbeat_ms: millis(timings.heartbeat),
        resume_window_ms: millis(timings.resume_window),
        published: attached.published,
        answered: attached.answered,
        max_payload: limits.payload as u64,
        publish_window: limits.publish_window,
        publish_window_bytes: limits.publish_window_bytes,
        aliases: u32::try_from(limits.aliases).unwrap_or(u32::MAX).max(MIN_ALIASES),
        server: SERVER,
        history: HistoryFrame { on_disk: hub.options.data.is_some(), patterns },
    }
}

/// Takes the frames of one message: decoded before the bus is locked, handled under one lock.
pub(super) fn receive(hub: &Arc<Hub>, link: &Connection, message: &[u8]) -> Result<()> {
    let mut frames = recycle(FRAMES.take());
    let received = receive_with(&mut frames, hub, link, message);
    FRAMES.set(recycle(frames));
    received
}

thread_local! {
    /// The memory that decoded frames lie in, from one message to the next.
    static FRAMES: Cell<Vec<Frame<'static>>> = const { Cell::new(Vec::new()) };
}

/// `frames` emptied, for frames of another message.
fn recycle<'a>(mut frames: Vec<Frame<'_>>) -> Vec<Frame<'a>> {
    frames.clear();
    frames.shrink_to(KEPT_FRAMES);
    frames.into_iter().map(|_| unreachable!("it was cleared")).collect()
}

fn receive_with<'a>(
    frames: &mut Vec<Frame<'a>>,
    hub: &Arc<Hub>,
    link: &Connection,
    message: &'a [u8],
) -> Result<()> {
    let mut fault = None;
    let mut ping = None;
    let mut token = None;
    let mut requests = 0;
    for frame in Frames::new(message) {
        match frame {
            // One answer is enough for all pings of a message; the bus says with it what it held
            // back.
            Ok(frame @ Frame::Ping { nonce }) => {
                ping = Some(nonce);
                frames.push(frame);
            }
            Ok(Frame::Auth { token: renewed }) => token = Some(renewed),
            Ok(frame) => {
                requests +=
                    usize::from(matches!(frame, Frame::Subscribe(_) | Frame::Unsubscribe { .. }));
                frames.push(frame);
            }
            Err(error) => fault = Some(error),
        }
    }
    hub.with_bus(|bus, now| frames.iter().try_for_each(|frame| bus.handle(now, link.port, frame)))?;
    if requests > 0 && !link.may_ask(requests) {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            "too many subscriptions were asked for while the answers were not read",
        ));
    }
    if let Some(nonce) = ping {
        link.answer_ping(hub, |_, egress| put(&Frame::Pong { nonce }, egress));
    }
    if let Some(token) = token {
        hub.tokens.principal(token)?;
    }
    fault.map_or(Ok(()), Err)
}

fn put(frame: &Frame<'_>, egress: &mut Egress) {
    open_message(egress);
    wire::encode(frame, &mut egress.buffer);
}

fn open_message(egress: &mut Egress) {
    if egress.message_length().is_none() {
        egress.begin();
    }
}

/// Puts a fatal `ERROR`.
pub(super) fn put_fatal(error: &Error, egress: &mut Egress) {
    let (kind, message) = (error.kind(), error.message());
    let frame = ErrorFrame { kind, reference: Reference::Connection, fatal: true, message };
    put(&Frame::Error(frame), egress);
}

/// Turns outputs into frames; knows which names its connection's peer has numbers for.
pub(super) struct Encoder {
    names: Names,
}

impl Encoder {
    fn new(aliases: usize) -> Self {
        Encoder { names: Names::new(aliases) }
    }

    pub(super) fn encode(&mut self, now: Time, output: &Output, egress: &mut Egress) {
        open_message(egress);
        match output {
            Output::Deliver { sub, published, delivery } => {
                self.deliver(now, *sub, published, *delivery, egress);
            }
            other => {
                let frame = other.frame().expect("only a delivery has none");
                wire::encode(&frame, &mut egress.buffer);
            }
        }
        if egress.message_length().is_some_and(|length| length >= MESSAGE) {
            egress.end(Opcode::Binary);
        }
    }

    fn deliver(
        &mut self,
        now: Time,
        sub: u32,
        published: &Arc<Published>,
        delivery: Option<u64>,
        egress: &mut Egress,
    ) {
        let (topic, sender) = self.names.of(published, egress);
        let payload = &published.payload.bytes;
        let frame = MessageFrame {
            sub,
            topic,
            sender,
            seq: published.seq,
            number: published.number,
            time: published.time.as_micros() / 1000,
            attempt: published.attempt(),
            delivery,
            request: published.request,
            maybe_duplicate: published.maybe_duplicate,
            content_type: published.payload.content_type,
            extensions: published.extensions(now),
            payload,
        };
        wire::encode_message_head(&frame, payload.len(), &mut egress.buffer);
        if payload.len() >= SHARE_FROM {
            egress.share(published.share());
        } else {
            egress.buffer.extend_from_slice(payload);
        }
    }

    pub(super) fn ping(&mut self, now: Time, egress: &mut Egress) {
        put(&Frame::Ping { nonce: now.as_micros() }, egress);
    }

    pub(super) fn goaway(&mut self, egress: &mut Egress) {
        put(&Frame::Goaway { delay_ms: RETURN_AFTER_MS, reason: "the server closes" }, egress);
    }
}

/// Numbers for topics and senders. The bus shares one string among all messages of a topic, so
/// that looking at its address is enough; holding it keeps the address its own.
struct Names {
    limit: u32,
    next: u32,
    numbers: HashMap<usize, u32, ahash::RandomState>,
    held: Vec<Held>,
    last_topic: (usize, u32),
    last_sender: (usize, u32),
}

enum Held {
    Topic(Arc<str>),
    Sender(Arc<Sender>),
}

impl Held {
    fn address(&self) -> usize {
        match self {
            Held::Topic(topic) => topic.as_ptr().addr(),
            Held::Sender(sender) => Arc::as_ptr(sender).addr(),
        }
    }
}

impl Names {
    fn new(aliases: usize) -> Self {
        Names {
            // One for the topic and one for the sender is the least that works.
            limit: u32::try_from(aliases).unwrap_or(u32::MAX).max(MIN_ALIASES),
            next: 0,
            numbers: HashMap::default(),
            held: Vec::new(),
            last_topic: (0, 0),
            last_sender: (0, 0),
        }
    }

    /// The numbers of a message's topic and sender.
    fn of(&mut self, published: &Published, egress: &mut Egress) -> (Name<'static>, Name<'static>) {
        let topic = published.topic.as_ptr().addr();
        let sender = Arc::as_ptr(&published.sender).addr();
        // Giving one a number may take the other's away, but only once in a round.
        while self.last_topic.0 != topic || self.last_sender.0 != sender {
            if self.last_topic.0 != topic {
                let number = self.numbers.get(&topic).copied().unwrap_or_else(|| {
                    self.give(Held::Topic(published.topic.clone()), &published.topic, egress)
                });
                self.last_topic = (topic, number);
            }
            if self.last_sender.0 != sender {
                let number = self.numbers.get(&sender).copied().unwrap_or_else(|| {
                    let name = format!("{}/{}", published.sender.origin, published.sender.id);
                    self.give(Held::Sender(published.sender.clone()), &name, egress)
                });
                self.last_sender = (sender, number);
            }
        }
        (Name::Alias(self.last_topic.1), Name::Alias(self.last_sender.1))
    }

    /// The next number, in turn: the name that has had it longest loses it.
    fn give(&mut self, held: Held, name: &str, egress: &mut Egress) -> u32 {
        let number = self.next;
        self.next = (number + 1) % self.limit;
        let address = held.address();
        match self.held.get_mut(number as usize) {
            Some(old) => {
                let old = std::mem::replace(old, held).address();
                self.numbers.remove(&old);
                if self.last_topic.0 == old {
                    self.last_topic = (0, 0);
                }
                if self.last_sender.0 == old {
                    self.last_sender = (0, 0);
                }
            }
            None => self.held.push(held),
        }
        self.numbers.insert(address, number);
        wire::encode(&Frame::Alias { number, name }, &mut egress.buffer);
        number
    }
}
