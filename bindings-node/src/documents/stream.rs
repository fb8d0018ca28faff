//! Text that is written to a document bit by bit.

use std::sync::Arc;

use kps::document::{DocumentStream, Start, StreamOptions, Version};
use napi_derive::napi;
use serde::Deserialize;

use super::told;
use crate::{
    bridge::Bridge,
    error::{Result, invalid},
    options::{millis, set},
};

/// `stream`'s options; at most one says where.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    position: Option<usize>,
    before: Option<String>,
    after: Option<String>,
    flush_every: Option<f64>,
    flush_bytes: Option<usize>,
}

impl From<Options> for StreamOptions {
    fn from(given: Options) -> Self {
        let start = match (given.position, given.before, given.after) {
            (Some(position), ..) => Start::At(position),
            (_, Some(before), _) => Start::Before(before),
            (_, _, Some(after)) => Start::After(after),
            _ => Start::End,
        };
        let mut options = StreamOptions { start, ..StreamOptions::default() };
        set(&mut options.flush_every, given.flush_every.map(millis));
        set(&mut options.flush_bytes, given.flush_bytes);
        options
    }
}

#[napi]
impl Bridge {
    /// Begins `stream`. What is returned says why not, as JSON.
    #[napi]
    pub fn begin_stream(
        &self,
        number: u32,
        stream: u32,
        options: String,
    ) -> Result<Option<String>> {
        let document = self.document(number)?;
        let options: Options = serde_json::from_str(&options).map_err(invalid)?;
        Ok(match document.stream(options.into()) {
            Ok(begun) => {
                self.shared.documents.streams.lock().insert(stream, Arc::new(begun));
                None
            }
            Err(it) => Some(told::refused(&it)),
        })
    }

    /// Writes more. What is returned says why something written before is not in the document, as JSON.
    #[napi]
    pub fn write_stream(&self, stream: u32, token: String) -> Option<String> {
        let written = self.stream(stream)?.write(&token);
        written.err().map(|it| told::refused(&it))
    }

    /// Sends what is left; call `token` ends with the version that has all of it, if anything was written.
    #[napi]
    pub fn close_stream(&self, stream: u32, token: u32) {
        let stream = self.stream(stream);
        self.later(token, async move {
            let Some(stream) = stream else { return told::ok(None::<String>) };
            match stream.close().await {
                Ok(version) => told::ok(version.map(|it: Version| it.to_string())),
                Err(it) => told::refused(&it).into(),
            }
        });
    }

    /// Nobody writes to it any more: what was written is sent.
    #[napi]
    pub fn drop_stream(&self, stream: u32) {
        let gone = self.shared.documents.streams.lock().remove(&stream);
        drop(gone);
    }

    fn stream(&self, stream: u32) -> Option<Arc<DocumentStream>> {
        self.shared.documents.streams.lock().get(&stream).cloned()
    }
}
