"use strict";
// `client.storage`: values from and into files, streams and iterators; local and through a server.

const { createReadStream, createWriteStream, promises: fs } = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { Readable } = require("node:stream");
const { finished } = require("node:stream/promises");
const { pathToFileURL } = require("node:url");
const kps = require("kps");
const { useServer } = require("./support");

const used = useServer();
const PIECE = 512 << 10;
const LARGE = Buffer.from(Uint8Array.from({ length: 2 * PIECE + 12_345 }, (_, n) => (Math.imul(n, 2654435761) >>> 24) ^ n));
let folder;

beforeAll(async () => {
  folder = await fs.mkdtemp(path.join(os.tmpdir(), "kps-streams-"));
  await fs.writeFile(path.join(folder, "large.bin"), LARGE);
});
afterAll(() => fs.rm(folder, { recursive: true }));

async function whole(client, key, where) {
  const pieces = [];
  for await (const piece of await client.storage.stream(key, where)) pieces.push(piece);
  return Buffer.concat(pieces);
}

function* cut(data, size) {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
}

async function* later(pieces) {
  for (const piece of pieces) {
    await null;
    yield piece;
  }
}

async function settled(client, where) {
  while ((await client.dispatch("storage.stat", null, where)).unwrap().uploads > 0) await new Promise(setImmediate);
}

const large = () => path.join(folder, "large.bin");
const SOURCES = {
  "a file URL": () => pathToFileURL(large()),
  "a stream of a file": () => createReadStream(large()),
  "a Readable": () => Readable.from(cut(LARGE, 70_001)),
  "a web stream": () => new Blob([LARGE]).stream(),
  "a Blob": () => new Blob([LARGE]),
  "bytes": () => new Uint8Array(LARGE),
  "an ArrayBuffer": () => new Uint8Array(LARGE).buffer,
  "an iterator": () => cut(LARGE, 70_001),
  "an async iterator": () => later(cut(LARGE, PIECE)),
  "long pieces": () => later(cut(LARGE, 900_000)),
};

