import { inspect } from "node:util";
import { type ErrorCode, KpsError } from "./errors";

/** Why a call failed. */
export interface CallError {
  /** What programs match on. */
  code: ErrorCode;
  /** What happened and what to do. */
  message: string;
  /** Whether the same call may succeed later. */
  retry: boolean;
  /** The field of the payload that is wrong. */
  field?: string;
  /** The type of what the provider's own code threw. */
  type?: string;
  /** Where it was thrown, if the provider debugs. */
  traceback?: string;
}

/** A response as it travels. */
export interface Envelope {
  id: string;
  status: "ok" | "error";
  data?: any;
  error?: CallError;
  /** Milliseconds. */
  duration: number;
  attempts: number;
  provider?: string;
}

/** What became of a call. */
export class Response<T = any> {
  /** The call's id; empty if it was not made. */
  readonly id: string;
  readonly status: "ok" | "error";
  /** What the operation answered; `undefined` if it failed. */
  readonly data: T;
  /** Why it failed; `null` if it did not. */
  readonly error: CallError | null;
  /** Milliseconds from the call to its end. */
  readonly duration: number;
  /** How many attempts it took. */
  readonly attempts: number;
  /** The client that answered; `null`: this process. */
  readonly provider: string | null;

  /** @internal */
  constructor(envelope: Envelope) {
    this.id = envelope.id;
    this.status = envelope.status;
    this.data = envelope.data as T;
    this.error = envelope.error ?? null;
    this.duration = envelope.duration;
    this.attempts = envelope.attempts;
    this.provider = envelope.provider ?? null;
  }

  /** Whether the operation did what it should. */
  get ok(): boolean {
    return this.error === null;
  }

  /** The answer. Throws a `KpsError` with the failure's `code`, `retry` and `field` if there is none. */
  unwrap(): T {
    if (this.error === null) return this.data;
    const { code, message, retry, field } = this.error;
    throw new KpsError(code, message, { retry, ...(field === undefined ? {} : { field }) });
  }

  /** The envelope. */
  toJSON(): Envelope {
    const { id, status, data, error, duration, attempts, provider } = this;
    return {
      id,
      status,
      ...(error === null ? { data } : { error }),
      duration,
      attempts,
      ...(provider === null ? {} : { provider }),
    };
  }

  /** @internal */
  [inspect.custom](): string {
    const what = this.error === null ? inspect(this.data) : `${this.error.code}: ${this.error.message}`;
    return `Response(${this.status}, ${what})`;
  }
}

/** The response to a call that was not made, or not to its end. @internal */
export function refused(code: ErrorCode, message: string, more: { field?: string; duration?: number; attempts?: number } = {}): Response {
  const { field, duration = 0, attempts = 0 } = more;
  const error: CallError = { code, message, retry: false, ...(field === undefined ? {} : { field }) };
  return new Response({ id: "", status: "error", error, duration, attempts });
}
