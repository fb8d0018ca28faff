//! Large values as streams, to and from any storage: this process' own, the server's, another client's.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kps_proto::ErrorKind;
use tokio::sync::oneshot;

use super::super::{
    CallTarget, DispatchOptions, Failure, Map, Outcome, Task, Value, router::Router,
};
use crate::{client::Client, runtime, store::values::CHUNK};

/// Parts under way at once: what is sent or read does not wait for each answer.
const WINDOW: usize = 4;

/// How long one part may take.
const PART: Duration = Duration::from_secs(60);

/// How long the last step of a save may take: the value may move to the cloud with it.
const LAST: Duration = Duration::from_secs(3600);

/// How often a part is tried again that may succeed later.
const RETRY: u32 = 3;

/// What a message holds beside a part's bytes, generously.
const ENVELOPE: usize = 4096;

/// A storage as its callers see it. Nothing is kept for it: it is made for every use.
#[derive(Clone)]
pub struct StorageClient {
    router: Router,
    target: CallTarget,
}

impl std::fmt::Debug for StorageClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageClient").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Client {
    /// This client's own storage; [`StorageClient::at`] says another one.
    ///
    /// ```
    /// # #[cfg(feature = "store")] {
    /// use kps::capability::Value;
    /// # async fn run() -> Result<(), kps::capability::Failure> {
    /// # let client = kps::Client::from(kps::server::connect(kps::ConnectOptions::new("mem://"))?);
    /// let storage = client.storage();
    /// let mut upload = storage.upload(Value::map([("key", "film".into())])).await?;
    /// for _ in 0..100 {
    ///     upload.write(vec![7; 100_000]).await?;
    /// }
    /// upload.finish().await?;
    ///
    /// let mut film = storage.download("film").await?;
    /// assert_eq!(film.size(), 10_000_000);
    /// while let Some(bytes) = film.next().await {
    ///     assert!(bytes?.iter().all(|byte| *byte == 7));
    /// }
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// # }
    /// ```
    pub fn storage(&self) -> StorageClient {
        StorageClient { router: self.capabilities(), target: CallTarget::default() }
    }
}

impl StorageClient {
    /// The storage of `target`.
    pub fn at(self, target: CallTarget) -> StorageClient {
        StorageClient { target, ..self }
    }

    /// Begins a value of bytes that comes in pieces of any size. `fields` are those of `storage.upload`: `key`,
    /// and perhaps `ttl`, `if_match`, `if_none_match` and `content_type`.
    ///
    /// # Errors
    /// Those of `storage.upload`.
    pub async fn upload(&self, fields: Value) -> Result<Upload, Failure> {
        let storage = self.clone();
        // On its own: whoever gives up waiting for it leaves no upload behind.
        let begun = runtime::spawn(async move { storage.begin(fields).await });
        begun
            .await
            .unwrap_or_else(|_| Err(Failure::new(ErrorKind::Closed, "the process is about to end")))
    }

    async fn begin(&self, fields: Value) -> Result<Upload, Failure> {
        let begun = self.ask("upload", fields, PART).await?;
        let (token, best) = (text(&begun, "upload")?, number(&begun, "part_size")?);
        let part = usize::try_from(best).unwrap_or(usize::MAX).min(self.part());
        Ok(Upload {
            storage: self.clone(),
            token,
            part,
            buffer: BytesMut::new(),
            next: 0,
            written: 0,
            running: VecDeque::new(),
            state: State::Open,
        })
    }

    /// Begins to read a value of bytes or text.
    ///
    /// # Errors
    /// Those of `storage.get_part`, `not_found` and `unsupported` among them.
    pub async fn download(&self, key: &str) -> Result<Download, Failure> {
        let part = self.part() as u64;
        let answer = self.read(key, 0, part, None).await?;
        let Value::Map(mut about) = answer else {
            return Err(unexpected("get_part"));
        };
        let first = bytes(&mut about)?;
        for name in ["offset", "done"] {
            about.remove(name);
        }
        let about = Value::Map(about);
        let (etag, size) = (text(&about, "etag")?, number(&about, "size")?);
        if first.len() as u64 != part.min(size) {
            return Err(unexpected("get_part"));
        }
        let mut download = Download {
            storage: self.clone(),
            key: key.to_owned(),
            about,
            etag,
            size,
            part,
            asked: first.len() as u64,
            given: 0,
            first: Some(first),
            running: VecDeque::new(),
        };
        download.read_ahead();
        Ok(download)
    }

