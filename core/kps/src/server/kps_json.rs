//! The server's side of KPS JSON: its registration, and actions in.
//!
//! The bus knows numbers, KPS JSON knows names: [`Dialogue`] keeps for one connection which is
//! which. It answers what the bus confirms, in the bus' order.

use std::sync::Arc;

use kps_proto::{
    Error, ErrorKind,
    bus::{Attach, Bus, PortKind},
    clock::Time,
    message::{ContentType, Payload, RowStatus},
    options::Overflow,
    wire::{
        frame::{AnswerFrame, Destination, Frame, Name, Publish, Subscribe},
        kps_json::{Action, Actions, Refusal, Reply, actions, encode},
    },
};

pub(super) use super::dialogue::Dialogue;
use super::{
    connection::{Connection, Dialect, close_code},
    dialogue::Wanted,
    egress::Egress,
    handshake::{Early, Guest, entropy},
    hub::Hub,
    relay,
};
use crate::net::websocket::Opcode;

/// Waits for the `ping` that registers, and answers it. `None`: the guest left or was refused.
pub(super) async fn greet(mut guest: Guest) -> Option<(Arc<Connection>, Guest)> {
    // Its token came with the upgrade, if at all, so a stranger is not kept waiting for `ping`.
    if let Err(error) = guest.hub.tokens.principal(&guest.introduction.token) {
        return refuse(guest, &error, "").await;
    }
    loop {
        let text = match guest.next().await? {
            Early::Text(text) => text,
            Early::Binary(_) => {
                let sentence = "KPS JSON is text; offer the subprotocol kps.v1 for binary";
                return refuse(guest, &Error::new(ErrorKind::Protocol, sentence), "").await;
            }
        };
        let mut actions = actions(&text);
        while let Some(action) = actions.next() {
            match action {
                Ok(Action::Ping { from }) => {
                    let (link, guest) = register(guest, &from).await?;
                    let hub = guest.hub.clone();
                    handle(&hub, &link, actions);
                    return Some((link, guest));
                }
                Ok(_) => {
                    let sentence = "client not registered: send `ping` first";
                    let error = Error::new(ErrorKind::NotRegistered, sentence);
                    guest.say(|egress| put_error(&error, egress)).await;
                }
                Err(refusal) => {
                    guest.say(|egress| put_refusal(&refusal, egress)).await;
                }
            }
        }
    }
}

async fn register(mut guest: Guest, id: &str) -> Option<(Arc<Connection>, Guest)> {
    let principal = match guest.authorize(&guest.introduction.token, "", id).await {
        Ok(principal) => principal,
        Err(error) => return refuse(guest, &error, id).await,
    };
    let (hub, name) = (guest.hub.clone(), principal.name.clone());
    let attached = hub.with_bus(|bus, now| {
        bus.attach(
            now,
            Attach {
                principal,
                kind: PortKind::KpsJson,
                client_id: id,
                origin: "",
                session: &[],
                received: &[],
                entropy: entropy(),
            },
        )
    });
    let attached = match attached {
        Ok(attached) => attached,
        Err(error) => return refuse(guest, &error, id).await,
    };
    let dialogue = Dialogue::new(attached.client_id.clone());
    let link = guest.become_link(&attached, name, Dialect::KpsJson(Box::new(dialogue)));
    link.say(&hub, None, |_, egress| put(&Reply::Pong { id: &attached.client_id }, egress));
    Some((link, guest))
}

async fn refuse<T>(mut guest: Guest, error: &Error, client_id: &str) -> Option<T> {
    guest.note_refusal(error, client_id);
    guest
        .farewell(|egress| {
            put_error(error, egress);
            egress.close(close_code(error), error.code());
        })
        .await;
    None
}

/// Puts one reply in a frame of its own: older clients read one object per frame.
pub(super) fn put(reply: &Reply<'_>, egress: &mut Egress) {
    egress.begin();
    encode(reply, &mut egress.buffer);
    egress.end(Opcode::Text);
}

pub(super) fn put_error(error: &Error, egress: &mut Egress) {
    put(&Reply::Error { error, topic: "", ack_id: "" }, egress);
}

fn put_refusal(refusal: &Refusal<'_>, egress: &mut Egress) {
    let Refusal { error, topic, ack_id } = refusal;
    put(&Reply::Error { error, topic, ack_id }, egress);
}

