//! Bytes to frames.

use std::time::Duration;

use super::{
    error, extension, gap, message, outcome, policy, publish,
    reader::{Fault, Reader, not_negotiated, unknown, utf8},
    subscribe, types, welcome,
};
use crate::{
    error::{Error, ErrorKind, Result as KpsResult},
    message::{ContentType, GapReason, Offline, RowStatus},
    options::{Overflow, Redelivery},
    wire::frame::{
        AnswerFrame, Destination, Earlier, ErrorFrame, Extensions, Frame, GapFrame, Hello,
        HistoryFrame, MessageFrame, Name, Publish, Reference, Row, Start, Subscribe, Welcome,
        features,
    },
};

/// The frames in one WebSocket message, borrowed from it.
///
/// Frames of unknown types are skipped. The first malformed one is the last item: an error of
/// kind [`ErrorKind::Protocol`], after which the connection cannot go on.
///
/// Where it counts, look at the item where it is made: `while let Some(item) = &frames.next()`. To
/// move a frame (150 bytes) right after it was written takes as long as to decode it.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// The frames in `message`.
    #[inline]
    pub fn new(message: &'a [u8]) -> Self {
        Frames { rest: message }
    }

    /// The bytes not read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = KpsResult<Frame<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while let Some((&kind, rest)) = self.rest.split_first() {
            let mut reader = Reader(rest);
            let body = match reader.bytes("length") {
                Ok(body) => Reader(body),
                Err(fault) => return Some(Err(self.fail(kind, fault))),
            };
            self.rest = reader.0;
            // Each arm returns by itself: where they met, the frame would be moved once more.
            match kind {
                types::PUB => match publish(body) {
                    Ok(frame) => return Some(Ok(Frame::Publish(frame))),
                    Err(fault) => return Some(Err(self.fail(kind, fault))),
                },
                types::MSG => match message(body) {
                    Ok(frame) => return Some(Ok(Frame::Message(frame))),
                    Err(fault) => return Some(Err(self.fail(kind, fault))),
                },
                _ => match control(kind, body) {
                    Ok(None) => {}
                    Ok(Some(frame)) => return Some(Ok(frame)),
                    Err(fault) => return Some(Err(self.fail(kind, fault))),
                },
            }
        }
        None
    }
}

impl std::iter::FusedIterator for Frames<'_> {}

impl Frames<'_> {
    /// Ends the iteration.
    #[cold]
    fn fail(&mut self, kind: u8, fault: Fault) -> Error {
        self.rest = &[];
        fault.in_frame(types::name(kind))
    }
}

#[inline(always)]
fn publish(mut body: Reader<'_>) -> Result<Publish<'_>, Fault> {
    let number = body.int("number")?;
    let flags = body.byte("flags")?;
    if flags & publish::COMPRESSED != 0 {
        return Err(not_negotiated("compression"));
    }
    let content_type = body.content_type()?;
    let to = match flags >> publish::TO_SHIFT {
        publish::TO_ALIAS => Destination::Topic(Name::Alias(body.u32("topic number")?)),
        publish::TO_TOPIC => Destination::Topic(Name::Inline(body.str("topic")?)),
        publish::TO_CLIENT => Destination::Client(body.str("client id")?),
        _ => Destination::Server(body.str("server address")?),
    };
    Ok(Publish {
        number,
        to,
        ack: flags & publish::ACK != 0,
        request: flags & publish::REQUEST != 0,
        prompt: flags & publish::PROMPT != 0,
        maybe_duplicate: flags & publish::MAYBE_DUPLICATE != 0,
        content_type,
        extensions: extensions(flags & publish::EXTENSIONS != 0, &mut body)?,
        payload: body.0,
    })
}

#[inline(always)]
fn message(mut body: Reader<'_>) -> Result<MessageFrame<'_>, Fault> {
    let sub = body.u32("subscription")?;
    let flags = body.byte("flags")?;
    if flags & message::COMPRESSED != 0 {
        return Err(not_negotiated("compression"));
    }
    let content_type = body.content_type()?;
    let topic = name(flags & message::TOPIC_INLINE != 0, "topic", &mut body)?;
    let sender = name(flags & message::SENDER_INLINE != 0, "sender", &mut body)?;
    let seq = body.int("seq")?;
    let number = body.int("number")?;
    let time = body.int("time")?;
    let delivery = if flags & message::DELIVERY != 0 { Some(body.int("delivery")?) } else { None };
    let attempt = if flags & message::ATTEMPT != 0 { body.u32("attempt")? } else { 1 };
    Ok(MessageFrame {
        sub,
        topic,
        sender,
        seq,
        number,
        time,
        attempt,
        delivery,
        request: flags & message::REQUEST != 0,
        maybe_duplicate: flags & message::MAYBE_DUPLICATE != 0,
        content_type,
        extensions: extensions(flags & message::EXTENSIONS != 0, &mut body)?,
        payload: body.0,
    })
}

#[inline(always)]
fn name<'a>(inline: bool, field: &'static str, body: &mut Reader<'a>) -> Result<Name<'a>, Fault> {
    if inline { body.str(field).map(Name::Inline) } else { body.u32(field).map(Name::Alias) }
}

#[inline]
fn extensions<'a>(
    present: bool,
    body: &mut Reader<'a>,
) -> Result<Option<Box<Extensions<'a>>>, Fault> {
    if present { extension_block(body) } else { Ok(None) }
}

