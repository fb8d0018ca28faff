// One process of a benchmark: `worker.mjs PEER ROLE URL OPTIONS`, driven by lines on stdin; the twin of ../python/worker.py.
import { FIRST, PAYLOAD } from "./payload.mjs";
import { cpuSeconds, middle, say, sorted, told } from "./process.mjs";

const [name, role, url, json] = process.argv.slice(2);
const options = JSON.parse(json);
const { Peer } = await import(`./peer_${name}.mjs`);

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

  /** One request at a time, then 64 at once. */
  async request() {
    await askAll((peer, payload) => peer.request("bench", payload), 64);
  },

  async offer() {
    const [peer] = await openAll(1);
    await peer.offer("bench");
    say("ready");
    await told();
  },

  /** One call at a time, then many at once. */
  async call() {
    await askAll((peer, payload) => peer.call("bench", payload), options.together);
  },
};

async function askAll(request, together) {
  const [peer] = await openAll(1);
  say("ready");
  await told();

  const ask = async (n) => {
    const start = performance.now();
    const answer = await request(peer, { ...PAYLOAD, n });
    if (answer.n !== n) throw new Error("an answer went to the wrong request");
    return (performance.now() - start) / 1e3;
  };
  const volley = async (count) => {
    let next = 0;
    const took = [];
    const worker = async () => {
      while (next < count) took.push(await ask(next++));
    };
    await Promise.all(Array.from({ length: together }, worker));
    return sorted(took);
  };
  const p99 = (latencies) => latencies[Math.floor(latencies.length * 0.99)];

  await volley(options.warmup);
  const alone = [];
  for (let n = 0; n < options.alone; n++) alone.push(await ask(n));
  sorted(alone);
  const start = performance.now();
  const cpu = cpuSeconds();
  const all = await volley(options.count);
  const took = (performance.now() - start) / 1e3;
  say("end", {
    p50: middle(alone),
    p99: p99(alone),
    together_p50: middle(all),
    together_p99: p99(all),
    rate: options.count / took,
    cpu_each: (cpuSeconds() - cpu) / options.count,
  });
  await told();
}

await roles[role]();
process.exit(0);
