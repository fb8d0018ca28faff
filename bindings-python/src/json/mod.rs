//! JSON from and to Python objects.
//!
//! Written here rather than taken from `serde_json` and `jiter`: the encoder walks the objects
//! without an intermediate `Serializer`, and the decoder follows it to every depth it can write,
//! keeps big integers exact and refuses doubles that do not fit (`1e400`), none of which `jiter`
//! does at once.

mod dates;
pub(crate) mod decode;
pub(crate) mod encode;
mod types;

use std::cell::Cell;

use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};

/// The bytes that `publish` makes of `data`: those of `orjson.dumps`, what it refuses is refused.
#[pyfunction]
pub(crate) fn dumps<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    with_buffer(|out| {
        encode::encode(data, out).map_err(|refusal| refusal.into_error(data.py(), "data"))?;
        Ok(PyBytes::new(data.py(), out))
    })
}

/// What `message.data` makes of a JSON payload.
#[pyfunction]
pub(crate) fn loads<'py>(py: Python<'py>, raw: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    decode::decode(py, raw).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Runs `write` with an empty buffer that keeps its room from call to call. Objects' own code may
/// encode again meanwhile: that call gets another buffer.
pub(crate) fn with_buffer<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    /// A large message must not hold its memory for ever.
    const KEPT: usize = 64 << 10;
    let mut buffer = BUFFER.take();
    let result = write(&mut buffer);
    if buffer.capacity() <= KEPT {
        buffer.clear();
        BUFFER.set(buffer);
    }
    result
}
