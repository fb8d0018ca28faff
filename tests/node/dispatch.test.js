"use strict";
// Calls of capabilities, and capabilities written here.

const { Worker } = require("node:worker_threads");
const kps = require("kps");
const { useServer, mailbox, gate, program } = require("./support");

const used = useServer();
let names = 0;

const programs = [];
const run = (...args) => {
  programs.push(program(...args));
  return programs.at(-1);
};
afterEach(() => programs.splice(0).forEach(({ kill }) => kill("SIGKILL")));

/** A name that no other test has. */
const fresh = () => `t${++names}`;

/** A client that offers `capability` under a new name, and one that calls it over the bus. */
async function pair(capability, options) {
  const [provider, caller] = [await used.connect(), await used.connect()];
  const name = fresh();
  await provider.register(name, capability, { shared: true, ...options });
  return { provider, caller, name };
}

const echo = { echo: (payload) => payload };

describe("values", () => {
  const matrix = Float64Array.of(1, 2, 3, 4, 5, 6);
  matrix.shape = [2, 3];
  const values = [
    ["null", null],
    ["booleans", [true, false]],
    ["numbers", [0, -1, 1.5, 2 ** 53 - 1, -(2 ** 53) + 1, 1e300, 5e-324]],
    ["integral doubles beyond 2^53", [2 ** 53, 2 ** 60, -(2 ** 63), 2 ** 64, 1e21]],
    ["bigints", [2n ** 53n, -(2n ** 64n), 7n ** 200n]],
    ["text", ["", "ü€😀", "a\0b", "\u2028"]],
    ["nested", { a: [{ b: { c: [[]] } }], d: {} }],
    ["members called like marks", [{ $int: "1" }, { $$part: 0 }, { $part: 0 }, { $function: 1 }, { $: { $bytes: "" } }, { $a: 1, $b: 2 }]],
    ["members called like marks beside special ones", { bytes: Buffer.from("x"), all: [{ $part: 0 }, { $$float: "1" }, { $int: 5n ** 50n }] }],
    ["a member called __proto__", JSON.parse('{"__proto__": {"x": 1}, "n": null}')],
    ["the same object twice", (() => { const one = { n: -(3n ** 50n) }; return [one, one]; })()],
  ];

  test.each(values)("%s come back as they were", async (_, value) => {
    const { provider, caller, name } = await pair(echo);
    for (const client of [provider, caller]) {
      for (const action of ["kps.ping", `${name}.echo`]) {
        expect((await client.dispatch(action, value)).unwrap()).toEqual(value);
      }
    }
  });

  test("bytes and arrays of numbers come back as what they are", async () => {
    const { provider, caller, name } = await pair(echo);
    const given = {
      buffer: Buffer.from([0, 255, 128]),
      bytes: new Uint8Array([1, 2]).subarray(1),
      none: Buffer.alloc(0),
      memory: new Uint8Array([9]).buffer,
      large: Buffer.alloc(100_000, "x"),
      f64: Float64Array.of(1.5, -0, NaN),
      f32: Float32Array.of(0.5),
      i64: BigInt64Array.of(-(2n ** 63n)),
      i32: new Int32Array([1, 2, 3]).subarray(1),
      i16: Int16Array.of(-3),
      i8: Int8Array.of(-128),
      u64: BigUint64Array.of(2n ** 64n - 1n),
      u32: Uint32Array.of(7),
      u16: Uint16Array.of(65535),
      u8: Uint8ClampedArray.of(255),
      matrix,
    };
    for (const client of [provider, caller]) {
      for (const action of ["kps.ping", `${name}.echo`]) {
        const back = (await client.dispatch(action, given)).unwrap();
        for (const key of ["buffer", "bytes", "none", "memory", "large"]) {
          expect(Buffer.isBuffer(back[key])).toBe(true);
          expect(back[key].equals(Buffer.from(given[key]))).toBe(true);
        }
        for (const key of ["f64", "f32", "i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8", "matrix"]) {
          expect([key, back[key].constructor.name]).toEqual([key, given[key].constructor.name]);
          expect([...back[key]]).toEqual([...given[key]]);
        }
        expect(back.matrix.shape).toEqual([2, 3]);
      }
    }
  });

  test("what JSON.stringify does with the rest, calls do", async () => {
    const client = await used.connect();
    class Point {
      constructor() {
        this.x = 1;
      }
      get y() {
        return 2;
      }
    }
    const given = {
      date: new Date(0), nothing: undefined, list: [undefined, Symbol("s")], symbol: Symbol("s"), map: new Map([[1, 2]]), point: new Point(),
      boxed: [Object(1), Object("a"), Object(true)], nan: NaN, own: { toJSON: () => "mine" }, bare: Object.assign(Object.create(null), { a: 1 }),
    };
    const back = (await client.dispatch("kps.ping", given)).unwrap();
    expect(back).toEqual(JSON.parse(JSON.stringify(given)));
    expect((await client.dispatch("kps.ping", { ...given, n: 1n })).unwrap()).toEqual({ ...back, n: 1 });
    expect((await client.dispatch("kps.ping")).unwrap()).toBe(null);
  });

  test("what cannot travel is refused by its field", async () => {
    const client = await used.connect();
    const cyclic = { list: [{}] };
    cyclic.list[0].parent = cyclic;
    let deep = {};
    for (let n = 0; n < 200; n++) deep = { d: deep };
    const wrong = Float64Array.of(1, 2, 3);
    wrong.shape = [2, 2];
    const throws = { get now() { throw new Error("not today"); } };
    for (const [payload, field, text] of [
      [cyclic, "list[0].parent", /contains itself/],
      [{ deep }, /^deep(\.d)+$/, /nested/],
      [[{ wrong }], "[0].wrong", /shape/],
      [{ a: throws }, /^a/, /not today/],
    ]) {
      const { status, error, attempts } = await client.dispatch("kps.ping", payload);
      expect([status, error.code, attempts]).toEqual(["error", "invalid_payload", 0]);
      expect(error.field).toEqual(typeof field === "string" ? field : expect.stringMatching(field));
      expect(error.message).toMatch(text);
    }
  });
});

