//! Payloads: `bytes` as they are, `str` as text, everything else as JSON.

use kps::message::{ContentType, Payload};
use pyo3::{
    buffer::PyBuffer,
    ffi,
    prelude::*,
    types::{PyByteArray, PyBytes, PyMemoryView, PyString},
};

use crate::{errors, json};

/// Hands the encoded `data` to `send`. `argument` names it in a `TypeError`.
#[inline]
pub(crate) fn with_encoded<T>(
    data: &Bound<'_, PyAny>,
    argument: &str,
    send: impl FnOnce(ContentType, &[u8]) -> PyResult<T>,
) -> PyResult<T> {
    let py = data.py();
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        return send(ContentType::Bytes, bytes.as_bytes());
    }
    if data.cast_exact::<PyString>().is_ok() {
        // SAFETY: a `str`, held by `data`.
        let text = unsafe { json::encode::utf8(py, data.as_ptr()) };
        let text = text.map_err(|refusal| refusal.into_error(py, argument))?;
        return send(ContentType::Text, text.as_bytes());
    }
    json::with_buffer(|out| {
        let content_type = match bytes_like(data)? {
            Some(bytes) => {
                out.extend_from_slice(&bytes);
                ContentType::Bytes
            }
            None => {
                json::encode::encode(data, out)
                    .map_err(|refusal| refusal.into_error(py, argument))?;
                ContentType::Json
            }
        };
        send(content_type, out)
    })
}

/// The encoded `data`, owned.
pub(crate) fn encoded(data: &Bound<'_, PyAny>, argument: &str) -> PyResult<Payload> {
    with_encoded(data, argument, |content_type, bytes| {
        Ok(Payload { content_type, bytes: bytes.to_vec().into() })
    })
}

/// JSON's `null`, what a handler that returns nothing answers.
pub(crate) fn null() -> Payload {
    Payload::json(&b"null"[..])
}

/// The Python value of a payload.
pub(crate) fn decoded<'py>(py: Python<'py>, payload: &Payload) -> PyResult<Bound<'py, PyAny>> {
    match payload.content_type {
        ContentType::Json => json::decode::decode(py, &payload.bytes)
            .map_err(|error| invalid(py, &error.to_string())),
        ContentType::Text => match std::str::from_utf8(&payload.bytes) {
            Ok(text) => Ok(PyString::new(py, text).into_any()),
            Err(error) => Err(invalid(py, &format!("text is not UTF-8: {error}"))),
        },
        ContentType::Bytes => Ok(PyBytes::new(py, &payload.bytes).into_any()),
    }
}

#[cold]
fn invalid(py: Python<'_>, what: &str) -> PyErr {
    errors::raise(py, kps::ErrorKind::InvalidPayload, format!("{what}; read message.raw instead"))
}

/// The bytes of `bytearray`, `memoryview` and subclasses of `bytes`.
#[inline]
fn bytes_like(data: &Bound<'_, PyAny>) -> PyResult<Option<Vec<u8>>> {
    let kind = data.get_type_ptr();
    if kind == &raw mut ffi::PyDict_Type || kind == &raw mut ffi::PyList_Type {
        return Ok(None);
    }
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return Ok(Some(bytes.as_bytes().to_vec()));
    }
    if data.is_instance_of::<PyByteArray>() || data.is_instance_of::<PyMemoryView>() {
        return Ok(Some(PyBuffer::<u8>::get(data)?.to_vec(data.py())?));
    }
    Ok(None)
}
