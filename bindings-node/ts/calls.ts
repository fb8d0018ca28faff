import type { Hold } from "./alive";
import { Context, type Offered } from "./capability";
import { Crew, Job } from "./crew";
import { type ErrorCode, KpsError, native, thrown } from "./errors";
import { unspeakable } from "./failure";
import type { Hot } from "./native";
import { type Envelope, Response, refused } from "./response";
import { type Batch, Flag, Float, Int, Kind } from "./slab";
import type { DispatchOptions } from "./types";
import { type Found, Refusal, revive, write } from "./values";

/** What calls need of their environment. */
interface Home {
  readonly hot: Hot;
  /** Has what waits for JavaScript looked at before anything else happens. */
  lookSoon(): void;
  hold(): void;
  release(): void;
}

type Settle = (response: Response) => void;

/** One of the program's functions that core may call. */
interface Given {
  fn: Function;
  hold: Hold | undefined;
}

/** A call under way. */
interface Running {
  /** Nobody waits for its answer any more. */
  abort(late: boolean): void;
}

/** This thread's calls: those it made, and those of its capabilities. @internal */
export class Calls {
  private readonly pending = new Map<number, Settle>();
  private readonly providers = new Map<number, { provider: Offered | Crew; hold: Hold | undefined }>();
  private readonly running = new Map<number, Running>();
  private readonly functions = new Map<number, Given>();
  private last = 0;
  /** Tells core that a function of its is not used any more. */
  private readonly unused = new FinalizationRegistry<number>((number) => this.after(this.home.hot.dropFunction(number)));

  constructor(private readonly home: Home) {}

  /** Calls an operation; `hold` keeps the process alive for the functions in the payload. */
  dispatch(client: number, hold: Hold, action: string, payload: unknown, options: DispatchOptions): Promise<Response> | Response {
    const { signal, onProgress } = options;
    const timeout = options.timeout ?? TIMEOUT;
    if (signal?.aborted === true) return refused("cancelled", CANCELLED);
    const token = ++this.last;
    const functions: number[] = [];
    const keep = (fn: Function, by: Hold | undefined = hold) => {
      const number = this.give(fn, by);
      functions.push(number);
      return number;
    };
    let text: string;
    let parts: Uint8Array[] | undefined;
    try {
      ({ text, parts } = write(payload, keep));
    } catch (error) {
      for (const number of functions) this.released(number);
      if (!(error instanceof Refusal)) throw error;
      return refused("invalid_payload", error.message, error.field === undefined ? {} : { field: error.field });
    }
    // The answer keeps the process alive, not the listening.
    const progress = onProgress ? keep(onProgress, undefined) : undefined;
    let answer: string | [string, ...Buffer[]] | number;
    try {
      // The calls differ in their number of arguments alone: each one costs.
      const more = json(options, progress);
      if (more !== undefined) answer = this.home.hot.dispatch(client, token, action, text, timeout, parts, more);
      else if (parts !== undefined) answer = this.home.hot.dispatch(client, token, action, text, timeout, parts);
      else answer = this.home.hot.dispatch(client, token, action, text, timeout);
    } catch (error) {
      for (const number of functions) this.released(number);
      const failure = thrown(error);
      if (!(failure instanceof KpsError)) throw failure;
      return refused(failure.code as ErrorCode, failure.message);
    }
    if (typeof answer === "string") return new Response(JSON.parse(answer) as Envelope);
    if (typeof answer === "object") return this.response(answer[0], (index) => answer[index + 1] as Buffer);
    this.after(answer);
    return this.wait(token, signal ?? undefined);
  }

  /** A step of the native module that ends as a call does: its number, and what it came to. Throws why it failed. */
  async step<T>(start: (token: number) => void): Promise<[number, T]> {
    const token = ++this.last;
    native(() => start(token));
    const response = await this.wait(token, undefined);
    return [token, response.unwrap() as T];
  }

  /** Has `provider` called under the number returned. */
  offer(provider: Offered | Crew, hold: Hold | undefined): number {
    const number = ++this.last;
    this.providers.set(number, { provider, hold });
    hold?.hold();
    return number;
  }

  /** Core will not call this capability any more, or never had it. */
  forget(number: number): void {
    const known = this.providers.get(number);
    this.providers.delete(number);
    known?.hold?.release();
    if (known?.provider instanceof Crew) known.provider.close();
  }

