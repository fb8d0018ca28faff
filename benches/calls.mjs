// What one call costs Node's main thread, in µs: `node benches/calls.mjs URL`; the twin of calls.py.
// Wall time of synchronous batches, so nothing but the call itself is in it. Medians of many batches.
import { connect } from "kps";
import { PAYLOAD } from "./peers/node/payload.mjs";

const BATCHES = 400;
const BATCH = 256;
const RAW = Buffer.from(JSON.stringify(PAYLOAD));

const client = await connect(process.argv[2]);

async function batches(run) {
  const samples = [];
  for (let batch = 0; batch < BATCHES; batch++) samples.push(await run());
  return samples.sort((a, b) => a - b)[BATCHES / 2] / BATCH;
}

const publish = (data) =>
  batches(async () => {
    const start = performance.now();
    for (let n = 0; n < BATCH; n++) client.publish("nobody", data);
    const took = performance.now() - start;
    await client.flush();
    return took;
  });

const answerer = await connect(process.argv[2]);
await answerer.subscribe("acks", () => null);

const ack = () =>
  batches(async () => {
    const start = performance.now();
    await Promise.all(Array.from({ length: BATCH }, () => client.publishWithAck("acks", PAYLOAD).wait()));
    return performance.now() - start;
  });

async function deliver(handler) {
  let left = 0;
  let arrived;
  const subscription = await client.subscribe("calls", (message) => {
    handler(message);
    if (--left === 0) arrived();
  });
  const cost = await batches(async () => {
    left = BATCH;
    const done = new Promise((resolve) => (arrived = resolve));
    for (let n = 0; n < BATCH; n++) client.publish("calls", PAYLOAD);
    const start = performance.now();
    await done;
    return performance.now() - start;
  });
  await subscription.unsubscribe();
  return cost;
}

const costs = {
  "publish an object": await publish(PAYLOAD),
  "publish a Buffer": await publish(RAW),
  "through the broker to a handler": await deliver(() => {}),
  "the same, reading message.data": await deliver((message) => message.data),
  "ack, answered in this process too": await ack(),
};
for (const [name, milliseconds] of Object.entries(costs)) {
  console.log(`${name.padEnd(34)}${(milliseconds * 1e3).toFixed(2).padStart(8)} µs`);
}
await client.close();
await answerer.close();