fn extension_block<'a>(body: &mut Reader<'a>) -> Result<Option<Box<Extensions<'a>>>, Fault> {
    let mut block = Reader(body.bytes("extensions")?);
    let mut extensions = Extensions::default();
    while !block.0.is_empty() {
        let key = block.varint("extension key")?;
        let value = block.bytes("extension")?;
        match key {
            extension::HEADER => {
                let mut value = Reader(value);
                let name = value.str("header name")?;
                extensions.headers.push((name, utf8(value.0, "header value")?));
            }
            extension::ID => extensions.id = Some(utf8(value, "message id")?),
            extension::TTL_MS => extensions.ttl_ms = Some(Reader(value).int("ttl")?),
            extension::ACK_TIMEOUT_MS => {
                extensions.ack_timeout_ms = Some(Reader(value).int("ack timeout")?);
            }
            extension::SETTLED if value.is_empty() => extensions.settled = 1,
            extension::SETTLED => extensions.settled = Reader(value).int("settled")?.max(1),
            extension::RETAINED => extensions.retained = true,
            extension::CURSOR => extensions.cursor = Some(value),
            extension::EARLIER => {
                let mut value = Reader(value);
                let (epoch, time_ms) = (value.int("epoch")?, value.int("time")?);
                extensions.earlier = Some(Earlier { epoch, time_ms });
            }
            extension::TO => {
                let mut value = Reader(value);
                let mut to = Vec::new();
                while !value.0.is_empty() {
                    to.push(value.str("recipient")?);
                }
                extensions.to = Some(to);
            }
            extension::POLICY => {
                let policy = Reader(value).int("policy")?;
                extensions.private = policy & policy::PRIVATE != 0;
                let offline = (policy >> policy::OFFLINE_SHIFT & policy::OFFLINE_MASK) as u8;
                let Some(offline) = Offline::from_number(offline) else {
                    return Err(unknown("offline policy", offline));
                };
                extensions.offline = offline;
            }
            _ => {}
        }
    }
    Ok((!extensions.is_empty()).then(|| Box::new(extensions)))
}

