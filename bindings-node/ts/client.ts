import { inspect } from "node:util";
import { Ack } from "./ack";
import { Hold } from "./alive";
import { Provider } from "./capability";
import * as check from "./check";
import { CLIENT_EVENTS, type ClientEvents } from "./client-events";
import { Document } from "./document";
import type { OpenDocumentOptions, OpenYjsOptions } from "./document-types";
import { environment } from "./environment";
import { KpsError, native } from "./errors";
import { Events } from "./events";
import { Inbound } from "./inbound";
import { type Json, bigints, plain } from "./json";
import { type KpsCallback, type KpsClientOptions, kpsConnect } from "./kps";
import { opened } from "./live-document";
import type { Message } from "./message";
import { Mode, Outbound } from "./outbound";
import { type Receipt, Receipts } from "./receipt";
import type { Response } from "./response";
import type { Batch, Kind } from "./slab";
import { Storage } from "./storage";
import { Subscription } from "./subscription";
import { prepare } from "./tasks";
import { timeline } from "./timeline";
import type {
  AckOptions,
  ClientLedger,
  CloseReport,
  DispatchOptions,
  Handler,
  MessageOptions,
  PublishOptions,
  PublishToServerOptions,
  RegisterOptions,
  State,
  SubscribeOptions,
  SubscriptionLedger,
  TaskFunction,
  TaskModule,
  TaskOptions,
  TimelineEntry,
} from "./types";
import { YjsDocument } from "./yjs-document";

const ACK_TIMEOUT = 30_000;

/** A participant: it publishes and subscribes. Made by `connect`. */
export class Client implements AsyncDisposable {
  /** Where it connects to. */
  readonly url: string;
  /** @internal */
  readonly _json: Json;
  /** @internal */
  readonly _hold = new Hold(environment.alive);
  /** @internal */
  readonly _outbound: Outbound;
  /** @internal */
  readonly _events: Events;
  private readonly receipts: Receipts;
  private readonly inbound: Inbound;
  private readonly sharedTasks = new Set<string>();
  private readonly kpsSubscriptions = new Map<string, KpsSubscription>();
  private lastId: string | undefined;
  private closing: Promise<CloseReport> | undefined;

  /** @internal */
  constructor(
    /** @internal */
    readonly _key: number,
    url: string,
    exact: boolean,
    events: Events = new Events(CLIENT_EVENTS),
  ) {
    this.url = url;
    this._json = exact ? bigints() : plain;
    this._events = events;
    this._outbound = new Outbound(_key, this._json);
    const hasRoom = () => environment.bridge.watchRoom(_key);
    this.receipts = new Receipts(this._hold, (number) => this._messageId(number), hasRoom);
    const closed = () => this.gone();
    this.inbound = new Inbound(this, this._json, this._events, this.receipts, this._hold, closed);
    environment.adopt(_key, this);
  }

  /** Its id; empty before the first handshake if the server makes it. */
  get id(): string {
    this.lastId ??= this.state === "closed" ? "" : (environment.bridge.id(this._key) ?? undefined);
    return this.lastId ?? "";
  }

  /** The state of its connection. */
  get state(): State {
    if (this.inbound.state === "closed") return "closed";
    return environment.bridge.state(this._key) as State;
  }

  /** Subscribes; resolves when the broker has confirmed. Without `handler`, iterate over the result. */
  async subscribe<T = any>(
    topic: string,
    handler?: Handler<T> | null,
    options: SubscribeOptions = {},
  ): Promise<Subscription<T>> {
    check.string("topic", topic);
    if (handler !== undefined && handler !== null) check.fn("handler", handler);
    check.options(options, SUBSCRIBE);
    const { concurrency = 1, start, ...rest } = check.given(options);
    check.whole("concurrency", concurrency, 1);
    const json = JSON.stringify({ ...rest, start: start instanceof Date ? start.getTime() : start });
    const sub = native(() => environment.bridge.subscribe(this._key, topic, json));
    const parts = { client: this as Client, sub, topic, handler: handler ?? undefined, concurrency };
    const subscription = new Subscription<T>(parts);
    this.inbound.subscriptions.set(sub, subscription as Subscription);
    await this.inbound.subscribing.make(sub);
    subscription._start();
    return subscription;
  }

  /** Ends every subscription of this client to `topic`. Throws `not_found` if there is none. */
  async unsubscribe(topic: string): Promise<void> {
    check.string("topic", topic);
    const all = [...this.inbound.subscriptions.values()].filter((one) => one._sub !== 0 && one.topic === topic);
    if (all.length === 0) throw new KpsError("not_found", `there is no subscription to ${topic}`);
    await Promise.all(all.map((one) => one.unsubscribe()));
  }

