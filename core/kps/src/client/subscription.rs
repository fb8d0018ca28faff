//! A subscription as a stream.

use std::{
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use kps_proto::{
    Error, Result,
    message::{Answer, Gap, HandlerError, Message, Payload},
};
use serde::de::DeserializeOwned;

use super::{
    Bridge, FlushHint,
    desk::Feed,
    payload::{IntoPayload, from_json},
};
use crate::events::{Event, SubId};

/// A subscription's stream, in order: messages, and what is missing between them.
///
/// Asking for the next message acks the one before, unless it was answered. Dropping the
/// subscription ends it.
pub struct Subscription {
    bridge: Bridge,
    sub: SubId,
    feed: Arc<Feed>,
    /// The message that was handed out last, if its publisher waits.
    open: Vec<Arc<Reply>>,
    over: bool,
    /// A message counts as taken when it is answered.
    by_answers: bool,
}

/// One item of a [`Subscription`].
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(Delivered),
    /// Messages are missing here.
    Gap(Gap),
    /// After a reconnect, nothing is missing: so many messages follow that waited.
    Resumed(u64),
    /// The server ended the subscription, or the client was closed; the last item.
    Closed(Error),
}

/// A message, and the way to answer it. Reads like the [`Message`] it is.
#[derive(Clone, Debug)]
pub struct Delivered {
    message: Message,
    request: bool,
    reply: Option<Arc<Reply>>,
}

impl Subscription {
    pub(super) fn new(bridge: Bridge, sub: SubId, feed: Arc<Feed>) -> Self {
        Subscription { bridge, sub, feed, open: Vec::new(), over: false, by_answers: false }
    }

    /// From now on a message counts as taken when it is answered, so that the server sees how much every
    /// member of a group has to do.
    pub(crate) fn by_answers(mut self) -> Self {
        self.by_answers = true;
        self
    }

    /// The next item; `None` when the subscription has ended.
    pub async fn next(&mut self) -> Option<Received> {
        std::future::poll_fn(|cx| self.poll_received(cx)).await
    }

    /// The next message; news between messages is passed over. `None` when it has ended.
    pub async fn message(&mut self) -> Option<Delivered> {
        loop {
            match self.next().await? {
                Received::Message(message) => return Some(message),
                Received::Closed(_) => return None,
                Received::Gap(_) | Received::Resumed(_) => {}
            }
        }
    }

    /// All items that are there, at least one; `None` when it has ended.
    pub async fn batch(&mut self) -> Option<Vec<Received>> {
        let mut batch = vec![self.next().await?];
        batch.append(&mut self.waiting());
        Some(batch)
    }

    /// All items that are there.
    pub(crate) fn waiting(&mut self) -> Vec<Received> {
        let mut items = Vec::new();
        let mut open = std::mem::take(&mut self.open);
        for event in self.feed.take() {
            items.extend(self.received(event));
            open.append(&mut self.open);
        }
        self.open = open;
        items
    }

