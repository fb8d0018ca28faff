//! What a server sends.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use serde::{Serialize, Serializer, de::IgnoredAny, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{MAX_DEPTH, base64, deeper_than};
use crate::{
    error::Error,
    message::{AckRow, ContentType, Payload},
};

/// One object that a server sends.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// To `ping`.
    Pong {
        /// The id that the client now has.
        id: &'a str,
    },
    /// To `subscribe`.
    Subscribed {
        /// The topic.
        topic: &'a str,
    },
    /// To `unsubscribe`.
    Unsubscribed {
        /// The topic.
        topic: &'a str,
    },
    /// To `publish`.
    Published {
        /// The topic.
        topic: &'a str,
    },
    /// To `publish_with_ack` and `publish_to_id_with_ack`, once, when every row is final.
    AckResponse {
        /// The publisher's id for the ack.
        ack_id: &'a str,
        /// All rows.
        rows: &'a [AckRow],
    },
    /// To `get_ack_status`.
    AckStatus {
        /// The publisher's id for the ack.
        ack_id: &'a str,
        /// Client ids, and whether each has answered.
        status: &'a [(&'a str, bool)],
    },
    /// To `cancel_ack`.
    AckCancelled {
        /// The publisher's id for the ack.
        ack_id: &'a str,
    },
    /// To `publish_to_server`.
    ServerMessageSent {
        /// The address.
        to: &'a str,
    },
    /// A message for a subscriber.
    Publish {
        /// The topic.
        topic: &'a str,
        /// The publisher's id.
        from: &'a str,
        /// The payload.
        data: &'a Json<'a>,
    },
    /// A message for a subscriber, who is to answer with `ack`.
    PublishAck {
        /// The topic; for a direct message [`direct_topic`].
        topic: &'a str,
        /// The publisher's id.
        from: &'a str,
        /// What the `ack` repeats.
        ack_id: &'a str,
        /// The payload.
        data: &'a Json<'a>,
    },
    /// A message for this client alone.
    DirectMessage {
        /// The publisher's id.
        from: &'a str,
        /// The payload.
        data: &'a Json<'a>,
    },
    /// To another server, to which this one is a client: registers it.
    Ping {
        /// The id wanted.
        from: &'a str,
    },
    /// To another server.
    ServerToServer {
        /// Its address.
        to: &'a str,
        /// The payload.
        data: &'a Json<'a>,
    },
    /// Something was refused.
    Error {
        /// Written as `code: sentence`.
        error: &'a Error,
        /// What it is about; empty: unknown.
        topic: &'a str,
        /// What it is about; empty: unknown.
        ack_id: &'a str,
    },
}

/// Appends `reply` to `out` as one JSON object. Empty fields are left out.
pub fn encode(reply: &Reply<'_>, out: &mut BytesMut) {
    match *reply {
        Reply::Pong { id } => object("pong", out).text("id", id),
        Reply::Subscribed { topic } => object("subscribed", out).text("topic", topic),
        Reply::Unsubscribed { topic } => object("unsubscribed", out).text("topic", topic),
        Reply::Published { topic } => object("published", out).text("topic", topic),
        Reply::AckResponse { ack_id, rows } => object("ack_response", out)
            .text("ack_id", ack_id)
            .value("responses", &Responses { ack_id, rows }),
        Reply::AckStatus { ack_id, status } => {
            object("ack_status", out).text("ack_id", ack_id).value("status", &Status(status))
        }
        Reply::AckCancelled { ack_id } => object("ack_cancelled", out).text("ack_id", ack_id),
        Reply::ServerMessageSent { to } => object("server_message_sent", out).text("to", to),
        Reply::Publish { topic, from, data } => {
            object("publish", out).text("topic", topic).json("data", data).text("from", from)
        }
        Reply::PublishAck { topic, from, ack_id, data } => object("publish_ack", out)
            .text("topic", topic)
            .json("data", data)
            .text("from", from)
            .text("ack_id", ack_id),
        Reply::DirectMessage { from, data } => {
            object("direct_message", out).json("data", data).text("from", from)
        }
        Reply::Ping { from } => object("ping", out).text("from", from),
        Reply::ServerToServer { to, data } => {
            object("server-to-server", out).text("to", to).json("data", data)
        }
        Reply::Error { error, topic, ack_id } => object("error", out)
            .text("error", &error.to_string())
            .text("topic", topic)
            .text("ack_id", ack_id),
    }
    .end();
}

