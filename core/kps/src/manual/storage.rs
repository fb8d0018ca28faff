//! Values under keys: on disk or in memory, encrypted or not, from every language.
//!
//! [`Storage`](crate::capability::storage::Storage) is a capability: it is called by `dispatch("storage.save",
//! {…})`, in this process or over the bus. Its values are anything that calls carry but functions: JSON, bytes,
//! integers of any size, arrays of numbers. What is saved comes back exactly: `1` stays an integer and `1.0` a
//! float. Every caller's namespace has keys of its own.
//!
//! ```
//! # #[cfg(feature = "store")] {
//! use kps::capability::{Call, Caller, Cancel, Capability, Value};
//! use kps::capability::storage::{Storage, StorageOptions};
//!
//! # async fn run() {
//! let storage = Storage::open(StorageOptions::memory()).unwrap();
//! let call = |operation: &str, payload| Call {
//!     id: "1".into(),
//!     operation: operation.into(),
//!     payload,
//!     caller: Caller::default(),
//!     cancel: Cancel::default(),
//!     deadline: None,
//!     attempt: 1,
//!     progress: None,
//! };
//! let save = Value::map([("key", "greeting".into()), ("value", "hello".into())]);
//! let saved = storage.call(call("save", save)).await.unwrap();
//! let got = storage.call(call("get", Value::map([("key", "greeting".into())]))).await.unwrap();
//! assert_eq!(got.get("value"), Some(&"hello".into()));
//! assert_eq!(got.get("etag"), saved.get("etag"));
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run());
//! # }
//! ```
//!
//! # Where values are
//!
//! A client's own storage, which calls without a target reach, is in memory unless `connect` is told otherwise; the server's,
//! which calls with `target="server"` reach, is `values.db` in its data folder, or in memory if it has none.
//!
//! | | a client's own | a server's |
//! | --- | --- | --- |
//! | Python | `connect(url, storage="app.db")` | `Server(data="data", storage={"versions": 5})` |
//! | Node | `connect(url, { storage: "app.db" })` | `Server.start({ data: "data", storage: { versions: 5 } })` |
//! | Rust | [`ConnectOptions::storage`](crate::ConnectOptions::storage) | [`ServerOptions::storage`](crate::ServerOptions::storage) |
//! | command line, `kps.toml` | | `--storage-versions`, `--storage-quota`, `--storage-compress`, `--storage-durability`, `--storage-key-file` |
//!
//! It is told a path, or the options of [`StorageOptions`](crate::capability::storage::StorageOptions) that it needs:
//! `path`, `key` (32 bytes or a passphrase), `compress`, `versions`, `quota`, `durability` (`"full"` or `"normal"`), `max_key`,
//! `max_value`, `max_inline`, `max_local_size`; in Node in camelCase. A server's storage without a path is in its data
//! folder. What is wrong is told by `connect` and by the server's start: `invalid_argument` names the option,
//! `unauthorized` says that the key is another one. `kps serve` takes the key from a file or from the environment variable
//! `KPS_STORAGE_KEY`, 64 hexadecimal digits or a passphrase; it never stands on a command line.
//!
//! # Operations
//!
//! A field with `?` may be missing. Unknown fields are refused by name. "What is known" of a value is `key`, `etag`,
//! `size` (bytes), `modified` (seconds since 1970), `location`, and, if there is any, `expires` and `content_type`.
//!
//! | operation | fields | answer |
//! | --- | --- | --- |
//! | `save` | `key`, `value`, `ttl?` (seconds), `if_match?`, `if_none_match?` (`"*"`), `content_type?` | what is known |
//! | `get` | `key`, `if_none_match?`, `version?` | what is known, and `value`; with `not_modified: true` in its place if it has the ETag `if_none_match` |
//! | `exists` | `key` | `exists`; if so `etag`, `size` |
//! | `delete` | `key`, `if_match?` | `deleted` |
//! | `list` | `prefix?`, `limit?` (100, at most 1,000), `cursor?` | `items` (what is known, without `location`), `cursor` (`null` at the end) |
//! | `save_many` | `items`: payloads of `save` | `results` |
//! | `get_many`, `delete_many` | `keys` | `results` |
//! | `transaction` | `operations`: `{op: "save" \| "delete" \| "get", …}` with that operation's fields, or `{op: "check", key, if_match?, if_none_match?}` | `results`: what each answers, `{}` for a check |
//! | `history` | `key`, `limit?` | `versions`, the newest first: `etag`, `size`, `modified`, `deleted`, `current` |
//! | `watch` | `prefix?`, `callback` | `watch`: what it is called |
//! | `unwatch` | `watch` | `unwatched` |
//! | `query` | `sql`, `parameters?`, `limit?` (1,000, at most 10,000 rows) | `columns`, `rows`, `truncated` |
//! | `stat` | | `keys`, `bytes`, `quota`, `expired`, `uploads`, `max_key`, `max_value`, `max_inline`, `versions`, `encrypted`, `compressed`, `durability`, `cloud` (`null`, or `url`, `max_local_size`, `cached`) |
//! | `upload` | `key`, `ttl?`, `if_match?`, `if_none_match?`, `content_type?` | `upload`, `part_size` |
//! | `upload_part` | `upload`, `number` (from 0), `bytes` | `size` so far |
//! | `upload_done` | `upload` | what is known |
//! | `upload_cancel` | `upload` | `cancelled` |
//! | `configure_cloud` | `url?`, `auth_token?`, `max_local_size?`, `cache_size?`, `cache_age?` | `configured`, `reachable` |
//! | `get_part` | `key`, `offset?` (0), `length?` (512 KiB, at most 1 MiB), `etag?` | what is known, `bytes`, `offset`, `kind` (`"bytes"` or `"text"`), `done` |
//!
//! `results` of a batch are in order, `{status: "ok", data}` or `{status: "error", error: {code, message, retry,
//! field?}}` each. Batches and transactions have at most 1,000 members.
//!
//! # What an ETag says
//!
//! It is another one after every save, also of the same value: it is made of a number that only grows and of a hash
//! of the content. `if_match` does something only to the value it was read from (`"*"`: only if there is one),
//! `if_none_match: "*"` only if there is none; otherwise the call fails with `conflict`, says the ETag that the value
//! has, and nothing changed. A transaction that fails names the operation by its place.
//!
//! # Large values
//!
//! Bytes and text may have up to [`max_value`](crate::capability::storage::StorageOptions::max_value) (1 GiB), anything
//! else up to `max_inline` (16 MiB). `upload` takes a value in parts, in order, of up to 1 MiB each (`part_size` is
//! best): it becomes the key's value at `upload_done`, all at once, and whatever happens before leaves the old one. A
//! part that is sent twice is taken once. An upload that gets nothing for an hour is forgotten, so are all when the
//! storage is opened again. `get_part` reads without taking more into memory than it returns; with `etag` it fails
//! with `conflict` rather than mix two values. `get` returns up to `max_inline` bytes.
//!
//! # Streams
//!
//! `client.storage` does all that for the program, with this client's storage, the server's or another one: it sends and
//! reads four parts ahead, so that a value does not wait for each answer, and never has more of it in memory.
//!
//! ```python
//! await client.storage.save("film", Path("film.mp4"), target="server", on_progress=print)
//! async for piece in await client.storage.stream("film", target="server"):
//!     ...
//! await client.storage.get_to("film", "copy.mp4", target="server")
//! ```
//!
//! ```js
//! await client.storage.save("film", createReadStream("film.mp4"), { target: "server", onProgress: console.log });
//! for await (const piece of await client.storage.stream("film", { target: "server" })) …
//! await client.storage.getTo("film", "copy.mp4", { target: "server" });
//! ```
//!
//! A source that fails, a task that is cancelled, a `signal` that is aborted: the old value stays. A reader gets bytes of one
//! value, or `conflict` when it is replaced or deleted meanwhile. In Rust it is [`Client::storage`](crate::Client::storage),
//! with [`Upload`](crate::capability::storage::Upload) and [`Download`](crate::capability::storage::Download).
//!
//! # What expires, what is kept
//!
//! A value with a `ttl` is never returned once that is over, and is removed soon after. A save without one keeps the value
//! for good. With `versions` above 0 so many old versions of each key are kept, also when it is deleted, and `get`
//! with `version` returns one; what expires takes them with it. They count against the quota.
//!
//! # Changes
//!
//! `watch` calls a function with `{event: "saved" | "deleted" | "expired", key, etag, size, modified}` after each
//! change is committed, in order. In Rust [`on_change`](crate::capability::storage::Storage::on_change) hears of every
//! namespace.
//!
//! With the target `server` it watches the server's storage, whoever changes it: its changes come as messages on
//! `kps.storage.changes`, which only the server publishes and which a client needs the permission to subscribe to. The
//! watch ends with `unwatch` and with its client, and goes on after a reconnect. A connection that comes back within the
//! session's time misses nothing; wherever changes may be missing the function is told `{event: "gap", reason, count}`
//! (`count` may be `null`) in their place, and from there on misses nothing again: that is the moment to look what is
//! there. If the server ends the watch, `{event: "closed", error}` is the last it hears. A client has up to 4,096.
//!
//! Calls of other processes wait for the disk on a thread of their own: a disk that does not answer delays them, and
//! nothing else that the server does.
//!
//! # SQL
//!
//! `query` runs one `SELECT` over the view `entries(key, size, etag, modified, expires, content_type, json)`: the caller's
//! own keys. `json` is the value as JSON text for SQLite's `json_extract` and `json_each`; it is `NULL` for bytes and for
//! values above 256 KiB. Anything else is refused: writing, other tables, `PRAGMA`, `ATTACH`. A query ends at the
//! call's deadline, at the latest after 30 seconds, and when it is cancelled; answers end at 8 MiB. A storage in memory is
//! copied for it, up to 64 MiB.
//!
//! # Durability
//!
//! In a file, `save` is answered when fsync has returned; saves that wait share one. With `normal` it is answered when
//! the operating system has it: it survives the end of the process, and after a power failure the last moments may be
//! missing. One process has the file at a time. Rows carry checksums: damage is `store_corrupt`, never a wrong value.
//! `kps verify DIR` reads all of a data folder's values as well, also while the server runs, and `kps verify FILE` those of
//! any storage; neither needs the key.
//!
//! # Encryption and compression
//!
//! With a [`Key`](crate::capability::storage::Key) values are encrypted with XChaCha20-Poly1305, each with a random nonce and
//! bound to its place; a passphrase becomes a key by Argon2id. Another key is `unauthorized` when the storage is opened.
//! **Keys' names, sizes, times and content types stay readable**, and so does which key was saved how often. A storage that
//! holds values cannot be encrypted afterwards. `compress` keeps values of 512 bytes and more in LZ4 where that wins an
//! eighth; it may be switched at any time.
//!
//! # The cloud
//!
//! `configure_cloud` names a libSQL database (Turso, or a server of one's own), which several storages may share. It is
//! for the program that opened the storage: a client's for its own, a server's program for the server's
//! (`server.dispatch("storage.configure_cloud", …)`). Other clients may not call it, and hear `unauthorized`, for it says where
//! everybody's values go; `kps serve` has `--storage-cloud URL`, and the token in a file (`--storage-cloud-token-file`) or in
//! `KPS_STORAGE_CLOUD_TOKEN`. Without `url` there is no cloud any more.
//! Values of up to `max_local_size` bytes (5 MB) stay here, larger ones go there in chunks of 256 KiB, and the answer's
//! `location` says `"local"` or `"cloud"`. Where a value is, is decided anew by each save; the other side's copy goes.
//!
//! * If the cloud cannot take a value it stays here, if the file cannot it goes there: the answer has a `warning`
//!   and the `location` where it is. It is found there, and it moves with its next save.
//! * A key whose value is here, and of which the cloud was never given one, is read without asking the cloud. For any
//!   other the cloud is asked, and the newer value is returned. If it cannot be asked, an answer that may be old has
//!   `possibly_stale: true` and a `warning`: the value here, one of the cache, what was known. If there is none, the
//!   call fails with `unavailable`; it is not said that there is no such key.
//! * The last 64 MiB of values read from the cloud are cached for 60 seconds (`cache_size`, `cache_age`). A cached value
//!   is returned if the cloud says that it is the current one, or cannot be asked.
//! * `delete` of a key that the cloud may have needs the cloud: otherwise it would come back.
//! * Transactions stay here; one with a key whose value is in the cloud is refused with `unsupported`.
//! * `history`, `query`, the quota, and `watch` of what others do concern what is here. `max_local_size` is compared with the
//!   value's `size`. Between two storages that save one key at the same time the last one wins.
//! * Values are encrypted with the storage's key there as well. With a key of 32 bytes another storage with the same key
//!   reads them; a passphrase makes another key in each file.
//!
//! # Errors
//!
//! | code | when |
//! | --- | --- |
//! | `invalid_payload` | a field is missing, unknown or wrong: it is named; a query that is refused |
//! | `not_found` | no such key, version or upload |
//! | `conflict` | a condition does not hold; a part out of order; the value changed between two parts |
//! | `too_large` | a key over 1,024 bytes, a value over its limit, an answer over `max_inline` |
//! | `quota_exceeded` | the namespace is full |
//! | `unsupported` | `history` without versions; `get_part` of what is neither bytes nor text; a transaction in the cloud |
//! | `unavailable` | too much waits to be written, too many queries run, the cloud cannot be reached: try again |
//! | `store_failed`, `store_corrupt` | the disk is full or fails; the file is damaged |
//! | `unauthorized` | the file needs a key, or another one; the cloud refuses the token |