    /// Calls `handler` with each message until the subscription ends, `concurrency` at a time (at
    /// least one); what it returns is the answer. Starts in order. A handler is dropped when its
    /// publisher gives up.
    pub async fn serve<F, A, P, E>(mut self, concurrency: usize, mut handler: F)
    where
        F: FnMut(Delivered) -> A,
        A: Future<Output = Result<P, E>>,
        P: IntoPayload,
        E: fmt::Display,
    {
        let mut running: Vec<Running<A>> = Vec::new();
        let mut ended = false;
        std::future::poll_fn(|cx| {
            loop {
                // Nobody waits for these any more: their handlers stop where they are.
                let cancelled = self.feed.poll_cancelled(cx);
                running.retain(|handler| !cancelled.iter().any(|&it| handler.answers(it)));
                running.retain_mut(|handler| handler.poll(cx).is_pending());
                if running.len() >= concurrency.max(1) || ended {
                    return if ended && running.is_empty() {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    };
                }
                match self.poll_received(cx) {
                    Poll::Ready(Some(Received::Message(message))) => {
                        // The handler's answer is the only one.
                        self.open.clear();
                        let answer = Box::pin(handler(message.clone()));
                        running.push(Running { message, answer });
                    }
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => ended = true,
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    /// Ends the subscription; resolves when the server has confirmed it.
    pub async fn unsubscribe(mut self) {
        self.settle();
        // An error means that it has ended already.
        if self.bridge.unsubscribe(self.sub).is_ok() {
            while let Some(event) = self.feed.next().await {
                self.drop_event(&event);
            }
        }
        self.over = true;
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.settle();
        loop {
            match self.feed.poll_next(cx) {
                Poll::Ready(Some(event)) => {
                    if let Some(received) = self.received(event) {
                        return Poll::Ready(Some(received));
                    }
                }
                Poll::Ready(None) => {
                    self.over = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn received(&mut self, event: Event) -> Option<Received> {
        match event {
            Event::Message { message, delivery, request, .. } => {
                let owed = (self.by_answers && delivery.is_some()).then_some(self.sub);
                if owed.is_none() {
                    self.bridge.consumed(self.sub, 1, FlushHint::Now);
                }
                let reply = delivery.map(|delivery| {
                    let bridge = self.bridge.clone();
                    Arc::new(Reply { bridge, delivery, answered: AtomicBool::new(false), owed })
                });
                self.open.extend(reply.clone());
                Some(Received::Message(Delivered { message, request, reply }))
            }
            Event::CancelDelivery { .. } => {
                // In the place of a request that expired while it waited here.
                self.bridge.consumed(self.sub, 1, FlushHint::Now);
                None
            }
            Event::Gap { gap, .. } => Some(Received::Gap(gap)),
            Event::Resumed { replayed, .. } => Some(Received::Resumed(replayed)),
            Event::SubscriptionClosed { error, .. } => Some(Received::Closed(error)),
            _ => None,
        }
    }

    /// Acks what was handed out and not answered.
    fn settle(&mut self) {
        for reply in self.open.drain(..) {
            // Nobody may wait any more.
            let _ = reply.answer(Answer::Acked(Payload::json("null")));
        }
    }

    /// A message that will not be handed out.
    fn drop_event(&self, event: &Event) {
        if let Event::Message { delivery: Some(delivery), .. } = event {
            let _ = self.bridge.answer(*delivery, Answer::NoHandler, FlushHint::Now);
        }
    }
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.get_mut().poll_received(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for reply in self.open.drain(..) {
                let text = "the handler panicked".to_owned();
                let _ = reply.answer(Answer::Failed(HandlerError { kind: "panic".into(), text }));
            }
        }
        self.settle();
        if !self.over {
            self.bridge.desk().0.lock().feeds.remove(&self.sub);
            // It may have ended already.
            let _ = self.bridge.unsubscribe(self.sub);
            self.feed.take().iter().for_each(|event| self.drop_event(event));
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("sub", &self.sub).finish_non_exhaustive()
    }
}

impl Delivered {
    /// The payload's JSON as a value. Fails with `invalid_payload`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        from_json(&self.message.payload)
    }

    /// Whether its publisher waits for the first answer only.
    pub fn is_request(&self) -> bool {
        self.request
    }

    /// Whether anybody waits for an answer.
    pub fn wants_answer(&self) -> bool {
        self.reply.is_some()
    }

    /// Answers with `data`. Nothing happens if nobody waits for an answer (any more), or it was
    /// given.
    ///
    /// # Errors
    /// `invalid_payload`, `payload_too_large` (it can still be answered).
    pub fn respond(&self, data: impl IntoPayload) -> Result<()> {
        let payload = data.into_payload()?;
        self.reply.as_ref().map_or(Ok(()), |reply| reply.answer(Answer::Acked(payload)))
    }

    /// Says that there is nobody here who could answer.
    pub(crate) fn decline(&self) {
        if let Some(reply) = &self.reply {
            // Nobody may wait any more.
            let _ = reply.answer(Answer::NoHandler);
        }
    }

    /// Answers with an error: its type's name, and what it says.
    ///
    /// # Errors
    /// None today.
    pub fn fail(&self, kind: impl Into<String>, text: impl Into<String>) -> Result<()> {
        let error = HandlerError { kind: kind.into(), text: text.into() };
        self.reply.as_ref().map_or(Ok(()), |reply| reply.answer(Answer::Failed(error)))
    }

    /// As [`fail`](Self::fail); a message of a durable comes again after `delay`, at most a day, instead
    /// of after its subscription's `retry_delay`.
    ///
    /// # Errors
    /// `invalid_argument` for a longer delay (it can still be answered).
    pub fn fail_for(
        &self,
        delay: Duration,
        kind: impl Into<String>,
        text: impl Into<String>,
    ) -> Result<()> {
        let error = HandlerError { kind: kind.into(), text: text.into() };
        self.reply.as_ref().map_or(Ok(()), |reply| reply.answer(Answer::Retry(error, delay)))
    }

    /// The message alone.
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for Delivered {
    type Target = Message;
    fn deref(&self) -> &Message {
        &self.message
    }
}

/// A handler that works on its answer.
struct Running<A> {
    message: Delivered,
    answer: Pin<Box<A>>,
}

impl<A> Running<A> {
    fn answers(&self, delivery: u64) -> bool {
        self.message.reply.as_ref().is_some_and(|reply| reply.delivery == delivery)
    }

    fn poll<P: IntoPayload, E: fmt::Display>(&mut self, cx: &mut Context<'_>) -> Poll<()>
    where
        A: Future<Output = Result<P, E>>,
    {
        self.answer.as_mut().poll(cx).map(|result| {
            let done = match result {
                Ok(answer) => self.message.respond(answer),
                Err(error) => self.message.fail("Error", error.to_string()),
            };
            if let Err(error) = done {
                // The publisher must not wait for what cannot be said.
                let _ = self.message.fail(error.code(), error.message());
            }
        })
    }
}

impl<A> Drop for Running<A> {
    fn drop(&mut self) {
        // Nothing happens if it answered.
        let _ = self.message.fail("cancelled", "the handler was stopped before it ended");
    }
}

#[derive(Debug)]
struct Reply {
    bridge: Bridge,
    delivery: u64,
    answered: AtomicBool,
    /// The subscription whose message counts as taken with the answer.
    owed: Option<SubId>,
}

impl Reply {
    fn answer(&self, answer: Answer) -> Result<()> {
        if self.answered.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let result = self.bridge.answer(self.delivery, answer, FlushHint::Now);
        if result.as_ref().is_err_and(|error| error.kind() == kps_proto::ErrorKind::PayloadTooLarge)
        {
            self.answered.store(false, Ordering::Relaxed);
        } else if let Some(sub) = self.owed {
            self.bridge.consumed(sub, 1, FlushHint::Now);
        }
        result
    }
}
