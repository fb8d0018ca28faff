//! What a stream of events is made from; it may outlive its HTTP connection.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use kps_proto::{
    Error, ErrorKind,
    message::Message,
    options::{Cursor, StartAt},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Wish, frame,
    point::{self, Point},
};
use crate::{
    client::{Client, Received, Subscription},
    gateway::http::{Fault, clients},
};

/// Events that are kept once they were handed to the connection, and bytes of them: so many may be on
/// their way when it breaks.
const TOLD: usize = 1024;
const TOLD_BYTES: usize = 256 << 10;

/// Events, and bytes of them, that are collected while there is no connection. What comes then waits at the
/// bus, within the bounds of its subscription.
const COLLECTED: usize = 4096;
const COLLECTED_BYTES: usize = 512 << 10;

/// How messages become events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway::http) enum Form {
    /// `message`, with the message as JSON.
    Message,
    /// The payload is an event of a document, and is told as it is.
    Document,
}

/// What is needed to open one.
pub(super) struct Opening {
    pub(super) client: Client,
    pub(super) who: clients::Who,
    pub(super) wish: Wish,
    /// Where history is now.
    pub(super) place: Option<Cursor>,
}

/// Subscriptions, and the events told last.
pub(super) struct Channel {
    key: String,
    who: clients::Who,
    wish: Wish,
    topics: Vec<Topic>,
    /// Whose turn it is.
    turn: usize,
    ring: VecDeque<Told>,
    bytes: usize,
    /// The number of the last event made.
    last: u64,
    ended: bool,
    /// Lives as long as this.
    _client: Client,
}

struct Topic {
    subscription: Subscription,
    cursor: Option<Cursor>,
}

/// An event with its number.
struct Told {
    number: u64,
    topic: usize,
    is_message: bool,
    text: Bytes,
}

impl Channel {
    /// Subscribes; `point` is where a stream that is not there any more had come.
    pub(super) async fn open(opening: Opening, point: Option<&Point>) -> Result<Channel, Fault> {
        let Opening { client, who, wish, place } = opening;
        let mut topics = Vec::with_capacity(wish.topics.len());
        for (at, pattern) in wish.topics.iter().enumerate() {
            let options = wish.options.clone();
            topics.push(match point.map(|point| point.cursors[at].clone()) {
                None => {
                    let is_new = options.start == StartAt::New;
                    let subscription = client.subscribe_with(pattern, options).await?;
                    Topic { subscription, cursor: place.clone().filter(|_| is_new) }
                }
                Some(cursor) => {
                    // Where nothing is kept any more there is no place to go on from.
                    let cursor = cursor.filter(|_| place.is_some());
                    let again = client.subscribe_again(pattern, options, cursor.clone());
                    Topic { subscription: again.await?, cursor: cursor.or_else(|| place.clone()) }
                }
            });
        }
        Ok(Channel {
            key: clients::unguessable(),
            who,
            wish,
            topics,
            turn: 0,
            ring: VecDeque::new(),
            bytes: 0,
            last: 0,
            ended: false,
            _client: client,
        })
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Whether all that came behind `point` is here, and this one may have it.
    pub(super) fn goes_on(&self, point: &Point, who: &clients::Who, wish: &Wish) -> bool {
        let first = self.ring.front().map_or(self.last + 1, |told| told.number);
        self.who == *who
            && self.wish.topics == wish.topics
            && self.wish.form == wish.form
            && (first - 1..=self.last).contains(&point.number)
    }

    /// The id of the event made last.
    pub(super) fn id(&self) -> String {
        let mut id = String::new();
        let cursors = self.topics.iter().map(|topic| topic.cursor.as_ref());
        point::put(&mut id, &self.key, self.last, cursors);
        id
    }

    /// Whether what comes is all that there is to tell: it did not begin in the past.
    pub(super) fn begins_now(&self) -> bool {
        self.wish.options.start == StartAt::New
    }

    /// For each topic: its pattern, and how many of its messages are behind event `number`.
    pub(super) fn waiting(&self, number: u64) -> Vec<(&str, usize)> {
        let mut counts = vec![0; self.topics.len()];
        for told in self.ring.iter().filter(|told| told.is_message && told.number > number) {
            counts[told.topic] += 1;
        }
        self.wish.topics.iter().map(String::as_str).zip(counts).collect()
    }

    /// Whether it ended and there is nothing behind event `number`.
    pub(super) fn is_over(&self, number: u64) -> bool {
        self.ended && number >= self.last
    }

    /// Whether nothing more will be made.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The events behind `number`, together at least one of them and not many more bytes than `most`; and
    /// the number of the last.
    pub(super) fn after(&mut self, number: u64, most: usize) -> Option<(u64, Bytes)> {
        let from = self.ring.partition_point(|told| told.number <= number);
        let first = self.ring.get(from)?;
        let (mut through, mut text) = (first.number, first.text.clone());
        if self.ring.len() > from + 1 && text.len() < most {
            let mut joined = Vec::with_capacity(most.min(self.bytes));
            for told in self.ring.range(from..) {
                if !joined.is_empty() && joined.len() + told.text.len() > most {
                    break;
                }
                joined.extend_from_slice(&told.text);
                through = told.number;
            }
            text = joined.into();
        }
        self.forget(through);
        Some((through, text))
    }

    /// Forgets the oldest of the events up to `number` that need not be kept.
    fn forget(&mut self, number: u64) {
        while let Some(first) = self.ring.front()
            && first.number <= number
            && (self.ring.len() > TOLD || self.bytes > TOLD_BYTES)
        {
            self.bytes -= first.text.len();
            self.ring.pop_front();
        }
    }

    /// Makes events of what has come, as long as there are fewer than `most` bytes behind event `number`.
    /// Pending: nothing more has come.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>, number: u64, most: usize) -> Poll<()> {
        let mut made = 0;
        let mut idle = 0;
        while !self.ended && made < most && idle < self.topics.len() {
            let at = self.turn % self.topics.len();
            self.turn = at + 1;
            match Pin::new(&mut self.topics[at].subscription).poll_next(cx) {
                Poll::Pending => idle += 1,
                Poll::Ready(received) => {
                    idle = 0;
                    made += self.take(at, received);
                }
            }
        }
        match made > 0 || self.is_over(number) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Collects what comes while nobody reads, until that is enough or the end.
    fn poll_collected(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.ended {
                return Poll::Ready(());
            }
            if self.ring.len() >= COLLECTED || self.bytes >= COLLECTED_BYTES {
                return Poll::Pending;
            }
            std::task::ready!(self.poll_more(cx, self.last, 1));
        }
    }

