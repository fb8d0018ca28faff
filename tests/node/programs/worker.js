// Workers that connect, subscribe and publish; ended by themselves, by the parent, or with the process.
const { Worker, isMainThread, parentPort, workerData } = require("node:worker_threads");
const { connect } = require("kps");

async function work({ url, name }) {
  const client = await connect(url, { id: name });
  const subscription = await client.subscribe(`programs.${name}`, ({ data }) => data + 1);
  const answer = await client.request(`programs.${name}`, 1);
  parentPort.postMessage(answer);
  if (name.startsWith("short")) {
    await subscription.unsubscribe();
    client.publish("programs.worker", name);
  }
}

async function run(url) {
  const ended = [];
  for (let n = 0; n < 4; n++) {
    for (const kind of ["short", "long"]) {
      const worker = new Worker(__filename, { workerData: { url, name: `${kind}-${n}` } });
      const answer = await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
      if (answer !== 2) throw new Error(`answered ${answer}`);
      const end = new Promise((resolve) => worker.once("exit", resolve));
      if (kind === "long") await worker.terminate();
      ended.push(await end);
    }
  }
  new Worker(__filename, { workerData: { url, name: "long-last" } }).once("message", () => {
    console.log(JSON.stringify(ended));
    process.exit(0);
  });
}

if (isMainThread) run(process.argv[2]);
else work(workerData);
