//! Events on their way to JavaScript: written into a slab that JavaScript owns, so that a batch costs
//! one call and no object, and a message's fields are read only where somebody looks.
//!
//! A slab is a buffer of at most 64 KiB. Records of [`RECORD`] bytes grow from its start, what they
//! refer to (payloads, JSON) from its end. `ts/slab.ts` reads what is written here.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use kps::{
    Error, Event, Item,
    message::{AckRow, ContentType, Extras, Message, Payload},
    options::Cursor,
};
use serde_json::{Value, json};

use crate::{
    calls::{Called, Written},
    complete::Completion,
    strings::Strings,
};

/// Bytes of one record: ten `i32`, then five `f64`.
const RECORD: usize = 80;

/// Payloads above this travel as buffers of their own: a slab is for the many small ones.
const LARGE: usize = 16 << 10;

/// What a record tells; `ts/slab.ts` has the same list.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Message = 0,
    Row = 1,
    Recipients = 2,
    AckDone = 3,
    Receipt = 4,
    RequestDone = 5,
    Told = 6,
    Completed = 7,
    ToServer = 8,
    Asked = 9,
    Answered = 10,
    Called = 11,
    Aborted = 12,
    Function = 13,
    Released = 14,
    Forgotten = 15,
    Edited = 16,
    Happened = 17,
}

/// Bits beside the kind: the low two are the content type.
mod flag {
    pub(super) const DELIVERY: u32 = 1 << 2;
    pub(super) const REQUEST: u32 = 1 << 3;
    pub(super) const DUPLICATE: u32 = 1 << 4;
    pub(super) const LARGE: u32 = 1 << 5;
    pub(super) const PAYLOAD: u32 = 1 << 6;
    pub(super) const FAILED: u32 = 1 << 7;
    pub(super) const LARGE_EXTRAS: u32 = 1 << 8;
    pub(super) const RETAINED: u32 = 1 << 9;
    /// Something in the payload stands for something else; its parts are large ones from `epoch` on.
    pub(super) const SPECIAL: u32 = 1 << 10;
    pub(super) const CALLER: u32 = 1 << 11;
    pub(super) const HEARD: u32 = 1 << 12;
    pub(super) const HOOK: u32 = 1 << 13;
}

/// One record's fields, by the names that most kinds give them.
#[derive(Default)]
struct Record {
    kind: u8,
    flags: u32,
    client: u32,
    sub: u32,
    name: u32,
    sender: u32,
    attempt: u32,
    seq: f64,
    number: f64,
    time: f64,
    delivery: f64,
    epoch: f64,
}

/// A slab being written.
pub(crate) struct Batch<'a> {
    slab: &'a mut [u8],
    /// Where the next record goes.
    head: usize,
    /// Where the last payload starts.
    tail: usize,
    count: usize,
    strings: &'a mut Strings,
    large: &'a mut Vec<Bytes>,
}

impl<'a> Batch<'a> {
    /// Writes between `head` and `tail` of `slab`; what is large goes to `large`.
    pub(crate) fn new(
        slab: &'a mut [u8],
        head: usize,
        tail: usize,
        strings: &'a mut Strings,
        large: &'a mut Vec<Bytes>,
    ) -> Self {
        Batch { slab, head, tail, count: 0, strings, large }
    }

    /// How many records without payload there is room for.
    pub(crate) fn room(&self) -> usize {
        (self.tail - self.head) / RECORD
    }

    /// How many records were written.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Where the last payload starts.
    pub(crate) fn tail(&self) -> usize {
        self.tail
    }

    /// Whether what lies between the present tail and `end` is ASCII.
    pub(crate) fn is_ascii(&self, end: usize) -> bool {
        self.slab[self.tail..end].is_ascii()
    }