describe("responses", () => {
  test("say what became of a call", async () => {
    const { caller, provider, name } = await pair(echo);
    const response = await caller.dispatch(`${name}.echo`, { a: 1 });
    expect(response).toBeInstanceOf(kps.Response);
    expect(response).toMatchObject({ status: "ok", ok: true, data: { a: 1 }, error: null, attempts: 1, provider: provider.id });
    expect(response.id).toMatch(/^[0-9a-f]{32}$/);
    expect(response.duration).toBeGreaterThan(0);
    expect(JSON.parse(JSON.stringify(response))).toEqual({
      id: response.id, status: "ok", data: { a: 1 }, duration: response.duration, attempts: 1, provider: provider.id,
    });
  });

  test("failures have codes, and unwrap throws them", async () => {
    const client = await used.connect();
    const response = await client.dispatch("storage.get", { key: 1 });
    expect(response).toMatchObject({ ok: false, status: "error", error: { code: "invalid_payload", field: "key", retry: false } });
    expect(Object.keys(response.toJSON())).toEqual(["id", "status", "error", "duration", "attempts"]);
    expect(() => response.unwrap()).toThrow(expect.objectContaining({ name: "KpsError", code: "invalid_payload", field: "key", retry: false }));
    for (const [action, code] of [["nobody.has", "unknown_capability"], ["undotted", "unknown_capability"], ["kps.nothing", "unknown_operation"]]) {
      expect((await client.dispatch(action)).error.code).toBe(code);
    }
    const remote = await client.dispatch("storage.save", { key: "k", value: () => {} }, { target: "server" });
    expect(remote.error).toMatchObject({ code: "invalid_payload", message: expect.stringMatching(/function/) });
    await client.close(0);
    expect((await client.dispatch("kps.ping")).error.code).toBe("closed");
  });

  test("wrong arguments throw", async () => {
    const client = await used.connect();
    await expect(client.dispatch(1)).rejects.toThrow(TypeError);
    await expect(client.dispatch("kps.ping", 1, { tiemout: 1 })).rejects.toThrow(/tiemout/);
    await expect(client.dispatch("kps.ping", 1, { signal: {} })).rejects.toThrow(/AbortSignal/);
    await expect(client.dispatch("kps.ping", 1, { onProgress: 1 })).rejects.toThrow(/function/);
    for (const options of [{ timeout: -1 }, { retry: -1 }, { retry: 1.5 }]) {
      await expect(client.dispatch("kps.ping", 1, options)).rejects.toMatchObject({ code: "invalid_argument" });
    }
    const nothing = { timeout: null, retry: null, target: null, idempotencyKey: null, onProgress: null, signal: null };
    expect((await client.dispatch("kps.ping", 1, nothing)).unwrap()).toBe(1);
  });

  test("a server dispatches too, and the server's own capabilities are there", async () => {
    expect((await used.server.dispatch("kps.ping", 5)).unwrap()).toBe(5);
    const client = await used.connect();
    expect((await client.dispatch("kps.ping", 6, { target: "server" })).provider).not.toBe(null);
  });

  test("the same works without a server", async () => {
    const client = await kps.connect("ws://127.0.0.1:1", { wait: false });
    try {
      await client.register("here", echo);
      expect((await client.dispatch("here.echo", [1])).unwrap()).toEqual([1]);
      (await client.dispatch("storage.save", { key: "k", value: 1n })).unwrap();
      expect((await client.dispatch("storage.get", { key: "k" })).data.value).toBe(1);
    } finally {
      await client.close(0);
    }
  });
});

