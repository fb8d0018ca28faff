//! Writing as it comes, token by token: merged into one operation per flush, and in one piece whatever others
//! do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kps_proto::ErrorKind;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time,
};

use super::{Document, edits::Refused};
use crate::{
    capability::Failure,
    document::engine::{Edit, Kind, Manners, Version},
    runtime,
};

/// How often a piece of a stream is sent again after conflicts.
const REBASES: u32 = 1000;

/// Where a stream begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the end of the text.
    #[default]
    End,
    /// Before this code point.
    At(usize),
    /// Before a text that is there once.
    Before(String),
    /// After a text that is there once.
    After(String),
}

/// How a stream writes.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Where it begins. The end of the text.
    pub start: Start,
    /// What is written within this time goes into one operation, and all that is written until the one before
    /// is acknowledged. 50 ms.
    pub flush_every: Duration,
    /// As soon as so many bytes wait, they are sent in any case. 8 KiB.
    pub flush_bytes: usize,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            start: Start::End,
            flush_every: Duration::from_millis(50),
            flush_bytes: 8 << 10,
        }
    }
}

/// A text that is written bit by bit; what is written comes after what was written before, also if others
/// write at the same place. When it is dropped, what was written is sent all the same.
#[derive(Debug)]
pub struct DocumentStream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    document: Document,
    options: StreamOptions,
    mark: u64,
    waiting: Mutex<Waiting>,
    wake: Notify,
    progress: watch::Sender<()>,
    is_ending: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    text: String,
    has_begun: bool,
    /// Operations that are not acknowledged.
    on_way: usize,
    /// The version that the last one of them made.
    version: Option<Version>,
    failed: Option<Refused>,
}

impl Document {
    /// Begins to write text bit by bit.
    ///
    /// ```
    /// use kps::document::{OpenDocument, StreamOptions};
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = kps::Server::start(kps::ServerOptions::listen("127.0.0.1:0"))?;
    /// let client = kps::Client::connect(kps::ConnectOptions::new(server.url())).await?;
    /// let story = client.open_document("story", OpenDocument::default()).await?;
    ///
    /// let stream = story.stream(StreamOptions::default())?;
    /// for token in ["Once", " upon", " a", " time"] {
    ///     stream.write(token)?;
    /// }
    /// stream.close().await?;
    /// assert_eq!(story.text().as_deref(), Some("Once upon a time"));
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// `wrong_kind` unless it is text; `position_out_of_range`, `anchor_not_found`, `anchor_not_unique`.
    pub fn stream(&self, options: StreamOptions) -> Result<DocumentStream, Refused> {
        if self.kind() != Kind::Text {
            return Err(Refused {
                code: crate::document::Code::WrongKind.to_string(),
                message: "text alone is streamed; JSON is changed by patch and merge".into(),
                event: None,
            });
        }
        let mark = {
            let mut state = self.shared().state.lock();
            state.check_open()?;
            let place = match &options.start {
                Start::End => state.replica.length(),
                Start::At(position) => state.replica.place_of(&[Edit::insert(*position, "")])?,
                Start::Before(text) => state.replica.place_of(&[Edit::insert_before(text, "")])?,
                Start::After(text) => state.replica.place_of(&[Edit::insert_after(text, "")])?,
            };
            state.replica.mark(place)
        };
        let inner = Arc::new(Inner {
            document: self.clone(),
            options,
            mark,
            waiting: Mutex::default(),
            wake: Notify::new(),
            progress: watch::Sender::new(()),
            is_ending: AtomicBool::new(false),
        });
        runtime::spawn(inner.clone().run());
        Ok(DocumentStream(inner))
    }
}

impl DocumentStream {
    /// Writes more.
    ///
    /// # Errors
    /// Why what was written before is not in the document: nothing more is written then.
    pub fn write(&self, text: &str) -> Result<(), Refused> {
        let mut waiting = self.0.waiting.lock();
        if let Some(refused) = &waiting.failed {
            return Err(refused.clone());
        }
        if self.0.is_ending.load(Ordering::Acquire) {
            let sentence = "the stream is closed; begin another one";
            return Err(Failure::new(ErrorKind::Closed, sentence).into());
        }
        let was_empty = waiting.text.is_empty();
        waiting.text.push_str(text);
        let is_much = waiting.text.len() >= self.0.options.flush_bytes;
        if is_much {
            self.0.flush(&mut waiting)?;
        } else if was_empty && !waiting.text.is_empty() {
            self.0.wake.notify_one();
        }
        Ok(())
    }

