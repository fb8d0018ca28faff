//! What happens at a server, and how each of it looks to a host.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use kps_proto::{
    Error,
    bus::{Notice, Published},
    message::{GapReason, HandlerError},
};

use super::vocabulary::{SERVER, Word};

/// What happened at a server. Never a secret, a payload or a header.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// It listens.
    NodeStarted {
        /// `host:port`, or `mem://name`.
        address: Arc<str>,
    },
    /// It takes no more connections and says goodbye.
    NodeStopping,
    /// A client's handshake is done. This process' own clients are left out.
    ConnectionOpened {
        /// Its id.
        client_id: Arc<str>,
        /// Whom its token stands for; `None`: anonymous.
        name: Option<Arc<str>>,
        /// `host:port`.
        remote: Arc<str>,
        /// `kps.v1` or `kps-json`.
        protocol: &'static str,
        /// Its earlier session goes on.
        resumed: bool,
    },
    /// Its connection ended.
    ConnectionClosed {
        /// Its id.
        client_id: Arc<str>,
        /// `goodbye`, `lost`, `silent`, `shutdown`, or the code of an error.
        reason: &'static str,
    },
    /// A client's session began. This process' own clients are left out.
    ClientConnected {
        /// Its id.
        client_id: Arc<str>,
    },
    /// It is over: it said goodbye, or did not come back within the resume window.
    ClientDisconnected {
        /// Its id.
        client_id: Arc<str>,
    },
    /// A client subscribed.
    SubscriptionOpened {
        /// Which client.
        client_id: Arc<str>,
        /// The topic or pattern.
        topic: Arc<str>,
    },
    /// A subscription ended.
    SubscriptionClosed {
        /// Which client's.
        client_id: Arc<str>,
        /// The topic or pattern.
        topic: Arc<str>,
    },
    /// A message was accepted. Only told once [`Server::tell_messages`](crate::Server::tell_messages)
    /// asked for it, and not in the timeline.
    MessagePublished {
        /// By whom.
        client_id: Arc<str>,
        /// Where to.
        topic: Arc<str>,
        /// Its id.
        message_id: Arc<str>,
        /// The payload's bytes.
        size: u64,
    },
    /// Publishers wait for room in a subscription, or have not had to for a second.
    Backpressure {
        /// Which client's.
        client_id: Arc<str>,
        /// The topic or pattern.
        topic: Arc<str>,
        /// Whether they wait.
        on: bool,
    },
    /// A subscription lost messages; the sum of at most a second.
    MessagesDropped {
        /// Which client's.
        client_id: Arc<str>,
        /// The topic or pattern.
        topic: Arc<str>,
        /// How many.
        count: u64,
        /// Why.
        reason: GapReason,
    },
    /// A durable gave a message up.
    DeadLettered {
        /// The durable's name.
        durable: Arc<str>,
        /// The message's topic.
        topic: Arc<str>,
        /// Its id.
        message_id: Arc<str>,
        /// What went wrong the last time: `type: text`.
        error: Arc<str>,
    },
    /// Nothing more is stored until the server is started again.
    StoreFailed {
        /// Why.
        error: Error,
    },
    /// A connection was refused, or broke the rules.
    Error {
        /// Why.
        error: Error,
        /// Whose, where known.
        client_id: Option<Arc<str>>,
        /// `host:port`, where known.
        remote: Option<Arc<str>>,
    },
    /// So many events came while their listener took none.
    EventsDropped {
        /// How many.
        count: u64,
    },
}

/// An argument of an event, for a host to turn into a value of its own.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Nothing.
    None,
    /// Text.
    Text(&'a str),
    /// A number below 2^53.
    Number(u64),
    /// True or false.
    Flag(bool),
    /// An error.
    Error(&'a Error),
}

impl<'a> From<&'a Option<Arc<str>>> for Value<'a> {
    fn from(text: &'a Option<Arc<str>>) -> Self {
        text.as_deref().map_or(Value::None, Value::Text)
    }
}

impl From<Value<'_>> for serde_json::Value {
    /// Only errors become objects: `{"code", "message"}`.
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::None => serde_json::Value::Null,
            Value::Text(text) => text.into(),
            Value::Number(number) => number.into(),
            Value::Flag(flag) => flag.into(),
            Value::Error(error) => {
                serde_json::json!({ "code": error.code(), "message": error.message() })
            }
        }
    }
}

