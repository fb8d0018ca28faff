//! What a client sends.

use std::{borrow::Cow, fmt, vec};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{MAX_DEPTH, MAX_OBJECTS, deeper_than};
use crate::error::{Error, ErrorKind};

/// One action. Strings are borrowed unless they hold escapes.
#[derive(Clone, Debug)]
pub enum Action<'a> {
    /// Register under the id `from`; empty: the server makes one.
    Ping {
        /// The id.
        from: Cow<'a, str>,
    },
    /// Subscribe.
    Subscribe {
        /// Topic or pattern.
        topic: Cow<'a, str>,
    },
    /// Unsubscribe.
    Unsubscribe {
        /// As it was subscribed.
        topic: Cow<'a, str>,
    },
    /// To every subscriber; with `ack_id` rows are awaited (`publish_with_ack`).
    Publish {
        /// The topic.
        topic: Cow<'a, str>,
        /// The payload.
        data: &'a RawValue,
        /// The client's own id for the ack.
        ack_id: Option<Cow<'a, str>>,
    },
    /// To the client or server with this id (`direct_message`); with `ack_id` rows are awaited
    /// (`publish_to_id_with_ack`).
    PublishToId {
        /// The id.
        to: Cow<'a, str>,
        /// The payload.
        data: &'a RawValue,
        /// The client's own id for the ack.
        ack_id: Option<Cow<'a, str>>,
    },
    /// Relay to another server.
    PublishToServer {
        /// `host:port[/path]`, or `public-host[/path]::proxied-host:port`.
        to: Cow<'a, str>,
        /// The payload.
        data: &'a RawValue,
        /// By TLS.
        secure: bool,
    },
    /// A subscriber's acknowledgment. Who it is follows from the connection alone.
    Ack {
        /// From `publish_ack`.
        ack_id: Cow<'a, str>,
        /// Whether the handler succeeded.
        success: bool,
        /// What it said if not; may be empty.
        error: Cow<'a, str>,
    },
    /// Which recipients have answered so far?
    GetAckStatus {
        /// The ack.
        ack_id: Cow<'a, str>,
    },
    /// Stop waiting.
    CancelAck {
        /// The ack.
        ack_id: Cow<'a, str>,
    },
    /// From another server, for this one.
    ServerToServer {
        /// The address it was sent to; may be empty.
        to: Cow<'a, str>,
        /// The payload.
        data: &'a RawValue,
        /// When `data` is an object holding `topic` and `data`: publish that.
        publish: Option<(Cow<'a, str>, &'a RawValue)>,
    },
}

/// An object that is no action, with what the error reply can repeat of it (empty: unknown).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// Why.
    pub error: Error,
    /// Its topic.
    pub topic: Cow<'a, str>,
    /// Its ack id.
    pub ack_id: Cow<'a, str>,
}

/// The actions in one text frame, in order. An object that is none does not keep its neighbours
/// from being handled; a frame that is not JSON, or beyond [`MAX_DEPTH`] or [`MAX_OBJECTS`], is
/// one refusal.
pub fn actions(text: &str) -> Actions<'_> {
    Actions(split(text).unwrap_or_else(|error| Objects::Refused(Some(error))))
}

/// See [`actions`].
#[derive(Debug)]
pub struct Actions<'a>(Objects<'a>);

#[derive(Debug)]
enum Objects<'a> {
    One(Option<&'a str>),
    Many(vec::IntoIter<&'a RawValue>),
    Refused(Option<Error>),
}

impl<'a> Iterator for Actions<'a> {
    type Item = Result<Action<'a>, Refusal<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Objects::One(text) => text.take().map(action),
            Objects::Many(texts) => texts.next().map(|text| action(text.get())),
            Objects::Refused(error) => error.take().map(|error| Err(error.into())),
        }
    }
}

fn split(text: &str) -> Result<Objects<'_>, Error> {
    let is_array = text.trim_ascii_start().starts_with('[');
    if deeper_than(MAX_DEPTH + usize::from(is_array), text) {
        let message = format!("JSON nested deeper than {MAX_DEPTH} levels; send it flatter");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    if !is_array {
        return Ok(Objects::One(Some(text)));
    }
    match serde_json::from_str::<Array<'_>>(text) {
        Ok(Array(objects)) => Ok(Objects::Many(objects.into_iter())),
        Err(error) if error.is_data() => {
            let message = format!("more than {MAX_OBJECTS} objects in one frame; send several");
            Err(Error::new(ErrorKind::LimitExceeded, message))
        }
        Err(error) => Err(not_json(&error)),
    }
}

fn action(text: &str) -> Result<Action<'_>, Refusal<'_>> {
    let object: Object<'_> = object(text).map_err(|error| {
        if error.is_data() {
            Error::new(ErrorKind::InvalidArgument, format!("not an action: {error}"))
        } else {
            not_json(&error)
        }
    })?;
    object.action()
}

/// Reads a struct from an object; serde alone would take an array of its fields as well.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    match serde_json::from_str(text) {
        Ok(_) if !text.trim_ascii_start().starts_with('{') => {
            Err(serde_json::Error::custom("it is not an object"))
        }
        result => result,
    }
}

fn not_json(error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Protocol, format!("not a JSON object or an array of objects: {error}"))
}

