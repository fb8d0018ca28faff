//! Which of the things that JSON can say a Python type is.

use pyo3::{
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyType},
};

/// How objects of a type are written.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Str,
    Int,
    List,
    Dict,
    Tuple,
    DateTime,
    Date,
    Time,
    Uuid,
    Enum,
    Dataclass,
    Other,
}

/// The kind of a type that is none of `str int bool None float list dict` itself.
pub(super) fn unusual(py: Python<'_>, kind: *mut ffi::PyTypeObject) -> Kind {
    // SAFETY: `kind` is the type of a live object, and we are attached.
    unsafe {
        if std::ptr::eq(kind, &raw const ffi::PyTuple_Type) {
            return Kind::Tuple;
        }
        if let Some(api) = datetime_api(py) {
            if kind == (*api).DateTimeType {
                return Kind::DateTime;
            }
            if kind == (*api).DateType {
                return Kind::Date;
            }
            if kind == (*api).TimeType {
                return Kind::Time;
            }
        }
        if is_loaded(py, &UUID, "uuid", "UUID", kind) {
            return Kind::Uuid;
        }
        // Before the subclasses: `class Colour(str, Enum)` is its value.
        if is_loaded(py, &ENUM_META, "enum", "EnumMeta", ffi::Py_TYPE(kind.cast())) {
            return Kind::Enum;
        }
        if ffi::PyType_FastSubclass(kind, ffi::Py_TPFLAGS_UNICODE_SUBCLASS) != 0 {
            return Kind::Str;
        }
        if ffi::PyType_FastSubclass(kind, ffi::Py_TPFLAGS_LONG_SUBCLASS) != 0 {
            return Kind::Int;
        }
        if ffi::PyType_FastSubclass(kind, ffi::Py_TPFLAGS_LIST_SUBCLASS) != 0 {
            return Kind::List;
        }
        if ffi::PyType_FastSubclass(kind, ffi::Py_TPFLAGS_DICT_SUBCLASS) != 0 {
            return Kind::Dict;
        }
        let class = Bound::from_borrowed_ptr(py, kind.cast());
        if own_attribute(&class, intern!(py, "__dataclass_fields__")) {
            return Kind::Dataclass;
        }
    }
    Kind::Other
}

/// Whether the class itself, not a base, defines `name`.
pub(super) fn own_attribute(class: &Bound<'_, PyAny>, name: &Bound<'_, PyAny>) -> bool {
    class
        .getattr(intern!(class.py(), "__dict__"))
        .and_then(|dict| dict.contains(name))
        .unwrap_or(false)
}

static UUID: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static ENUM_META: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Whether `kind` is `module.name`. A module that nobody imported has no objects, so it is looked
/// up in `sys.modules` only: importing it here would cost milliseconds for a yes that cannot be.
fn is_loaded(
    py: Python<'_>,
    cell: &PyOnceLock<Py<PyType>>,
    module: &str,
    name: &str,
    kind: *mut ffi::PyTypeObject,
) -> bool {
    let class = cell.get(py).or_else(|| {
        let class = loaded_module(py, module)?.getattr(name).ok()?.cast_into::<PyType>().ok()?;
        Some(cell.get_or_init(py, || class.unbind()))
    });
    class.is_some_and(|class| std::ptr::eq(class.as_ptr(), kind.cast()))
}

fn loaded_module<'py>(py: Python<'py>, module: &str) -> Option<Bound<'py, PyAny>> {
    let modules = py.import(intern!(py, "sys")).ok()?.getattr(intern!(py, "modules")).ok()?;
    modules.cast::<PyDict>().ok()?.get_item(module).ok()?
}

/// The C API of `datetime`, if the program has imported it.
pub(super) fn datetime_api(py: Python<'_>) -> Option<*mut ffi::PyDateTime_CAPI> {
    // SAFETY: attached; `PyDateTime_IMPORT` fills the static or leaves it null with an error set.
    unsafe {
        let api = ffi::PyDateTimeAPI();
        if !api.is_null() {
            return Some(api);
        }
        loaded_module(py, "datetime")?;
        ffi::PyDateTime_IMPORT();
        let api = ffi::PyDateTimeAPI();
        if api.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        Some(api)
    }
}
