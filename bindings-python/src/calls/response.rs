//! What became of a call, as Python sees it.

use kps::{
    ErrorKind,
    capability::{Failure, Response as CoreResponse},
};
use pyo3::{exceptions::PyKeyError, prelude::*, types::PyDict};

use super::value;
use crate::errors;

/// What became of a call.
#[pyclass(frozen, module = "kps._kps")]
pub(crate) struct Response {
    id: String,
    outcome: Result<Py<PyAny>, Py<CallError>>,
    duration: f64,
    attempts: u32,
    provider: Option<String>,
}

impl Response {
    pub(super) fn new(py: Python<'_>, response: CoreResponse) -> PyResult<Self> {
        Ok(Response {
            id: (*response.id).to_owned(),
            outcome: match response.outcome {
                Ok(data) => Ok(value::to_py(py, data)?.unbind()),
                Err(failure) => Err(Py::new(py, CallError(failure))?),
            },
            duration: response.duration.as_micros() as f64 / 1e3,
            attempts: response.attempts,
            provider: response.provider.map(|id| (*id).to_owned()),
        })
    }
}

#[pymethods]
impl Response {
    #[getter]
    fn id(&self) -> &str {
        &self.id
    }

    #[getter]
    fn status(&self) -> &'static str {
        if self.outcome.is_ok() { "ok" } else { "error" }
    }

    #[getter]
    fn ok(&self) -> bool {
        self.outcome.is_ok()
    }

    #[getter]
    fn data(&self, py: Python<'_>) -> Py<PyAny> {
        self.outcome.as_ref().map_or_else(|_| py.None(), |data| data.clone_ref(py))
    }

    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<CallError>> {
        self.outcome.as_ref().err().map(|error| error.clone_ref(py))
    }

    /// Milliseconds from the call to its end.
    #[getter]
    fn duration(&self) -> f64 {
        self.duration
    }

    #[getter]
    fn attempts(&self) -> u32 {
        self.attempts
    }

    #[getter]
    fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// The answer; raises why there is none.
    fn unwrap(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.outcome {
            Ok(data) => Ok(data.clone_ref(py)),
            Err(error) => Err(raised(py, &error.get().0)),
        }
    }

    /// The envelope.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("id", &self.id)?;
        dict.set_item("status", self.status())?;
        match &self.outcome {
            Ok(data) => dict.set_item("data", data)?,
            Err(error) => dict.set_item("error", error.get().to_dict(py)?)?,
        }
        dict.set_item("duration", self.duration)?;
        dict.set_item("attempts", self.attempts)?;
        if let Some(provider) = &self.provider {
            dict.set_item("provider", provider)?;
        }
        Ok(dict)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(match &self.outcome {
            Ok(data) => format!("Response(status='ok', data={})", data.bind(py).repr()?),
            Err(error) => format!("Response(status='error', error={})", error.get().__repr__()),
        })
    }
}

/// Why a call failed.
#[pyclass(frozen, module = "kps._kps")]
pub(crate) struct CallError(Failure);

#[pymethods]
impl CallError {
    #[getter]
    fn code(&self) -> &'static str {
        self.0.code()
    }

    #[getter]
    fn message(&self) -> &str {
        &self.0.message
    }

    #[getter]
    fn retry(&self) -> bool {
        self.0.retry
    }

    #[getter]
    fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    #[getter]
    fn r#type(&self) -> Option<&str> {
        self.0.raised.as_ref().map(|raised| &*raised.kind)
    }

    #[getter]
    fn traceback(&self) -> Option<&str> {
        self.0.raised.as_ref().and_then(|raised| raised.traceback.as_deref())
    }

    /// As in the envelope.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        value::to_py(py, self.0.clone().into_value())
    }

    fn __getitem__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        match self.0.clone().into_value().get(name) {
            Some(found) => value::to_py(py, found.clone()),
            None => Err(PyKeyError::new_err(name.to_owned())),
        }
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("CallError(code={:?}, message={:?})", self.0.code(), self.0.message)
    }
}

/// The failure as the exception of its code, with `retry`, `field`, `type` and `traceback`.
pub(crate) fn raised(py: Python<'_>, failure: &Failure) -> PyErr {
    let error = errors::to_py(py, &failure.clone().into_error());
    let value = error.value(py);
    let details = [
        ("field", failure.field.as_deref()),
        ("remote_type", failure.raised.as_ref().map(|raised| &*raised.kind)),
        (
            "remote_traceback",
            failure.raised.as_ref().and_then(|raised| raised.traceback.as_deref()),
        ),
    ];
    // An exception that takes no attributes still says what matters.
    let _ = value.setattr("retry", failure.retry);
    for (name, detail) in details {
        let _ = value.setattr(name, detail);
    }
    error
}

/// The kind that a program's own exception stands for.
pub(super) fn kind_of(code: &str) -> Option<ErrorKind> {
    ErrorKind::ALL.iter().copied().find(|kind| kind.code() == code)
}
