import type { Ack } from "./ack";
import type { Hold } from "./alive";
import type { Client } from "./client";
import { type Failure, KpsError, failed } from "./errors";
import type { Events } from "./events";
import type { Json } from "./json";
import { Gap, Message, Resumed } from "./message";
import type { Receipts } from "./receipt";
import { readRow } from "./row";
import { SERVER_MESSAGE, ServerMessage } from "./server-message";
import { type Batch, Flag, Float, Int, Kind } from "./slab";
import { Subscription } from "./subscription";
import type { GapReason, ReceiptLevel, State } from "./types";

const LEVELS: readonly ReceiptLevel[] = ["queued", "queued_on_disk", "accepted", "stored", "replicated"];

/** The subscription that messages to the client's own id belong to. */
const DIRECT = 0;

/** Rare things that core tells. */
interface Told {
  event: string;
  sub: number;
  error: Failure | null;
  [field: string]: unknown;
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: KpsError): void;
}

/** Promises by number, kept alive by the client's hold. */
class Promises {
  private readonly pending = new Map<number, Pending>();

  constructor(private readonly hold: Hold) {}

  make<T>(number: number): Promise<T> {
    this.hold.hold();
    return new Promise<T>((resolve, reject) => this.pending.set(number, { resolve: resolve as Pending["resolve"], reject }));
  }

  resolve(number: number, value?: unknown): void {
    this.take(number)?.resolve(value);
  }

  reject(number: number, error: KpsError): void {
    this.take(number)?.reject(error);
  }

  rejectAll(error: KpsError): void {
    for (const number of [...this.pending.keys()]) this.reject(number, error);
  }

  resolveAll(): void {
    for (const number of [...this.pending.keys()]) this.resolve(number);
  }

  private take(number: number): Pending | undefined {
    const found = this.pending.get(number);
    if (found === undefined) return undefined;
    this.pending.delete(number);
    this.hold.release();
    return found;
  }
}

/** What reaches one client, and who waits for it. @internal */
export class Inbound {
  readonly subscriptions = new Map<number, Subscription>();
  readonly acks = new Map<number, Ack>();
  readonly requests: Promises;
  readonly flushes: Promises;
  readonly subscribing: Promises;
  readonly unsubscribing: Promises;
  state: State = "connecting";
  private lastSub = -1;
  private lastSubscription: Subscription | undefined;

  constructor(
    private readonly client: Client,
    private readonly json: Json,
    private readonly events: Events,
    private readonly receipts: Receipts,
    hold: Hold,
    private readonly closed: () => void,
  ) {
    this.requests = new Promises(hold);
    this.flushes = new Promises(hold);
    this.subscribing = new Promises(hold);
    this.unsubscribing = new Promises(hold);
    const handler = (message: Message) => this.direct(message);
    this.subscriptions.set(DIRECT, new Subscription({ client, sub: DIRECT, topic: "", handler, concurrency: 1 }));
  }

  receive(batch: Batch, record: number, kind: Kind): void {
    switch (kind) {
      case Kind.Message:
        return this.message(batch, record);
      case Kind.Row:
        return this.acks.get(batch.float(record, Float.Number))?._row(readRow(batch, record, this.json));
      case Kind.Recipients:
        return this.acks.get(batch.float(record, Float.Number))?._recipients(recipients(batch, record));
      case Kind.AckDone:
        return this.ackDone(batch, record);
      case Kind.Receipt:
        return this.receipts.reached(batch.float(record, Float.Number), LEVELS[batch.int(record, Int.Sub)]!);
      case Kind.RequestDone:
        return this.requestDone(batch, record);
      case Kind.ToServer:
        return this.events.emit(SERVER_MESSAGE, new ServerMessage(batch, record, this.json));
      default:
        return this.told(JSON.parse(batch.payloadText(record)) as Told);
    }
  }

  /** The client is over: everything that waits ends. */
  end(error: KpsError | undefined): void {
    if (this.state === "closed") return;
    this.state = "closed";
    const reason = error ?? new KpsError("closed", "the client was closed");
    for (const subscription of this.subscriptions.values()) subscription._end(error);
    this.subscriptions.clear();
    this.lastSub = -1;
    for (const ack of this.acks.values()) ack._end(reason);
    this.acks.clear();
    this.receipts.end(reason);
    for (const promises of [this.requests, this.flushes, this.subscribing]) promises.rejectAll(reason);
    // A closed client has no subscriptions, so whoever waits for that has it.
    this.unsubscribing.resolveAll();
    this.closed();
    this.events.emit("state", "closed");
    this.events.emit("closed", error ?? null);
  }

