"use strict";
// Tasks of `compute` that are written here: on this thread, and in worker threads.

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const { BroadcastChannel } = require("node:worker_threads");
const kps = require("kps");
const { useServer, mailbox, gate, program } = require("./support");

const used = useServer();
const TASKS = path.join(__dirname, "compute-tasks.js");

/** What `compute-tasks.js` exports under this name. */
const task = (name) => ({ module: TASKS, export: name });

/** `compute.execute`. */
const execute = (client, name, data, options) => client.dispatch("compute.execute", { task: name, data }, options);
const result = async (...args) => (await execute(...args)).unwrap().result;
const failure = async (...args) => (await execute(...args)).error;

/** A client with an isolated task. */
async function isolated(name, options) {
  const client = await used.connect();
  await client.registerTask(name, task(name), { isolated: true, concurrency: 1, ...options });
  return client;
}

/** Workers that are about to hang. */
const hanging = mailbox();
const channel = new BroadcastChannel("hanging");
channel.onmessage = ({ data }) => hanging.put(data);
afterAll(() => channel.close());

describe("functions on this thread", () => {
  test("are tasks", async () => {
    const client = await used.connect();
    const where = [];
    await client.registerTask("double", async (data) => 2 * data, { summary: "Twice as much." });
    await client.registerTask("sync", (data) => [where.push(data), data], { concurrency: 2 });
    expect(await result(client, "double", 21)).toBe(42);
    const data = { big: 7n ** 100n, bytes: Buffer.from([255]), list: [1, 0.5, null, true, "ü"], numbers: Float32Array.of(0.5) };
    expect(await result(client, "sync", data)).toEqual([1, data]);
    expect(where).toEqual([data]);
    const items = Array.from({ length: 500 }, (_, n) => n);
    const { results } = (await client.dispatch("compute.map", { task: "double", items })).unwrap();
    expect(results).toEqual(items.map((n) => 2 * n));
    const { tasks } = (await client.dispatch("compute.tasks")).unwrap();
    const listed = Object.fromEntries(tasks.map((each) => [each.name, each]));
    expect(listed.double).toEqual({ name: "double", kind: "host", summary: "Twice as much.", concurrency: 256 });
    expect(listed.sync).toEqual({ name: "sync", kind: "host", concurrency: 2 });
  });

  test("are taken away", async () => {
    const client = await used.connect();
    const { open, opened } = gate();
    const started = mailbox();
    await client.registerTask("wait", async (data) => {
      started.put();
      await opened;
      return data;
    });
    const before = result(client, "wait", 1);
    await started.take();
    await expect(client.registerTask("wait", () => 1)).rejects.toMatchObject({ name: "KpsError", code: "conflict", field: "name" });
    await client.unregisterTask("wait");
    await expect(client.unregisterTask("wait")).rejects.toMatchObject({ code: "not_found" });
    expect(await failure(client, "wait", 2)).toMatchObject({ code: "not_found" });
    // What was called before goes on.
    open();
    expect(await before).toBe(1);
    await client.registerTask("wait", () => "another");
    expect(await result(client, "wait")).toBe("another");
  });

  test("are refused with a reason", async () => {
    const client = await used.connect();
    const fn = () => 1;
    for (const [wrong, options, text] of [
      [5, {}, /fn must be/],
      [null, {}, /fn must be/],
      [{ module: 5 }, {}, /module/],
      [{ module: TASKS, export: 5 }, {}, /export/],
      [fn, { isolated: 1 }, /isolated/],
      [fn, { isolate: true }, /isolate is not an option/],
      [fn, { concurrency: "2" }, /concurrency/],
    ]) {
      const refused = client.registerTask("wrong", wrong, options);
      await expect(refused).rejects.toThrow(TypeError);
      await expect(refused).rejects.toThrow(text);
    }
    for (const [wrong, options, text] of [
      [fn, { concurrency: 0 }, /concurrency is 0/],
      [fn, { isolated: true }, /module/],
      [fn, { memoryLimit: 1 << 26 }, /isolated/],
      [task("echo"), { isolated: true, memoryLimit: 1 << 20 }, /memoryLimit/],
      [{ module: "data:text/javascript,export default () => 1" }, {}, /file:/],
      [{ module: "data:text/javascript,export default () => 1" }, { isolated: true }, /file:/],
      [task("nothing"), { isolated: true }, /exports no function nothing; it exports .*echo/],
      [{ module: path.join(__dirname, "nowhere.mjs") }, { isolated: true }, /nowhere/],
      [{ module: pathToFileURL(path.join(__dirname, "programs/ends.mjs")) }, { isolated: true }, /ended before it was ready/],
    ]) {
      const refused = client.registerTask("wrong", wrong, options);
      await expect(refused).rejects.toMatchObject({ name: "KpsError", code: "invalid_argument", message: expect.stringMatching(text) });
    }
    for (const [name, code] of [["fibonacci", "conflict"], ["", "invalid_payload"], ["a b", "invalid_payload"]]) {
      await expect(client.registerTask(name, fn)).rejects.toMatchObject({ code });
    }
    await expect(client.registerTask(5, fn)).rejects.toThrow(TypeError);
    await expect(client.shareTask("nothing")).rejects.toMatchObject({ code: "not_found" });
    await expect(client.unshareTask("nothing")).rejects.toMatchObject({ code: "not_found" });
    await client.close(0);
    await expect(client.registerTask("late", fn)).rejects.toMatchObject({ code: "closed" });
  });

  test("throw what their callers get", async () => {
    const client = await used.connect();
    for (const how of ["here", "there"]) {
      const options = { isolated: how === "there", concurrency: 1 };
      await client.registerTask(how, how === "here" ? require(TASKS).fail : task("fail"), options);
      expect(await failure(client, how, "luck")).toMatchObject({ code: "internal", type: "RangeError", message: "no luck", retry: false });
      expect(await failure(client, how, "text")).toMatchObject({ code: "internal", message: "just text" });
      expect(await failure(client, how, "quota")).toMatchObject({ code: "quota_exceeded", message: "enough", retry: true, field: "n" });
      expect(await failure(client, how, "kps")).toMatchObject({ code: "not_found", message: "no such thing" });
      expect(await failure(client, how, "again")).toMatchObject({ code: "unavailable", message: "not now", retry: true });
      expect(await failure(client, how, "cyclic")).toMatchObject({ code: "internal", message: expect.stringMatching(/cannot travel/) });
    }
    // On this thread it may be called.
    expect(await failure(client, "there", "function")).toMatchObject({ code: "internal", message: expect.stringMatching(/deep\[0\].*stays/) });
  });

  test("see their signal aborted when nobody waits any more", async () => {
    const client = await used.connect();
    const [started, aborted] = [mailbox(), mailbox()];
    await client.registerTask("hang", (data, { signal, deadline }) => {
      started.put(deadline - Date.now());
      signal.addEventListener("abort", () => aborted.put(signal.reason.code));
      return new Promise(() => {});
    }, { concurrency: 1 });
    expect(await failure(client, "hang", 1, { timeout: 50 })).toMatchObject({ code: "timeout" });
    expect(await started.take()).toBeLessThanOrEqual(50);
    expect(["timeout", "cancelled"]).toContain(await aborted.take());
    const controller = new AbortController();
    const called = failure(client, "hang", 1, { timeout: 60_000, signal: controller.signal });
    expect(await started.take()).toBeGreaterThan(50_000);
    controller.abort();
    expect(await called).toMatchObject({ code: "cancelled" });
    expect(await aborted.take()).toBe("cancelled");
    // Its place is free again.
    await client.unregisterTask("hang");
  });
});

