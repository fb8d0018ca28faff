import { createReadStream, promises as fs } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { dirname, basename, join } from "node:path";
import type { Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import * as check from "./check";
import { environment } from "./environment";
import { KpsError } from "./errors";
import type { Response } from "./response";
import type {
  DispatchOptions,
  StorageDeleteOptions,
  StorageGetOptions,
  StorageGetToOptions,
  StorageListOptions,
  StorageSaveOptions,
  StorageTargetOptions,
  Stored,
  StoredPage,
  StoredValue,
} from "./types";

/** Bytes that are read from a file at once, and up to which bytes are saved in one call. */
const PIECE = 512 << 10;
/** Milliseconds that a call may take. */
const TIMEOUT = 60_000;

/** What a storage needs of its client. @internal */
interface Owner {
  readonly _key: number;
  dispatch(action: string, payload?: unknown, options?: DispatchOptions): Promise<Response>;
}

type Progress = ((done: number, total: number | null) => void) | null | undefined;
type Fields = Record<string, unknown>;

/**
 * A client's way to values: its own ones, or with `target` the server's or another client's. `client.storage` makes one.
 * What fails rejects with a `KpsError`.
 */
export class Storage {
  /** @internal */
  constructor(private readonly client: Owner) {}

  /**
   * Saves a value and resolves to what is known of it.
   *
   * `source` is anything that JSON knows, a bigint, an array or bytes; or it is where bytes come from: a `file:` URL, a
   * `Readable`, a `Blob`, a `FileHandle`, an iterator or an async iterable of Uint8Arrays. Those are never in memory as
   * a whole, and become the value all at once, at the end: if the source throws, or `signal` is aborted, the old value
   * stays.
   */
  async save(key: string, source: unknown, options: StorageSaveOptions = {}): Promise<Stored> {
    check.string("key", key);
    check.options(options, SAVE);
    const { ttl, ifMatch, ifNoneMatch, contentType, target, onProgress, signal } = options;
    const fields = given({
      key,
      ttl: ttl === undefined || ttl === null ? undefined : ttl / 1000,
      if_match: ifMatch,
      if_none_match: ifNoneMatch,
      content_type: contentType,
    });
    const found = await pieces(source, Boolean(onProgress));
    if (found === undefined) return stored(await this.call("save", { ...fields, value: source }, target, signal));
    return stored(await this.upload(fields, found, target, onProgress, signal));
  }

  /**
   * The value, and what is known of it; rejects with `not_found` if there is none. With the ETag that is known as
   * `ifNoneMatch` it is `notModified` instead while nothing has changed.
   */
  async get<T = any>(key: string, options: StorageGetOptions = {}): Promise<StoredValue<T>> {
    check.string("key", key);
    check.options(options, GET);
    const { ifNoneMatch, version, target } = options;
    const answer = await this.call("get", given({ key, if_none_match: ifNoneMatch, version }), target);
    return { ...stored(answer), value: answer["value"] as T };
  }

  /** A value of bytes or text, a piece at a time: `for await (const piece of await client.storage.stream(key))`. */
  async stream(key: string, options: StorageTargetOptions = {}): Promise<StorageStream> {
    check.string("key", key);
    check.options(options, TARGET);
    const { bridge, calls } = environment;
    const target = options.target ?? undefined;
    const [number, about] = await calls.step<Fields>((token) => bridge.download(this.client._key, token, key, target));
    return new StorageStream(number, stored(about));
  }

  /**
   * Writes a value of bytes or text to a path, a `file:` URL or a `Writable`, which stays open. At a path there is the
   * whole value, or what was there before.
   */
  async getTo(key: string, to: string | URL | Writable, options: StorageGetToOptions = {}): Promise<Stored> {
    check.options(options, GET_TO);
    const { target, onProgress } = options;
    const isPath = typeof to === "string" || to instanceof URL;
    if (!isPath && typeof (Object(to) as Writable).write !== "function") {
      throw new TypeError(`to must be a path, a file URL or a Writable, not ${typeof to}`);
    }
    const stream = await this.stream(key, target === undefined ? {} : { target });
    try {
      if (isPath) await replace(typeof to === "string" ? to : fileURLToPath(to), stream, onProgress);
      else await pour(stream, to, onProgress);
    } finally {
      stream.close();
    }
    return stream.info;
  }

  /** Whether there is a value. */
  async exists(key: string, options: StorageTargetOptions = {}): Promise<boolean> {
    check.string("key", key);
    check.options(options, TARGET);
    return (await this.call("exists", { key }, options.target))["exists"] as boolean;
  }

  /** Deletes a key; whether there was a value. */
  async delete(key: string, options: StorageDeleteOptions = {}): Promise<boolean> {
    check.string("key", key);
    check.options(options, DELETE);
    const { ifMatch, target } = options;
    return (await this.call("delete", given({ key, if_match: ifMatch }), target))["deleted"] as boolean;
  }

  /** Keys in the order of their bytes, and the `cursor` of the next page, if there is one. */
  async list(prefix: string = "", options: StorageListOptions = {}): Promise<StoredPage> {
    check.string("prefix", prefix);
    check.options(options, LIST);
    const { limit = 100, cursor, target } = options;
    const page = await this.call("list", given({ prefix, limit, cursor }), target);
    return { items: (page["items"] as Fields[]).map(stored), cursor: page["cursor"] as string | null };
  }

  private async call(
    operation: string,
    fields: Fields,
    target: string | null | undefined,
    signal?: AbortSignal | null,
  ): Promise<Fields> {
    const options: DispatchOptions = { timeout: TIMEOUT, ...(target ? { target } : {}), ...(signal ? { signal } : {}) };
    return (await this.client.dispatch(`storage.${operation}`, fields, options)).unwrap() as Fields;
  }

  private async upload(
    fields: Fields,
    source: Source,
    target: string | null | undefined,
    onProgress: Progress,
    signal: AbortSignal | null | undefined,
  ): Promise<Fields> {
    const { bridge, calls } = environment;
    const iterator = source.pieces();
    const abort = aborted(signal);
    // Who waits for a stream from the beginning hears of its errors.
    let coming = iterator.next();
    coming.catch(() => {});
    let upload: number | undefined;
    try {
      abort.check();
      const json = JSON.stringify(fields);
      [upload] = await calls.step((token) => bridge.upload(this.client._key, token, json, target ?? undefined));
      for (let done = 0; ; ) {
        const next = await abort.wait(coming);
        if (next.done === true) break;
        const bytes = piece(next.value);
        await abort.wait(calls.step((token) => bridge.write(upload!, token, bytes)));
        done += bytes.byteLength;
        onProgress?.(done, source.total);
        coming = iterator.next();
      }
      abort.check();
      const [, known] = await calls.step<Fields>((token) => bridge.finishUpload(upload!, token));
      return known;
    } catch (error) {
      if (upload !== undefined) bridge.endStream(upload);
      // It may wait for what never comes: nobody waits for that.
      void Promise.resolve(iterator.return?.()).catch(() => {});
      throw error;
    } finally {
      abort.end();
    }
  }
}

/**
 * A value that is being read: an async iterator of bytes. All of them are of one value: if it is replaced or deleted
 * meanwhile, the next piece rejects with `conflict`.
 */
export class StorageStream implements AsyncIterableIterator<Buffer> {
  /** @internal */
  constructor(
    private readonly number: number,
    /** What is known of the value. */
    readonly info: Stored,
  ) {
    forgotten.register(this, number, this);
  }

  /** Another one after every save. */
  get etag(): string {
    return this.info.etag;
  }

  /** Bytes of the whole value. */
  get size(): number {
    return this.info.size;
  }

  /** The next bytes. */
  async next(): Promise<IteratorResult<Buffer, undefined>> {
    const [, bytes] = await environment.calls.step<Buffer | null>((token) => environment.bridge.read(this.number, token));
    return bytes === null ? { done: true, value: undefined } : { done: false, value: bytes };
  }

  /** Ends an iteration that is left. */
  async return(): Promise<IteratorResult<Buffer, undefined>> {
    this.close();
    return { done: true, value: undefined };
  }

  /** Reads no more. */
  close(): void {
    forgotten.unregister(this);
    environment.bridge.endStream(this.number);
  }

  /** Itself. */
  [Symbol.asyncIterator](): this {
    return this;
  }

  /** @internal */
  [inspect.custom](): string {
    return `StorageStream(${this.info.key}, ${this.size} bytes)`;
  }
}

/** Streams that nobody has any more. */
const forgotten = new FinalizationRegistry<number>((number) => environment.bridge.endStream(number));

/** Where bytes come from. */
interface Source {
  pieces(): AsyncIterator<unknown>;
  total: number | null;
}

/** `undefined`: it is a value as it is. */
async function pieces(source: unknown, inPieces: boolean): Promise<Source | undefined> {
  if (typeof source !== "object" || source === null) return undefined;
  const bytes = bytesOf(source);
  if (bytes !== undefined) {
    if (bytes.byteLength <= PIECE && !inPieces) return undefined;
    return { pieces: () => slices(bytes), total: bytes.byteLength };
  }
  if (source instanceof URL) {
    const { size } = await fs.stat(source);
    return { pieces: () => createReadStream(source, { highWaterMark: PIECE })[Symbol.asyncIterator](), total: size };
  }
  if (typeof (source as FileHandle).createReadStream === "function") {
    const options = { highWaterMark: PIECE, autoClose: false };
    return { pieces: () => (source as FileHandle).createReadStream(options)[Symbol.asyncIterator](), total: null };
  }
  if (typeof Blob !== "undefined" && source instanceof Blob) {
    return { pieces: () => (source.stream() as unknown as AsyncIterable<unknown>)[Symbol.asyncIterator](), total: source.size };
  }
  const { [Symbol.asyncIterator]: later, next } = source as AsyncIterableIterator<unknown>;
  if (typeof later === "function") return { pieces: () => (source as AsyncIterable<unknown>)[Symbol.asyncIterator](), total: null };
  if (typeof next === "function") return { pieces: () => each(source as Iterator<unknown>), total: null };
  return undefined;
}

/** Bytes; other arrays of numbers are values. */
function bytesOf(source: object): Uint8Array | undefined {
  if (source instanceof Uint8Array) return source;
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  return undefined;
}

async function* slices(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += PIECE) yield bytes.subarray(at, at + PIECE);
}

