import type { Message } from "./message";
import type { OnConnect } from "./server";

/** A connection as its user sees it. */
export type State = "connecting" | "connected" | "reconnecting" | "closed";

/** How a payload's bytes are to be read. */
export type ContentType = "json" | "text" | "bytes";

/** What a full queue does. */
export type Overflow = "block" | "drop_oldest" | "drop_newest" | "latest" | "disconnect" | "spill";

/** How one recipient of an acknowledged message ended. */
export type RowStatus = "acked" | "failed" | "no_handler" | "disconnected" | "dropped" | "timeout" | "cancelled";

/** How far a published message has come. */
export type ReceiptLevel = "queued" | "queued_on_disk" | "accepted" | "stored" | "replicated";

/** What `publish` does when the outbox is full. */
export type OutboxOverflow = "refuse" | "drop_oldest";

/** Why messages are missing. */
export type GapReason = "overflow" | "slow_consumer" | "session_expired" | "new_epoch" | "history_expired" | "expired" | "private" | "offline";

/** What becomes of a message where a party is offline. */
export type Offline = "keep" | "drop" | "latest";

/** How to connect. Times are in milliseconds. */
export interface ConnectOptions {
  /** The client id wanted. Without it the server makes one. */
  id?: string | null;
  /** Shown to the server in the handshake. */
  token?: string | null;
  /** The namespace wanted. Without it, the principal's own. */
  namespace?: string | null;
  /**
   * How long to wait for the first handshake.
   * @default 5000
   */
  timeout?: number;
  /**
   * Whether to wait for the handshake; `false` starts offline.
   * @default true
   */
  wait?: boolean;
  /**
   * Whether a lost connection is made again.
   * @default true
   */
  reconnect?: boolean;
  /** The first pause between attempts. */
  reconnectMin?: number | null;
  /** The longest pause between attempts. */
  reconnectMax?: number | null;
  /**
   * A file that keeps what is published until the server has it for good: it outlives the process, which sends it
   * again when it is back. One process has it at a time. Publishes that wait for answers are not kept.
   */
  outbox?: string | null;
  /** Bytes in the outbox above which awaited receipts wait for room. */
  outboxSoft?: number | null;
  /** Bytes in the outbox above which it is full. */
  outboxHard?: number | null;
  /**
   * What `publish` does when the outbox is full: it throws `outbox_full`, or the oldest messages that are not on their way
   * make room, each named by `publish_failed`.
   * @default "refuse"
   */
  outboxOverflow?: OutboxOverflow;
  /**
   * Where the client's own storage keeps its values: a file, a folder that is there, or options; without it, in memory.
   * One process has such a file at a time.
   */
  storage?: string | StorageOptions | null;
  /** Trusted instead of the system's roots: a PEM file, or PEM text. */
  ca?: string | null;
  /**
   * Exact integers: bigints are written, and integers beyond 2^53 read as bigints.
   * @default false
   */
  bigints?: boolean;
}

/** How a storage is kept. */
export interface StorageOptions {
  /** A file, or a folder that is there; without it, in memory. */
  path?: string | null;
  /** 32 bytes, or a passphrase: encrypts values. Keys, sizes and times stay readable. */
  key?: Uint8Array | string | null;
  /**
   * Whether values of 512 bytes and more are compressed where that helps.
   * @default false
   */
  compress?: boolean;
  /**
   * How many old versions of each key are kept.
   * @default 0
   */
  versions?: number;
  /** Bytes of keys and values in a namespace, old versions among them. */
  quota?: number | null;
  /**
   * When a save is answered: when fsync has returned, or (`normal`) when the operating system has it.
   * @default "full"
   */
  durability?: "full" | "normal";
  /** Bytes of a key: 1 KiB. */
  maxKey?: number | null;
  /** Bytes of a value: 1 GiB. */
  maxValue?: number | null;
  /** Bytes of what one `get` returns: 16 MiB. */
  maxInline?: number | null;
  /** Bytes of a value that stays here when a cloud is configured: 5 MB. */
  maxLocalSize?: number | null;
}

/** Whose storage it is. */
export interface StorageTargetOptions {
  /** `server`, `any` or a client's id; without it the client's own. */
  target?: string | null;
}

/** How to save a value. */
export interface StorageSaveOptions extends StorageTargetOptions {
  /** It expires so much later; milliseconds. */
  ttl?: number | null;
  /** Only if the value has this ETag; `*`: only if there is one. */
  ifMatch?: string | null;
  /** `*`: only if there is none. */
  ifNoneMatch?: string | null;
  /** What the value is, for its readers. */
  contentType?: string | null;
  /** Called with the bytes that are done, and how many there are; `null` if nobody knows. */
  onProgress?: ((done: number, total: number | null) => void) | null;
  /** Aborting it cancels the save; the old value stays. */
  signal?: AbortSignal | null;
}

