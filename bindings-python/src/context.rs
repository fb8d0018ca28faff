//! Context variables: handlers see those of whoever subscribed, not those of whoever connected
//! first.

use pyo3::{ffi, prelude::*};

/// A copy of the context in which it was made.
pub(crate) struct Context(Py<PyAny>);

impl Context {
    /// A copy of the current one.
    pub(crate) fn copy(py: Python<'_>) -> PyResult<Context> {
        // SAFETY: attached; an owned reference, or null with an error set.
        let copy = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) };
        Ok(Context(copy?.unbind()))
    }

    /// Runs `run` in it. What it sets stays in it.
    #[inline]
    pub(crate) fn run<T>(&self, py: Python<'_>, run: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        // SAFETY: attached, and it is a context.
        if unsafe { ffi::PyContext_Enter(self.0.as_ptr()) } != 0 {
            // Entered already: a handler runs the loop inside itself.
            drop(PyErr::take(py));
            return run();
        }
        let result = run();
        // SAFETY: as above; it was entered on this thread just now.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } != 0 {
            drop(PyErr::take(py));
        }
        result
    }
}