async function* each(iterator: Iterator<unknown>): AsyncGenerator<unknown> {
  try {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) yield next.value;
  } finally {
    iterator.return?.();
  }
}

function piece(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  throw new TypeError(`a piece of the value must be a Uint8Array, not ${value === null ? "null" : typeof value}`);
}

/** Waits for one thing after another, until `signal` is aborted. */
function aborted(signal: AbortSignal | null | undefined) {
  const error = () => new KpsError("cancelled", "the save was cancelled by its signal");
  // Not `Promise.race` with a promise that lives as long as the save: that would keep every piece until its end.
  let stop = (_: KpsError) => {};
  const abort = () => stop(error());
  signal?.addEventListener("abort", abort);
  return {
    check() {
      if (signal?.aborted === true) throw error();
    },
    wait<T>(promise: Promise<T>): Promise<T> {
      if (!signal) return promise;
      return new Promise<T>((resolve, reject) => {
        stop = reject;
        if (signal.aborted) abort();
        promise.then(resolve, reject);
      });
    },
    end: () => signal?.removeEventListener("abort", abort),
  };
}

async function pour(stream: StorageStream, to: Writable, onProgress: Progress): Promise<void> {
  // Who writes is told.
  const ignore = () => {};
  to.on("error", ignore);
  try {
    await copy(stream, onProgress, (bytes) => {
      return new Promise<void>((resolve, reject) => to.write(bytes, (error) => (error ? reject(error) : resolve())));
    });
  } finally {
    to.off("error", ignore);
  }
}

