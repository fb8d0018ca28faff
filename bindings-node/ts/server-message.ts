import type { Json } from "./json";
import { CONTENT_TYPES } from "./message";
import { readData } from "./row";
import { type Batch, Int } from "./slab";
import type { ContentType } from "./types";

/** The name of the event that carries them. @internal */
export const SERVER_MESSAGE = "server_message";

/** What another server sent to this one. */
export class ServerMessage<T = any> {
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
