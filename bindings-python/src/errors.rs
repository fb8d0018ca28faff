//! Core's errors as Python's: one class per code, defined in `kps/errors.py`.

use kps::{Error, ErrorKind};
use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError},
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyType},
};

/// The exception for `error`.
pub(crate) fn to_py(py: Python<'_>, error: &Error) -> PyErr {
    match class(py, error.code()) {
        Ok(class) => PyErr::from_type(class, (error.message().to_owned(),)),
        Err(cause) => cause,
    }
}

/// An `Error` of `kind` as an exception.
pub(crate) fn raise(py: Python<'_>, kind: ErrorKind, message: impl Into<String>) -> PyErr {
    to_py(py, &Error::new(kind, message.into()))
}

/// `Result` of core to `Result` of Python.
pub(crate) trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for kps::Result<T> {
    #[inline]
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| to_py(py, &error))
    }
}

/// The `TypeError` that names the argument.
#[cold]
pub(crate) fn wrong_type(argument: &str, wanted: &str, got: &Bound<'_, PyAny>) -> PyErr {
    let got = got.get_type().qualname().map_or_else(|_| "?".into(), |name| name.to_string());
    PyTypeError::new_err(format!("{argument} must be {wanted}, not {got}"))
}

/// Whether it is `asyncio.CancelledError`.
pub(crate) fn is_cancelled(py: Python<'_>, error: &PyErr) -> bool {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS
        .import(py, "asyncio.exceptions", "CancelledError")
        .is_ok_and(|class| error.is_instance(py, class))
}

fn class<'py>(py: Python<'py>, code: &str) -> PyResult<Bound<'py, PyType>> {
    static BY_CODE: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let classes = BY_CODE.import(py, "kps.errors", "BY_CODE")?;
    match classes.cast::<PyDict>()?.get_item(code)? {
        Some(class) => Ok(class.cast_into()?),
        None => Err(PyRuntimeError::new_err(format!("kps has no exception for {code}"))),
    }
}
