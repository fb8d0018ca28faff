//! The bus over HTTP: for curl, a serverless function, a page without a client of kps.
//!
//! Every server that listens on a socket answers HTTP/1.1 on the same port as its WebSocket, with TLS as `https`. There is
//! nothing to switch on. `/openapi.json` describes all of it as OpenAPI 3.1.
//!
//! ```sh
//! kps serve &
//! bus=http://127.0.0.1:9313
//! curl -N "$bus/v1/events?topic=greetings" &
//! curl -d '{"hello": "Ada"}' $bus/v1/publish/greetings
//! ```
//!
//! A topic, an action and a document's id are one segment of the path, percent-encoded. So are patterns in a query: `>` is
//! written `%3E`.
//!
//! # Who may do what
//!
//! A token is shown as `Authorization: Bearer TOKEN` or, where a page cannot set headers, as `?token=TOKEN`. It stands for
//! the same principal as on the bus, with the same namespace and permissions; [`OnConnect`](crate::auth::OnConnect) sees
//! every request. What a request does is done by a client of its principal inside the server, whose id begins with `http-`:
//! that is the `sender` of what it publishes.
//!
//! `Host` and `Origin` are checked as they are for WebSockets: pages of foreign origins are refused. Those of an origin that
//! was allowed (`--allow-origin`, [`allowed_origins`](crate::ServerOptions::allowed_origins)) may also read the answers
//! (CORS); without that no answer has a CORS header.
//!
//! # Publish, request, dispatch
//!
//! | | body | answer |
//! | --- | --- | --- |
//! | `POST /v1/publish/{topic}` | the payload | 202 `{"id", "level"}` |
//! | `POST /v1/request/{topic}` | the payload | 200 the first successful answer, as what it is |
//! | `POST /v1/dispatch/{capability.operation}` | JSON; nothing is `null` | 200 JSON |
//!
//! A payload's type is that of `Content-Type`: `application/json`, `text/…` or `application/octet-stream`. Without one,
//! and with the `application/x-www-form-urlencoded` of `curl -d`, it is JSON, and refused if it is not.
//!
//! A publish takes `id`, `ttl` (seconds), `header=name:value`, `to`, `private`, `offline`, `retain`, and
//! `receipt=accepted` (the default) or `stored`; a request the same but the last two. `timeout` is in seconds: 30 for
//! publish and request, 5 for dispatch. A dispatch takes `target` (`server`, `any` or a client's id) and `idempotency_key`.
//! kps' own capabilities are called at the server, others at whichever client offers them. A request whose connection is
//! closed is cancelled.
//!
//! ```sh
//! curl -d '{"key": "ada", "value": {"born": 1815}}' $bus/v1/dispatch/storage.save
//! curl -d '21' "$bus/v1/request/math.double?timeout=2"
//! curl -H 'Content-Type: text/plain' -d 'not JSON' "$bus/v1/publish/notes?retain=true"
//! ```
//!
//! # Events
//!
//! `GET /v1/events?topic=PATTERN` is a stream of server-sent events, as `EventSource` reads them; `topic` may come 16 times.
//!
//! ```text
//! id: 6f0c…-17-
//! event: message
//! data: {"topic":"greetings","data":{"hello":"Ada"},"content_type":"json","id":"…","sender":"http-…","seq":1,"epoch":…,"time":…}
//! ```
//!
//! `data` is JSON as it is, text as a string, bytes as `{"$bytes": base64}`; `headers` and `retained` are there if they say
//! something. `start` is as of every subscription: `new`, `last`, `all`, a cursor, or milliseconds since 1970.
//!
//! `id:` is where the stream goes on. A reader that sends it as `Last-Event-ID` (an `EventSource` does by itself, after
//! `retry:`; another may say `?last_event_id=`) is told first, for each topic, what became of the time between:
//!
//! - `event: resumed` `{"topic", "replayed"}`: nothing is missing; so many messages came meanwhile.
//! - `event: gap` `{"topic", "count", "first", "last", "reason"}`: messages are missing. `count` is `null` where nobody knows
//!   how many. Gaps come in the middle of a stream too, where a slow reader missed something.
//!
//! The server keeps a lost stream for the resume window (30 s) with what comes meanwhile, so that a cut connection costs
//! nothing on any topic. After that, and after a restart, topics with history go on where they were, and others have a gap
//! with the reason `session_expired`. An id belongs to its token and its topics; with others it is only a place in history.
//!
//! `event: closed` `{"topic", "code", "message"}` is the last of a stream that the server ends. A line with a colon alone
//! shows every 8 s that the stream lives.
//!
//! A slow reader holds nobody up. 1,000 messages of each topic wait for it (`capacity`); beyond them the oldest are dropped
//! and told as a gap (`overflow`: `drop_oldest`, `drop_newest`, `latest`, `disconnect`, `spill`). One that takes nothing at
//! all for `stall_timeout` (10 s) is closed. A stream never answers: who publishes with acks has the row `no_handler` of it.
//!
//! # Documents
//!
//! The chapter [`document`](super::document) says what operations, versions and events are.
//!
//! | | body | answer |
//! | --- | --- | --- |
//! | `PUT /v1/documents/{id}` | `{"kind": "text"\|"json"\|"yjs"}` | 200, or 201 if it was made: the document |
//! | `GET /v1/documents/{id}` | | 200 the document, with `ETag`; 304 for `If-None-Match`; `?version=W/"3"` an older one |
//! | `POST …/operations` | one `{"op_id", "base_version", "author"?, "edit"}`, or several as `{"author"?, "operations": […]}` or as a bare list | 202 `{"accepted", "op_ids"}` |
//! | `POST …/undo` | `{"op_id", "author"?, "count"?}` | 202 |
//! | `GET …/versions` | | `?before=`, `?limit=` |
//! | `POST …/compact`, `…/close` | `{"keep"?}`, nothing | 200 what is known of it |
//! | `POST …/presence` | `{"state", "client"?, "author"?}` | 202; it ends 30 s after it was said last |
//! | `GET …/events` | | server-sent events |
//!
//! 202 says that operations were read, and no more. What becomes of each is an event, told to everybody and with the same
//! bytes as on the topic `kps.document.{id}`: `change` and `ack`, `conflict`, or `rejected`. That goes for what is wrong
//! with an edit, too: a paste of 20 MB is `rejected` with `operation_too_large`; only a body over 32 MiB, or one that is no
//! JSON, is refused at once. Contents are answered as a whole, however large. The author is who the token names, else
//! `http`, unless the request says; operations of one request have one.
//!
//! A version is written `W/"17"`, as the `ETag` of the document; `"17"` and `17` are read too. `If-Match: W/"17"` is the
//! `base_version` of an operation, or of the first of several, that has none of its own. If both say something it must be
//! the same, else the request is refused (400). That is all it does: an older version is a `conflict` event, never 412.
//!
//! Whoever may call `document.…` on the bus may do it here: `GET` needs the permission to publish to
//! `kps.server.document.read`, and so on. And it has to be [a document of theirs](crate::manual::document): all of these
//! need the permission to subscribe to `kps.document.{id}`, and operations, `undo`, `compact` and a `PUT` that makes the
//! document that to publish there. Without it they are 403.
//!
//! ```sh
//! curl -X PUT -d '{"kind": "text"}' $bus/v1/documents/notes
//! curl -N $bus/v1/documents/notes/events &
//! curl -d '{"op_id": "1", "base_version": "W/\"0\"", "edit": {"type": "append", "text": "hello"}}' \
//!     $bus/v1/documents/notes/operations
//! curl -H 'If-Match: W/"1"' -d '[{"op_id": "2", "edit": {"type": "append", "text": " there"}}]' \
//!     $bus/v1/documents/notes/operations
//! curl $bus/v1/documents/notes
//! ```
//!
//! # Refusals
//!
//! Every refusal is `{"error": {"code", "message", "retry", "field"?}}` with one of the codes of
//! [`ErrorKind`](crate::ErrorKind).
//!
//! | status | codes |
//! | --- | --- |
//! | 400 | `invalid_topic`, `invalid_argument`, `invalid_payload`, `protocol` |
//! | 401 | `unauthorized`: the token is missing or wrong |
//! | 403 | `unauthorized`: it may not do this; `forbidden_origin` |
//! | 404, 405 | `not_found`, `unknown_capability`, `unknown_operation`; `unknown_action` |
//! | 409 | `conflict`, `receipt_unavailable`, `would_deadlock` |
//! | 413, 415, 431 | `payload_too_large`, `too_large`; `unsupported`; `too_large` |
//! | 429, 507 | `limit_exceeded`; `quota_exceeded` |
//! | 501 | `unsupported`: as history, where there is none |
//! | 502 | `handler_failed`, `disconnected` |
//! | 503 | `no_responders`, `unavailable`, `closed`, `store_failed`, `outbox_full` |
//! | 504 | `timeout` |
//!
//! # For who operates a server
//!
//! `/healthz` answers as long as the process does. `/readyz` is 503 once the server is about to close or its store has
//! failed. `/metrics` is for Prometheus.
//!
//! Connections are kept alive; between requests, and for the head of one, they have `handshake_timeout` (10 s). A head has
//! at most 16 KiB and 64 lines, a payload what the bus takes (1 MiB), a body for a document 32 MiB; a body's parts may
//! take 10 s each, and 2 min together. Bodies that are under way together take at most 256 MiB; beyond that requests are
//! answered 503. A stream counts as two of `max_connections`.
