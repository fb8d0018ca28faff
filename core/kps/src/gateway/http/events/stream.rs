//! The body of an answer that is a stream of events.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    Streams,
    channel::{Slot, resumed},
    frame,
    point::{self, Point},
};

/// What the reader waits for before it connects again.
const RETRY_MS: u32 = 1000;

/// Bytes of events that are handed on together.
const TOGETHER: usize = 16 << 10;

/// Events of a channel, as text.
pub(crate) struct EventStream {
    slot: Arc<Slot>,
    streams: Arc<Streams>,
    /// What comes first.
    greeting: Option<Bytes>,
    /// The number of the last event handed on.
    sent: u64,
    heartbeat: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl EventStream {
    /// `sent`: the last event that the reader has, of this channel; `point`: where it was when it came.
    pub(super) fn new(
        slot: Arc<Slot>,
        streams: Arc<Streams>,
        heartbeat: Duration,
        sent: u64,
        point: Option<Point>,
    ) -> EventStream {
        let greeting = slot.with(|channel| {
            let mut text = format!("retry: {RETRY_MS}\n\n");
            match point {
                // The same channel: what follows is counted.
                Some(point) if point.stream == channel.key() => {
                    let mut id = String::new();
                    let cursors = point.cursors.iter().map(Option::as_ref);
                    point::put(&mut id, &point.stream, point.number, cursors);
                    for (topic, count) in channel.waiting(sent) {
                        frame::put(&mut text, "resumed", &id, &resumed(topic, count));
                    }
                }
                // The channel itself tells what is missing.
                Some(_) => {}
                // One that comes back before anything was told is to find its place too.
                None if channel.begins_now() => text.push_str(&format!("id: {}\n\n", channel.id())),
                None => {}
            }
            Bytes::from(text)
        });
        let alarm = Box::pin(sleep(heartbeat));
        EventStream { slot, streams, greeting, sent, heartbeat, alarm }
    }

    /// The next part; `None` at the end.
    pub(in crate::gateway::http) fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Bytes>> {
        if let Some(greeting) = self.greeting.take() {
            return Poll::Ready(Some(greeting));
        }
        let sent = self.sent;
        let next = self.slot.with(|channel| {
            let mut next = channel.after(sent, TOGETHER);
            if next.is_none() && channel.poll_more(cx, sent, TOGETHER).is_ready() {
                next = channel.after(sent, TOGETHER);
            }
            (next, channel.is_over(sent))
        });
        match next {
            Some((Some((through, text)), _)) => {
                self.sent = through;
                self.alarm.as_mut().reset(Instant::now() + self.heartbeat);
                Poll::Ready(Some(text))
            }
            // Over, or its reader has come back on another connection.
            Some((None, true)) | None => Poll::Ready(None),
            Some((None, false)) => self.poll_alarm(cx),
        }
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        std::task::ready!(self.alarm.as_mut().poll(cx));
        self.alarm.as_mut().reset(Instant::now() + self.heartbeat);
        Poll::Ready(Some(Bytes::from_static(b":\n\n")))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let may_go_on = self.slot.with(|channel| !channel.has_ended()).unwrap_or(false);
        if may_go_on {
            self.streams.keep(self.slot.clone());
        }
    }
}