    /// Writes `item`; `false`, and nothing is written, if there is no room.
    pub(crate) fn item(&mut self, item: &Item) -> bool {
        let client = item.client.0;
        let record = |kind: Kind| Record { kind: kind as u8, client, ..Record::default() };
        match &item.event {
            Event::Message { sub, message, delivery, request } => {
                self.message(client, sub.0, message, *delivery, *request)
            }
            Event::Row { ack, row } => self.row(record(Kind::Row), *ack, row),
            Event::RequestDone { ack, result: Ok(row) } => {
                self.row(record(Kind::RequestDone), *ack, row)
            }
            Event::RequestDone { ack, result: Err(error) } => {
                let record = Record {
                    flags: flag::FAILED,
                    number: *ack as f64,
                    ..record(Kind::RequestDone)
                };
                self.write(record, failure(error).to_string().as_bytes(), &Bytes::new())
            }
            Event::Recipients { ack, clients } => {
                let mut record = Record {
                    number: *ack as f64,
                    sub: clients.len() as u32,
                    ..record(Kind::Recipients)
                };
                match &clients[..] {
                    [] => self.write(record, &[], &Bytes::new()),
                    [client] => {
                        record.name = self.strings.number(client);
                        self.write(record, &[], &Bytes::new())
                    }
                    many => {
                        let ids: Vec<&str> = many.iter().map(|id| &**id).collect();
                        self.write(record, &[], &Bytes::from(json!(ids).to_string()))
                    }
                }
            }
            Event::AckDone { ack, error } => {
                let record = Record { number: *ack as f64, ..record(Kind::AckDone) };
                let told = error.as_ref().map(|error| failure(error).to_string());
                self.write(record, told.unwrap_or_default().as_bytes(), &Bytes::new())
            }
            Event::Receipt { number, level } => {
                let record =
                    Record { number: *number as f64, sub: *level as u32, ..record(Kind::Receipt) };
                self.write(record, &[], &Bytes::new())
            }
            Event::ServerMessage { from, payload } => {
                self.server_message(record(Kind::ToServer), from, payload)
            }
            other => self.write(record(Kind::Told), &[], &Bytes::from(told(other).to_string())),
        }
    }

    /// Writes what is told outside of a client's events; `false`, and nothing is written, if there is no room.
    pub(crate) fn completion(&mut self, completion: &Completion) -> bool {
        let record = |kind: Kind, number: u32| Record {
            kind: kind as u8,
            number: f64::from(number),
            ..Record::default()
        };
        let none = Bytes::new();
        match completion {
            Completion::Ended { token, json } => {
                self.write(record(Kind::Completed, *token), &[], json)
            }
            Completion::Asked { server, question, json } => {
                let delivery = f64::from(*question);
                self.write(Record { delivery, ..record(Kind::Asked, *server) }, &[], json)
            }
            Completion::Answered { token, response } => {
                self.value(record(Kind::Answered, *token), &[], response)
            }
            Completion::Called(called) => self.called(record(Kind::Called, called.number), called),
            Completion::Aborted { call, late } => {
                let flags = if *late { flag::FAILED } else { 0 };
                self.write(Record { flags, ..record(Kind::Aborted, *call) }, &[], &none)
            }
            Completion::Function { function, value, lost, .. } => {
                let record = Record { sub: *lost, ..record(Kind::Function, function.number) };
                self.value(record, &[], value)
            }
            Completion::Released { function } => {
                self.write(record(Kind::Released, *function), &[], &none)
            }
            Completion::Forgotten { provider } => {
                self.write(record(Kind::Forgotten, *provider), &[], &none)
            }
            Completion::Edited { operation, json } => {
                self.write(record(Kind::Edited, *operation), &[], json)
            }
            Completion::Happened { document, told } => {
                let name = self.strings.number(&told.event);
                self.write(Record { name, ..record(Kind::Happened, *document) }, &[], &told.json)
            }
        }
    }

    /// A call of a capability; `delivery` is the capability's number, `time` what is left in milliseconds, `sub` the
    /// number of its parts.
    fn called(&mut self, mut record: Record, called: &Called) -> bool {
        record.delivery = f64::from(called.provider);
        record.sub = called.payload.parts.len() as u32;
        record.attempt = called.attempt;
        record.name = self.strings.number(&called.operation);
        if let Some(caller) = &called.caller {
            record.flags |= flag::CALLER;
            record.sender = self.strings.number(caller);
        }
        if called.is_heard {
            record.flags |= flag::HEARD;
        }
        if called.is_hook {
            record.flags |= flag::HOOK;
        }
        record.time = called.deadline.map_or(f64::INFINITY, |deadline| {
            deadline.saturating_duration_since(Instant::now()).as_secs_f64() * 1e3
        });
        self.value(record, called.id.as_bytes(), &called.payload)
    }

