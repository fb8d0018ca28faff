//! What all handles of a client share: the session, and the way its bytes take to the link.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use kps_proto::{
    Error, Result,
    clock::Time,
    session::{Backoff, Events, OutboxBounds, Session, SessionConfig, State},
};
use tokio::sync::{oneshot, watch};

use super::{
    CloseReport, ConnectOptions, FlushHint,
    annex::Annex,
    bell::Bell,
    desk::Desk,
    disk::Disk,
    driver::Driver,
    lock::Lock,
    outlets::{CLOSING, EVERYBODY, Outlets},
};
use crate::{
    events::ClientKey,
    net::{BoxFuture, Connection, Sent, Transport},
    runtime,
};

/// Bytes of one WebSocket message: large enough to make its cost per frame vanish, small enough to
/// stay in the cache.
const BATCH: usize = 64 << 10;

/// A promised flush is not waited for when so many bytes wait: the server could be working.
const ENOUGH: usize = 32 << 10;

/// A link that was not written to for so long is idle: the next publish is written at once.
const IDLE: Duration = Duration::from_micros(100);

/// How long a promised flush may stay away before the runtime thread does it.
pub(super) const PROMISE: Duration = Duration::from_micros(500);

pub(super) struct Inner {
    pub(super) key: ClientKey,
    pub(super) generation: u32,
    pub(super) options: Arc<ConnectOptions>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) outlets: Outlets,
    pub(super) desk: Desk,
    pub(super) bell: Bell,
    /// The driver is to write what waits at once.
    pub(super) wanted: AtomicBool,
    /// A flush was promised; the driver looks after it. Set again only after it did.
    pub(super) promised: AtomicBool,
    /// The link does not take more until the driver says so.
    pub(super) blocked: AtomicBool,
    /// When the driver's timer fires, in microseconds.
    pub(super) armed: AtomicU64,
    pub(super) status: watch::Sender<Status>,
    session: Lock<Session>,
    /// The outbox' copy on disk, if one is wanted.
    pub(super) disk: Option<Disk>,
    writer: Lock<Writer>,
    /// Something was queued since the writer last looked.
    dirty: AtomicBool,
    /// When the link was last written to, in microseconds.
    written: AtomicU64,
    /// Bytes queued since then, roughly.
    queued: AtomicUsize,
    closing: Lock<Closing>,
    /// Mirrors that `closing` wants something of the driver.
    is_closing: AtomicBool,
    pub(super) annex: Annex,
}

#[derive(Default)]
struct Writer {
    link: Option<Arc<dyn Connection>>,
    batch: BytesMut,
    /// Sending failed; the link's end is the reader's to find, after what the server said last.
    failed: Option<Error>,
}

/// The connection as those see it who wait for it.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) state: State,
    /// Why the last attempt failed, or why it is over.
    pub(super) error: Option<Error>,
}

#[derive(Default)]
struct Closing {
    deadline: Option<Time>,
    flushed: bool,
    accepted_before: u64,
    waiters: Vec<oneshot::Sender<CloseReport>>,
    report: Option<CloseReport>,
}

impl Inner {
    pub(super) fn start(
        key: ClientKey,
        options: Arc<ConnectOptions>,
        transport: Arc<dyn Transport>,
    ) -> Result<Arc<Inner>> {
        let config = SessionConfig {
            id: options.id.clone(),
            token: options.token.clone(),
            namespace: options.namespace.clone().unwrap_or_default(),
            agent: options.agent.clone(),
            target: EVERYBODY,
            outbox: OutboxBounds {
                soft_bytes: options.outbox_soft,
                hard_bytes: options.outbox_hard,
                overflow: options.outbox_overflow,
                ..OutboxBounds::default()
            },
            outbox_on_disk: options.outbox.is_some(),
            backoff: Backoff {
                reconnect: options.reconnect,
                min: options.reconnect_min,
                max: options.reconnect_max,
            },
            handshake_timeout: options.attempt(),
        };
        let seed = getrandom::u64().map_err(|error| {
            let sentence = format!("the system gives no random numbers: {error}");
            Error::new(kps_proto::ErrorKind::Internal, sentence)
        })?;
        let mut session = Session::new(config, seed);
        let disk = options.outbox.as_deref();
        let disk = disk.map(|path| Disk::open(path, &mut session)).transpose()?;
        let inner = Arc::new(Inner {
            key,
            generation: runtime::generation(),
            options,
            transport,
            outlets: Outlets::default(),
            desk: Desk::default(),
            bell: Bell::default(),
            wanted: AtomicBool::new(false),
            promised: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            armed: AtomicU64::new(0),
            status: watch::Sender::new(Status { state: State::Connecting, error: None }),
            session: Lock::new(session),
            disk,
            writer: Lock::default(),
            dirty: AtomicBool::new(false),
            written: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            closing: Lock::default(),
            is_closing: AtomicBool::new(false),
            annex: Annex::default(),
        });
        if let Some(disk) = &inner.disk {
            disk.set_owner(Arc::downgrade(&inner));
        }
        runtime::close_at_exit(Arc::downgrade(&(inner.clone() as Arc<dyn runtime::Exit>)));
        runtime::spawn(Driver::new(inner.clone()));
        Ok(inner)
    }