    /// Makes an event of an item, and says how many bytes it has.
    fn take(&mut self, at: usize, received: Option<Received>) -> usize {
        match received {
            Some(Received::Message(message)) => {
                // A reader of events cannot answer: nobody shall take it for a responder.
                message.decline();
                if message.cursor.is_some() {
                    self.topics[at].cursor.clone_from(&message.cursor);
                }
                self.tell_message(at, &message)
            }
            Some(Received::Gap(gap)) => self.tell(at, false, "gap", &frame::gap(&gap)),
            Some(Received::Resumed(replayed)) => {
                let data = resumed(&self.wish.topics[at], replayed as usize);
                self.tell(at, false, "resumed", &data)
            }
            Some(Received::Closed(error)) => self.close(at, &error),
            None => self.close(at, &Error::new(ErrorKind::Closed, "the subscription has ended")),
        }
    }

    fn tell_message(&mut self, at: usize, message: &Message) -> usize {
        if self.wish.form == Form::Message {
            return self.tell(at, true, "message", &frame::message(message));
        }
        #[derive(serde::Deserialize)]
        struct Named<'a> {
            event: std::borrow::Cow<'a, str>,
        }
        let bytes = &message.payload.bytes;
        let text = String::from_utf8_lossy(bytes);
        match serde_json::from_slice::<Named<'_>>(bytes) {
            Ok(named) => self.tell(at, true, &named.event, &text),
            // No event of a document.
            Err(_) => 0,
        }
    }

    fn close(&mut self, at: usize, error: &Error) -> usize {
        let data = serde_json::json!({
            "topic": self.wish.topics[at],
            "code": error.code(),
            "message": error.message(),
        });
        self.ended = true;
        self.tell(at, false, "closed", &data.to_string())
    }

    fn tell(&mut self, topic: usize, is_message: bool, name: &str, data: &str) -> usize {
        self.last += 1;
        let id = self.id();
        let mut text = String::with_capacity(data.len() + id.len() + name.len() + 32);
        frame::put(&mut text, name, &id, data);
        let length = text.len();
        self.bytes += length;
        let told = Told { number: self.last, topic, is_message, text: text.into() };
        self.ring.push_back(told);
        length
    }
}

/// What `resumed` says.
pub(super) fn resumed(topic: &str, replayed: usize) -> String {
    serde_json::json!({ "topic": topic, "replayed": replayed }).to_string()
}

/// Where a channel is; whoever resumes its stream takes it out.
pub(super) struct Slot {
    channel: Mutex<Option<Channel>>,
    taken: Notify,
}

impl Slot {
    pub(super) fn new(channel: Channel) -> Slot {
        Slot { channel: Mutex::new(Some(channel)), taken: Notify::new() }
    }

    pub(super) fn take_if(&self, may: impl FnOnce(&Channel) -> bool) -> Option<Channel> {
        let taken = self.channel.lock().take_if(|channel| may(channel));
        if taken.is_some() {
            self.taken.notify_waiters();
        }
        taken
    }

    /// Lends the channel, if it is still here.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Channel) -> T) -> Option<T> {
        self.channel.lock().as_mut().map(act)
    }

    /// Collects what comes until the channel is taken or has ended.
    pub(super) async fn collect(&self) {
        let taken = self.taken.notified();
        let collected = std::future::poll_fn(|cx| {
            self.with(|channel| channel.poll_collected(cx)).unwrap_or(Poll::Ready(()))
        });
        tokio::select! {
            () = taken => {}
            () = collected => {}
        }
    }
}
