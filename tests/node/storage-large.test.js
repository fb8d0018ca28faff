"use strict";
// A value of 1 GiB goes in and out in constant memory: 256 MiB of it in the short form, all with KPS_ROUNDS.

const { execFile, spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { createInterface } = require("node:readline");
const { promisify } = require("node:util");

const MIB = Number(process.env["KPS_ROUNDS"] ?? 0) > 0 ? 1024 : 256;
/** MiB beyond what was there before. */
const EXTRA = 64;
/** MiB that a server may have at most, its code among them. */
const BROKER = 160;
const PATIENCE = 600_000;
const PROGRAM = path.join(__dirname, "programs", "large-value.js");
const KPS = path.join(path.dirname(require.resolve("kps/package.json")), "bin", "kps.js");

let folder;
beforeEach(() => (folder = fs.mkdtempSync(path.join(os.tmpdir(), "kps-large-"))));
afterEach(() => fs.rmSync(folder, { recursive: true }));

async function largeValue(...args) {
  // Buffers are no part of V8's heap: their memory is what the kernel says.
  const { stdout } = await promisify(execFile)(process.execPath, ["--max-old-space-size=64", PROGRAM, ...args, String(MIB)]);
  return JSON.parse(stdout);
}

const known = fs.existsSync("/proc/self/clear_refs") ? test : test.skip;

known(
  "a large value takes constant memory",
  async () => expect((await largeValue("mem://", folder, "local")).extra).toBeLessThanOrEqual(EXTRA),
  PATIENCE,
);

known(
  "a large value goes through a server in constant memory",
  async () => {
    const options = ["--listen", "127.0.0.1:0", "--json", "--data", path.join(folder, "data"), "--storage-durability", "normal"];
    const broker = spawn(process.execPath, [KPS, "serve", ...options], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      const { value } = await createInterface(broker.stdout)[Symbol.asyncIterator]().next();
      const own = path.join(folder, "own");
      fs.mkdirSync(own);
      expect((await largeValue(JSON.parse(value).url, own, "server")).extra).toBeLessThanOrEqual(EXTRA);
      const [, peak] = /^VmHWM:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${broker.pid}/status`, "utf8"));
      expect(Number(peak) / 1024).toBeLessThanOrEqual(BROKER);
    } finally {
      broker.kill("SIGKILL");
    }
  },
  PATIENCE,
);
