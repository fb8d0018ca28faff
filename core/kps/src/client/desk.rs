//! Where the Rust face's events arrive, on the runtime thread: each goes to who waits for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use kps_proto::{
    Error, Result,
    message::{AckRow, ReceiptLevel},
};
use tokio::sync::oneshot;

use super::{ack::Table, lock::Lock};
use crate::events::{ClientState, Event, SubId};

#[derive(Default)]
pub(super) struct Desk(pub(super) Lock<Desks>);

/// Locked by whoever publishes until the wait is noted, so that no event can come before.
#[derive(Default)]
pub(super) struct Desks {
    pub(super) feeds: HashMap<SubId, Arc<Feed>>,
    pub(super) acks: HashMap<u64, Arc<Table>>,
    pub(super) requests: HashMap<u64, oneshot::Sender<Result<AckRow>>>,
    pub(super) receipts: HashMap<u64, oneshot::Sender<Result<ReceiptLevel>>>,
    pub(super) flushes: HashMap<u64, oneshot::Sender<Result<()>>>,
    pub(super) room: Vec<oneshot::Sender<()>>,
    pub(super) listeners: Vec<Weak<Feed>>,
}

impl Desk {
    /// Hands `event` to who waits for it; returns a message that nobody takes.
    pub(super) fn route(&self, event: Event) -> Option<Event> {
        let mut desks = self.0.lock();
        if is_news(&event) {
            desks.listeners.retain(|listener| {
                listener.upgrade().map(|listener| listener.push(event.clone())).is_some()
            });
        }
        match event {
            Event::Message { sub, .. }
            | Event::Gap { sub, .. }
            | Event::Resumed { sub, .. }
            | Event::Subscribed { sub } => match desks.feeds.get(&sub) {
                Some(feed) => feed.push(event),
                None => return Some(event),
            },
            Event::SubscribeFailed { sub, .. }
            | Event::SubscriptionClosed { sub, .. }
            | Event::Unsubscribed { sub } => {
                if let Some(feed) = desks.feeds.remove(&sub) {
                    feed.push(event);
                }
            }
            Event::Recipients { ack, clients } => {
                if let Some(table) = desks.acks.get(&ack) {
                    table.freeze(clients);
                }
            }
            Event::Row { ack, row } => {
                if let Some(table) = desks.acks.get(&ack) {
                    table.push(row);
                }
            }
            Event::AckDone { ack, error } => {
                if let Some(table) = desks.acks.remove(&ack) {
                    table.finish(error);
                }
            }
            Event::CancelDelivery { sub, delivery } => {
                if let Some(feed) = desks.feeds.get(&sub) {
                    feed.cancel(delivery);
                }
            }
            Event::RequestDone { ack, result } => tell(desks.requests.remove(&ack), result),
            Event::Receipt { number, level } => tell(desks.receipts.remove(&number), Ok(level)),
            Event::PublishFailed { number, error, .. } => {
                tell(desks.receipts.remove(&number), Err(error));
            }
            Event::Flushed { token, error } => {
                tell(desks.flushes.remove(&token), error.map_or(Ok(()), Err));
            }
            Event::Room => desks.room.drain(..).for_each(|waiter| tell(Some(waiter), ())),
            Event::State { state: ClientState::Closed, error, .. } => {
                // Whoever still waits finds out by what is dropped here.
                let ended = std::mem::take(&mut *desks);
                let error = error.unwrap_or_else(closed);
                for (sub, feed) in ended.feeds {
                    feed.push(Event::SubscriptionClosed { sub, error: error.clone() });
                }
                for table in ended.acks.into_values() {
                    table.finish(Some(error.clone()));
                }
            }
            _ => {}
        }
        None
    }
}

/// Whoever waited may have given up, and does not mind then.
fn tell<T>(waiter: Option<oneshot::Sender<T>>, outcome: T) {
    if let Some(waiter) = waiter {
        let _ = waiter.send(outcome);
    }
}

/// What [`Client::events`](super::Client::events) tells.
fn is_news(event: &Event) -> bool {
    matches!(
        event,
        Event::State { .. }
            | Event::PublishFailed { .. }
            | Event::OutboxFlushed { .. }
            | Event::Goaway { .. }
            | Event::MessagePublished { .. }
            | Event::Backpressure { .. }
            | Event::Error { .. }
    )
}

/// Events on their way to one reader.
#[derive(Debug, Default)]
pub(super) struct Feed(Lock<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    ended: bool,
    /// Deliveries that nobody waits for, if the reader wants to know.
    cancelled: Option<Vec<u64>>,
    reader: Option<Waker>,
}

impl Feed {
    fn push(&self, event: Event) {
        let mut waiting = self.0.lock();
        waiting.ended |= matches!(
            event,
            Event::SubscribeFailed { .. }
                | Event::SubscriptionClosed { .. }
                | Event::Unsubscribed { .. }
                | Event::State { state: ClientState::Closed, .. }
        );
        waiting.events.push_back(event);
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Nobody waits for the answer any more: a request that was not handed out will not be.
    fn cancel(&self, cancelled: u64) {
        let mut waiting = self.0.lock();
        for event in &mut waiting.events {
            if let Event::Message { sub, delivery, request: true, .. } = *event
                && delivery == Some(cancelled)
            {
                *event = Event::CancelDelivery { sub, delivery: cancelled };
                return;
            }
        }
        let Some(list) = &mut waiting.cancelled else { return };
        list.push(cancelled);
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The deliveries cancelled since the last call; the first asks for them to be noted.
    pub(super) fn poll_cancelled(&self, cx: &mut Context<'_>) -> Vec<u64> {
        let mut waiting = self.0.lock();
        waiting.reader = Some(cx.waker().clone());
        waiting.cancelled.replace(Vec::new()).unwrap_or_default()
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.0.lock().ended = true;
    }

    /// The next event; `None` when nothing more comes.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut waiting = self.0.lock();
        match waiting.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if waiting.ended => Poll::Ready(None),
            None => {
                waiting.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) async fn next(&self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// All that waits.
    pub(super) fn take(&self) -> VecDeque<Event> {
        std::mem::take(&mut self.0.lock().events)
    }
}

/// The outcome that a waiter gets; a client that is gone gives none.
pub(super) async fn outcome<T>(waiter: oneshot::Receiver<Result<T>>) -> Result<T> {
    waiter.await.unwrap_or_else(|_| Err(closed()))
}

pub(super) fn closed() -> Error {
    Error::new(kps_proto::ErrorKind::Closed, "the client is closed; connect a new one")
}
