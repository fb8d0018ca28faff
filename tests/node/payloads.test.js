"use strict";
// What is published arrives as it was, whatever its size and kind.

const kps = require("kps");
const { mailbox, useServer } = require("./support.js");

const used = useServer();

async function echo(client, values, topic = "payloads") {
  const got = mailbox();
  await client.subscribe(topic, got.put);
  for (const value of values) client.publish(topic, value);
  const messages = [];
  while (messages.length < values.length) messages.push(await got.take());
  return messages;
}

test("json_text_and_bytes", async () => {
  const values = [{ a: [1, 2.5, null, true, "ü\u2028😀"] }, [], "", "text ü", Buffer.from([0, 255]), new Uint8Array(3), null, false, -0.5];
  const messages = await echo(await used.connect(), values);
  expect(messages.map(({ contentType }) => contentType)).toEqual(["json", "json", "text", "text", "bytes", "bytes", "json", "json", "json"]);
  messages.forEach(({ data }, n) => {
    if (values[n] instanceof Uint8Array) expect(Buffer.compare(data, Buffer.from(values[n]))).toBe(0);
    else expect(data).toEqual(values[n]);
  });
  expect(messages[0].raw.toString()).toBe(JSON.stringify(values[0]));
  expect(messages[0].data).toBe(messages[0].data);
});

test("lone_surrogates_become_replacement_characters_and_keep_the_rest", async () => {
  const [message] = await echo(await used.connect(), ["a\ud800b"]);
  expect(message.data).toBe("a\ufffdb");
});

test("every_size_around_the_bounds_of_a_slab", async () => {
  const sizes = [0, 1, 4090, 4096, 4100, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 300_000, 1 << 20];
  const values = sizes.flatMap((size) => [Buffer.alloc(size, "x"), "y".repeat(size), { text: "ü".repeat(size / 4) }]);
  const messages = await echo(await used.connect(), values);
  messages.forEach((message, n) => {
    if (n % 3 === 0) expect(Buffer.compare(message.data, values[n])).toBe(0);
    else expect(message.data).toEqual(values[n]);
  });
});

test("headers_larger_than_a_slabs_share", async () => {
  const client = await used.connect();
  const got = mailbox();
  await client.subscribe("payloads.headers", got.put);
  const headers = { traceparent: "00-1-2-01", long: "h".repeat(40_000) };
  client.publish("payloads.headers", "z".repeat(40_000), { headers, id: "mine" });
  expect(await got.take()).toMatchObject({ headers, id: "mine", data: "z".repeat(40_000) });
});

test("messages_kept_for_long_keep_their_values", async () => {
  const values = Array.from({ length: 5000 }, (_, n) => ({ n, text: `number ${n}` }));
  const messages = await echo(await used.connect(), values);
  expect(messages.map(({ data }) => data)).toEqual(values);
});

test("more_topics_than_the_tables_of_names_hold", async () => {
  const COUNT = 20_000;
  const client = await used.connect();
  const done = mailbox();
  const kept = [];
  await client.subscribe("names.>", (message) => {
    kept.push(message);
    if (kept.length === COUNT) done.put();
  });
  for (let n = 0; n < COUNT; n++) client.publish(`names.${n}`, n);
  await done.take();
  kept.forEach((message, n) => {
    if (message.topic !== `names.${n}` || message.data !== n) throw new Error(`${message.topic} is ${message.data}`);
  });
});

test("bigints_are_exact_both_ways_when_asked_for", async () => {
  const exact = await used.connect({ bigints: true });
  const big = 12345678901234567890n;
  const value = { big, small: 7, negative: -big, float: 0.1234567890123456789, exponent: 1e30, text: `${big}`, nested: [[big], { "12345678901234567890": big }] };
  const [message] = await echo(exact, [value]);
  expect(message.data).toEqual(value);
  expect(message.raw.toString()).toContain(`"big":${big},`);
  const plain = await used.connect();
  const got = mailbox();
  await plain.subscribe("payloads.plain", got.put);
  exact.publish("payloads.plain", big);
  expect((await got.take()).data).toBe(Number(big));
});

test("a_message_shows_all_its_fields", async () => {
  const client = await used.connect({ id: "shown" });
  const [message] = await echo(client, [{ deep: 1 }], "payloads.shown");
  expect(message).toBeInstanceOf(kps.Message);
  expect(JSON.parse(JSON.stringify(message))).toMatchObject({
    topic: "payloads.shown", data: { deep: 1 }, contentType: "json", headers: {}, sender: "shown", seq: 1, attempt: 1, maybeDuplicate: false,
    retained: false,
  });
  expect(message.id).toMatch(/-1$/);
  expect(Math.abs(message.time - Date.now())).toBeLessThan(60_000);
});
