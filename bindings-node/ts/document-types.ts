/** What a document is made of. */
export type DocumentKind = "text" | "json" | "yjs";

/** Text before a code point, or before or after a text that is there once. */
export type InsertEdit =
  | { type: "insert"; position: number; text: string }
  | { type: "insert"; before: string; text: string }
  | { type: "insert"; after: string; text: string };

/** `length` code points from `position` on, or the text `anchor`, which is there once, go. */
export type DeleteEdit = { type: "delete"; position: number; length: number } | { type: "delete"; anchor: string };

/** Text in the place of what a `delete` would remove. */
export type ReplaceEdit =
  | { type: "replace"; position: number; length: number; text: string }
  | { type: "replace"; anchor: string; text: string };

/** Text at the end. */
export interface AppendEdit {
  type: "append";
  text: string;
}

/** One step of a JSON Patch. */
export interface JsonPatchStep {
  op: "add" | "remove" | "replace" | "move" | "copy" | "test";
  /** A JSON Pointer, RFC 6901. */
  path: string;
  from?: string;
  value?: unknown;
}

/** JSON Patch, RFC 6902. */
export interface PatchEdit {
  type: "patch";
  patch: readonly JsonPatchStep[];
}

/** JSON Merge Patch, RFC 7396. */
export interface MergeEdit {
  type: "merge";
  merge: unknown;
}

/** One edit. Positions and lengths count Unicode code points, as `[...text]` does, not `text.length`. */
export type Edit = InsertEdit | DeleteEdit | ReplaceEdit | AppendEdit | PatchEdit | MergeEdit;

/** `applied`: it is in the server's memory. `checkpointed`: it is stored. */
export type DocumentLevel = "applied" | "checkpointed";

/** An operation that is in its document. */
export interface Edited {
  opId: string;
  version: string;
  level: DocumentLevel;
}

/** An operation of a document, as `document.versions` lists it. */
export interface DocumentOperation {
  version: string;
  opId: string;
  author: string;
  /** Milliseconds since the Unix epoch. */
  time: number;
  /** The operations that it took back. */
  undoes?: string[];
}

/** Operations of a document, the newest first. */
export interface DocumentVersions {
  id: string;
  version: string;
  /** The earliest version that can be read. */
  oldest: string;
  versions: DocumentOperation[];
}

/** Somebody who is at a document, and what it tells of itself. */
export interface Present {
  client: string;
  author: string;
  /** `cursor`, and `selection` with its two ends, are code points in the text as it is here. */
  state: Record<string, any>;
}

/** How a document is opened. */
export interface OpenDocumentOptions {
  /**
   * What it is made of; one that there is already is of this kind.
   * @default "text"
   */
  kind?: "text" | "json";
  /** Who edits: the client's id, unless told. */
  author?: string | null;
  /**
   * Whether an edit that others were faster than is moved over theirs and sent again. If not, it fails with `conflict`, and
   * what it missed.
   * @default true
   */
  rebase?: boolean;
  /**
   * How often one edit is sent again at most.
   * @default 100
   */
  rebases?: number;
  /**
   * How long opening it may take, and each question to the server; milliseconds.
   * @default 5000
   */
  timeout?: number;
}

/** How a Yjs document is opened; `rebase` and `rebases` say nothing there. */
export interface OpenYjsOptions extends Omit<OpenDocumentOptions, "kind"> {
  kind: "yjs";
}

/** What an edit of a Yjs document may say. */
export interface YjsEditOptions {
  /**
   * The text that is edited.
   * @default "text"
   */
  root?: string;
}

/** How `document.stream` writes; at most one of `position`, `before` and `after` says where it begins: at the end. */
export interface DocumentStreamOptions {
  /** Before this code point. */
  position?: number | null;
  /** Before a text that is there once. */
  before?: string | null;
  /** After a text that is there once. */
  after?: string | null;
  /**
   * What is written within this time, in milliseconds, goes into one operation.
   * @default 50
   */
  flushEvery?: number;
  /**
   * As soon as so many bytes wait, they are sent in any case.
   * @default 8192
   */
  flushBytes?: number;
}

/** What `document.versions` lists. */
export interface DocumentVersionsOptions {
  /** Only operations before this version. */
  before?: string | number | null;
  /**
   * At most so many, up to 1,000.
   * @default 100
   */
  limit?: number;
}

