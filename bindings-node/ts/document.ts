import { inspect } from "node:util";
import * as check from "./check";
import type { Client } from "./client";
import type {
  DocumentKind,
  DocumentOperation,
  DocumentStreamOptions,
  DocumentVersions,
  DocumentVersionsOptions,
  Edit,
  Edited,
  JsonPatchStep,
} from "./document-types";
import { DocumentStream } from "./document-stream";
import { settled, whole, written } from "./document-values";
import { EditReceipt } from "./edit-receipt";
import { environment } from "./environment";
import { KpsError } from "./errors";
import { type About, LiveDocument } from "./live-document";

/**
 * An open document. `await client.openDocument(id)` makes one.
 *
 * What is edited is in `text`, or `value`, at once, also without a connection, and goes to the server in this order.
 * What others do comes in by itself; `on` tells of it. Positions count Unicode code points, as `[...text]` does. It is
 * left when it is closed, or when nobody holds it and no handler listens.
 */
export class Document extends LiveDocument {
  /** What it is made of. */
  readonly kind: DocumentKind;

  /** @internal */
  constructor(client: Client, about: About) {
    super(client, about);
    this.kind = about.kind;
  }

  /** The text, with what was edited here. */
  get text(): string {
    if (this.kind !== "text") throw new KpsError("wrong_kind", "the document is JSON: it has a value and no text");
    return this.ask((bridge) => bridge.content(this._number));
  }

  /** The JSON, with what was edited here. */
  get value(): any {
    if (this.kind !== "json") throw new KpsError("wrong_kind", "the document is text: it has a text and no value");
    return this._client._json.decode(this.ask((bridge) => bridge.content(this._number)));
  }

  /**
   * Edits, here at once; a list of edits is done together, wholly or not at all.
   *
   * Positions are those of the text at this moment. What others do comes in beside this thread, between any two lines and
   * in handlers too: a position that was read before, such as the length of `text`, may be another place by now, or throw
   * `position_out_of_range`. `append`, a stream, and edits with `before`, `after` or `anchor` are looked up and done in one
   * step.
   *
   * Throws if it does not fit what is here; `code` says why. What is returned says, when awaited, what the server made of
   * it, and rejects with why it is not in the document: with `conflict` if others were faster and it is not to be rebased,
   * and with what was missed in `event`. It may be left out.
   */
  edit(edit: Edit | readonly Edit[]): EditReceipt {
    const { text, parts } = written("edit", edit);
    const operation = environment.documents.number();
    const opId = settled(this.ask((bridge) => bridge.edit(this._number, operation, text, parts)));
    return this.receipt(operation, opId);
  }

  /** `text` before this code point of the text as it is now; `edit` says how to be sure of the place. */
  insert(position: number, text: string): EditReceipt {
    return this.edit({ type: "insert", position, text });
  }

  /** Removes `length` code points from `position` on. */
  delete(position: number, length: number): EditReceipt {
    return this.edit({ type: "delete", position, length });
  }

  /** `text` in the place of `length` code points from `position` on. */
  replace(position: number, length: number, text: string): EditReceipt {
    return this.edit({ type: "replace", position, length, text });
  }

  /** `text` in the place of `anchor`, which is in the document once. */
  replaceText(anchor: string, text: string): EditReceipt {
    return this.edit({ type: "replace", anchor, text });
  }

  /** `text` at the end. */
  append(text: string): EditReceipt {
    return this.edit({ type: "append", text });
  }

  /** Changes JSON as RFC 6902 says. */
  patch(patch: readonly JsonPatchStep[]): EditReceipt {
    return this.edit({ type: "patch", patch });
  }

  /** Changes JSON as RFC 7396 says. */
  merge(merge: unknown): EditReceipt {
    return this.edit({ type: "merge", merge });
  }