    /// Bytes of a part: as JSON it fits into a message, if it has to.
    fn part(&self) -> usize {
        if matches!(self.target, CallTarget::Nearest | CallTarget::Local) {
            return CHUNK;
        }
        let limit = self.router.0.client().map_or(CHUNK, |client| client.bridge().max_payload());
        (limit.saturating_sub(ENVELOPE) / 4 * 3).clamp(1024, CHUNK)
    }

    fn call(
        &self,
        operation: &str,
        payload: Value,
        timeout: Duration,
        retry: u32,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        let options = DispatchOptions {
            timeout,
            retry,
            target: self.target.clone(),
            ..DispatchOptions::default()
        };
        let (router, action) = (self.router.clone(), format!("storage.{operation}"));
        async move { router.dispatch(&action, payload, options).await.outcome }
    }

    async fn ask(&self, operation: &str, payload: Value, timeout: Duration) -> Outcome {
        self.call(operation, payload, timeout, 0).await
    }

    fn read(
        &self,
        key: &str,
        offset: u64,
        length: u64,
        etag: Option<&str>,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        let mut payload = Map::default();
        payload.push("key", key);
        payload.push("offset", offset);
        payload.push("length", length);
        if let Some(etag) = etag {
            payload.push("etag", etag);
        }
        self.call("get_part", payload.into(), PART, RETRY)
    }
}

/// A value that is being saved. It takes effect with [`finish`](Self::finish) alone; dropping it, or the future of
/// a [`write`](Self::write), gives it up.
#[derive(Debug)]
pub struct Upload {
    storage: StorageClient,
    token: String,
    part: usize,
    /// Less than a part.
    buffer: BytesMut,
    /// The number of the next part.
    next: u64,
    written: u64,
    /// Parts under way, the oldest first.
    running: VecDeque<Part>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A write is under way, or was dropped.
    Writing,
    Ended,
}

#[derive(Debug)]
struct Part {
    number: u64,
    bytes: Bytes,
    asked: Asked,
}

impl Upload {
    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Adds bytes at the end; returns once there is room for more.
    ///
    /// # Errors
    /// Those of `storage.upload_part`, perhaps of bytes written before. The upload is over then.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), Failure> {
        let mut bytes = bytes.into();
        if self.state != State::Open {
            return Err(given_up());
        }
        self.state = State::Writing;
        self.written += bytes.len() as u64;
        while !bytes.is_empty() {
            // What is as long as a part is not copied.
            let piece = if self.buffer.is_empty() && bytes.len() >= self.part {
                bytes.split_to(self.part)
            } else {
                let room = (self.part - self.buffer.len()).min(bytes.len());
                self.buffer.extend_from_slice(&bytes.split_to(room));
                if self.buffer.len() < self.part {
                    break;
                }
                self.buffer.split().freeze()
            };
            self.send(piece).await?;
        }
        self.state = State::Open;
        Ok(())
    }

    /// Makes what was written the key's value, all at once, and returns what is known of it.
    ///
    /// # Errors
    /// Those of `storage.upload_part` and `storage.upload_done`; the old value is as it was.
    pub async fn finish(mut self) -> Outcome {
        if self.state != State::Open {
            return Err(given_up());
        }
        self.state = State::Writing;
        let rest = self.buffer.split().freeze();
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        while !self.running.is_empty() {
            self.settle().await?;
        }
        let payload = Value::map([("upload", (&*self.token).into())]);
        let done = self.storage.ask("upload_done", payload, LAST).await?;
        self.state = State::Ended;
        Ok(done)
    }

    /// Gives it up; the old value is as it was.
    pub async fn cancel(mut self) {
        self.state = State::Ended;
        self.running.clear();
        // An upload that got nothing for an hour is forgotten anyway.
        let _ = self.give_up().await;
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Failure> {
        while self.running.len() >= WINDOW {
            self.settle().await?;
        }
        let number = self.next;
        self.next += 1;
        let asked = Asked::start(self.put(number, bytes.clone(), 0));
        self.running.push_back(Part { number, bytes, asked });
        Ok(())
    }

    /// Waits for the oldest part.
    async fn settle(&mut self) -> Result<(), Failure> {
        let Some(part) = self.running.front_mut() else { return Ok(()) };
        let outcome = (&mut part.asked).await;
        let Some(Part { number, bytes, .. }) = self.running.pop_front() else { return Ok(()) };
        match outcome {
            Ok(_) => Ok(()),
            // It overtook the one before, or that was not taken at first: all before it are taken now.
            Err(failure) if failure.retry || failure.kind == ErrorKind::Conflict => {
                self.put(number, bytes, RETRY).await.map(drop)
            }
            Err(failure) => Err(failure),
        }
    }

    fn put(
        &self,
        number: u64,
        bytes: Bytes,
        retry: u32,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        let token = (&*self.token).into();
        let fields = [("upload", token), ("number", number.into()), ("bytes", bytes.into())];
        self.storage.call("upload_part", Value::map(fields), PART, retry)
    }

    fn give_up(&self) -> impl Future<Output = Outcome> + Send + use<> {
        let payload = Value::map([("upload", (&*self.token).into())]);
        self.storage.call("upload_cancel", payload, PART, RETRY)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.state != State::Ended {
            self.running.clear();
            runtime::spawn(self.give_up());
        }
    }
}

