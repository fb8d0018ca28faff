//! Python objects to JSON, byte for byte as `orjson.dumps` (3.12 or newer) without options.

use pyo3::{exceptions::PyTypeError, ffi, intern, prelude::*, types::PyDict};

use super::{
    dates,
    types::{self, Kind},
};

/// Nesting that orjson writes: one more is refused.
const DEPTH: u8 = 254;

/// Why an object cannot be JSON.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A sentence about what was found.
    Type(String),
    /// What the object's own code raised.
    Raised(PyErr),
}

impl Refusal {
    /// The `TypeError` that names the argument the object came in.
    pub(crate) fn into_error(self, py: Python<'_>, argument: &str) -> PyErr {
        match self {
            Refusal::Type(text) => PyTypeError::new_err(format!("{argument}: {text}")),
            Refusal::Raised(cause) => {
                let error = PyTypeError::new_err(format!("{argument}: {}", cause.value(py)));
                error.set_cause(py, Some(cause));
                error
            }
        }
    }
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Refusal::Raised(error)
    }
}

/// Appends `object` as JSON. After an error, `out` holds the part that went well.
pub(crate) fn encode(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    Encoder { py: object.py(), out, depth: 0 }.value(object.as_ptr())
}

/// The text of a `str` as UTF-8.
///
/// # Safety
/// `object` is a `str` that outlives `'a`.
pub(crate) unsafe fn utf8<'a>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
) -> Result<&'a str, Refusal> {
    let mut length = 0;
    // SAFETY: the caller's; the bytes belong to the object, and Python says they are UTF-8.
    unsafe {
        let data = ffi::PyUnicode_AsUTF8AndSize(object, &raw mut length);
        if data.is_null() {
            drop(PyErr::take(py));
            return refuse("a str with a lone surrogate is not valid UTF-8");
        }
        let bytes = std::slice::from_raw_parts(data.cast::<u8>(), length as usize);
        Ok(std::str::from_utf8_unchecked(bytes))
    }
}

struct Encoder<'py, 'a> {
    py: Python<'py>,
    out: &'a mut Vec<u8>,
    depth: u8,
}

