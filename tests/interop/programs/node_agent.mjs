// A Node program that does what lines of JSON on its input say; see ../agents.py.
import { createInterface } from "node:readline";
import { connect } from "kps";

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const [url, name] = process.argv.slice(2);
const client = await connect(url, { id: name });

const does = {
  async subscribe({ topic, answer }) {
    await client.subscribe(topic, (message) => {
      say({ event: "message", topic: message.topic, data: message.data, sender: message.sender });
      return answer;
    });
  },
  async publish({ topic, data }) {
    await client.publish(topic, data, { receipt: "accepted" });
  },
  async ack({ topic, data }) {
    const rows = await client.publishWithAck(topic, data, 10_000).wait();
    return Object.fromEntries(Object.entries(rows).map(([who, { success, data }]) => [who, { success, data }]));
  },
  request: ({ topic, data }) => client.request(topic, data, 10_000),
  async direct({ to, data }) {
    await client.publishToId(to, data);
  },
  async hear() {
    client.on("message_to_id", (message) => say({ event: "direct", data: message.data }));
  },
};

say({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  say({ result: (await does[command.do](command)) ?? null });
}
await client.close();
