import { isMainThread } from "node:worker_threads";
import { Alive } from "./alive";
import { Calls } from "./calls";
import { Documents } from "./documents";
import { type Failure, KpsError, failed, native as guarded } from "./errors";
import { type Bridge, type Hot, native } from "./native";
import { type Batch, Float, Int, Kind, Slabs } from "./slab";

/** What waits for it happens before the loop goes on; a third of `queueMicrotask`'s cost. */
const READY = Promise.resolve();

/** Who takes a client's records. @internal */
export interface Receiver {
  _receive(batch: Batch, record: number, kind: Kind): void;
}

/** Who does something once per tick. @internal */
export interface Ticker {
  /** The end of a tick in which it asked for that. */
  _endOfTick(): void;
}

/** Answers a server's questions: call `decide` with the question's number. @internal */
export type Asker = (question: number, told: unknown) => void;

interface Call {
  resolve(value: unknown): void;
  reject(error: KpsError): void;
}

/**
 * This thread's link to the core: one wake per batch in, one flush per tick out.
 * @internal
 */
class Environment {
  readonly alive = new Alive();
  readonly bridge: Bridge;
  readonly hot: Hot;
  readonly calls: Calls;
  readonly documents = new Documents();
  private readonly slabs: Slabs;
  private readonly receivers = new Map<number, Receiver>();
  private readonly ends = new Map<number, Call>();
  private readonly askers = new Map<number, Asker>();
  private lastCall = 0;
  private readonly dirty: Ticker[] = [];
  private draining = false;
  private drainSoon = false;
  private endSoon = false;
  private lookingSoon = false;

  constructor() {
    this.bridge = new native.Bridge(this.drain, isMainThread);
    this.hot = this.bridge.hot();
    this.slabs = new Slabs(this.hot);
    this.calls = new Calls({
      hot: this.hot,
      lookSoon: () => this.lookSoon(),
      hold: () => this.alive.hold(),
      release: () => this.alive.release(),
    });
  }

  /** From now on the client's records go to `receiver`. */
  adopt(client: number, receiver: Receiver): void {
    this.receivers.set(client, receiver);
  }

  forget(client: number): void {
    this.receivers.delete(client);
    this.bridge.forget(client);
  }

  /** A call of the native module that ends later; keeps the process alive meanwhile. */
  call<T>(start: (token: number) => void): Promise<T> {
    const token = ++this.lastCall;
    return new Promise<T>((resolve, reject) => {
      guarded(() => start(token));
      this.ends.set(token, { resolve: resolve as Call["resolve"], reject });
      this.alive.hold();
    });
  }

  /** Keeps the process alive while `work` is under way. */
  async during<T>(work: Promise<T>): Promise<T> {
    this.alive.hold();
    try {
      return await work;
    } finally {
      this.alive.release();
    }
  }

  /** The number under which a server's questions go to `asker`. */
  asker(asker: Asker): number {
    const token = ++this.lastCall;
    this.askers.set(token, asker);
    return token;
  }

  /** The server with this number is closed. */
  forgetAsker(token: number): void {
    this.askers.delete(token);
  }

  /** Has `ticker` told when the tick ends: after the batch, or before the loop waits. */
  endTick(ticker: Ticker): void {
    this.dirty.push(ticker);
    if (this.draining || this.endSoon) return;
    this.endSoon = true;
    setImmediate(this.end);
  }

  private readonly end = () => {
    this.endSoon = false;
    for (let ticker = this.dirty.pop(); ticker !== undefined; ticker = this.dirty.pop()) ticker._endOfTick();
  };

  private readonly drain = () => {
    if (!this.drainSoon) this.drainBatch(false);
  };

  private readonly drainNext = () => {
    this.drainSoon = false;
    this.drainBatch(false);
  };

  /** What a call left for this thread itself, before the loop goes on. */
  private lookSoon(): void {
    if (this.lookingSoon) return;
    this.lookingSoon = true;
    void READY.then(this.look);
  }

  private readonly look = () => {
    this.lookingSoon = false;
    this.drainBatch(true);
  };

  private drainBatch(calls: boolean): void {
    const batch = this.slabs.drain(calls);
    this.draining = true;
    try {
      this.dispatch(batch);
    } finally {
      this.draining = false;
    }
    // What handlers did at once goes out at once; what their promises do goes out by `endTick`.
    this.end();
    if (!batch.more || this.drainSoon) return;
    this.drainSoon = true;
    // Not in a loop: others want the thread too.
    setImmediate(this.drainNext);
  }

  private dispatch(batch: Batch): void {
    let key = -1;
    let receiver: Receiver | undefined;
    const end = batch.first + batch.count;
    for (let record = batch.first; record < end; record++) {
      const kind = batch.kind(record);
      if (kind === Kind.Completed) {
        this.completed(batch.float(record, Float.Number), batch.payloadText(record));
        continue;
      }
      if (kind === Kind.Asked) {
        const asker = this.askers.get(batch.float(record, Float.Number));
        asker?.(batch.float(record, Float.Delivery), JSON.parse(batch.payloadText(record)));
        continue;
      }
      if (kind >= Kind.Edited) {
        this.documents.receive(batch, record, kind);
        continue;
      }
      if (kind >= Kind.Answered) {
        this.calls.receive(batch, record, kind);
        continue;
      }
      const client = batch.int(record, Int.Client);
      if (client !== key) {
        key = client;
        receiver = this.receivers.get(client);
      }
      receiver?._receive(batch, record, kind);
    }
  }

  private completed(token: number, json: string): void {
    const call = this.ends.get(token);
    if (call === undefined) return;
    this.ends.delete(token);
    this.alive.release();
    const { ok, error } = JSON.parse(json) as { ok?: unknown; error?: Failure };
    if (error === undefined) call.resolve(ok);
    else call.reject(failed(error));
  }
}

/** @internal */
export const environment = new Environment();
