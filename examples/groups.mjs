// Members of a group share the messages: each goes to one of them.
import { connect } from "kps";

const url = process.argv[2];
const [boss, first, second] = await Promise.all([connect(url), connect(url), connect(url)]);
for (const worker of [first, second]) {
  await worker.subscribe("jobs", ({ data }) => data * data, { group: "workers" });
}
const done = [];
for (let number = 1; number <= 6; number++) {
  const rows = await boss.publishWithAck("jobs", number).wait();
  done.push(...Object.values(rows));
}
console.log("squares:", ...done.map((row) => row.data));
console.log("workers:", new Set(done.map((row) => row.clientId)).size);
await Promise.all([boss, first, second].map((client) => client.close()));
