//! SHA-256, of what is there at once and of what comes in pieces.

use std::fmt::Write;

use kps_proto::ErrorKind;
use ring::digest::{Context, SHA256};

use super::super::task::Run;
use crate::capability::{Failure, Fields, Outcome, Value, missing, wrong};

/// Hashed between two looks at the clock: about a third of a millisecond.
const PIECE: usize = 64 * 1024;

/// The SHA-256 of data that comes in pieces.
///
/// ```
/// let mut stream = kps::compute::Sha256Stream::new();
/// stream.update(b"a");
/// stream.update(b"bc");
/// assert_eq!(
///     stream.finish(),
///     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
/// );
/// ```
#[derive(Clone)]
pub struct Sha256Stream(Context);

impl Sha256Stream {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Sha256Stream(Context::new(&SHA256))
    }

    /// Hashes the next piece. About a gigabyte per second where the processor helps: a large one
    /// should not be hashed on an event loop.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The hash, in lower-case hexadecimal.
    pub fn finish(self) -> String {
        let digest = self.0.finish();
        digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl Default for Sha256Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sha256Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256Stream")
    }
}

pub(super) fn run(data: Value, run: &Run<'_>) -> Outcome {
    let mut stream = Sha256Stream::new();
    let (name, data) = given(data)?;
    let bytes: &[u8] = match &data {
        Value::Text(text) => text.as_bytes(),
        Value::Bytes(bytes) => bytes,
        Value::Array(array) => &array.bytes,
        other => return Err(wrong(name, other, "text or bytes")),
    };
    for piece in bytes.chunks(PIECE) {
        run.check()?;
        stream.update(piece);
    }
    Ok(Value::Text(stream.finish()))
}

/// The bytes that are hashed; 0 for what is none.
pub(super) fn length(data: &Value) -> usize {
    match data {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Array(array) => array.bytes.len(),
        Value::Map(map) => map.iter().map(|(_, value)| length(value)).sum(),
        _ => 0,
    }
}

/// `{"data": …}`, `{"text": …}`, `{"bytes": …}` or what is to be hashed itself.
fn given(data: Value) -> Result<(&'static str, Value), Failure> {
    if data == Value::Null {
        return Err(missing("data"));
    }
    if !matches!(data, Value::Map(_)) {
        return Ok(("data", data));
    }
    let mut fields = Fields::of(data)?;
    let mut found = ["data", "text", "bytes"]
        .into_iter()
        .filter_map(|name| Some((name, fields.given(name)?)))
        .collect::<Vec<_>>();
    fields.done()?;
    match found.len() {
        0 => Err(missing("data")),
        1 => Ok(found.remove(0)),
        _ => {
            let sentence = "only one of data, text and bytes can be hashed";
            Err(Failure {
                field: Some("data".into()),
                ..Failure::new(ErrorKind::InvalidPayload, sentence)
            })
        }
    }
}
