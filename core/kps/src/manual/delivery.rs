//! What is delivered, how often, and who is told when it is not.
//!
//! # What a receipt means
//!
//! A publish returns at once; its receipt says how far it has come.
//!
//! | level | it is | it survives |
//! | --- | --- | --- |
//! | `queued` | in the outbox, in memory | a lost connection |
//! | `queued_on_disk` | in the outbox' file ([`ConnectOptions::outbox`]); fsync returned | `kill -9` of the publisher |
//! | `accepted` | numbered and routed by the server | the end of the publisher |
//! | `stored` | in the server's history ([`ServerOptions::data`]); fsync returned | `kill -9` of the server |
//!
//! No level is told before it is true. One that the topic cannot reach fails at once with
//! `receipt_unavailable`; that is decided by what the server says of itself when the client connects.
//!
//! The outbox keeps a message until it is `stored` if its topic has history on disk, else until it is
//! `accepted`. If the server dies before, the message is sent again under its old id, marked
//! `maybe_duplicate`, and a server that has it already accepts it and delivers it to nobody.
//!
//! # What a subscription gets
//!
//! A **plain** subscription gets each message at most once, in order per publisher and topic. What it
//! misses stands as a [`Gap`](crate::message::Gap) in its stream. While its session lives (30 s after a
//! lost connection) it misses nothing, short of its queue's overflow policy. Afterwards, and after a
//! restart of the server, it goes on by its cursor if all its topics have history: then it misses
//! nothing either and hears `resumed`. If they have not, it hears a `Gap` of unknown size.
//!
//! One case repeats a message: the server delivered it, died before it had stored it, and got it from the
//! publisher again. Such a repeat carries `maybe_duplicate` and the id of the first.
//!
//! A **durable** subscription gets each stored message at least once. It is done with a message when
//! its handler returned (or its reader asked for the next one); what is not acked is handed out again.
//! `attempt` counts; `maybe_duplicate` on a first attempt says that the server restarted and cannot know
//! whether it handed the message out before.
//!
//! A durable has no overflow policy: what its clients have no room for waits in history. It hands out
//! nothing new while 4,096 messages were handed out and not acked, or 16,384 are acked beyond one that
//! is not.
//!
//! # When processing is effectively once
//!
//! If all three hold:
//!
//! 1. the subscription is durable,
//! 2. the publisher gives each message an `id` that stands for the fact and not for the attempt
//!    (`order-4711`, not a fresh random number), and publishes it again until it hears `stored`,
//! 3. the handler commits the message's id in the same transaction as its own work, and skips what it
//!    finds there.
//!
//! The server keeps an id once within its window for duplicates ([`ServerOptions::duplicate_window`],
//! two minutes); the third point covers whatever comes later, and whatever is handed out twice.
//!
//! It is **not** effectively once if the handler's work cannot be undone and is outside that
//! transaction: a mail that was sent and a process that died before it acked is a mail that will be
//! sent again. Nor if the id is made anew for each try; nor on plain subscriptions, which are at most once.
//!
//! # What takes messages away
//!
//! | | who is told |
//! | --- | --- |
//! | time to live | counted as `expired` in the subscription's ledger; a `Gap` in its stream |
//! | a full queue | its overflow policy; a `Gap` with the reason `overflow` |
//! | `private` | live subscribers get it; who reads history past it gets a `Gap` with the reason `private` |
//! | `offline` | counted as dropped; a `Gap` with the reason `offline`, to who was away |
//! | the history's limits | a `Gap` with the reason `history_expired`, to whoever wanted to read that far back |
//! | too many failures | the message goes to `kps.dead.<durable>` with the reason |
//! | a failed disk | the publisher: `store_failed`; topics with history take nothing until the restart |
//!
//! # For some, for nobody's disk, for those who are there
//!
//! Three options of a publish ([`Extras`](crate::message::Extras)):
//!
//! **`to`** names who may have the message, up to 64 clients (by id) or principals (`principal:alice`). Who is
//! not named does not hear of it: no message, no row in an ack, no gap, and no place in the ledger. Only a
//! hole in `seq` may tell that something was there. An id is as good as the server's authentication: name
//! principals where it matters. History keeps the list (`kps history` shows it), and replays honour it. A
//! durable hands the message to one of its clients that is named, and waits for it while it is
//! busy or within its resume window; if no client that takes part is named, the durable is done with the message, and nobody
//! is told or counts it. A dead letter is for those the message was for.
//!
//! **`private`** keeps a message off every disk: history has its place alone (position, number, time, and `to` if it
//! has one), so that cursors and counts stay true, and the outbox' file does not have it. So its receipt cannot be
//! `stored` or `queued_on_disk`, and a server or publisher that dies takes it along; nor is its id written,
//! so that after a restart of the server a repeat under the same id counts as new. Who is live gets
//! it; who is still reading history when it comes, or spilled, gets the `Gap`. Neither errors nor the timeline
//! quote its topic, id or data.
//!
//! **`offline`** says what becomes of it where a party has no connection, as far as the server knows:
//!
//! | | `keep` (default) | `drop` | `latest` |
//! | --- | --- | --- | --- |
//! | a subscription whose client is away | it waits | it is missed, with a `Gap` | the newest of its topic waits; the others are in the `Gap` |
//! | a replay from history, a durable | it is read | only if it was accepted after the client (a durable: the first of its clients) came or came back | also if it is its topic's newest message |
//! | a publisher that is away | it waits in the outbox | `not_connected`, nothing is queued | it replaces the one that waits on its topic, whose publish fails as `cancelled` |
//!
//! What was on its way when the connection broke is sent again, whatever the policy. Of a subscription with the
//! overflow policy `latest` that policy decides. `drop` is never in the outbox' file.
//!
//! A server that is older than these options would deliver such a message to everybody: the publish fails with
//! `unsupported`.
//!
//! ```
//! use kps::{Client, ConnectOptions, Json, Received, Server, ServerOptions};
//! use kps::options::{StartAt, SubscribeOptions};
//! use kps::proto::history::HistoryRule;
//!
//! # async fn run() -> kps::Result<()> {
//! let server = Server::start(ServerOptions {
//!     history: vec![HistoryRule::parse("orders.> age=7d")?],
//!     ..ServerOptions::listen("127.0.0.1:0")
//! })?;
//! let client = Client::connect(ConnectOptions::new(server.url())).await?;
//! client.publish("orders.new", Json(4711))?.await?;
//!
//! // Late, and still in time.
//! let options = SubscribeOptions { start: StartAt::All, ..SubscribeOptions::default() };
//! let mut orders = client.subscribe_with("orders.>", options).await?;
//! let Some(Received::Message(order)) = orders.next().await else { panic!() };
//! assert_eq!(order.json::<u32>()?, 4711);
//! # Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! [`ConnectOptions::outbox`]: crate::ConnectOptions::outbox
//! [`ServerOptions::data`]: crate::ServerOptions::data
//! [`ServerOptions::duplicate_window`]: crate::ServerOptions::duplicate_window
