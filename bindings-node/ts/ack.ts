import type { Client } from "./client";
import type { KpsError } from "./errors";
import { type KpsRow, kpsRow, kpsRows } from "./kps";
import type { AckRow } from "./types";

/** What an acknowledged publish brings: one row per recipient, frozen when the broker took the message. */
export class Ack implements AsyncIterable<AckRow> {
  private readonly rows: AckRow[] = [];
  /** Unknown until the server has told. */
  private recipients: readonly string[] | undefined;
  private held = true;
  private done = false;
  private error: KpsError | undefined;
  private cancelled = false;
  private changed: (() => void)[] = [];

  /** @internal */
  constructor(
    private readonly client: Client,
    private readonly number: number,
    private readonly ownId?: string | null,
  ) {
    client._hold.hold();
  }

  /** The message's id. */
  get id(): string {
    return this.ownId ?? this.client._messageId(this.number);
  }

  /**
   * All rows by client id, when all are final. Rows of recipients that never answered say so.
   * Rejects if the message was refused or never reached the broker.
   */
  async wait(): Promise<Record<string, AckRow>> {
    while (!this.done) await this.change();
    if (this.error !== undefined) throw this.error;
    return Object.fromEntries(this.rows.map((row) => [row.clientId, row]));
  }

  /** The first row to become final; `null` if there is no recipient. */
  async waitAny(): Promise<AckRow | null> {
    while (!this.done && this.rows.length === 0) await this.change();
    if (this.error !== undefined) throw this.error;
    return this.rows[0] ?? null;
  }

  /** By client id whether it acked, as far as is known now. */
  status(): Record<string, boolean> {
    const status = Object.fromEntries((this.recipients ?? []).map((id) => [id, false]));
    for (const row of this.rows) status[row.clientId] = row.success;
    return status;
  }

  /** Whether all rows are final. */
  isComplete(): boolean {
    return this.done;
  }

  /** Stops waiting. Recipients at work are told; rows not yet final become `cancelled`. */
  cancel(): void {
    if (this.done) return;
    this.cancelled = true;
    this.client._cancelAck(this.number);
    this.tell();
  }

  /** Lets the process end while this ack is pending. */
  unref(): this {
    this.release();
    return this;
  }

  /** The rows as they become final. */
  async *[Symbol.asyncIterator](): AsyncGenerator<AckRow, void, undefined> {
    for (let next = 0; ; next++) {
      while (next === this.rows.length && !this.done) await this.change();
      if (next === this.rows.length) {
        if (this.error !== undefined) throw this.error;
        return;
      }
      yield this.rows[next]!;
    }
  }

  /** KPS' name for `id`. */
  get ID(): string {
    return this.id;
  }

  /** KPS' form of `wait`: empty after timeout or cancel. */
  async Wait(): Promise<Record<string, KpsRow>> {
    await this.wait().catch(() => {});
    return this.cancelled ? {} : kpsRows(this.id, this.rows);
  }

  /** KPS' form of `waitAny`. */
  async WaitAny(): Promise<{ response: KpsRow | Record<string, never>; success: boolean }> {
    const row = await this.waitAny().catch(() => null);
    const answered = row !== null && !this.cancelled && row.status !== "timeout";
    return answered ? { response: kpsRow(this.id, row), success: true } : { response: {}, success: false };
  }

  /** KPS' form of `status`, as the server knows it; empty after a cancel. */
  async GetStatus(): Promise<Record<string, boolean>> {
    while (this.recipients === undefined && !this.done && !this.cancelled) await this.change();
    return this.cancelled ? {} : this.status();
  }

  /** KPS' form of `isComplete`: false while there is no recipient. */
  async IsComplete(): Promise<boolean> {
    const status = Object.values(await this.GetStatus());
    return status.length > 0 && status.every(Boolean);
  }

  /** KPS' name for `cancel`. */
  Cancel(): void {
    this.cancel();
  }

  /** @internal */
  _recipients(clients: readonly string[]): void {
    this.recipients = clients;
    this.tell();
  }

  /** @internal */
  _row(row: AckRow): void {
    this.rows.push(row);
    this.tell();
  }

  /** No more rows come. @internal */
  _end(error?: KpsError): void {
    this.done = true;
    this.error = error;
    this.release();
    this.tell();
  }

  private change(): Promise<void> {
    return new Promise((resolve) => this.changed.push(resolve));
  }

  private tell(): void {
    const changed = this.changed;
    if (changed.length === 0) return;
    this.changed = [];
    for (const resolve of changed) resolve();
  }

  private release(): void {
    if (!this.held) return;
    this.held = false;
    this.client._hold.release();
  }
}