    /// Runs `with` on the session and tells everybody what came of it.
    pub(super) fn with_session<T>(&self, with: impl FnOnce(&mut Session, &mut Events) -> T) -> T {
        let mut events = Events::new();
        let result = self.session(|session| with(session, &mut events));
        self.deliver(&mut events);
        result
    }

    /// Runs `with` on the session, where it cannot cause events.
    pub(super) fn session<T>(&self, with: impl FnOnce(&mut Session) -> T) -> T {
        let mut session = self.session.lock();
        let result = with(&mut session);
        if let Some(disk) = &self.disk {
            disk.release(session.released());
            session.take_given_up().into_iter().for_each(|number| disk.forget(number));
        }
        result
    }

    /// Hands `events` to whom they are for.
    pub(super) fn deliver(&self, events: &mut Events) {
        if events.is_empty() {
            return;
        }
        for (target, event) in &*events {
            use kps_proto::session::Event as E;
            match event {
                E::State { state, error, .. } => {
                    let (state, error) = (*state, error.clone());
                    tracing::debug!(
                        client = self.key.0,
                        state = state.as_str(),
                        error = error.as_ref().map(tracing::field::display),
                        "connection"
                    );
                    self.status.send_replace(Status { state, error });
                }
                E::Flushed { .. } if *target == CLOSING => self.closing.lock().flushed = true,
                _ => {}
            }
        }
        let orphans = self.outlets.deliver(self.key, &self.desk, events);
        if orphans.is_empty() {
            return;
        }
        let mut session = self.session.lock();
        for orphan in orphans {
            if orphan.message {
                session.consumed(orphan.sub, 1);
            }
            session.abandon(orphan.sub);
        }
        drop(session);
        self.want_flush();
    }

    /// After `bytes` more were queued: sends them when it is the right time. In a burst the clock is
    /// not asked, for that costs as much as half a publish.
    #[inline]
    pub(super) fn queued(&self, bytes: usize, hint: FlushHint) {
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        if self.blocked.load(Ordering::Relaxed) {
            // The driver goes on as soon as the link takes more.
            return;
        }
        if before == 0 {
            let (now, written) = (runtime::now(), self.written.load(Ordering::Relaxed));
            if now.since(Time::from_micros(written)) > IDLE {
                return self.flush(now);
            }
        }
        match hint {
            _ if before + bytes >= ENOUGH => self.flush(runtime::now()),
            FlushHint::Now => self.want_flush(),
            FlushHint::Later => self.promise(),
        }
    }