/// A value that is being read. All of its bytes are of one and the same value: if that is replaced meanwhile,
/// [`next`](Self::next) fails with `conflict`.
#[derive(Debug)]
pub struct Download {
    storage: StorageClient,
    key: String,
    about: Value,
    etag: String,
    size: u64,
    part: u64,
    /// Bytes that were asked for.
    asked: u64,
    /// Bytes that were returned.
    given: u64,
    first: Option<Bytes>,
    /// Parts under way, in order.
    running: VecDeque<Asked>,
}

impl Download {
    /// What is known of the value, and its `kind`.
    pub fn about(&self) -> &Value {
        &self.about
    }

    /// Bytes there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes; `None` at the end, and after an error.
    ///
    /// # Errors
    /// Those of `storage.get_part`: `conflict` if the value was replaced or deleted meanwhile.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            self.given = first.len() as u64;
            return Some(Ok(first));
        }
        let wanted = self.part.min(self.size - self.given);
        self.read_ahead();
        let answer = self.running.front_mut()?.await;
        self.running.pop_front();
        let found = answer.and_then(|answer| match answer {
            Value::Map(mut part) => bytes(&mut part),
            _ => Err(unexpected("get_part")),
        });
        match found {
            Ok(bytes) if bytes.len() as u64 == wanted => {
                self.given += wanted;
                self.read_ahead();
                Some(Ok(bytes))
            }
            other => {
                self.running.clear();
                self.asked = self.size;
                Some(Err(match other {
                    // It was deleted: that is how a value changes, too.
                    Err(failure) if failure.kind == ErrorKind::NotFound => {
                        let sentence = format!("{:?} was deleted meanwhile", self.key);
                        Failure::new(ErrorKind::Conflict, sentence)
                    }
                    Err(failure) => failure,
                    Ok(_) => unexpected("get_part"),
                }))
            }
        }
    }

    fn read_ahead(&mut self) {
        while self.running.len() < WINDOW && self.asked < self.size {
            let part = self.storage.read(&self.key, self.asked, self.part, Some(&self.etag));
            self.asked = self.asked.saturating_add(self.part).min(self.size);
            self.running.push_back(Asked::start(part));
        }
    }
}

/// A call under way; it is cancelled when this is dropped.
struct Asked {
    task: Task,
    answer: oneshot::Receiver<Outcome>,
}

impl Asked {
    fn start(call: impl Future<Output = Outcome> + Send + 'static) -> Asked {
        let (sender, answer) = oneshot::channel();
        // Nobody may wait for it any more.
        let task = Task::start(call, move |outcome| drop(sender.send(outcome)));
        Asked { task, answer }
    }
}

impl Future for Asked {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or_else(|_| {
            Err(Failure::new(ErrorKind::Closed, "the client was closed meanwhile"))
        }))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.cancel();
    }
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asked")
    }
}

fn given_up() -> Failure {
    let sentence = "the upload is over: it failed, or was given up; begin another one";
    Failure::new(ErrorKind::Closed, sentence)
}

/// A storage of another version, or what is no storage, answered.
fn unexpected(operation: &str) -> Failure {
    let sentence = format!("storage.{operation} was answered with something else");
    Failure::new(ErrorKind::Internal, sentence)
}

fn text(answer: &Value, name: &str) -> Result<String, Failure> {
    match answer.get(name) {
        Some(Value::Text(text)) => Ok(text.clone()),
        _ => Err(unexpected(name)),
    }
}

fn number(answer: &Value, name: &str) -> Result<u64, Failure> {
    match answer.get(name) {
        Some(Value::Int(number)) if *number >= 0 => Ok(number.cast_unsigned()),
        _ => Err(unexpected(name)),
    }
}

fn bytes(part: &mut Map) -> Result<Bytes, Failure> {
    match part.remove("bytes") {
        Some(Value::Bytes(bytes)) => Ok(bytes),
        _ => Err(unexpected("get_part")),
    }
}
