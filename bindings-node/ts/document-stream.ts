import * as check from "./check";
import type { Document } from "./document";
import { settled, whole } from "./document-values";
import { environment } from "./environment";
import { native } from "./errors";

/** A text that is written bit by bit. `document.stream()` makes one. */
export class DocumentStream implements AsyncDisposable {
  /** @internal */
  constructor(
    /** Where it writes. */
    readonly document: Document,
    private readonly number: number,
  ) {
    unwritten.register(this, number);
  }

  /** Writes more; throws why something that was written before is not in the document. */
  write(token: string): void {
    check.string("token", token);
    whole("token", token);
    settled(native(() => environment.bridge.writeStream(this.number, token)) ?? "");
  }

  /** Sends what is left and resolves to the version that has all of it; `null` if nothing was written. */
  async close(): Promise<string | null> {
    return await environment.call<string | null>((token) => environment.bridge.closeStream(this.number, token));
  }

  /** Closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Streams that nobody has any more. */
const unwritten = new FinalizationRegistry<number>((number) => environment.bridge.dropStream(number));
