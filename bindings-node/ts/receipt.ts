import type { Hold } from "./alive";
import { KpsError } from "./errors";
import type { ReceiptLevel } from "./types";

const QUEUED: Promise<ReceiptLevel> = Promise.resolve("queued");

/** Refusals remembered for receipts that may yet be awaited. */
const REMEMBERED = 1024;

/** What one receipt waits for when it is awaited. */
const enum Wants {
  Nothing,
  Room,
  Level,
}

/**
 * What `publish` returns. Await it or ignore it: a promise is made only when somebody asks.
 * Resolves to the level reached: the one asked for, else `queued` as soon as the outbox has room.
 */
export class Receipt implements PromiseLike<ReceiptLevel> {
  private promise: Promise<ReceiptLevel> | undefined;
  private outcome: ReceiptLevel | KpsError | undefined;
  private settle: ((outcome: ReceiptLevel | KpsError) => void) | undefined;

  /** @internal */
  constructor(
    private readonly receipts: Receipts,
    /** @internal */
    readonly _number: number,
    private readonly wants: Wants,
    private readonly ownId: string | undefined,
  ) {}

  /** The message's id. */
  get id(): string {
    return this.ownId ?? this.receipts.messageId(this._number);
  }

  /** Starts waiting; see the class. */
  then<A = ReceiptLevel, B = never>(
    fulfilled?: ((level: ReceiptLevel) => A | PromiseLike<A>) | null,
    rejected?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.promise ??= this.start();
    return this.promise.then(fulfilled, rejected);
  }

  /** @internal */
  get _wantsLevel(): boolean {
    return this.wants === Wants.Level;
  }

  /** @internal */
  _settle(outcome: ReceiptLevel | KpsError): void {
    this.outcome = outcome;
    this.settle?.(outcome);
  }

  private start(): Promise<ReceiptLevel> {
    const outcome = this.outcome ?? this.receipts.refusal(this._number);
    if (outcome instanceof KpsError) return Promise.reject(outcome);
    if (outcome !== undefined) return Promise.resolve(outcome);
    if (this.wants === Wants.Nothing) return QUEUED;
    const { hold, crowd, ended } = this.receipts;
    if (ended !== undefined) return Promise.reject(ended);
    if (this.wants === Wants.Room) {
      if (this.receipts.hasRoom()) return QUEUED;
      crowd.set(this._number, this);
    }
    hold.hold();
    return new Promise((resolve, reject) => {
      this.settle = (settled) => {
        hold.release();
        this.settle = undefined;
        if (settled instanceof KpsError) reject(settled);
        else resolve(settled);
      };
    });
  }
}

/** What became of a client's publishes, for the receipts that want to know. @internal */
export class Receipts {
  /** Awaited receipts that wait for room. */
  readonly crowd = new Map<number, Receipt>();
  /** Why nothing more will be told. */
  ended: KpsError | undefined;
  private readonly watched = new Map<number, Receipt>();
  private readonly refused = new Map<number, KpsError>();

  constructor(
    readonly hold: Hold,
    readonly messageId: (number: number) => string,
    /** Whether the outbox is below its soft bound; if not, `room` is called once. */
    readonly hasRoom: () => boolean,
  ) {}

  /** The receipt of what was just published; `number` is negative above the soft bound. */
  make(number: number, level?: ReceiptLevel | null, ownId?: string | null): Receipt {
    const wants = level ? Wants.Level : number < 0 ? Wants.Room : Wants.Nothing;
    const receipt = new Receipt(this, Math.abs(number), wants, ownId ?? undefined);
    if (level || ownId) this.watched.set(receipt._number, receipt);
    return receipt;
  }

  refusal(number: number): KpsError | undefined {
    return this.refused.get(number);
  }

  reached(number: number, level: ReceiptLevel): void {
    const receipt = this.watched.get(number);
    this.watched.delete(number);
    if (receipt?._wantsLevel) receipt._settle(level);
  }

  refuse(number: number, error: KpsError): void {
    const receipt = this.watched.get(number) ?? this.crowd.get(number);
    this.watched.delete(number);
    this.crowd.delete(number);
    this.refused.set(number, error);
    if (this.refused.size > REMEMBERED) this.refused.delete(this.refused.keys().next().value!);
    receipt?._settle(error);
  }

  room(): void {
    const crowd = [...this.crowd.values()];
    this.crowd.clear();
    for (const receipt of crowd) receipt._settle("queued");
  }

  /** The client is closed: nothing more will be told. */
  end(error: KpsError): void {
    this.ended = error;
    for (const receipt of [...this.crowd.values(), ...this.watched.values()]) receipt._settle(error);
    this.crowd.clear();
    this.watched.clear();
  }
}
