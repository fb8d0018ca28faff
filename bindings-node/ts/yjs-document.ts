import { inspect } from "node:util";
import * as check from "./check";
import type { Edit, YjsEditOptions } from "./document-types";
import { settled, whole, written } from "./document-values";
import { LiveDocument } from "./live-document";

/** The root that editors use unless told. */
const TEXT = "text";

/**
 * An open Yjs document. `await client.openDocument(id, { kind: "yjs" })` makes one.
 *
 * What is edited is in sight at once, also without a connection, and merges with what others do meanwhile, in other
 * clients and in Yjs editors. Positions count Unicode code points; `root` names the text. It is left when it is closed,
 * or when nobody holds it and no handler listens.
 *
 * A `Y.Doc` is bound to it by `state`, `applyUpdate` and the event `update`, which is how to edit maps, lists and formatted
 * text. It changes only when the program applies an update: positions in it hold until then.
 */
export class YjsDocument extends LiveDocument {
  /** `yjs`. */
  readonly kind = "yjs";

  /** The text of the root `text`. */
  get text(): string {
    return this.rootText(TEXT);
  }

  /** All roots, as JSON has them. */
  get value(): any {
    return this._client._json.decode(this.ask((bridge) => bridge.yjsValue(this._number)));
  }

  /** What it has of whom, as Yjs encodes it. */
  get stateVector(): Buffer {
    return this.ask((bridge) => bridge.yjsStateVector(this._number));
  }

  /** The text of a root; empty if there is none. */
  rootText(root: string): string {
    check.string("root", root);
    return this.ask((bridge) => bridge.yjsText(this._number, root));
  }

  /** All of it, or what one with this state vector misses: an update in version 1 of Yjs' encoding. */
  state(stateVector: Uint8Array | null = null): Buffer {
    if (stateVector !== null) bytes("stateVector", stateVector);
    return this.ask((bridge) => bridge.yjsState(this._number, stateVector ?? undefined));
  }

  /** Takes an update from elsewhere, such as a `Y.Doc`: it goes to the server and to others. */
  applyUpdate(update: Uint8Array): void {
    bytes("update", update);
    settled(this.ask((bridge) => bridge.yjsApply(this._number, update)) ?? "");
  }

  /**
   * Edits the text of a root, here at once; a list of edits is done together. Throws if it does not fit what is here.
   *
   * Positions are those of the text at this moment. What others do comes in beside this thread, between any two lines: a
   * position that was read before may be another place by now, or throw `position_out_of_range`. `append`, and edits with
   * `before`, `after` or `anchor`, are looked up and done in one step.
   *
   * Awaiting what is returned waits until the server has it; it may be left out.
   */
  edit(edit: Edit | readonly Edit[], options: YjsEditOptions = {}): YjsReceipt {
    check.options(options, EDIT);
    const root = options.root ?? TEXT;
    whole("root", root);
    const { text, parts } = written("edit", edit);
    settled(this.ask((bridge) => bridge.yjsEdit(this._number, root, text, parts)) ?? "");
    return new YjsReceipt(this);
  }

  /** `text` before this code point of the text as it is now; `edit` says how to be sure of the place. */
  insert(position: number, text: string, options: YjsEditOptions = {}): YjsReceipt {
    return this.edit({ type: "insert", position, text }, options);
  }

  /** Removes `length` code points from `position` on. */
  delete(position: number, length: number, options: YjsEditOptions = {}): YjsReceipt {
    return this.edit({ type: "delete", position, length }, options);
  }

  /** `text` in the place of `length` code points from `position` on. */
  replace(position: number, length: number, text: string, options: YjsEditOptions = {}): YjsReceipt {
    return this.edit({ type: "replace", position, length, text }, options);
  }

  /** `text` at the end. */
  append(text: string, options: YjsEditOptions = {}): YjsReceipt {
    return this.edit({ type: "append", text }, options);
  }

  /** What `JSON.stringify` shows. */
  toJSON(): object {
    return { id: this.id, kind: "yjs", author: this.author, version: this.version };
  }

  /** @internal */
  [inspect.custom](): string {
    return `YjsDocument(${this.id}, ${this.version})`;
  }
}

/** What an edit of a Yjs document returns: awaiting it waits until the server has the edit, or refused it. */
export class YjsReceipt implements PromiseLike<void> {
  /** @internal */
  constructor(private readonly document: YjsDocument) {}

  /** Starts waiting; see the class. */
  then<A = void, B = never>(
    fulfilled?: (() => A | PromiseLike<A>) | null,
    rejected?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.document.flush().then(fulfilled, rejected);
  }
}

function bytes(name: string, value: unknown): void {
  if (!(value instanceof Uint8Array)) throw new TypeError(`${name} must be a Uint8Array, not ${typeof value}`);
}

const EDIT = { root: "string" } as const;
