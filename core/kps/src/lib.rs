//! kps: the real-time bus that lives inside your program.

pub mod client;
pub mod events;
pub mod mailbox;
pub mod net;
pub mod runtime;

pub use client::{Bridge, CloseReport, ConnectOptions, FlushHint, To};
pub use events::{
    AckRequest, ClientKey, ClientState, Event, HostMailbox, Item, MailboxRef, PublishOptions, Room,
    SubId, Target,
};
pub use kps_proto::{self as proto, Error, ErrorKind, Result, message, options};
