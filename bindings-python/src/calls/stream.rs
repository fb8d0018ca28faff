//! Large values as streams; `kps/_storage.py` is their face.

use std::sync::Arc;

use bytes::Bytes;
use kps::{
    ErrorKind,
    capability::{
        CallTarget, Failure, Outcome,
        storage::{Download, StorageClient, Upload},
    },
};
use parking_lot::Mutex as Slot;
use pyo3::{
    buffer::PyBuffer,
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyDict},
};
use tokio::sync::Mutex;

use super::{response::raised, value};
use crate::{
    arguments::{given, text},
    client::{Client, finish},
    errors,
    host::Host,
    wait::Await,
};

fn storage(
    py: Python<'_>,
    client: &Client,
    target: Option<&Bound<'_, PyAny>>,
) -> PyResult<StorageClient> {
    let link = client.shared(py)?.link().clone();
    let storage = kps::Client::from(link).storage();
    Ok(match given(target) {
        Some(target) => storage.at(CallTarget::parse(text(target, "target")?)),
        None => storage,
    })
}

/// The coroutine that begins an upload with the fields of `storage.upload`.
pub(crate) fn upload(
    py: Python<'_>,
    client: &Client,
    fields: &Bound<'_, PyDict>,
    target: Option<&Bound<'_, PyAny>>,
) -> PyResult<Await> {
    let storage = storage(py, client, target)?;
    let fields = match value::from_py(&Host::current(py)?, fields.as_any()) {
        Ok(fields) => fields,
        Err(value::Refusal::Raised(error)) => return Err(error),
        Err(value::Refusal::Failure(failure)) => return Err(raised(py, &failure)),
    };
    Ok(finish("upload", async move { storage.upload(fields).await }, |py, upload| {
        let upload = upload.map_err(|failure| raised(py, &failure))?;
        Ok(Py::new(py, StorageWriter::new(upload))?.into_any())
    }))
}

/// The coroutine that begins to read a value.
pub(crate) fn download(
    py: Python<'_>,
    client: &Client,
    key: &Bound<'_, PyAny>,
    target: Option<&Bound<'_, PyAny>>,
) -> PyResult<Await> {
    let (storage, key) = (storage(py, client, target)?, text(key, "key")?.to_owned());
    Ok(finish("stream", async move { storage.download(&key).await }, |py, download| {
        let download = download.map_err(|failure| raised(py, &failure))?;
        Ok(Py::new(py, StorageReader::new(download))?.into_any())
    }))
}

/// A value that is being saved.
#[pyclass(frozen, module = "kps._kps")]
pub(crate) struct StorageWriter(Arc<Mutex<Option<Upload>>>);

impl StorageWriter {
    fn new(upload: Upload) -> Self {
        StorageWriter(Arc::new(Mutex::new(Some(upload))))
    }
}

#[pymethods]
impl StorageWriter {
    /// Adds bytes; resolves when there is room for more.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<Await> {
        let (upload, bytes) = (self.0.clone(), piece(data)?);
        let written = async move {
            match &mut *upload.lock().await {
                Some(upload) => upload.write(bytes).await,
                None => Err(over()),
            }
        };
        Ok(finish("write", written, |py, result| match result {
            Ok(()) => Ok(py.None()),
            Err(failure) => Err(raised(py, &failure)),
        }))
    }

    /// Makes what was written the value.
    fn finish(&self) -> Await {
        let upload = self.0.clone();
        let finished = async move {
            let taken = upload.lock().await.take();
            match taken {
                Some(upload) => upload.finish().await,
                None => Err(over()),
            }
        };
        finish("finish", finished, answered)
    }

    /// Gives it up, in the background.
    fn cancel(&self) {
        let upload = self.0.clone();
        kps::runtime::spawn(async move {
            let taken = upload.lock().await.take();
            if let Some(upload) = taken {
                upload.cancel().await;
            }
        });
    }
}

fn answered(py: Python<'_>, outcome: Outcome) -> PyResult<Py<PyAny>> {
    match outcome {
        Ok(answer) => Ok(value::to_py(py, answer)?.unbind()),
        Err(failure) => Err(raised(py, &failure)),
    }
}

/// A value that is being read.
#[pyclass(frozen, module = "kps._kps")]
pub(crate) struct StorageReader {
    about: Slot<Option<kps::capability::Value>>,
    download: Arc<Mutex<Option<Download>>>,
}

impl StorageReader {
    fn new(download: Download) -> Self {
        let about = Slot::new(Some(download.about().clone()));
        StorageReader { about, download: Arc::new(Mutex::new(Some(download))) }
    }
}

#[pymethods]
impl StorageReader {
    /// What is known of the value; once.
    fn about(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let about = self.about.lock().take().unwrap_or_default();
        Ok(value::to_py(py, about)?.unbind())
    }

    /// The next bytes; `None` at the end.
    fn next(&self) -> Await {
        let download = self.download.clone();
        let read = async move {
            let mut download = download.lock().await;
            match &mut *download {
                Some(open) => match open.next().await {
                    Some(Ok(bytes)) => Ok(Some(bytes)),
                    ended => {
                        *download = None;
                        ended.transpose()
                    }
                },
                None => Ok(None),
            }
        };
        finish("next", read, |py, read: Result<Option<Bytes>, Failure>| match read {
            Ok(Some(bytes)) => Ok(PyBytes::new(py, &bytes).into_any().unbind()),
            Ok(None) => Ok(py.None()),
            Err(failure) => Err(raised(py, &failure)),
        })
    }

    /// Reads no more; what was read ahead is forgotten.
    fn close(&self) {
        let download = self.download.clone();
        kps::runtime::spawn(async move { *download.lock().await = None });
    }
}

/// The bytes of an object that has some.
fn piece(data: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return Ok(value::held(bytes));
    }
    let py = data.py();
    // It may change while it is on its way.
    match PyBuffer::<u8>::get(data) {
        Ok(buffer) => Ok(buffer.to_vec(py)?.into()),
        Err(error) if error.is_instance_of::<PyTypeError>(py) => {
            Err(errors::wrong_type("a piece of the value", "bytes", data))
        }
        // Its items are no bytes, but it has some.
        Err(_) => {
            let view = pyo3::types::PyMemoryView::from(data)?.call_method0("tobytes")?;
            Ok(value::held(view.cast::<PyBytes>()?))
        }
    }
}

fn over() -> Failure {
    Failure::new(ErrorKind::Closed, "the upload is over; begin another one")
}