  /** Several operations, one after the other: all of them fit what is here, or none is done. */
  editBatch(operations: Iterable<Edit | readonly Edit[]>): EditReceipt[] {
    const all = [...operations];
    const { text, parts } = written("operations", all);
    const first = environment.documents.number(all.length);
    const opIds = settled(this.ask((bridge) => bridge.editBatch(this._number, first, text, parts)));
    return (JSON.parse(opIds) as string[]).map((opId, index) => this.receipt(first + index, opId));
  }

  /**
   * Takes back one's own last operations, up to 100, in one; what others wrote stays. Rejects with `nothing_to_undo`,
   * `undo_conflict`.
   */
  undo(count: number = 1): Promise<Edited> {
    return this.call((bridge, token) => {
      check.whole("count", count, 1);
      bridge.undo(this._number, token, count);
    });
  }

  /** The text, or the value, that a version had; rejects with `not_found` if that is not kept any more. */
  async at(version: string | number): Promise<any> {
    const wanted = versionOf("version", version);
    const content = await this.call<string>((bridge, token) => bridge.at(this._number, token, wanted));
    return this.kind === "text" ? content : this._client._json.decode(content);
  }

  /** The operations that are kept, the newest first. */
  async versions(options: DocumentVersionsOptions = {}): Promise<DocumentVersions> {
    check.options({ limit: options.limit }, { limit: "number" });
    const { before, limit = 100 } = options;
    check.whole("limit", limit, 1);
    const until = before === undefined || before === null ? undefined : versionOf("before", before);
    const { versions, ...rest } = await this.call<DocumentVersions>((bridge, token) => bridge.versions(this._number, token, until, limit));
    return { ...rest, versions: versions.map(operation) };
  }

  /** Has the server forget all operations but the last `keep`, not what they did. */
  async compact(keep: number = 0): Promise<void> {
    check.whole("keep", keep, 0);
    await this.call((bridge, token) => bridge.compact(this._number, token, keep));
  }

  /**
   * Writes text bit by bit: `const stream = document.stream(); stream.write(token); await stream.close()`.
   *
   * It begins at the end, or where it is told; what is written comes after what was written before, in one piece,
   * whatever others do. What is written within `flushEvery` milliseconds, or until the server has what was written
   * before, becomes one operation; and so does what has `flushBytes`.
   */
  stream(options: DocumentStreamOptions = {}): DocumentStream {
    check.options(options, STREAM);
    const { position, before, after, flushBytes, ...rest } = check.given(options);
    const places = [position, before, after].filter((place) => place !== undefined);
    if (places.length > 1) throw new KpsError("invalid_argument", "say one of position, before and after");
    if (position !== undefined) check.whole("position", position!, 0);
    if (flushBytes !== undefined) check.whole("flushBytes", flushBytes, 1);
    whole("before", before ?? "");
    whole("after", after ?? "");
    const json = JSON.stringify({ position, before, after, flushBytes, ...rest });
    const number = environment.documents.number();
    settled(this.ask((bridge) => bridge.beginStream(this._number, number, json)) ?? "");
    return new DocumentStream(this, number);
  }

  /** What `JSON.stringify` shows. */
  toJSON(): object {
    return { id: this.id, kind: this.kind, author: this.author, version: this.version };
  }

  /** @internal */
  [inspect.custom](): string {
    return `Document(${this.id}, ${this.kind}, ${this.version})`;
  }

  private receipt(operation: number, opId: string): EditReceipt {
    const receipt = new EditReceipt(this, opId);
    environment.documents.await(operation, receipt);
    return receipt;
  }
}

function versionOf(name: string, version: string | number): string {
  if (typeof version !== "number") check.string(name, version);
  return String(version);
}

/** An operation as core tells of it, in JavaScript's names. */
function operation(told: DocumentOperation & { op_id?: string }): DocumentOperation {
  const { op_id: opId, ...rest } = told;
  return { ...rest, opId: opId! };
}

const STREAM = {
  position: "number",
  before: "string",
  after: "string",
  flushEvery: "duration",
  flushBytes: "number",
} as const;
