//! Live documents.
mod engine;
pub use engine::*;