  receive(batch: Batch, record: number, kind: Kind): void {
    const number = batch.float(record, Float.Number);
    switch (kind) {
      case Kind.Answered:
        return this.settle(number, this.response(batch.payloadText(record), special(batch, record)));
      case Kind.Called:
        return this.called(batch, record, number);
      case Kind.Aborted:
        this.running.get(number)?.abort(batch.flag(record, Flag.Failed));
        this.running.delete(number);
        return;
      case Kind.Function:
        return this.callFunction(batch, record, number);
      case Kind.Released:
        return this.released(number);
      default:
        return this.forget(number);
    }
  }

  private wait(token: number, signal: AbortSignal | undefined): Promise<Response> {
    this.home.hold();
    return new Promise((resolve) => {
      if (signal === undefined) {
        this.pending.set(token, resolve);
        return;
      }
      const started = performance.now();
      const abort = () => {
        const duration = Math.round((performance.now() - started) * 1e3) / 1e3;
        this.settle(token, refused("cancelled", CANCELLED, { duration, attempts: 1 }));
        this.after(this.home.hot.cancel(token));
      };
      signal.addEventListener("abort", abort);
      this.pending.set(token, (response) => {
        signal.removeEventListener("abort", abort);
        resolve(response);
      });
    });
  }

  private settle(token: number, response: Response): void {
    const settle = this.pending.get(token);
    if (settle === undefined) return;
    this.pending.delete(token);
    this.home.release();
    settle(response);
  }

  private response(text: string, part: ((index: number) => Buffer) | undefined): Response {
    const envelope = JSON.parse(text) as Envelope;
    if (part !== undefined && envelope.status === "ok") envelope.data = revive(envelope.data, this.found(part));
    return new Response(envelope);
  }

  private payload(batch: Batch, record: number): unknown {
    const value: unknown = JSON.parse(batch.payloadText(record));
    const part = special(batch, record);
    return part === undefined ? value : revive(value, this.found(part));
  }

  private called(batch: Batch, record: number, number: number): void {
    const { provider } = this.providers.get(batch.float(record, Float.Delivery)) ?? {};
    const operation = batch.name(batch.int(record, Int.Name));
    if (provider === undefined) {
      return this.fail(number, { code: "unavailable", message: "the capability was taken away", retry: true });
    }
    if (provider instanceof Crew) return this.hand(provider, batch, record, number);
    let result: unknown;
    try {
      if (batch.flag(record, Flag.Hook)) result = provider.hook(operation);
      else result = this.run(provider, operation, batch, record, number);
    } catch (error) {
      return this.threw(provider, number, operation, error);
    }
    if (typeof (Object(result) as PromiseLike<unknown>).then !== "function") return this.answer(number, result);
    (result as PromiseLike<unknown>).then(
      (value) => this.answer(number, value),
      (error: unknown) => this.threw(provider, number, operation, error),
    );
  }

  /** Has a worker do the call: what it is given stays as it is written. */
  private hand(crew: Crew, batch: Batch, record: number, number: number): void {
    const part = special(batch, record);
    const text = batch.payloadText(record);
    const parts = part && Array.from({ length: batch.int(record, Int.Sub) }, (_, index) => part(index));
    if (part !== undefined && this.hasFunctions(text, part)) {
      const message = "a function cannot go into a worker: its task is given what can be copied";
      return this.fail(number, { code: "invalid_payload", message, retry: false });
    }
    const deadline = Date.now() + batch.float(record, Float.Time);
    const job = new Job({ text, parts }, deadline, (answer) => {
      if ("failure" in answer) return this.fail(number, answer.failure);
      this.running.delete(number);
      this.after(this.home.hot.answered(number, 1, answer.text, answer.parts));
    });
    this.running.set(number, { abort: () => crew.leave(job) });
    crew.run(job);
  }

  private hasFunctions(text: string, part: (index: number) => Buffer): boolean {
    if (!text.includes('"$function"')) return false;
    let found = false;
    const fn = (number: number) => {
      found = true;
      // Core keeps it until it is told that nobody has it.
      return this.functionOf(number);
    };
    revive(JSON.parse(text), { part, fn });
    return found;
  }

