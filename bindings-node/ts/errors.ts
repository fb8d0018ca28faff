import type { DocumentConflict, DocumentRejected } from "./document-types";

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

/** Why an operation is not in its document; what programs match on besides. */
export type DocumentErrorCode =
  | "invalid_operation"
  | "wrong_kind"
  | "position_out_of_range"
  | "anchor_not_found"
  | "anchor_not_unique"
  | "invalid_patch"
  | "test_failed"
  | "too_deep"
  | "operation_too_large"
  | "too_many_edits"
  | "document_too_large"
  | "op_id_reused"
  | "skipped"
  | "nothing_to_undo"
  | "undo_conflict"
  | "too_many_pending";

/** An error of kps: match on `code`; `message` says what to do. */
export class KpsError extends Error {
  /** What went wrong. */
  readonly code: ErrorCode | DocumentErrorCode;
  /** Whether the same call of a capability may succeed later. */
  readonly retry: boolean;
  /** The field of a call's payload that is wrong. */
  readonly field?: string;
  /** Of an operation that is not in its document: what the server told of it. A conflict has what was missed. */
  declare readonly event?: DocumentConflict | DocumentRejected;

  constructor(code: ErrorCode | DocumentErrorCode, message: string, more: More = {}) {
    super(message);
    this.code = code;
    this.retry = more.retry ?? false;
    if (more.field !== undefined) this.field = more.field;
    if (more.event !== undefined) this.event = more.event;
  }

  override get name(): string {
    return "KpsError";
  }
}

/** What an error may have besides. */
interface More {
  retry?: boolean;
  field?: string;
  event?: DocumentConflict | DocumentRejected;
}

/** What core tells of an error. @internal */
export interface Failure {
  code: string;
  message: string;
  retry?: boolean;
  field?: string;
  event?: DocumentConflict | DocumentRejected;
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
