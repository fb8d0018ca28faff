// A text that a person and an agent write at once: the agent streams its tokens, and both see one text.
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "kps";

const NAME = `bees-${Date.now()}`; // a new one each time: a document stays when its writers go
const TOKENS = ["Bees ", "dance ", "to ", "say ", "where ", "the ", "flowers ", "are."];

/** Waits until all have the same text. */
async function agree(...documents) {
  while (new Set(documents.map(({ text }) => text)).size > 1) await sleep(1);
}

const [person, bot] = [await connect(process.argv[2], { id: "ann" }), await connect(process.argv[2], { id: "bot" })];
const ann = await person.openDocument(NAME);
const agent = await bot.openDocument(NAME, { author: "agent" });

const edited = ann.append("# Bees\n\n");
console.log("at once:", ann.text.trim());
console.log("at the server:", (await edited).version);
await agree(ann, agent);

const stream = agent.stream();
for (const token of TOKENS) stream.write(token);
await stream.close();
await agree(ann, agent);
console.log(ann.text);

// Both edit the same version: one of them is rebased.
await Promise.all([ann.replaceText("Bees\n", "The language of bees\n"), agent.append(" They do it in the dark.")]);
await agree(ann, agent);
console.log(ann.text);

await agent.undo();
await agree(ann, agent);
console.log("without the last sentence:", ann.text.includes("dark") ? "False" : "True");

// An agent that wants to know when others were faster.
const careful = await bot.openDocument(NAME, { author: "careful", rebase: false });
const stale = { id: NAME, op_id: "1", base_version: 'W/"1"', edit: { type: "append", text: "?" } };
const conflict = new Promise((resolve) => careful.on("conflict", resolve));
await bot.dispatch("document.edit", stale);
const event = await conflict;
console.log("a stale edit is a", event.event, "and brings", event.missing_ops.length > 0 ? "True" : "False");

try {
  ann.replaceText("wasps", "bees");
} catch (error) {
  console.log("not done:", error.code);
}
console.log("not stored yet:", (await ann.close()).length);
await person.close();
await bot.close();
