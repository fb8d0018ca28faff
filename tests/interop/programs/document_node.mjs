// Opens a document, says each of its events as one line, and does what lines on stdin say.
import { createInterface } from "node:readline";
import { connect } from "kps";

const client = await connect(process.argv[2], { id: "node" });
const document = await client.openDocument(process.argv[3], { rebase: false });
document.on("*", (event) => console.log(JSON.stringify(event)));
console.log("ready");

for await (const line of createInterface({ input: process.stdin })) {
  const { action, payload } = JSON.parse(line);
  await client.dispatch(action, payload);
}
await client.close();
