//! The native half of the Python package `kps`: `kps._kps`.

mod json;

use pyo3::prelude::*;

/// What `kps/_kps.pyi` describes.
#[pymodule]
#[pyo3(gil_used = true)]
mod _kps {
    #[pymodule_export]
    use crate::json::{dumps, loads};
}