/// All frames but `PUB` and `MSG`; `None` for an unknown type.
fn control(kind: u8, mut body: Reader<'_>) -> Result<Option<Frame<'_>>, Fault> {
    Ok(Some(match kind {
        types::HELLO => Frame::Hello(hello(&mut body)?),
        types::WELCOME => Frame::Welcome(welcome(&mut body)?),
        types::AUTH => Frame::Auth { token: body.str("token")? },
        types::SUB => Frame::Subscribe(subscribe(&mut body)?),
        types::SUBSCRIBED => Frame::Subscribed {
            sub: body.u32("subscription")?,
            cursor: if body.0.is_empty() { &[] } else { body.bytes("cursor")? },
        },
        types::UNSUB => Frame::Unsubscribe { sub: body.u32("subscription")? },
        types::UNSUBSCRIBED => Frame::Unsubscribed { sub: body.u32("subscription")? },
        types::CREDIT => {
            Frame::Credit { sub: body.u32("subscription")?, consumed: body.int("consumed")? }
        }
        types::ACCEPTED => {
            Frame::Accepted { published: body.int("published")?, answered: body.int("answered")? }
        }
        types::STORED => Frame::Stored { published: body.int("published")? },
        types::RECIPIENTS => {
            let number = body.int("number")?;
            let count = body.count("recipients", 1)?;
            let clients =
                (0..count).map(|_| body.str("client id")).collect::<Result<_, Fault>>()?;
            Frame::Recipients { number, clients }
        }
        types::ROW => Frame::Row(row(&mut body)?),
        types::ANSWER => Frame::Answer(answer(&mut body)?),
        types::CANCEL => Frame::Cancel { number: body.int("number")? },
        types::GAP => Frame::Gap(gap(&mut body)?),
        types::RESUMED => {
            Frame::Resumed { sub: body.u32("subscription")?, replayed: body.int("replayed")? }
        }
        types::PING => Frame::Ping { nonce: body.varint("nonce")? },
        types::PONG => Frame::Pong { nonce: body.varint("nonce")? },
        types::ERROR => Frame::Error(error(&mut body)?),
        types::GOAWAY => {
            Frame::Goaway { delay_ms: body.int("delay")?, reason: body.str("reason")? }
        }
        types::ALIAS => Frame::Alias { number: body.u32("number")?, name: body.str("name")? },
        types::UNALIAS => Frame::Unalias { number: body.u32("number")? },
        _ => return Ok(None),
    }))
}

fn hello<'a>(body: &mut Reader<'a>) -> Result<Hello<'a>, Fault> {
    Ok(Hello {
        versions: (body.u32("lowest version")?, body.u32("highest version")?),
        features: body.int("features")?,
        client_id: body.str("client id")?,
        origin: body.str("origin")?,
        namespace: body.str("namespace")?,
        token: body.str("token")?,
        agent: body.str("agent")?,
        session: body.bytes("session")?,
        received: {
            let count = body.count("received", 2)?;
            (0..count)
                .map(|_| Ok((body.u32("subscription")?, body.int("received")?)))
                .collect::<Result<_, Fault>>()?
        },
    })
}

fn welcome<'a>(body: &mut Reader<'a>) -> Result<Welcome<'a>, Fault> {
    let version = body.u32("version")?;
    let features = body.int("features")?;
    Ok(Welcome {
        version,
        features,
        client_id: body.str("client id")?,
        session: body.bytes("session")?,
        resumed: body.byte("flags")? & welcome::RESUMED != 0,
        epoch: body.int("epoch")?,
        time_base_ms: body.int("time base")?,
        heartbeat_ms: body.int("heartbeat")?,
        resume_window_ms: body.int("resume window")?,
        published: body.int("published")?,
        answered: body.int("answered")?,
        max_payload: body.int("largest payload")?,
        publish_window: body.int("publish window")?,
        publish_window_bytes: body.int("publish window in bytes")?,
        aliases: body.u32("aliases")?,
        server: body.str("server")?,
        history: match features & features::HISTORY {
            0 => HistoryFrame::default(),
            _ => history(body)?,
        },
    })
}

fn history<'a>(body: &mut Reader<'a>) -> Result<HistoryFrame<'a>, Fault> {
    let flags = body.byte("history flags")?;
    let count = body.count("history patterns", 1)?;
    Ok(HistoryFrame {
        on_disk: flags & welcome::ON_DISK != 0,
        patterns: (0..count).map(|_| body.str("history pattern")).collect::<Result<_, Fault>>()?,
    })
}