  /**
   * Sends `data` (a JSON value, a string, or bytes) to a topic's subscribers, at once. Throws
   * `outbox_full` at the outbox' hard bound and queues nothing.
   */
  publish(topic: string, data: unknown, options?: PublishOptions): Receipt {
    check.string("topic", topic);
    if (options === undefined) {
      return this.receipts.make(this._outbound.publish(Mode.Json, topic, data));
    }
    check.options(options, PUBLISH);
    const number = this._outbound.publish(Mode.Json, topic, data, undefined, json(options));
    return this.receipts.make(number, options.receipt, options.id);
  }

  /** Sends `data` to the client with this id. */
  publishToId(clientId: string, data: unknown): Receipt {
    check.string("clientId", clientId);
    return this.receipts.make(this._outbound.publish(Mode.Client, clientId, data));
  }

  /** Sends `data` to another server, by its address `host:port[/path]`. */
  publishToServer(address: string, data: unknown, options: PublishToServerOptions = {}): Receipt {
    check.string("address", address);
    check.options(options, { secure: "boolean" });
    const mode = Mode.Server | (options.secure === true ? Mode.Secure : 0);
    return this.receipts.make(this._outbound.publish(mode, address, data));
  }

  /**
   * Publishes and collects a row from every client that receives it. Who may not have the message is no recipient, and
   * a row is `timeout` when its message was not handed over within `ttl`.
   * @param timeoutMs How long rows are awaited.
   */
  publishWithAck(topic: string, data: unknown, timeoutMs: number = ACK_TIMEOUT, options?: AckOptions): Ack {
    check.string("topic", topic);
    return this.acked(Mode.Json, topic, data, timeoutMs, options, ACK);
  }

  /** `publishToId`, collecting the recipient's row. */
  publishToIdWithAck(
    clientId: string,
    data: unknown,
    timeoutMs: number = ACK_TIMEOUT,
    options?: MessageOptions,
  ): Ack {
    check.string("clientId", clientId);
    return this.acked(Mode.Client, clientId, data, timeoutMs, options, MESSAGE);
  }

  /**
   * Asks: publishes and resolves to what the first handler returned that succeeds. Rejects at once
   * with `no_responders` if nobody subscribes who may have it, and when no recipient can succeed any more.
   */
  async request<T = any>(
    topic: string,
    data: unknown,
    timeoutMs: number = ACK_TIMEOUT,
    options?: AckOptions,
  ): Promise<T> {
    check.string("topic", topic);
    check.number("timeoutMs", timeoutMs);
    if (options !== undefined) check.options(options, ACK);
    const number = this._outbound.publish(Mode.Request, topic, data, timeoutMs, options && json(options));
    return await this.inbound.requests.make<T>(Math.abs(number));
  }

