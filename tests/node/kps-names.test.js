"use strict";
// Programs written for KPS: its names, its argument order, its shapes.

const { Client, NewServer } = require("kps");
const { mailbox, useServer } = require("./support.js");

const used = useServer();
const clients = [];

async function newClient(options) {
  const client = await Client.NewClient({ Address: used.server.address, ...options });
  clients.push(client);
  return client;
}

/** `Subscribe` returns at once; what follows must not overtake it. */
async function subscribed(topic, count = 1) {
  while (used.server.countSubscribers(topic) < count) await new Promise(setImmediate);
}

afterEach(() => Promise.all(clients.splice(0).map((client) => client.Close())));

test("Subscribe_hands_over_data_and_a_function_that_unsubscribes", async () => {
  const client = await newClient({ Id: "js" });
  expect(client.Id).toBe("js");
  const got = mailbox();
  const unsubscribe = client.Subscribe("test.one", (data, unsub) => got.put([data, typeof unsub]));
  await subscribed("test.one");
  client.Publish("test.one", { n: 1 });
  expect(await got.take()).toEqual([{ n: 1 }, "function"]);
  unsubscribe();
  while (used.server.countSubscribers("test.one") > 0) await new Promise(setImmediate);
});

test("a_second_callback_replaces_the_first", async () => {
  const client = await newClient();
  const got = mailbox();
  client.Subscribe("test.replaced", () => got.put("first"));
  client.Subscribe("test.replaced", (_, unsub) => {
    got.put("second");
    unsub();
  });
  await subscribed("test.replaced");
  client.Publish("test.replaced", 1);
  expect(await got.take()).toBe("second");
  expect(got.items).toEqual([]);
});

test("acks_have_the_shapes_of_KPS", async () => {
  const asker = await newClient({ Id: "asker" });
  const good = await newClient({ Id: "good" });
  const bad = await newClient({ Id: "bad" });
  good.Subscribe("test.ack", () => "ignored");
  bad.Subscribe("test.ack", () => {
    throw new Error("broken");
  });
  await subscribed("test.ack", 2);
  const ack = asker.PublishWithAck("test.ack", { task: 1 }, 5000);
  expect(await ack.Wait()).toEqual({
    good: { ack_id: ack.ID, client_id: "good", success: true },
    bad: { ack_id: ack.ID, client_id: "bad", success: false, error: "broken" },
  });
  expect(await ack.GetStatus()).toEqual({ good: true, bad: false });
  expect(await ack.IsComplete()).toBe(false);
  const { response, success } = await asker.PublishWithAck("test.ack", 1).WaitAny();
  expect(success).toBe(true);
  expect(["good", "bad"]).toContain(response.client_id);
});

test("Cancel_ends_Wait_with_nothing", async () => {
  const client = await newClient();
  client.Subscribe("test.cancel", () => new Promise(() => {}));
  await subscribed("test.cancel");
  const ack = client.PublishWithAck("test.cancel", 1, 5000);
  const waiting = ack.Wait();
  ack.Cancel();
  expect(await waiting).toEqual({});
  expect(await ack.WaitAny()).toEqual({ response: {}, success: false });
});

test("nobody_is_not_complete", async () => {
  const client = await newClient();
  const ack = client.PublishWithAck("test.nobody", 1);
  expect(await ack.Wait()).toEqual({});
  expect(await ack.IsComplete()).toBe(false);
});

test("OnId_OnDataWs_and_OnClose_are_called", async () => {
  const [direct, frames, closed] = [mailbox(), mailbox(), mailbox()];
  const receiver = await newClient({ Id: "receiver", OnId: direct.put, OnDataWs: frames.put, OnClose: closed.put });
  const sender = await newClient({ Id: "sender" });
  sender.PublishToID("receiver", "psst");
  expect(await direct.take()).toEqual({ data: "psst", from: "sender" });
  expect(await frames.take()).toEqual({ action: "direct_message", data: "psst", from: "sender" });
  expect(await sender.PublishToIDWithAck("receiver", "answer me", 5000).Wait()).toMatchObject({ receiver: { success: true } });
  await receiver.Close();
  await closed.take();
});

test("a_server_is_set_up_and_then_runs", async () => {
  const server = NewServer();
  const got = mailbox();
  const ids = mailbox();
  server.OnID(ids.put);
  server.OnUpgradeWS(({ clientId }) => clientId !== "mallory");
  server.Subscribe("test.server", (data) => got.put(data));
  expect(() => server.PublishWithAck("test.server", 1)).toThrow("Run");
  await server.Run("127.0.0.1:0");
  const client = await Client.NewClient({ Address: server.address, Id: "alice" });
  while (server.CountSubscribers("test.server") < 1) await new Promise(setImmediate);
  client.Publish("test.server", "hello");
  expect(await got.take()).toBe("hello");
  expect(server.CountClients()).toBe(1);
  await expect(Client.NewClient({ Address: server.address, Id: "mallory" })).rejects.toMatchObject({ code: "unauthorized" });
  await client.Close();
  await server.Close();
});

test("PublishToServer_reaches_another_servers_handlers", async () => {
  const server = NewServer();
  const got = mailbox();
  server.OnServerData(got.put);
  await server.Run(":0");
  const client = await newClient();
  client.PublishToServer(server.address, { topic: "x", data: 1 });
  expect(await got.take()).toEqual({ topic: "x", data: 1 });
  await server.Close();
});