describe("isolated tasks", () => {
  test("run in workers that stay", async () => {
    const client = await isolated("thread");
    const first = await result(client, "thread");
    expect(first).toBeGreaterThan(0);
    expect(await result(client, "thread")).toBe(first);
    await client.registerTask("later", { module: pathToFileURL(TASKS), export: "later" }, { isolated: true, concurrency: 1 });
    expect(await result(client, "later", "x")).toEqual(["x", expect.any(Number)]);
    const es = path.join(__dirname, "compute-tasks.mjs");
    await client.registerTask("double", { module: path.relative(process.cwd(), es), export: "double" }, { isolated: true });
    await client.registerTask("list", { module: pathToFileURL(es).href }, { isolated: true });
    expect([await result(client, "double", 4), await result(client, "list", 4)]).toEqual([8, [4]]);
    const { tasks } = (await client.dispatch("compute.tasks")).unwrap();
    expect(tasks.find(({ name }) => name === "double").concurrency).toBe(os.availableParallelism());
  });

  test("are given, and give, values of every kind", async () => {
    const client = await isolated("echo");
    const matrix = Float64Array.of(1, 2, 3, 4, 5, 6);
    matrix.shape = [2, 3];
    const data = {
      big: -(7n ** 100n), bytes: Buffer.alloc(300_000, "x"), none: Buffer.alloc(0), list: [1, 0.5, null, true, "ü", { $int: "1" }, 2 ** 60],
      i64: BigInt64Array.of(-(2n ** 63n)), u8: Uint8ClampedArray.of(255), matrix, shared: new Uint8Array(new SharedArrayBuffer(3)).fill(1),
    };
    const back = await result(client, "echo", data);
    const { matrix: same, ...others } = back;
    expect({ ...others, matrix }).toEqual({ ...data, shared: Buffer.from([1, 1, 1]) });
    expect([back.bytes, back.none].every(Buffer.isBuffer)).toBe(true);
    expect([same.constructor.name, [...same], same.shape]).toEqual(["Float64Array", [...matrix], [2, 3]]);
    for (const value of [null, 0, "", [], false, Buffer.from("x")]) expect(await result(client, "echo", value)).toEqual(value);
    expect(await result(client, "echo")).toBe(null);
    // What the caller gave is still its own.
    expect([matrix.length, data.bytes.length]).toEqual([6, 300_000]);
    await client.registerTask("about", task("about"), { isolated: true, concurrency: 1 });
    const about = await result(client, "about", Buffer.from("x"), { timeout: 60_000 });
    expect(about).toMatchObject({ kind: "[object Uint8Array]", isBuffer: true, aborted: false });
    expect(about.left).toBeGreaterThan(50_000);
    expect(about.left).toBeLessThanOrEqual(60_000);
    expect(await failure(client, "echo", { list: [() => {}] })).toMatchObject({ code: "invalid_payload", message: expect.stringMatching(/function/) });
    expect(await result(client, "echo", { text: '"$function"', $function: 1, b: 7n ** 50n })).toEqual({ text: '"$function"', $function: 1, b: 7n ** 50n });
  });

  test("keep what they return", async () => {
    const client = await isolated("table");
    for (let n = 0; n < 3; n++) expect([...(await result(client, "table"))]).toEqual([1, 2, 3]);
  });

  test("may use their thread's own port", async () => {
    const client = await isolated("noisy");
    for (let n = 0; n < 3; n++) expect(await result(client, "noisy", n)).toBe(n);
  });

  test.each(["loop", "wait", "promise", "native"])("are ended at the deadline or a cancellation, and the next one runs: %s", async (how) => {
    const client = await isolated("hang");
    const first = await result(client, "hang");
    const begun = performance.now();
    while (hanging.items.length > 0) await hanging.take();
    const late = failure(client, "hang", how, { timeout: 1000 });
    await hanging.take();
    expect(await late).toMatchObject({ code: "timeout" });
    expect(performance.now() - begun).toBeLessThan(5000);
    const second = await result(client, "hang");
    expect(second).not.toBe(first);
    const controller = new AbortController();
    while (hanging.items.length > 0) await hanging.take();
    const hung = failure(client, "hang", how, { timeout: 60_000, signal: controller.signal });
    expect(await hanging.take()).toBe(second);
    const next = result(client, "hang", null, { timeout: 60_000 });
    controller.abort();
    expect(await hung).toMatchObject({ code: "cancelled" });
    const third = await next;
    expect([first, second]).not.toContain(third);
    expect(await result(client, "hang")).toBe(third);
  });

  test.each([
    ["exit", "internal", /exit code 3/],
    ["throw", "internal", /crashed.*later/],
    ["reject", "internal", /crashed.*unhandled/],
    ["memory", "quota_exceeded", /memory/],
  ])("that crash fail the call they work on, and that alone: %s", async (how, code, message) => {
    const client = await isolated("crash", { memoryLimit: 32 << 20 });
    const first = await result(client, "crash");
    const [crashed, next] = await Promise.all([failure(client, "crash", how, { timeout: 15_000 }), result(client, "crash", null, { timeout: 15_000 })]);
    expect(crashed).toMatchObject({ code, message: expect.stringMatching(message), retry: false });
    expect(next).not.toBe(first);
    expect(await result(client, "crash")).toBe(next);
  });

  test("whose callers have little time are ready again in spite of that", async () => {
    const client = await used.connect();
    const starting = mailbox();
    const channel = new BroadcastChannel("starting");
    channel.onmessage = ({ data }) => starting.put(data);
    try {
      const slow = { module: path.join(__dirname, "programs/slow.mjs"), export: "hang" };
      const registered = client.registerTask("hang", slow, { isolated: true, concurrency: 1 });
      await starting.take();
      channel.postMessage("go");
      await registered;
      const controller = new AbortController();
      while (hanging.items.length > 0) await hanging.take();
      const hung = failure(client, "hang", "loop", { timeout: 60_000, signal: controller.signal });
      await hanging.take();
      controller.abort();
      await hung;
      const second = await starting.take();
      for (let n = 0; n < 3; n++) expect(await failure(client, "hang", null, { timeout: 50 })).toMatchObject({ code: "timeout" });
      channel.postMessage("go");
      // The one that took its place, and none after it.
      expect(await result(client, "hang")).toBe(second);
      expect(starting.items).toEqual([]);
    } finally {
      channel.close();
    }
  });

  test("whose worker ends while it has nothing to do are none the worse", async () => {
    const client = await isolated("crash");
    for (let n = 0; n < 5; n++) {
      await result(client, "crash", "after");
      await result(client, "crash");
    }
  });

  test("a hundred crashes leave the pool whole", async () => {
    const client = await isolated("crash", { concurrency: 2 });
    const tasks = Array.from({ length: 200 }, (_, n) => ({ task: "crash", data: n % 2 ? "exit" : null }));
    const { results } = (await client.dispatch("compute.batch", { tasks }, { timeout: 60_000 })).unwrap();
    expect(results.map(({ status }) => status)).toEqual(tasks.map(({ data }) => (data ? "error" : "ok")));
    for (const { error } of results.filter(({ status }) => status === "error")) expect(error.message).toMatch(/exit code 3/);
    // Both places are there: two runs at once are in two workers.
    const { results: threads } = (await client.dispatch("compute.map", { task: "crash", items: Array(100).fill(null) })).unwrap();
    expect(new Set(threads).size).toBe(2);
  }, 90_000);

  test("run in parallel, in order", async () => {
    const client = await isolated("busy", { concurrency: 2 });
    const items = Array.from({ length: 40 }, (_, n) => 20_000 + n);
    const { results } = (await client.dispatch("compute.map", { task: "busy", items }, { timeout: 15_000 })).unwrap();
    expect(results).toEqual(items.map(require(TASKS).busy));
    const told = mailbox();
    const tasks = items.map((data) => ({ task: "busy", data }));
    const batch = client.dispatch("compute.batch", { tasks }, { timeout: 15_000, onProgress: told.put });
    expect((await batch).unwrap().results.map(({ data }) => data.result)).toEqual(results);
    expect(await told.take()).toMatchObject({ total: 40 });
  });

  test("ten thousand at once are each answered with their own", async () => {
    const client = await isolated("echo", { concurrency: 2 });
    const calls = Array.from({ length: 10_000 }, (_, n) => result(client, "echo", { n }, { timeout: 60_000 }));
    expect((await Promise.all(calls)).every(({ n }, index) => n === index)).toBe(true);
  }, 60_000);

  test("may be cancelled at every moment, and nobody gets another's answer", async () => {
    const client = await isolated("echo", { concurrency: 2 });
    for (let turn = 0; turn < 12; turn++) {
      const controller = new AbortController();
      const calls = Array.from({ length: 8 }, (_, n) => execute(client, "echo", n, { timeout: 60_000, ...(n % 2 ? { signal: controller.signal } : {}) }));
      for (let n = 0; n < turn; n++) await new Promise((resolve) => setImmediate(resolve));
      controller.abort();
      const responses = await Promise.all(calls);
      responses.forEach(({ ok, data, error }, n) => expect(ok ? data.result : [error.code, n % 2]).toEqual(ok ? n : ["cancelled", 1]));
    }
    const { results } = (await client.dispatch("compute.map", { task: "echo", items: [1, 2, 3] })).unwrap();
    expect(results).toEqual([1, 2, 3]);
  }, 60_000);

  const linux = fs.existsSync("/proc/thread-self") ? test : test.skip;
  linux("end with their registration, or with their client", async () => {
    const gone = async (thread) => {
      while (fs.existsSync(`/proc/${thread}`)) await new Promise((resolve) => setImmediate(resolve));
    };
    const client = await isolated("folder");
    const first = await result(client, "folder");
    expect(fs.existsSync(`/proc/${first}`)).toBe(true);
    await client.unregisterTask("folder");
    await gone(first);
    await client.registerTask("folder", task("folder"), { isolated: true, concurrency: 1 });
    const second = await result(client, "folder");
    await client.close();
    await gone(second);
  });
});

