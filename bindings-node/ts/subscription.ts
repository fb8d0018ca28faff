import { inspect } from "node:util";
import type { Client } from "./client";
import type { KpsError } from "./errors";
import { type Gap, Message } from "./message";
import { Queue } from "./queue";
import type { Handler, SubscriptionLedger } from "./types";

/** What a subscription's stream holds. */
export type Item<T = unknown> = Message<T> | Gap;

/** What a subscription is made of. @internal */
export interface Parts<T> {
  client: Client;
  sub: number;
  topic: string;
  handler: Handler<T> | undefined;
  concurrency: number;
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}

/** A subscription: iterate over it, unless it was given a handler. */
export class Subscription<T = unknown> implements AsyncIterable<Item<T>>, AsyncDisposable {
  /** The topic or pattern. */
  readonly topic: string;
  /** @internal */
  readonly _client: Client;
  /** @internal */
  readonly _sub: number;
  private readonly handler: Handler<T> | undefined;
  private readonly concurrency: number;
  private readonly waiting = new Queue<Item<T>>();
  /** Handler calls whose promises are pending. */
  private running = 0;
  /** What runs or was iterated last, of what wants an answer, by delivery. */
  private readonly open = new Map<number, Message<T>>();
  private readers: (() => void)[] = [];
  private last: Message<T>[] = [];
  private ended = false;
  private error: KpsError | undefined;
  private held = false;
  private unreffed = false;

  /** @internal */
  constructor({ client, sub, topic, handler, concurrency }: Parts<T>) {
    this._client = client;
    this._sub = sub;
    this.topic = topic;
    this.handler = handler;
    this.concurrency = concurrency;
  }

  /**
   * Messages in arrays: what waits, at most `max`, and at least one. Asking for the next array acks
   * the last one's messages.
   */
  async *batches(max = 1024): AsyncGenerator<Item<T>[], void, undefined> {
    for (;;) {
      const batch = await this.take(max);
      if (batch === undefined) return;
      yield batch;
    }
  }

  /** The stream. Asking for the next message acks the last one. */
  [Symbol.asyncIterator](): AsyncIterator<Item<T>, undefined, undefined> {
    return {
      next: async () => {
        const batch = await this.take(1);
        return batch === undefined ? { done: true, value: undefined } : { done: false, value: batch[0]! };
      },
    };
  }

  /** Ends it; resolves when the broker has confirmed. What waits is dropped. */
  async unsubscribe(): Promise<void> {
    for (;;) {
      const item = this.waiting.shift();
      if (item === undefined) break;
      if (item instanceof Message) item._unhandled();
    }
    this._end();
    await this._client._unsubscribe(this._sub);
  }

  /** What became of its messages so far. */
  ledger(): SubscriptionLedger {
    return this._client._subscriptionLedger(this._sub);
  }

  /** Lets the process end while it is active. */
  unref(): this {
    this.unreffed = true;
    this.release();
    return this;
  }

  /** Unsubscribes. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.unsubscribe();
  }

  /** What `JSON.stringify` shows. */
  toJSON(): object {
    return { topic: this.topic };
  }

  /** @internal */
  [inspect.custom](): string {
    return `Subscription(${this.topic})`;
  }

  /** The broker confirmed it. @internal */
  _start(): void {
    if (this.unreffed) return;
    this.held = true;
    this._client._hold.hold();
  }

  /** @internal */
  _message(message: Message<T>): void {
    if (this.ended) return message._unhandled();
    if (this.handler === undefined) {
      this.waiting.push(message);
      this.wakeReader();
    } else if (this.running < this.concurrency && this.waiting.length === 0) {
      this.handle(message);
    } else {
      this.waiting.push(message);
    }
  }

  /** @internal */
  _gap(gap: Gap): void {
    if (this.handler !== undefined) return;
    this.waiting.push(gap);
    this.wakeReader();
  }

  /** The publisher does not wait for this answer any more. @internal */
  _cancel(delivery: number): void {
    const found = this.open.get(delivery) ?? this.waiting.find((item) => item instanceof Message && item._delivery === delivery);
    if (found !== undefined) (found as Message<T>)._cancel();
  }

  /** Nothing more comes. @internal */
  _end(error?: KpsError): void {
    if (this.ended) return;
    this.ended = true;
    this.error = error;
    this.release();
    for (const wake of this.readers.splice(0)) wake();
  }

  /** Hands over at most `max` items; `undefined` at the end. */
  private async take(max: number): Promise<Item<T>[] | undefined> {
    for (const message of this.last.splice(0)) this.respond(message, null);
    for (;;) {
      const batch = this.pull(max);
      if (batch.length > 0) return batch;
      if (this.ended) {
        const { error } = this;
        this.error = undefined;
        if (error !== undefined) throw error;
        return undefined;
      }
      await new Promise<void>((resolve) => this.readers.push(resolve));
    }
  }

  private pull(max: number): Item<T>[] {
    const batch: Item<T>[] = [];
    let messages = 0;
    while (batch.length < max) {
      const item = this.waiting.shift();
      if (item === undefined) break;
      if (item instanceof Message) {
        messages += 1;
        if (item._cancelled) continue;
        if (item._wanted) {
          this.last.push(item);
          this.open.set(item._delivery, item);
        }
      }
      batch.push(item);
    }
    if (messages > 0) this._client._outbound.consumed(this._sub, messages);
    return batch;
  }

  private wakeReader(): void {
    this.readers.shift()?.();
  }

  private handle(message: Message<T>): void {
    this._client._outbound.consumed(this._sub, 1);
    if (message._cancelled) return;
    let result: unknown;
    try {
      result = this.handler!(message);
    } catch (error) {
      this.fail(message, error);
      return;
    }
    if (!isPromise(result)) {
      this.respond(message, result);
      return;
    }
    this.running += 1;
    if (message._wanted) this.open.set(message._delivery, message);
    result.then(
      (value) => {
        this.respond(message, value);
        this.finished();
      },
      (error: unknown) => {
        this.fail(message, error);
        this.finished();
      },
    );
  }

  private finished(): void {
    this.running -= 1;
    while (this.running < this.concurrency) {
      const next = this.waiting.shift();
      if (next === undefined) return;
      this.handle(next as Message<T>);
    }
  }

  private respond(message: Message<T>, value: unknown): void {
    if (!message._wanted) return;
    this.open.delete(message._delivery);
    try {
      message.respond(value ?? null);
    } catch (error) {
      this.fail(message, error);
    }
  }

  private fail(message: Message<T>, error: unknown): void {
    const told = message._wanted;
    if (told) {
      this.open.delete(message._delivery);
      message.fail(error);
    }
    this._client._handlerError(error, message as Message, told);
  }

  private release(): void {
    if (!this.held) return;
    this.held = false;
    this._client._hold.release();
  }
}
