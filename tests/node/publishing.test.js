"use strict";
// Receipts, acks, requests, back-pressure, events.

const kps = require("kps");
const { mailbox, useServer } = require("./support.js");

const used = useServer();
let client;
beforeEach(async () => (client = await used.connect()));

test("a_receipt_is_lazy_and_awaits_its_level", async () => {
  const plain = client.publish("publishing.t", 1);
  expect(plain.id).toMatch(/.-\d+$/);
  expect(await plain).toBe("queued");
  const accepted = client.publish("publishing.t", 1, { receipt: "accepted" });
  expect(await accepted).toBe("accepted");
  expect(await accepted).toBe("accepted");
  const own = client.publish("publishing.t", 1, { id: "own" });
  expect(own.id).toBe("own");
});

test("a_refusal_nobody_awaits_is_an_event_and_no_unhandled_rejection", async () => {
  const unhandled = jest.fn();
  process.on("unhandledRejection", unhandled);
  const failed = mailbox();
  client.on("publish_failed", (id, error) => failed.put([id, error.code]));
  const receipt = client.publishToServer("192.0.2.1:9313", 1);
  expect(await failed.take()).toEqual([receipt.id, "forbidden_address"]);
  await new Promise(setImmediate);
  expect(unhandled).not.toHaveBeenCalled();
  process.off("unhandledRejection", unhandled);
  await expect(receipt).rejects.toMatchObject({ code: "forbidden_address" });
});

test("at_the_hard_bound_publish_throws_at_once_and_queues_nothing", async () => {
  const offline = await kps.connect("ws://127.0.0.1:9", { wait: false, outboxSoft: 50_000, outboxHard: 100_000 });
  const data = Buffer.alloc(10_000);
  let queued = 0;
  const error = (() => {
    for (;;) {
      try {
        offline.publish("publishing.t", data);
        queued += 1;
      } catch (error) {
        return error;
      }
    }
  })();
  expect(error).toBeInstanceOf(kps.KpsError);
  expect(error.code).toBe("outbox_full");
  expect(offline.ledger()).toMatchObject({ published: queued, pending: queued });
  const report = await offline.close(0);
  expect(report.abandoned).toHaveLength(queued);
});

test("above_the_soft_bound_awaiting_waits_for_room_and_closing_rejects_it", async () => {
  const offline = await kps.connect("ws://127.0.0.1:9", { wait: false, outboxSoft: 1000 });
  expect(await offline.publish("publishing.t", "x")).toBe("queued");
  const receipt = offline.publish("publishing.t", Buffer.alloc(2000));
  const waiting = expect(receipt).rejects.toMatchObject({ code: "closed" });
  await offline.close(0);
  await waiting;
});

test("a_million_bytes_in_a_burst_flow_past_the_soft_bound", async () => {
  const small = await used.connect({ outboxSoft: 10_000 });
  const done = mailbox();
  let got = 0;
  await client.subscribe("publishing.burst", () => {
    if (++got === 10_000) done.put();
  });
  for (let n = 0; n < 10_000; n++) await small.publish("publishing.burst", Buffer.alloc(100));
  await done.take();
  expect(small.ledger().published).toBe(10_000);
}, 30_000);

test("acks_resolve_their_own_rows_whatever_the_order", async () => {
  await client.subscribe("publishing.shuffled", async ({ data }) => {
    for (let turns = 5 - (data % 5); turns > 0; turns--) await new Promise(setImmediate);
    return data;
  }, { concurrency: 100 });
  const answers = await Promise.all(Array.from({ length: 500 }, (_, n) => client.publishWithAck("publishing.shuffled", n).wait()));
  answers.forEach((rows, n) => expect(rows[client.id].data).toBe(n));
});

test("rows_stream_as_an_iterator", async () => {
  const others = await Promise.all([used.connect({ id: "one" }), used.connect({ id: "two" })]);
  for (const other of others) await other.subscribe("publishing.rows", () => other.id);
  const rows = [];
  const ack = client.publishWithAck("publishing.rows", 1);
  for await (const row of ack) rows.push([row.clientId, row.data, row.latency >= 0]);
  expect(rows.sort()).toEqual([["one", "one", true], ["two", "two", true]]);
  expect(ack.isComplete()).toBe(true);
  expect(ack.status()).toEqual({ one: true, two: true });
});

test("a_request_waits_for_the_first_success_and_fails_with_a_code", async () => {
  await client.subscribe("publishing.asked", ({ data }) => data * 2);
  expect(await client.request("publishing.asked", 21)).toBe(42);
  await expect(client.request("publishing.nobody", 1)).rejects.toMatchObject({ code: "no_responders" });
  await client.subscribe("publishing.never", () => new Promise(() => {}));
  await expect(client.request("publishing.never", 1, 50)).rejects.toMatchObject({ code: "timeout" });
});

test("direct_messages_go_to_one_client_and_are_answered_by_its_first_handler", async () => {
  const bob = await used.connect({ id: "bob" });
  const heard = mailbox();
  const remove = bob.on("message_to_id", (message) => `hello ${message.sender}`);
  bob.on("message_to_id", (message) => heard.put(message.data));
  const rows = await client.publishToIdWithAck("bob", "hi").wait();
  expect(rows.bob.data).toBe(`hello ${client.id}`);
  expect(await heard.take()).toBe("hi");
  remove();
  await client.publishToId("bob", "again");
  expect(await heard.take()).toBe("again");
});

test("closing_settles_everything_that_waits", async () => {
  await client.subscribe("publishing.silent", () => new Promise(() => {}));
  const other = await used.connect();
  const iterator = (await other.subscribe("publishing.nothing"))[Symbol.asyncIterator]();
  const request = expect(other.request("publishing.silent", 1)).rejects.toBeInstanceOf(kps.KpsError);
  const next = iterator.next();
  const closed = mailbox();
  other.on("closed", closed.put);
  const report = await other.close();
  expect(report).toEqual({ flushed: expect.any(Number), kept: 0, abandoned: [] });
  expect(await other.close()).toBe(report);
  await request;
  expect((await next).done).toBe(true);
  expect(await closed.take()).toBe(null);
  expect(other.state).toBe("closed");
  await expect(other.flush()).rejects.toMatchObject({ code: "closed" });
});

test("the_timeline_tells_what_happened", () => {
  expect(client.timeline().map(({ event }) => event)).toContain("connection_opened");
  expect(Math.abs(client.timeline()[0].time - Date.now())).toBeLessThan(60_000);
});
