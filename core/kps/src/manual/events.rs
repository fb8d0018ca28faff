//! What is told when something changes: the events of clients and servers, the timeline, the audit log.
//!
//! The names are the same in every language: `client.on(name, handler)` and `server.on(name, handler)` in
//! Python and Node, [`Client::events`] and [`Server::events`] in Rust. An unknown name is an
//! `invalid_argument` that lists those there are; [`vocabulary`] has them as a table.
//!
//! # What a client tells
//!
//! | event | arguments | it tells |
//! | --- | --- | --- |
//! | `state` | `state` | the connection's state changed |
//! | `connection_opened` | `resumed` | the handshake is done; whether the session goes on |
//! | `connection_closed` | `error` | the connection is lost and is being made again |
//! | `closed` | `error` | the client is over, for good |
//! | `goaway` | `reason` | the server is about to close the connection |
//! | `message_published` | `message_id` | the server accepted a message of this client |
//! | `publish_failed` | `message_id`, `error` | the server refused one, or it was abandoned |
//! | `message_received` | `message` | every message that this client receives |
//! | `message_to_id` | `message` | one sent to this client's id; an ack gets what is returned |
//! | `gap` | `gap`, `subscription` | messages are missing in a subscription's stream |
//! | `resumed` | `resumed`, `subscription` | after a reconnect it goes on without loss |
//! | `subscription_closed` | `error`, `subscription` | the server closed it |
//! | `backpressure` | `on` | the outbox rose above its soft bound, or fell below it again |
//! | `outbox_flushed` | `count` | what had waited for the connection is accepted or refused |
//! | `handler_error` | `error`, `message` | a handler of messages raised |
//! | `error` | `error` | the server reported what concerns nothing else, or a handler raised and nobody listens for that |
//!
//! `message_published` and `message_received` come once per message and cost nothing while nobody listens.
//! In Rust a stream of messages, gaps and resumptions is the [`Subscription`](crate::Subscription) itself,
//! and [`Bridge::tell_published`] asks for accepted messages.
//!
//! # What a server tells
//!
//! Of all its clients, in the order in which it happened. A server is also a client of itself; under a name
//! that is in both tables it tells what is in this one.
//!
//! | event | arguments | it tells |
//! | --- | --- | --- |
//! | `node_started` | `address` | it listens |
//! | `node_stopping` | — | it takes no more connections and says goodbye |
//! | `connection_opened` | `client_id`, `name`, `remote`, `protocol`, `resumed` | a client's handshake is done; `name` is whom its token stands for |
//! | `connection_closed` | `client_id`, `reason` | its connection ended |
//! | `client_connected` | `client_id` | a client's session began |
//! | `client_disconnected` | `client_id` | it is over: said goodbye, or did not come back |
//! | `subscription_opened` | `client_id`, `topic` | a client subscribed |
//! | `subscription_closed` | `client_id`, `topic` | a subscription ended |
//! | `message_published` | `client_id`, `topic`, `message_id`, `size` | a message was accepted; `size` in bytes |
//! | `backpressure` | `client_id`, `topic`, `on` | publishers wait for a subscription's room |
//! | `messages_dropped` | `client_id`, `topic`, `count`, `reason` | a subscription lost messages: the sum of a second |
//! | `dead_lettered` | `durable`, `topic`, `message_id`, `error` | a durable gave one up |
//! | `store_failed` | `error` | nothing more is stored until the server is started again |
//! | `error` | `error`, `client_id`, `remote` | a connection was refused or broke the rules |
//! | `events_dropped` | `count` | so many events came while nobody took them |
//!
//! A connection is not a session: a client that loses its connection and comes back within the resume window
//! is told as `connection_closed` (`lost`) and `connection_opened` (`resumed`), and its session,
//! `client_connected` to `client_disconnected`, goes on. The other reasons of `connection_closed` are
//! `goodbye`, `silent`, `shutdown`, or an error's code. Clients inside the server's own process open no
//! connection; what they subscribe to is told.
//!
//! Floods stay small: drops are summed up per subscription over a second, and back-pressure is over when
//! no publisher had to wait for a second. 4,096 events may wait for a host that does not read; then they
//! are counted, and `events_dropped` says how many. Nothing that is told holds a secret, a payload or a header.
//!
//! Whoever listens later finds what was before, `node_started` too, in the **timeline**
//! ([`Server::timeline`], [`Client::timeline`]): the last 256 events, each with its time.
//!
//! ```
//! use kps::{Client, ConnectOptions, Server, ServerOptions, events::ServerEvent};
//!
//! # async fn run() -> kps::Result<()> {
//! let server = Server::start(ServerOptions::listen("127.0.0.1:0"))?;
//! let mut events = server.events();
//! let client = Client::connect(ConnectOptions::new(server.url())).await?;
//! let orders = client.subscribe("orders.>").await?;
//!
//! let opened = loop {
//!     let event = events.next().await.expect("the server runs");
//!     if let ServerEvent::SubscriptionOpened { topic, .. } = &*event {
//!         break topic.clone();
//!     }
//! };
//! assert_eq!(&*opened, "orders.>");
//! assert_eq!(server.timeline()[0].1.what, "node_started");
//! # drop(orders);
//! # Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! # The audit log
//!
//! With `kps serve --data DIR --audit`, `audit = true` in `kps.toml`, `Server(audit=True)` or
//! [`ServerOptions::audit`] a server keeps its events in its data folder: 1,000,000 of at most 30 days,
//! unless it is told otherwise (`--audit 'age=7d count=5000'`). `--audit messages` keeps every message's
//! publisher, topic, id and size as well. `kps audit --data DIR` prints it, also while the server runs.
//!
//! A row is committed with whatever else the store writes, and nobody waits for it: a server that is killed
//! may have told its host what the log does not have. A store that fails is told, and logs no more.
//!
//! [`Client::events`]: crate::Client::events
//! [`Client::timeline`]: crate::Client::timeline
//! [`Server::events`]: crate::Server::events
//! [`Server::timeline`]: crate::Server::timeline
//! [`ServerOptions::audit`]: crate::ServerOptions::audit
//! [`Bridge::tell_published`]: crate::Bridge::tell_published
//! [`vocabulary`]: crate::events::vocabulary
