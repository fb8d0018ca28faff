// Calls a capability, and a task, that a program in another language offers, as if they were here.
import { connect } from "kps";

const client = await connect(process.argv[2]);
const counted = await client.dispatch("text.count", { text: "to be or not to be" }, { retry: 3, timeout: 10_000 });
console.log("words:", counted.unwrap().words);
console.log("30! =", String((await client.dispatch("text.factorial", { n: 30 })).data));
const failed = await client.dispatch("text.shout", { text: "hey" });
console.log("failed:", failed.error.code, failed.error.message);
console.log("unknown:", (await client.dispatch("text.whisper")).error.code);
const asked = { task: "steps", items: [6, 7, 27] };
const mapped = await client.dispatch("compute.map", asked, { target: "any", timeout: 10_000 });
console.log("steps:", ...mapped.unwrap().results);
await client.close();
