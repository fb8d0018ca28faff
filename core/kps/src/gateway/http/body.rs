//! Bodies: those that come, read within bounds, and those that go.

use std::{
    convert::Infallible,
    fmt,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body as HttpBody, Frame, SizeHint},
    header::{self, HeaderValue},
};
use kps_proto::ErrorKind;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{Fault, events::EventStream};
use crate::capability::Failure;

/// Bodies that are read or worked on at the same time, together, in units.
const ROOM: usize = (256 << 20) / UNIT;
const UNIT: usize = 4 << 10;

/// How long a whole body may take, however steadily it comes.
const WHOLE: Duration = Duration::from_secs(120);

/// How much of a body that is not wanted is read all the same, and for how long.
const UNWANTED: usize = 64 << 10;
const BRIEF: Duration = Duration::from_secs(1);

/// Reads what is left of a small body; false if there is more.
pub(super) async fn pass_over<B: HttpBody<Data = Bytes>>(mut body: Pin<&mut B>) -> bool {
    let until = Instant::now() + BRIEF;
    let mut left = UNWANTED;
    while let Ok(frame) = timeout_at(until, body.frame()).await {
        match frame {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let Some(rest) = left.checked_sub(bytes) else { return false };
                left = rest;
            }
        }
    }
    false
}

/// What is answered.
pub(crate) enum Body {
    /// All of it, until it was taken.
    Whole(Option<Bytes>),
    /// Events as they come.
    Events(Box<EventStream>),
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Body::Whole(bytes) => Poll::Ready(bytes.take()),
            Body::Events(stream) => stream.poll_bytes(cx),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Body::Events(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

/// An answer of this type.
pub(super) fn typed(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // What a browser makes of it must not depend on what it looks like.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(super) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", text.into())
}

/// JSON, with a line end for those who read it in a terminal.
pub(super) fn json(status: StatusCode, text: impl Into<Vec<u8>>) -> Response<Body> {
    let mut text = text.into();
    text.push(b'\n');
    typed(status, "application/json", text.into())
}

/// The room that bodies have together.
pub(super) struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Bodies(Arc::new(Semaphore::new(ROOM)))
    }
}

/// A body that was read; its room is taken as long as this lives.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    _room: Vec<OwnedSemaphorePermit>,
}

impl Bodies {
    /// Reads a body of at most `limit` bytes, of which no part takes longer than `patience`.
    pub(super) async fn read<B>(
        &self,
        headers: &HeaderMap,
        body: B,
        limit: usize,
        patience: Duration,
    ) -> Result<Read, Fault>
    where
        B: HttpBody<Data = Bytes, Error: fmt::Display>,
    {
        let length = headers.get(header::CONTENT_LENGTH);
        let told = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if told.is_some_and(|told| told > limit) {
            return Err(too_large(limit));
        }
        let mut room = vec![self.take(told.unwrap_or(0))?];
        let mut taken = told.unwrap_or(0);
        let mut bytes = BytesMut::new();
        let mut body = pin!(body);
        let end = Instant::now() + WHOLE;
        loop {
            let deadline = (Instant::now() + patience).min(end);
            let frame = timeout_at(deadline, body.frame()).await.map_err(|_| {
                Fault::new(ErrorKind::InvalidPayload, "the request's body took too long")
            })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| {
                Fault::new(ErrorKind::InvalidPayload, format!("the body broke off: {error}"))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(too_large(limit));
            }
            if bytes.len() + data.len() > taken {
                let more = taken.clamp(data.len().max(UNIT), 1 << 20);
                room.push(self.take(more)?);
                taken += more;
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Read { bytes: bytes.freeze(), _room: room })
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Fault> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        self.0.clone().try_acquire_many_owned(units).map_err(|_| {
            let sentence = "too much is being sent to this server at once; try again";
            Failure::new(ErrorKind::Unavailable, sentence).retryable().into()
        })
    }
}

fn too_large(limit: usize) -> Fault {
    let sentence = format!("the request's body is over {limit} bytes, which is the limit");
    Fault::new(ErrorKind::PayloadTooLarge, sentence)
}