/// The topic under which `publish_ack` carries a direct message; KPS clients hand such a one to
/// their direct-message handler.
pub fn direct_topic(client_id: &str, number: u64) -> String {
    format!("__direct_{client_id}_{number}")
}

/// A payload as JSON text that may stand in an object. Making one reads the whole payload: make it
/// once per message, not once per recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<'a>(Cow<'a, str>);

impl<'a> Json<'a> {
    /// JSON as it is; text as a string; bytes as a string of base64.
    ///
    /// What calls itself JSON and is none (or lies deeper than [`MAX_DEPTH`] with the object
    /// around it) goes as text, and text that is not UTF-8 goes as bytes: so nothing that one client
    /// publishes can break the frame of another, and nothing is lost.
    pub fn of(payload: &'a Payload) -> Self {
        Json::of_bytes(payload.content_type, &payload.bytes)
    }

    /// [`Json::of`] a payload whose bytes are kept elsewhere.
    pub fn of_bytes(content_type: ContentType, bytes: &'a [u8]) -> Self {
        match (content_type, std::str::from_utf8(bytes)) {
            (ContentType::Bytes, _) | (_, Err(_)) => {
                let mut text = String::from('"');
                base64::encode(bytes, &mut text);
                text.push('"');
                Json(Cow::Owned(text))
            }
            (ContentType::Json, Ok(text)) if is_json(text) => Json(Cow::Borrowed(text)),
            (_, Ok(text)) => {
                let mut out = Vec::with_capacity(text.len() + 2);
                write_json(&mut out, text);
                Json(Cow::Owned(String::from_utf8(out).expect("serde_json writes UTF-8")))
            }
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a RawValue> for Json<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Json(Cow::Borrowed(raw.get()))
    }
}

fn is_json(text: &str) -> bool {
    !deeper_than(MAX_DEPTH - 1, text) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// An object being written.
struct Object<'a>(&'a mut BytesMut);

fn object<'a>(action: &'static str, out: &'a mut BytesMut) -> Object<'a> {
    out.extend_from_slice(b"{\"action\":\"");
    out.extend_from_slice(action.as_bytes());
    out.extend_from_slice(b"\"");
    Object(out)
}

impl Object<'_> {
    /// A field, unless it is empty.
    fn text(self, key: &'static str, text: &str) -> Self {
        if text.is_empty() { self } else { self.value(key, text) }
    }

    fn json(mut self, key: &'static str, json: &Json<'_>) -> Self {
        self.key(key);
        self.0.extend_from_slice(json.0.as_bytes());
        self
    }

    fn value<T: Serialize + ?Sized>(mut self, key: &'static str, value: &T) -> Self {
        self.key(key);
        write_json((&mut *self.0).writer(), value);
        self
    }

    fn key(&mut self, key: &'static str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn end(self) {
        self.0.extend_from_slice(b"}");
    }
}

fn write_json<T: Serialize + ?Sized>(out: impl std::io::Write, value: &T) {
    serde_json::to_writer(out, value).expect("memory takes it, and all keys are strings");
}

/// `{client_id: {ack_id, client_id, success, error?}}`.
struct Responses<'a> {
    ack_id: &'a str,
    rows: &'a [AckRow],
}

impl Serialize for Responses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Response<'a> {
            ack_id: &'a str,
            client_id: &'a str,
            success: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<String>,
        }
        let mut map = serializer.serialize_map(Some(self.rows.len()))?;
        for row in self.rows {
            let response = Response {
                ack_id: self.ack_id,
                client_id: &row.client_id,
                success: row.success(),
                error: row.to_error().map(|error| error.message().to_owned()),
            };
            map.serialize_entry(&*row.client_id, &response)?;
        }
        map.end()
    }
}

struct Status<'a>(&'a [(&'a str, bool)]);

impl Serialize for Status<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}