/** `[at, deleted, inserted]`: so many code points go at a place, and a text comes there. */
export type Splice = [at: number, deleted: number, inserted: string];

/** One step of a change of JSON. */
export type JsonChange = { patch: JsonPatchStep[] } | { merge: unknown };

/** An operation that was applied, as events tell of it. */
export interface AppliedOperation {
  op_id: string;
  author: string;
  version: string;
  /** Milliseconds since the Unix epoch. */
  time: number;
  /** The operations that it took back. */
  undoes?: string[];
  /** Of text: done one after the other. */
  splices?: Splice[];
  /** Of JSON: done one after the other. */
  changes?: JsonChange[];
}

interface Told<E extends string> {
  event: E;
  /** The document. */
  id: string;
}

/** Somebody's operation was applied: this is what changed. */
export interface DocumentChange extends Told<"change">, AppliedOperation {
  /** The version before. */
  previous: string;
}

/** Somebody's operation is in the document; told a second time when it is stored. */
export interface DocumentAck extends Told<"ack"> {
  op_id: string;
  author: string;
  version: string;
  level: DocumentLevel;
}

/** Somebody's operation was not applied: others were faster. */
export interface DocumentConflict extends Told<"conflict"> {
  op_id: string;
  author: string;
  base_version: string;
  server_version: string;
  /** What it missed, if that is still known; else the content, if it is not too large. */
  missing_ops?: AppliedOperation[];
  text?: string;
  value?: any;
}

/** Somebody's operation was not applied and never will be. */
export interface DocumentRejected extends Told<"rejected"> {
  op_id: string;
  author: string;
  /** Why. */
  code: string;
  message: string;
  version: string;
}

/** Everything up to a version is stored. */
export interface DocumentCheckpoint extends Told<"checkpoint"> {
  version: string;
  level: DocumentLevel;
}

/** The store does not take what was applied: it is kept in memory and tried again. */
export interface DocumentStoreFailed extends Told<"store_failed"> {
  /** What is stored. */
  version: string;
  code: string;
  message: string;
}

/** Somebody said who and where it is; `null`: it has left. */
export interface DocumentPresence extends Told<"presence"> {
  client: string;
  author: string;
  state: Record<string, any> | null;
}

/** An own operation was given up. */
export interface DocumentFailed extends Told<"failed"> {
  op_id: string;
  code: string;
  message: string;
}

/** Events were missed; the content is right again. */
export interface DocumentGap extends Told<"gap"> {
  reason: string;
  count?: number | null;
  version?: string;
}

/** None were, though the connection was lost. */
export interface DocumentResumed extends Told<"resumed"> {
  [field: string]: unknown;
}

/** A Yjs document has changed. */
export interface YjsUpdate extends Told<"update"> {
  /** Where: `client` is an edit of this handle, `program` is `applyUpdate`. */
  origin: "server" | "client" | "program";
  /** The update, in base64. */
  update: string;
}

/** It was closed: nothing more comes. */
export interface DocumentClosed extends Told<"closed"> {
  code: string;
  message: string;
}

/** Arguments of the handlers of `document.on`, by event. What the server tells is read from the very bytes that it sent. */
export interface DocumentEvents {
  change: [event: DocumentChange];
  ack: [event: DocumentAck];
  conflict: [event: DocumentConflict];
  rejected: [event: DocumentRejected];
  checkpoint: [event: DocumentCheckpoint];
  store_failed: [event: DocumentStoreFailed];
  presence: [event: DocumentPresence];
  failed: [event: DocumentFailed];
  gap: [event: DocumentGap];
  resumed: [event: DocumentResumed];
  closed: [event: DocumentClosed];
  /** Of Yjs documents alone. */
  update: [event: YjsUpdate];
  /** Every one of them, and those that newer servers tell. */
  "*": [event: DocumentEvent];
}

/** Something that happened to a document. */
export type DocumentEvent =
  | DocumentChange
  | DocumentAck
  | DocumentConflict
  | DocumentRejected
  | DocumentCheckpoint
  | DocumentStoreFailed
  | DocumentPresence
  | DocumentFailed
  | DocumentGap
  | DocumentResumed
  | DocumentClosed
  | YjsUpdate;

/** The name of one of a document's events. */
export type DocumentEventName =
  | "change"
  | "ack"
  | "conflict"
  | "rejected"
  | "checkpoint"
  | "store_failed"
  | "presence"
  | "failed"
  | "gap"
  | "resumed"
  | "closed"
  | "update";
