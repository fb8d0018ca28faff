import { inspect, types } from "node:util";
import { Retry, retryDelay } from "./retry";
import { readData } from "./row";
import { type Batch, Flag, Float, Int } from "./slab";
import type { Subscription } from "./subscription";
import type { ContentType, FailOptions, GapReason } from "./types";

/** By their numbers. @internal */
export const CONTENT_TYPES: readonly ContentType[] = ["json", "text", "bytes"];

interface Extras {
  headers?: [string, string][];
  id?: string | null;
  cursor?: string | null;
}

const NO_EXTRAS: Extras = {};

/** Decoded data that nobody asked for yet. */
const UNREAD = Symbol("unread");

/** What became of the answer that a message may want. */
const enum Answer {
  Open,
  Given,
  Cancelled,
}

/** Few messages have one, and every field costs each message memory. */
const aborts = new WeakMap<object, AbortController>();

/**
 * A message as a subscriber receives it. Its fields are read from the batch it came in, so what
 * nobody looks at costs nothing.
 */
export class Message<T = unknown> {
  private decoded: unknown = UNREAD;
  private answer = Answer.Open;

  /** @internal */
  constructor(
    private readonly batch: Batch,
    private readonly record: number,
    private readonly subscription: Subscription<T>,
  ) {}

  /** Where it was published. */
  get topic(): string {
    return this.batch.name(this.batch.int(this.record, Int.Name));
  }

  /** The payload as a value: decoded on first reading. Throws `invalid_payload` if it is not what its type says. */
  get data(): T {
    if (this.decoded === UNREAD) this.decoded = readData(this.batch, this.record, this.subscription._client._json);
    return this.decoded as T;
  }

  /** The payload's bytes. */
  get raw(): Buffer {
    return this.batch.payload(this.record);
  }

  /** How the payload's bytes are to be read. */
  get contentType(): ContentType {
    return CONTENT_TYPES[this.batch.contentType(this.record)]!;
  }

  /** What the publisher added by name. */
  get headers(): Record<string, string> {
    return Object.fromEntries(this.extras.headers ?? []);
  }

  /** Unique; the publisher's own if it gave one. */
  get id(): string {
    const origin = this.batch.name(this.batch.int(this.record, Int.Sender) + 1);
    return this.extras.id ?? `${origin}-${this.batch.float(this.record, Float.Number)}`;
  }

  /** The publisher's client id, set by the broker. */
  get sender(): string {
    return this.batch.name(this.batch.int(this.record, Int.Sender));
  }

  /** Consecutive within topic and epoch. */
  get seq(): number {
    return this.batch.float(this.record, Float.Seq);
  }

  /** The broker's run that numbered it. */
  get epoch(): number {
    return this.batch.float(this.record, Float.Epoch);
  }

  /** When the broker accepted it, in milliseconds since the Unix epoch. */
  get time(): number {
    return this.batch.float(this.record, Float.Time);
  }

  /** 1 for the first delivery. */
  get attempt(): number {
    return this.batch.int(this.record, Int.Attempt);
  }

  /** Whether it was sent again after the broker lost the publisher's session, and may be a repeat. */
  get maybeDuplicate(): boolean {
    return this.batch.flag(this.record, Flag.Duplicate);
  }

  /** Whether it was delivered because it was retained: the topic's last value before the subscription began. */
  get retained(): boolean {
    return this.batch.flag(this.record, Flag.Retained);
  }

  /** The place behind it, to start from again; `null` if its topic has no history. */
  get cursor(): string | null {
    return this.extras.cursor ?? null;
  }

  /** Aborted when the publisher stops waiting for the answer (timeout or cancellation). */
  get signal(): AbortSignal {
    let abort = aborts.get(this);
    if (abort === undefined) {
      aborts.set(this, (abort = new AbortController()));
      if (this._cancelled) abort.abort();
    }
    return abort.signal;
  }

  /**
   * Answers an iterated message, once. Without it, asking for the next message acks. Throws a
   * `TypeError` if `data` cannot be encoded.
   */
  respond(data: unknown = null): void {
    if (!this._wanted) return;
    this.subscription._client._outbound.acked(this._delivery, data);
    this.answer = Answer.Given;
  }

  /**
   * Answers an iterated message with an error, once. A durable's comes again after `delay` milliseconds if they are
   * given, at most a day, else after its `retryDelay`.
   */
  fail(error: unknown, options: FailOptions = {}): void {
    if (!this._wanted) return;
    const delay = retryDelay(options.delay ?? (error instanceof Retry ? error.delay : null));
    this.answer = Answer.Given;
    const [type, text] = types.isNativeError(error) ? [error.name, error.message] : ["Error", String(error)];
    this.subscription._client._outbound.failed(this._delivery, type, text, delay);
  }

  /** Nobody handles it. @internal */
  _unhandled(): void {
    if (!this._wanted) return;
    this.answer = Answer.Given;
    this.subscription._client._outbound.unhandled(this._delivery);
  }

  /** Whether an answer is still wanted. @internal */
  get _wanted(): boolean {
    return this.answer === Answer.Open && this.batch.flag(this.record, Flag.Delivery);
  }

  /** Whether the publisher stopped waiting. @internal */
  get _cancelled(): boolean {
    return this.answer === Answer.Cancelled;
  }

  /** @internal */
  _cancel(): void {
    this.answer = Answer.Cancelled;
    aborts.get(this)?.abort();
  }

  /** The number to answer with. @internal */
  get _delivery(): number {
    return this.batch.float(this.record, Float.Delivery);
  }

  /** What `JSON.stringify` shows. */
  toJSON(): object {
    const { topic, data, contentType, headers, id, sender, seq, epoch, time, attempt } = this;
    const { maybeDuplicate, retained, cursor } = this;
    return {
      topic, data, contentType, headers, id, sender, seq, epoch, time, attempt, maybeDuplicate, retained, cursor,
    };
  }

  /** @internal */
  [inspect.custom](): object {
    return Object.assign(Object.create({ constructor: Message }) as object, this.toJSON());
  }

  private get extras(): Extras {
    const text = this.batch.extras(this.record);
    return text === "" ? NO_EXTRAS : (JSON.parse(text) as Extras);
  }
}

/** Messages missing from a subscription's stream, told in the stream itself. */
export class Gap {
  /** @internal */
  constructor(
    /** The topic, or the subscription's pattern when several are concerned. */
    readonly topic: string,
    /** How many are missing; `null` when nobody can know. */
    readonly count: number | null,
    /** `seq` of the first one missing, where known. */
    readonly first: number | null,
    /** `seq` of the last one missing, where known. */
    readonly last: number | null,
    /** Why. */
    readonly reason: GapReason,
  ) {}
}

/** After a reconnect a subscription goes on without loss. */
export class Resumed {
  /** @internal */
  constructor(
    /** The subscription's topic or pattern. */
    readonly topic: string,
    /** How many messages follow that were sent meanwhile. */
    readonly replayed: number,
  ) {}
}