/** How to get a value. */
export interface StorageGetOptions extends StorageTargetOptions {
  /** Without the value if it still has this ETag. */
  ifNoneMatch?: string | null;
  /** An old version, by its ETag. */
  version?: string | null;
}

/** How to write a value somewhere. */
export interface StorageGetToOptions extends StorageTargetOptions {
  /** Called with the bytes that are done, and how many there are. */
  onProgress?: ((done: number, total: number | null) => void) | null;
}

/** How to delete a key. */
export interface StorageDeleteOptions extends StorageTargetOptions {
  /** Only if the value has this ETag. */
  ifMatch?: string | null;
}

/** Which keys to list. */
export interface StorageListOptions extends StorageTargetOptions {
  /**
   * How many, up to 1,000.
   * @default 100
   */
  limit?: number;
  /** What the page before said. */
  cursor?: string | null;
}

/** What is known of a value. Times are milliseconds since the Unix epoch. */
export interface Stored {
  key: string;
  etag: string;
  /** Bytes. */
  size: number;
  modified: number;
  expires?: number;
  contentType?: string;
  location?: "local" | "cloud";
  /** Nobody knows whether there is a newer one; `warning` says why. */
  possiblyStale?: boolean;
  warning?: string;
  /** Of a stream: what its bytes are. */
  kind?: "bytes" | "text";
  /** Of a get with the ETag that is known: there is no `value` then. */
  notModified?: boolean;
}

/** A value, and what is known of it. */
export interface StoredValue<T = any> extends Stored {
  value: T;
}

/** Some of the keys. */
export interface StoredPage {
  items: Stored[];
  cursor: string | null;
}

/** How to subscribe. */
export interface SubscribeOptions {
  /** Members of a group share the messages: each goes to one of them. */
  group?: string | null;
  /**
   * How many of the handler's promises may be pending at once.
   * @default 1
   */
  concurrency?: number;
  /**
   * What a full queue does.
   * @default "block"
   */
  overflow?: Overflow;
  /** Messages the queue holds. Without it, the queue is bounded in bytes alone. */
  capacity?: number | null;
  /**
   * Where the stream starts: `"new"`, `"last"` (the newest message of each topic), `"all"`, a message's `cursor`, or a
   * time (a `Date`, or milliseconds since the Unix epoch). All but the first need history.
   * @default "new"
   */
  start?: string | number | Date;
  /** The name under which the broker keeps its progress: at least once, over reconnects and restarts. */
  durable?: string | null;
  /**
   * Durable: a client that answers nothing for so many milliseconds loses what it has; it is handed out again.
   * @default 30000
   */
  ackWait?: number;
  /**
   * Durable: how long a message waits after its handler failed, in milliseconds; doubled after each further failure.
   * @default 1000
   */
  retryDelay?: number;
  /**
   * Durable: after so many failures a message goes to `kps.dead.<name>`; 0: never.
   * @default 5
   */
  maxAttempts?: number;
}

/** How to call a capability. Times are in milliseconds. */
export interface DispatchOptions {
  /**
   * How long an answer is awaited, over all attempts; then the work is told to stop.
   * @default 5000
   */
  timeout?: number;
  /**
   * How often a call is tried again that failed with an error marked for that.
   * @default 0
   */
  retry?: number;
  /**
   * Where it is done: `"local"` (this process), `"server"`, `"any"` (any client that offers it), or a client's id. Without it,
   * here if this process has the capability, else at any client that offers it.
   */
  target?: string | null;
  /** Calls of one operation with the same key are done once: later ones get the first one's answer. */
  idempotencyKey?: string | null;
  /** Told how far a long operation is. */
  onProgress?: ((progress: any) => unknown) | null;
  /** Cancels the call; its response has the code `cancelled`. */
  signal?: AbortSignal | null;
}

/** How to register a capability. */
export interface RegisterOptions {
  /**
   * Offer it to other clients over the bus.
   * @default false
   */
  shared?: boolean;
  /**
   * Calls of other clients that run at the same time; more wait at the server.
   * @default 256
   */
  concurrency?: number;
  /** Whether failures carry the stack. Without it, as the environment variable `KPS_DEBUG` says. */
  debug?: boolean | null;
}