async function replace(path: string, stream: StorageStream, onProgress: Progress): Promise<void> {
  const beside = join(dirname(path), `.${basename(path)}.${process.pid}-${Math.random().toString(36).slice(2)}.part`);
  const file = await fs.open(beside, "wx");
  try {
    try {
      await copy(stream, onProgress, (bytes) => file.writeFile(bytes));
    } finally {
      await file.close();
    }
    await fs.rename(beside, path);
  } catch (error) {
    await fs.rm(beside, { force: true });
    throw error;
  }
}

async function copy(stream: StorageStream, onProgress: Progress, put: (bytes: Buffer) => Promise<void>): Promise<void> {
  let done = 0;
  for await (const bytes of stream) {
    await put(bytes);
    done += bytes.length;
    onProgress?.(done, stream.size);
  }
}

/** What was given. */
function given(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null));
}

/** What is known of a value, in JavaScript's names and milliseconds. */
function stored(answer: Fields): Stored {
  const { key, etag, size, modified, expires, content_type, location, possibly_stale, warning, kind, not_modified } = answer;
  const ms = (seconds: unknown) => (seconds === undefined ? undefined : Math.round((seconds as number) * 1000));
  return given({
    key,
    etag,
    size,
    modified: ms(modified),
    expires: ms(expires),
    contentType: content_type,
    location,
    possiblyStale: possibly_stale,
    warning,
    kind,
    notModified: not_modified,
  }) as unknown as Stored;
}

const TARGET = { target: "string" } as const;
const GET = { ifNoneMatch: "string", version: "string", ...TARGET } as const;
const GET_TO = { onProgress: "function", ...TARGET } as const;
const DELETE = { ifMatch: "string", ...TARGET } as const;
const LIST = { limit: "number", cursor: "string", ...TARGET } as const;
const SAVE = {
  ttl: "number",
  ifMatch: "string",
  ifNoneMatch: "string",
  contentType: "string",
  onProgress: "function",
  signal: "object",
  ...TARGET,
} as const;