/// The fields that any action uses. `data: null` and no `data` are the same: Go's clients leave
/// `nil` out.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Object<'a> {
    #[serde(borrow, default)]
    action: Text<'a>,
    #[serde(borrow, default)]
    topic: Text<'a>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    from: Text<'a>,
    #[serde(borrow, default)]
    to: Text<'a>,
    #[serde(borrow, default)]
    ack_id: Text<'a>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

impl<'a> Object<'a> {
    fn action(self) -> Result<Action<'a>, Refusal<'a>> {
        let name = &*self.action.0;
        if let Some(field) = self.missing_field(name) {
            let message = format!("{name} needs `{field}`");
            return Err(self.refusal(ErrorKind::InvalidArgument, message));
        }
        let data = self.data.unwrap_or(RawValue::NULL);
        let (topic, to, ack_id) = (self.topic.0, self.to.0, self.ack_id.0);
        Ok(match name {
            "ping" => Action::Ping { from: self.from.0 },
            "subscribe" => Action::Subscribe { topic },
            "unsubscribe" => Action::Unsubscribe { topic },
            "publish" => Action::Publish { topic, data, ack_id: None },
            "publish_with_ack" => Action::Publish { topic, data, ack_id: Some(ack_id) },
            "direct_message" => Action::PublishToId { to, data, ack_id: None },
            "publish_to_id_with_ack" => Action::PublishToId { to, data, ack_id: Some(ack_id) },
            "publish_to_server" => {
                Action::PublishToServer { to, data, secure: is_secure(self.status) }
            }
            "ack" => return ack(ack_id, data),
            "get_ack_status" => Action::GetAckStatus { ack_id },
            "cancel_ack" => Action::CancelAck { ack_id },
            "server-to-server" => Action::ServerToServer { to, data, publish: published(data) },
            _ => {
                let message = match name {
                    "" => "an object needs `action`".to_owned(),
                    // Cut, so that an error is no echo of a megabyte.
                    _ => format!("unknown action {:?}", name.chars().take(64).collect::<String>()),
                };
                let error = Error::new(ErrorKind::UnknownAction, message);
                return Err(Refusal { error, topic, ack_id });
            }
        })
    }

    /// The first field that the action `name` needs and that is empty or missing.
    fn missing_field(&self, name: &str) -> Option<&'static str> {
        let needed: &[_] = match name {
            "subscribe" | "unsubscribe" | "publish" => &[("topic", &self.topic)],
            "publish_with_ack" => &[("topic", &self.topic), ("ack_id", &self.ack_id)],
            "direct_message" | "publish_to_server" => &[("to", &self.to)],
            "publish_to_id_with_ack" => &[("to", &self.to), ("ack_id", &self.ack_id)],
            "get_ack_status" | "cancel_ack" => &[("ack_id", &self.ack_id)],
            _ => &[],
        };
        needed.iter().find(|(_, text)| text.0.is_empty()).map(|(field, _)| *field)
    }

    fn refusal(self, kind: ErrorKind, message: String) -> Refusal<'a> {
        Refusal { error: Error::new(kind, message), topic: self.topic.0, ack_id: self.ack_id.0 }
    }
}

fn ack<'a>(ack_id: Cow<'a, str>, data: &'a RawValue) -> Result<Action<'a>, Refusal<'a>> {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow, default)]
        ack_id: Text<'a>,
        #[serde(default)]
        success: bool,
        #[serde(borrow, default)]
        error: Text<'a>,
    }
    let refuse = |message: String, ack_id| Refusal {
        error: Error::new(ErrorKind::InvalidArgument, message),
        topic: Cow::Borrowed(""),
        ack_id,
    };
    match object::<Data<'a>>(data.get()) {
        Ok(data) => {
            let ack_id = if ack_id.is_empty() { data.ack_id.0 } else { ack_id };
            if ack_id.is_empty() {
                return Err(refuse("ack needs `ack_id`".to_owned(), ack_id));
            }
            Ok(Action::Ack { ack_id, success: data.success, error: data.error.0 })
        }
        Err(error) => Err(refuse(format!("ack needs `data` with `success`: {error}"), ack_id)),
    }
}

fn is_secure(status: Option<&RawValue>) -> bool {
    #[derive(Deserialize)]
    struct Status {
        is_secure: bool,
    }
    status
        .and_then(|status| object::<Status>(status.get()).ok())
        .is_some_and(|status| status.is_secure)
}

fn published(data: &RawValue) -> Option<(Cow<'_, str>, &RawValue)> {
    #[derive(Deserialize)]
    struct Publish<'a> {
        #[serde(borrow)]
        topic: Text<'a>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let publish: Publish<'_> = object(data.get()).ok()?;
    (!publish.topic.0.is_empty()).then_some((publish.topic.0, publish.data))
}

impl From<Error> for Refusal<'_> {
    fn from(error: Error) -> Self {
        Refusal { error, topic: Cow::Borrowed(""), ack_id: Cow::Borrowed("") }
    }
}

/// A string, borrowed where it can be; `null` reads as empty.
#[derive(Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

/// The elements of an array; an error of the category "data" when there are too many.
struct Array<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Array<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ArrayVisitor;

        impl<'de> Visitor<'de> for ArrayVisitor {
            type Value = Array<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Array<'de>, A::Error> {
                let mut objects = Vec::new();
                while let Some(object) = elements.next_element()? {
                    if objects.len() == MAX_OBJECTS {
                        return Err(A::Error::custom("too many"));
                    }
                    objects.push(object);
                }
                Ok(Array(objects))
            }
        }

        deserializer.deserialize_seq(ArrayVisitor)
    }
}
