//! What Rust programs publish and answer with.

use bytes::Bytes;
use kps_proto::{Error, ErrorKind, Result, message::Payload};
use serde::{Serialize, de::DeserializeOwned};

/// Any value that serializes, sent as JSON.
///
/// ```
/// use kps::{IntoPayload, Json};
///
/// let payload = Json([1, 2, 3]).into_payload()?;
/// assert_eq!(&*payload.bytes, b"[1,2,3]");
/// # Ok::<(), kps::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// What can be published: [`Json`], text, bytes, a [`Payload`] made by hand, or `()` for `null`.
pub trait IntoPayload {
    /// Encodes it. Fails with `invalid_payload`.
    fn into_payload(self) -> Result<Payload>;
}

impl<T: Serialize> IntoPayload for Json<T> {
    fn into_payload(self) -> Result<Payload> {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => Ok(Payload::json(bytes)),
            Err(error) => {
                let sentence = format!("this value has no JSON form: {error}");
                Err(Error::new(ErrorKind::InvalidPayload, sentence))
            }
        }
    }
}

impl IntoPayload for Payload {
    fn into_payload(self) -> Result<Payload> {
        Ok(self)
    }
}

impl IntoPayload for () {
    fn into_payload(self) -> Result<Payload> {
        Ok(Payload::json("null"))
    }
}

impl IntoPayload for serde_json::Value {
    fn into_payload(self) -> Result<Payload> {
        Json(self).into_payload()
    }
}

impl IntoPayload for &str {
    fn into_payload(self) -> Result<Payload> {
        Ok(Payload::text(self))
    }
}

impl IntoPayload for String {
    fn into_payload(self) -> Result<Payload> {
        Ok(Payload::text(self))
    }
}

impl IntoPayload for &[u8] {
    fn into_payload(self) -> Result<Payload> {
        Ok(Payload::bytes(Bytes::copy_from_slice(self)))
    }
}

impl IntoPayload for Vec<u8> {
    fn into_payload(self) -> Result<Payload> {
        Ok(Payload::bytes(self))
    }
}

impl IntoPayload for Bytes {
    fn into_payload(self) -> Result<Payload> {
        Ok(Payload::bytes(self))
    }
}

/// Reads a payload's JSON. Fails with `invalid_payload`.
pub fn from_json<T: DeserializeOwned>(payload: &Payload) -> Result<T> {
    serde_json::from_slice(&payload.bytes).map_err(|error| {
        let sentence = format!("the payload is not the JSON that was expected: {error}");
        Error::new(ErrorKind::InvalidPayload, sentence)
    })
}
