"use strict";
// Runs the language-neutral cases of tests/conformance against the Node package.

const fs = require("node:fs");
const path = require("node:path");
const { World } = require("./conformance-world.js");

const folder = path.join(__dirname, "..", "conformance", "cases");

for (const file of fs.readdirSync(folder).sort()) {
  const { row, cases } = JSON.parse(fs.readFileSync(path.join(folder, file), "utf8"));
  describe(row, () => {
    for (const each of cases) test(each.name, () => run(each), 30_000);
  });
}

async function run({ server = {}, steps }) {
  const world = new World();
  let at = "start";
  try {
    await world.startServer({ options: server });
    for (const step of steps) {
      at = JSON.stringify(step);
      await world.take(step);
    }
    await world.joinAll();
  } catch (error) {
    throw new Error(`in step ${at}: ${error.message ?? error}`, { cause: error });
  } finally {
    await world.end();
  }
}