    /// Sends what waits and returns the document's version with it, once the server has all of it; `None` if
    /// nothing was written.
    ///
    /// # Errors
    /// Why something is not in the document.
    pub async fn close(&self) -> Result<Option<Version>, Refused> {
        self.0.end();
        let mut progress = self.0.progress.subscribe();
        loop {
            {
                let mut waiting = self.0.waiting.lock();
                let flushed = self.0.flush(&mut waiting);
                if let Some(refused) = &waiting.failed {
                    return Err(refused.clone());
                }
                flushed?;
                if waiting.on_way == 0 {
                    return Ok(waiting.version);
                }
            }
            // Its sender is right here.
            let _ = progress.changed().await;
        }
    }
}

impl Drop for DocumentStream {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Inner {
    fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    async fn run(self: Arc<Self>) {
        while self.is_awaited().await {
            tokio::select! {
                () = time::sleep(self.options.flush_every) => {}
                () = self.ended() => {}
            }
            let mut progress = self.progress.subscribe();
            while !self.is_ending.load(Ordering::Acquire) && self.waiting.lock().on_way > 0 {
                tokio::select! {
                    // Its sender is right here.
                    _ = progress.changed() => {}
                    () = self.ended() => {}
                }
            }
            // What is wrong is kept for the one who writes.
            let _ = self.flush(&mut self.waiting.lock());
        }
        self.document.shared().state.lock().replica.unmark(self.mark);
    }

    /// Waits for something to send; false: nothing more comes.
    async fn is_awaited(&self) -> bool {
        loop {
            let is_ending = self.is_ending.load(Ordering::Acquire);
            {
                let waiting = self.waiting.lock();
                if waiting.failed.is_some() || (is_ending && waiting.text.is_empty()) {
                    return false;
                }
                if !waiting.text.is_empty() {
                    return true;
                }
            }
            self.wake.notified().await;
        }
    }

    async fn ended(&self) {
        while !self.is_ending.load(Ordering::Acquire) {
            self.wake.notified().await;
        }
    }

    /// Makes an operation of what waits.
    fn flush(self: &Arc<Self>, waiting: &mut Waiting) -> Result<(), Refused> {
        if waiting.text.is_empty() || waiting.failed.is_some() {
            return Ok(());
        }
        let text = std::mem::take(&mut waiting.text);
        let length = text.chars().count();
        let inner = self.clone();
        let done = Box::new(move |result: Result<super::Edited, Refused>| inner.done(result));
        let manners = Manners { sticks: waiting.has_begun, rebases: Some(REBASES) };
        let edited = self.document.edit_marked(self.mark, text, length, manners, done);
        if let Err(refused) = edited {
            waiting.failed = Some(refused.clone());
            self.progress.send_replace(());
            return Err(refused);
        }
        waiting.has_begun = true;
        waiting.on_way += 1;
        Ok(())
    }

    fn done(&self, result: Result<super::Edited, Refused>) {
        let mut waiting = self.waiting.lock();
        waiting.on_way -= 1;
        match result {
            Ok(edited) => waiting.version = waiting.version.max(Some(edited.version)),
            Err(refused) => {
                waiting.failed.get_or_insert(refused);
            }
        }
        drop(waiting);
        self.progress.send_replace(());
    }
}

impl Document {
    /// Inserts at a mark, which is behind it then.
    fn edit_marked(
        &self,
        mark: u64,
        text: String,
        length: usize,
        manners: Manners,
        done: super::state::Waiter,
    ) -> Result<(), Refused> {
        let shared = self.shared();
        let op_id = shared.new_op_id();
        let mut state = shared.state.lock();
        state.check_room()?;
        let place = state.replica.marked(mark);
        shared.edit(&mut state, op_id, vec![Edit::insert(place, text)], manners, done)?;
        state.replica.move_mark(mark, place + length);
        drop(state);
        shared.wake.notify_one();
        Ok(())
    }
}
