//! What goes over the cable: kps.v1 (binary, see `PROTOCOL.md`) and KPS JSON.

pub mod frame;
pub mod kps_json;
pub mod v1;
mod varint;

pub(crate) use v1::settle_publish;
pub use v1::{Frames, encode, encode_message_head, encode_publish};
