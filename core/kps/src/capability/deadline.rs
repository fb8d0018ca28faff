//! Work with an end: at its deadline, when it is dropped, when it panics.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Instant,
};

use kps_proto::ErrorKind;

use super::{Cancel, Failure, Outcome};
use crate::runtime;

/// Tells the work to stop when nobody waits for it any more.
pub(super) struct CancelOnDrop(pub(super) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The outcome of `work`, or `None` at the deadline. A timer is made only for work that does not end at
/// once. A panic becomes a failure.
pub(super) async fn until(
    deadline: Instant,
    work: impl Future<Output = Outcome>,
) -> Option<Outcome> {
    let mut work = pin!(work);
    let mut timer = None;
    std::future::poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Ready(outcome)) => return Poll::Ready(Some(outcome)),
            Ok(Poll::Pending) => {}
            Err(panic) => return Poll::Ready(Some(Err(panicked(&*panic)))),
        }
        let timer = timer.get_or_insert_with(|| {
            let runtime = runtime::handle();
            let _context = runtime.enter();
            Box::pin(tokio::time::sleep_until(deadline.into()))
        });
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Waits, wherever it is polled: the timer is kps' runtime's.
pub(super) async fn pause(duration: std::time::Duration) {
    let timer = {
        let runtime = runtime::handle();
        let _context = runtime.enter();
        tokio::time::sleep(duration)
    };
    timer.await;
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no reason",
    };
    Failure::new(ErrorKind::Internal, format!("the operation panicked: {text}"))
}