/** What a task may want to know of its run. */
export interface TaskContext {
  /** Until when an answer is awaited, as `Date.now()` counts; `Infinity`: for ever. */
  readonly deadline: number;
  /**
   * Aborted when nobody waits for the answer any more: at the deadline, or at a cancellation. Not in a worker: it is
   * ended then.
   */
  readonly signal: AbortSignal;
}

/** What a task does: `data` is what its caller gives, and what it returns, or resolves to, the result. */
export type TaskFunction<T = any> = (data: T, context: TaskContext) => unknown;

/** Where a task's function stands. */
export interface TaskModule {
  /** A `file:` URL, as of `new URL("./tasks.mjs", import.meta.url)`, or a path. */
  module: string | URL;
  /**
   * What the module exports it as.
   * @default "default"
   */
  export?: string;
}

/** How to register a task. */
export interface TaskOptions {
  /**
   * Run it in worker threads: one is ended when nobody waits for the answer any more, and replaced then, or when it crashes.
   * @default false
   */
  isolated?: boolean;
  /** How many may run at once. Without it 256 on this thread, and as many as there are cores in workers. */
  concurrency?: number | null;
  /**
   * `shareTask`, too.
   * @default false
   */
  shared?: boolean;
  /** Bytes of JavaScript's heap that a worker may have, from 16 MiB; who needs more gets `quota_exceeded`. */
  memoryLimit?: number | null;
  /** What it does, in a sentence, for `compute.tasks`. */
  summary?: string | null;
}

/** What a message may carry beside its data, wherever it goes. */
export interface MessageOptions {
  /** Strings by name; `traceparent` carries trace context. */
  headers?: Record<string, string> | null;
  /** Your own id for the message. */
  id?: string | null;
  /** How long the message is worth delivering, in milliseconds. */
  ttl?: number | null;
  /**
   * Whether it is never written to disk, and quoted nowhere.
   * @default false
   */
  private?: boolean;
  /**
   * What becomes of it where a party is offline: it waits, it is for those who are there (`drop`), or the newest
   * of the topic waits (`latest`).
   * @default "keep"
   */
  offline?: Offline;
}

/** What a message to a topic may carry that asks for answers. */
export interface AckOptions extends MessageOptions {
  /** Who may have it: client ids, and `principal:NAME` for authenticated ones. Without it: everybody. */
  to?: readonly string[] | null;
}

/** What a message may carry beside its topic and data. */
export interface PublishOptions extends AckOptions {
  /** The level that awaiting the receipt waits for. Without it: room in the outbox. */
  receipt?: ReceiptLevel | null;
  /**
   * Keeps the message as the topic's last value, for subscriptions that begin with `start: "last"`. An empty payload
   * removes the one there is.
   * @default false
   */
  retain?: boolean;
}

/** How a durable's message that failed comes again. */
export interface FailOptions {
  /** After how long, in milliseconds, at most a day. Without it: after the subscription's `retryDelay`. */
  delay?: number | null;
}

/** How to publish to another server. */
export interface PublishToServerOptions {
  /**
   * Whether to reach it by TLS.
   * @default false
   */
  secure?: boolean;
}

/** Handles the messages of a subscription. What it returns (or resolves to) goes to the publisher's ack. */
export type Handler<T = unknown> = (message: Message<T>) => unknown;

/** A recipient's error. */
export interface RowError {
  /** The error's type, e.g. `TypeError`. */
  type: string;
  /** What it says. */
  text: string;
}

/** One recipient's final line in an ack. */
export interface AckRow<T = unknown> {
  /** Whose line. */
  clientId: string;
  /** How it ended. */
  status: RowStatus;
  /** Whether the recipient acked. */
  success: boolean;
  /** Why not, where there is more to say than `status`. */
  error: RowError | null;
  /** What the handler returned. */
  data: T;
  /** From acceptance by the broker to the broker's receipt of the answer, in milliseconds. */
  latency: number;
}

/** What became of what was published, when a client closed. */
export interface CloseReport {
  /** Messages accepted by the broker during the close. */
  flushed: number;
  /** Messages kept on disk for the next start. */
  kept: number;
  /** Ids of the messages given up. */
  abandoned: string[];
}

/** A subscription's counts: accepted = delivered + dropped + expired + cancelled + pending. */
export interface SubscriptionLedger {
  accepted: number;
  delivered: number;
  dropped: number;
  expired: number;
  cancelled: number;
  pending: number;
}

/** A client's counts. */
export interface ClientLedger {
  published: number;
  accepted: number;
  refused: number;
  dropped: number;
  pending: number;
  abandoned: number;
  subscriptions: SubscriptionLedger;
}

/** Something that happened to a client. */
export interface TimelineEntry {
  /** Milliseconds since the Unix epoch. */
  time: number;
  event: string;
  detail: string;
}