/// Takes one text frame.
pub(super) fn receive(hub: &Arc<Hub>, link: &Arc<Connection>, text: &str) {
    handle(hub, link, actions(text));
}

fn handle(hub: &Arc<Hub>, link: &Arc<Connection>, actions: Actions<'_>) {
    // Parsed before the bus is locked, handled under one lock.
    let actions: Vec<_> = actions.collect();
    // What is too much is not refused: the socket is not read until the answers have left.
    link.may_ask(actions.len());
    let mut direct = Vec::new();
    let paused = hub.with_bus(|bus, now| {
        link.with_dialogue(|dialogue| {
            let mut turn = Turn { bus, now, link, dialogue, direct: &mut direct };
            for action in &actions {
                match action {
                    Ok(action) => turn.act(action),
                    Err(refusal) => turn.direct.push(Direct::Refused(refusal.clone())),
                }
            }
        });
        bus.is_paused(link.port)
    });
    if paused {
        link.pause_reading();
    }
    for direct in direct {
        direct.run(hub, link);
    }
}

/// What is done without the bus, once it is unlocked.
enum Direct<'a> {
    Refused(Refusal<'a>),
    Pong(Arc<str>),
    Renamed(Arc<str>),
    Unsubscribed(&'a str),
    AckStatus { ack_id: &'a str, status: Vec<(Arc<str>, bool)> },
    AckCancelled(&'a str),
    Relay { to: &'a str, secure: bool, data: &'a str },
    ServerMessage { from: Arc<str>, data: &'a str },
}

impl Direct<'_> {
    fn run(self, hub: &Arc<Hub>, link: &Arc<Connection>) {
        let say = |reply: &Reply<'_>| link.say(hub, None, |_, egress| put(reply, egress));
        match self {
            Direct::Refused(refusal) => {
                link.say(hub, None, |_, egress| put_refusal(&refusal, egress));
            }
            Direct::Renamed(former) => {
                let namespace = hub.with_bus(|bus, _| bus.namespace(link.port).cloned());
                if let Some(namespace) = namespace {
                    hub.calls.connection_ended(&namespace, &former, true);
                }
            }
            Direct::Pong(id) => say(&Reply::Pong { id: &id }),
            Direct::Unsubscribed(topic) => say(&Reply::Unsubscribed { topic }),
            Direct::AckStatus { ack_id, status } => {
                let status: Vec<_> = status.iter().map(|(id, done)| (&**id, *done)).collect();
                say(&Reply::AckStatus { ack_id, status: &status });
            }
            Direct::AckCancelled(ack_id) => say(&Reply::AckCancelled { ack_id }),
            Direct::Relay { to, secure, data } => {
                let (hub, link, to) = (hub.clone(), link.clone(), to.to_owned());
                let payload = Payload::json(data.to_owned());
                tokio::spawn(async move {
                    let sent = relay::send(&hub, &to, secure, &payload).await;
                    link.say(&hub, None, |_, egress| match &sent {
                        Ok(()) => put(&Reply::ServerMessageSent { to: &to }, egress),
                        Err(error) => put_error(error, egress),
                    });
                });
            }
            Direct::ServerMessage { from, data } => {
                hub.listeners.server_message(from, Payload::json(data.to_owned()));
            }
        }
    }
}

/// One action's turn at the bus.
struct Turn<'t, 'a> {
    bus: &'t mut Bus,
    now: Time,
    link: &'t Connection,
    dialogue: &'t mut Dialogue,
    direct: &'t mut Vec<Direct<'a>>,
}

impl<'a> Turn<'_, 'a> {
    fn act(&mut self, action: &'a Action<'a>) {
        match action {
            Action::Ping { from } => self.rename(from),
            Action::Subscribe { topic } => self.subscribe(topic),
            Action::Unsubscribe { topic } => match self.dialogue.subscription(topic) {
                Some(sub) => self.handle(&Frame::Unsubscribe { sub }),
                None => self.direct.push(Direct::Unsubscribed(topic)),
            },
            Action::Publish { topic, data, ack_id } => {
                let wanted = match ack_id {
                    Some(ack_id) => Wanted::Ack(ack_id.to_string()),
                    None => Wanted::Published(topic.to_string()),
                };
                self.publish(Destination::Topic(Name::Inline(topic)), data.get(), wanted);
            }
            Action::PublishToId { to, data, ack_id } => {
                let wanted =
                    ack_id.as_ref().map_or(Wanted::Nothing, |id| Wanted::Ack(id.to_string()));
                self.publish(Destination::Client(to), data.get(), wanted);
            }
            Action::PublishToServer { to, data, secure } => {
                self.direct.push(Direct::Relay { to, secure: *secure, data: data.get() });
            }
            Action::Ack { ack_id, success, error } => self.ack(ack_id, *success, error),
            Action::GetAckStatus { ack_id } => self.ack_status(ack_id),
            Action::CancelAck { ack_id } => match self.dialogue.cancel(ack_id) {
                Some(number) => {
                    self.handle(&Frame::Cancel { number });
                    self.direct.push(Direct::AckCancelled(ack_id));
                }
                None if self.dialogue.finished(ack_id).is_some() => {
                    self.direct.push(Direct::AckCancelled(ack_id));
                }
                None => self.unknown_ack(ack_id),
            },
            Action::ServerToServer { data, publish, .. } => {
                let from = self.dialogue.client_id.clone();
                self.direct.push(Direct::ServerMessage { from, data: data.get() });
                if let Some((topic, data)) = publish {
                    let to = Destination::Topic(Name::Inline(topic));
                    self.publish(to, data.get(), Wanted::Nothing);
                }
            }
        }
    }

    /// The frames below are numbered by the dialogue and made here, so nothing about them is fatal;
    /// what the bus refuses comes back among the outputs.
    fn handle(&mut self, frame: &Frame<'_>) {
        if let Err(error) = self.bus.handle(self.now, self.link.port, frame) {
            self.refuse(error, "");
        }
    }

    fn refuse(&mut self, error: Error, ack_id: &'a str) {
        self.direct.push(Direct::Refused(Refusal {
            error,
            topic: "".into(),
            ack_id: ack_id.into(),
        }));
    }

    fn rename(&mut self, id: &str) {
        if !id.is_empty() {
            let former = self.dialogue.client_id.clone();
            if let Err(error) = self.bus.rename(self.now, self.link.port, id) {
                return self.refuse(error, "");
            }
            self.dialogue.client_id = id.into();
            if *former != *id {
                self.direct.push(Direct::Renamed(former));
            }
        }
        self.direct.push(Direct::Pong(self.dialogue.client_id.clone()));
    }

    fn subscribe(&mut self, topic: &str) {
        let sub = self.dialogue.subscribe(topic);
        let overflow =
            if self.bus.config().forbid_block { Overflow::DropOldest } else { Overflow::Block };
        self.handle(&Frame::Subscribe(Subscribe {
            sub,
            pattern: topic,
            overflow,
            window: u32::MAX,
            window_bytes: u64::MAX,
            ..Subscribe::default()
        }));
    }

    fn publish(&mut self, to: Destination<'_>, data: &str, wanted: Wanted) {
        let ack = matches!(wanted, Wanted::Ack(_));
        let number = match self.dialogue.publish(wanted) {
            Ok(number) => number,
            Err(error) => return self.refuse(error, ""),
        };
        self.handle(&Frame::Publish(Publish {
            number,
            to,
            ack,
            request: false,
            prompt: true,
            maybe_duplicate: false,
            content_type: ContentType::Json,
            extensions: None,
            payload: data.as_bytes(),
        }));
    }

    fn ack(&mut self, ack_id: &'a str, success: bool, error: &str) {
        let Some((number, delivery)) = self.dialogue.answer(ack_id) else {
            return self.unknown_ack(ack_id);
        };
        self.handle(&Frame::Answer(AnswerFrame {
            number,
            delivery,
            more: false,
            status: if success { RowStatus::Acked } else { RowStatus::Failed },
            error: (!success).then_some(("", error)),
            data: None,
            retry_delay_ms: None,
        }));
    }

    fn ack_status(&mut self, ack_id: &'a str) {
        let status = match self.dialogue.ack_number(ack_id) {
            // Not at the bus yet: its publish waits for room, so nobody has answered.
            Some(number) => Some(self.bus.ack_status(self.link.port, number).unwrap_or_default()),
            None => self.dialogue.finished(ack_id).map(<[_]>::to_vec),
        };
        match status {
            Some(status) => self.direct.push(Direct::AckStatus { ack_id, status }),
            None => self.unknown_ack(ack_id),
        }
    }

    fn unknown_ack(&mut self, ack_id: &'a str) {
        let sentence = "no such ack: it is unknown, another client's, or long finished";
        self.refuse(Error::new(ErrorKind::NotFound, sentence), ack_id);
    }
}
