//! kps: the real-time bus that lives inside your program.
//!
//! A [`Server`] is a broker in this process; a [`Client`] publishes and subscribes, to a server in
//! this process or to one elsewhere.
//!
//! ```
//! use std::time::Duration;
//! use kps::{Client, ConnectOptions, Json, Server, ServerOptions};
//!
//! # async fn run() -> kps::Result<()> {
//! let server = Server::start(ServerOptions::listen("127.0.0.1:0"))?;
//! let client = Client::connect(ConnectOptions::new(server.url())).await?;
//!
//! // Whoever subscribes may answer …
//! let additions = server.client()?.subscribe("math.add").await?;
//! let answering = additions.serve(8, async |message| {
//!     message.json::<(i64, i64)>().map(|(a, b)| Json(a + b))
//! });
//!
//! // … and whoever publishes may ask.
//! let asking = client.request("math.add", Json((20, 22)), Duration::from_secs(5));
//! tokio::select! {
//!     () = answering => unreachable!("the subscription stays open"),
//!     sum = asking => assert_eq!(&*sum?.bytes, b"42"),
//! }
//! # Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! Futures of this crate run on any executor: the sockets are looked after by one thread of kps' own
//! ([`runtime`]). Languages other than Rust use the same client through its synchronous face,
//! [`Bridge`], which tells everything that takes time as [`Event`]s in a [`mailbox`]. How a client
//! reaches a server is a [`net::Transport`], and a program may bring its own.

pub mod auth;
pub mod capability;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod compute;
pub mod document;
pub mod events;
mod gateway;
pub mod mailbox;
pub mod manual;
pub mod net;
pub mod runtime;
pub mod server;
#[cfg(feature = "store")]
pub mod store;

pub use client::{
    Ack, Bridge, Client, CloseReport, ConnectOptions, FlushHint, IntoPayload, Json, Receipt,
    Received, Subscription,
};
pub use events::{
    AckRequest, ClientKey, ClientState, Event, HostMailbox, Item, MailboxRef, PublishOptions, Room,
    SubId, Target, To,
};
pub use kps_proto::{self as proto, Error, ErrorKind, Result, message, options};
pub use server::{AuditOptions, Server, ServerOptions};
