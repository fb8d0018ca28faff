//! Large values as streams; `ts/storage.ts` is their face. Every step ends as a call does, with a response.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use kps::{
    ErrorKind,
    capability::{
        CallTarget, Failure, Outcome, Response, Value,
        storage::{Download, StorageClient, Upload},
    },
};
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use tokio::sync::Mutex;

use crate::{
    bridge::{Bridge, Shared},
    complete::Completion,
    error::{Result, thrown},
};

/// A value under way.
#[derive(Clone)]
pub(crate) enum Stream {
    In(Arc<Mutex<Option<Upload>>>),
    Out(Arc<Mutex<Option<Download>>>),
}

impl Shared {
    fn storage(&self, client: u32, target: Option<String>) -> Result<StorageClient> {
        let client = self.client(client).map_err(thrown)?;
        let storage = kps::Client::from(client.bridge).storage();
        Ok(match target {
            Some(target) => storage.at(CallTarget::parse(&target)),
            None => storage,
        })
    }

    /// Call `token` ends with what `work` comes to.
    fn answer(&self, token: u32, work: impl Future<Output = Outcome> + Send + 'static) {
        let (host, started) = (self.host.clone(), Instant::now());
        kps::runtime::spawn(async move {
            let outcome = work.await;
            let duration = started.elapsed();
            let response =
                Response { id: "".into(), outcome, duration, attempts: 1, provider: None };
            let response = host.write(&response.into_value());
            host.completions.push(Completion::Answered { token, response });
        });
    }

    fn stream(&self, number: u32) -> Option<Stream> {
        self.streams.lock().get(&number).cloned()
    }

    fn upload(&self, number: u32) -> Option<Arc<Mutex<Option<Upload>>>> {
        match self.stream(number) {
            Some(Stream::In(upload)) => Some(upload),
            _ => None,
        }
    }
}

#[napi]
impl Bridge {
    /// Begins an upload with the fields of `storage.upload`, as JSON. Call `token` ends once it has begun; the upload has
    /// the same number.
    #[napi]
    pub fn upload(
        &self,
        client: u32,
        token: u32,
        fields: String,
        target: Option<String>,
    ) -> Result<()> {
        let storage = self.shared.storage(client, target)?;
        let fields = Value::from_json(fields.as_bytes()).map_err(|error| {
            thrown(kps::Error::new(ErrorKind::InvalidArgument, error.to_string()))
        })?;
        let streams = self.shared.streams.clone();
        self.shared.answer(token, async move {
            let upload = storage.upload(fields).await?;
            streams.lock().insert(token, Stream::In(Arc::new(Mutex::new(Some(upload)))));
            Ok(Value::Null)
        });
        Ok(())
    }

    /// Adds bytes to an upload; call `token` ends when there is room for more.
    #[napi]
    pub fn write(&self, upload: u32, token: u32, bytes: Uint8Array) {
        let (upload, bytes) = (self.shared.upload(upload), Bytes::copy_from_slice(&bytes));
        self.shared.answer(token, async move {
            match upload.ok_or_else(over)?.lock().await.as_mut() {
                Some(upload) => upload.write(bytes).await.map(|()| Value::Null),
                None => Err(over()),
            }
        });
    }

    /// Makes what was written the value; call `token` ends with what is known of it.
    #[napi]
    pub fn finish_upload(&self, upload: u32, token: u32) {
        let (streams, found) = (self.shared.streams.clone(), self.shared.upload(upload));
        self.shared.answer(token, async move {
            streams.lock().remove(&upload);
            let taken = found.ok_or_else(over)?.lock().await.take();
            taken.ok_or_else(over)?.finish().await
        });
    }

    /// Begins to read a value. Call `token` ends with what is known of it; the download has the same number.
    #[napi]
    pub fn download(
        &self,
        client: u32,
        token: u32,
        key: String,
        target: Option<String>,
    ) -> Result<()> {
        let storage = self.shared.storage(client, target)?;
        let streams = self.shared.streams.clone();
        self.shared.answer(token, async move {
            let download = storage.download(&key).await?;
            let about = download.about().clone();
            streams.lock().insert(token, Stream::Out(Arc::new(Mutex::new(Some(download)))));
            Ok(about)
        });
        Ok(())
    }

    /// Call `token` ends with the next bytes of a download, or with `null` at its end.
    #[napi]
    pub fn read(&self, download: u32, token: u32) {
        let (streams, found) = (self.shared.streams.clone(), self.shared.stream(download));
        self.shared.answer(token, async move {
            let Some(Stream::Out(open)) = found else { return Ok(Value::Null) };
            let mut open = open.lock().await;
            let next = match open.as_mut() {
                Some(open) => open.next().await,
                None => None,
            };
            match next {
                Some(Ok(bytes)) => Ok(Value::Bytes(bytes)),
                ended => {
                    *open = None;
                    streams.lock().remove(&download);
                    ended.map_or(Ok(Value::Null), |failed| failed.map(Value::Bytes))
                }
            }
        });
    }

    /// Gives an upload up, or reads no more of a download.
    #[napi]
    pub fn end_stream(&self, number: u32) {
        match self.shared.streams.lock().remove(&number) {
            Some(Stream::In(upload)) => {
                kps::runtime::spawn(async move {
                    let taken = upload.lock().await.take();
                    if let Some(upload) = taken {
                        upload.cancel().await;
                    }
                });
            }
            Some(Stream::Out(download)) => {
                kps::runtime::spawn(async move { *download.lock().await = None });
            }
            None => {}
        }
    }
}

fn over() -> Failure {
    Failure::new(ErrorKind::Closed, "the upload is over; begin another one")
}
