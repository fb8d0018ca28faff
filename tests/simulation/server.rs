//! What drives the bus: frames in, outputs to frames. A small copy of what a real server does.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use kps_proto::{
    Error, Result,
    bus::{Attach, Bus, BusConfig, Output, PortId, PortKind, Principal},
    clock::Time,
    wire::{
        Frames, encode,
        frame::{
            ErrorFrame, Frame, HistoryFrame, MessageFrame, Name, Reference, Welcome, features,
        },
    },
};

use crate::random::Dice;

/// What the checks depend on.
pub(crate) enum Told<'a> {
    /// A client is there; only these subscriptions of its earlier connection go on. `lost`: its
    /// session is not known any more.
    Attached { received: &'a [(u32, u64)], lost: bool },
    /// It asks for a subscription.
    Subscribe { sub: u32 },
}

/// One accepted connection.
pub(crate) struct Peer {
    pub(crate) port: Option<PortId>,
    names: Names,
    /// It has outputs that its socket did not take yet.
    pub(crate) waits: bool,
}

impl Peer {
    pub(crate) fn new(aliases: u32) -> Peer {
        Peer { port: None, names: Names::new(aliases), waits: false }
    }

    /// Takes one message; what is to be answered outside the bus goes to `replies`. `tell` hears
    /// of what the checks depend on, before it is handled.
    pub(crate) fn receive(
        &mut self,
        bus: &mut Bus,
        now: Time,
        message: &[u8],
        dice: &mut Dice,
        replies: &mut BytesMut,
        mut tell: impl FnMut(Told<'_>, &mut Bus),
    ) -> Result<()> {
        for frame in Frames::new(message) {
            let frame = frame?;
            match (&frame, self.port) {
                (Frame::Hello(hello), None) => {
                    let mut entropy = [0; 24];
                    for chunk in entropy.chunks_mut(8) {
                        chunk.copy_from_slice(&dice.next().to_be_bytes());
                    }
                    let attached = bus.attach(
                        now,
                        Attach {
                            principal: Principal::default(),
                            kind: PortKind::Native,
                            client_id: hello.client_id,
                            origin: hello.origin,
                            session: hello.session,
                            received: &hello.received,
                            entropy,
                        },
                    )?;
                    self.port = Some(attached.port);
                    let received = if attached.resumed { &hello.received[..] } else { &[] };
                    let lost = !attached.resumed && !hello.session.is_empty();
                    tell(Told::Attached { received, lost }, bus);
                    let BusConfig { limits, timings, epoch, time_base_ms, history, .. } =
                        bus.config();
                    // One server in four is older than skipping.
                    let skips = if epoch % 4 == 3 { 0 } else { features::SKIPS };
                    let known = features::POLICIES | features::RETAINED | skips;
                    let features = hello.features
                        & match bus.has_history() {
                            true => known | features::HISTORY,
                            false => known,
                        };
                    let rules = history.rules.iter();
                    let welcome = Welcome {
                        version: 1,
                        features,
                        client_id: &attached.client_id,
                        session: &attached.session,
                        resumed: attached.resumed,
                        epoch: *epoch,
                        time_base_ms: *time_base_ms,
                        heartbeat_ms: timings.heartbeat.as_millis() as u64,
                        resume_window_ms: timings.resume_window.as_millis() as u64,
                        published: attached.published,
                        answered: attached.answered,
                        max_payload: limits.payload as u64,
                        publish_window: limits.publish_window,
                        publish_window_bytes: limits.publish_window_bytes,
                        aliases: limits.aliases as u32,
                        server: "simulation",
                        history: HistoryFrame {
                            on_disk: history.on_disk,
                            patterns: rules.map(|rule| rule.pattern.as_str()).collect(),
                        },
                    };
                    encode(&Frame::Welcome(welcome), replies);
                }
                (_, None) => panic!("the first frame was {frame:?}"),
                (_, Some(port)) => {
                    if let Frame::Ping { nonce } = frame {
                        encode(&Frame::Pong { nonce }, replies);
                    }
                    if let Frame::Subscribe(subscribe) = &frame {
                        tell(Told::Subscribe { sub: subscribe.sub }, bus);
                    }
                    bus.handle(now, port, &frame)?;
                }
            }
        }
        Ok(())
    }

    /// One message of outputs. The error is the bus closing the connection.
    pub(crate) fn pull(&mut self, bus: &mut Bus, now: Time, max: usize) -> (Bytes, Option<Error>) {
        let Some(port) = self.port else { return (Bytes::new(), None) };
        let mut outputs = Vec::new();
        self.waits = bus.pull(now, port, max, &mut outputs);
        let mut out = BytesMut::new();
        let mut closed = None;
        for output in &outputs {
            match output {
                Output::Deliver { sub, published, delivery } => {
                    let sender = format!("{}/{}", published.sender.origin, published.sender.id);
                    let topic = self.names.number(&published.topic, u32::MAX, &mut out);
                    let keep = match topic {
                        Name::Alias(number) => number,
                        Name::Inline(_) => u32::MAX,
                    };
                    let sender = self.names.number(&sender, keep, &mut out);
                    let frame = MessageFrame {
                        sub: *sub,
                        topic,
                        sender,
                        seq: published.seq,
                        number: published.number,
                        time: published.time.as_micros() / 1000,
                        attempt: published.attempt(),
                        delivery: *delivery,
                        request: published.request,
                        maybe_duplicate: published.maybe_duplicate,
                        content_type: published.payload.content_type,
                        extensions: published.extensions(now),
                        payload: &published.payload.bytes,
                    };
                    encode(&Frame::Message(frame), &mut out);
                }
                output => {
                    encode(&output.frame().expect("only a delivery has none"), &mut out);
                    if let Output::Close(error) = output {
                        closed = Some(error.clone());
                    }
                }
            }
        }
        (out.freeze(), closed)
    }
}

/// The frame that ends a connection.
pub(crate) fn fatal(error: &Error) -> Bytes {
    let mut out = BytesMut::new();
    let frame = ErrorFrame {
        kind: error.kind(),
        reference: Reference::Connection,
        fatal: true,
        message: error.message(),
    };
    encode(&Frame::Error(frame), &mut out);
    out.freeze()
}

/// Numbers for names, in turn: so few that they are taken back often.
struct Names {
    numbers: HashMap<String, u32>,
    held: Vec<Option<String>>,
    next: usize,
}

impl Names {
    fn new(aliases: u32) -> Names {
        Names { numbers: HashMap::new(), held: vec![None; aliases.min(5) as usize], next: 0 }
    }

    fn number<'a>(&mut self, name: &'a str, keep: u32, out: &mut BytesMut) -> Name<'a> {
        if let Some(number) = self.numbers.get(name) {
            return Name::Alias(*number);
        }
        if self.held.len() < 2 {
            return Name::Inline(name);
        }
        if self.next == keep as usize {
            self.next = (self.next + 1) % self.held.len();
        }
        let number = self.next as u32;
        if let Some(old) = self.held[self.next].replace(name.to_owned()) {
            self.numbers.remove(&old);
            encode(&Frame::Unalias { number }, out);
        }
        encode(&Frame::Alias { number, name }, out);
        self.numbers.insert(name.to_owned(), number);
        self.next = (self.next + 1) % self.held.len();
        Name::Alias(number)
    }
}
