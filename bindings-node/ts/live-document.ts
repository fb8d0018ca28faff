import * as check from "./check";
import type { Client } from "./client";
import { HALF_IN_JSON, whole } from "./document-values";
import type { DocumentEvents, DocumentKind, OpenDocumentOptions, OpenYjsOptions, Present } from "./document-types";
import { Ears } from "./documents";
import { environment } from "./environment";
import { native } from "./errors";

/** What never changes of a document. @internal */
export interface About {
  /** This thread's number of it. */
  number: number;
  id: string;
  kind: DocumentKind;
  author: string;
}

/** @internal */
export async function opened(client: Client, id: string, options: OpenDocumentOptions | OpenYjsOptions): Promise<About> {
  check.string("id", id);
  check.options(options, OPEN);
  const given = check.given(options);
  if (given.rebases !== undefined) check.whole("rebases", given.rebases, 0);
  whole("id", id);
  whole("author", given.author ?? "");
  const json = JSON.stringify(given);
  const number = environment.documents.number();
  const about = await environment.call<About>((token) => environment.bridge.openDocument(client._key, token, number, id, json));
  return { ...about, number };
}

/** What every open document has. */
export abstract class LiveDocument implements AsyncDisposable {
  /** @internal */
  readonly _client: Client;
  /** @internal */
  readonly _number: number;
  /** Its name. */
  readonly id: string;
  /** Who edits here. */
  readonly author: string;
  private readonly ears: Ears;
  private isHeard = false;

  /** @internal */
  constructor(client: Client, { number, id, author }: About) {
    this._client = client;
    this._number = number;
    this.id = id;
    this.author = author;
    this.ears = new Ears(client._hold, client._json);
    environment.documents.listen(number, this.ears);
    forgotten.register(this, number);
  }

  /** The server's version, as far as it was heard of: a weak ETag, `W/"17"`. */
  get version(): string {
    return this.ask((bridge) => bridge.documentVersion(this._number));
  }

  /** Up to which version everything is in the server's store. */
  get checkpointed(): string {
    return this.ask((bridge) => bridge.checkpointed(this._number));
  }

  /** Whether there is a connection, and everything that happened so far is here. */
  get isConnected(): boolean {
    return this.ask((bridge) => bridge.documentConnected(this._number));
  }

  /** Own operations that a crash of the server now would lose, oldest first: they are sent again then. */
  get unsynced(): string[] {
    return this.ask((bridge) => bridge.unsynced(this._number));
  }

  /** Everybody else who is there and said so. */
  get presence(): Present[] {
    return JSON.parse(this.ask((bridge) => bridge.presence(this._number))) as Present[];
  }

  /** Resolves when the server has everything that was edited here, or refused it. */
  async flush(): Promise<void> {
    await this.call((bridge, token) => bridge.flushDocument(this._number, token));
  }

  /**
   * Calls `handler(event)` whenever it happens. Returns the function that ends that. `"*"` is every event.
   *
   * What the server tells, to all alike: `change`, `ack`, `conflict`, `rejected`, `checkpoint`, `store_failed`, `presence`.
   * What this client tells: `failed` (an own operation was given up), `gap` (events were missed; the content is right
   * again), `resumed` (none were, though the connection was lost), `closed`; and of a Yjs document `update`, what changed.
   *
   * While it listens an open document keeps the process alive.
   */
  on<E extends keyof DocumentEvents>(event: E, handler: (...args: DocumentEvents[E]) => unknown): () => void {
    check.string("event", event);
    check.fn("handler", handler);
    const remove = this.ears.on(this, event, handler as (...args: never[]) => unknown);
    if (!this.isHeard) this.ask((bridge) => bridge.hearDocument(this._number));
    this.isHeard = true;
    return remove;
  }

  /**
   * Tells everybody about this client: a name, a colour, what is useful; `null`: it is not there any more.
   *
   * `cursor`, and `selection` with its two ends, are code points in `text`; in a text document they move with what is
   * edited. Yjs editors see the name and the colour.
   */
  setPresence(state: Record<string, unknown> | null): void {
    let text: string | undefined;
    if (state !== null) {
      if (typeof state !== "object" || Array.isArray(state)) throw new TypeError("state must be an object or null");
      text = JSON.stringify(state);
      whole("state", text, HALF_IN_JSON);
    }
    this.ask((bridge) => bridge.setPresence(this._number, text));
  }

  /** Lets the process end while handlers listen. */
  unref(): this {
    this.ears.unref();
    return this;
  }

  /**
   * Sends what is not sent, has the server store it, and leaves, within `timeoutMs`. Resolves to the operations that a
   * crash of the server now would lose.
   */
  close(timeoutMs: number = 5000): Promise<string[]> {
    return this.call((bridge, token) => {
      check.number("timeoutMs", timeoutMs);
      bridge.closeDocument(this._number, token, timeoutMs);
    });
  }

  /** Closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal */
  protected ask<T>(question: (bridge: typeof environment.bridge) => T): T {
    return native(() => question(environment.bridge));
  }

  /** @internal */
  protected async call<T>(start: (bridge: typeof environment.bridge, token: number) => void): Promise<T> {
    return await environment.call<T>((token) => start(environment.bridge, token));
  }
}

/** Documents that nobody has any more. */
const forgotten = new FinalizationRegistry<number>((number) => {
  environment.documents.forget(number);
  environment.bridge.dropDocument(number);
});

const OPEN = { kind: "string", author: "string", rebase: "boolean", rebases: "number", timeout: "duration" } as const;
