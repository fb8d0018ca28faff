// An EventSource as it comes from npm, on each address it is given: says as one JSON line what it hears, and when it
// is open.
import { createRequire } from "node:module";

// It is installed with the other packages that tests need.
const { EventSource } = createRequire(new URL("../yjs/package.json", import.meta.url))("eventsource");

const NAMES = ["message", "resumed", "gap", "closed", "change", "ack", "conflict", "rejected"];

process.argv.slice(2).forEach((address, stream) => {
  const source = new EventSource(address);
  const say = (event, data = null, id = "") =>
    process.stdout.write(`${JSON.stringify({ stream, event, data, id })}\n`);
  source.addEventListener("open", () => say("open"));
  // Without `code` it is not asked to come back: the connection was refused for good.
  source.addEventListener("error", (error) => say("error", { code: error.code ?? null, state: source.readyState }));
  for (const name of NAMES) {
    source.addEventListener(name, (event) => say(name, JSON.parse(event.data), event.lastEventId));
  }
});
