//! The face for host loops: synchronous, non-blocking, callable from any thread; everything that
//! takes time is told as an [`Event`](crate::Event) in a mailbox.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kps_proto::{
    Error, ErrorKind, Result,
    clock::Time,
    message::{Answer, ContentType, ReceiptLevel},
    options::{Cursor, SubscribeOptions},
    session::{Ledger, Moment},
};

use super::{ConnectOptions, Kept, desk::Desk, inner::Inner, outlets::NATIVE};
use crate::{
    events::{ClientKey, ClientState, MailboxRef, PublishOptions, Room, SubId, Target, To},
    net::{self, Health, LinkState, Transport},
    runtime,
};

/// How long a client that is dropped without `close` goes on flushing in the background.
const FAREWELL: Duration = Duration::from_secs(5);

/// Whether the caller will call [`Bridge::flush_now`] soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushHint {
    /// It will not: send as soon as possible.
    Now,
    /// It will, at the end of its loop's tick.
    Later,
}

/// What became of what was published, when a client closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// Messages accepted by the server during the close.
    pub flushed: u64,
    /// Messages kept on disk for the next start.
    pub kept: u64,
    /// Ids of the messages given up.
    pub abandoned: Vec<String>,
}

/// A cheap handle of a client, for host loops. The client closes when it is [closed](Self::close)
/// or its last handle is dropped.
///
/// In a forked child the first use makes a new client from the same options: a new session, a new id
/// unless one was asked for, its own connection. Subscriptions, and what was queued, stay with the
/// parent.
#[derive(Clone, Debug)]
pub struct Bridge(Arc<Shared>);

/// A handle that does not keep the client.
#[derive(Clone, Debug)]
pub(crate) struct WeakBridge(Weak<Shared>);

impl WeakBridge {
    /// The client, unless it is gone.
    pub(crate) fn upgrade(&self) -> Option<Bridge> {
        self.0.upgrade().map(Bridge)
    }
}

struct Shared {
    key: ClientKey,
    options: Arc<ConnectOptions>,
    transport: Arc<dyn Transport>,
    /// Of this process, or of the one that it was forked from.
    inner: AtomicPtr<Arc<Inner>>,
    closed: AtomicBool,
}

