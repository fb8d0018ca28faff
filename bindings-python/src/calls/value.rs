//! Python objects as values of calls, and back.

use std::sync::Arc;

use kps::ErrorKind;
use kps::capability::{Array, Callback, Failure, Map, NumberKind, Value};
use num_bigint::BigInt;
use pyo3::{
    buffer::{PyBuffer, PyUntypedBuffer},
    intern,
    prelude::*,
    types::{
        PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString,
        PyTuple,
    },
};

use crate::{host::Host, json, shared};

/// Nesting that is taken; more is nearly always an object that holds itself.
const DEPTH: usize = 120;

/// Why an object is no value.
pub(crate) enum Refusal {
    /// Its caller is told in the response.
    Failure(Failure),
    /// What the object's own code raised.
    Raised(PyErr),
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Refusal::Raised(error)
    }
}

/// The value of `object`; functions in it are called on `host`'s loop.
pub(crate) fn from_py(host: &Arc<Host>, object: &Bound<'_, PyAny>) -> Result<Value, Refusal> {
    Reader { host, path: Vec::new() }.value(object)
}

struct Reader<'a> {
    host: &'a Arc<Host>,
    path: Vec<String>,
}

impl Reader<'_> {
    fn value(&mut self, object: &Bound<'_, PyAny>) -> Result<Value, Refusal> {
        if object.is_none() {
            return Ok(Value::Null);
        }
        if let Ok(text) = object.cast::<PyString>() {
            return match text.to_str() {
                Ok(text) => Ok(Value::from(text)),
                Err(_) => self.refuse("a str with a lone surrogate is not valid UTF-8"),
            };
        }
        if let Ok(flag) = object.cast::<PyBool>() {
            return Ok(Value::Bool(flag.is_true()));
        }
        // An enum that is an int is its value, as in JSON.
        if object.cast_exact::<PyInt>().is_ok() {
            return Ok(match object.extract::<i64>() {
                Ok(number) => Value::Int(number),
                Err(_) => Value::big(object.extract::<BigInt>()?),
            });
        }
        if let Ok(number) = object.cast_exact::<PyFloat>() {
            return Ok(Value::Float(number.value()));
        }
        if let Ok(dict) = object.cast::<PyDict>() {
            return self.dict(dict);
        }
        if let Ok(list) = object.cast::<PyList>() {
            return self.list(list.iter(), list.len());
        }
        if let Ok(tuple) = object.cast::<PyTuple>() {
            return self.list(tuple.iter(), tuple.len());
        }
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Value::Bytes(held(bytes)));
        }
        if object.is_instance_of::<PyByteArray>() {
            return Ok(Value::Bytes(PyBuffer::<u8>::get(object)?.to_vec(object.py())?.into()));
        }
        if let Some(array) = self.array(object)? {
            return Ok(array);
        }
        if object.is_callable() && !object.is_instance_of::<pyo3::types::PyType>() {
            return Ok(Value::Callback(callback(self.host, object.clone().unbind())));
        }
        self.other(object)
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>) -> Result<Value, Refusal> {
        self.deeper()?;
        let mut map = Map::default();
        for (name, value) in dict {
            let Ok(key) = name.cast::<PyString>() else {
                return self.refuse("a dict has a key that is no str");
            };
            let Ok(key) = key.to_str() else {
                return self.refuse("a dict has a key that is not valid UTF-8");
            };
            self.path.push(key.to_owned());
            map.push(key, self.value(&value)?);
            self.path.pop();
        }
        Ok(Value::Map(map))
    }

    fn list<'py>(
        &mut self,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
        length: usize,
    ) -> Result<Value, Refusal> {
        self.deeper()?;
        let mut list = Vec::with_capacity(length);
        for (at, item) in items.enumerate() {
            // The place is spelled only where it is needed: lists may be long.
            if is_plain(&item) {
                list.push(self.value(&item)?);
                continue;
            }
            self.path.push(at.to_string());
            list.push(self.value(&item)?);
            self.path.pop();
        }
        Ok(Value::List(list))
    }

    /// Memory that the object shows as numbers: not copied if it lies in one piece.
    fn array(&mut self, object: &Bound<'_, PyAny>) -> Result<Option<Value>, Refusal> {
        let Ok(buffer) = PyUntypedBuffer::get(object) else { return Ok(None) };
        let format = buffer.format().to_str().unwrap_or_default();
        if object.is_instance_of::<PyMemoryView>() && format == "B" && buffer.dimensions() == 1 {
            return Ok(Some(Value::Bytes(
                PyBuffer::<u8>::get(object)?.to_vec(object.py())?.into(),
            )));
        }
        let Some(kind) = kind_of(format, buffer.item_size()) else {
            return self.refuse(&format!("an array of format {format:?} is not supported"));
        };
        let shape = buffer.shape().to_vec();
        if buffer.is_c_contiguous() {
            let bytes = bytes::Bytes::from_owner(Held(buffer));
            return Ok(Some(Array { kind, shape, bytes }.into()));
        }
        // A view with strides: gathered once.
        let view = PyMemoryView::from(object)?;
        let gathered = view.call_method0(intern!(object.py(), "tobytes"))?;
        let bytes = held(gathered.cast::<PyBytes>().map_err(PyErr::from)?);
        Ok(Some(Array { kind, shape, bytes }.into()))
    }

    /// What JSON knows besides: dates, UUIDs, dataclasses, enums.
    fn other(&mut self, object: &Bound<'_, PyAny>) -> Result<Value, Refusal> {
        let mut text = Vec::new();
        match json::encode::encode(object, &mut text) {
            Ok(()) => Value::from_json(&text).or_else(|error| self.refuse(&error)),
            Err(json::encode::Refusal::Type(sentence)) => self.refuse(&sentence),
            Err(json::encode::Refusal::Raised(error)) => Err(Refusal::Raised(error)),
        }
    }

    fn deeper(&self) -> Result<(), Refusal> {
        if self.path.len() < DEPTH {
            return Ok(());
        }
        let sentence = format!("it is nested more than {DEPTH} deep, or holds itself");
        Err(Refusal::Failure(Failure::field(self.path[0].clone(), sentence)))
    }

    fn refuse<T>(&self, sentence: &str) -> Result<T, Refusal> {
        Err(Refusal::Failure(match self.path.first() {
            Some(field) => {
                let place = self.path.join(".");
                Failure::field(field.clone(), format!("payload.{place}: {sentence}"))
            }
            None => Failure::new(ErrorKind::InvalidPayload, format!("payload: {sentence}")),
        }))
    }
}