fn subscribe<'a>(body: &mut Reader<'a>) -> Result<Subscribe<'a>, Fault> {
    let sub = body.u32("subscription")?;
    let flags = body.byte("flags")?;
    let mut frame = Subscribe {
        sub,
        again: flags & subscribe::AGAIN != 0,
        epoch: None,
        retained: flags & subscribe::RETAINED != 0,
        overflow: body.known("overflow policy", Overflow::from_number)?,
        capacity: body.u32("capacity")?,
        window: body.u32("window")?,
        window_bytes: body.int("window in bytes")?,
        pattern: body.str("pattern")?,
        group: body.str("group")?,
        durable: body.str("durable name")?,
        redelivery: Redelivery::default(),
        start: match body.byte("start")? {
            subscribe::START_NEW => Start::New,
            subscribe::START_LAST => Start::Last,
            subscribe::START_ALL => Start::All,
            subscribe::START_CURSOR => Start::Cursor(body.bytes("cursor")?),
            subscribe::START_TIME => Start::Time(body.int("start time")?),
            other => return Err(unknown("start", other)),
        },
    };
    if !frame.durable.is_empty() && !body.0.is_empty() {
        frame.redelivery = Redelivery {
            ack_wait: Duration::from_millis(body.int("ack wait")?),
            retry_delay: Duration::from_millis(body.int("retry delay")?),
            max_attempts: body.u32("attempts")?,
        };
    }
    if flags & subscribe::EPOCH != 0 {
        frame.epoch = Some(body.int("epoch")?);
    }
    Ok(frame)
}

fn row<'a>(body: &mut Reader<'a>) -> Result<Row<'a>, Fault> {
    let number = body.int("number")?;
    let recipient = body.u32("recipient")?;
    let flags = body.byte("flags")?;
    let status = body.status()?;
    let latency_us = body.int("latency")?;
    let (error, data) = outcome(flags, body)?;
    Ok(Row { number, recipient, more: flags & outcome::MORE != 0, status, latency_us, error, data })
}

fn answer<'a>(body: &mut Reader<'a>) -> Result<AnswerFrame<'a>, Fault> {
    let number = body.int("number")?;
    let delivery = body.int("delivery")?;
    let flags = body.byte("flags")?;
    let status = match body.status()? {
        status @ (RowStatus::Acked | RowStatus::Failed | RowStatus::NoHandler) => status,
        // The other ways a row can end are the broker's to say.
        other => return Err(unknown("status of an answer", other as u8)),
    };
    let (error, data) = outcome(flags, body)?;
    let retry_delay_ms = match flags & outcome::RETRY_DELAY {
        0 => None,
        _ => Some(body.int("retry delay")?),
    };
    let more = flags & outcome::MORE != 0;
    Ok(AnswerFrame { number, delivery, more, status, error, data, retry_delay_ms })
}

type Outcome<'a> = (Option<(&'a str, &'a str)>, Option<(ContentType, &'a [u8])>);

fn outcome<'a>(flags: u8, body: &mut Reader<'a>) -> Result<Outcome<'a>, Fault> {
    let error = if flags & outcome::ERROR != 0 {
        Some((body.str("error type")?, body.str("error text")?))
    } else {
        None
    };
    let data = if flags & outcome::DATA != 0 {
        Some((body.content_type()?, body.bytes("data")?))
    } else {
        None
    };
    Ok((error, data))
}

fn gap<'a>(body: &mut Reader<'a>) -> Result<GapFrame<'a>, Fault> {
    let sub = body.u32("subscription")?;
    let flags = body.byte("flags")?;
    Ok(GapFrame {
        sub,
        reason: GapReason::from_number(body.byte("reason")?),
        topic: body.str("topic")?,
        count: if flags & gap::COUNT != 0 { Some(body.int("count")?) } else { None },
        range: if flags & gap::RANGE != 0 {
            Some((body.int("first seq")?, body.int("last seq")?))
        } else {
            None
        },
    })
}

fn error<'a>(body: &mut Reader<'a>) -> Result<ErrorFrame<'a>, Fault> {
    let number = body.int("code")?;
    let flags = body.byte("flags")?;
    Ok(ErrorFrame {
        kind: u16::try_from(number).map_or(ErrorKind::Internal, ErrorKind::from_number),
        fatal: flags & error::FATAL != 0,
        reference: match body.byte("reference")? {
            error::CONNECTION => Reference::Connection,
            error::SUBSCRIPTION => Reference::Subscription(body.u32("subscription")?),
            error::PUBLISH => Reference::Publish(body.int("publish number")?),
            error::DELIVERY => Reference::Delivery(body.int("delivery")?),
            other => return Err(unknown("reference", other)),
        },
        message: body.str("message")?,
    })
}
