"use strict";
// Tasks that workers import.

const fs = require("node:fs");
const { BroadcastChannel, isMainThread, parentPort, threadId } = require("node:worker_threads");

/** The worker's thread. */
exports.thread = () => (isMainThread ? 0 : threadId);

exports.echo = (data) => data;

exports.later = async (data) => [data, threadId];

/** The worker's thread, as Linux calls it. */
exports.folder = () => fs.readlinkSync("/proc/thread-self");

/** Hangs when it is told to, in a way, and says so before. */
exports.hang = (how) => {
  if (how) new BroadcastChannel("hanging").postMessage(threadId);
  if (how === "loop") for (;;);
  if (how === "wait") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  if (how === "native") require("node:child_process").execFileSync(process.execPath, ["-e", "setTimeout(() => {}, 8000)"]);
  if (how === "promise") return new Promise(() => {});
  return threadId;
};

exports.crash = (how) => {
  if (how === "exit") process.exit(3);
  if (how === "throw") return new Promise(() => setImmediate(() => { throw new RangeError("later"); }));
  if (how === "reject") return new Promise(() => void Promise.reject(new RangeError("unhandled")));
  if (how === "after") setImmediate(() => process.exit(4));
  if (how === "memory") {
    const all = [];
    for (;;) all.push(new Array(1000).fill(all.length));
  }
  return threadId;
};

exports.fail = (how) => {
  if (how === "text") throw "just text";
  if (how === "quota") throw Object.assign(new Error("enough"), { name: "KpsError", code: "quota_exceeded", retry: true, field: "n" });
  if (how === "kps") throw new (require("kps").KpsError)("not_found", "no such thing");
  if (how === "again") throw new (require("kps").Retry)({ message: "not now" });
  if (how === "function") return { deep: [() => {}] };
  if (how === "cyclic") {
    const cyclic = {};
    return (cyclic.cyclic = cyclic);
  }
  throw new RangeError(`no ${how}`);
};

/** Its own numbers, again and again. */
const table = Float64Array.of(1, 2, 3);
exports.table = () => table;

exports.about = (data, { deadline, signal }) => ({
  kind: Object.prototype.toString.call(data), isBuffer: Buffer.isBuffer(data), left: deadline - Date.now(), aborted: signal.aborted,
});

exports.noisy = (data) => {
  parentPort.postMessage({ answer: { text: "5" } });
  return data;
};

/** Work for one core. */
exports.busy = (count) => {
  let total = 0;
  for (let number = 0; number < count; number++) total = (Math.imul(total, 31) + number) >>> 0;
  return total;
};
