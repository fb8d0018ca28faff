//! Frames to bytes.

use bytes::BytesMut;

use super::{
    error, extension, gap, message, outcome, policy, publish,
    sink::{Count, Fill, Sink},
    subscribe, types, welcome,
};
use crate::{
    message::ContentType,
    options::Redelivery,
    wire::{
        frame::{
            Destination, Earlier, ErrorFrame, Extensions, Frame, GapFrame, Hello, MessageFrame,
            Name, Publish, Reference, Start, Subscribe, Welcome, features,
        },
        varint,
    },
};

/// Appends one frame to `out`.
///
/// Integers of 2^53 and more (only a duration could be one) are written as 2^53 - 1.
#[inline]
pub fn encode(frame: &Frame<'_>, out: &mut BytesMut) {
    match frame {
        Frame::Publish(publish) => encode_publish(publish, out),
        Frame::Message(message) => {
            encode_message_head(message, message.payload.len(), out);
            out.extend_from_slice(message.payload);
        }
        _ => encode_control(frame, out),
    }
}

/// Appends a `PUB` to `out`.
#[inline]
pub fn encode_publish(frame: &Publish<'_>, out: &mut BytesMut) {
    append(
        types::PUB,
        frame.payload.len(),
        out,
        |sink| publish_head(frame, sink),
        |sink| {
            publish_head(frame, sink);
        },
    );
    out.extend_from_slice(frame.payload);
}

/// Appends to `out` what stands before the payload of a `MSG`; `payload_len` bytes of payload must
/// follow, from wherever they are. `frame.payload` is not looked at.
#[inline]
pub fn encode_message_head(frame: &MessageFrame<'_>, payload_len: usize, out: &mut BytesMut) {
    append(
        types::MSG,
        payload_len,
        out,
        |sink| message_head(frame, sink),
        |sink| {
            message_head(frame, sink);
        },
    );
}

fn encode_control(frame: &Frame<'_>, out: &mut BytesMut) {
    append(type_of(frame), 0, out, |sink| control(frame, sink), |sink| control(frame, sink));
}

