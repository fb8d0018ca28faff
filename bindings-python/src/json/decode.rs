//! JSON to Python objects: strict RFC 8259, integers exact, doubles that do not fit refused.

use std::{cell::RefCell, fmt};

use pyo3::{
    ffi,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyList, PyString},
};

/// Nesting that is read, as in orjson; more than [`super::encode`] writes.
const DEPTH: u16 = 1024;

/// Where and why a text is not JSON.
#[derive(Debug)]
pub(crate) struct Invalid {
    /// Offset in bytes.
    at: usize,
    what: &'static str,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not valid JSON at byte {}: {}", self.at, self.what)
    }
}

/// The Python value of `text`.
pub(crate) fn decode<'py>(py: Python<'py>, text: &[u8]) -> Result<Bound<'py, PyAny>, Invalid> {
    KEYS.with(|keys| match keys.try_borrow_mut() {
        Ok(mut keys) => Decoder { py, text, at: 0, depth: 0, keys: &mut keys }.document(),
        // A collection ran a finalizer that decodes.
        Err(_) => Decoder { py, text, at: 0, depth: 0, keys: &mut Keys::default() }.document(),
    })
}

struct Decoder<'py, 'a> {
    py: Python<'py>,
    text: &'a [u8],
    at: usize,
    depth: u16,
    keys: &'a mut Keys,
}