describe.each([["local", {}], ["server", { target: "server" }]])("%s", (_, where) => {
  test.each(Object.keys(SOURCES))("%s comes back whole", async (name) => {
    const client = await used.connect();
    const saved = await client.storage.save("k", SOURCES[name](), { contentType: "film", ...where });
    expect(saved).toMatchObject({ key: "k", size: LARGE.length, contentType: "film", location: "local" });
    expect(Math.abs(saved.modified - Date.now())).toBeLessThan(60_000);
    expect((await whole(client, "k", where)).equals(LARGE)).toBe(true);
    const stream = await client.storage.stream("k", where);
    expect([stream.etag, stream.size, stream.info.kind]).toEqual([saved.etag, LARGE.length, "bytes"]);
    stream.close();
  });

  test("a FileHandle is left open", async () => {
    const client = await used.connect();
    const handle = await fs.open(large());
    await client.storage.save("k", handle, where);
    expect((await handle.stat()).size).toBe(LARGE.length);
    await handle.close();
    expect((await whole(client, "k", where)).equals(LARGE)).toBe(true);
  });

  test("values are saved as they are", async () => {
    const client = await used.connect();
    let saved;
    for (const value of [{ a: [1, 2.5, null] }, "text", 2n ** 100n, null, Float64Array.of(1, 2)]) {
      saved = await client.storage.save("v", value, where);
      expect(await client.storage.get("v", where)).toMatchObject({ value, etag: saved.etag });
    }
    expect(await client.storage.get("v", { ifNoneMatch: saved.etag, ...where })).toMatchObject({ notModified: true });
    expect(await client.storage.exists("v", where)).toBe(true);
    expect((await client.storage.list("v", where)).items.map(({ key }) => key)).toEqual(["v"]);
    await expect(client.storage.save("v", 1, { ifNoneMatch: "*", ...where })).rejects.toMatchObject({ code: "conflict" });
    await expect(client.storage.save("v", cut(LARGE, PIECE), { ifMatch: "1-0000000000000000", ...where })).rejects.toMatchObject({
      code: "conflict",
    });
    const brief = await client.storage.save("t", 1, { ttl: 60_000, ...where });
    expect(Math.abs(brief.expires - brief.modified - 60_000)).toBeLessThan(5);
    expect(await client.storage.delete("v", where)).toBe(true);
    expect(await client.storage.delete("v", where)).toBe(false);
    await expect(client.storage.get("v", where)).rejects.toMatchObject({ code: "not_found" });
    await expect(client.storage.stream("v", where)).rejects.toMatchObject({ code: "not_found" });
  });

  test("progress is told", async () => {
    const client = await used.connect();
    for (const [source, total] of [[pathToFileURL(large()), LARGE.length], [LARGE, LARGE.length], [cut(LARGE, PIECE), null], [Buffer.from("12"), 2]]) {
      const told = [];
      await client.storage.save("k", source, { onProgress: (...step) => told.push(step), ...where });
      expect(told.at(-1)).toEqual([total ?? LARGE.length, total]);
    }
    await client.storage.save("k", LARGE, where);
    const told = [];
    await client.storage.getTo("k", path.join(folder, "out"), { onProgress: (...step) => told.push(step), ...where });
    expect(told.at(-1)).toEqual([LARGE.length, LARGE.length]);
    await fs.rm(path.join(folder, "out"));
  });

  test("a value goes into a file", async () => {
    const client = await used.connect();
    const own = await fs.mkdtemp(path.join(folder, "to-"));
    const [out, file] = [path.join(own, "out"), path.join(own, "file")];
    const saved = await client.storage.save("k", LARGE, where);
    expect(await client.storage.getTo("k", out, where)).toMatchObject({ etag: saved.etag });
    expect((await fs.readFile(out)).equals(LARGE)).toBe(true);
    const writable = createWriteStream(file);
    await client.storage.getTo("k", writable, where);
    writable.end();
    await finished(writable);
    expect((await fs.readFile(file)).equals(LARGE)).toBe(true);
    // What was there stays, and nothing else is left.
    await expect(client.storage.getTo("missing", out, where)).rejects.toMatchObject({ code: "not_found" });
    const onProgress = () => {
      throw new Error("no more");
    };
    await expect(client.storage.getTo("k", out, { onProgress, ...where })).rejects.toThrow("no more");
    expect((await fs.readFile(out)).equals(LARGE)).toBe(true);
    expect((await fs.readdir(own)).sort()).toEqual(["file", "out"]);
    const closed = createWriteStream(file);
    closed.destroy();
    await expect(client.storage.getTo("k", closed, where)).rejects.toThrow();
  });

  test("a source that fails leaves the old value", async () => {
    const client = await used.connect();
    const saved = await client.storage.save("k", Buffer.from("old"), where);
    async function* failing(last) {
      yield* cut(LARGE, PIECE);
      yield last();
    }
    const fails = failing(() => {
      throw new Error("the disk is gone");
    });
    await expect(client.storage.save("k", fails, where)).rejects.toThrow("the disk is gone");
    await expect(client.storage.save("k", failing(() => "text"), where)).rejects.toThrow(TypeError);
    await expect(client.storage.save("k", createReadStream(path.join(folder, "nothing")), where)).rejects.toThrow("ENOENT");
    expect(await client.storage.get("k", where)).toMatchObject({ value: Buffer.from("old"), etag: saved.etag });
    await settled(client, where);
  });

  test("a save that is aborted leaves the old value", async () => {
    const client = await used.connect();
    await client.storage.save("k", Buffer.from("old"), where);
    const controller = new AbortController();
    async function* stuck() {
      yield* cut(LARGE, PIECE);
      setImmediate(() => controller.abort());
      await new Promise(() => {});
    }
    const cancelled = { code: "cancelled" };
    await expect(client.storage.save("k", stuck(), { signal: controller.signal, ...where })).rejects.toMatchObject(cancelled);
    await expect(client.storage.save("k", cut(LARGE, PIECE), { signal: AbortSignal.abort(), ...where })).rejects.toMatchObject(cancelled);
    expect((await client.storage.get("k", where)).value.toString()).toBe("old");
    await settled(client, where);
    await client.storage.save("k", LARGE, where);
    expect((await whole(client, "k", where)).equals(LARGE)).toBe(true);
  });

  test.each(["save", "delete"])("a reader never gets a mix: %s", async (change) => {
    const client = await used.connect();
    await client.storage.save("k", new Uint8Array(12 * PIECE), where);
    const stream = await client.storage.stream("k", where);
    const pieces = [(await stream.next()).value];
    if (change === "save") await client.storage.save("k", new Uint8Array(12 * PIECE).fill(1), where);
    else await client.storage.delete("k", where);
    const read = async () => {
      for await (const piece of stream) pieces.push(piece);
    };
    await expect(read()).rejects.toMatchObject({ code: "conflict" });
    expect(pieces.some((piece) => piece.includes(1))).toBe(false);
  });

  test("a stream may be left", async () => {
    const client = await used.connect();
    await client.storage.save("k", LARGE, where);
    for await (const _ of await client.storage.stream("k", where)) break;
    const stream = await client.storage.stream("k", where);
    stream.close();
    expect(await stream.next()).toEqual({ done: true, value: undefined });
  });

  test("streams at the same time", async () => {
    const client = await used.connect();
    const keys = Array.from({ length: 8 }, (_, n) => n);
    await Promise.all(keys.map((n) => client.storage.save(`k${n}`, cut(LARGE.subarray(n), 99_999), where)));
    const read = await Promise.all(keys.map((n) => whole(client, `k${n}`, where)));
    for (const n of keys) expect(read[n].equals(LARGE.subarray(n))).toBe(true);
  });
});

test("a wrong argument is named", async () => {
  const { storage } = await used.connect();
  for (const wrong of [storage.save(1, 1), storage.save("k", 1, { ttl: "1" }), storage.save("k", 1, { tl: 1 }), storage.getTo("k", 7), storage.list(1)]) {
    await expect(wrong).rejects.toThrow(TypeError);
  }
  await expect(storage.save("k", cut(LARGE, PIECE), { ttl: -1 })).rejects.toMatchObject({ code: "invalid_payload", message: /ttl/ });
  await expect(storage.stream("k", { target: "nobody" })).rejects.toMatchObject({ code: "unavailable" });
});
