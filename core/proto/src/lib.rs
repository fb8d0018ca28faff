//! The kps bus and client as state machines.
//!
//! Nothing here opens a socket, reads a clock or starts a thread: bytes, events and the time come
//! in; bytes, events and deadlines come out. The floors, ground first: [`error`], [`clock`],
//! [`options`], [`message`], [`topic`], [`history`]; then [`wire`]; then [`bus`] (the broker) and [`session`]
//! (the client), which meet only on the wire.
#![forbid(unsafe_code)]

pub mod bus;
pub mod clock;
pub mod error;
pub mod history;
pub mod message;
pub mod options;
pub mod session;
pub mod topic;
pub mod wire;

pub use error::{Error, ErrorKind, Result};
