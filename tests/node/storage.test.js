"use strict";
// The storage's options, for a client's own and a server's.

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const kps = require("kps");

const KEY = Uint8Array.from({ length: 32 }, (_, n) => n);
let folder;
const open = [];

beforeEach(() => (folder = fs.mkdtempSync(path.join(os.tmpdir(), "kps-storage-"))));
afterEach(async () => {
  for (const each of open.splice(0)) await each.close(0);
  fs.rmSync(folder, { recursive: true });
});

async function connect(storage, more) {
  const client = await kps.connect("mem://", { storage, ...more });
  open.push(client);
  return client;
}

async function serve(options) {
  const server = await kps.Server.start({ listen: "127.0.0.1:0", ...options });
  open.push(server);
  return server;
}

const save = async (client, key, value, more) => (await client.dispatch("storage.save", { key, value }, more)).unwrap();
const get = async (client, key, more) => (await client.dispatch("storage.get", { key }, more)).unwrap().value;
const stat = async (client, more) => (await client.dispatch("storage.stat", null, more)).unwrap();

test("a client's values outlive it", async () => {
  const file = path.join(folder, "values.db");
  for (const storage of [file, { path: file }, folder]) {
    const client = await connect(storage);
    await save(client, JSON.stringify(storage), { n: 1 });
    await client.close();
  }
  const client = await connect(file);
  expect((await client.dispatch("storage.list")).unwrap().items).toHaveLength(3);
  expect((await stat(client)).durability).toBe("full");
});

test("without options nothing is kept", async () => {
  expect((await stat(await connect(undefined))).durability).toBe("memory");
});

test("a key encrypts and another is refused", async () => {
  const file = path.join(folder, "values.db");
  const client = await connect({ path: file, key: KEY });
  await save(client, "k", "a secret that nobody else reads");
  expect((await stat(client)).encrypted).toBe(true);
  await client.close();
  expect(fs.readFileSync(file).includes("a secret")).toBe(false);
  for (const key of [new Uint8Array(32), "a passphrase", null]) {
    await expect(connect({ path: file, key })).rejects.toMatchObject({ code: "unauthorized" });
  }
  expect(await get(await connect({ path: file, key: Buffer.from(KEY) }), "k")).toBe("a secret that nobody else reads");
});

test("a passphrase is a key too", async () => {
  const storage = { path: path.join(folder, "v.db"), key: "correct horse" };
  await (await connect(storage)).close();
  await expect(connect({ ...storage, key: "battery staple" })).rejects.toMatchObject({ code: "unauthorized" });
  // Who does not wait hears it from the first call.
  const client = await connect({ ...storage, key: "no" }, { wait: false });
  expect((await client.dispatch("storage.get", { key: "k" })).error.code).toBe("unauthorized");
});

test("old versions and a quota", async () => {
  const client = await connect({ versions: 2, quota: 5000 });
  const saved = [];
  for (let n = 0; n < 4; n++) saved.push(await save(client, "k", n));
  const { versions } = (await client.dispatch("storage.history", { key: "k" })).unwrap();
  expect(versions.map(({ etag }) => etag)).toEqual(saved.slice(1).reverse().map(({ etag }) => etag));
  await expect(save(client, "large", new Uint8Array(5000))).rejects.toMatchObject({ code: "quota_exceeded" });
});

test("compression and durability", async () => {
  const sizes = [];
  for (const compress of [false, true]) {
    const file = path.join(folder, `${compress}.db`);
    const client = await connect({ path: file, compress, durability: "normal" });
    await save(client, "k", Buffer.alloc(800_000, "kps "));
    expect(await stat(client)).toMatchObject({ compressed: compress, durability: "normal" });
    expect((await get(client, "k")).equals(Buffer.alloc(800_000, "kps "))).toBe(true);
    await client.close();
    sizes.push(fs.statSync(file).size);
  }
  expect(sizes[1]).toBeLessThan(sizes[0] / 4);
});

test("limits", async () => {
  const client = await connect({ maxKey: 4, maxValue: 1000, maxInline: 500 });
  await expect(save(client, "longer", 1)).rejects.toMatchObject({ code: "too_large" });
  await expect(save(client, "k", new Uint8Array(1001))).rejects.toMatchObject({ code: "too_large" });
  await save(client, "k", new Uint8Array(1000));
  await expect(get(client, "k")).rejects.toMatchObject({ code: "too_large" });
});

test.each([
  [{ quota: -1 }, "quota"],
  [{ versions: 1.5 }, "versions"],
  [{ durability: "never" }, "durability"],
  [{ key: new Uint8Array(5) }, "key"],
  [{ key: "" }, "key"],
  [{ maxValue: 0 }, "maxValue"],
  [{ path: "" }, "path"],
])("a wrong option is named: %j", async (storage, name) => {
  const message = expect.stringMatching(`storage: .*${name}`);
  await expect(connect(storage)).rejects.toMatchObject({ code: "invalid_argument", message });
  await expect(serve({ storage })).rejects.toMatchObject({ code: "invalid_argument", message });
});

test.each([[7], [true], [{ path: 7 }], [{ key: 7 }], [{ max_value: 1 }], [{ compress: 1 }]])("a wrong type: %j", async (storage) => {
  await expect(connect(storage)).rejects.toThrow(TypeError);
});

test("a server keeps values as its options say", async () => {
  const data = path.join(folder, "data");
  const server = await serve({ data, storage: { key: "words", versions: 1 } });
  const client = await kps.connect(server.url);
  open.unshift(client);
  await save(client, "k", "a secret value", { target: "server" });
  expect(await stat(client, { target: "server" })).toMatchObject({ encrypted: true, versions: 1, durability: "full" });
  await client.close();
  await server.close();
  await expect(serve({ data, storage: { key: "other words" } })).rejects.toMatchObject({ code: "unauthorized" });
  expect(await get(await serve({ data, storage: { key: "words" } }), "k")).toBe("a secret value");
});

test("one process has the file", async () => {
  const file = path.join(folder, "v.db");
  const first = await connect(file);
  await expect(connect(file)).rejects.toMatchObject({ code: "store_failed" });
  await first.close();
  await save(await connect(file), "k", 1);
});

test("the cloud is for the program that has the storage", async () => {
  const cloud = { url: "http://127.0.0.1:1", auth_token: "t" };
  const server = await serve({});
  const client = await kps.connect(server.url);
  open.unshift(client);
  const refused = await client.dispatch("storage.configure_cloud", cloud, { target: "server" });
  expect(refused.error.code).toBe("unauthorized");
  for (const own of [client, server]) {
    const configured = (await own.dispatch("storage.configure_cloud", cloud)).unwrap();
    expect(configured).toEqual({ configured: true, reachable: false });
  }
});
