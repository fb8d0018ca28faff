//! Live documents: text or JSON that people and programs write together, the capability `document`.
//!
//! A document has a name, a kind and a version. Who wants to change it sends an **operation**: edits that are made
//! for a version and done wholly or not at all. What becomes of it is told on the document's topic
//! `kps.document.<id>`, to who sent it and to everybody else, the same bytes. An operation that was made for an
//! older version is a **conflict**: nothing of it is done, and the event brings what is missing. There is no way
//! around that for anybody; [`Client::open_document`](crate::Client::open_document) moves what was edited
//! over what others did and sends it again by itself. This chapter is about what is below it, which any program
//! can speak. Documents of a third kind merge what was done offline: [`document_yjs`](crate::manual::document_yjs).
//!
//! ```
//! use kps::{Client, ConnectOptions, Received, Server, ServerOptions, capability::Value};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::start(ServerOptions::listen("127.0.0.1:0"))?;
//! let client = Client::connect(ConnectOptions::new(server.url())).await?;
//! let call = async |operation: &str, payload: &str| {
//!     let payload = Value::from_json(payload.as_bytes()).expect("it is JSON");
//!     client.dispatch(&format!("document.{operation}"), payload).await.outcome
//! };
//!
//! // Whoever follows the topic first misses nothing between it and what is opened.
//! let mut events = client.subscribe("kps.document.notes").await?;
//! let opened = call("open", r#"{"id": "notes", "kind": "text"}"#).await?;
//! assert_eq!(opened.get("version"), Some(&"W/\"0\"".into()));
//!
//! let operation = r#"{"id": "notes", "op_id": "ann-1", "author": "ann", "base_version": "W/\"0\"",
//!     "edit": [{"type": "append", "text": "Hello"}, {"type": "insert", "position": 5, "text": "!"}]}"#;
//! call("edit", operation).await?;
//! let Some(Received::Message(change)) = events.next().await else { panic!("there is one") };
//! let change: serde_json::Value = change.json()?;
//! assert_eq!(change["event"], "change");
//! assert_eq!(change["splices"], serde_json::json!([[0, 0, "Hello"], [5, 0, "!"]]));
//! let Some(Received::Message(ack)) = events.next().await else { panic!("there is one") };
//! let ack: serde_json::Value = ack.json()?;
//! assert_eq!((&ack["event"], &ack["version"]), (&"ack".into(), &"W/\"1\"".into()));
//! assert_eq!(ack["level"], "applied");
//!
//! // Sent again it is not done again; another one for the old version is a conflict.
//! call("edit", operation).await?;
//! let stale = operation.replace("ann-1", "bob-1");
//! let answer = call("edit", &stale).await?;
//! let Some(Value::List(results)) = answer.get("results") else { panic!("{answer:?}") };
//! assert_eq!(results[0].get("event"), Some(&"conflict".into()));
//! assert_eq!(results[0].get("server_version"), Some(&"W/\"1\"".into()));
//! let read = call("read", r#"{"id": "notes"}"#).await?;
//! assert_eq!(read.get("text"), Some(&"Hello!".into()));
//! # Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! # Operations of the capability
//!
//! They are asked of the server, from Rust, Python, Node, `kps dispatch` or over HTTP. `id` is 1 to 256 bytes
//! without control characters; namespaces have documents of their own. A field with `?` may be missing.
//!
//! | operation | fields | answer |
//! | --- | --- | --- |
//! | `open` | `id`, `kind`, `lineage?`, `known?`, `in_parts?` | description, `presence`, and `text` or `value`; `created: true` once |
//! | `edit` | `id`, `op_id`, `base_version`, `author?`, `lineage?`, `edit` | `{accepted, results: [event]}` |
//! | `edit_batch` | `id`, `author?`, `lineage?`, `operations` | `{accepted, results: [event, …]}` |
//! | `undo` | `id`, `op_id`, `author?`, `count?` | `{accepted, results: [event]}` |
//! | `read` | `id`, `version?`, `offset?` | `{id, kind, version, text` or `value}` |
//! | `at` | `id`, `version`, `offset?` | the same, of that version |
//! | `versions` | `id`, `before?`, `limit?` | `{version, oldest, versions: [{version, op_id, author, time, undoes?}]}`, the newest first |
//! | `compact` | `id`, `keep?` | description |
//! | `presence` | `id`, `client?`, `author?`, `state` | `{present}` |
//! | `close` | `id` | description; everything is stored, and the caller is not there any more |
//!
//! - A **description** is `{id, kind, lineage, version, oldest, checkpointed, durable, size, store_failed?}`.
//! - `open` makes a document if there is none; every other operation answers `not_found` then. A document that is
//!   there and of another kind is a `conflict`. What cannot be read is an error (`store_failed`, `store_corrupt`)
//!   and never an empty document.
//! - Who was there before says its `lineage` and the versions it knows as `known` (8 at most, the best first): if one
//!   of them can still be reached, the answer has `since` and `missing_ops`, and no content if it was the first.
//!   A document that was made anew under an old name has another lineage: its versions say nothing about the old one.
//! - With a data folder `since` and `missing_ops` are there also for one who knows nothing: what was done after what is stored,
//!   and is in the content already. A crash would lose it, and who has to get its own operations back to what was there
//!   before knows the way so.
//! - What is more than 128 KiB of operations is left out, and the content told instead. With `in_parts` as much is told
//!   as fits, and the version it leads to; `more: true` says that who knows that version asks again.
//! - Operations of a batch (256 at most) follow one another: without `base_version` one is made for the version
//!   that the one before it made. If that was not applied, those after it are rejected with `skipped`.
//! - `undo` takes back the author's last `count` operations (1 to 100; 1) that are kept and not taken back yet, as a
//!   new operation. In text what others wrote meanwhile stays; in JSON it is rejected with `undo_conflict` if they
//!   changed the same place.
//! - `compact` forgets all but the last `keep` operations (0), and not what they did: older versions cannot be read
//!   any more, and a conflict behind them brings the content instead.
//! - Contents above 128 KiB come in parts: `{part, offset, next, version}`, of JSON parts of its text. Go on with
//!   `read {id, version, offset: next}` until `next` is null; the version is said, so that all parts are of one.
//!
//! # Edits
//!
//! Positions count Unicode code points from 0. `edit` is one of these or a list, done one after the other, each on
//! what the one before it left.
//!
//! | `type` | fields | |
//! | --- | --- | --- |
//! | `insert` | `text`, and `position`, `before` or `after` | `before` and `after` are a text that is there once |
//! | `delete` | `position` and `length`, or `anchor` | `anchor` is a text that is there once |
//! | `replace` | `text`, and `position` and `length`, or `anchor` | |
//! | `append` | `text` | at the end |
//! | `patch` | `patch` | JSON: a JSON Patch, RFC 6902 |
//! | `merge` | `merge` | JSON: a Merge Patch, RFC 7396 |
//!
//! The first four are for documents of the kind `text`, the others for `json`, which begin as `{}`.
//!
//! # Events
//!
//! JSON on `kps.document.<id>`, in the order in which things happened; each has `event` and `id`. Only the server
//! publishes there, and only patterns that spell out `kps.document.` match. Nobody who reads slowly holds up who
//! writes: a subscription that is full has a gap, and opens the document again with what it knows.
//!
//! | `event` | more | |
//! | --- | --- | --- |
//! | `change` | `previous`, `version`, `op_id`, `author`, `time`, `undoes?`, and `splices` or `changes` | an operation was applied |
//! | `ack` | `op_id`, `author`, `version`, `level` | it is in the document: `applied`, and once it is stored `checkpointed` |
//! | `conflict` | `op_id`, `author`, `base_version`, `server_version`, `missing_ops?`, `text?` or `value?` | it was made for another version |
//! | `rejected` | `op_id`, `author`, `code`, `message`, `version` | it will never be in the document |
//! | `checkpoint` | `version`, `level` | everything up to this version is stored |
//! | `store_failed` | `version`, `code`, `message` | what came after this version is in memory alone; it is tried again |
//! | `presence` | `client`, `author`, `state` | somebody is there; `state: null`: not any more |
//!
//! - `splices` are `[at, delete, "insert"]`, `changes` are `{"patch": […]}` or `{"merge": …}`; both are done one after the
//!   other on the content of `previous`. Whoever has another version than `previous` has missed something.
//! - A conflict brings the operations since its base (`missing_ops`, each as a change) if they are known and have
//!   128 KiB at most, else the content if that has; else it is read.
//! - An operation that was applied and is sent again is an `ack` with its version and its present level, also after a
//!   restart: the ids of the last 10,000 operations that are kept, and of 10,000 before them, are known.
//! - The answers of `edit`, `edit_batch` and `undo` have the same events; who follows the topic need not look at them.
//!
//! Codes of `rejected`: `invalid_operation`, `wrong_kind`, `position_out_of_range`, `anchor_not_found`,
//! `anchor_not_unique`, `invalid_patch`, `test_failed`, `too_deep`, `operation_too_large`, `too_many_edits`,
//! `document_too_large`, `op_id_reused`, `skipped`, `nothing_to_undo`, `undo_conflict`, `too_many_pending`.
//!
//! # From a client
//!
//! [`Client::open_document`](crate::Client::open_document) — `await client.open_document(id)` in Python, `await
//! client.openDocument(id)` in Node — gives a [`Document`](crate::document::Document) that does all of the above by itself.
//!
//! - **Edits** are in its `text` or `value` at once, also without a connection, and go to the server in their order, one
//!   batch at a time. `edit` fails at once if an edit does not fit what is here; awaiting what it returns says what the
//!   server made of it. Awaiting is optional: an operation that is given up is told as the event `failed` as well.
//! - **Positions** are those of the content at the moment of `edit`. What others do comes in beside the program's own
//!   thread, between any two of its lines and while a handler runs: a position that was read before — the length of `text`,
//!   say — may be another place by then, or refused with `position_out_of_range`. What is looked up and done in one
//!   step is not: `append`; `before`, `after` and `anchor`; a stream, which stays at its place; a JSON Patch that begins with `test`.
//!   Who needs positions takes a document of the kind `yjs` and binds one of Yjs' own to it, which changes only where
//!   the program lets it ([how](crate::manual::document_yjs)). Once an edit is done here, what others did is taken into account.
//! - **Conflicts**: what others did first is taken in, the own operations are moved over it and sent again, 100 times
//!   at most ([`OpenDocument::rebases`](crate::document::OpenDocument)); an operation that lost three times is let first by the
//!   other clients. With `rebase: false` nothing is moved: the operation, and all that were edited after it, fail with
//!   `conflict` and the server's event, which has what was missed. Whoever wrote looks at it and edits again.
//! - **Streams** write token by token: what comes within 50 ms, or until the operation before is acknowledged, becomes one
//!   operation. Later text comes right after earlier text, wherever that has moved; what others append at the same
//!   place comes after it.
//! - **Events**: those of the table above, in the bytes that travelled, and four that only the client knows: `failed
//!   {op_id, code, message}`; `gap {reason, count?, version}` (events were missed; the content is right again); `resumed
//!   {replayed}` (the connection was lost, and nothing missed); `closed {code, message}`. A listener that is 16 MiB behind has a
//!   `gap`.
//! - **Lost connections**: the document is opened again with the versions that are known, and what the server does not have
//!   is sent again, under the same ids: nothing is done twice. `unsynced` are the own operations that a crash of the server
//!   now would lose; after a crash exactly those are sent again. A client with an `outbox` file keeps them there, and another
//!   process with the same client id (or author) sends them when it opens the document. The server may have them, and others may
//!   have gone on: what was edited is moved over that, operation by operation as long as the server knows those since,
//!   else to where a comparison of the two texts puts it. What another process left is refused then (`conflict`).
//! - **Presence**: what `set_presence` is given is told again every 10 s; `cursor` and `selection` of everybody are moved over
//!   what is edited, and are positions in the text as it is here.
//! - `close` sends what is not sent, has the server store it, and returns what is still `unsynced`; a client that closes
//!   sends what its documents have first.
//!
//! # Versions and crashes
//!
//! A version is a weak ETag, `W/"17"`, and grows with every operation. Documents live in memory and are stored
//! ([`DocumentOptions`]) 10 s after a change or after 50 operations, whichever comes first, with `close`, and when
//! the server ends in order. Without a data folder they live as long as the server: then nothing is
//! `checkpointed`, and `durable` is false. After 30 minutes without a call a document leaves memory, and comes back with
//! the next one.
//!
//! A server that is killed loses what was `applied` and not `checkpointed`: at most 50 operations or 10 s of a
//! document. Versions that were told and lost are not given again: the next one is above all of them, so that a
//! version never names two contents. Who wants its operations to be there sends those again for which it has no
//! `checkpointed`; [`Client::open_document`](crate::Client::open_document) does.
//!
//! While the store fails, documents stay in memory and are edited; it is tried again after 1 s, 2 s, … 30 s.
//! Up to 100,000 operations of a document wait so; then `too_many_pending`. Before the first operation after it was
//! opened, a document notes in the store that it is in use; if that fails, `edit` fails with `store_failed`.
//!
//! # Presence
//!
//! `presence` tells everybody at a document what somebody says of itself: a name, a colour, a cursor. `state` is an
//! object of at most 4 KiB, `client` the caller's id unless told. It ends with `state: null`, with `close`, with the
//! session of the client that said it (after [`ServerOptions::presence_grace`], if its connection is merely lost), and over
//! HTTP 30 s after it was said last. 1,000 may be at a document.
//!
//! # Over HTTP
//!
//! `PUT /v1/documents/{id}` opens, `GET` reads, `POST …/operations` takes one operation or a batch and answers `202
//! Accepted`: that it was read, and no more. Results are the same events, on `GET …/events` (server-sent events) and
//! on the topic. Operations of any size are taken; one that is too large is `rejected`, as is everything else that is
//! wrong with one.
//!
//! # Limits
//!
//! | | | option |
//! | --- | --- | --- |
//! | a document | 4 MiB of text, or of JSON | [`Limits::document`], `--document-max-size` |
//! | an operation | 256 KiB, 1,000 edits | [`Limits::operation`], `--document-max-operation` |
//! | JSON | 100 lists and objects deep | |
//! | `op_id`, `author` | 128 bytes, 256 bytes | |
//! | operations that are kept | 10,000 and 4 MiB of each document; then the older half is folded into one content | [`Limits::history`], `--document-history` |
//! | documents in memory | 10,000, and 512 MiB; those that are stored make room | [`DocumentOptions::memory`], `--document-memory` |
//! | stored | 10 s after a change, or after 50 operations | `--document-checkpoint-every`, `--document-checkpoint-operations` |
//! | leaves memory | after 30 min without a call | `--document-idle` |
//!
//! # Who may read, and who may change
//!
//! Without permissions everybody may everything. A token, or what [`OnConnect`](crate::auth::OnConnect) makes of it, says
//! which calls and which documents:
//!
//! | permission | on | |
//! | --- | --- | --- |
//! | publish | `kps.server.document.<operation>` | call the operation at all |
//! | subscribe | `kps.document.<id>` | read that document: `open`, `read`, `at`, `versions`, `sync`, `presence`, `close`, its events |
//! | publish | `kps.document.<id>` | change it, too: `edit`, `edit_batch`, `undo`, `update`, `compact`; make it with `open` |
//!
//! A change needs both: its answer tells what others did. Patterns have to spell out `kps.document.`, and the levels of an
//! id are levels of its topic: `kps.document.team.>` is every document whose id begins with `team.`. What is missing is
//! `unauthorized` and named in the sentence, also where one who may only read opens what there is not.
//! The permission to publish lets nobody tell events: the server alone does, and refuses everybody else there. It is the
//! same over the bus, KPS JSON, HTTP and `/yjs/{id}`; the program that runs the server may everything.
//!
//! ```
//! use kps::{
//!     Client, ConnectOptions, Server, ServerOptions, auth::Token, document::{Edit, OpenDocument},
//! };
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let reader = Token::new("r3ad").name("reader").publish(["kps.server.document.>"])?;
//! let writer = Token::new("wr1te").name("writer").publish(["kps.server.document.>", "kps.document.team.>"])?;
//! let tokens = vec![
//!     reader.subscribe(["kps.document.team.>"])?,
//!     writer.subscribe(["kps.document.team.>"])?,
//! ];
//! let server = Server::start(ServerOptions { tokens, ..ServerOptions::listen("127.0.0.1:0") })?;
//! let open = async |token: &str, id: &str| {
//!     let token = Some(token.to_owned());
//!     let client = Client::connect(ConnectOptions { token, ..ConnectOptions::new(server.url()) }).await?;
//!     client.open_document(id, OpenDocument::default()).await
//! };
//!
//! let notes = open("wr1te", "team.notes").await?;
//! notes.edit(Edit::append("Hello"))?.await?;
//! let read = open("r3ad", "team.notes").await?;
//! assert_eq!(read.text().as_deref(), Some("Hello"));
//! assert_eq!(read.edit(Edit::append("!"))?.await.unwrap_err().code, "unauthorized");
//! assert_eq!(open("wr1te", "salaries").await.unwrap_err().code(), "unauthorized");
//! # Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! [`DocumentOptions`]: crate::document::DocumentOptions
//! [`DocumentOptions::memory`]: crate::document::DocumentOptions::memory
//! [`Limits::document`]: crate::document::Limits::document
//! [`Limits::operation`]: crate::document::Limits::operation
//! [`Limits::history`]: crate::document::Limits::history
//! [`ServerOptions::presence_grace`]: crate::ServerOptions::presence_grace