describe("capabilities", () => {
  class Counter {
    static operations = { add: { type: "object", description: "Adds" } };
    #sum = 0;
    log = [];
    async init() {
      this.log.push("init");
    }
    add({ n }, context) {
      this.#sum += n;
      this.log.push(context.operation);
      return this.#sum;
    }
    later = async (payload) => payload;
    _hidden() {}
    get size() {
      return this.#sum;
    }
    close() {
      this.log.push("close");
    }
  }

  test("an object, an instance or a class; init and close; listed with what they describe", async () => {
    const client = await used.connect();
    const counter = new (class extends Counter {
      sub(payload) {
        return this.add({ n: -payload.n }, { operation: "sub" });
      }
    })();
    const [instance, ofClass] = [fresh(), fresh()];
    await client.register(instance, counter);
    await client.register(ofClass, Counter);
    expect((await client.dispatch(`${instance}.add`, { n: 5 })).unwrap()).toBe(5);
    expect((await client.dispatch(`${instance}.sub`, { n: 2 })).unwrap()).toBe(3);
    expect((await client.dispatch(`${instance}.later`, "x")).unwrap()).toBe("x");
    expect((await client.dispatch(`${ofClass}.add`, { n: 1 })).unwrap()).toBe(1);
    for (const hidden of ["_hidden", "init", "close", "constructor", "size", "toString"]) {
      expect((await client.dispatch(`${instance}.${hidden}`)).error.code).toBe("unknown_operation");
    }
    const { capabilities } = (await client.dispatch("kps.capabilities")).unwrap();
    const { operations, provider, shared } = capabilities.find(({ name }) => name === ofClass);
    expect([provider, shared]).toEqual(["local", false]);
    expect(operations.find(({ name }) => name === "add")).toEqual({ name: "add", summary: "Adds", schema: Counter.operations.add });
    expect(operations.map(({ name }) => name).sort()).toEqual(["add", "later"]);
    await client.unregister(instance);
    expect(counter.log).toEqual(["init", "add", "sub", "close"]);
    expect((await client.dispatch(`${instance}.add`, { n: 1 })).error.code).toBe("unknown_capability");
  });

  test("are closed with their client", async () => {
    const client = await used.connect();
    const counter = new Counter();
    await client.register(fresh(), counter, { shared: true });
    await client.close();
    expect(counter.log).toEqual(["init", "close"]);
  });

  test("are refused with a reason", async () => {
    const client = await used.connect();
    for (const wrong of [null, 1, () => {}, {}, class {}, { operations: { gone: {} }, here() {} }]) {
      await expect(client.register(fresh(), wrong)).rejects.toThrow(TypeError);
    }
    const name = fresh();
    await client.register(name, echo);
    for (const [taken, code] of [[name, "conflict"], ["storage", "conflict"], ["a.b", "invalid_payload"], ["", "invalid_payload"]]) {
      await expect(client.register(taken, echo)).rejects.toMatchObject({ name: "KpsError", code });
    }
    await expect(client.register(fresh(), echo, { concurrency: 0 })).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(client.unregister("nothing")).rejects.toMatchObject({ code: "not_found" });
    const failing = { init: () => Promise.reject(new kps.KpsError("quota_exceeded", "no more")), op: () => 1 };
    await expect(client.register("failing", failing)).rejects.toMatchObject({ code: "quota_exceeded", message: "no more" });
    expect((await client.dispatch("failing.op")).error.code).toBe("unknown_capability");
  });

  test("what they throw arrives", async () => {
    let tries = 0;
    const capability = {
      type: () => null.x,
      own: async () => {
        throw new kps.KpsError("not_found", "no such thing", { field: "name" });
      },
      again: () => {
        if (++tries < 3) throw new kps.Retry({ message: "not now" });
        return tries;
      },
      text: () => {
        throw "just text";
      },
      nothing: () => Promise.reject(undefined),
      cyclic: () => {
        const cyclic = {};
        return (cyclic.cyclic = cyclic);
      },
    };
    const { provider, caller, name } = await pair(capability);
    for (const client of [provider, caller]) {
      tries = 0;
      const error = async (operation) => (await client.dispatch(`${name}.${operation}`)).error;
      expect(await error("type")).toMatchObject({ code: "internal", type: "TypeError", message: expect.stringMatching(/null/), retry: false });
      expect(await error("type")).not.toHaveProperty("traceback");
      expect(await error("own")).toMatchObject({ code: "not_found", message: "no such thing", field: "name", retry: false });
      expect(await error("text")).toMatchObject({ code: "internal", message: "just text" });
      expect(await error("nothing")).toMatchObject({ code: "internal", message: "undefined" });
      expect(await error("cyclic")).toMatchObject({ code: "internal", message: expect.stringMatching(/cannot travel/) });
      expect(await error("again")).toMatchObject({ code: "unavailable", retry: true, message: "not now" });
      expect(await client.dispatch(`${name}.again`, null, { retry: 3 })).toMatchObject({ data: 3, attempts: 2 });
    }
    await provider.register(fresh(), capability, { debug: true });
    expect((await provider.dispatch(`t${names}.type`)).error.traceback).toMatch(/dispatch\.test\.js/);
  });

  test("know who calls, which attempt it is and until when", async () => {
    const { provider, caller, name } = await pair({
      about: (_, { id, caller, attempt, deadline, operation, signal }) => ({ id, caller, attempt, operation, left: deadline - Date.now(), aborted: signal.aborted }),
    });
    for (const [client, id] of [[provider, null], [caller, caller.id]]) {
      const { id: call, data } = await client.dispatch(`${name}.about`, null, { timeout: 60_000 });
      expect(data).toMatchObject({ id: call, caller: id, attempt: 1, operation: "about", aborted: false });
      expect(data.left).toBeGreaterThan(50_000);
      expect(data.left).toBeLessThanOrEqual(60_000);
    }
  });

  test("tell how far they are", async () => {
    const { provider, caller, name } = await pair({
      async work(_, context) {
        for (let n = 1; n <= 3; n++) context.progress({ n, bytes: Buffer.from("x") });
        return "done";
      },
    });
    for (const client of [provider, caller]) {
      const told = mailbox();
      const response = client.dispatch(`${name}.work`, null, { onProgress: told.put });
      for (let n = 1; n <= 3; n++) expect(await told.take()).toEqual({ n, bytes: Buffer.from("x") });
      expect((await response).unwrap()).toBe("done");
      // Nobody listens.
      expect((await client.dispatch(`${name}.work`)).unwrap()).toBe("done");
    }
  });

  test("two clients share one, and another takes over", async () => {
    const { provider, caller, name } = await pair({ who: () => 1 });
    const other = await used.connect();
    await other.register(name, { who: () => 2 }, { shared: true });
    const answers = new Set();
    for (let n = 0; n < 200; n++) answers.add((await caller.dispatch(`${name}.who`)).unwrap());
    expect([...answers].sort()).toEqual([1, 2]);
    expect((await other.dispatch(`${name}.who`, null, { target: provider.id })).unwrap()).toBe(1);
    await provider.unregister(name);
    for (let n = 0; n < 5; n++) expect((await caller.dispatch(`${name}.who`)).unwrap()).toBe(2);
  });

  test("may call others, also themselves", async () => {
    const { provider, caller, name } = await pair({
      async down(n) {
        return n === 0 ? 0 : 1 + (await provider.dispatch(`${name}.down`, n - 1)).unwrap();
      },
    });
    expect((await caller.dispatch(`${name}.down`, 50)).unwrap()).toBe(50);
  });

  test("get functions, in the same process", async () => {
    const client = await used.connect();
    const name = fresh();
    await client.register(name, { twice: ({ tell }) => [tell(1), tell({ b: Buffer.from("2") })].length });
    const told = mailbox();
    expect((await client.dispatch(`${name}.twice`, { tell: told.put })).unwrap()).toBe(2);
    expect([await told.take(), await told.take()]).toEqual([1, { b: Buffer.from("2") }]);
  });
});

