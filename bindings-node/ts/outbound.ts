import { environment } from "./environment";
import { native, thrown } from "./errors";
import type { Json } from "./json";
import type { Hot } from "./native";

/** How a publish says where it goes and what it carries; `src/hot.rs` has the same bits. @internal */
export const enum Mode {
  Json = 0,
  Text = 1,
  Bytes = 2,
  Client = 1 << 2,
  Server = 1 << 3,
  Request = 1 << 4,
  Secure = 1 << 5,
}

/** What an answer is beside a content type. */
const enum Answer {
  Failed = 3,
  NoHandler = 4,
}

/** Names known by number; more start the table anew. */
const NAMES = 4096;

const names = new Map<string, number>();

function numberOf(hot: Hot, name: string): number {
  let number = names.get(name);
  if (number === undefined) {
    const full = names.size >= NAMES;
    if (full) names.clear();
    number = hot.name(name, full ? 1 : 0);
    names.set(name, number);
  }
  return number;
}

/** What one client sends. @internal */
export class Outbound {
  private readonly hot = environment.hot;
  private dirty = false;
  private readonly consumedBy = new Map<number, number>();

  constructor(
    private readonly client: number,
    private readonly json: Json,
  ) {}

  /** Publishes and returns the number, negative above the soft bound. */
  publish(to: Mode, name: string, data: unknown, timeout?: number, options?: string): number {
    const payload = this.encode(data, "data");
    const mode = to | contentType(data);
    this.touch();
    try {
      // The calls differ in their number of arguments alone: each one costs.
      const number = numberOf(this.hot, name);
      if (options !== undefined) return this.hot.publish(this.client, mode, number, payload, timeout ?? NaN, options);
      if (timeout !== undefined) return this.hot.publish(this.client, mode, number, payload, timeout);
      return this.hot.publish(this.client, mode, number, payload);
    } catch (error) {
      throw thrown(error);
    }
  }

  /** Answers a delivery. Throws if `data` cannot be encoded; then nothing was sent. */
  acked(delivery: number, data: unknown): void {
    const value = data === undefined ? null : data;
    const payload = this.encode(value, "answer");
    this.touch();
    native(() => this.hot.answer(this.client, delivery, contentType(value), payload));
  }

  failed(delivery: number, type: string, text: string, delay: number | null): void {
    this.touch();
    native(() => this.hot.answer(this.client, delivery, Answer.Failed, type, text, delay ?? NaN));
  }

  unhandled(delivery: number): void {
    this.touch();
    native(() => this.hot.answer(this.client, delivery, Answer.NoHandler));
  }

  /** `count` more messages of subscription `sub` were handed over; told once per tick. */
  consumed(sub: number, count: number): void {
    this.consumedBy.set(sub, (this.consumedBy.get(sub) ?? 0) + count);
    this.touch();
  }

  /** Sends what the tick left. */
  _endOfTick(): void {
    this.dirty = false;
    try {
      for (const [sub, count] of this.consumedBy) this.hot.consumed(this.client, sub, count);
      this.consumedBy.clear();
      this.hot.flush(this.client);
    } catch {
      // The client was closed within the tick: nothing of this matters any more.
      this.consumedBy.clear();
    }
  }

  private touch(): void {
    if (this.dirty) return;
    this.dirty = true;
    environment.endTick(this);
  }

  private encode(data: unknown, name: string): string | Uint8Array {
    if (typeof data === "string" || data instanceof Uint8Array) return data;
    let json: string | undefined;
    try {
      json = this.json.encode(data);
    } catch (error) {
      throw new TypeError(`${name} cannot be written as JSON: ${(error as Error).message}`);
    }
    if (json === undefined) throw new TypeError(`${name} must be a JSON value, a string or a Uint8Array, not ${typeof data}`);
    return json;
  }
}

function contentType(data: unknown): Mode {
  if (typeof data === "string") return Mode.Text;
  return data instanceof Uint8Array ? Mode.Bytes : Mode.Json;
}
