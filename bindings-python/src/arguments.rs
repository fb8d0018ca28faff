//! Arguments from Python: a wrong type is a `TypeError` that names the argument, a wrong value an
//! `invalid_argument`.

use std::time::Duration;

use kps::{
    ErrorKind,
    message::{Extras, Offline, ReceiptLevel},
    options::StartAt,
};
use pyo3::{
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple},
};

use crate::errors::{self, OrRaise};

/// Longer waits are this long: ten years.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A `str`.
#[inline]
pub(crate) fn text<'a>(value: &'a Bound<'_, PyAny>, name: &str) -> PyResult<&'a str> {
    match value.cast::<PyString>() {
        Ok(text) => text.to_str(),
        Err(_) => Err(errors::wrong_type(name, "str", value)),
    }
}

/// Seconds: not negative, `inf` is for ever.
pub(crate) fn seconds(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Duration> {
    let number = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    if !number || value.is_instance_of::<PyBool>() {
        return Err(errors::wrong_type(name, "a number of seconds", value));
    }
    let seconds: f64 = value.extract()?;
    if seconds.is_nan() || seconds < 0.0 {
        return Err(invalid(value.py(), format!("{name} must not be negative, but is {seconds}")));
    }
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(FOREVER).min(FOREVER))
}

/// A whole number from `least` on.
pub(crate) fn count(value: &Bound<'_, PyAny>, name: &str, least: u64) -> PyResult<u64> {
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(errors::wrong_type(name, "int", value));
    }
    match value.extract::<u64>() {
        Ok(count) if count >= least => Ok(count),
        _ => Err(invalid(value.py(), format!("{name} must be at least {least}, but is {value}"))),
    }
}

/// Where a subscription begins: a word, a cursor, a `datetime` with its time zone, or seconds since
/// the Unix epoch.
pub(crate) fn start_at(value: &Bound<'_, PyAny>) -> PyResult<StartAt> {
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        return StartAt::parse(text.to_str()?).or_raise(py);
    }
    let number = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    let seconds: f64 = if number && !value.is_instance_of::<PyBool>() {
        value.extract()?
    } else if value.hasattr("timestamp")? {
        if value.getattr("tzinfo")?.is_none() {
            return Err(invalid(py, "start: a datetime needs its time zone"));
        }
        value.call_method0("timestamp")?.extract()?
    } else {
        return Err(errors::wrong_type("start", "str, a number of seconds or datetime", value));
    };
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(invalid(py, format!("start: {seconds} is no time since the Unix epoch")));
    }
    Ok(StartAt::Time((seconds * 1000.0) as u64))
}

/// A callable.
pub(crate) fn callable(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Py<PyAny>> {
    if value.is_callable() {
        return Ok(value.clone().unbind());
    }
    Err(errors::wrong_type(name, "callable", value))
}

/// `None` for an argument left out or given as `None`.
pub(crate) fn given<'a, 'py>(
    value: Option<&'a Bound<'py, PyAny>>,
) -> Option<&'a Bound<'py, PyAny>> {
    value.filter(|value| !value.is_none())
}

/// What a publish may be told of its message.
pub(crate) struct Given<'a, 'py> {
    pub(crate) headers: Option<&'a Bound<'py, PyAny>>,
    pub(crate) id: Option<&'a Bound<'py, PyAny>>,
    pub(crate) ttl: Option<&'a Bound<'py, PyAny>>,
    pub(crate) to: Option<&'a Bound<'py, PyAny>>,
    pub(crate) private: Option<&'a Bound<'py, PyAny>>,
    pub(crate) offline: Option<&'a Bound<'py, PyAny>>,
}

/// It in core's words.
pub(crate) fn extras(arguments: &Given<'_, '_>) -> PyResult<Extras> {
    let Given { headers, id, ttl, to, private, offline } = *arguments;
    let mut extras = Extras::default();
    if let Some(headers) = given(headers) {
        let Ok(headers) = headers.cast::<PyDict>() else {
            return Err(errors::wrong_type("headers", "a dict of str", headers));
        };
        for (name, value) in headers {
            let name = text(&name, "a header's name")?.to_owned();
            let value = text(&value, "a header's value")?.to_owned();
            extras.headers.push((name, value));
        }
    }
    extras.id = given(id).map(|id| text(id, "id").map(str::to_owned)).transpose()?;
    extras.ttl = given(ttl).map(|ttl| seconds(ttl, "ttl")).transpose()?;
    extras.to = given(to).map(|to| texts(to, "to")).transpose()?;
    if let Some(private) = given(private) {
        let Ok(private) = private.cast::<PyBool>() else {
            return Err(errors::wrong_type("private", "bool", private));
        };
        extras.private = private.is_true();
    }
    if let Some(offline) = given(offline) {
        extras.offline = Offline::parse(text(offline, "offline")?).or_raise(offline.py())?;
    }
    Ok(extras)
}

/// A list or tuple of texts.
pub(crate) fn texts(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<String>> {
    if !value.is_instance_of::<PyList>() && !value.is_instance_of::<PyTuple>() {
        return Err(errors::wrong_type(name, "a list of str", value));
    }
    value.try_iter()?.map(|item| Ok(text(&item?, name)?.to_owned())).collect()
}

/// A receipt's level.
pub(crate) fn level(value: &Bound<'_, PyAny>) -> PyResult<ReceiptLevel> {
    use ReceiptLevel::{Accepted, Queued, QueuedOnDisk, Replicated, Stored};
    let name = text(value, "receipt")?;
    [Queued, QueuedOnDisk, Accepted, Stored, Replicated]
        .into_iter()
        .find(|level| level.as_str() == name)
        .ok_or_else(|| invalid(value.py(), format!("receipt: no level is called {name:?}")))
}

pub(crate) fn invalid(py: Python<'_>, sentence: impl Into<String>) -> PyErr {
    errors::raise(py, ErrorKind::InvalidArgument, sentence)
}
