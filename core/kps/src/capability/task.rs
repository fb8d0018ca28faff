//! Calls made by host loops: a future without a task of the runtime, polled first by who starts it and
//! then by who wakes it, so that a call that ends at once costs no hop.

use std::{
    cell::Cell,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use parking_lot::Mutex;

use crate::{net::BoxFuture, runtime};

/// A future under way. Dropping the handle does not stop it; [`cancel`](Self::cancel) does.
#[derive(Clone)]
pub struct Task(Arc<Running>);

struct Running {
    state: AtomicU8,
    future: Mutex<Option<BoxFuture<'static, ()>>>,
}

/// Nobody polls it.
const IDLE: u8 = 0;
/// Somebody will.
const WOKEN: u8 = 1;
/// Somebody does.
const POLLED: u8 = 2;
/// Somebody does, and must do it once more.
const AGAIN: u8 = 3;
/// It has ended.
const OVER: u8 = 4;

thread_local! {
    /// Whether a wake on this thread may poll here.
    static PROMPT: Cell<bool> = const { Cell::new(false) };
}

/// Calls `wake`; tasks that it wakes are polled here and now instead of on the runtime's thread. The
/// caller must hold no lock that a task may want.
pub fn promptly<T>(wake: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            PROMPT.set(self.0);
        }
    }
    let _reset = Reset(PROMPT.replace(true));
    wake()
}

impl Task {
    /// Polls `future` here and now, and hands its output to `done`, perhaps before this returns; `done`
    /// is called on any thread.
    pub fn start<F>(future: F, done: impl FnOnce(F::Output) + Send + 'static) -> Task
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let future: BoxFuture<'static, ()> = Box::pin(async move { done(future.await) });
        let state = AtomicU8::new(WOKEN);
        let running = Arc::new(Running { state, future: Mutex::new(Some(future)) });
        running.poll();
        Task(running)
    }

    /// Drops the future, unless it has ended; `done` is not called then.
    pub fn cancel(&self) {
        // Whoever polls it now drops it afterwards.
        if self.0.state.swap(OVER, Ordering::AcqRel) < POLLED {
            let dropped = self.0.future.lock().take();
            drop(dropped);
        }
    }
}

impl Running {
    fn poll(self: &Arc<Self>) {
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        let mut future = self.future.lock();
        loop {
            let from =
                self.state.compare_exchange(WOKEN, POLLED, Ordering::AcqRel, Ordering::Acquire);
            let Some(running) = future.as_mut().filter(|_| from.is_ok()) else {
                break;
            };
            let ended = running.as_mut().poll(&mut context) == Poll::Ready(());
            let was_over = match self.state.compare_exchange(
                POLLED,
                if ended { OVER } else { IDLE },
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => ended,
                Err(AGAIN) if !ended => {
                    self.state.store(WOKEN, Ordering::Release);
                    continue;
                }
                Err(_) => true,
            };
            if was_over {
                self.state.store(OVER, Ordering::Release);
            }
            break;
        }
        if self.state.load(Ordering::Acquire) == OVER {
            let dropped = future.take();
            drop(future);
            drop(dropped);
        }
    }
}

impl Wake for Running {
    fn wake(self: Arc<Self>) {
        let woken =
            self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| match state {
                IDLE => Some(WOKEN),
                POLLED => Some(AGAIN),
                _ => None,
            });
        if woken != Ok(IDLE) {
            return;
        }
        if PROMPT.get() {
            self.poll();
        } else {
            runtime::spawn(async move { self.poll() });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn what_is_ready_is_done_before_start_returns() {
        let (told, heard) = mpsc::channel();
        Task::start(async { 42 }, move |answer| told.send(answer).unwrap());
        assert_eq!(heard.try_recv(), Ok(42));
    }

    #[test]
    fn a_prompt_wake_polls_where_it_happens_and_others_on_the_runtime() {
        for prompt in [true, false] {
            let (waker, waiting) = oneshot::channel();
            let (told, heard) = mpsc::channel();
            let here = std::thread::current().id();
            Task::start(waiting, move |_| told.send(std::thread::current().id()).unwrap());
            if prompt {
                promptly(|| waker.send(()).unwrap());
                assert_eq!(heard.try_recv(), Ok(here));
            } else {
                waker.send(()).unwrap();
                assert_ne!(heard.recv(), Ok(here));
            }
        }
    }

    #[test]
    fn a_cancelled_task_drops_its_future_and_tells_nothing() {
        let (waker, waiting) = oneshot::channel::<()>();
        let (told, heard) = mpsc::channel();
        let task = Task::start(waiting, move |_| told.send(()).unwrap());
        task.cancel();
        assert!(waker.is_closed());
        assert_eq!(heard.recv(), Err(mpsc::RecvError));
        task.cancel();
    }
}
