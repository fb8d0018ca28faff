"use strict";
// Runs the language-neutral cases of tests/conformance against the Node package.

const fs = require("node:fs");
const path = require("node:path");
const { World } = require("./conformance-world.js");

const folder = path.join(__dirname, "..", "conformance", "cases");

for (const file of fs.readdirSync(folder).sort()) {
  const { row, cases, ways } = JSON.parse(fs.readFileSync(path.join(folder, file), "utf8"));
  describe(row, () => {
    for (const each of cases) {
      for (const [way, defaults] of waysOf(each.ways ?? ways)) {
        test(`${each.name} ${way}`.trim(), () => run(each, defaults), 30_000);
      }
    }
  });
}

function waysOf(ways = {}) {
  const all = Object.entries(ways);
  return all.length ? all : [["", {}]];
}

/** The step, with what its way adds. */
function inWay(step, defaults) {
  const added = { ...step };
  for (const [name, value] of Object.entries(defaults[step.do] ?? {})) {
    if (!(name in step)) added[name] = value;
    else if (typeof value === "object" && typeof step[name] === "object") added[name] = { ...value, ...step[name] };
  }
  return added;
}

async function run({ server = {}, steps }, defaults) {
  const world = new World();
  let at = "start";
  try {
    await world.startServer({ options: server });
    for (const step of steps.map((each) => inWay(each, defaults))) {
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
