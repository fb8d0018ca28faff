//! Live documents; `ts/document.ts` is their face. JavaScript numbers them, their operations and their streams.

mod edit;
mod kept;
mod live;
mod read;
mod stream;
mod told;
mod yjs;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use kps::{
    Error, ErrorKind,
    document::{Document, DocumentStream, Kind, Listening, OpenDocument, YjsDocument},
};
use napi_derive::napi;
use parking_lot::Mutex;
use serde::Deserialize;

pub(crate) use self::kept::Kept;
use self::live::Live;
use crate::{
    bridge::Bridge,
    complete::Completion,
    error::{Result, invalid, thrown},
    options::{millis, set},
};

/// What one environment has open, on any thread.
#[derive(Default)]
pub(crate) struct Table {
    open: Mutex<HashMap<u32, Open>>,
    streams: Mutex<HashMap<u32, Arc<DocumentStream>>>,
    ended: AtomicBool,
}

/// An open document.
struct Open {
    document: Live,
    /// While somebody wants to hear what happens.
    listening: Option<Listening>,
}

impl Table {
    /// The environment ends: what was edited is sent in the background.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        let (open, streams) = (
            std::mem::take(&mut *self.open.lock()),
            self.streams.lock().drain().collect::<Vec<_>>(),
        );
        drop((open, streams));
    }

    fn add(&self, number: u32, document: Live) {
        let mut open = self.open.lock();
        if !self.ended.load(Ordering::SeqCst) {
            open.insert(number, Open { document, listening: None });
        }
    }

    fn live(&self, number: u32) -> Result<Live> {
        let open = self.open.lock();
        let document = open.get(&number).map(|open| open.document.clone());
        // JavaScript holds it: only a thread that ends has none.
        let ended =
            || Error::new(ErrorKind::Closed, "the thread that opened the document has ended");
        document.ok_or_else(|| thrown(ended()))
    }
}

/// `openDocument`'s options.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    kind: Option<String>,
    author: Option<String>,
    rebase: Option<bool>,
    rebases: Option<u32>,
    timeout: Option<f64>,
}

impl TryFrom<Options> for OpenDocument {
    type Error = Error;

    fn try_from(given: Options) -> kps::Result<Self> {
        let mut options = OpenDocument::default();
        if let Some(name) = given.kind {
            options.kind = Kind::parse(&name).ok_or_else(|| {
                let sentence = format!("kind is {name:?}; there are text, json and yjs");
                Error::new(ErrorKind::InvalidArgument, sentence)
            })?;
        }
        options.author = given.author;
        set(&mut options.rebase, given.rebase);
        set(&mut options.rebases, given.rebases);
        set(&mut options.timeout, given.timeout.map(millis));
        Ok(options)
    }
}

#[napi]
impl Bridge {
    /// Opens a document under `number`. Call `token` ends with what never changes of it.
    #[napi]
    pub fn open_document(
        &self,
        client: u32,
        token: u32,
        number: u32,
        id: String,
        options: String,
    ) -> Result<()> {
        let client = kps::Client::from(self.shared.client(client).map_err(thrown)?.bridge);
        let options: Options = serde_json::from_str(&options).map_err(invalid)?;
        let options = options.try_into().map_err(thrown)?;
        let documents = self.shared.documents.clone();
        self.later(token, async move {
            match Live::open(&client, &id, options).await {
                Ok(document) => {
                    let about = document.about();
                    documents.add(number, document);
                    told::ok(about)
                }
                Err(failure) => told::failure(failure),
            }
        });
        Ok(())
    }

    /// From now on JavaScript hears what happens to the document.
    #[napi]
    pub fn hear_document(&self, number: u32) {
        let mut open = self.shared.documents.open.lock();
        let Some(Open { document, listening }) = open.get_mut(&number) else { return };
        listening.get_or_insert_with(|| {
            let completions = self.shared.completions.clone();
            document.listen(move |told| {
                completions.push(Completion::Happened { document: number, told });
            })
        });
    }

    /// Sends what is not sent, has the server store it, and leaves. Call `token` ends with the ids of the operations
    /// that a crash of the server now would lose.
    #[napi]
    pub fn close_document(&self, number: u32, token: u32, timeout: f64) -> Result<()> {
        let document = self.live(number)?;
        self.later(token, async move { told::ok(document.close_within(millis(timeout)).await) });
        Ok(())
    }

    /// Nobody has the document any more: what was edited is sent in the background.
    #[napi]
    pub fn drop_document(&self, number: u32) {
        let gone = self.shared.documents.open.lock().remove(&number);
        drop(gone);
    }

    fn live(&self, number: u32) -> Result<Live> {
        self.shared.documents.live(number)
    }

    fn document(&self, number: u32) -> Result<Document> {
        match self.live(number)? {
            Live::Plain(document) => Ok(document),
            Live::Yjs(_) => Err(other_kind("this is a Yjs document")),
        }
    }

    fn yjs(&self, number: u32) -> Result<YjsDocument> {
        match self.live(number)? {
            Live::Yjs(document) => Ok(document),
            Live::Plain(_) => Err(other_kind("this is no Yjs document")),
        }
    }

    /// Call `token` ends with what `work` comes to.
    fn later(&self, token: u32, work: impl Future<Output = Bytes> + Send + 'static) {
        let completions = self.shared.completions.clone();
        kps::runtime::spawn(async move {
            let json = work.await;
            completions.push(Completion::Ended { token, json });
        });
    }
}

fn other_kind(sentence: &'static str) -> napi::Error<&'static str> {
    thrown(Error::new(ErrorKind::InvalidArgument, sentence))
}
