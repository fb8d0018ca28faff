"use strict";
// Handlers, iterators and batches: order, concurrency, credit, fairness.

const kps = require("kps");
const { gate, mailbox, useServer } = require("./support.js");

const used = useServer();
let publisher, subscriber;
beforeEach(async () => ([publisher, subscriber] = await Promise.all([used.connect(), used.connect()])));

async function publishAll(topic, count) {
  for (let n = 0; n < count; n++) {
    const receipt = publisher.publish(topic, n);
    if (n % 256 === 0) await receipt;
  }
}

test("a_hundred_thousand_messages_arrive_in_order", async () => {
  const COUNT = 100_000;
  const done = mailbox();
  let next = 0;
  await subscriber.subscribe("delivery.many", ({ data }) => {
    if (data !== next) throw done.put(`${data} instead of ${next}`);
    if (++next === COUNT) done.put("all");
  });
  await publishAll("delivery.many", COUNT);
  expect(await done.take()).toBe("all");
}, 60_000);

test("async_handlers_run_one_at_a_time_in_order", async () => {
  const COUNT = 5000;
  const done = mailbox();
  const seen = [];
  let running = 0;
  await subscriber.subscribe("delivery.async", async ({ data }) => {
    if (++running > 1) done.put("two at once");
    await null;
    seen.push(data);
    await new Promise(setImmediate);
    running -= 1;
    if (seen.length === COUNT) done.put("all");
  });
  await publishAll("delivery.async", COUNT);
  expect(await done.take()).toBe("all");
  expect(seen).toEqual(Array.from({ length: COUNT }, (_, n) => n));
}, 60_000);

test("concurrency_starts_in_order_and_overlaps", async () => {
  const started = mailbox();
  const gates = Array.from({ length: 6 }, gate);
  await subscriber.subscribe(
    "delivery.concurrent",
    async ({ data }) => {
      started.put(data);
      await gates[data].opened;
    },
    { concurrency: 3 },
  );
  await publishAll("delivery.concurrent", 6);
  expect([await started.take(), await started.take(), await started.take()]).toEqual([0, 1, 2]);
  gates[1].open();
  expect(await started.take()).toBe(3);
  expect(started.items).toEqual([]);
  gates.forEach(({ open }) => open());
  expect([await started.take(), await started.take()]).toEqual([4, 5]);
});

test("an_iterator_and_its_batches_see_everything_once", async () => {
  const COUNT = 3000;
  const subscription = await subscriber.subscribe("delivery.iterated");
  await publishAll("delivery.iterated", COUNT);
  const seen = [];
  for await (const message of subscription) {
    seen.push(message.data);
    if (seen.length === 10) break;
  }
  for await (const batch of subscription.batches(100)) {
    expect(batch.length).toBeLessThanOrEqual(100);
    seen.push(...batch.map(({ data }) => data));
    if (seen.length >= COUNT) break;
  }
  expect(seen).toEqual(Array.from({ length: COUNT }, (_, n) => n));
});

test("several_readers_share_one_iterator", async () => {
  const subscription = await subscriber.subscribe("delivery.shared");
  const iterator = subscription[Symbol.asyncIterator]();
  const reads = [iterator.next(), iterator.next(), iterator.next()];
  await publishAll("delivery.shared", 2);
  await subscription.unsubscribe.call(subscription, await Promise.all(reads.slice(0, 2)));
  expect((await Promise.all(reads)).map(({ done, value }) => [done, value?.data])).toEqual([[false, 0], [false, 1], [true, undefined]]);
});

test("the_loop_stays_fair_while_messages_pour_in", async () => {
  const COUNT = 50_000;
  const done = mailbox();
  let got = 0;
  let turns = 0;
  await subscriber.subscribe("delivery.fair", () => {
    if (++got === COUNT) done.put();
  });
  const turn = () => {
    turns += 1;
    if (got < COUNT) setImmediate(turn);
  };
  turn();
  await publishAll("delivery.fair", COUNT);
  await done.take();
  expect(turns).toBeGreaterThan(20);
}, 60_000);

test("publishing_from_the_own_handler_does_not_deadlock", async () => {
  const COUNT = 20_000;
  const done = mailbox();
  await subscriber.subscribe("delivery.own", ({ data }) => {
    if (data === COUNT) done.put();
    else subscriber.publish("delivery.own", data + 1);
  });
  subscriber.publish("delivery.own", 0);
  await done.take();
}, 60_000);

test("a_handlers_error_is_the_rows_and_an_event", async () => {
  const errors = mailbox();
  subscriber.on("handler_error", (error, message) => errors.put([error, message.topic]));
  await subscriber.subscribe("delivery.failing", async () => {
    throw new RangeError("too far");
  });
  const [row] = Object.values(await publisher.publishWithAck("delivery.failing", 1).wait());
  expect(row).toMatchObject({ status: "failed", success: false, error: { type: "RangeError", text: "too far" } });
  const [error, topic] = await errors.take();
  expect(error).toBeInstanceOf(RangeError);
  expect(topic).toBe("delivery.failing");
});

test("an_answer_that_cannot_be_encoded_fails_the_row", async () => {
  await subscriber.subscribe("delivery.bad", () => 1n);
  const [row] = Object.values(await publisher.publishWithAck("delivery.bad", 1).wait());
  expect(row).toMatchObject({ status: "failed", error: { type: "TypeError" } });
});

test("the_signal_of_a_message_aborts_when_the_publisher_stops_waiting", async () => {
  const aborted = mailbox();
  const started = mailbox();
  await subscriber.subscribe("delivery.cancelled", async ({ signal }) => {
    signal.addEventListener("abort", () => aborted.put(signal.aborted));
    started.put();
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
  });
  const ack = publisher.publishWithAck("delivery.cancelled", 1);
  await started.take();
  ack.cancel();
  expect(await aborted.take()).toBe(true);
  // Its recipients may not have been told yet.
  const outcome = await ack.wait().then((rows) => Object.values(rows)[0].status, ({ code }) => code);
  expect(outcome).toBe("cancelled");
});

test("unsubscribing_in_the_handler_ends_it_there", async () => {
  const ended = mailbox();
  let calls = 0;
  const subscription = await subscriber.subscribe("delivery.once", () => {
    calls += 1;
    if (calls === 1) void subscription.unsubscribe().then(ended.put);
  });
  await publishAll("delivery.once", 100);
  await publisher.flush();
  await ended.take();
  expect(calls).toBe(1);
  expect(() => subscription.ledger()).toThrow(kps.KpsError);
});

test("subscriptions_and_clients_dispose_of_themselves", async () => {
  const subscription = await subscriber.subscribe("delivery.disposed");
  await subscription[Symbol.asyncDispose]();
  expect(used.server.countSubscribers("delivery.disposed")).toBe(0);
  await subscriber[Symbol.asyncDispose]();
  expect(subscriber.state).toBe("closed");
});