describe("ends", () => {
  const hanging = () => {
    const [started, aborted] = [mailbox(), mailbox()];
    const hang = (_, { signal }) => {
      signal.addEventListener("abort", () => aborted.put(signal.reason.code));
      started.put(signal);
      return new Promise(() => {});
    };
    return { started, aborted, capability: { hang } };
  };

  test("a timeout aborts the handler's signal", async () => {
    const { aborted, capability } = hanging();
    const { provider, caller, name } = await pair(capability);
    for (const client of [provider, caller]) {
      const response = await client.dispatch(`${name}.hang`, null, { timeout: 50 });
      expect(response.error).toMatchObject({ code: "timeout", retry: true });
      expect(["timeout", "cancelled"]).toContain(await aborted.take());
    }
  });

  test("a signal cancels the call and the work", async () => {
    const { started, aborted, capability } = hanging();
    const { provider, caller, name } = await pair(capability);
    for (const client of [provider, caller]) {
      const controller = new AbortController();
      const response = client.dispatch(`${name}.hang`, null, { signal: controller.signal, timeout: 60_000 });
      expect((await started.take()).aborted).toBe(false);
      controller.abort();
      expect(await response).toMatchObject({ status: "error", error: { code: "cancelled", retry: false }, attempts: 1 });
      expect(await aborted.take()).toBe("cancelled");
      expect((await client.dispatch(`${name}.hang`, null, { signal: controller.signal })).error.code).toBe("cancelled");
      const { signal } = new AbortController();
      expect((await client.dispatch("kps.ping", 1, { signal })).unwrap()).toBe(1);
    }
    expect(started.items).toEqual([]);
  });

  test("a late answer reaches nobody, and a handler that looks late sees its signal aborted", async () => {
    const { open, opened } = gate();
    const seen = mailbox();
    const client = await used.connect();
    const name = fresh();
    await client.register(name, {
      async late(_, context) {
        await opened;
        seen.put(context.signal.aborted);
        return "late";
      },
    });
    expect((await client.dispatch(`${name}.late`, null, { timeout: 20 })).error.code).toBe("timeout");
    open();
    expect(await seen.take()).toBe(true);
    expect((await client.dispatch("kps.ping", 1)).unwrap()).toBe(1);
  });

  test("a call may be cancelled at every await: it ends once, its work too, and nothing is left", async () => {
    let running = 0;
    const steps = async (_, { signal }) => {
      running++;
      try {
        for (let step = 0; step < 5; step++) {
          await new Promise((resolve) => setImmediate(resolve));
          signal.throwIfAborted();
        }
        return "done";
      } finally {
        running--;
      }
    };
    const { provider, caller, name } = await pair({ steps });
    await provider.registerTask("steps", steps, { shared: true });
    const spread = { target: "any" };
    const calls = [
      [provider, `${name}.steps`, null, {}],
      [caller, `${name}.steps`, null, {}],
      [provider, "compute.execute", { task: "steps" }, {}],
      [caller, "compute.map", { task: "steps", items: [1, 2, 3], chunk: 1 }, spread],
      [caller, "compute.execute", { task: "factorial", data: 20_000 }, {}],
      [caller, "storage.save", { key: "k", value: 1 }, {}],
      [caller, "storage.list", { prefix: "k" }, { target: "server" }],
      [caller, "sync.broadcast", { channel: "c", event: "e", data: 1 }, {}],
    ];
    const codes = new Set();
    for (const [client, action, payload, options] of calls) {
      // At once, after so many microtasks, after so many turns of the loop.
      for (const [turns, wait] of [[4, () => Promise.resolve()], [8, () => new Promise((resolve) => setImmediate(resolve))]]) {
        for (let turn = 0; turn < turns; turn++) {
          const controller = new AbortController();
          const response = client.dispatch(action, payload, { ...options, signal: controller.signal, timeout: 60_000 });
          for (let n = 0; n < turn; n++) await wait();
          controller.abort();
          const { ok, error } = await response;
          codes.add(ok ? "ok" : error.code);
        }
      }
    }
    codes.delete("ok");
    expect([...codes]).toEqual(["cancelled"]);
    while (running > 0) await new Promise((resolve) => setImmediate(resolve));
    for (const [client, action, payload, options] of calls) expect(await client.dispatch(action, payload, options)).toMatchObject({ ok: true });
  });

  test("unregistering, or closing, ends calls under way", async () => {
    const { started, aborted, capability } = hanging();
    const { provider, caller, name } = await pair(capability);
    const first = caller.dispatch(`${name}.hang`, null, { timeout: 60_000 });
    await started.take();
    await provider.unregister(name);
    expect((await first).error.code).toBe("unavailable");
    expect(await aborted.take()).toBe("cancelled");
    await provider.register(name, capability, { shared: true });
    const second = caller.dispatch(`${name}.hang`, null, { timeout: 60_000 });
    await started.take();
    await provider.close();
    expect((await second).error).toMatchObject({ code: "unavailable", retry: true });
  });

  test("a provider's process is killed in the midst of a call", async () => {
    const caller = await used.connect();
    const name = fresh();
    const provider = run("provider.js", used.url, name);
    expect(await provider.line()).toBe("ready");
    const response = caller.dispatch(`${name}.hang`, null, { timeout: 60_000 });
    expect(await provider.line()).toBe("called");
    provider.kill("SIGKILL");
    expect((await response).error).toMatchObject({ code: "unavailable", retry: true });
    await provider.ended;
  });

  test("what keeps a process alive: a shared capability, a call, a watch; not what only the process itself can call", async () => {
    const caller = await used.connect();
    const name = fresh();
    const shared = run("provider.js", used.url, name);
    expect(await shared.line()).toBe("ready");
    expect((await caller.dispatch(`${name}.stop`)).unwrap()).toBe(null);
    expect(await shared.ended).toMatchObject({ code: 0 });
    for (const how of ["local", "unref", "progress"]) {
      const { code, lines, ms, stderr } = await run("provider.js", used.url, fresh(), how).ended;
      expect({ how, code, stderr }).toEqual({ how, code: 0, stderr: "" });
      expect(lines).toEqual(["ready"]);
      expect(ms).toBeLessThan(15_000);
    }
    const watching = run("provider.js", used.url, fresh(), "watch");
    expect(await watching.line()).toBe("ready");
    expect(await watching.line()).toBe("k");
    expect(await watching.ended).toMatchObject({ code: 0 });
  });

  test("worker threads call and offer, and end", async () => {
    const caller = await used.connect();
    const name = fresh();
    const code = `
      const { parentPort, workerData } = require("node:worker_threads");
      const kps = require(workerData.kps);
      kps.connect(workerData.url).then(async (client) => {
        await client.register(workerData.name, { echo: (x) => x, hang: () => new Promise(() => parentPort.postMessage("called")) }, { shared: true });
        parentPort.postMessage((await client.dispatch(workerData.name + ".echo", 7n ** 50n)).unwrap());
      });`;
    const messages = mailbox();
    const worker = new Worker(code, { eval: true, workerData: { kps: require.resolve("kps"), url: used.url, name } });
    worker.on("message", messages.put);
    worker.on("error", messages.put);
    expect(await messages.take()).toBe(7n ** 50n);
    expect((await caller.dispatch(`${name}.echo`, { a: Buffer.from("x") })).unwrap()).toEqual({ a: Buffer.from("x") });
    const hanging = caller.dispatch(`${name}.hang`, null, { timeout: 60_000 });
    expect(await messages.take()).toBe("called");
    await worker.terminate();
    expect((await hanging).error).toMatchObject({ code: "unavailable" });
  });
});