  private message(batch: Batch, record: number): void {
    const sub = batch.int(record, Int.Sub);
    if (sub !== this.lastSub) {
      this.lastSub = sub;
      this.lastSubscription = this.subscriptions.get(sub);
    }
    const subscription = this.lastSubscription;
    if (subscription === undefined) return;
    const message = new Message(batch, record, subscription);
    if (this.events.has("message_received")) this.events.emit("message_received", message);
    subscription._message(message);
  }

  /** Every handler hears it; the first one's result is the answer. */
  private direct(message: Message): unknown {
    const [first, ...others] = this.events.all("message_to_id") as Iterable<(message: Message) => unknown>;
    if (first === undefined) return message._unhandled();
    for (const other of others) {
      void (async () => other(message))().catch((error) => this.client._handlerError(error, message, false));
    }
    return first(message);
  }

  private ackDone(batch: Batch, record: number): void {
    const number = batch.float(record, Float.Number);
    const ack = this.acks.get(number);
    if (ack === undefined) return;
    this.acks.delete(number);
    const error = batch.extras(record);
    ack._end(error === "" ? undefined : failed(JSON.parse(error) as Failure));
  }

  private requestDone(batch: Batch, record: number): void {
    const number = batch.float(record, Float.Number);
    if (batch.flag(record, Flag.Failed)) {
      this.requests.reject(number, failed(JSON.parse(batch.extras(record)) as Failure));
    } else {
      this.requests.resolve(number, readRow(batch, record, this.json).data);
    }
  }

  private told(told: Told): void {
    const { sub } = told;
    const error = told.error ? failed(told.error) : undefined;
    const subscription = this.subscriptions.get(sub);
    switch (told.event) {
      case "state":
        return this.changed(told.state as State, told.resumed === true, error);
      case "subscribed":
        return this.subscribing.resolve(sub);
      case "subscribe_failed":
        this.drop(sub);
        return this.subscribing.reject(sub, error!);
      case "unsubscribed":
        this.drop(sub)?._end();
        return this.unsubscribing.resolve(sub);
      case "subscription_closed":
        // The client's own end is told as such.
        if (error!.code === "closed") return this.drop(sub)?._end();
        this.drop(sub)?._end(error);
        return this.events.tell("subscription_closed", error, subscription);
      case "gap": {
        const { topic, count, first, last, reason } = told as unknown as Gap;
        const gap = new Gap(topic, count, first, last, reason as GapReason);
        if (subscription === undefined || sub === DIRECT) return;
        subscription._gap(gap);
        return this.events.emit("gap", gap, subscription);
      }
      case "resumed":
        if (subscription === undefined || sub === DIRECT) return;
        return this.events.emit("resumed", new Resumed(subscription.topic, told.replayed as number), subscription);
      case "cancel":
        return subscription?._cancel(told.delivery as number);
      case "publish_failed": {
        this.receipts.refuse(told.number as number, error!);
        return this.events.emit("publish_failed", told.id, error);
      }
      case "outbox_flushed":
        return this.events.emit("outbox_flushed", told.count);
      case "room":
        // A closed outbox is empty too, but not because there is room.
        if (this.client.state !== "closed") this.receipts.room();
        return;
      case "flushed":
        if (error !== undefined) return this.flushes.reject(told.token as number, error);
        return this.flushes.resolve(told.token as number);
      case "message_published":
      case "backpressure":
      case "goaway":
        return this.events.tell(told.event, ...(told.args as unknown[]));
      case "error":
        return this.events.emit("error", error, null, null);
      case "server":
        return this.events.emit(told.name as string, ...(told.args as unknown[]).map(argument));
    }
  }

  private changed(state: State, resumed: boolean, error: KpsError | undefined): void {
    const before = this.state;
    if (state === "closed") {
      if (before === "connected") this.events.tell("connection_closed", error ?? null);
      // Closed by its user is no error.
      return this.end(error?.code === "closed" ? undefined : error);
    }
    this.state = state;
    this.events.emit("state", state);
    if (state === "connected") this.events.tell("connection_opened", resumed);
    else if (before === "connected") this.events.tell("connection_closed", error ?? null);
  }

  private drop(sub: number): Subscription | undefined {
    const subscription = this.subscriptions.get(sub);
    this.subscriptions.delete(sub);
    this.lastSub = -1;
    return subscription;
  }
}

/** An argument of a server's event: of all that come only errors are objects. */
function argument(value: unknown): unknown {
  return typeof value === "object" && value !== null ? failed(value as Failure) : value;
}

function recipients(batch: Batch, record: number): string[] {
  const count = batch.int(record, Int.Sub);
  if (count === 0) return [];
  if (count === 1) return [batch.name(batch.int(record, Int.Name))];
  return JSON.parse(batch.payloadText(record)) as string[];
}
