//! Documents that merge: the kind `yjs`, for editing offline without conflicts.
//!
//! A document of this kind is a [Yjs](https://docs.yjs.dev) document. What everybody does merges, whenever it comes
//! and in whatever order; there is no base version, no conflict and no rebase. It is stored, announced, evicted and
//! named as the [other kinds](crate::manual::document) are: after ten seconds or fifty operations, at closing, with
//! `ack`s of the levels `applied` and `checkpointed`; what cannot be loaded is an error and never an empty document.
//!
//! ```
//! use kps::{Client, ConnectOptions, Server, ServerOptions, document::{Edit, OpenDocument}};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::start(ServerOptions::listen("127.0.0.1:0"))?;
//! let client = Client::connect(ConnectOptions::new(server.url())).await?;
//!
//! let page = client.open_yjs("page", OpenDocument::default()).await?;
//! page.edit("text", Edit::append("Hello"))?;
//! page.flush().await?;
//! // What another Yjs document has to apply to be the same.
//! let update = page.state(None)?;
//! assert!(update.len() > 5);
//! assert_eq!(page.value(), serde_json::json!({"text": "Hello"}));
//! page.close().await;
//! # Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! # From a client
//!
//! [`Client::open_yjs`](crate::Client::open_yjs) — `await client.open_document(id, kind="yjs")` in Python, `await
//! client.openDocument(id, { kind: "yjs" })` in Node — gives a [`YjsDocument`](crate::document::YjsDocument). What is edited
//! there is in sight at once, also without a connection, and goes to the server when there is one: edits of the texts, by
//! the names of their roots, as [other documents](crate::manual::document#edits) have them. `value` has all roots as JSON.
//! What is not sent when the program ends is lost: an `outbox` file does not keep it.
//!
//! Maps, lists and formatted text are edited in a Yjs document of the program's own, which is bound to it. In Python, with
//! `pycrdt`:
//!
//! ```py
//! page = await client.open_document("page", kind="yjs")
//! doc = pycrdt.Doc()
//!
//! def take(event):
//!     if event["origin"] != "program":
//!         doc.apply_update(base64.b64decode(event["update"]))
//!
//! page.on("update", take)
//! doc.apply_update(page.state())
//! # What comes back is there already and goes no further.
//! doc.observe(lambda event: page.apply_update(event.update))
//!
//! doc.get("map", type=pycrdt.Map)["title"] = "Bees"
//! ```
//!
//! and in Node, with `yjs`:
//!
//! ```js
//! const page = await client.openDocument("page", { kind: "yjs" });
//! const doc = new Y.Doc();
//! page.on("update", ({ origin, update }) => {
//!   if (origin !== "program") Y.applyUpdate(doc, Buffer.from(update, "base64"), page);
//! });
//! Y.applyUpdate(doc, page.state(), page);
//! doc.on("update", (update, origin) => {
//!   if (origin !== page) page.applyUpdate(update);
//! });
//!
//! doc.getMap("map").set("title", "Bees");
//! ```
//!
//! Such a document changes on the program's thread alone, when an update is applied: a position that was read in it holds until
//! the program gives up control. In `page` itself what others do comes in between any two lines, as with [other
//! documents](crate::manual::document#from-a-client).
//!
//! # Yjs editors: `/yjs/{id}`
//!
//! The server speaks the sync and awareness protocols of Yjs, so that an unmodified provider connects:
//!
//! ```js
//! const provider = new WebsocketProvider("ws://localhost:9313/yjs", "page", new Y.Doc(), { params: { token } })
//! ```
//!
//! The id is the rest of the path, percent-decoded. The token comes as `?token=` or `Authorization: Bearer`; `Origin`
//! and `Host` are checked as everywhere. Who may call `document.open` and [read the document](crate::manual::document)
//! (subscribe to `kps.document.{id}`) may read, and who may call `document.update`, too, and change it (publish to
//! `kps.document.{id}`) may write. A reader that comes before there is a document is closed with 1013, and comes back.
//! [`OnConnect`](crate::auth::OnConnect) sees the path of every connection, and may give it the permissions for the one
//! document that it asks for. A refusal is told as an auth message and closes with 4400 (not taken), 4403 (may not),
//! 4409 (a document of another kind) or 4413 (too large), after which `y-websocket` stays away; 1001 and 1013 are for
//! now, and it comes back and syncs. A connection that does not read what waits for it is closed with 1013 at 8 MiB.
//!
//! What several editors do at about the same time is told as one update: it costs each of the others as much as one. Where
//! 10 or more are connected, they are told at most every 0.1 ms for each of them, and at least every 50 ms; what comes
//! after a pause is told at once.
//!
//! Awareness is told on the bus as `presence` of the client `yjs:<number>`, and who is present on the bus is shown to
//! editors as `{"user": {"name", "color"}, "kps": …}`. An editor that leaves, or says nothing for 30 seconds, is gone.
//!
//! # On the bus
//!
//! | operation | fields | answer |
//! | --- | --- | --- |
//! | `open` | `id`, `kind: "yjs"`, `state_vector?` | description, `presence`, and `update` and the server's `state_vector` |
//! | `sync` | `id`, `state_vector?` | `{id, version, update, state_vector}`: what is missing |
//! | `update` | `id`, `op_id`, `update`, `author?` | `{accepted, results: [event]}` |
//! | `read` | `id`, `root?` | `value`: all roots as JSON; with `root` the `text` of that one |
//!
//! Updates and state vectors are bytes in version 1 of Yjs' encoding, or their base64. A state that does not fit one
//! answer comes in parts: `part`, `of` (a version), `offset` and `next`; the next part is `sync` with `of` and
//! `offset`, and after the last one `sync` with the `state_vector` of what was put together has the rest. `not_found`
//! means that the state was folded meanwhile: begin again.
//!
//! A change is told as `change {previous, op_id, author, version, time, update}` with the update in base64; an empty
//! one was too large for a message, and `sync` has it. The same `op_id` is applied once; an update that is there
//! already is acknowledged all the same. `edit`, `undo` and old versions are not for this kind.
//!
//! # Limits
//!
//! | what | limit | otherwise |
//! | --- | --- | --- |
//! | a document's state, what was deleted included; one update | 16 MiB, `--document-max-state` | `document_too_large`, `operation_too_large` |
//! | types in a document | 200,000; a document within it counts as 100 | `document_too_large` |
//! | values within each other | 100 | `invalid_operation` |
//! | updates that wait for one before them | 1 MiB, then they are forgotten | who has them sends them again |
//! | one client's awareness | 64 KiB, 1,000 clients and 1 MiB for each connection | closed with 4400 |
//!
//! An update that is malformed is `invalid_operation` and changes nothing. JSON content of Yjs before version 13, links
//! and hooks are not taken. Of a document within a document the server keeps no content.