describe("functions", () => {
  test("storage tells of changes until nobody watches", async () => {
    const client = await used.connect();
    const changes = mailbox();
    const { watch } = (await client.dispatch("storage.watch", { prefix: "w/", callback: changes.put })).unwrap();
    (await client.dispatch("storage.save", { key: "w/a", value: { n: 2n ** 70n } })).unwrap();
    expect(await changes.take()).toMatchObject({ key: "w/a" });
    (await client.dispatch("storage.unwatch", { watch })).unwrap();
    (await client.dispatch("storage.save", { key: "w/b", value: 1 })).unwrap();
    (await client.dispatch("kps.ping")).unwrap();
    await new Promise((resolve) => setImmediate(resolve));
    expect(changes.items).toEqual([]);
  });
});

describe("many", () => {
  test("ten thousand calls at once, here and elsewhere", async () => {
    const { provider, caller, name } = await pair({ echo: async (payload) => payload });
    for (const client of [provider, caller]) {
      const calls = Array.from({ length: 10_000 }, (_, n) => client.dispatch(`${name}.echo`, { n }, { timeout: 60_000 }));
      const responses = await Promise.all(calls);
      expect(responses.every(({ data }, n) => data?.n === n)).toBe(true);
    }
  });

  test("calls of built-in tasks are answered in order of their kinds", async () => {
    const client = await used.connect();
    const numbers = Float64Array.from({ length: 100_000 }, (_, n) => n);
    const sum = await client.dispatch("compute.execute", { task: "sum", data: { array: numbers } });
    const factorial = await client.dispatch("compute.execute", { task: "factorial", data: { n: 30 } });
    expect([sum.data?.result ?? sum.error, factorial.data?.result ?? factorial.error]).toEqual([4_999_950_000, 265252859812191058636308480000000n]);
  });

  test("calls with one key are done once", async () => {
    let done = 0;
    const { caller, name } = await pair({ count: async () => ++done });
    const calls = Array.from({ length: 5 }, () => caller.dispatch(`${name}.count`, 1, { idempotencyKey: "k" }));
    expect((await Promise.all(calls)).map(({ data }) => data)).toEqual([1, 1, 1, 1, 1]);
  });
});
