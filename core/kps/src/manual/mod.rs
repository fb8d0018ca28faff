//! The manual: what does not fit one item's documentation.

pub mod compute;
pub mod delivery;
pub mod document;
#[cfg(feature = "yjs")]
pub mod document_yjs;
pub mod events;
pub mod http;
pub mod storage;
pub mod sync;
