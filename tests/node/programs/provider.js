// Offers a capability until it is killed or told to stop; or does something else that may keep it alive.
const { connect } = require("kps");

const [url, name, how] = process.argv.slice(2);

const ways = {
  local: (client) => client.register(name, { work: () => 1 }),
  async unref(client, capability) {
    await client.register(name, capability, { shared: true });
    client.unref();
  },
  // Hears of progress over the bus; when the answer is there, nothing is left.
  async progress(client) {
    const other = await connect(url);
    await other.register(name, { work: (_, context) => context.progress(1) }, { shared: true });
    await client.dispatch(`${name}.work`, null, { onProgress: () => {} });
    await other.close();
  },
  async watch(client) {
    const callback = async ({ key }) => {
      console.log(key);
      await client.dispatch("storage.unwatch", { watch });
    };
    const { watch } = (await client.dispatch("storage.watch", { prefix: "", callback })).unwrap();
    setTimeout(() => client.dispatch("storage.save", { key: "k", value: 1 }), 50).unref();
  },
};

connect(url).then(async (client) => {
  const capability = {
    hang: () => new Promise(() => console.log("called")),
    stop: () => void setImmediate(() => client.unregister(name)),
  };
  const way = ways[how] ?? (() => client.register(name, capability, { shared: true }));
  await way(client, capability);
  console.log("ready");
});
