//! What comes out of the bus.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    queue::{ENTRY, OVERHEAD},
    state::{DurableKey, PortId, SessionKey, SubKey},
};
use crate::{
    clock::Time,
    error::Error,
    history::Query,
    message::{Extras, Gap, GapReason, HandlerError, Offline, Payload, RowStatus, Sender},
    wire::frame::{Earlier, ErrorFrame, Extensions, Frame, GapFrame, Reference, Row},
};

/// A message as the bus holds it, once for all its recipients.
///
/// Its topic and sender are its [`Route`]'s.
#[derive(Debug)]
pub struct Published {
    /// Where to and by whom.
    pub route: Arc<Route>,
    /// The payload. See [`Published::share`] for bytes that outlive the message.
    pub payload: Payload<Box<[u8]>>,
    /// The publisher's number.
    pub number: u64,
    /// Consecutive within the topic.
    pub seq: u64,
    /// When it was accepted.
    pub time: Time,
    /// A request: not handed over once [`Published::expires`] has passed.
    pub request: bool,
    /// Sent again by the publisher after a lost session.
    pub maybe_duplicate: bool,
    /// Headers, own id, time to live.
    pub extras: Option<Box<Extras>>,
    /// When it is not worth delivering any more.
    pub expires: Option<Time>,
    /// Its place in history, if its topic has any, or what is to be said of a retained message.
    pub place: Option<Box<Place>>,
    /// How many queues it was put into.
    pub(super) queues: u32,
}

/// A message's place in history, and how it came from there.
#[derive(Clone, Debug)]
pub struct Place {
    pub(super) position: u64,
    /// 1 for the first time it is handed out.
    pub(super) attempt: u32,
    /// `None`: a retained message that stands at no place of history.
    cursor: Option<[u8; Cursor::LENGTH]>,
    pub(super) earlier: Option<Earlier>,
    /// It is delivered because it was retained.
    retained: bool,
    /// When it was read, its topic had a newer one; told of the offline policy `latest` alone.
    pub(super) superseded: bool,
}

impl Place {
    pub(super) fn new(epoch: u64, position: u64, earlier: Option<Earlier>) -> Place {
        let cursor = (position > 0).then(|| Cursor { epoch, position }.to_bytes());
        Place { position, attempt: 1, cursor, earlier, retained: false, superseded: false }
    }

    /// Of a retained message, accepted by an `earlier` run perhaps, that is delivered where history has
    /// this place.
    pub(super) fn of_retained(place: Option<&Place>, earlier: Option<Earlier>) -> Place {
        let (position, cursor) = place.map_or((0, None), |place| (place.position, place.cursor));
        Place { position, attempt: 1, cursor, earlier, retained: true, superseded: false }
    }
}

/// A place in a stream to come back to: behind a position, in the broker's run that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) epoch: u64,
    pub(super) position: u64,
}

impl Cursor {
    const LENGTH: usize = 16;

    pub(super) fn to_bytes(self) -> [u8; Cursor::LENGTH] {
        let both = u128::from(self.epoch) << 64 | u128::from(self.position);
        both.to_be_bytes()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Cursor> {
        let both = u128::from_be_bytes(bytes.try_into().ok()?);
        Some(Cursor { epoch: (both >> 64) as u64, position: both as u64 })
    }
}

/// What the messages of one publisher on one topic have in common, with the bus whose memory they
/// are charged to: a message counts one reference, not three.
#[derive(Debug)]
pub struct Route {
    /// Where to.
    pub topic: Arc<str>,
    /// By whom.
    pub sender: Arc<Sender>,
    pub(super) released: Arc<AtomicU64>,
}

impl Deref for Published {
    type Target = Route;
    fn deref(&self) -> &Route {
        &self.route
    }
}

impl Published {
    /// The id that its recipients see.
    pub fn id(&self) -> String {
        match self.extras.as_ref().and_then(|extras| extras.id.clone()) {
            Some(own) => own,
            None => format!("{}-{}", self.sender.origin, self.number),
        }
    }

    /// What it is charged against the server's bounds, in bytes, for as long as any queue has it.
    pub(super) fn charge(&self) -> usize {
        self.cost() + self.queues.saturating_sub(1) as usize * ENTRY
    }

    /// What it is charged against a queue's bounds, in bytes.
    pub(super) fn cost(&self) -> usize {
        let extras = self.extras.as_deref().map_or(0, Extras::cost);
        self.payload.bytes.len() + OVERHEAD + extras
    }

