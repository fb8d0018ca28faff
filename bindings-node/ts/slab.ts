import type { Hot } from "./native";

/** Bytes of one record: ten integers, then five floats. `src/batch.rs` writes them. */
const RECORD = 80;
const INTS = RECORD / 4;
const FLOATS = RECORD / 8;

const SLAB = 64 << 10;

/** What a record tells. @internal */
export const enum Kind {
  Message = 0,
  Row = 1,
  Recipients = 2,
  AckDone = 3,
  Receipt = 4,
  RequestDone = 5,
  Told = 6,
  Completed = 7,
  ToServer = 8,
  Asked = 9,
  Answered = 10,
  Called = 11,
  Aborted = 12,
  Function = 13,
  Released = 14,
  Forgotten = 15,
  Edited = 16,
  Happened = 17,
}

/** Bits beside the kind; the low two are the content type. @internal */
export const enum Flag {
  ContentType = 0b11,
  Delivery = 1 << 2,
  Request = 1 << 3,
  Duplicate = 1 << 4,
  Large = 1 << 5,
  Payload = 1 << 6,
  Failed = 1 << 7,
  LargeExtras = 1 << 8,
  Retained = 1 << 9,
  Special = 1 << 10,
  Caller = 1 << 11,
  Heard = 1 << 12,
  Hook = 1 << 13,
}

/** How a slab is written. */
const enum How {
  /** None of its names are known yet. */
  Fresh = 1,
  /** Only what concerns calls. */
  Calls = 2,
}

/** A record's integers. @internal */
export const enum Int {
  KindAndFlags,
  Client,
  Sub,
  Name,
  Sender,
  Start,
  End,
  Attempt,
  Extras,
  ExtrasLength,
}

/** A record's floats. @internal */
export const enum Float {
  Seq = 5,
  Number,
  Time,
  Delivery,
  Epoch,
}

/** Memory that batches are written into, until it is full; messages read their fields from it. */
class Slab {
  readonly bytes = Buffer.allocUnsafeSlow(SLAB);
  readonly ints = new Int32Array(this.bytes.buffer);
  readonly floats = new Float64Array(this.bytes.buffer);
  head = 0;
  tail = SLAB;

  /** What the numbers of names stand for. Older slabs keep theirs when the table starts anew. */
  constructor(public names: string[]) {}
}

/** The records of one drain. @internal */
export class Batch {
  private text: string | undefined;

  constructor(
    private readonly slab: Slab,
    /** The first record's number in the slab. */
    readonly first: number,
    readonly count: number,
    private readonly start: number,
    private readonly end: number,
    private readonly ascii: boolean,
    private readonly large: readonly Buffer[],
    readonly more: boolean,
  ) {}

  int(record: number, field: Int): number {
    return this.slab.ints[record * INTS + field]!;
  }

  float(record: number, field: Float): number {
    return this.slab.floats[record * FLOATS + field]!;
  }

  kind(record: number): Kind {
    return this.int(record, Int.KindAndFlags) & 0xff;
  }

  flag(record: number, flag: Flag): boolean {
    return ((this.int(record, Int.KindAndFlags) >> 8) & flag) !== 0;
  }

  contentType(record: number): number {
    return (this.int(record, Int.KindAndFlags) >> 8) & Flag.ContentType;
  }

  /** The name with this number. */
  name(number: number): string {
    return this.slab.names[number]!;
  }

  /** One of the buffers that came beside the slab. */
  largeAt(index: number): Buffer {
    return this.large[index]!;
  }

  payload(record: number): Buffer {
    const start = this.int(record, Int.Start);
    if (this.flag(record, Flag.Large)) return this.large[start]!;
    return this.slab.bytes.subarray(start, this.int(record, Int.End));
  }

  payloadText(record: number): string {
    const start = this.int(record, Int.Start);
    if (this.flag(record, Flag.Large)) return this.large[start]!.toString();
    const end = this.int(record, Int.End);
    if (!this.ascii) return this.slab.bytes.toString("utf8", start, end);
    // One decoding for the whole batch; a part of the text costs next to nothing.
    this.text ??= this.slab.bytes.toString("latin1", this.start, this.end);
    return this.text.slice(start - this.start, end - this.start);
  }

  extras(record: number): string {
    const start = this.int(record, Int.Extras);
    if (this.flag(record, Flag.LargeExtras)) return this.large[start]!.toString();
    return this.slab.bytes.toString("utf8", start, start + this.int(record, Int.ExtrasLength));
  }
}

/** Takes batches from the native side. @internal */
export class Slabs {
  private slab = new Slab([]);
  private fresh: How.Fresh | 0 = How.Fresh;
  private readonly news: [string[]?, Buffer[]?] = [];

  constructor(private readonly hot: Hot) {}

  /** The next batch; empty if nothing waits. `calls`: only what concerns calls. */
  drain(calls: boolean): Batch {
    const only = calls ? How.Calls : 0;
    let slab = this.slab;
    let packed = this.hot.drain(slab.bytes, slab.head, slab.tail, this.fresh | only, this.news);
    if (((packed >> 17) & 0x3ff) === 0 && (packed & (1 << 27)) !== 0) {
      slab = this.slab = new Slab(slab.names);
      packed = this.hot.drain(slab.bytes, 0, SLAB, How.Fresh | only, this.news);
    }
    const tail = packed & 0x1ffff;
    const count = (packed >> 17) & 0x3ff;
    if ((packed & (1 << 29)) !== 0) slab.names = [];
    this.fresh = 0;
    let large: readonly Buffer[] = [];
    if (this.news.length > 0) {
      slab.names.push(...this.news[0]!);
      large = this.news[1]!;
      this.news.length = 0;
    }
    const first = slab.head / RECORD;
    const batch = new Batch(slab, first, count, tail, slab.tail, (packed & (1 << 28)) !== 0, large, (packed & (1 << 27)) !== 0);
    slab.head += count * RECORD;
    slab.tail = tail;
    return batch;
  }
}
