//! Work on all cores: built-in tasks, functions of the program, sandboxed WebAssembly.
//!
//! [`Compute`](crate::compute::Compute) is a capability: it is called by `dispatch("compute.execute", {…})`. In this
//! process that is without a server; a server offers its own to `target="server"`; with `target="any"`, or a client's
//! id, the clients that share a task do it.
//!
//! # Operations
//!
//! A field with `?` may be missing. Unknown fields are refused by name.
//!
//! | operation | fields | answer |
//! | --- | --- | --- |
//! | `execute` | `task`, `data?` | `result` |
//! | `batch` | `tasks`: `{task, data?}`, `progress?` | `results`: an envelope for each, in order: `{status: "ok", data: {result}, duration}` or `{status: "error", error, duration}` |
//! | `map` | `task`, `items`, `chunk?`, `progress?` | `results`, in order; or the first failure, which names its item |
//! | `tasks` | | `tasks`: `name`, `kind` (`builtin`, `host`, `wasm`), and what is known of each |
//! | `load` | `name`, `wasm`, `memory_limit?` (bytes, 64 MiB; 64 KiB to 1 GiB), `fuel?` (instructions, about) | `loaded`, `memory_limit`, `fuel` |
//! | `unload` | `name` | `unloaded` |
//!
//! Callers take turns, and each one's tasks begin in their order; 100,000 tasks and 4 GiB of their data may wait, more
//! is refused with `quota_exceeded`. At the deadline, or when a call is given up, its tasks stop within milliseconds
//! and those that wait are forgotten. `progress`, or `on_progress` of the call, hears `{done, total}` at most ten times a
//! second, and at the end.
//!
//! # Built-in tasks
//!
//! | task | data | result |
//! | --- | --- | --- |
//! | `fibonacci` | `n`, to 10,000,000 | exact |
//! | `factorial` | `n`, to 1,000,000 | exact |
//! | `is_prime` | `n`, to 16,384 bits | `{prime, probable}`: certain up to 64 bits, above by Baillie, Pomerance, Selfridge and Wagstaff's test, and `probable` says so |
//! | `hash_sha256` | text, or bytes | hexadecimal |
//! | `sum`, `mean`, `std` (`ddof?`), `min`, `max` | `array` | a number; sums of integers are exact |
//! | `quantiles` | `array`, `q?` (0 to 1, or a list) | interpolated linearly |
//! | `sort` | `array`, `descending?` | the array |
//! | `histogram` | `array`, `bins?` (10, or edges), `range?` | `{counts, edges}` |
//! | `matmul`, `dot` | `a`, `b` | an array, or a number |
//!
//! One argument may be given bare: `data: 1000`. Arrays are lists, or memory that the program shows as numbers: Python's
//! buffers and NumPy's arrays, Node's typed arrays. Those are not copied on their way in.
//!
//! # Functions of the program
//!
//! [`Compute::register`](crate::compute::Compute::register) takes a [`HostTask`](crate::compute::HostTask). In Python
//! `client.register_task(name, function)` runs an async function on the loop and a sync one in a thread. In Node
//! `client.registerTask(name, fn)` runs it on the thread that registers it; what it returns or resolves to is the result, and
//! an async one that looks at `signal`, `(data, { signal, deadline }) => …`, is told when nobody waits for it any more.
//!
//! What computes for long is `isolated`: it runs in worker processes in Python, in worker threads in Node. A worker is ended
//! and replaced when nobody waits for what it does, whatever that is, and replaced when it crashes, which is `internal` for
//! the caller of what it did, and for nobody else.
//!
//! | | Python | Node |
//! | --- | --- | --- |
//! | is named by | the function, at the top level of a module, or `"module:function"` | `{ module, export }`: a `file:` URL or a path, and what the module exports it as (`default`) |
//! | `concurrency`, if not given | as many as there are cores; 256 on the loop | as many as there are cores; 256 on the thread |
//! | its data | is pickled | is handed over as it came: bytes and typed arrays move to the worker; the result's are copied once |
//! | memory | that of the machine | `memoryLimit` bytes of JavaScript's heap, if given; more is `quota_exceeded` |
//!
//! Workers start when they are needed, and keep no program alive. No source text is ever evaluated: a function cannot be
//! sent, nor a `data:` URL imported.
//!
//! # Tasks of other clients
//!
//! [`Router::share_task`](crate::capability::Router::share_task) offers a task, of whatever kind, to others; nothing
//! else of the client's can be called by them. `execute`, `map` and `batch` with the target `any` go to whoever shares
//! the task: in chunks of `chunk` items (the 32nd part of all, at most 256), 32 at a time, each to the client with the
//! least to do. The chunk of a client that vanishes is done by another, once; it may then be done twice. A task nobody
//! shares is `not_found`.
//!
//! # The guest interface
//!
//! A module is WebAssembly without imports: it reaches nothing but its own memory, of which it may have `memory_limit`
//! bytes. Each run has an instance of its own. It exports
//!
//! - `memory`, a 32-bit memory;
//! - `kps_alloc(length: i32) -> i32`: where so many bytes of input may be written;
//! - `kps_run(place: i32, length: i32) -> i64`: does the work, and answers where its output lies: the place in the upper 32
//!   bits, the length in the lower;
//! - `_initialize()`, if it has to prepare itself;
//! - `kps_bytes`, a global or a function of any kind, if it wants bytes rather than JSON.
//!
//! With JSON the input is `data` as JSON text, and the output `{"result": …}` or `{"error": {"code", "message", "retry",
//! "field"}}`; a code that kps does not know is `handler_failed`. Bytes are `{"$bytes": "base64"}`, and integers beyond 2⁵³
//! `{"$int": "…"}`. With bytes the input is the bytes, or text in UTF-8, and the output a byte 0 and the result's bytes, or a
//! byte 1 and a sentence.
//!
//! | what a module does | what its caller gets |
//! | --- | --- |
//! | trap, or run out of stack (1 MiB, or 10,000 calls in calls) | `internal`, with the trap's text |
//! | fail for want of memory | `quota_exceeded` |
//! | use up its `fuel` | `quota_exceeded` |
//! | go on after the deadline | `timeout`, within milliseconds |
//! | answer nonsense | `handler_failed` |
//!
//! `examples/wasm` has a module written by hand and one in Rust. Modules are interpreted: they take several times as
//! long as native code.