    pub(super) fn is_expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether a client with this id and this authenticated name may have it.
    pub(super) fn admits(&self, id: &str, principal: Option<&str>) -> bool {
        self.extras.as_ref().is_none_or(|extras| extras.admits(id, principal))
    }

    pub(super) fn is_private(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.private)
    }

    pub(super) fn offline(&self) -> Offline {
        self.extras.as_ref().map_or(Offline::Keep, |extras| extras.offline)
    }

    pub(super) fn as_gap(&self, reason: GapReason) -> Gap {
        Gap {
            topic: self.topic.clone(),
            count: Some(1),
            first: Some(self.seq),
            last: Some(self.seq),
            reason,
        }
    }

    /// Its payload's bytes for others to hold: they keep the whole message instead of a copy.
    pub fn share(self: &Arc<Self>) -> Bytes {
        struct Held(Arc<Published>);
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.0.payload.bytes
            }
        }
        Bytes::from_owner(Held(self.clone()))
    }

    /// The run that accepted it, of which `present` is the one now.
    pub(super) fn epoch(&self, present: u64) -> u64 {
        let earlier = self.place.as_ref().and_then(|place| place.earlier);
        earlier.map_or(present, |earlier| earlier.epoch)
    }

    /// Its place in history; 0: it has none.
    pub(super) fn position(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.position)
    }

    /// How often it was handed out, this time included.
    pub fn attempt(&self) -> u32 {
        self.place.as_ref().map_or(1, |place| place.attempt)
    }

    /// The extensions its `MSG` carries at `now`.
    pub fn extensions(&self, now: Time) -> Option<Box<Extensions<'_>>> {
        if self.extras.is_none() && self.expires.is_none() && self.place.is_none() {
            return None;
        }
        let mut extensions = Extensions::default();
        if let Some(place) = &self.place {
            extensions.cursor = place.cursor.as_ref().map(|cursor| &cursor[..]);
            extensions.retained = place.retained;
            extensions.earlier = place.earlier;
        }
        if let Some(extras) = &self.extras {
            extensions.headers =
                extras.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            extensions.id = extras.id.as_deref();
        }
        extensions.ttl_ms = self.expires.map(|expires| millis(expires.since(now)));
        Some(Box::new(extensions))
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.route.released.fetch_add(self.charge() as u64, Ordering::Relaxed);
    }
}

/// Whole milliseconds, saturating below 2^53.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min((1 << 53) - 1)
}

/// Something a connection is to send, in this order.
#[derive(Clone, Debug)]
pub enum Output {
    /// A `MSG`. Its topic and sender may be aliased by the connection's encoder.
    Deliver {
        /// The client's number for the subscription.
        sub: u32,
        /// The message.
        published: Arc<Published>,
        /// Set when an answer is awaited.
        delivery: Option<u64>,
    },
    /// `ACCEPTED`.
    Accepted {
        /// See [`Frame::Accepted`].
        published: u64,
        /// See [`Frame::Accepted`].
        answered: u64,
    },
    /// `STORED`.
    Stored {
        /// See [`Frame::Stored`].
        published: u64,
    },
    /// `SUBSCRIBED`.
    Subscribed {
        /// The client's number for the subscription.
        sub: u32,
        /// See [`Frame::Subscribed`].
        cursor: Option<[u8; 16]>,
    },
    /// `UNSUBSCRIBED`.
    Unsubscribed {
        /// The client's number for the subscription.
        sub: u32,
    },
    /// `RECIPIENTS`.
    Recipients {
        /// The publish number.
        number: u64,
        /// Their ids.
        clients: Vec<Arc<str>>,
    },
    /// `ROW`.
    Row {
        /// The publish number.
        number: u64,
        /// Position in `RECIPIENTS`.
        recipient: u32,
        /// How it ended.
        status: RowStatus,
        /// From acceptance to the answer.
        latency: Duration,
        /// When not acked.
        error: Option<HandlerError>,
        /// What the handler returned.
        data: Option<Payload>,
    },
    /// `CANCEL` of a delivery.
    Cancel {
        /// The delivery number.
        delivery: u64,
    },
    /// `GAP`.
    Gap {
        /// The client's number for the subscription.
        sub: u32,
        /// What is missing.
        gap: Gap,
    },
    /// `RESUMED`.
    Resumed {
        /// The client's number for the subscription.
        sub: u32,
        /// Frames that follow.
        replayed: u64,
    },
    /// `ERROR`, not fatal.
    Error {
        /// What it is about.
        reference: Reference,
        /// What happened.
        error: Error,
    },
    /// Send this as a fatal `ERROR` and close the connection.
    Close(Error),
}

