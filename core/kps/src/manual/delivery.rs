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
//! A full outbox refuses: `publish` fails with `outbox_full`, and nothing is queued. With
//! [`ConnectOptions::outbox_overflow`] set to `drop_oldest` the oldest messages make room instead, of those that
//! the server was never sent; an outbox file forgets them as well, also those of an earlier process. Each is
//! named by `publish_failed` with `outbox_full`, ends its receipt and its ack with that error, and is counted as dropped. Its
//! sentence says so if a server that lost the session had been sent it, for then it may have been received.
//! What is larger than the server takes is not sent to it, and fails once, with `payload_too_large`.
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
//! A handler that failed may say when it wants its message again (`fail` with a delay, or raise `Retry`); else it comes
//! after the subscription's `retry_delay`, doubled with each failure.
//! `attempt` counts; `maybe_duplicate` on a first attempt says that the server restarted and cannot know
//! whether it handed the message out before.
//!
//! A durable has no overflow policy: what its clients have no room for waits in history. It hands out
//! nothing new while 4,096 messages were handed out and not acked, or 16,384 are acked beyond one that
//! is not.
//!
//! # A topic's last value
//!
//! A message published with *retain* stays at the server as its topic's retained message, whether or
//! not the topic has history, until another one replaces it, its time to live is over, or an empty
//! payload is published with retain, which removes it. What is published without retain does not
//! change it. With [`ServerOptions::data`] it survives the server; without, it does not.
//!
//! A plain subscription that begins with `last` gets, of each topic that matches, first the retained
//! message or the newest one in history, whichever is newer, once; then what comes live. A newest message that
//! the subscription may not have, or whose time is over, does not hide the retained one. What was
//! retained says so (`retained`) and has the sender, time and numbers of its publication. A full queue
//! drops nothing of it: it waits for room. Groups and durables get no retained messages.
//!
//! A subscription that was resumed within its session is not told again. If the session was lost and
//! history cannot fill what was missed, it hears the `Gap` and then, marked `retained`, the retained
//! messages there are now, be they new to it or not: after a gap it is the present state that matters.
//!
//! A server retains 65,536 messages and 64 MiB of them at most; more is refused with `limit_exceeded`. An
//! older server that does not know of them is not sent any: the publish fails with `unsupported`.
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
//! | a full outbox | its publisher: `outbox_full`, at once or by `publish_failed` |
//! | a full queue | its overflow policy; a `Gap` with the reason `overflow` |
//! | `private` | live subscribers get it; who reads history past it gets a `Gap` with the reason `private` |
//! | `offline` | counted as dropped; a `Gap` with the reason `offline`, to who was away |
//! | the history's limits | a `Gap` with the reason `history_expired`, to whoever wanted to read that far back |
//! | too many failures | the message goes to `kps.dead.<durable>` with the reason |
//! | a lost disk, or an older copy of it | a `Gap` with the reason `new_epoch`, to whoever subscribed in a run of the server that the disk does not know |
//! | a failed disk | the publisher: `store_failed`; topics with history take nothing until the restart |
//!
//! An older copy of the data folder that is put in place of a newer one cannot be told from the newer one by
//! those who were last there in the run that the copy was made in, or before: what that run stored after
//! the copy is missing for them without a `Gap`. Everybody else hears `new_epoch`; what a plain
//! subscription had before may come again behind that, and what a durable one had acked is handed out again.
//!
//! # Clocks
//!
//! Nobody compares clocks: a time to live travels as what is left of it, and `time` is the server's. The server
//! reads its clock when it starts and counts on from there, so setting the clock does nothing to a server
//! that runs, except that the history's limits by age go by it. After a restart times to live that are in
//! history go by the new time, and so do ages; positions, order and duplicates do not: the window for
//! duplicates goes on where it was when something was last stored.
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
//! [`ConnectOptions::outbox_overflow`]: crate::ConnectOptions::outbox_overflow
//! [`ServerOptions::data`]: crate::ServerOptions::data
//! [`ServerOptions::duplicate_window`]: crate::ServerOptions::duplicate_window