impl ServerEvent {
    /// Its name, as every language spells it.
    pub fn name(&self) -> &'static str {
        match self {
            ServerEvent::NodeStarted { .. } => "node_started",
            ServerEvent::NodeStopping => "node_stopping",
            ServerEvent::ConnectionOpened { .. } => "connection_opened",
            ServerEvent::ConnectionClosed { .. } => "connection_closed",
            ServerEvent::ClientConnected { .. } => "client_connected",
            ServerEvent::ClientDisconnected { .. } => "client_disconnected",
            ServerEvent::SubscriptionOpened { .. } => "subscription_opened",
            ServerEvent::SubscriptionClosed { .. } => "subscription_closed",
            ServerEvent::MessagePublished { .. } => "message_published",
            ServerEvent::Backpressure { .. } => "backpressure",
            ServerEvent::MessagesDropped { .. } => "messages_dropped",
            ServerEvent::DeadLettered { .. } => "dead_lettered",
            ServerEvent::StoreFailed { .. } => "store_failed",
            ServerEvent::Error { .. } => "error",
            ServerEvent::EventsDropped { .. } => "events_dropped",
        }
    }

    /// What handlers are called with, in the order of [`SERVER`].
    pub fn arguments(&self) -> Vec<Value<'_>> {
        use ServerEvent as E;
        use Value::{Flag, Number, Text};
        match self {
            E::NodeStarted { address } => vec![Text(address)],
            E::NodeStopping => vec![],
            E::ConnectionOpened { client_id, name, remote, protocol, resumed } => {
                vec![Text(client_id), name.into(), Text(remote), Text(protocol), Flag(*resumed)]
            }
            E::ConnectionClosed { client_id, reason } => vec![Text(client_id), Text(reason)],
            E::ClientConnected { client_id } | E::ClientDisconnected { client_id } => {
                vec![Text(client_id)]
            }
            E::SubscriptionOpened { client_id, topic }
            | E::SubscriptionClosed { client_id, topic } => vec![Text(client_id), Text(topic)],
            E::MessagePublished { client_id, topic, message_id, size } => {
                vec![Text(client_id), Text(topic), Text(message_id), Number(*size)]
            }
            E::Backpressure { client_id, topic, on } => {
                vec![Text(client_id), Text(topic), Flag(*on)]
            }
            E::MessagesDropped { client_id, topic, count, reason } => {
                vec![Text(client_id), Text(topic), Number(*count), Text(reason.as_str())]
            }
            E::DeadLettered { durable, topic, message_id, error } => {
                vec![Text(durable), Text(topic), Text(message_id), Text(error)]
            }
            E::StoreFailed { error } => vec![Value::Error(error)],
            E::Error { error, client_id, remote } => {
                vec![Value::Error(error), client_id.into(), remote.into()]
            }
            E::EventsDropped { count } => vec![Number(*count)],
        }
    }

    /// Its arguments by name, those that are nothing left out.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, Value<'_>)> {
        let names = self.word().arguments.iter().copied();
        names.zip(self.arguments()).filter(|(_, value)| !matches!(value, Value::None))
    }

    /// Its arguments for people: `client_id=a topic=t`.
    pub fn detail(&self) -> String {
        let field = |(name, value)| match value {
            Value::None => format!("{name}="),
            Value::Text(text) => format!("{name}={text}"),
            Value::Number(number) => format!("{name}={number}"),
            Value::Flag(flag) => format!("{name}={flag}"),
            Value::Error(error) => format!("{name}={error}"),
        };
        self.fields().map(field).collect::<Vec<_>>().join(" ")
    }

    /// Its arguments by name, as a JSON object.
    pub fn json(&self) -> serde_json::Value {
        let field = |(name, value): (&str, Value<'_>)| (name.to_owned(), value.into());
        let fields: serde_json::Map<String, serde_json::Value> = self.fields().map(field).collect();
        fields.into()
    }

    /// The client it is about, where there is one.
    pub fn client_id(&self) -> Option<&str> {
        self.fields().find_map(|(name, value)| match (name, value) {
            ("client_id", Value::Text(id)) => Some(id),
            _ => None,
        })
    }

    /// Whether it is about one message: there may be any number of these, and only who asks for them
    /// gets them.
    pub fn is_message(&self) -> bool {
        matches!(self, ServerEvent::MessagePublished { .. })
    }

    fn word(&self) -> &'static Word {
        let mut words = SERVER.iter();
        words.find(|word| word.name == self.name()).expect("a test compares both lists")
    }

    /// What is told of a message, to handlers and to the audit log; of a private one nothing is.
    pub(crate) fn published(published: &Published) -> Option<ServerEvent> {
        let private = published.extras.as_ref().is_some_and(|extras| extras.private);
        (!private).then(|| ServerEvent::MessagePublished {
            client_id: published.sender.id.as_str().into(),
            topic: published.topic.clone(),
            message_id: published.id().into(),
            size: published.payload.bytes.len() as u64,
        })
    }

    /// What a notice of the bus tells, if it tells something.
    pub(crate) fn of(notice: Notice) -> Option<ServerEvent> {
        Some(match notice {
            Notice::SubscriptionOpened { client_id, topic } => {
                ServerEvent::SubscriptionOpened { client_id, topic }
            }
            Notice::SubscriptionClosed { client_id, topic } => {
                ServerEvent::SubscriptionClosed { client_id, topic }
            }
            Notice::Backpressure { client_id, topic, on } => {
                ServerEvent::Backpressure { client_id, topic, on }
            }
            Notice::Dropped { client_id, topic, count, reason } => {
                ServerEvent::MessagesDropped { client_id, topic, count, reason }
            }
            Notice::DeadLettered { durable, published, error } => ServerEvent::DeadLettered {
                durable,
                topic: published.topic.clone(),
                message_id: published.id().into(),
                error: describe(&error).into(),
            },
            Notice::Published(published) => return ServerEvent::published(&published),
            _ => return None,
        })
    }
}

