import { CONTENT_TYPES } from "./message";
import { readData } from "./row";
import { type Batch, Int, Kind } from "./slab";
import type { Json } from "./json";
import type { ContentType } from "./types";

/** A server's events of messages that are not its own client's. @internal */
export const TO_ID = "a message to an id";
/** @internal */
export const TO_SERVER = "a message to the server";

/** A message that a server sees on its way: to another client's id, or to the server itself. */
export class Overheard<T = any> {
  /** @internal */
  constructor(
    private readonly batch: Batch,
    private readonly record: number,
    private readonly json: Json,
  ) {}

  /** Who sent it. */
  get sender(): string {
    return this.batch.name(this.batch.int(this.record, Int.Sender));
  }

  /** The id it goes to; empty when it goes to the server itself. */
  get to(): string {
    return this.batch.kind(this.record) === Kind.ToId ? this.batch.name(this.batch.int(this.record, Int.Name)) : "";
  }

  /** The payload as a value. */
  get data(): T {
    return readData(this.batch, this.record, this.json) as T;
  }

  /** The payload's bytes. */
  get raw(): Buffer {
    return this.batch.payload(this.record);
  }

  /** How the payload's bytes are to be read. */
  get contentType(): ContentType {
    return CONTENT_TYPES[this.batch.contentType(this.record)]!;
  }
}
