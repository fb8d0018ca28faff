//! Topics as server-sent events (WHATWG HTML, §9.2).
//!
//! A [`Channel`] holds the subscriptions and the events told last; the [`EventStream`] of an HTTP
//! connection takes them from it. When the connection is lost the channel is kept for the resume window,
//! and `Last-Event-ID` finds it; after that the id's cursors say where history goes on.

mod channel;
mod frame;
mod point;
mod stream;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use hyper::{
    HeaderMap, Response,
    header::{self, HeaderValue},
};
use kps_proto::{
    ErrorKind,
    options::{Overflow, StartAt, SubscribeOptions},
    topic::Pattern,
};
use parking_lot::Mutex;

pub(super) use self::channel::Form;
pub(crate) use self::stream::EventStream;
use self::{
    channel::{Channel, Opening, Slot},
    point::Point,
};
use super::{Answer, Body, Fault, Visit, clients::Who, with};

/// Topics of one stream.
const MAX_TOPICS: usize = 16;

/// Messages that wait for a slow reader, unless it says; beyond them its overflow policy decides.
const CAPACITY: u32 = 1000;

/// Lost streams that are kept for their readers.
const MOST_LOST: usize = 1024;

/// The streams that may be resumed.
pub(crate) struct Streams {
    slots: Mutex<HashMap<String, Weak<Slot>>>,
    lost: Mutex<usize>,
    resume_window: Duration,
}

/// What a stream is of.
pub(super) struct Wish {
    pub(super) topics: Vec<String>,
    pub(super) options: SubscribeOptions,
    pub(super) form: Form,
}

impl Streams {
    pub(super) fn new(resume_window: Duration) -> Streams {
        Streams { slots: Mutex::default(), lost: Mutex::new(0), resume_window }
    }

    fn add(&self, key: String, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        // Twice as many as there are: what is gone is looked for seldom.
        if slots.len() == slots.capacity() {
            slots.retain(|_, slot| slot.strong_count() > 0);
        }
        slots.insert(key, Arc::downgrade(slot));
    }

    /// Takes the channel away from whoever has it, if it is this one's and has what comes behind `point`.
    fn take(&self, point: &Point, who: &Who, wish: &Wish) -> Option<Channel> {
        let slot = self.slots.lock().get(&point.stream).and_then(Weak::upgrade)?;
        let channel = slot.take_if(|channel| channel.goes_on(point, who, wish))?;
        self.slots.lock().remove(&point.stream);
        Some(channel)
    }

    /// Keeps a lost stream's channel until it is asked for, or not any more.
    fn keep(self: &Arc<Self>, slot: Arc<Slot>) {
        {
            let mut lost = self.lost.lock();
            if *lost >= MOST_LOST {
                return;
            }
            *lost += 1;
        }
        let this = self.clone();
        crate::runtime::spawn(async move {
            // Over, taken or too late.
            let _ = tokio::time::timeout(this.resume_window, slot.collect()).await;
            drop(slot);
            *this.lost.lock() -= 1;
        });
    }
}

impl Visit<'_> {
    pub(super) async fn events(mut self, headers: &HeaderMap) -> Answer {
        let topics = self.query.all("topic");
        if topics.is_empty() || topics.len() > MAX_TOPICS {
            let sentence =
                format!("there are {} topics; there are 1 to {MAX_TOPICS}", topics.len());
            return Err(Fault::argument("topic", sentence));
        }
        let options = SubscribeOptions {
            overflow: self.overflow()?,
            capacity: Some(self.capacity()?),
            start: self.start()?,
            ..SubscribeOptions::default()
        };
        let wish = Wish { topics, options, form: Form::Message };
        self.stream(headers, wish).await
    }

    /// A stream of what is wished for, from the last event that its reader had.
    pub(super) async fn stream(mut self, headers: &HeaderMap, wish: Wish) -> Answer {
        for topic in &wish.topics {
            Pattern::parse(topic)?;
        }
        let given = self.query.text("last_event_id")?;
        self.query.done()?;
        let sent = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?").to_owned());
        // Of a reconnect the header is newer than the address.
        let point = sent.or(given).filter(|id| !id.is_empty());
        let point = point.map(|id| Point::parse(&id, wish.topics.len())).transpose()?;
        let (gateway, who) = (self.gateway, Who::of(&self.principal));
        let streams = &gateway.streams;
        let kept = point.as_ref().and_then(|point| streams.take(point, &who, &wish));
        let (channel, sent) = match (kept, &point) {
            (Some(channel), Some(point)) => (channel, point.number),
            _ => {
                let host = &*gateway.host;
                let client = super::clients::connect(host, &self.principal).await?;
                let place = host.place();
                let opening = Opening { client, who, wish, place };
                (Channel::open(opening, point.as_ref()).await?, 0)
            }
        };
        let key = channel.key().to_owned();
        let slot = Arc::new(Slot::new(channel));
        streams.add(key, &slot);
        let heartbeat = gateway.host.settings().heartbeat;
        let stream = EventStream::new(slot, streams.clone(), heartbeat, sent, point);
        let response = Response::new(Body::Events(Box::new(stream)));
        let kind = HeaderValue::from_static("text/event-stream");
        let response = with(response, header::CONTENT_TYPE, kind);
        // What stands between must pass on what comes as it comes.
        let response = with(
            response,
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store, no-transform"),
        );
        let name = header::HeaderName::from_static("x-accel-buffering");
        Ok(with(response, name, HeaderValue::from_static("no")))
    }

    fn overflow(&mut self) -> Result<Overflow, Fault> {
        let Some(name) = self.query.text("overflow")? else { return Ok(Overflow::DropOldest) };
        // A page must not slow publishers down.
        let known = Overflow::from_name(&name).filter(|overflow| *overflow != Overflow::Block);
        known.ok_or_else(|| {
            let sentence = format!(
                "overflow is {name:?}; here it is drop_oldest, drop_newest, latest, disconnect or spill"
            );
            Fault::argument("overflow", sentence)
        })
    }

    fn capacity(&mut self) -> Result<u32, Fault> {
        let what = "messages, 1 to 100000";
        let capacity = self.query.parsed("capacity", what)?.unwrap_or(CAPACITY);
        match capacity {
            1..=100_000 => Ok(capacity),
            _ => Err(Fault::argument("capacity", format!("capacity is {capacity}; it is {what}"))),
        }
    }

    fn start(&mut self) -> Result<StartAt, Fault> {
        let Some(text) = self.query.text("start")? else { return Ok(StartAt::New) };
        if let Ok(time_ms) = text.parse::<u64>() {
            return Ok(StartAt::Time(time_ms));
        }
        StartAt::parse(&text).map_err(|error| {
            debug_assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            Fault::argument("start", error.message())
        })
    }
}
