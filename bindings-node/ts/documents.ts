import type { Hold } from "./alive";
import type { EditReceipt } from "./edit-receipt";
import { Events } from "./events";
import type { Json } from "./json";
import type { LiveDocument } from "./live-document";
import { type Batch, Float, Int, Kind } from "./slab";

/** What a document tells, and everything. */
const EVENTS = [
  "change",
  "ack",
  "conflict",
  "rejected",
  "checkpoint",
  "store_failed",
  "presence",
  "failed",
  "gap",
  "resumed",
  "closed",
  "update",
  "*",
] as const;

/** This thread's documents: who hears of what happens to them. @internal */
export class Documents {
  private readonly ears = new Map<number, Ears>();
  private readonly edits = new Map<number, EditReceipt>();
  private last = 0;

  /** The number of a document or a stream, or the first of `count` operations. */
  number(count = 1): number {
    const first = this.last + 1;
    this.last += count;
    return first;
  }

  listen(number: number, ears: Ears): void {
    this.ears.set(number, ears);
  }

  forget(number: number): void {
    this.ears.delete(number);
  }

  await(number: number, receipt: EditReceipt): void {
    this.edits.set(number, receipt);
  }

  receive(batch: Batch, record: number, kind: Kind): void {
    const number = batch.float(record, Float.Number);
    if (kind === Kind.Happened) {
      this.ears.get(number)?.hear(batch.name(batch.int(record, Int.Name)), batch, record);
      return;
    }
    const receipt = this.edits.get(number);
    this.edits.delete(number);
    receipt?._settle(batch.payloadText(record));
  }
}

/** The handlers of one document. While there are any the document is kept, and the process. @internal */
export class Ears {
  private readonly events = new Events(EVENTS);
  /** The document, while it is to stay. */
  private readonly kept = new Set<LiveDocument>();
  private handlers = 0;
  private isOver = false;
  private isHolding = false;

  constructor(
    private readonly hold: Hold,
    private readonly json: Json,
    private isGiven = true,
  ) {}

  on(document: LiveDocument, event: string, handler: (...args: never[]) => unknown): () => void {
    // Twice the same one is called twice.
    const own = (...args: never[]) => handler(...args);
    const remove = this.events.on(event, own);
    this.handlers += 1;
    this.change(document);
    let isThere = true;
    return () => {
      if (!isThere) return;
      isThere = false;
      remove();
      this.handlers -= 1;
      this.change();
    };
  }

  hear(event: string, batch: Batch, record: number): void {
    if (this.events.has(event) || this.events.has("*")) {
      const told = this.json.decode(batch.payloadText(record));
      this.events.emit(event, told);
      this.events.emit("*", told);
    }
    if (event === "closed") this.end();
  }

  /** From now on it keeps no process alive. */
  unref(): void {
    this.isGiven = false;
    this.change();
  }

  /** Nothing more comes. */
  end(): void {
    this.isOver = true;
    this.change();
  }

  private change(document?: LiveDocument): void {
    const isListening = this.handlers > 0 && !this.isOver;
    if (!isListening) this.kept.clear();
    else if (document !== undefined) this.kept.add(document);
    const isHolding = isListening && this.isGiven;
    if (isHolding === this.isHolding) return;
    this.isHolding = isHolding;
    if (isHolding) this.hold.hold();
    else this.hold.release();
  }
}
