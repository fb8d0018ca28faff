//! A byte stream whose peer must take what it asked for, and is told in kps' words when that is no HTTP.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::{Body as HttpBody, Frame, SizeHint};
use kps_proto::ErrorKind;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Fails once the peer has taken nothing for so long, though something waits for it.
pub(super) struct Patient<I> {
    io: I,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    turn: Turn,
    /// What is written in its place, and how much of it was.
    refusal: Option<(Vec<u8>, usize)>,
}

/// Whose word is written. While nobody's request is answered it is hyper's, without a body, on what it could
/// not read.
///
/// If the peer did not wait for an answer to send what is no request, and that answer was not all written
/// yet, hyper's word goes out with the end of it, as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<AtomicU8>);

const NOBODYS: u8 = 0;
/// A request was read.
const ASKED: u8 = 1;
/// All of its answer was taken, and will be written before anything is flushed.
const ANSWERED: u8 = 2;

impl Turn {
    /// A request was read.
    pub(super) fn asked(&self) {
        self.0.store(ASKED, Ordering::Relaxed);
    }

    /// The body of its answer.
    pub(super) fn answer<B>(&self, body: B) -> Answer<B> {
        Answer { body, turn: self.clone() }
    }

    fn is_nobodys(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NOBODYS
    }

    /// All was written.
    fn flushed(&self) {
        let (old, new) = (ANSWERED, NOBODYS);
        let _ = self.0.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A body that tells when it was taken: hyper lets go of it then.
pub(super) struct Answer<B> {
    body: B,
    turn: Turn,
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.turn.0.store(ANSWERED, Ordering::Relaxed);
    }
}

impl<B: HttpBody + Unpin> HttpBody for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<I> Patient<I> {
    pub(super) fn new(io: I, limit: Duration) -> Patient<I> {
        Patient { io, limit, stalled: None, turn: Turn::default(), refusal: None }
    }

    /// Knows whose turn it is; to be told.
    pub(super) fn turn(&self) -> Turn {
        self.turn.clone()
    }

    pub(super) fn into_inner(self) -> I {
        self.io
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<I: AsyncWrite + Unpin> Patient<I> {
    /// Writes a refusal in place of `bytes`.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (text, written) = self.refusal.get_or_insert_with(|| (refusal(bytes), 0));
        while *written < text.len() {
            *written += match ready!(Pin::new(&mut self.io).poll_write(cx, &text[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => more,
            };
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

/// An answer with the status of `theirs` that says what is wrong.
fn refusal(theirs: &[u8]) -> Vec<u8> {
    let line = theirs.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let (kind, sentence) = match line.split(' ').nth(1) {
        Some("431") => {
            (ErrorKind::TooLarge, "the head of a request is at most 16 KiB and 64 lines")
        }
        _ => (
            ErrorKind::Protocol,
            "this is no HTTP/1.1; in an address, characters like > and blanks are written %3E and %20",
        ),
    };
    let error = serde_json::json!({ "code": kind.code(), "message": sentence, "retry": false });
    let body = serde_json::json!({ "error": error }).to_string();
    format!(
        "{line}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match self.turn.is_nobodys() {
            false => Pin::new(&mut self.io).poll_write(cx, bytes),
            true => self.poll_refuse(cx, bytes),
        };
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match self.turn.is_nobodys() {
            false => Pin::new(&mut self.io).poll_write_vectored(cx, slices),
            true => {
                let slices: Vec<&[u8]> = slices.iter().map(|slice| &**slice).collect();
                self.poll_refuse(cx, &slices.concat())
            }
        };
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if flushed.is_ready() {
            self.turn.flushed();
        }
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("resources").block_on(work)
    }

    #[test]
    fn who_takes_nothing_is_given_up() {
        block_on(async {
            let (_reader, writer) = tokio::io::duplex(8);
            let mut writer = Patient::new(writer, Duration::from_millis(10));
            writer.turn().asked();
            let error = writer.write_all(&[0; 64]).await.expect_err("nobody takes it");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn what_answers_nobodys_request_has_a_body() {
        const BARE: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        block_on(async {
            let (mut reader, writer) = tokio::io::duplex(1 << 10);
            let mut writer = Patient::new(writer, Duration::from_secs(10));
            let turn = writer.turn();
            turn.asked();
            let body = turn.answer(());
            writer.write_all(BARE.as_bytes()).await.unwrap();
            writer.flush().await.unwrap();
            writer.write_all(BARE.as_bytes()).await.unwrap();
            drop(body);
            // Not all of the answer was written yet.
            writer.write_all(BARE.as_bytes()).await.unwrap();
            writer.flush().await.unwrap();
            writer.write_all(BARE.as_bytes()).await.unwrap();
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).await.unwrap();
            let refusal = text.strip_prefix(&BARE.repeat(3)).unwrap_or_else(|| panic!("{text}"));
            assert!(refusal.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{refusal}");
            assert!(refusal.contains("\"code\":\"protocol\""), "{refusal}");
        });
    }
}