fn describe(error: &HandlerError) -> String {
    format!("{}: {}", error.kind, error.text)
}

/// A listener's count of events that it has not taken yet; one less when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Place {
    /// A place among at most `most`, if one is free.
    pub(crate) fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Place> {
        let place = Place::one(taken);
        // The new one is counted.
        (taken.load(Ordering::Relaxed) <= most).then_some(place)
    }

    fn one(taken: &Arc<AtomicUsize>) -> Place {
        taken.fetch_add(1, Ordering::Relaxed);
        Place(taken.clone())
    }
}

impl Clone for Place {
    fn clone(&self) -> Self {
        Place::one(&self.0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use kps_proto::ErrorKind;

    use super::*;

    /// One of each.
    fn all() -> Vec<ServerEvent> {
        let text: Arc<str> = "x".into();
        let (client_id, topic, message_id) = (text.clone(), text.clone(), text.clone());
        let error = Error::new(ErrorKind::Internal, "x");
        vec![
            ServerEvent::NodeStarted { address: text.clone() },
            ServerEvent::NodeStopping,
            ServerEvent::ConnectionOpened {
                client_id: text.clone(),
                name: None,
                remote: text.clone(),
                protocol: "kps.v1",
                resumed: false,
            },
            ServerEvent::ConnectionClosed { client_id: text.clone(), reason: "lost" },
            ServerEvent::ClientConnected { client_id: text.clone() },
            ServerEvent::ClientDisconnected { client_id: text.clone() },
            ServerEvent::SubscriptionOpened { client_id: text.clone(), topic: text.clone() },
            ServerEvent::SubscriptionClosed { client_id: text.clone(), topic: text.clone() },
            ServerEvent::MessagePublished {
                client_id: text.clone(),
                topic: text.clone(),
                message_id: message_id.clone(),
                size: 1,
            },
            ServerEvent::Backpressure { client_id: text.clone(), topic: text.clone(), on: true },
            ServerEvent::MessagesDropped {
                client_id,
                topic: text.clone(),
                count: 1,
                reason: GapReason::Overflow,
            },
            ServerEvent::DeadLettered { durable: text.clone(), topic, message_id, error: text },
            ServerEvent::StoreFailed { error: error.clone() },
            ServerEvent::Error { error, client_id: None, remote: None },
            ServerEvent::EventsDropped { count: 1 },
        ]
    }

    #[test]
    fn each_event_is_a_word_of_the_vocabulary_with_all_its_arguments() {
        let told: Vec<_> =
            all().iter().map(|event| (event.name(), event.arguments().len())).collect();
        let words: Vec<_> = SERVER.iter().map(|word| (word.name, word.arguments.len())).collect();
        assert_eq!(told, words);
    }

    #[test]
    fn a_detail_names_what_there_is() {
        let details: Vec<_> = all().iter().map(ServerEvent::detail).collect();
        assert_eq!(details[1], "");
        assert_eq!(details[2], "client_id=x remote=x protocol=kps.v1 resumed=false");
        assert_eq!(details[13], "error=internal: x");
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let taken = Arc::default();
        let first = Place::take(&taken, 2).unwrap();
        let second = first.clone();
        assert!(Place::take(&taken, 2).is_none());
        drop(second);
        assert!(Place::take(&taken, 2).is_some());
    }
}