/** What a token's bearer may do. What is left out is not restricted. */
export interface Grant {
  /** Who it is. */
  name?: string;
  /** Scopes its topics and ids. */
  namespace?: string;
  /** Patterns of the topics it may publish to; of a document's topic, `kps.document.<id>`: it may change the document. */
  publish?: string[];
  /** Patterns it may subscribe within; of a document's topic: it may read the document. */
  subscribe?: string[];
}

/** A connection that asks to be let in. */
export interface ConnectRequest {
  /** The id it wants; empty: any. */
  clientId: string;
  /** Who its token stands for. */
  name: string | null;
  /** The namespace it would get. */
  namespace: string;
  /** Where it comes from: `host:port`; `null` inside the process. */
  remote: string | null;
  /** The headers of its HTTP request, names in lower case, without secrets. */
  headers: Record<string, string>;
  /** The path and query of its HTTP request. */
  path: string;
}

/** `true` or nothing lets in, `false` refuses, an object lets in as that principal. Throwing refuses with the error's text. */
export type ConnectDecision = boolean | Grant | null | undefined | void;

/** How to start a server. Times are in milliseconds. */
export interface ServerOptions {
  /**
   * `host:port` to listen on (port 0: any free one), or `mem://name`.
   * @default "127.0.0.1:9313"
   */
  listen?: string;
  /** The id of the server's own client. */
  id?: string | null;
  /** Whoever has it may do everything. */
  token?: string | null;
  /** What the bearers of these tokens may do. */
  tokens?: Record<string, Grant> | null;
  /**
   * Allow to listen on other addresses than loopback without tokens.
   * @default false
   */
  insecure?: boolean;
  /** Serve TLS: a PEM file with the certificate and its intermediates. */
  tlsCert?: string | null;
  /** The PEM file with its private key. */
  tlsKey?: string | null;
  /**
   * Web origins whose pages may connect, beside those of the same host and port. `*`: all.
   * @default []
   */
  allowedOrigins?: string[];
  /**
   * Names under which the server is reached, beside its address and `localhost`. `*`: all.
   * @default []
   */
  allowedHosts?: string[];
  /**
   * Addresses that `publishToServer` may reach, beside loopback.
   * @default []
   */
  serverAddresses?: string[];
  /** Decides about every connection before it may do anything. */
  onConnect?: OnConnect | null;
  /**
   * Topics whose messages are kept, with limits: `"orders.> age=7d bytes=10G"`.
   * @default []
   */
  history?: string[];
  /** The folder for what is kept; without it, in memory. */
  data?: string | null;
  /**
   * How the server keeps the values of `storage.save`: a path, or options; without a path in `data`, or else in memory.
   */
  storage?: string | StorageOptions | null;
  /**
   * Keep the server's events in that folder as well: `true`, or `"messages age=7d count=100000"`.
   * `kps audit` prints them.
   * @default false
   */
  audit?: boolean | string;
  /** A message with the id of another one inside this window is not kept again; milliseconds. */
  duplicateWindow?: number | null;
  /**
   * Refuse subscriptions with overflow `block`.
   * @default false
   */
  forbidBlock?: boolean;
  /** Bytes of one payload. */
  maxPayload?: number | null;
  /** Bytes that one subscription's queue holds. */
  queueBytes?: number | null;
  /** Bytes that all queues together hold. */
  serverBytes?: number | null;
  /** Between pings on a quiet connection. */
  heartbeat?: number | null;
  /** A connection this long silent is dead. */
  silence?: number | null;
  /** How long a lost connection's session is kept. */
  resumeWindow?: number | null;
  /** A `block` subscription that takes nothing for so long is closed. */
  stallTimeout?: number | null;
  /** The timeout of acks that carry none. */
  ackTimeout?: number | null;
  /** A document that was changed is stored within this time; 10 s. */
  documentCheckpointEvery?: number | null;
  /** … or after so many operations, whichever comes first; 50. */
  documentCheckpointOperations?: number | null;
  /** A document that nobody asks for so long leaves memory; 30 min. */
  documentIdle?: number | null;
  /** Bytes of one document; 4 MiB. */
  documentMaxSize?: number | null;
  /** Bytes of one operation on a document; 256 KiB. */
  documentMaxOperation?: number | null;
  /** Operations of each document that are kept, so that its versions can be read; 10,000. */
  documentHistory?: number | null;
  /** Bytes of all documents in memory, about; 512 MiB. */
  documentMemory?: number | null;
  /**
   * Exact integers: bigints are written, and integers beyond 2^53 read as bigints.
   * @default false
   */
  bigints?: boolean;
}