  /**
   * Calls `capability.operation`: in this process, at the server, or at whichever client offers it. A failed call resolves
   * too: `response.ok` says so, `response.unwrap()` throws.
   */
  dispatch<T = any>(action: string, payload?: unknown, options?: DispatchOptions): Promise<Response<T>> {
    // Not an async function: that would wait for the promise that it returns.
    try {
      check.string("action", action);
      if (options !== undefined) checkDispatch(options);
      return Promise.resolve(environment.calls.dispatch(this._key, this._hold, action, payload, options ?? NONE));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Makes the methods of `capability`, an object or a class, callable as `name.method`: each gets the payload and a
   * `CallContext`. `init` and `close` are called first and last.
   */
  async register(name: string, capability: object, options: RegisterOptions = {}): Promise<void> {
    check.string("name", name);
    check.options(options, REGISTER);
    const shared = options.shared ?? false;
    const concurrency = options.concurrency ?? 256;
    check.whole("concurrency", concurrency, 1);
    const provider = new Provider(capability, options);
    const { operations } = provider;
    const json = JSON.stringify({ shared, concurrency, operations, init: provider.has("init"), close: provider.has("close") });
    // Who offers something to others waits for their calls: that keeps the process alive.
    const number = environment.calls.offer(provider, shared ? this._hold : undefined);
    let started = false;
    try {
      await environment.call((token) => {
        environment.bridge.register(this._key, name, number, json, token);
        started = true;
      });
    } catch (error) {
      // Else core forgets it.
      if (!started) environment.calls.forget(number);
      throw error;
    }
  }

  /** Takes a capability away; calls that run are ended. Throws `not_found` if there is none. */
  async unregister(name: string): Promise<void> {
    check.string("name", name);
    await environment.call((token) => environment.bridge.unregister(this._key, name, token));
  }

  /** Values under keys: `await client.storage.save("film", createReadStream("film.mp4"))`. */
  get storage(): Storage {
    return new Storage(this);
  }

  /**
   * Opens a live document, or makes it if there is none: of the kind `text`, `json` (an empty object at first) or `yjs`. One
   * that there is already and that is of another kind rejects with `conflict`.
   *
   * What is edited without a connection, and what the server might lose, is kept in the client's `outbox`, if that is a
   * file, and sent when the document is opened again by a client with this author.
   *
   * Documents of the kind `yjs` merge instead, also what was edited offline: `rebase` and `rebases` say nothing there. Yjs
   * editors find them at `ws://…/yjs/{id}`, by `y-websocket` for example.
   *
   * @example
   * ```js
   * const notes = await client.openDocument("notes");
   * notes.on("change", ({ author, splices }) => console.log(author, splices));
   * await notes.append("Hello");
   * await notes.close();
   * ```
   */
  openDocument(id: string, options?: OpenDocumentOptions): Promise<Document>;
  openDocument(id: string, options: OpenYjsOptions): Promise<YjsDocument>;
  async openDocument(id: string, options: OpenDocumentOptions | OpenYjsOptions = {}): Promise<Document | YjsDocument> {
    const about = await opened(this, id, options);
    return about.kind === "yjs" ? new YjsDocument(this, about) : new Document(this, about);
  }

  /**
   * Makes `fn(data, context)` a task of `compute`; what it returns, or resolves to, is the result.
   *
   * A function runs on this thread. An `isolated` one runs in worker threads, which are ended when nobody waits for the
   * answer any more, and replaced then, or when they crash: it is named by its module and what that exports.
   * `unregisterTask` takes it away.
   *
   * @example
   * ```js
   * // tasks.mjs: export const sum = (numbers) => numbers.reduce((all, each) => all + each, 0);
   * await client.registerTask("total", { module: new URL("./tasks.mjs", import.meta.url), export: "sum" }, { isolated: true });
   * const { result } = (await client.dispatch("compute.execute", { task: "total", data: [1, 2, 3] })).unwrap(); // 6
   * ```
   */
  async registerTask(name: string, fn: TaskFunction | TaskModule, options: TaskOptions = {}): Promise<void> {
    check.string("name", name);
    const { task, concurrency } = await environment.during(prepare(fn, options));
    const number = environment.calls.offer(task, undefined);
    let started = false;
    try {
      await environment.call((token) => {
        environment.bridge.registerTask(this._key, name, number, concurrency, options.summary ?? "", token);
        started = true;
      });
    } finally {
      // Else core forgets it.
      if (!started) environment.calls.forget(number);
    }
    if (options.shared !== true) return;
    try {
      await this.shareTask(name);
    } catch (error) {
      await this.unregisterTask(name);
      throw error;
    }
  }

  /** Takes a task of this program away; what was called before in this process goes on. Throws `not_found` if there is none. */
  async unregisterTask(name: string): Promise<void> {
    check.string("name", name);
    await environment.call((token) => environment.bridge.unregisterTask(this._key, name, token));
    if (this.sharedTasks.has(name)) await this.unshareTask(name);
  }

  /**
   * Has other clients call the task, of whatever kind: by `compute.execute`, `map` and `batch` with the target `"any"`, or this
   * client's id. Throws `not_found` if there is none, `conflict` if it is shared already.
   */
  async shareTask(name: string): Promise<void> {
    check.string("name", name);
    await environment.call((token) => environment.bridge.shareTask(this._key, name, token));
    // Who offers something to others waits for their calls: that keeps the process alive.
    this.sharedTasks.add(name);
    this._hold.hold();
  }

  /** Ends that; what others wait for is done elsewhere. Throws `not_found` if it is not shared. */
  async unshareTask(name: string): Promise<void> {
    check.string("name", name);
    await environment.call((token) => environment.bridge.unshareTask(this._key, name, token));
    if (this.sharedTasks.delete(name)) this._hold.release();
  }

  /** Calls `handler` at every `event`. Returns the function that ends that. */
  on<E extends keyof ClientEvents>(event: E, handler: (...args: ClientEvents[E]) => unknown): () => void {
    check.string("event", event);
    check.fn("handler", handler);
    const remove = this._events.on(event, handler as (...args: never[]) => unknown);
    if (event === "message_published") {
      this._hearPublished(true);
      return () => {
        remove();
        if (!this._events.has(event) && this.inbound.state !== "closed") this._hearPublished(false);
      };
    }
    // Who handles messages to its id subscribes to them: that keeps the process alive.
    if (event !== "message_to_id") return remove;
    this._hold.hold();
    let held = true;
    return () => {
      remove();
      if (held) this._hold.release();
      held = false;
    };
  }

  /** What became of everything published and received so far. */
  ledger(): ClientLedger {
    return JSON.parse(native(() => environment.bridge.ledger(this._key))) as ClientLedger;
  }

  /** What happened to the connection, oldest first. */
  timeline(): TimelineEntry[] {
    return timeline(native(() => environment.bridge.timeline(this._key)));
  }

  /** Resolves when everything published so far was accepted or refused. */
  async flush(): Promise<void> {
    const token = native(() => environment.bridge.flush(this._key));
    await this.inbound.flushes.make(token);
  }

  /** Flushes for at most `timeoutMs`, says goodbye, and reports. Closing again gives the same report. */
  close(timeoutMs: number = 5000): Promise<CloseReport> {
    check.number("timeoutMs", timeoutMs);
    this.closing ??= this.closeOnce(timeoutMs);
    return this.closing;
  }

  /** Lets the process end while subscriptions or acks of this client are active. */
  unref(): this {
    this._hold.unref();
    return this;
  }

  /** Closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** What `JSON.stringify` shows. */
  toJSON(): object {
    return { id: this.id, url: this.url, state: this.state };
  }

  /** @internal */
  [inspect.custom](): string {
    return `${this.constructor.name}(${this.id}, ${this.state})`;
  }

  // KPS' names.

  /** Connects like KPS. */
  static NewClient(options: KpsClientOptions = {}): Promise<Client> {
    return kpsConnect(options);
  }

  /** KPS' name for `id`. */
  get Id(): string {
    return this.id;
  }

  /** Subscribes; a second callback for a topic replaces the first. Returns the function that unsubscribes. */
  Subscribe(topic: string, callback: KpsCallback): () => void {
    check.string("topic", topic);
    check.fn("callback", callback);
    const known = this.kpsSubscriptions.get(topic);
    if (known !== undefined) known.callback = callback;
    else this.kpsSubscriptions.set(topic, new KpsSubscription(this, topic, callback));
    return () => this.Unsubscribe(topic);
  }

  /** Ends what `Subscribe` began. */
  Unsubscribe(topic: string): void {
    check.string("topic", topic);
    this.kpsSubscriptions.get(topic)?.end();
    this.kpsSubscriptions.delete(topic);
  }

  /** KPS' form of `publish`. */
  Publish(topic: string, data: unknown): void {
    this.publish(topic, data);
  }

  /** KPS' form of `publishToId`. */
  PublishToID(targetID: string, data: unknown): void {
    check.string("targetID", targetID);
    this.publishToId(targetID, data);
  }

  /** KPS' form of `publishToServer`. */
  PublishToServer(addr: string, data: unknown, secure: boolean = false): void {
    check.string("addr", addr);
    this.publishToServer(addr, data, { secure });
  }

  /** KPS' name for `publishWithAck`. */
  PublishWithAck(topic: string, data: unknown, timeout: number = ACK_TIMEOUT): Ack {
    return this.publishWithAck(topic, data, timeout);
  }

  /** KPS' name for `publishToIdWithAck`. */
  PublishToIDWithAck(targetID: string, data: unknown, timeout: number = ACK_TIMEOUT): Ack {
    check.string("targetID", targetID);
    return this.publishToIdWithAck(targetID, data, timeout);
  }

  /** Calls `fn` when the client is closed. */
  OnClose(fn: () => unknown): void {
    check.fn("fn", fn);
    this._events.on("closed", fn);
  }

  /** KPS' form of `close`. */
  async Close(): Promise<void> {
    await this.close();
  }

  /** Closes and exits at Ctrl-C. */
  Run(): void {
    this._hold.hold();
    process.once("SIGINT", () => void this.close().finally(() => process.exit(0)));
  }

  // For the package's other files.

  /** @internal */
  _receive(batch: Batch, record: number, kind: Kind): void {
    this.inbound.receive(batch, record, kind);
  }

  /** Waits for the first handshake; without one the client is closed. @internal */
  async _ready(): Promise<void> {
    try {
      await environment.call((token) => environment.bridge.ready(this._key, token));
    } catch (error) {
      await this.close(0);
      throw error;
    }
  }

  /** @internal */
  _messageId(number: number): string {
    if (this.inbound.state === "closed") return "";
    return environment.bridge.messageId(this._key, number);
  }

  /** @internal */
  _cancelAck(number: number): void {
    if (this.inbound.state !== "closed") environment.bridge.cancelAck(this._key, number);
  }

  /** @internal */
  async _unsubscribe(sub: number): Promise<void> {
    if (!this.inbound.subscriptions.has(sub)) return;
    native(() => environment.bridge.unsubscribe(this._key, sub));
    await this.inbound.unsubscribing.make(sub);
  }

  /** @internal */
  _subscriptionLedger(sub: number): SubscriptionLedger {
    const counts = native(() => environment.bridge.subscriptionLedger(this._key, sub));
    if (counts === null) throw new KpsError("not_found", "the subscription has ended: its counts are in client.ledger()");
    return JSON.parse(counts) as SubscriptionLedger;
  }

  /** A handler threw; `told`: its publisher knows. @internal */
  _handlerError(error: unknown, message: Message, told: boolean): void {
    if (this._events.has("handler_error")) this._events.emit("handler_error", error, message);
    else if (this._events.has("error")) this._events.emit("error", error, null, null);
    else if (!told) process.emitWarning(`a handler of ${message.topic} threw: ${String((error as Error)?.stack ?? error)}`, "KpsWarning");
  }

  /** Whether every accepted message is told: that costs something. @internal */
  protected _hearPublished(on: boolean): void {
    native(() => environment.bridge.tellPublished(this._key, on));
  }

  private async closeOnce(timeoutMs: number): Promise<CloseReport> {
    if (this.inbound.state === "closed") return { flushed: 0, kept: 0, abandoned: [] };
    this.lastId = this.id;
    const report = await this._end(Math.max(0, timeoutMs));
    this.inbound.end(undefined);
    return report;
  }

  /** @internal */
  protected _end(timeoutMs: number): Promise<CloseReport> {
    return environment.call((token) => environment.bridge.close(this._key, timeoutMs, token));
  }

  private acked(
    mode: Mode,
    name: string,
    data: unknown,
    timeoutMs: number,
    options: AckOptions | undefined,
    shape: check.Shape,
  ): Ack {
    check.number("timeoutMs", timeoutMs);
    if (options !== undefined) check.options(options, shape);
    const number = Math.abs(this._outbound.publish(mode, name, data, timeoutMs, options && json(options)));
    const ack = new Ack(this, number, options?.id);
    this.inbound.acks.set(number, ack);
    return ack;
  }

  private gone(): void {
    environment.forget(this._key);
    this._hold.unref();
  }
}

/** One topic of KPS' `Subscribe`. */
class KpsSubscription {
  private readonly subscription: Promise<Subscription | undefined>;

  constructor(
    client: Client,
    topic: string,
    public callback: KpsCallback,
  ) {
    const unsub = () => client.Unsubscribe(topic);
    const handler = ({ data }: Message) => this.callback(data, unsub);
    // Like KPS it has nobody to throw at.
    this.subscription = client.subscribe(topic, handler).catch((error: unknown) => {
      process.emitWarning(`cannot subscribe to ${topic}: ${String(error)}`, "KpsWarning");
      return undefined;
    });
  }

  end(): void {
    void this.subscription.then((subscription) => subscription?.unsubscribe()).catch(() => {});
  }
}

const SUBSCRIBE = {
  group: "string",
  concurrency: "number",
  overflow: "string",
  capacity: "number",
  start: "place",
  durable: "string",
  ackWait: "duration",
  retryDelay: "duration",
  maxAttempts: "number",
} as const;

const DISPATCH = {
  timeout: "duration",
  retry: "number",
  target: "string",
  idempotencyKey: "string",
  onProgress: "function",
  signal: "object",
} as const;

const NONE: DispatchOptions = {};

function checkDispatch(options: DispatchOptions): void {
  check.options(options, DISPATCH);
  const { retry, signal } = options;
  check.whole("retry", retry ?? 0, 0);
  if (signal && typeof signal.addEventListener !== "function") throw new TypeError("signal must be an AbortSignal, not an object");
}

const REGISTER = { shared: "boolean", concurrency: "number", debug: "boolean" } as const;

const MESSAGE = {
  headers: "object",
  id: "string",
  ttl: "duration",
  private: "boolean",
  offline: "string",
} as const;

const ACK = { ...MESSAGE, to: "strings" } as const;

const PUBLISH = { ...ACK, receipt: "string", retain: "boolean" } as const;

/** A message's options as core reads them. */
function json({ headers, ...rest }: PublishOptions): string {
  return JSON.stringify({ ...check.given(rest), headers: pairs(headers) });
}

function pairs(headers: Record<string, string> | null | undefined): [string, string][] {
  const pairs = Object.entries(headers ?? {});
  for (const [name, value] of pairs) check.string(`headers.${name}`, value);
  return pairs;
}