  private run(provider: Offered, operation: string, batch: Batch, record: number, number: number): unknown {
    const caller = batch.flag(record, Flag.Caller) ? batch.name(batch.int(record, Int.Sender)) : null;
    const heard = batch.flag(record, Flag.Heard) ? (value: unknown) => this.tell(number, value) : undefined;
    const left = batch.float(record, Float.Time);
    const context = new Context(batch.extras(record), operation, caller, batch.int(record, Int.Attempt), left, heard);
    const payload = this.payload(batch, record);
    this.running.set(number, context);
    return provider.call(operation, payload, context);
  }

  private answer(number: number, value: unknown): void {
    this.running.delete(number);
    let written;
    try {
      written = write(value, this.keep);
    } catch (error) {
      return this.fail(number, unspeakable(error as Refusal));
    }
    this.after(this.home.hot.answered(number, 1, written.text, written.parts));
  }

  private threw(provider: Offered, number: number, operation: string, error: unknown): void {
    if (operation === "close") {
      process.emitWarning(`a capability's close() threw: ${String((error as Error)?.stack ?? error)}`, "KpsWarning");
    }
    this.fail(number, provider.failure(error));
  }

  private fail(number: number, failure: object): void {
    this.running.delete(number);
    this.after(this.home.hot.answered(number, 0, JSON.stringify(failure)));
  }

  private tell(number: number, value: unknown): void {
    const { text, parts } = this.write(value);
    this.after(this.home.hot.progress(number, text, parts));
  }

  /** Writes what the program says outside of a call. */
  private write(value: unknown): { text: string; parts: Uint8Array[] | undefined } {
    try {
      return write(value, this.keep);
    } catch (error) {
      throw error instanceof Refusal ? new KpsError("invalid_payload", error.message) : error;
    }
  }

  private readonly keep = (fn: Function): number => this.give(fn, undefined);

  private give(fn: Function, hold: Hold | undefined): number {
    const number = ++this.last;
    this.functions.set(number, { fn, hold });
    hold?.hold();
    return number;
  }

  private callFunction(batch: Batch, record: number, number: number): void {
    const given = this.functions.get(number);
    if (given === undefined) return;
    const lost = batch.int(record, Int.Sub);
    if (lost > 0) process.emitWarning(`${given.fn.name || "a function"} was too slow for ${lost} of its calls`, "KpsWarning");
    try {
      const result: unknown = given.fn(this.payload(batch, record));
      if (typeof (Object(result) as PromiseLike<unknown>).then === "function") (result as PromiseLike<unknown>).then(undefined, uncaught);
    } catch (error) {
      uncaught(error);
    }
  }

  private released(number: number): void {
    const given = this.functions.get(number);
    this.functions.delete(number);
    given?.hold?.release();
  }

  private found(part: (index: number) => Buffer): Found {
    return { part, fn: (number) => this.functionOf(number) };
  }

  /** A function of core's, for the program to call. */
  private functionOf(number: number): (value?: unknown) => void {
    const fn = (value?: unknown) => {
      const { text, parts } = this.write(value);
      this.after(this.home.hot.callFunction(number, text, parts));
    };
    this.unused.register(fn, number);
    return fn;
  }

  private after(news: number): void {
    if (news === 1) this.home.lookSoon();
  }
}

/** How long an answer is awaited, in milliseconds. */
const TIMEOUT = 5000;
const CANCELLED = "the call was cancelled by its signal";

/** The options that core reads as JSON; `undefined` if there are none. */
function json(options: DispatchOptions, progress: number | undefined): string | undefined {
  const { retry, target, idempotencyKey, signal } = options;
  if (!retry && !target && !idempotencyKey && !signal && progress === undefined) return undefined;
  const mayCancel = signal !== undefined && signal !== null;
  return JSON.stringify({ retry, target, idempotencyKey, progress, mayCancel });
}

/** The parts of a record's value, if there may be any. */
function special(batch: Batch, record: number): ((index: number) => Buffer) | undefined {
  if (!batch.flag(record, Flag.Special)) return undefined;
  const first = batch.float(record, Float.Epoch);
  return (index) => batch.largeAt(first + index);
}

/** What a function of the program throws where nobody can catch it. */
function uncaught(error: unknown): void {
  process.nextTick(() => {
    throw error;
  });
}

