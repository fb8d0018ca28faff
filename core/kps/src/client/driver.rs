//! The task on the runtime thread that looks after one client: it connects, reads, keeps the
//! session's time, and writes what others left.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use kps_proto::{
    Error, ErrorKind, Result,
    clock::Time,
    session::{Events, State},
};
use tokio::time::Sleep;

use super::inner::{Inner, PROMISE, Status};
use crate::{
    net::{BoxFuture, Connection},
    runtime,
};

pub(super) struct Driver {
    inner: Arc<Inner>,
    phase: Phase,
    events: Events,
    timer: Option<Pin<Box<Sleep>>>,
    /// When to do the flush that others promised.
    promise: Option<Time>,
}

enum Phase {
    Offline,
    Dialing {
        until: Time,
        dial: BoxFuture<'static, Result<Arc<dyn Connection>>>,
    },
    Online {
        link: Arc<dyn Connection>,
    },
    /// The session is over; the link says goodbye.
    Leaving {
        until: Time,
        link: Arc<dyn Connection>,
    },
    Ended,
}

/// Whether something happened, so that the rest has to be looked at again.
enum Step {
    Again,
    Wait,
}

impl Driver {
    pub(super) fn new(inner: Arc<Inner>) -> Driver {
        Driver { inner, phase: Phase::Offline, events: Events::new(), timer: None, promise: None }
    }

    fn step(&mut self, cx: &mut Context<'_>, now: Time) -> Step {
        if self.inner.may_end(now) && !matches!(self.phase, Phase::Leaving { .. } | Phase::Ended) {
            self.leave(now);
            return Step::Again;
        }
        match &mut self.phase {
            Phase::Ended => Step::Wait,
            Phase::Offline => {
                let (attempt, state) =
                    self.inner.session(|session| (session.should_connect(now), session.state()));
                if !attempt {
                    if state != State::Closed {
                        return Step::Wait;
                    }
                    self.leave(now);
                    return Step::Again;
                }
                let (transport, options) =
                    (self.inner.transport.clone(), self.inner.options.clone());
                let dial =
                    Box::pin(async move { transport.connect(&options.url, &options.tls).await });
                self.phase = Phase::Dialing { until: now + self.inner.options.attempt(), dial };
                Step::Again
            }
            Phase::Dialing { until, dial } => {
                match dial.as_mut().poll(cx) {
                    Poll::Ready(Ok(link)) => self.connected(now, link),
                    Poll::Ready(Err(error)) => self.disconnected(now, error),
                    Poll::Pending if *until <= now => {
                        let sentence = "the server did not take the connection in time";
                        self.disconnected(now, Error::new(ErrorKind::Timeout, sentence));
                    }
                    Poll::Pending => return Step::Wait,
                }
                Step::Again
            }
            Phase::Online { link } => {
                let link = link.clone();
                self.serve(cx, now, &link)
            }
            Phase::Leaving { until, link } => {
                if *until > now && link.poll_close(cx).is_pending() {
                    return Step::Wait;
                }
                self.phase = Phase::Ended;
                Step::Again
            }
        }
    }

    fn connected(&mut self, now: Time, link: Arc<dyn Connection>) {
        self.inner.session(|session| session.connected(now));
        self.inner.set_link(Some(link.clone()));
        self.phase = Phase::Online { link };
        self.inner.flush(now);
    }

    fn disconnected(&mut self, now: Time, error: Error) {
        self.inner.set_link(None);
        self.phase = Phase::Offline;
        self.inner.status.send_modify(|status| status.error = Some(error.clone()));
        let closed = self.inner.session(|session| {
            session.disconnected(now, Some(error), &mut self.events);
            session.state() == State::Closed
        });
        self.inner.deliver(&mut self.events);
        if closed {
            self.leave(now);
        }
    }

