// One process of a benchmark: `worker.mjs PEER ROLE URL OPTIONS`, driven by lines on stdin; the twin of ../python/worker.py.
import { createInterface } from "node:readline";
import { FIRST, PAYLOAD } from "./payload.mjs";

const [name, role, url, json] = process.argv.slice(2);
const options = JSON.parse(json);
const { Peer } = await import(`./peer_${name}.mjs`);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const told = () => lines.next();

function cpuSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function say(event, values = {}) {
  const at = Number(process.hrtime.bigint()) / 1e9;
  process.stdout.write(JSON.stringify({ event, at, cpu: cpuSeconds(), ...values }) + "\n");
}

/** A function for every decoded payload: insists on 1, 2, 3, … and calls `reached` at each mark. */
function checker(marks, reached) {
  let expected = FIRST;
  let mark = FIRST + marks.shift() - 1;
  return ({ n }) => {
    if (n !== expected) {
      say("broken", { expected: expected - FIRST, got: n - FIRST });
      expected = n;
    }
    expected += 1;
    if (n === mark) {
      mark = FIRST + (marks.shift() ?? Infinity) - 1;
      reached();
    }
  };
}

async function openAll(count) {
  const peers = Array.from({ length: count }, () => new Peer(url));
  for (const peer of peers) await peer.open();
  return peers;
}

const roles = {
  async publish() {
    const [peer] = await openAll(1);
    const measured = FIRST + options.warmup;
    say("ready");
    await told();
    await peer.publish(options.topic, FIRST, measured);
    say("warm");
    await told();
    say("start");
    await peer.publish(options.topic, measured, measured + options.count);
    await told();
    say("end");
  },

  async subscribe() {
    const waiting = { warm: options.connections, end: options.connections };
    await new Promise((done) => {
      const reached = (stage) => {
        waiting[stage] -= 1;
        if (waiting[stage] > 0) return;
        say(stage);
        if (stage === "end") done();
      };
      openAll(options.connections).then(async (peers) => {
        for (const peer of peers) {
          const stages = ["warm", "end"];
          const marks = [options.warmup, options.warmup + options.count];
          await peer.subscribe(options.topic, checker(marks, () => reached(stages.shift())), options.start);
        }
        say("ready");
      });
    });
    await told();
  },

  async answer() {
    const [peer] = await openAll(1);
    await peer.answer("bench");
    say("ready");
    await told();
  },

  async request() {
    const [peer] = await openAll(1);
    say("ready");
    await told();

    const ask = async (n) => {
      const answer = await peer.request("bench", { ...PAYLOAD, n });
      if (answer.n !== n) throw new Error("an answer went to the wrong request");
    };
    const volley = async (count) => {
      let next = 0;
      const worker = async () => {
        while (next < count) await ask(next++);
      };
      await Promise.all(Array.from({ length: 64 }, worker));
    };

    await volley(options.warmup);
    const latencies = [];
    for (let n = 0; n < options.alone; n++) {
      const start = performance.now();
      await ask(n);
      latencies.push((performance.now() - start) / 1e3);
    }
    latencies.sort((a, b) => a - b);
    const start = performance.now();
    const cpu = cpuSeconds();
    await volley(options.count);
    const took = (performance.now() - start) / 1e3;
    say("end", {
      p50: latencies[Math.floor(options.alone / 2)],
      p99: latencies[Math.floor(options.alone * 0.99)],
      rate: options.count / took,
      cpu_each: (cpuSeconds() - cpu) / options.count,
    });
    await told();
  },
};

await roles[role]();
process.exit(0);