/// Appends type, length and the body that both `count` and `fill` describe; room for `follow`
/// bytes after it is made as well, so that a payload is copied once.
#[inline]
fn append(
    kind: u8,
    follow: usize,
    out: &mut BytesMut,
    count: impl FnOnce(&mut Count),
    fill: impl FnOnce(&mut Fill<'_>),
) {
    let mut body = Count::default();
    count(&mut body);
    let length = (body.0 + follow) as u64;
    let head = 1 + varint::len(length) + body.0;
    let start = out.len();
    out.reserve(head + follow);
    out.resize(start + head, 0);
    let mut sink = Fill { room: &mut out[start..], at: 0 };
    sink.byte(kind);
    sink.varint(length);
    fill(&mut sink);
    debug_assert_eq!(sink.at, head, "both passes describe the same body");
}

#[inline]
fn publish_head(frame: &Publish<'_>, sink: &mut impl Sink) {
    let extensions = frame.extensions.as_deref().filter(|extensions| !extensions.is_empty());
    let to = match frame.to {
        Destination::Topic(Name::Alias(_)) => publish::TO_ALIAS,
        Destination::Topic(Name::Inline(_)) => publish::TO_TOPIC,
        Destination::Client(_) => publish::TO_CLIENT,
        Destination::Server(_) => publish::TO_SERVER,
    };
    sink.int(frame.number);
    sink.byte(
        flag(frame.ack, publish::ACK)
            | flag(frame.request, publish::REQUEST)
            | flag(frame.maybe_duplicate, publish::MAYBE_DUPLICATE)
            | flag(extensions.is_some(), publish::EXTENSIONS)
            | flag(frame.prompt, publish::PROMPT)
            | to << publish::TO_SHIFT,
    );
    sink.byte(frame.content_type as u8);
    match frame.to {
        Destination::Topic(name) => self::name(name, sink),
        Destination::Client(name) | Destination::Server(name) => sink.str(name),
    }
    if let Some(extensions) = extensions {
        extension_block(extensions, sink);
    }
}

#[inline]
fn message_head(frame: &MessageFrame<'_>, sink: &mut impl Sink) {
    let extensions = frame.extensions.as_deref().filter(|extensions| !extensions.is_empty());
    sink.int(frame.sub.into());
    sink.byte(
        flag(frame.delivery.is_some(), message::DELIVERY)
            | flag(frame.attempt != 1, message::ATTEMPT)
            | flag(frame.maybe_duplicate, message::MAYBE_DUPLICATE)
            | flag(extensions.is_some(), message::EXTENSIONS)
            | flag(matches!(frame.topic, Name::Inline(_)), message::TOPIC_INLINE)
            | flag(matches!(frame.sender, Name::Inline(_)), message::SENDER_INLINE)
            | flag(frame.request, message::REQUEST),
    );
    sink.byte(frame.content_type as u8);
    name(frame.topic, sink);
    name(frame.sender, sink);
    sink.int(frame.seq);
    sink.int(frame.number);
    sink.int(frame.time);
    if let Some(delivery) = frame.delivery {
        sink.int(delivery);
    }
    if frame.attempt != 1 {
        sink.int(frame.attempt.into());
    }
    if let Some(extensions) = extensions {
        extension_block(extensions, sink);
    }
}

fn extension_block(extensions: &Extensions<'_>, sink: &mut impl Sink) {
    let mut length = Count::default();
    self::extensions(extensions, &mut length);
    sink.varint(length.0 as u64);
    self::extensions(extensions, sink);
}

fn extensions(extensions: &Extensions<'_>, sink: &mut impl Sink) {
    for (name, value) in &extensions.headers {
        sink.varint(extension::HEADER);
        sink.varint((varint::len(name.len() as u64) + name.len() + value.len()) as u64);
        sink.str(name);
        sink.raw(value.as_bytes());
    }
    if let Some(id) = extensions.id {
        sink.varint(extension::ID);
        sink.str(id);
    }
    for (key, value) in [
        (extension::TTL_MS, extensions.ttl_ms),
        (extension::ACK_TIMEOUT_MS, extensions.ack_timeout_ms),
    ] {
        if let Some(value) = value.map(|value| value.min(varint::MAX_INT)) {
            sink.varint(key);
            sink.varint(varint::len(value) as u64);
            sink.int(value);
        }
    }
    if extensions.settled > 0 {
        let count = extensions.settled.min(varint::MAX_INT);
        sink.varint(extension::SETTLED);
        if count == 1 {
            sink.varint(0);
        } else {
            sink.varint(varint::len(count) as u64);
            sink.int(count);
        }
    }
    if extensions.retained {
        sink.varint(extension::RETAINED);
        sink.varint(0);
    }
    if let Some(cursor) = extensions.cursor {
        sink.varint(extension::CURSOR);
        sink.bytes(cursor);
    }
    if let Some(Earlier { epoch, time_ms }) = extensions.earlier {
        sink.varint(extension::EARLIER);
        let mut length = Count::default();
        length.int(epoch);
        length.int(time_ms);
        sink.varint(length.0 as u64);
        sink.int(epoch);
        sink.int(time_ms);
    }
    if let Some(to) = &extensions.to {
        let mut length = Count::default();
        to.iter().for_each(|entry| length.str(entry));
        sink.varint(extension::TO);
        sink.varint(length.0 as u64);
        to.iter().for_each(|entry| sink.str(entry));
    }
    let private = if extensions.private { policy::PRIVATE } else { 0 };
    let policy = private | ((extensions.offline as u64) << policy::OFFLINE_SHIFT);
    if policy != 0 {
        sink.varint(extension::POLICY);
        sink.varint(varint::len(policy) as u64);
        sink.int(policy);
    }
}

fn type_of(frame: &Frame<'_>) -> u8 {
    match frame {
        Frame::Hello(_) => types::HELLO,
        Frame::Welcome(_) => types::WELCOME,
        Frame::Auth { .. } => types::AUTH,
        Frame::Subscribe(_) => types::SUB,
        Frame::Subscribed { .. } => types::SUBSCRIBED,
        Frame::Unsubscribe { .. } => types::UNSUB,
        Frame::Unsubscribed { .. } => types::UNSUBSCRIBED,
        Frame::Publish(_) => types::PUB,
        Frame::Message(_) => types::MSG,
        Frame::Credit { .. } => types::CREDIT,
        Frame::Accepted { .. } => types::ACCEPTED,
        Frame::Stored { .. } => types::STORED,
        Frame::Recipients { .. } => types::RECIPIENTS,
        Frame::Row(_) => types::ROW,
        Frame::Answer(_) => types::ANSWER,
        Frame::Cancel { .. } => types::CANCEL,
        Frame::Gap(_) => types::GAP,
        Frame::Resumed { .. } => types::RESUMED,
        Frame::Ping { .. } => types::PING,
        Frame::Pong { .. } => types::PONG,
        Frame::Error(_) => types::ERROR,
        Frame::Goaway { .. } => types::GOAWAY,
        Frame::Alias { .. } => types::ALIAS,
        Frame::Unalias { .. } => types::UNALIAS,
    }
}

/// The bodies of all frames but `PUB` and `MSG`, which [`encode`] handles before.
fn control(frame: &Frame<'_>, sink: &mut impl Sink) {
    match frame {
        Frame::Hello(frame) => hello(frame, sink),
        Frame::Welcome(frame) => welcome(frame, sink),
        Frame::Auth { token } => sink.str(token),
        Frame::Subscribe(frame) => subscribe(frame, sink),
        Frame::Subscribed { sub, cursor } => {
            sink.int((*sub).into());
            if !cursor.is_empty() {
                sink.bytes(cursor);
            }
        }
        Frame::Unsubscribe { sub } | Frame::Unsubscribed { sub } => sink.int((*sub).into()),
        Frame::Publish(frame) => publish_head(frame, sink),
        Frame::Message(frame) => message_head(frame, sink),
        Frame::Credit { sub, consumed } => {
            sink.int((*sub).into());
            sink.int(*consumed);
        }
        Frame::Accepted { published, answered } => {
            sink.int(*published);
            sink.int(*answered);
        }
        Frame::Stored { published } => sink.int(*published),
        Frame::Recipients { number, clients } => {
            sink.int(*number);
            sink.int(clients.len() as u64);
            clients.iter().for_each(|client| sink.str(client));
        }
        Frame::Row(row) => {
            sink.int(row.number);
            sink.int(row.recipient.into());
            sink.byte(outcome_flags(row.more, row.error.is_some(), row.data.is_some(), false));
            sink.byte(row.status as u8);
            sink.int(row.latency_us);
            outcome_parts(row.error, row.data, sink);
        }
        Frame::Answer(answer) => {
            sink.int(answer.number);
            sink.int(answer.delivery);
            let (error, data) = (answer.error.is_some(), answer.data.is_some());
            let retry = answer.retry_delay_ms.is_some();
            sink.byte(outcome_flags(answer.more, error, data, retry));
            sink.byte(answer.status as u8);
            outcome_parts(answer.error, answer.data, sink);
            if let Some(delay) = answer.retry_delay_ms {
                sink.int(delay);
            }
        }
        Frame::Cancel { number } => sink.int(*number),
        Frame::Gap(frame) => gap(frame, sink),
        Frame::Resumed { sub, replayed } => {
            sink.int((*sub).into());
            sink.int(*replayed);
        }
        Frame::Ping { nonce } | Frame::Pong { nonce } => sink.varint(*nonce),
        Frame::Error(frame) => error(frame, sink),
        Frame::Goaway { delay_ms, reason } => {
            sink.int(*delay_ms);
            sink.str(reason);
        }
        Frame::Alias { number, name } => {
            sink.int((*number).into());
            sink.str(name);
        }
        Frame::Unalias { number } => sink.int((*number).into()),
    }
}

fn hello(frame: &Hello<'_>, sink: &mut impl Sink) {
    sink.int(frame.versions.0.into());
    sink.int(frame.versions.1.into());
    sink.int(frame.features);
    sink.str(frame.client_id);
    sink.str(frame.origin);
    sink.str(frame.namespace);
    sink.str(frame.token);
    sink.str(frame.agent);
    sink.bytes(frame.session);
    sink.int(frame.received.len() as u64);
    for &(sub, received) in &frame.received {
        sink.int(sub.into());
        sink.int(received);
    }
}

fn welcome(frame: &Welcome<'_>, sink: &mut impl Sink) {
    sink.int(frame.version.into());
    sink.int(frame.features);
    sink.str(frame.client_id);
    sink.bytes(frame.session);
    sink.byte(flag(frame.resumed, welcome::RESUMED));
    sink.int(frame.epoch);
    sink.int(frame.time_base_ms);
    sink.int(frame.heartbeat_ms);
    sink.int(frame.resume_window_ms);
    sink.int(frame.published);
    sink.int(frame.answered);
    sink.int(frame.max_payload);
    sink.int(frame.publish_window);
    sink.int(frame.publish_window_bytes);
    sink.int(frame.aliases.into());
    sink.str(frame.server);
    if frame.features & features::HISTORY != 0 {
        sink.byte(flag(frame.history.on_disk, welcome::ON_DISK));
        sink.int(frame.history.patterns.len() as u64);
        frame.history.patterns.iter().for_each(|pattern| sink.str(pattern));
    }
}

fn subscribe(frame: &Subscribe<'_>, sink: &mut impl Sink) {
    sink.int(frame.sub.into());
    let flags = [
        (frame.again, subscribe::AGAIN),
        (frame.retained, subscribe::RETAINED),
        (frame.epoch.is_some(), subscribe::EPOCH),
    ];
    sink.byte(flags.iter().fold(0, |flags, (set, bit)| flags | flag(*set, *bit)));
    sink.byte(frame.overflow as u8);
    sink.int(frame.capacity.into());
    sink.int(frame.window.into());
    sink.int(frame.window_bytes);
    sink.str(frame.pattern);
    sink.str(frame.group);
    sink.str(frame.durable);
    match frame.start {
        Start::New => sink.byte(subscribe::START_NEW),
        Start::Last => sink.byte(subscribe::START_LAST),
        Start::All => sink.byte(subscribe::START_ALL),
        Start::Cursor(cursor) => {
            sink.byte(subscribe::START_CURSOR);
            sink.bytes(cursor);
        }
        Start::Time(time) => {
            sink.byte(subscribe::START_TIME);
            sink.int(time);
        }
    }
    if !frame.durable.is_empty() {
        let Redelivery { ack_wait, retry_delay, max_attempts } = frame.redelivery;
        for wait in [ack_wait, retry_delay] {
            sink.int(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        sink.int(max_attempts.into());
    }
    if let Some(epoch) = frame.epoch {
        sink.int(epoch);
    }
}

fn outcome_flags(more: bool, error: bool, data: bool, retry: bool) -> u8 {
    flag(more, outcome::MORE)
        | flag(error, outcome::ERROR)
        | flag(data, outcome::DATA)
        | flag(retry, outcome::RETRY_DELAY)
}

fn outcome_parts(
    error: Option<(&str, &str)>,
    data: Option<(ContentType, &[u8])>,
    sink: &mut impl Sink,
) {
    if let Some((kind, text)) = error {
        sink.str(kind);
        sink.str(text);
    }
    if let Some((content_type, data)) = data {
        sink.byte(content_type as u8);
        sink.bytes(data);
    }
}

fn gap(frame: &GapFrame<'_>, sink: &mut impl Sink) {
    sink.int(frame.sub.into());
    sink.byte(flag(frame.count.is_some(), gap::COUNT) | flag(frame.range.is_some(), gap::RANGE));
    sink.byte(frame.reason as u8);
    sink.str(frame.topic);
    if let Some(count) = frame.count {
        sink.int(count);
    }
    if let Some((first, last)) = frame.range {
        sink.int(first);
        sink.int(last);
    }
}

fn error(frame: &ErrorFrame<'_>, sink: &mut impl Sink) {
    sink.int(frame.kind.number().into());
    sink.byte(flag(frame.fatal, error::FATAL));
    let (kind, number) = match frame.reference {
        Reference::Connection => (error::CONNECTION, None),
        Reference::Subscription(sub) => (error::SUBSCRIPTION, Some(sub.into())),
        Reference::Publish(number) => (error::PUBLISH, Some(number)),
        Reference::Delivery(number) => (error::DELIVERY, Some(number)),
    };
    sink.byte(kind);
    if let Some(number) = number {
        sink.int(number);
    }
    sink.str(frame.message);
}

#[inline]
fn name(name: Name<'_>, sink: &mut impl Sink) {
    match name {
        Name::Alias(number) => sink.int(number.into()),
        Name::Inline(name) => sink.str(name),
    }
}

#[inline]
fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}