    /// A record whose payload is a value.
    fn value(&mut self, mut record: Record, extras: &[u8], value: &Written) -> bool {
        if value.special {
            record.flags |= flag::SPECIAL;
        }
        let parts = self.large.len();
        self.large.extend_from_slice(&value.parts);
        record.epoch = parts as f64;
        let written = self.write(record, extras, &value.json);
        if !written {
            self.large.truncate(parts);
        }
        written
    }

    fn message(
        &mut self,
        client: u32,
        sub: u32,
        message: &Message,
        delivery: Option<u64>,
        request: bool,
    ) -> bool {
        let mut flags = message.payload.content_type as u32 | flag::PAYLOAD;
        if delivery.is_some() {
            flags |= flag::DELIVERY;
        }
        if request {
            flags |= flag::REQUEST;
        }
        if message.maybe_duplicate {
            flags |= flag::DUPLICATE;
        }
        if message.retained {
            flags |= flag::RETAINED;
        }
        let record = Record {
            kind: Kind::Message as u8,
            flags,
            client,
            sub,
            name: self.strings.number(&message.topic),
            sender: self.strings.sender(&message.sender),
            attempt: message.attempt,
            seq: message.seq as f64,
            number: message.number as f64,
            time: message.time_ms as f64,
            delivery: delivery.unwrap_or_default() as f64,
            epoch: message.epoch as f64,
        };
        match (&message.extras, &message.cursor) {
            (None, None) => self.write(record, &[], &message.payload.bytes),
            (extras, cursor) => {
                let extras = extras_json(extras.as_deref(), cursor.as_ref());
                self.write(record, extras.as_bytes(), &message.payload.bytes)
            }
        }
    }

    /// What was sent to a server itself.
    fn server_message(&mut self, mut record: Record, from: &Arc<str>, payload: &Payload) -> bool {
        record.flags = payload.content_type as u32 | flag::PAYLOAD;
        record.sender = self.strings.number(from);
        self.write(record, &[], &payload.bytes)
    }

    fn row(&mut self, mut record: Record, ack: u64, row: &AckRow) -> bool {
        record.number = ack as f64;
        record.sub = row.status as u32;
        record.name = self.strings.number(&row.client_id);
        record.time = row.latency.as_secs_f64() * 1000.0;
        let error = match &row.error {
            Some(error) => json!({ "type": error.kind, "text": error.text }).to_string(),
            None => String::new(),
        };
        let none = Bytes::new();
        let data = match &row.data {
            Some(Payload { content_type, bytes }) => {
                record.flags |= *content_type as u32 | flag::PAYLOAD;
                bytes
            }
            None => &none,
        };
        self.write(record, error.as_bytes(), data)
    }

    /// A record, `extras` and `payload`, each where it belongs.
    fn write(&mut self, mut record: Record, extras: &[u8], payload: &Bytes) -> bool {
        let inline = |part: &[u8]| if part.len() > LARGE { 0 } else { part.len() };
        let Some(start) = self.tail.checked_sub(inline(extras) + inline(payload)) else {
            return false;
        };
        if start < self.head + RECORD {
            return false;
        }
        let (mut first, mut last, mut extras_at) = (start + inline(extras), self.tail, start);
        if payload.len() > LARGE {
            record.flags |= flag::LARGE;
            (first, last) = (self.large.len(), payload.len());
            self.large.push(payload.clone());
        } else {
            self.slab[first..last].copy_from_slice(payload);
        }
        if extras.len() > LARGE {
            record.flags |= flag::LARGE_EXTRAS;
            extras_at = self.large.len();
            self.large.push(Bytes::copy_from_slice(extras));
        } else {
            self.slab[start..start + extras.len()].copy_from_slice(extras);
        }
        let ints = [
            u32::from(record.kind) | record.flags << 8,
            record.client,
            record.sub,
            record.name,
            record.sender,
            first as u32,
            last as u32,
            record.attempt,
            extras_at as u32,
            extras.len() as u32,
        ];
        let floats = [record.seq, record.number, record.time, record.delivery, record.epoch];
        let (ints_out, floats_out) = self.slab[self.head..self.head + RECORD].split_at_mut(40);
        for (out, int) in ints_out.chunks_exact_mut(4).zip(ints) {
            out.copy_from_slice(&int.to_ne_bytes());
        }
        for (out, float) in floats_out.chunks_exact_mut(8).zip(floats) {
            out.copy_from_slice(&float.to_ne_bytes());
        }
        self.head += RECORD;
        self.tail = start;
        self.count += 1;
        true
    }
}

