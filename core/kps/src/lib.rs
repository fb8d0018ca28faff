//! kps: the real-time bus that lives inside your program.

pub mod auth;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod events;
pub mod mailbox;
pub mod net;
pub mod runtime;
pub mod server;

pub use client::{
    Ack, Bridge, Client, CloseReport, ConnectOptions, FlushHint, IntoPayload, Json, Receipt, Received,
    Subscription,
};
pub use events::{
    AckRequest, ClientKey, ClientState, Event, HostMailbox, Item, MailboxRef, PublishOptions, Room,
    SubId, Target, To,
};
pub use server::{Server, ServerOptions};
pub use kps_proto::{self as proto, Error, ErrorKind, Result, message, options};
