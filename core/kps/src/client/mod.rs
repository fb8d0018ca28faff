//! The client: a session, its connection, and the faces it shows to Rust and to other languages.

mod bell;
mod bridge;
mod driver;
mod inner;
pub(crate) mod lock;
mod options;
mod outlets;

pub use bridge::{Bridge, CloseReport, FlushHint};
pub use options::ConnectOptions;