/// What a message carries beside its payload, as JavaScript reads it.
fn extras_json(extras: Option<&Extras>, cursor: Option<&Cursor>) -> String {
    let Some(extras) = extras else {
        // All that most messages with history have.
        return cursor.map_or_else(String::new, |cursor| format!("{{\"cursor\":\"{cursor}\"}}"));
    };
    json!({
        "headers": extras.headers,
        "id": extras.id,
        "ttl": extras.ttl.map(|ttl| ttl.as_millis() as u64),
        "cursor": cursor.map(ToString::to_string),
    })
    .to_string()
}

/// An error as JavaScript reads it.
pub(crate) fn failure(error: &Error) -> Value {
    json!({ "code": error.code(), "message": error.message() })
}

/// A rare event as JSON.
fn told(event: &Event) -> Value {
    let error = |error: &Option<Error>| error.as_ref().map(failure);
    match event {
        Event::State { state, error: reason, resumed } => {
            json!({ "event": "state", "state": state.as_str(), "resumed": resumed, "error": error(reason) })
        }
        Event::Subscribed { sub } => json!({ "event": "subscribed", "sub": sub.0 }),
        Event::SubscribeFailed { sub, error } => {
            json!({ "event": "subscribe_failed", "sub": sub.0, "error": failure(error) })
        }
        Event::Unsubscribed { sub } => json!({ "event": "unsubscribed", "sub": sub.0 }),
        Event::SubscriptionClosed { sub, error } => {
            json!({ "event": "subscription_closed", "sub": sub.0, "error": failure(error) })
        }
        Event::Gap { sub, gap } => json!({
            "event": "gap", "sub": sub.0, "topic": &*gap.topic, "count": gap.count,
            "first": gap.first, "last": gap.last, "reason": gap.reason.as_str(),
        }),
        Event::Resumed { sub, replayed } => {
            json!({ "event": "resumed", "sub": sub.0, "replayed": replayed })
        }
        Event::CancelDelivery { sub, delivery } => {
            json!({ "event": "cancel", "sub": sub.0, "delivery": delivery })
        }
        Event::PublishFailed { number, id, error } => {
            json!({ "event": "publish_failed", "number": number, "id": id, "error": failure(error) })
        }
        Event::OutboxFlushed { count } => json!({ "event": "outbox_flushed", "count": count }),
        Event::Room => json!({ "event": "room" }),
        Event::Flushed { token, error: reason } => {
            json!({ "event": "flushed", "token": token, "error": error(reason) })
        }
        Event::MessagePublished { id, .. } => json!({ "event": "message_published", "args": [id] }),
        Event::Backpressure { on } => json!({ "event": "backpressure", "args": [on] }),
        Event::Goaway { reason } => json!({ "event": "goaway", "args": [reason] }),
        Event::Error { error } => json!({ "event": "error", "error": failure(error) }),
        Event::Server { event, .. } => {
            let args: Vec<Value> = event.arguments().into_iter().map(Value::from).collect();
            json!({ "event": "server", "name": event.name(), "args": args })
        }
        // Events of a newer core.
        _ => json!({ "event": "unknown" }),
    }
}

/// The content type with this number, as the publishing side of `ts/` writes it.
pub(crate) fn content_type(number: u32) -> Option<ContentType> {
    u8::try_from(number).ok().and_then(ContentType::from_number)
}