    /// Has the driver write what waits.
    pub(super) fn want_flush(&self) {
        self.wanted.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// A flush will be asked for; in case it is not, the driver is told.
    #[inline]
    pub(super) fn promise(&self) {
        if !self.promised.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
    }

    /// Writes what waits to the link, as far as it takes it, unless another thread is at it already:
    /// then that one goes on.
    pub(super) fn flush(&self, now: Time) {
        self.dirty.store(true, Ordering::SeqCst);
        while self.dirty.load(Ordering::SeqCst) {
            let Some(mut writer) = self.writer.try_lock() else { return };
            self.dirty.store(false, Ordering::SeqCst);
            if !self.blocked.load(Ordering::Relaxed) {
                self.write(&mut writer, now);
            }
        }
    }

    fn write(&self, writer: &mut Writer, now: Time) {
        let Writer { link: Some(link), batch, failed: failed @ None } = writer else { return };
        loop {
            batch.clear();
            let more = self.session.lock().transmit(now, BATCH, batch);
            if batch.is_empty() {
                break;
            }
            self.written.store(now.as_micros(), Ordering::Relaxed);
            self.queued.store(0, Ordering::Relaxed);
            match link.send(batch) {
                Ok(Sent::All) => {}
                Ok(Sent::Blocked) => {
                    self.blocked.store(true, Ordering::Relaxed);
                    self.bell.ring();
                    break;
                }
                Err(error) => {
                    *failed = Some(error);
                    self.bell.ring();
                    break;
                }
            }
            if !more {
                break;
            }
        }
        if batch.capacity() > 2 * BATCH {
            *batch = BytesMut::new();
        }
    }

    /// The link to write to from now on.
    pub(super) fn set_link(&self, link: Option<Arc<dyn Connection>>) {
        let mut writer = self.writer.lock();
        *writer = Writer { link, ..Writer::default() };
        self.blocked.store(false, Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
    }

    /// Why sending failed, if it did.
    pub(super) fn send_error(&self) -> Option<Error> {
        self.writer.lock().failed.clone()
    }

    pub(super) fn link(&self) -> Option<Arc<dyn Connection>> {
        self.writer.lock().link.clone()
    }

    /// Has the driver look at its deadline again if `session`'s is earlier than it knows.
    pub(super) fn check_deadline(&self, session: &Session) {
        if session.deadline().is_some_and(|at| at.as_micros() < self.armed.load(Ordering::Relaxed))
        {
            self.bell.ring();
        }
    }

    /// Has the driver tell of messages that a full outbox dropped.
    #[inline]
    pub(super) fn check_dropped(&self, session: &Session) {
        if session.has_dropped() {
            self.bell.ring();
        }
    }

    /// Flushes within `timeout`, then ends. Further calls may shorten the time.
    pub(super) fn begin_close(&self, timeout: Duration) -> oneshot::Receiver<CloseReport> {
        let (waiter, report) = oneshot::channel();
        let mut closing = self.closing.lock();
        if let Some(report) = &closing.report {
            // The receiver is right here.
            let _ = waiter.send(report.clone());
        } else {
            closing.waiters.push(waiter);
            let deadline = runtime::now() + timeout;
            match &mut closing.deadline {
                Some(earlier) => *earlier = deadline.min(*earlier),
                first @ None => {
                    *first = Some(deadline);
                    let mut session = self.session.lock();
                    closing.accepted_before = session.ledger().published.accepted;
                    // Closed already: nothing to wait for.
                    closing.flushed = session.flush(CLOSING).unwrap_or(true);
                }
            }
            self.is_closing.store(true, Ordering::Release);
        }
        drop(closing);
        self.flush(runtime::now());
        self.bell.ring();
        report
    }

    /// Until when a wanted close may take.
    pub(super) fn close_deadline(&self) -> Option<Time> {
        if !self.is_closing.load(Ordering::Acquire) {
            return None;
        }
        self.closing.lock().deadline
    }

    /// Whether a wanted close has nothing left to wait for.
    pub(super) fn may_end(&self, now: Time) -> bool {
        let Some(deadline) = self.close_deadline() else { return false };
        if deadline <= now {
            return true;
        }
        self.closing.lock().flushed && !self.blocked.load(Ordering::Relaxed) && {
            let session = self.session.lock();
            session.state() != State::Connected || !session.has_output()
        }
    }

    /// Ends the session and notes what became of it.
    pub(super) fn end_session(&self, now: Time) {
        let mut events = Events::new();
        let report = {
            let mut closing = self.closing.lock();
            let mut session = self.session.lock();
            let accepted = session.ledger().published.accepted;
            if let Some(disk) = &self.disk {
                disk.seal();
            }
            let left = session.close(now, &mut events).abandoned;
            let is_kept = |number| self.disk.as_ref().is_some_and(|disk| disk.holds(number));
            let (kept, abandoned): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|(number, _)| is_kept(*number));
            let abandoned: Vec<String> = abandoned.into_iter().map(|(_, id)| id).collect();
            let flushed = match closing.deadline {
                Some(_) => accepted.saturating_sub(closing.accepted_before),
                None => 0,
            };
            let report = CloseReport { flushed, kept: kept.len() as u64, abandoned };
            closing.report = Some(report.clone());
            report
        };
        if !report.abandoned.is_empty() {
            tracing::warn!(
                client = self.key.0,
                abandoned = report.abandoned.len(),
                "closed with messages that the server did not accept"
            );
        }
        self.deliver(&mut events);
    }

    /// The link is gone too: whoever waits for the close is told.
    pub(super) fn ended(&self) {
        self.set_link(None);
        if let Some(disk) = &self.disk {
            disk.close();
        }
        let mut closing = self.closing.lock();
        let report = closing.report.clone().unwrap_or_default();
        let waiters = std::mem::take(&mut closing.waiters);
        drop(closing);
        for waiter in waiters {
            // Who gave up waiting does not want to know.
            let _ = waiter.send(report.clone());
        }
        self.outlets.clear();
    }
}

impl runtime::Exit for Inner {
    fn close(self: Arc<Self>, timeout: Duration) -> BoxFuture<'static, usize> {
        // Who closed it before has the report.
        let is_told = self.closing.lock().report.is_some();
        let report = self.begin_close(timeout);
        Box::pin(async move {
            if is_told {
                return 0;
            }
            report.await.map_or(0, |report| report.abandoned.len())
        })
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("key", &self.key).finish_non_exhaustive()
    }
}