impl<'py> Decoder<'py, '_> {
    fn document(&mut self) -> Result<Bound<'py, PyAny>, Invalid> {
        let value = self.value()?;
        match self.token() {
            None => Ok(value),
            Some(_) => self.invalid("more follows the value"),
        }
    }

    fn value(&mut self) -> Result<Bound<'py, PyAny>, Invalid> {
        match self.token() {
            Some(b'"') => Ok(self.string()?.into_any()),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", |py| PyBool::new(py, true).to_owned().into_any()),
            Some(b'f') => self.word(b"false", |py| PyBool::new(py, false).to_owned().into_any()),
            Some(b'n') => self.word(b"null", |py| py.None().into_bound(py)),
            Some(_) => self.invalid("a value cannot start like this"),
            None => self.invalid("it ends where a value should be"),
        }
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Bound<'py, PyAny>, Invalid>,
    ) -> Result<Bound<'py, PyAny>, Invalid> {
        if self.depth == DEPTH {
            return self.invalid("nested deeper than 1024 levels");
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Bound<'py, PyAny>, Invalid> {
        self.at += 1;
        let dict = PyDict::new(self.py);
        if self.token() == Some(b'}') {
            self.at += 1;
            return Ok(dict.into_any());
        }
        loop {
            if self.token() != Some(b'"') {
                return self.invalid("a key in quotes is expected");
            }
            let key = self.key()?;
            if self.token() != Some(b':') {
                return self.invalid("a colon is expected");
            }
            self.at += 1;
            let value = self.value()?;
            // SAFETY: all three are alive; neither reference is stolen.
            let set = unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) };
            assert_eq!(set, 0, "a str is hashable");
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(dict.into_any());
                }
                _ => return self.invalid("a comma or a closing brace is expected"),
            }
        }
    }

    fn array(&mut self) -> Result<Bound<'py, PyAny>, Invalid> {
        self.at += 1;
        let list = PyList::empty(self.py);
        if self.token() == Some(b']') {
            self.at += 1;
            return Ok(list.into_any());
        }
        loop {
            let value = self.value()?;
            // SAFETY: both are alive; the reference is not stolen.
            let pushed = unsafe { ffi::PyList_Append(list.as_ptr(), value.as_ptr()) };
            assert_eq!(pushed, 0, "there is memory for a pointer");
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(list.into_any());
                }
                _ => return self.invalid("a comma or a closing bracket is expected"),
            }
        }
    }

    fn key(&mut self) -> Result<Bound<'py, PyString>, Invalid> {
        let start = self.at + 1;
        let plain = plain_prefix(&self.text[start..]);
        if plain > Keys::LONGEST || self.text.get(start + plain) != Some(&b'"') {
            return self.string();
        }
        self.at = start + plain + 1;
        Ok(self.keys.take(self.py, &self.text[start..start + plain]))
    }

    fn string(&mut self) -> Result<Bound<'py, PyString>, Invalid> {
        let start = self.at + 1;
        let plain = plain_prefix(&self.text[start..]);
        if self.text.get(start + plain) == Some(&b'"') {
            self.at = start + plain + 1;
            return Ok(ascii(self.py, &self.text[start..start + plain]));
        }
        self.string_with_more(start, plain)
    }

    /// A string with escapes or more than ASCII, whose first `plain` bytes are neither.
    fn string_with_more(
        &mut self,
        start: usize,
        plain: usize,
    ) -> Result<Bound<'py, PyString>, Invalid> {
        let mut end = start + plain;
        let mut escapes = false;
        loop {
            match self.text.get(end) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escapes = true;
                    end += 2;
                }
                Some(0x20..) => end += 1,
                Some(_) => return self.invalid_at(end, "a control character in a string"),
                None => return self.invalid_at(self.text.len(), "a string does not end"),
            }
        }
        self.at = end + 1;
        let Ok(text) = std::str::from_utf8(&self.text[start..end]) else {
            return self.invalid_at(start, "a string is not UTF-8");
        };
        if !escapes {
            return Ok(PyString::new(self.py, text));
        }
        let text = self.unescape(text, start)?;
        Ok(PyString::new(self.py, &text))
    }

    #[cold]
    fn unescape(&self, text: &str, start: usize) -> Result<String, Invalid> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            let offset = start + (text.len() - rest.len()) + at;
            let escape = &rest.as_bytes()[at + 1..];
            let mut length = 2;
            out.push(match escape[0] {
                plain @ (b'"' | b'\\' | b'/') => char::from(plain),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    length = 6;
                    let mut unit = hex(&escape[1..]);
                    if let Some(high @ 0xd800..0xdc00) = unit {
                        let low = escape[5..].strip_prefix(b"\\u").and_then(hex);
                        unit = low
                            .filter(|low| (0xdc00..0xe000).contains(low))
                            .map(|low| 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                        length = 12;
                    }
                    match unit.and_then(char::from_u32) {
                        Some(char) => char,
                        None => return self.invalid_at(offset, "a wrong \\u escape"),
                    }
                }
                _ => return self.invalid_at(offset, "an unknown escape"),
            });
            rest = &rest[at + length..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn number(&mut self) -> Result<Bound<'py, PyAny>, Invalid> {
        let start = self.at;
        let negative = self.text[start] == b'-';
        let first = start + usize::from(negative);
        let (mut at, mut value) = (first, 0_u64);
        while let Some(digit @ b'0'..=b'9') = self.text.get(at) {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            at += 1;
        }
        let digits = at - first;
        if digits == 0 {
            return self.invalid("a digit is expected");
        }
        if digits > 1 && self.text[first] == b'0' {
            return self.invalid("a number starts with 0");
        }
        if matches!(self.text.get(at), Some(b'.' | b'e' | b'E')) {
            return self.float(start, at);
        }
        self.at = at;
        if digits > 18 {
            return self.long_int(start);
        }
        let value = value.cast_signed();
        // SAFETY: attached; `PyLong_FromLongLong` fails only for want of memory.
        Ok(unsafe {
            let value = ffi::PyLong_FromLongLong(if negative { -value } else { value });
            Bound::from_owned_ptr(self.py, value)
        })
    }

    #[cold]
    fn long_int(&mut self, start: usize) -> Result<Bound<'py, PyAny>, Invalid> {
        let mut digits = self.text[start..self.at].to_vec();
        digits.push(0);
        // SAFETY: `digits` ends with a zero byte. Python refuses more digits than
        // `sys.set_int_max_str_digits` allows.
        let value = unsafe {
            let value = ffi::PyLong_FromString(digits.as_ptr().cast(), std::ptr::null_mut(), 10);
            Bound::from_owned_ptr_or_opt(self.py, value)
        };
        match value {
            Some(value) => Ok(value),
            None => {
                drop(PyErr::take(self.py));
                self.invalid_at(start, "an integer has too many digits")
            }
        }
    }

    fn float(&mut self, start: usize, mut at: usize) -> Result<Bound<'py, PyAny>, Invalid> {
        if self.text[at] == b'.' {
            at = self.digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = self.text.get(at) {
            at += 1;
            if let Some(b'+' | b'-') = self.text.get(at) {
                at += 1;
            }
            at = self.digits(at)?;
        }
        self.at = at;
        let text = std::str::from_utf8(&self.text[start..at]).expect("digits are ASCII");
        let value: f64 = text.parse().expect("JSON's numbers are Rust's");
        if value.is_infinite() {
            return self.invalid_at(start, "a number is too large for a double");
        }
        Ok(PyFloat::new(self.py, value).into_any())
    }

    /// Past the digits at `at`, at least one.
    fn digits(&self, at: usize) -> Result<usize, Invalid> {
        let count = self.text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return self.invalid_at(at, "a digit is expected");
        }
        Ok(at + count)
    }

    fn word(
        &mut self,
        word: &'static [u8],
        value: impl FnOnce(Python<'py>) -> Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>, Invalid> {
        if !self.text[self.at..].starts_with(word) {
            return self.invalid("a value cannot start like this");
        }
        self.at += word.len();
        Ok(value(self.py))
    }

    /// The next byte that is not white space, left in place.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    fn invalid<T>(&self, what: &'static str) -> Result<T, Invalid> {
        self.invalid_at(self.at, what)
    }

    #[cold]
    fn invalid_at<T>(&self, at: usize, what: &'static str) -> Result<T, Invalid> {
        Err(Invalid { at, what })
    }
}

