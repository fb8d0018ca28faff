// `local.mjs kps local URL OPTIONS`: what one call costs in one process, and what awaiting a function would.
import { connect } from "kps";
import { middle, say, sorted, told } from "./process.mjs";

const WARMUP = 2_000;
const { calls } = JSON.parse(process.argv[5]);

const client = await connect("mem://");
await client.register("noop", { plain: (payload) => payload, coroutine: async (payload) => payload });
let heard;
await client.dispatch("sync.subscribe", { channel: "room", callback: () => heard() });

async function p50(call) {
  const took = [];
  for (let number = 0; number < WARMUP + calls; number++) {
    const start = performance.now();
    await call();
    if (number >= WARMUP) took.push((performance.now() - start) / 1e3);
  }
  return middle(sorted(took));
}

const later = async (payload) => payload;
const figures = {
  await: await p50(() => later(null)),
  task: await p50(() => new Promise(setImmediate)),
  noop: await p50(() => client.dispatch("noop.plain", null)),
  noop_async: await p50(() => client.dispatch("noop.coroutine", null)),
  fibonacci: await p50(async () => {
    const { data } = await client.dispatch("compute.execute", { task: "fibonacci", data: { n: 1000 } });
    if (data.result < 10n ** 208n) throw new Error("another number");
  }),
  broadcast: await p50(async () => {
    const arrived = new Promise((resolve) => (heard = resolve));
    await client.dispatch("sync.broadcast", { channel: "room", event: "tick", data: 1 });
    await arrived;
  }),
};
say("end", { p50: figures });
await told();
process.exit(0);
