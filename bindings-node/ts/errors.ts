/** What went wrong, as programs match on it; the same codes in every language. */
export type ErrorCode =
  | "internal"
  | "timeout"
  | "not_connected"
  | "closed"
  | "connect_failed"
  | "unauthorized"
  | "payload_too_large"
  | "invalid_topic"
  | "invalid_argument"
  | "invalid_payload"
  | "outbox_full"
  | "id_in_use"
  | "replaced"
  | "receipt_unavailable"
  | "no_responders"
  | "slow_consumer"
  | "would_deadlock"
  | "limit_exceeded"
  | "protocol"
  | "unsupported"
  | "cancelled"
  | "handler_failed"
  | "disconnected"
  | "not_found"
  | "not_registered"
  | "unknown_action"
  | "forbidden_origin"
  | "forbidden_address"
  | "bind_failed"
  | "session_lost"
  | "store_failed"
  | "store_corrupt"
  | "unknown_capability"
  | "unknown_operation"
  | "unavailable"
  | "conflict"
  | "too_large"
  | "quota_exceeded";

/** An error of kps: match on `code`; `message` says what to do. */
export class KpsError extends Error {
  /** What went wrong. */
  readonly code: ErrorCode;
  /** Whether the same call of a capability may succeed later. */
  readonly retry: boolean;
  /** The field of a call's payload that is wrong. */
  readonly field?: string;

  constructor(code: ErrorCode, message: string, more: { retry?: boolean; field?: string } = {}) {
    super(message);
    this.code = code;
    this.retry = more.retry ?? false;
    if (more.field !== undefined) this.field = more.field;
  }

  override get name(): string {
    return "KpsError";
  }
}

/** What core tells of an error. @internal */
export interface Failure {
  code: string;
  message: string;
  retry?: boolean;
  field?: string;
}

/** @internal */
export function failed({ code, message, ...more }: Failure): KpsError {
  return new KpsError(code as ErrorCode, message, more);
}

/** What the native module threw, as a `KpsError`. @internal */
export function thrown(error: unknown): unknown {
  const { code, message } = error as Failure;
  // Core's codes are lower case; Node-API's own are not.
  return /^[a-z_]+$/.test(code) ? failed({ code, message }) : error;
}

/** Runs `call` of the native module; its errors become `KpsError`s. @internal */
export function native<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw thrown(error);
  }
}
