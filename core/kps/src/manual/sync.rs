//! Channels, and who is in them: the capability `sync`.
//!
//! A channel is a name, at most 256 bytes, without the wildcard levels `*` and `>`. It needs no making: it is
//! there while somebody subscribes, broadcasts or is present. Namespaces have channels of their own.
//!
//! ```
//! use kps::{Client, ConnectOptions, capability::{Callback, Value}};
//! use tokio::sync::mpsc;
//!
//! # async fn run() -> kps::Result<()> {
//! // A private bus; with a server's URL everything is the same.
//! let client = Client::from(kps::server::connect(ConnectOptions::new("mem://"))?);
//! client.bridge().ready().await?;
//!
//! let (tell, mut heard) = mpsc::unbounded_channel();
//! let callback = Callback::new(move |record| drop(tell.send(record)));
//! let payload = Value::map([("channel", "room".into()), ("callback", Value::Callback(callback))]);
//! client.dispatch("sync.subscribe", payload).await.unwrap().unwrap();
//!
//! let payload = Value::map([("channel", "room".into()), ("key", "ann".into())]);
//! client.dispatch("sync.join", payload).await.unwrap().unwrap();
//! let record = heard.recv().await.unwrap();
//! assert_eq!(record.get("kind"), Some(&"presence".into()));
//! assert_eq!(record.get("event"), Some(&"join".into()));
//!
//! let payload =
//!     Value::map([("channel", "room".into()), ("event", "hello".into()), ("data", 42.into())]);
//! client.dispatch("sync.broadcast", payload).await.unwrap().unwrap();
//! let record = heard.recv().await.unwrap();
//! assert_eq!(record.get("kind"), Some(&"event".into()));
//! assert_eq!(record.get("data"), Some(&42.into()));
//!
//! let payload = Value::map([("channel", "room".into())]);
//! let present = client.dispatch("sync.presence", payload).await.unwrap().unwrap();
//! let Some(Value::List(members)) = present.get("members") else { panic!("{present:?}") };
//! assert_eq!(members[0].get("key"), Some(&"ann".into()));
//! # Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! # Operations
//!
//! A field with `?` may be missing.
//!
//! | operation | fields | answer |
//! | --- | --- | --- |
//! | `sync.broadcast` | `channel`, `event`, `data?`, `echo?`, `confirm?` | `{sent: true}`; with `confirm: true` `{sent, recipients, confirmed}` |
//! | `sync.subscribe` | `channel`, `callback`, `echo?` | `{subscribed: id, channel}` |
//! | `sync.unsubscribe` | `id` or `channel` | `{unsubscribed: count}` |
//! | `sync.join` | `channel`, `key?`, `meta?` | `{channel, key, client_id}` |
//! | `sync.update` | `channel`, `meta?` | `{channel, key, client_id}` |
//! | `sync.leave` | `channel` | `{channel, left}` |
//! | `sync.presence` | `channel` | `{channel, members: [{key, clients: [{client_id, meta, since}], meta}]}` |
//!
//! - `broadcast` sends at once: `sent` says that the message is on its way, in order with all that this client
//!   sends. `confirm` waits until every client that subscribes has handed it to its callbacks, and counts them:
//!   `recipients` it was sent to, `confirmed` of them who have it. `event` has at most 256 bytes; `data` is
//!   anything that can travel, within the server's limit of a payload.
//! - `echo: false` keeps a broadcast from the sender's own subscriptions; with `subscribe` it keeps all own
//!   broadcasts from this one.
//! - `subscribe` answers when the server has confirmed it. Without a connection it answers at once and begins
//!   with the connection. After `unsubscribe` has answered, the callback is not called any more. It must not
//!   block. A subscription keeps its client alive until it is ended or the client closed.
//! - `join` is idempotent; with another key or other metadata it changes what you are. `key` is the person, by
//!   default the client's id: a person on several devices is one key with several clients. Only oneself can be
//!   joined, updated and taken out.
//! - `update` changes the metadata and nothing else; without `meta` to `null`.
//! - `left` is false if the client was not there.
//! - Members come in the order of their keys, a key's clients in the order in which they last changed. `meta` of a
//!   member is its newest client's. `since` is when the client joined, milliseconds since the Unix epoch.
//!
//! The server itself answers `join`, `leave` and `presence` to those who call it with the target `server`; there
//! `presence` takes `after`, a key, and its answer has `next` if more follow.
//!
//! # What a callback hears
//!
//! One record at a time. `kind` is set by kps, whatever the sender wrote: an event that a program calls `join` is
//! no presence. Only the server can publish to a channel's presence.
//!
//! | `kind` | members | it tells |
//! | --- | --- | --- |
//! | `event` | `channel`, `event`, `data`, `from`, `time` | a broadcast; `from` is the client's id |
//! | `presence` | `channel`, `event`, `key`, `client_id`, `meta`, `clients`, `time` | who is there has changed |
//! | `gap` | `channel`, `count` | so many records are missing here; `null`: nobody can know |
//! | `closed` | `channel`, `error` | the server ended the subscription, or the client is closed; the last record |
//!
//! `time` is when the server took it, milliseconds since the Unix epoch. `event` of a presence is
//!
//! - `join`: the key's first client is there;
//! - `update`: the metadata changed, or another client of the key came or went;
//! - `leave`: the last one is gone.
//!
//! `client_id` is whose coming, change or going it is, `clients` lists the ids of the key's clients afterwards,
//! and `meta` is the key's newest metadata, with `leave` the last there was. Presence and events of a channel come
//! in one order. After a `gap` presence may have changed unheard: ask for it.
//!
//! # Who is there, and when not any more
//!
//! The server keeps who is where, in memory. A client that closes leaves at once. One whose connection is lost is
//! expected back for [`ServerOptions::presence_grace`] (5 s): coming back in time, in its session or in a new
//! one, it was never gone, and nobody hears of it. One that falls silent, as when its cable is pulled, is missed
//! when its connection counts as dead ([`Timings::silence`], 20 s), and leaves then without a further grace. So
//! whoever dies is gone for the others within 20 s.
//!
//! After a reconnect a client tells the server again where it is, by itself. So presence is complete again after a
//! restart of the server, when everybody is back; subscribers hear the `gap` of the restart, and a `join` of each who
//! came back later than they did. A new client under the id of another one is in no channel that it has not joined
//! itself.
//!
//! # Limits and errors
//!
//! | what | limit | else |
//! | --- | --- | --- |
//! | `channel`, `event`, `key` | 256 bytes | `too_large` |
//! | `meta` | 16 KiB of JSON | `too_large` |
//! | a broadcast | the server's limit of a payload (1 MiB) | `too_large` |
//! | channels that one client is in | 256 | `quota_exceeded` |
//! | clients in one channel | 10,000 | `quota_exceeded` |
//! | clients of one key in a channel; their metadata | 128; 256 KiB | `quota_exceeded` |
//! | one client's metadata in all channels | 1 MiB | `quota_exceeded` |
//! | presence on one server | 256 MiB | `quota_exceeded` |
//! | subscriptions of one client | 4,096 | `quota_exceeded` |
//!
//! `invalid_payload` names the field that is wrong; `not_found` is an update where one is not, or the end of a
//! subscription that there is not. Without a connection all but `subscribe` and `unsubscribe` fail with
//! `unavailable`, which `retry` repeats. `unauthorized`: the token's permissions are asked for
//! `kps.sync.<channel>.event` to broadcast, `kps.sync.<channel>.*` to subscribe, and `kps.server.sync.join`,
//! `.leave` and `.presence` for the rest; `kps.sync.<channel>.>` and `kps.server.sync.>` cover them.
//!
//! [`ServerOptions::presence_grace`]: crate::ServerOptions::presence_grace
//! [`Timings::silence`]: crate::options::Timings::silence
