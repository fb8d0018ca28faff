//! A session against a server played by hand: frames in, frames out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::{
    message::{Extras, GapReason, Payload},
    options::OutboxOverflow,
    wire::{
        Frames,
        frame::{
            self, ErrorFrame, Extensions, GapFrame, Hello, MessageFrame, Name, Publish, REPORTS,
            Reference, Row, Start, Subscribe, Welcome,
        },
    },
};

mod acknowledging;
mod connecting;
mod policies;
mod publishing;
mod retaining;
mod storing;
mod subscribing;

const TARGET: Target = Target(7);

/// A session and the server's pen.
struct Stage {
    session: Session,
    now: Time,
    events: Events,
}

fn welcome() -> Welcome<'static> {
    Welcome {
        version: 1,
        client_id: "me",
        session: b"0123456789abcdef",
        epoch: 1,
        time_base_ms: 1000,
        heartbeat_ms: 8000,
        max_payload: 1 << 20,
        publish_window: 1 << 16,
        publish_window_bytes: 8 << 20,
        aliases: 16,
        server: "test",
        ..Welcome::default()
    }
}

fn resumed(published: u64) -> Welcome<'static> {
    Welcome { resumed: true, published, ..welcome() }
}

impl Stage {
    fn new() -> Stage {
        Stage::with(SessionConfig::default())
    }

    fn with(config: SessionConfig) -> Stage {
        Stage { session: Session::new(config, 1), now: Time::ZERO, events: Events::new() }
    }

    /// Connected, with the handshake done.
    fn connected() -> Stage {
        let mut stage = Stage::new();
        stage.connect(welcome());
        stage
    }

    /// Connects and returns the HELLO's bytes.
    fn dial(&mut self) -> BytesMut {
        while !self.session.should_connect(self.now) {
            self.now =
                self.session.deadline().expect("it waits for its next attempt").max(self.now);
        }
        self.session.connected(self.now);
        self.bytes()
    }

    fn connect(&mut self, welcome: Welcome<'_>) {
        self.dial();
        self.hear(&Frame::Welcome(welcome)).unwrap();
        self.events.clear();
    }

    fn lose(&mut self) {
        self.session.disconnected(self.now, None, &mut self.events);
    }

    fn hear(&mut self, frame: &Frame<'_>) -> Result<()> {
        let mut bytes = BytesMut::new();
        encode(frame, &mut bytes);
        self.session.receive(self.now, &bytes, &mut self.events)
    }

    fn accepted(&mut self, published: u64) {
        self.hear(&Frame::Accepted { published, answered: 0 }).unwrap();
    }

    /// Time passes until something is due.
    fn pause(&mut self) {
        self.now = self.session.deadline().unwrap_or(self.now).max(self.now);
        self.session.tick(self.now, &mut self.events).unwrap();
    }

    /// What the session sends now.
    fn bytes(&mut self) -> BytesMut {
        let mut out = BytesMut::new();
        while self.session.transmit(self.now, 1 << 20, &mut out) {}
        out
    }

    /// As text, one line per frame.
    fn said(&mut self) -> Vec<String> {
        Frames::new(&self.bytes()).map(|frame| describe(&frame.unwrap())).collect()
    }

    fn publish(&mut self, topic: &str, options: &PublishOptions<'_>) -> Result<u64> {
        let to = Destination::Topic(topic);
        self.session.publish(self.now, to, ContentType::Json, b"{}", options)
    }

    fn publish_plain(&mut self, topic: &str) -> u64 {
        self.publish(topic, &PublishOptions::default()).unwrap()
    }

    fn publish_with_ack(&mut self, timeout: Duration) -> u64 {
        let ack = AckRequest { timeout, request: false, target: TARGET };
        self.publish("a", &PublishOptions { ack: Some(ack), ..Default::default() }).unwrap()
    }

    fn subscribe(&mut self, options: SubscribeOptions) -> SubId {
        let sub = self.session.subscribe(TARGET, "a.*", options).unwrap();
        self.said();
        self.hear(&Frame::Subscribed { sub: sub.0, cursor: &[] }).unwrap();
        self.events.clear();
        sub
    }

    fn message(&mut self, sub: SubId, delivery: Option<u64>) -> Result<()> {
        self.hear(&Frame::Message(message(sub, delivery)))
    }

    /// The events since the last call, as text.
    fn heard(&mut self) -> Vec<String> {
        self.events.drain(..).map(|(target, event)| tell(target, &event)).collect()
    }
}

fn message(sub: SubId, delivery: Option<u64>) -> MessageFrame<'static> {
    MessageFrame {
        sub: sub.0,
        topic: Name::Inline("a.b"),
        sender: Name::Inline("origin/you"),
        seq: 1,
        number: 1,
        time: 5,
        attempt: 1,
        delivery,
        request: false,
        maybe_duplicate: false,
        content_type: ContentType::Json,
        extensions: None,
        payload: b"{}",
    }
}

