// `compute.mjs PEER ROLE URL OPTIONS`: batches of 100 tasks, and what all cores win over one; ../python/compute.py.
// kps takes its built-in tasks where it has them, and else functions of tasks.mjs in worker threads, as piscina does.
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { cpuSeconds, middle, say, sorted, told } from "./process.mjs";
import * as tasks from "./tasks.mjs";

const WARMUP = 2;
const PAIRS = 5;
const TIMEOUT = 100_000;
const MODULE = new URL("./tasks.mjs", import.meta.url);
const WASM = new URL("../../../examples/wasm/mandelbrot.wasm", import.meta.url);

class Kps {
  async open() {
    const { connect } = await import("kps");
    this.client = await connect("mem://");
  }

  /** Makes a function of tasks.mjs a task that runs in worker threads. */
  async own(name) {
    await this.client.registerTask(name, { module: MODULE, export: name }, { isolated: true });
  }

  async batch(task, items) {
    const given = { tasks: items.map((data) => ({ task, data })) };
    const response = await this.client.dispatch("compute.batch", given, { timeout: TIMEOUT });
    return response.unwrap().results.map(({ data }) => data.result);
  }

  async one(task, data) {
    return (await this.client.dispatch("compute.execute", { task, data }, { timeout: TIMEOUT })).unwrap().result;
  }

  async load(name, wasm) {
    (await this.client.dispatch("compute.load", { name, wasm })).unwrap();
  }
}

class Piscina {
  async open(workers) {
    const { Piscina } = await import("piscina");
    this.pool = new Piscina({ filename: MODULE.href, minThreads: workers, maxThreads: workers });
  }

  async own() {}

  batch(name, items) {
    return Promise.all(items.map((item) => this.pool.run(item, { name })));
  }
}

async function batch(peer, { task, batches, cores }) {
  await peer.open(cores);
  if (task === "add" || task === "spin") await peer.own(task);
  const items = Array.from({ length: tasks.ITEMS }, () => tasks.GIVEN[task]);
  const expected = items.map(() => tasks[task](items[0]));
  const took = [];
  for (let number = 0; number < WARMUP + batches; number++) {
    const start = performance.now();
    const results = await peer.batch(task, items);
    if (number >= WARMUP) took.push((performance.now() - start) / 1e3);
    // kps' is_prime says how sure it is.
    assert.deepStrictEqual(results.map((each) => each?.prime ?? each), expected);
  }
  sorted(took);
  say("end", { p50: middle(took), worst: took.at(-1) });
  await told();
}

/** The same work one after another and all at once, in turns. */
async function scaling(peer, { kind, cores }) {
  await peer.open(cores);
  const count = (kind === "wasm" ? 8 : 128) * cores;
  const [task, data] = kind === "wasm" ? ["work", { width: 64, height: 64, steps: 500 }] : ["is_prime", tasks.PRIME];
  if (kind === "wasm") await peer.load(task, readFileSync(WASM));

  const spread = () => peer.batch(task, Array(count).fill(data));
  const alone = async () => {
    for (let number = 0; number < count; number++) await peer.one(task, data);
  };
  const measure = async (work) => {
    const [start, cpu] = [performance.now(), cpuSeconds()];
    await work();
    const took = (performance.now() - start) / 1e3;
    return { took, busy: (cpuSeconds() - cpu) / took };
  };

  await measure(spread);
  say("begin");
  const pairs = [];
  for (let pair = 0; pair < PAIRS; pair++) pairs.push({ alone: await measure(alone), spread: await measure(spread) });
  say("end", {
    speedup: middle(sorted(pairs.map(({ alone, spread }) => alone.took / spread.took))),
    busy: middle(sorted(pairs.map(({ spread }) => spread.busy))),
    one_ms: middle(sorted(pairs.map(({ alone }) => (alone.took / count) * 1e3))),
  });
  await told();
}

const [name, role, , json] = process.argv.slice(2);
await { batch, scaling }[role](new { kps: Kps, piscina: Piscina }[name](), JSON.parse(json));
process.exit(0);
