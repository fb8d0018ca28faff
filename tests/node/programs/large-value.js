"use strict";
// Saves a value that is larger than the memory it may take, and reads it again: `large-value.js URL FOLDER TARGET MIB`.
// Prints what it took, as JSON; times are seconds, memory is MiB beyond what was there before.

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const kps = require("kps");

const MIB = 1 << 20;
const block = Buffer.from(Uint8Array.from({ length: MIB }, (_, n) => n));

/** The block from another place on, so that no two pieces in a row are the same. */
function piece(number) {
  const at = (number * 7919) % MIB;
  const bytes = Buffer.concat([block.subarray(at), block.subarray(0, at)]);
  bytes.writeUInt32LE(number, 0);
  return bytes;
}

async function* pieces(mib) {
  for (let number = 0; number < mib; number++) yield piece(number);
}

/** `VmHWM` is the most there ever was, `VmRSS` what there is. */
function memory(name) {
  const [, kib] = new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(fs.readFileSync("/proc/self/status", "utf8"));
  return Number(kib) / 1024;
}

async function main(url, folder, target, mib) {
  const where = target === "local" ? {} : { target };
  const client = await kps.connect(url, { storage: { path: folder, durability: "normal" } });
  // Whatever is loaded when it is first used, and what V8 lets lie around before it looks.
  await client.storage.save("k", pieces(16), where);
  await client.storage.getTo("k", path.join(folder, "copy"), where);
  const before = memory("VmRSS");
  fs.writeFileSync("/proc/self/clear_refs", "5");
  const started = performance.now();
  const told = [];
  await client.storage.save("k", pieces(mib), { onProgress: (done) => told.push(done / MIB), ...where });
  const saved = performance.now();
  assert.deepStrictEqual(told, Array.from({ length: mib }, (_, number) => number + 1));
  const stream = await client.storage.stream("k", where);
  assert.strictEqual(stream.size, mib * MIB);
  let rest = Buffer.alloc(0);
  let number = 0;
  for await (const part of stream) {
    rest = Buffer.concat([rest, part]);
    for (; rest.length >= MIB; rest = rest.subarray(MIB)) {
      assert(rest.subarray(0, MIB).equals(piece(number)), `MiB ${number}`);
      number++;
    }
  }
  assert.deepStrictEqual([number, rest.length], [mib, 0]);
  const read = performance.now();
  console.log(JSON.stringify({ save: (saved - started) / 1e3, read: (read - saved) / 1e3, extra: memory("VmHWM") - before }));
  await client.close();
}

const [url, folder, target, mib] = process.argv.slice(2);
void main(url, folder, target, Number(mib));
