"use strict";
// `storage.watch`: changes of this process' storage, and of the server's as messages of the bus.

const kps = require("kps");
const { Link } = require("./link");
const { useServer, mailbox } = require("./support");

const used = useServer();

async function watch(client, prefix, target) {
  const changes = mailbox();
  const response = await client.dispatch("storage.watch", { prefix, callback: changes.put }, { target });
  return { changes, name: response.unwrap().watch, told: async () => { const { event, key } = await changes.take(); return [event, key]; } };
}

const unwatch = async (client, name, target) => (await client.dispatch("storage.unwatch", { watch: name }, { target })).unwrap().unwatched;
const save = async (client, key, target) => (await client.dispatch("storage.save", { key, value: 1 }, { target })).unwrap();

test.each([["server"], [undefined]])("every change is told in order until the watch ends (target %s)", async (target) => {
  const client = await used.connect();
  const writer = target ? await used.connect() : client;
  const { changes, name, told } = await watch(client, "w/", target);
  const { key, etag, size, modified } = await save(writer, "w/1", target);
  await save(writer, "elsewhere", target);
  await save(writer, "w/2", target);
  (await writer.dispatch("storage.delete", { key: "w/1" }, { target })).unwrap();
  expect(await changes.take()).toEqual({ event: "saved", key, etag, size, modified });
  expect(await told()).toEqual(["saved", "w/2"]);
  expect(await told()).toEqual(["deleted", "w/1"]);
  expect(await unwatch(client, name, target)).toBe(true);
  expect(await unwatch(client, name, target)).toBe(false);
  await save(writer, "w/3", target);
  const again = await watch(client, "", target);
  await save(writer, "w/4", target);
  // What was saved just before may have been told only now.
  while ((await again.told())[1] !== "w/4");
  expect(changes.items).toEqual([]);
});

test("a connection that comes back misses nothing", async () => {
  const link = new Link(() => used.server.address);
  await link.open();
  const [client, writer] = [await kps.connect(`ws://${link.address}`), await used.connect()];
  try {
    const { told } = await watch(client, "back/", "server");
    link.cut();
    for (const key of ["back/a", "back/b"]) await save(writer, key, "server");
    link.restore();
    expect(await told()).toEqual(["saved", "back/a"]);
    expect(await told()).toEqual(["saved", "back/b"]);
  } finally {
    await client.close(0);
    link.close();
  }
});

test("after a restart the watch goes on and says that changes may be missing", async () => {
  let server = await kps.Server.start({ listen: "127.0.0.1:0" });
  const { address, url } = server;
  const client = await kps.connect(url);
  try {
    const { changes, told } = await watch(client, "w/", "server");
    await server.close(0);
    server = await kps.Server.start({ listen: address });
    expect(await changes.take()).toEqual({ event: "gap", reason: "new_epoch", count: null });
    await save(server, "w/k", undefined);
    expect(await told()).toEqual(["saved", "w/k"]);
  } finally {
    await client.close(0);
    await server.close(0);
  }
});

test.each([
  ["watch", {}, "callback"],
  ["watch", { callback: 1 }, "callback"],
  ["watch", { callback: () => {}, prefix: 1 }, "prefix"],
  ["unwatch", {}, "watch"],
  ["unwatch", { watch: 1 }, "watch"],
])("a wrong %s %o is refused by the name of the field", async (operation, payload, field) => {
  const client = await used.connect();
  for (const target of ["server", undefined]) {
    const { error } = await client.dispatch(`storage.${operation}`, payload, { target });
    expect(error).toMatchObject({ code: "invalid_payload", field });
  }
});
