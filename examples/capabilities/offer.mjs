// Offers a capability, and a task in worker threads, that a Python program (call.py) calls.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { connect } from "kps";

/** Works on words. */
class Text {
  count({ text }) {
    return { words: text.split(/\s+/).length };
  }

  async factorial({ n }) {
    let product = 1n;
    for (let k = 2n; k <= n; k++) product *= k;
    return product;
  }

  shout() {
    throw Object.assign(new Error("too loud"), { name: "ValueError" });
  }
}

const client = await connect(process.argv[2]);
await client.register("text", Text, { shared: true });
const steps = { module: new URL("steps.mjs", import.meta.url), export: "steps" };
await client.registerTask("steps", steps, { isolated: true, shared: true });
const caller = fileURLToPath(new URL("call.py", import.meta.url));
const child = spawn(process.env.PYTHON ?? "python3", [caller, process.argv[2]], { stdio: "inherit" });
await once(child, "exit");
await client.close();