impl Output {
    /// The frame that says it; `None` for [`Output::Deliver`], whose names the connection's
    /// encoder replaces by aliases.
    pub fn frame(&self) -> Option<Frame<'_>> {
        Some(match self {
            Output::Deliver { .. } => return None,
            Output::Accepted { published, answered } => {
                Frame::Accepted { published: *published, answered: *answered }
            }
            Output::Stored { published } => Frame::Stored { published: *published },
            Output::Subscribed { sub, cursor } => Frame::Subscribed {
                sub: *sub,
                cursor: cursor.as_ref().map_or(&[], |cursor| &cursor[..]),
            },
            Output::Unsubscribed { sub } => Frame::Unsubscribed { sub: *sub },
            Output::Recipients { number, clients } => Frame::Recipients {
                number: *number,
                clients: clients.iter().map(|client| &**client).collect(),
            },
            Output::Row { number, recipient, status, latency, error, data } => Frame::Row(Row {
                number: *number,
                recipient: *recipient,
                more: false,
                status: *status,
                latency_us: u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
                    & ((1 << 53) - 1),
                error: error.as_ref().map(|error| (&*error.kind, &*error.text)),
                data: data.as_ref().map(|data| (data.content_type, &*data.bytes)),
            }),
            Output::Cancel { delivery } => Frame::Cancel { number: *delivery },
            Output::Gap { sub, gap } => Frame::Gap(GapFrame {
                sub: *sub,
                topic: &gap.topic,
                count: gap.count,
                range: gap.first.zip(gap.last),
                reason: gap.reason,
            }),
            Output::Resumed { sub, replayed } => Frame::Resumed { sub: *sub, replayed: *replayed },
            Output::Error { reference, error } => error_frame(*reference, error, false),
            Output::Close(error) => error_frame(Reference::Connection, error, true),
        })
    }

    /// The number of the publish that it refuses.
    pub(super) fn refused(&self) -> Option<u64> {
        match self {
            Output::Error { reference: Reference::Publish(number), .. } => Some(*number),
            _ => None,
        }
    }

    /// Roughly what it takes on the wire, to keep a pull within its budget.
    pub(super) fn size(&self) -> usize {
        match self {
            Output::Deliver { published, .. } => published.payload.bytes.len() + 32,
            Output::Row { data: Some(data), .. } => data.bytes.len() + 32,
            Output::Recipients { clients, .. } => 16 + 16 * clients.len(),
            _ => 32,
        }
    }
}

fn error_frame(reference: Reference, error: &Error, fatal: bool) -> Frame<'_> {
    Frame::Error(ErrorFrame { kind: error.kind(), reference, fatal, message: error.message() })
}

/// Something the driver is to know or do.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A client connected (not: resumed).
    Connected {
        /// Its connection.
        port: PortId,
        /// Its namespace.
        namespace: String,
        /// Its id.
        client_id: Arc<str>,
    },
    /// A client is gone for good: it said goodbye or its session expired.
    Disconnected {
        /// Its namespace.
        namespace: String,
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
    /// A subscription ended: its client ended it or is gone, or the bus closed it.
    SubscriptionClosed {
        /// Which client's.
        client_id: Arc<str>,
        /// The topic or pattern.
        topic: Arc<str>,
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
    Dropped {
        /// Which client's.
        client_id: Arc<str>,
        /// The topic or pattern.
        topic: Arc<str>,
        /// How many.
        count: u64,
        /// Why.
        reason: GapReason,
    },
    /// A message was accepted; only if [`Bus::observe_messages`](super::Bus::observe_messages) asked.
    Published(Arc<Published>),
    /// A durable gave a message up.
    DeadLettered {
        /// The durable's name.
        durable: Arc<str>,
        /// The message.
        published: Arc<Published>,
        /// What went wrong the last time.
        error: HandlerError,
    },
    /// A client asks to pass a payload on to another server.
    PublishToServer {
        /// Names it if it fails: see [`Bus::refuse_relay`](super::Bus::refuse_relay).
        relay: Relay,
        /// The other server.
        address: String,
        /// What to pass on.
        payload: Payload,
    },
    /// Read from the store and hand the answer to [`Bus::take_page`](super::Bus::take_page).
    Read {
        /// For whom.
        reader: Reader,
        /// What.
        query: Query,
    },
}

/// Who waits for a page of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reader(pub(super) ReaderKey);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ReaderKey {
    Sub(SubKey),
    Durable(DurableKey),
}

/// A publish that is to be passed on to another server.
#[derive(Clone, Copy, Debug)]
pub struct Relay {
    pub(super) publisher: SessionKey,
    pub(super) number: u64,
}