    /// Ends the session; the link may still say goodbye.
    fn leave(&mut self, now: Time) {
        // Enough for a goodbye to arrive and be answered, short enough not to be noticed.
        const GOODBYE: std::time::Duration = std::time::Duration::from_millis(200);
        self.inner.end_session(now);
        let until = self.inner.close_deadline().unwrap_or(now).min(now + GOODBYE);
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Online { link } => Phase::Leaving { until, link },
            _ => Phase::Ended,
        };
    }

    fn serve(&mut self, cx: &mut Context<'_>, now: Time, link: &Arc<dyn Connection>) -> Step {
        let mut step = Step::Wait;
        if self.inner.blocked.load(Ordering::Relaxed) {
            match link.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    self.inner.blocked.store(false, Ordering::Relaxed);
                    self.inner.flush(now);
                    step = Step::Again;
                }
                // Reading finds out why, and may bring the server's last words.
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
        }
        let (inner, events) = (&self.inner, &mut self.events);
        // Asked while the session is locked anyway: after `deliver` the host's thread wants it.
        let mut answers = false;
        let read = link.poll_receive(cx, &mut |batch| {
            inner.session(|session| {
                let received = session.receive(now, batch, events);
                answers = session.has_output();
                received
            })
        });
        self.inner.deliver(&mut self.events);
        match read {
            Poll::Ready(Ok(())) => {
                if answers {
                    self.inner.flush(now);
                }
                Step::Again
            }
            Poll::Ready(Err(error)) => {
                self.disconnected(now, error);
                Step::Again
            }
            Poll::Pending => match self.inner.send_error() {
                Some(error) => {
                    self.disconnected(now, error);
                    Step::Again
                }
                None => step,
            },
        }
    }

    /// Does what is due; returns when to come again.
    fn time(&mut self, now: Time) -> Option<Time> {
        let inner = self.inner.clone();
        if inner.promised.load(Ordering::Acquire) {
            let due = *self.promise.get_or_insert(now + PROMISE);
            if due <= now {
                self.promise = None;
                inner.promised.store(false, Ordering::Release);
                inner.flush(now);
            }
        }
        let (ticked, deadline) = inner.session(|session| {
            let due = session.deadline().is_some_and(|at| at <= now);
            let ticked = if due { session.tick(now, &mut self.events) } else { Ok(()) };
            session.tell_pressure(&mut self.events);
            (due.then_some(ticked), session.deadline())
        });
        inner.deliver(&mut self.events);
        if let Some(ticked) = ticked {
            match ticked {
                Ok(()) => inner.flush(now),
                Err(error) => {
                    self.disconnected(now, error);
                    return Some(now);
                }
            }
        }
        let dial = match &self.phase {
            Phase::Dialing { until, .. } | Phase::Leaving { until, .. } => Some(*until),
            _ => None,
        };
        [deadline, dial, self.promise, inner.close_deadline()].into_iter().flatten().min()
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let now = runtime::now();
            let rung = this.inner.bell.poll(cx).is_ready();
            if rung && this.inner.wanted.swap(false, Ordering::AcqRel) {
                this.inner.flush(now);
            }
            let again = matches!(this.step(cx, now), Step::Again);
            if matches!(this.phase, Phase::Ended) {
                return Poll::Ready(());
            }
            if again || rung {
                // The socket's own budget makes `step` wait when others are to have their turn.
                continue;
            }
            let due = this.time(now);
            if due.is_some_and(|at| at <= now) {
                continue;
            }
            this.inner.armed.store(due.map_or(u64::MAX, Time::as_micros), Ordering::Relaxed);
            let Some(due) = due else { return Poll::Pending };
            let due = runtime::instant(due);
            let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Driver {
    /// Also when the runtime stops, or a panic ends this task: nobody is to wait for ever.
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Ended) {
            self.inner.end_session(runtime::now());
        }
        self.inner.status.send_modify(|status: &mut Status| status.state = State::Closed);
        self.inner.ended();
    }
}
