//! The manual: what does not fit one item's documentation.

pub mod compute;
pub mod delivery;
pub mod document;
pub mod events;
pub mod http;
pub mod storage;
pub mod sync;