impl Bridge {
    /// Starts connecting and returns at once.
    ///
    /// # Errors
    /// `invalid_argument` for a wrong URL; `store_failed` or `store_corrupt` for the outbox' file.
    pub fn start(options: ConnectOptions) -> Result<Bridge> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let transport = match &options.transport {
            Some(injected) => injected.clone(),
            None => net::transport(&options.url)?,
        };
        let key = ClientKey(NEXT.fetch_add(1, Ordering::Relaxed));
        let options = Arc::new(options);
        let inner = Inner::start(key, options.clone(), transport.clone())?;
        let inner = AtomicPtr::new(Box::into_raw(Box::new(inner)));
        let closed = AtomicBool::new(false);
        Ok(Bridge(Arc::new(Shared { key, options, transport, inner, closed })))
    }

    /// Waits for the first handshake, at most [`ConnectOptions::timeout`].
    ///
    /// # Errors
    /// Why the last attempt failed: `connect_failed`, `unauthorized`, `id_in_use`, …; `timeout` if
    /// the server took the connection but did not answer; `closed`.
    pub async fn ready(&self) -> Result<()> {
        let mut status = self.inner().status.subscribe();
        let settled = status.wait_for(|status| {
            matches!(status.state, ClientState::Connected | ClientState::Closed)
        });
        let settled = runtime::timeout(self.0.options.timeout, settled).await;
        let settled = settled.and_then(Result::ok).map(|status| status.clone());
        let error = match settled {
            Some(status) if status.state == ClientState::Connected => return Ok(()),
            Some(status) => status
                .error
                .unwrap_or_else(|| Error::new(ErrorKind::Closed, "the client was closed")),
            None => self.inner().status.borrow().error.clone().unwrap_or_else(|| {
                let sentence =
                    format!("no handshake with {} within the timeout", self.0.options.url);
                Error::new(ErrorKind::Timeout, sentence)
            }),
        };
        Err(error)
    }

    /// This client's number in mailbox items.
    pub fn key(&self) -> ClientKey {
        self.0.key
    }

    /// How it connects.
    pub fn options(&self) -> &ConnectOptions {
        &self.0.options
    }

    /// Makes `mailbox` known: events of this client may name it, and those that belong to nobody
    /// in particular (state, refused publishes) go to every attached mailbox. Cheap to
    /// repeat.
    pub fn attach(&self, mailbox: &MailboxRef) -> Target {
        self.inner().outlets.attach(mailbox)
    }

    /// Forgets it (its loop ended): its subscriptions end, and what they were handed and did not
    /// answer is answered with [`Answer::NoHandler`].
    pub fn detach(&self, mailbox: &MailboxRef) {
        let inner = self.inner();
        let ended = inner.outlets.detach(Target(mailbox.id()));
        inner.session(|session| ended.into_iter().for_each(|sub| session.abandon(sub)));
        inner.want_flush();
    }

    /// Has direct messages ([`SubId::DIRECT`]) come to `mailbox`; without a call the first
    /// attached one gets them.
    pub fn direct_to(&self, mailbox: &MailboxRef) {
        let inner = self.inner();
        inner.outlets.set_direct(inner.outlets.attach(mailbox));
    }

    /// Subscribes; `Event::Subscribed` or `Event::SubscribeFailed` follows in `mailbox`.
    ///
    /// # Errors
    /// `invalid_topic`, `invalid_argument`, `closed`.
    pub fn subscribe(
        &self,
        mailbox: &MailboxRef,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<SubId> {
        let target = self.attach(mailbox);
        self.subscribe_to(target, pattern, options, None)
    }

    /// `had`: there was a subscription like this before, in a session that is over, and it came as far as
    /// this cursor, if it had one.
    pub(super) fn subscribe_to(
        &self,
        target: Target,
        pattern: &str,
        options: SubscribeOptions,
        had: Option<Option<Cursor>>,
    ) -> Result<SubId> {
        let inner = self.inner();
        let sub = inner.session(|session| match had {
            None => session.subscribe(target, pattern, options),
            Some(cursor) => session.subscribe_again(target, pattern, options, cursor),
        })?;
        inner.outlets.subscribed(sub, target);
        inner.flush(runtime::now());
        Ok(sub)
    }

    /// Ends a subscription; `Event::Unsubscribed` follows.
    ///
    /// # Errors
    /// `not_found` if it has ended already, `invalid_argument` for [`SubId::DIRECT`].
    pub fn unsubscribe(&self, sub: SubId) -> Result<()> {
        let inner = self.inner();
        inner.with_session(|session, events| session.unsubscribe(sub, events))?;
        inner.outlets.unsubscribed(sub);
        inner.flush(runtime::now());
        Ok(())
    }

    /// `count` more messages of `sub` were handed to the handler and are done with.
    #[inline]
    pub fn consumed(&self, sub: SubId, count: u64, hint: FlushHint) {
        let inner = self.inner();
        let credit = inner.session(|session| {
            session.consumed(sub, count);
            let credit = session.has_output();
            if !credit {
                inner.check_deadline(session);
            }
            credit
        });
        if credit {
            inner.queued(CREDIT, hint);
        }
    }

    /// Answers a message that has a `delivery`, once. An answer that nobody waits for any more
    /// (timed out, cancelled, the connection was lost) is dropped: its row said so to the publisher.
    ///
    /// # Errors
    /// `payload_too_large` (it can still be answered).
    #[inline]
    pub fn answer(&self, delivery: u64, answer: Answer, hint: FlushHint) -> Result<()> {
        let inner = self.inner();
        match inner.session(|session| session.answer(delivery, &answer)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            answered => answered?,
        }
        let bytes = match &answer {
            Answer::Acked(payload) => payload.bytes.len(),
            _ => 0,
        };
        inner.queued(CREDIT + bytes, hint);
        Ok(())
    }

    /// Queues a message, sends as `hint` says, and returns the publish's number: 1, 2, 3, …
    /// A receipt level of `accepted` or more is [watched](Self::watch).
    ///
    /// # Errors
    /// Nothing is queued on `outbox_full`, `payload_too_large`, `invalid_topic`,
    /// `invalid_argument`, `receipt_unavailable`, `limit_exceeded`, `closed`, and for options that this
    /// server or moment does not allow on `unsupported` and `not_connected`. A later refusal is an
    /// `Event::PublishFailed`.
    #[inline]
    pub fn publish(
        &self,
        to: To<'_>,
        content_type: ContentType,
        payload: &[u8],
        options: PublishOptions<'_>,
        hint: FlushHint,
    ) -> Result<u64> {
        let inner = self.inner();
        // Only what expires needs the time.
        let expires = options.ack.is_some() || options.extras.is_some();
        let now = if expires { runtime::now() } else { Time::ZERO };
        let mut pressed = false;
        let number = inner.session(|session| {
            if options.ack.is_some() {
                let number = session.publish(now, to, content_type, payload, &options)?;
                inner.check_deadline(session);
                pressed = session.owes_pressure();
                return Ok(number);
            }
            // Who waits for answers waits in this process: only the rest outlives it.
            let Some(disk) = &inner.disk else {
                let number = session.publish(now, to, content_type, payload, &options)?;
                inner.check_dropped(session);
                pressed = session.owes_pressure();
                return Ok(number);
            };
            disk.check()?;
            let number = session.publish(now, to, content_type, payload, &options)?;
            disk.keep(number, to, content_type, payload, &options, session);
            inner.check_dropped(session);
            pressed = session.owes_pressure();
            Ok(number)
        })?;
        if pressed {
            // Its driver tells it: whoever calls this may hold what a listener needs.
            inner.bell.ring();
        }
        inner.queued(HEADER + payload.len(), hint);
        Ok(number)
    }

    /// Whether every accepted publish is told as `Event::MessagePublished` from now on.
    pub fn tell_published(&self, on: bool) {
        self.inner().session(|session| session.tell_published(on));
    }

    /// Asks for `Event::Receipt` (or `PublishFailed`) in `target`. True, and no event, if the
    /// publish has reached `level` already.
    ///
    /// # Errors
    /// `receipt_unavailable`, or why the publish failed.
    pub fn watch(&self, number: u64, level: ReceiptLevel, target: Target) -> Result<bool> {
        let inner = self.inner();
        let reached = inner.session(|session| session.watch(number, level, target))?;
        if !reached {
            inner.queued(CREDIT, FlushHint::Later);
        }
        Ok(reached)
    }

    /// Asks for one `Event::Room` in `target` when the outbox is below its soft bound. True, and no
    /// event, if it is already.
    pub fn watch_room(&self, target: Target) -> bool {
        self.inner().session(|session| session.watch_room(target))
    }

    /// Stops waiting for the rows, or the outcome, of publish `number`; rows end as cancelled.
    pub fn cancel_ack(&self, number: u64) {
        let inner = self.inner();
        inner.with_session(|session, events| session.cancel_ack(number, events));
        inner.queued(CREDIT, FlushHint::Later);
    }

    /// The id under which subscribers see the publish with this number, unless it was given one.
    pub fn message_id(&self, number: u64) -> String {
        self.inner().session(|session| session.message_id(number))
    }

    /// Sends what `FlushHint::Later` left waiting.
    #[inline]
    pub fn flush_now(&self) {
        self.inner().flush(runtime::now());
    }

    /// Asks for `Event::Flushed` with the returned token in `mailbox` when everything published so
    /// far is accepted or refused. It comes as an event in any case.
    pub fn flush_event(&self, mailbox: &MailboxRef) -> u64 {
        let target = self.attach(mailbox);
        let (token, done) = self.flush_to(target);
        if let Some(result) = done {
            let event = crate::Event::Flushed { token, error: result.err() };
            mailbox.push(crate::Item { client: self.0.key, event });
        }
        token
    }

    /// The token, and the outcome if it is known at once.
    pub(super) fn flush_to(&self, target: Target) -> (u64, Option<Result<()>>) {
        let inner = self.inner();
        let (token, done) = inner.session(|session| {
            let token = inner.outlets.flushing(target);
            let done = match session.flush(target) {
                Ok(false) => None,
                Ok(true) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            };
            if done.is_some() {
                inner.outlets.not_flushing(token);
            }
            (token, done)
        });
        inner.flush(runtime::now());
        (token, done)
    }

    /// What a room above keeps with this client, in this process.
    pub(crate) fn annex<T: Kept>(&self, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        self.inner().annex.get(make)
    }

    /// The operations on a document that are kept on disk, if there is such an outbox and nobody else has the
    /// document open. They are this one's until it [lets go](Self::unclaim_drafts).
    pub(crate) fn claim_drafts(&self, document: &str) -> Option<Vec<Bytes>> {
        self.inner().disk.as_ref()?.claim(document)
    }

    /// Whoever opens the document next is given what is kept of it.
    pub(crate) fn unclaim_drafts(&self, document: &str) {
        if let Some(disk) = &self.inner().disk {
            disk.unclaim(document);
        }
    }

    /// Keeps an operation on a document on disk.
    ///
    /// Errors: `store_failed`.
    pub(crate) fn keep_draft(
        &self,
        document: &str,
        op_id: &Arc<str>,
        operation: Bytes,
    ) -> Result<()> {
        self.inner()
            .disk
            .as_ref()
            .map_or(Ok(()), |disk| disk.keep_draft(document, op_id, operation))
    }

    /// It need not be kept any more.
    pub(crate) fn forget_draft(&self, op_id: &str) {
        if let Some(disk) = &self.inner().disk {
            disk.forget_draft(op_id);
        }
    }

    /// A handle that does not keep the client.
    pub(crate) fn downgrade(&self) -> WeakBridge {
        WeakBridge(Arc::downgrade(&self.0))
    }

    /// Bytes of a payload that the server takes.
    pub(crate) fn max_payload(&self) -> usize {
        self.inner().session(|session| session.max_payload())
    }

    /// Flushes, says goodbye, and reports; returns within `timeout` and a little for the goodbye.
    pub async fn close(&self, timeout: Duration) -> CloseReport {
        self.0.closed.store(true, Ordering::Relaxed);
        // What it offers ends first: its last answers are among what is flushed.
        let _ = runtime::timeout(timeout / 2, self.inner().annex.close()).await;
        let report = self.inner().begin_close(timeout);
        report.await.unwrap_or_default()
    }

    /// How full the outbox is.
    #[inline]
    pub fn room(&self) -> Room {
        self.inner().session(|session| session.room())
    }

    /// Where the connection stands.
    pub fn state(&self) -> ClientState {
        self.inner().session(|session| session.state())
    }

    /// The id; `None` before the first handshake if the server makes it.
    pub fn id(&self) -> Option<String> {
        let id = self.inner().session(|session| session.id().to_owned());
        (!id.is_empty()).then_some(id)
    }

    /// What became of every message, counted.
    pub fn ledger(&self) -> Ledger {
        self.inner().session(|session| session.ledger())
    }

    /// The last things that happened, oldest first, each with how long ago it was.
    pub fn timeline(&self) -> Vec<(Duration, Moment)> {
        let now = runtime::now();
        let moment = |moment: &Moment| (now.since(moment.at), moment.clone());
        self.inner().session(|session| session.timeline().map(moment).collect())
    }

    /// What the present link carried; `None` while there is none.
    pub fn health(&self) -> Option<Health> {
        let link = self.inner().link().filter(|link| link.state() == LinkState::Open)?;
        Some(link.health())
    }

    /// Uses another token from now on.
    pub fn set_token(&self, token: String) {
        let inner = self.inner();
        inner.session(|session| session.set_token(token));
        inner.flush(runtime::now());
    }

    /// Where the Rust face waits.
    pub(super) fn desk(&self) -> &Desk {
        &self.inner().desk
    }

    pub(super) fn direct_to_native(&self) {
        self.inner().outlets.set_direct(NATIVE);
    }

    #[inline]
    fn inner(&self) -> &Arc<Inner> {
        let pointer = self.0.inner.load(Ordering::Acquire);
        // SAFETY: it came from a box, and is never freed while a `Bridge` exists: a replaced one
        // is leaked.
        let inner = unsafe { &*pointer };
        if inner.generation == runtime::generation() { inner } else { self.begin_again(pointer) }
    }

    /// In a forked child: what the parent had is leaked untouched, because dropping it would take
    /// locks, and write to sockets, that are the parent's.
    #[cold]
    fn begin_again(&self, parents: *mut Arc<Inner>) -> &Arc<Inner> {
        let shared = &*self.0;
        // The parent lives on under its id: the server makes another one for the child.
        // So does its outbox' file.
        let options = (*shared.options).clone();
        let options = Arc::new(ConnectOptions { id: None, outbox: None, ..options });
        let inner = Inner::start(shared.key, options, shared.transport.clone())
            .expect("it started once with the same options");
        if shared.closed.load(Ordering::Relaxed) {
            inner.end_session(runtime::now());
            drop(inner.begin_close(Duration::ZERO));
        }
        let own = Box::into_raw(Box::new(inner));
        let order = (Ordering::AcqRel, Ordering::Acquire);
        match shared.inner.compare_exchange(parents, own, order.0, order.1) {
            // SAFETY: as in `inner`.
            Ok(_) => unsafe { &*own },
            Err(others) => {
                // SAFETY: `own` was not shared yet; `others` as in `inner`.
                let (own, others) = unsafe { (Box::from_raw(own), &*others) };
                drop(own.begin_close(Duration::ZERO));
                others
            }
        }
    }
}

/// About what the frames beside a payload take, in bytes.
const HEADER: usize = 32;
const CREDIT: usize = 16;

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the last handle is gone, so nobody else has the pointer.
        let inner = unsafe { Box::from_raw(*self.inner.get_mut()) };
        if inner.generation == runtime::generation() {
            drop(inner.begin_close(FAREWELL));
        } else {
            std::mem::forget(inner);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("key", &self.key.0).field("url", &self.options.url).finish()
    }
}