fn describe(frame: &Frame<'_>) -> String {
    match frame {
        Frame::Hello(Hello { client_id, session, received, .. }) => {
            format!("HELLO {client_id:?} {} {received:?}", session.len())
        }
        Frame::Subscribe(Subscribe { sub, pattern, window, again, start, .. }) => {
            let again = if *again { " again" } else { "" };
            let start = match start {
                Start::New => "",
                Start::Cursor(_) => " cursor",
                _ => " past",
            };
            format!("SUB {sub} {pattern} {window}{again}{start}")
        }
        Frame::Unsubscribe { sub } => format!("UNSUB {sub}"),
        Frame::Publish(Publish { number, to, maybe_duplicate, prompt, extensions, .. }) => {
            let to = match to {
                frame::Destination::Topic(Name::Alias(number)) => format!("#{number}"),
                frame::Destination::Topic(Name::Inline(name)) => (*name).to_owned(),
                other => format!("{other:?}"),
            };
            let mut text = format!("PUB {number} {to}");
            if let Some(count) = extensions.as_ref().map(|ext| ext.settled).filter(|n| *n > 0) {
                let many = if count > 1 { format!(" {count}") } else { String::new() };
                return text + " settled" + &many;
            }
            if *maybe_duplicate {
                text += " duplicate?";
            }
            if *prompt {
                text += " prompt";
            }
            if let Some(Extensions { id: Some(id), .. }) = extensions.as_deref() {
                text += &format!(" id={id}");
            }
            if let Some(Extensions { ack_timeout_ms: Some(ms), .. }) = extensions.as_deref() {
                text += &format!(" ack={ms}");
            }
            text
        }
        Frame::Credit { sub: REPORTS, consumed } => format!("CREDIT reports {consumed}"),
        Frame::Credit { sub, consumed } => format!("CREDIT {sub} {consumed}"),
        Frame::Answer(answer) => {
            format!("ANSWER {} to {} {}", answer.number, answer.delivery, answer.status.as_str())
        }
        Frame::Cancel { number } => format!("CANCEL {number}"),
        Frame::Alias { number, name } => format!("ALIAS {number} {name}"),
        Frame::Unalias { number } => format!("UNALIAS {number}"),
        Frame::Ping { .. } => "PING".into(),
        Frame::Pong { nonce } => format!("PONG {nonce}"),
        other => panic!("a client does not say {other:?}"),
    }
}

fn tell(target: Target, event: &Event) -> String {
    let text = match event {
        Event::State { state, error, resumed } => {
            let error = error.as_ref().map_or("", |error| error.code());
            format!("{} {error}{}", state.as_str(), if *resumed { "resumed" } else { "" })
        }
        Event::Subscribed { sub } => format!("subscribed {}", sub.0),
        Event::SubscribeFailed { sub, error } => format!("refused {} {}", sub.0, error.code()),
        Event::Unsubscribed { sub } => format!("unsubscribed {}", sub.0),
        Event::SubscriptionClosed { sub, error } => format!("closed {} {}", sub.0, error.code()),
        Event::Message { sub, message, delivery, .. } => {
            format!("message {} {} {delivery:?}", sub.0, message.topic)
        }
        Event::Gap { sub, gap } => {
            format!("gap {} {} {:?} {}", sub.0, gap.topic, gap.count, gap.reason.as_str())
        }
        Event::Resumed { sub, replayed } => format!("resumed {} {replayed}", sub.0),
        Event::CancelDelivery { sub, delivery } => format!("cancel {} {delivery}", sub.0),
        Event::Receipt { number, level } => format!("receipt {number} {}", level.as_str()),
        Event::PublishFailed { number, error, .. } => format!("failed {number} {}", error.code()),
        Event::OutboxFlushed { count } => format!("outbox flushed {count}"),
        Event::Room => "room".into(),
        Event::Flushed { error } => format!("flushed {}", error.is_none()),
        Event::Recipients { ack, clients } => format!("recipients {ack} {}", clients.join(" ")),
        Event::Row { ack, row } => format!("row {ack} {} {}", row.client_id, row.status.as_str()),
        Event::AckDone { ack, error } => {
            format!("done {ack} {}", error.as_ref().map_or("", |error| error.code()))
        }
        Event::RequestDone { ack, result } => match result {
            Ok(row) => format!("answered {ack} {}", row.client_id),
            Err(error) => format!("unanswered {ack} {}", error.code()),
        },
        Event::Goaway { reason } => format!("goaway {reason}"),
        Event::MessagePublished { number, .. } => format!("published {number}"),
        Event::Backpressure { on } => format!("backpressure {on}"),
        Event::Error { error } => format!("error {}", error.code()),
    };
    format!("{}: {}", target.0, text.trim_end())
}