/// Pointers in here are borrowed from their container or owned by the caller. What may run the
/// program's own code (enums, dataclasses, zones) could change the container meanwhile, so
/// containers' items are held while they are written, except the kinds that run none.
impl<'py> Encoder<'py, '_> {
    #[inline]
    fn value(&mut self, object: *mut ffi::PyObject) -> Result<(), Refusal> {
        // SAFETY: `object` is alive (see above) and its type is compared before it is read as one.
        unsafe {
            let kind = ffi::Py_TYPE(object).cast_const();
            if std::ptr::eq(kind, &raw const ffi::PyUnicode_Type) {
                string(utf8(self.py, object)?, self.out);
                Ok(())
            } else if std::ptr::eq(kind, &raw const ffi::PyLong_Type) {
                self.int(object)
            } else if std::ptr::eq(kind, &raw const ffi::PyFloat_Type) {
                self.float(ffi::PyFloat_AS_DOUBLE(object));
                Ok(())
            } else if std::ptr::eq(object, ffi::Py_None()) {
                self.out.extend_from_slice(b"null");
                Ok(())
            } else if std::ptr::eq(object, ffi::Py_True()) {
                self.out.extend_from_slice(b"true");
                Ok(())
            } else if std::ptr::eq(object, ffi::Py_False()) {
                self.out.extend_from_slice(b"false");
                Ok(())
            } else {
                let object = Bound::from_borrowed_ptr(self.py, object);
                if std::ptr::eq(kind, &raw const ffi::PyDict_Type) {
                    self.nested(|encoder| encoder.dict(&object))
                } else if std::ptr::eq(kind, &raw const ffi::PyList_Type) {
                    self.nested(|encoder| encoder.list(&object))
                } else {
                    self.unusual(&object)
                }
            }
        }
    }

    #[cold]
    fn unusual(&mut self, object: &Bound<'py, PyAny>) -> Result<(), Refusal> {
        match types::unusual(self.py, object.get_type_ptr()) {
            Kind::Str => {
                // SAFETY: a subclass of `str`, held by `object`.
                string(unsafe { utf8(self.py, object.as_ptr())? }, self.out);
                Ok(())
            }
            Kind::Int => self.int(object.as_ptr()),
            Kind::List => self.nested(|encoder| encoder.list(object)),
            Kind::Dict => self.nested(|encoder| encoder.dict(object)),
            Kind::Tuple => self.nested(|encoder| encoder.tuple(object)),
            Kind::DateTime => Ok(dates::datetime(object, self.out)?),
            Kind::Date => {
                dates::date(object, self.out);
                Ok(())
            }
            Kind::Time if dates::time(object, self.out)? => Ok(()),
            Kind::Time => refuse("a datetime.time with tzinfo cannot be JSON"),
            Kind::Uuid => {
                let text = object.str()?;
                string(text.to_str()?, self.out);
                Ok(())
            }
            Kind::Enum => {
                let value = object.getattr(intern!(self.py, "value"))?;
                self.nested(|encoder| encoder.value(value.as_ptr()))
            }
            Kind::Dataclass => self.nested(|encoder| encoder.dataclass(object)),
            Kind::Other => {
                let name = object.get_type().fully_qualified_name()?;
                refuse(format!("an object of type {name} cannot be JSON"))
            }
        }
    }

    fn nested(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        if self.depth == DEPTH {
            return refuse(format!("nested deeper than {DEPTH} levels"));
        }
        self.depth += 1;
        let written = write(self);
        self.depth -= 1;
        written
    }

    fn dict(&mut self, object: &Bound<'py, PyAny>) -> Result<(), Refusal> {
        self.out.push(b'{');
        let (mut at, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        let start = self.out.len();
        // SAFETY: `object` is a dict. `PyDict_Next` checks its bounds at every step, also when the
        // dict changed meanwhile; the key is written before any code of the program can run.
        unsafe {
            while ffi::PyDict_Next(object.as_ptr(), &raw mut at, &raw mut key, &raw mut value) != 0
            {
                self.key(key, start)?;
                self.value(value)?;
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Writes the comma, if any, the key and the colon.
    ///
    /// # Safety
    /// `key` is alive.
    #[inline]
    unsafe fn key(&mut self, key: *mut ffi::PyObject, start: usize) -> Result<(), Refusal> {
        if self.out.len() != start {
            self.out.push(b',');
        }
        // SAFETY: the caller's, and the type is compared before it is read as a str.
        unsafe {
            if !std::ptr::eq(ffi::Py_TYPE(key), &raw mut ffi::PyUnicode_Type) {
                let name = Bound::from_borrowed_ptr(self.py, key).get_type().qualname()?;
                return refuse(format!("a dict's keys must be str, not {name}"));
            }
            string(utf8(self.py, key)?, self.out);
        }
        self.out.push(b':');
        Ok(())
    }

    fn list(&mut self, object: &Bound<'py, PyAny>) -> Result<(), Refusal> {
        self.out.push(b'[');
        let mut index = 0;
        // SAFETY: `object` is a list; its length is read again at every step.
        unsafe {
            while index < ffi::PyList_GET_SIZE(object.as_ptr()) {
                if index != 0 {
                    self.out.push(b',');
                }
                self.value(ffi::PyList_GET_ITEM(object.as_ptr(), index))?;
                index += 1;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn tuple(&mut self, object: &Bound<'py, PyAny>) -> Result<(), Refusal> {
        self.out.push(b'[');
        // SAFETY: `object` is a tuple, which does not change.
        unsafe {
            for index in 0..ffi::PyTuple_GET_SIZE(object.as_ptr()) {
                if index != 0 {
                    self.out.push(b',');
                }
                self.value(ffi::PyTuple_GET_ITEM(object.as_ptr(), index))?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// The attributes in `__dict__`; with `__slots__`, the declared fields. Names that start with
    /// an underscore are left out.
    fn dataclass(&mut self, object: &Bound<'py, PyAny>) -> Result<(), Refusal> {
        let py = self.py;
        self.out.push(b'{');
        let start = self.out.len();
        let class = object.get_type();
        let slots = types::own_attribute(&class, intern!(py, "__slots__"));
        match object.getattr_opt(intern!(py, "__dict__"))? {
            Some(attributes) if !slots => {
                for (name, value) in attributes.cast::<PyDict>().map_err(PyErr::from)? {
                    self.field(&name, &value, start)?;
                }
            }
            _ => {
                let regular = py.import("dataclasses")?.getattr("_FIELD")?;
                let fields = object.getattr(intern!(py, "__dataclass_fields__"))?;
                for (name, field) in fields.cast::<PyDict>().map_err(PyErr::from)? {
                    if !field.getattr(intern!(py, "_field_type"))?.is(&regular) {
                        continue;
                    }
                    let value = object.getattr(name.cast().map_err(PyErr::from)?)?;
                    self.field(&name, &value, start)?;
                }
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn field(
        &mut self,
        name: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        start: usize,
    ) -> Result<(), Refusal> {
        if name.extract::<&str>().is_ok_and(|name| name.starts_with('_')) {
            return Ok(());
        }
        // SAFETY: `name` is held by its `Bound`.
        unsafe { self.key(name.as_ptr(), start)? };
        self.value(value.as_ptr())
    }

    #[inline]
    fn int(&mut self, object: *mut ffi::PyObject) -> Result<(), Refusal> {
        let mut overflow = 0;
        // SAFETY: `object` is a live int.
        let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow) };
        let mut buffer = itoa::Buffer::new();
        let text = if overflow == 0 {
            buffer.format(value)
        } else {
            // SAFETY: as above. A negative one, or one above 2^64, sets an error.
            let value = unsafe { ffi::PyLong_AsUnsignedLongLong(object) };
            if PyErr::take(self.py).is_some() {
                return refuse("an int beyond 64 bits cannot be JSON");
            }
            buffer.format(value)
        };
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    #[inline]
    fn float(&mut self, value: f64) {
        if value.is_finite() {
            let mut buffer = zmij::Buffer::new();
            self.out.extend_from_slice(buffer.format_finite(value).as_bytes());
        } else {
            self.out.extend_from_slice(b"null");
        }
    }
}

fn refuse<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Type(text.into()))
}

/// Appends `text` in quotes. Everything but `"`, `\` and control characters stays as it is.
#[inline]
fn string(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    if is_clean(bytes) {
        out.extend_from_slice(bytes);
    } else {
        let clean = clean_prefix(bytes);
        out.extend_from_slice(&bytes[..clean]);
        escaped(&bytes[clean..], out);
    }
    out.push(b'"');
}

#[cold]
fn escaped(mut bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    while let Some((&byte, rest)) = bytes.split_first() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        let clean = clean_prefix(rest);
        out.extend_from_slice(&rest[..clean]);
        bytes = &rest[clean..];
    }
}

/// Whether no byte needs an escape. Most strings are short keys: words overlap at the end rather
/// than leave a rest of single bytes.
#[inline]
fn is_clean(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<8>() {
        let (words, _) = bytes.as_chunks::<8>();
        let found = words.iter().fold(0, |found, word| found | dirty(u64::from_le_bytes(*word)));
        return found | dirty(u64::from_le_bytes(*last)) == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let word =
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
        return dirty(word) == 0;
    }
    bytes.iter().all(|byte| !matches!(byte, 0..0x20 | b'"' | b'\\'))
}

/// How many bytes at the start need no escape.
fn clean_prefix(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let found = dirty(u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < bytes.len() && !matches!(bytes[at], 0..0x20 | b'"' | b'\\') {
        at += 1;
    }
    at
}

/// The high bit of every byte that needs an escape, and perhaps of bytes above such a one: zero if
/// none does, and enough to find the first.
#[inline]
const fn dirty(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    const fn below(word: u64, limit: u8) -> u64 {
        word.wrapping_sub(ONES * limit as u64) & !word & HIGH
    }
    below(word, 0x20)
        | below(word ^ (ONES * b'"' as u64), 1)
        | below(word ^ (ONES * b'\\' as u64), 1)
}