describe("shared tasks", () => {
  test("are done by the clients that share them", async () => {
    const [a, b, c] = [await used.connect(), await used.connect(), await used.connect()];
    const done = { a: 0, b: 0 };
    await a.registerTask("double", (data) => (done.a++, 2 * data), { shared: true });
    await b.registerTask("double", async (data) => (done.b++, 2 * data), { shared: true });
    const told = [];
    const items = Array.from({ length: 1000 }, (_, n) => n);
    const asked = { task: "double", items, chunk: 10 };
    const answer = await c.dispatch("compute.map", asked, { target: "any", timeout: 15_000, onProgress: (progress) => told.push(progress) });
    expect(answer.unwrap().results).toEqual(items.map((n) => 2 * n));
    expect(done.a + done.b).toBe(1000);
    expect(done.a * done.b).toBeGreaterThan(0);
    while (told.at(-1)?.done !== 1000) await new Promise((resolve) => setImmediate(resolve));
    await expect(a.shareTask("double")).rejects.toMatchObject({ code: "conflict" });
    await a.unregisterTask("double");
    expect(await result(c, "double", 4, { target: "any" })).toBe(8);
    await b.unshareTask("double");
    expect(await failure(c, "double", 4, { target: "any" })).toMatchObject({ code: "not_found", message: expect.stringMatching(/shares/) });
    expect(await result(b, "double", 4)).toBe(8);
    await b.shareTask("factorial");
    expect(await result(c, "factorial", 5, { target: b.id })).toBe(120);
    await b.unshareTask("factorial");
  });

  test("may be isolated, and end at the deadline of whoever calls", async () => {
    const provider = await isolated("hang", { shared: true });
    const caller = await used.connect();
    const thread = await result(caller, "hang", null, { target: "any" });
    expect(await failure(caller, "hang", "loop", { target: "any", timeout: 100 })).toMatchObject({ code: "timeout" });
    expect(await result(caller, "hang", null, { target: "any" })).not.toBe(thread);
    expect(await result(provider, "hang")).not.toBe(thread);
  });

  test("of a server's own are for who calls the server", async () => {
    await used.server.registerTask("mine", (data) => ["mine", data]);
    const client = await used.connect();
    expect(await result(client, "mine", 1, { target: "server" })).toEqual(["mine", 1]);
    await used.server.unregisterTask("mine");
    expect(await failure(client, "mine", 1, { target: "server" })).toMatchObject({ code: "not_found" });
  });

  test("a program with tasks ends when nothing is shared", async () => {
    for (const how of ["module", "isolated", "hung", "unref"]) {
      const { code, lines, stderr } = await program("tasks.js", used.url, how).ended;
      expect({ how, code, lines, stderr }).toEqual({ how, code: 0, lines: ["6"], stderr: "" });
    }
    const sharing = program("tasks.js", used.url, "shared");
    expect(await sharing.line()).toBe("6");
    const client = await used.connect();
    expect(await result(client, "total", [1, 2], { target: "any" })).toBe(3);
    expect(await result(client, "stop", null, { target: "any" })).toBe(null);
    expect(await sharing.ended).toMatchObject({ code: 0 });
  });
});
