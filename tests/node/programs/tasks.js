// Registers tasks, and ends when nothing needs it any more.
const path = require("node:path");
const { connect } = require("kps");

const [url, how] = process.argv.slice(2);
const task = (name) => ({ module: path.join(__dirname, "sums.mjs"), export: name });

connect(url).then(async (client) => {
  await client.registerTask("total", task("sum"), { isolated: how !== "module", shared: how === "shared" || how === "unref" });
  if (how === "unref") client.unref();
  if (how === "shared") {
    const stop = () => setImmediate(() => ["total", "stop"].forEach((name) => client.unregisterTask(name)));
    await client.registerTask("stop", () => void stop(), { shared: true });
  }
  if (how === "hung") {
    await client.registerTask("hang", task("hang"), { isolated: true });
    await client.dispatch("compute.execute", { task: "hang" }, { timeout: 50 });
  }
  const { result } = (await client.dispatch("compute.execute", { task: "total", data: [1, 2, 3] })).unwrap();
  console.log(String(result));
});