/// The `str` of bytes that are all ASCII.
#[inline]
fn ascii<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    // SAFETY: a compact ASCII str has room for its length; nobody else sees it yet.
    unsafe {
        let object = ffi::PyUnicode_New(bytes.len().cast_signed(), 127);
        let object = Bound::from_owned_ptr(py, object);
        let data = ffi::PyUnicode_DATA(object.as_ptr()).cast::<u8>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        object.cast_into_unchecked()
    }
}

/// The code unit of four hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u32> {
    let digits = digits.get(..4)?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// How many bytes at the start are ASCII and neither `"`, `\` nor a control character.
#[inline]
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let quote = word ^ (ONES * b'"' as u64);
        let slash = word ^ (ONES * b'\\' as u64);
        // The high bit of bytes that are special or not ASCII, and perhaps of bytes above them.
        let found = (word.wrapping_sub(ONES * 0x20)
            | quote.wrapping_sub(ONES)
            | slash.wrapping_sub(ONES)
            | word)
            & HIGH;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < bytes.len() && !matches!(bytes[at], 0..0x20 | b'"' | b'\\' | 0x80..) {
        at += 1;
    }
    at
}

thread_local! {
    static KEYS: RefCell<Keys> = RefCell::new(Keys::default());
}

/// The keys seen lately. The messages of a topic repeat theirs, and a `str` that is there already
/// has its hash already.
struct Keys {
    slots: Box<[Option<Py<PyString>>]>,
}

impl Default for Keys {
    fn default() -> Self {
        Keys { slots: (0..Self::SLOTS).map(|_| None).collect() }
    }
}

impl Keys {
    const SLOTS: usize = 512;
    const LONGEST: usize = 48;

    #[inline]
    fn take<'py>(&mut self, py: Python<'py>, text: &[u8]) -> Bound<'py, PyString> {
        let slot = &mut self.slots[hash(text) as usize % Self::SLOTS];
        if let Some(key) = slot
            && bytes_of(key) == text
        {
            return key.bind(py).clone();
        }
        let key = ascii(py, text);
        *slot = Some(key.clone().unbind());
        key
    }
}

/// The bytes of a str that [`ascii`] made.
#[inline]
fn bytes_of(key: &Py<PyString>) -> &[u8] {
    // SAFETY: compact ASCII, immutable, held by `key`.
    unsafe {
        let data = ffi::PyUnicode_DATA(key.as_ptr()).cast::<u8>();
        std::slice::from_raw_parts(data, ffi::PyUnicode_GET_LENGTH(key.as_ptr()) as usize)
    }
}

/// FNV-1a in steps of eight bytes: good enough for 512 slots.
#[inline]
fn hash(text: &[u8]) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ text.len() as u64;
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    hash ^ hash >> 32
}
