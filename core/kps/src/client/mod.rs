//! The client: a session, its connection, and the faces it shows to Rust and to other languages.

mod bridge;
mod options;

pub use bridge::{Bridge, CloseReport, FlushHint, To};
pub use options::ConnectOptions;
