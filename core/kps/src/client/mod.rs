//! The client: a session, its connection, and the faces it shows to Rust and to other languages.

mod ack;
mod annex;
mod bell;
mod bridge;
mod desk;
#[cfg_attr(not(feature = "store"), path = "without_store.rs")]
mod disk;
mod driver;
mod face;
mod inner;
pub(crate) mod lock;
mod options;
mod outlets;
mod payload;
mod subscription;

pub use ack::Ack;
pub(crate) use annex::Kept;
pub(crate) use bridge::WeakBridge;
pub use bridge::{Bridge, CloseReport, FlushHint};
pub use face::{Client, DEFAULT_TIMEOUT, Events, Receipt};
pub use options::ConnectOptions;
pub use payload::{IntoPayload, Json, from_json};
pub use subscription::{Delivered, Received, Subscription};
