import * as check from "./check";
import { Client } from "./client";
import { CLIENT_EVENTS, type ClientEvents, SERVER_EVENTS, type ServerEvents } from "./client-events";
import { environment } from "./environment";
import { native } from "./errors";
import { Events } from "./events";
import type { Message } from "./message";
import { SERVER_MESSAGE, type ServerMessage } from "./server-message";
import { storageOptions } from "./storage-options";
import { timeline } from "./timeline";
import type { CloseReport, ConnectDecision, ConnectRequest, ServerOptions, TimelineEntry } from "./types";

const LISTEN = "127.0.0.1:9313";

const SERVER = {
  listen: "string",
  id: "string",
  token: "string",
  tokens: "object",
  insecure: "boolean",
  tlsCert: "string",
  tlsKey: "string",
  allowedOrigins: "strings",
  allowedHosts: "strings",
  serverAddresses: "strings",
  onConnect: "function",
  history: "strings",
  data: "string",
  storage: "storage",
  audit: "words",
  duplicateWindow: "duration",
  forbidBlock: "boolean",
  maxPayload: "number",
  queueBytes: "number",
  serverBytes: "number",
  heartbeat: "duration",
  silence: "duration",
  resumeWindow: "duration",
  stallTimeout: "duration",
  ackTimeout: "duration",
  documentCheckpointEvery: "duration",
  documentCheckpointOperations: "number",
  documentIdle: "duration",
  documentMaxSize: "number",
  documentMaxOperation: "number",
  documentHistory: "number",
  documentMemory: "number",
  bigints: "boolean",
} as const;

/** Decides who may connect; see `ConnectDecision`. */
export type OnConnect = (request: ConnectRequest) => ConnectDecision | Promise<ConnectDecision>;

/** A broker inside this program, with every method of a client. It keeps the process alive; `unref()` opts out. */
export class Server extends Client {
  /** Where it listens: `host:port`, or `mem://name`. */
  readonly address: string;

  /** @internal */
  constructor(
    key: number,
    private readonly questions: Questions,
    exact: boolean,
  ) {
    const { bridge } = environment;
    const names = new Set([...SERVER_EVENTS, ...CLIENT_EVENTS, SERVER_MESSAGE]);
    super(key, bridge.serverUrl(key), exact, new Events([...names], SERVER_EVENTS));
    this.address = bridge.serverAddress(key);
    this._hold.hold();
  }

  /** Starts listening. Rejects with `bind_failed` when the address cannot be used. */
  static async start(options: ServerOptions = {}): Promise<Server> {
    check.options(options, SERVER);
    const { bigints = false, onConnect, storage, ...rest } = check.given(options);
    const questions = new Questions(onConnect ?? undefined);
    try {
      const json = JSON.stringify({ listen: LISTEN, ...rest, storage: storageOptions(storage), onConnect: Boolean(onConnect) });
      const key = native(() => environment.bridge.startServer(json, questions.token));
      const server = new Server(key, questions, bigints);
      await server._ready();
      return server;
    } catch (error) {
      questions.end();
      throw error;
    }
  }

  /** Calls `handler` at every `event` of the server, or of its own client. Returns the function that ends that. */
  override on<E extends keyof ServerEvents>(event: E, handler: (...args: ServerEvents[E]) => unknown): () => void;
  /** What makes a server a client to TypeScript; a name in both lists means what the server tells. */
  override on<E extends keyof ClientEvents>(event: E, handler: (...args: ClientEvents[E]) => unknown): () => void;
  override on(event: string, handler: (...args: any[]) => unknown): () => void {
    return super.on(event as keyof ClientEvents, handler);
  }

  /** The server's last 256 events, oldest first. Messages are not among them. */
  override timeline(): TimelineEntry[] {
    return timeline(native(() => environment.bridge.serverTimeline(this._key)));
  }

  /** Clients connected, this process' own left out. */
  countClients(): number {
    return native(() => environment.bridge.countClients(this._key));
  }

  /** Subscriptions that a message on `topic` would reach. */
  countSubscribers(topic: string): number {
    check.string("topic", topic);
    return native(() => environment.bridge.countSubscribers(this._key, topic));
  }

  /** Forgets a durable subscription and its progress; its clients' streams end. Throws `not_found` if there is none. */
  removeDurable(name: string): void {
    check.string("name", name);
    native(() => environment.bridge.removeDurable(this._key, name));
  }

  /** From now on `handler` decides who may connect. */
  onConnect(handler: OnConnect): this {
    check.fn("handler", handler);
    this.questions.decide = handler;
    native(() => environment.bridge.askOnConnect(this._key, this.questions.token));
    return this;
  }

  /** Calls `handler` with every message to the server's own id. What it returns answers an ack. */
  onMessageToId(handler: (message: Message<any>) => unknown): this {
    this.on("message_to_id", handler);
    return this;
  }

  /** Calls `handler` with every message that another server sends to this one. */
  onServerMessage(handler: (message: ServerMessage) => unknown): this {
    check.fn("handler", handler);
    this._events.on(SERVER_MESSAGE, handler);
    return this;
  }

  /** KPS' name for `countClients`. */
  CountClients(): number {
    return this.countClients();
  }

  /** KPS' name for `countSubscribers`. */
  CountSubscribers(topic: string): number {
    return this.countSubscribers(topic);
  }

  /** KPS' form of `onConnect`: what is not `false` lets in. */
  OnUpgradeWS(fn: OnConnect): void {
    check.fn("fn", fn);
    this.onConnect(fn);
  }

  /** KPS' form of `onMessageToId`: gets the data. */
  OnID(fn: (data: any) => unknown): void {
    check.fn("fn", fn);
    this.onMessageToId(({ data }) => fn(data));
  }

  /** KPS' form of `onServerMessage`: gets the data. */
  OnServerData(fn: (data: any) => unknown): void {
    check.fn("fn", fn);
    this.onServerMessage(({ data }) => fn(data));
  }

  /** @internal */
  protected override _hearPublished(on: boolean): void {
    native(() => environment.bridge.tellMessages(this._key, on));
  }

  /** @internal */
  protected override _end(timeoutMs: number): Promise<CloseReport> {
    this.questions.end();
    return environment.call((token) => environment.bridge.closeServer(this._key, timeoutMs, token));
  }
}

/** Who decides about connections. */
class Questions {
  readonly token: number;

  constructor(public decide: OnConnect | undefined) {
    this.token = environment.asker((question, told) => void this.answer(question, told as ConnectRequest));
  }

  end(): void {
    environment.forgetAsker(this.token);
  }

  private async answer(question: number, request: ConnectRequest): Promise<void> {
    let decision: object;
    try {
      const decided = (await this.decide?.(request)) ?? true;
      decision = decided === false ? { refuse: "the server refused this connection" } : { grant: decided === true ? {} : decided };
    } catch (error) {
      decision = { refuse: (error as Error)?.message ?? String(error) };
    }
    try {
      environment.bridge.decide(question, JSON.stringify(decision));
    } catch (error) {
      // A grant that is none: nobody gets in by it.
      environment.bridge.decide(question, JSON.stringify({ refuse: (error as Error).message }));
    }
  }
}