/// Whether it can hold nothing else, and is always taken.
fn is_plain(object: &Bound<'_, PyAny>) -> bool {
    object.cast_exact::<PyInt>().is_ok() || object.cast_exact::<PyFloat>().is_ok()
}

/// A Python function that core may call.
pub(super) fn callback(host: &Arc<Host>, function: Py<PyAny>) -> Callback {
    let (host, function) = (Arc::downgrade(host), Arc::new(function));
    Callback::new(move |value| {
        let Some(host) = host.upgrade() else { return };
        let function = function.clone();
        let here = host.clone();
        host.complete(move |py| {
            let arguments = to_py(py, value).and_then(|value| PyTuple::new(py, [value]));
            match arguments {
                Ok(arguments) => shared::call(function.bind(py), &arguments, &here),
                Err(error) => error.write_unraisable(py, None),
            }
        });
    })
}

/// The bytes of a Python object, which is held meanwhile.
pub(super) fn held(bytes: &Bound<'_, PyBytes>) -> bytes::Bytes {
    struct Owner {
        data: *const u8,
        length: usize,
        _bytes: Py<PyBytes>,
    }
    // SAFETY: `bytes` objects do not change, and this one lives as long as its owner.
    unsafe impl Send for Owner {}
    // SAFETY: as above.
    unsafe impl Sync for Owner {}
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts(self.data, self.length) }
        }
    }
    let plain = bytes.as_bytes();
    if plain.len() <= 4096 {
        return bytes::Bytes::copy_from_slice(plain);
    }
    let (data, length) = (plain.as_ptr(), plain.len());
    bytes::Bytes::from_owner(Owner { data, length, _bytes: bytes.clone().unbind() })
}

/// A buffer in one piece. The program should not change it before the call has ended.
struct Held(PyUntypedBuffer);

// SAFETY: the memory is only read, and stays where it is while the buffer is held.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        let length = self.0.len_bytes();
        if length == 0 {
            return &[];
        }
        // SAFETY: contiguous, `length` bytes long, and held.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast(), length) }
    }
}

fn kind_of(format: &str, size: usize) -> Option<NumberKind> {
    let letter = format.trim_start_matches(['@', '=', '<']);
    Some(match (letter, size) {
        ("d", 8) => NumberKind::F64,
        ("f", 4) => NumberKind::F32,
        ("q" | "l" | "n", 8) => NumberKind::I64,
        ("i" | "l", 4) => NumberKind::I32,
        ("h", 2) => NumberKind::I16,
        ("b", 1) => NumberKind::I8,
        ("Q" | "L" | "N", 8) => NumberKind::U64,
        ("I" | "L", 4) => NumberKind::U32,
        ("H", 2) => NumberKind::U16,
        ("B" | "?", 1) => NumberKind::U8,
        _ => return None,
    })
}

const fn format_of(kind: NumberKind) -> &'static str {
    match kind {
        NumberKind::F64 => "d",
        NumberKind::F32 => "f",
        NumberKind::I64 => "q",
        NumberKind::I32 => "i",
        NumberKind::I16 => "h",
        NumberKind::I8 => "b",
        NumberKind::U64 => "Q",
        NumberKind::U32 => "I",
        NumberKind::U16 => "H",
        NumberKind::U8 => "B",
    }
}

/// The Python object of `value`. Arrays become memory views: `numpy.asarray` takes them as they are.
pub(crate) fn to_py(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(flag) => PyBool::new(py, flag).to_owned().into_any(),
        Value::Int(number) => number.into_pyobject(py)?.into_any(),
        Value::Big(number) => (*number).into_pyobject(py)?.into_any(),
        Value::Float(number) => PyFloat::new(py, number).into_any(),
        Value::Text(text) => PyString::new(py, &text).into_any(),
        Value::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
        Value::List(list) => {
            let items = PyList::empty(py);
            for value in list {
                items.append(to_py(py, value)?)?;
            }
            items.into_any()
        }
        Value::Map(map) => {
            let dict = PyDict::new(py);
            for (name, value) in map {
                dict.set_item(name, to_py(py, value)?)?;
            }
            dict.into_any()
        }
        Value::Array(array) => {
            let view = PyMemoryView::from(&PyBytes::new(py, &array.bytes))?;
            let format = format_of(array.kind);
            if array.shape.contains(&0) || array.shape.is_empty() {
                view.call_method1(intern!(py, "cast"), (format,))?
            } else {
                view.call_method1(intern!(py, "cast"), (format, PyTuple::new(py, &array.shape)?))?
            }
        }
        // A function of this process that came back: what called it knows it.
        Value::Callback(_) => py.None().into_bound(py),
    })
}
