import type { Document } from "./document";
import type { Edited } from "./document-types";
import { type Failure, failed } from "./errors";

/**
 * What `document.edit` returns. Await it or ignore it: a promise is made only when somebody asks. Resolves to what the
 * server made of the operation.
 */
export class EditReceipt implements PromiseLike<Edited> {
  private promise: Promise<Edited> | undefined;
  private outcome: string | undefined;
  private settle: ((outcome: string) => void) | undefined;

  /** @internal */
  constructor(
    private readonly document: Document,
    /** The operation. */
    readonly opId: string,
  ) {}

  /** Starts waiting; see the class. */
  then<A = Edited, B = never>(
    fulfilled?: ((edited: Edited) => A | PromiseLike<A>) | null,
    rejected?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.promise ??= this.start();
    return this.promise.then(fulfilled, rejected);
  }

  /** @internal */
  _settle(outcome: string): void {
    this.outcome = outcome;
    this.settle?.(outcome);
  }

  private async start(): Promise<Edited> {
    const { _hold: hold, _json: json } = this.document._client;
    if (this.outcome === undefined) {
      hold.hold();
      await new Promise<string>((resolve) => (this.settle = resolve));
      hold.release();
    }
    const { ok, error } = json.decode(this.outcome!) as { ok?: Edited; error?: Failure };
    if (error !== undefined) throw failed(error);
    return ok!;
  }
}
