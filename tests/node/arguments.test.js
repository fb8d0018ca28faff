"use strict";
// A wrong argument type is a TypeError that names the argument; a wrong value is a KpsError with a code.

const kps = require("kps");
const { useServer } = require("./support.js");

const used = useServer();
let client;
beforeEach(async () => (client = await used.connect()));

const wrong = {
  "connect: url": [() => kps.connect(9313), "url"],
  "connect: options": [() => kps.connect(used.url, "id"), "options"],
  "connect: id": [() => kps.connect(used.url, { id: 7 }), "id"],
  "connect: timeout": [() => kps.connect(used.url, { timeout: "1s" }), "timeout"],
  "connect: an unknown option": [() => kps.connect(used.url, { timeOut: 1 }), "timeOut"],
  "subscribe: topic": [() => client.subscribe(1), "topic"],
  "subscribe: handler": [() => client.subscribe("t", "handler"), "handler"],
  "subscribe: concurrency": [() => client.subscribe("t", null, { concurrency: "2" }), "concurrency"],
  "unsubscribe: topic": [() => client.unsubscribe(null), "topic"],
  "publish: topic": [() => client.publish({}, 1), "topic"],
  "publish: data undefined": [() => client.publish("t"), "data"],
  "publish: data a function": [() => client.publish("t", () => {}), "data"],
  "publish: data with a bigint": [() => client.publish("t", { n: 1n }), "data"],
  "publish: headers": [() => client.publish("t", 1, { headers: { a: 1 } }), "headers.a"],
  "publish: ttl": [() => client.publish("t", 1, { ttl: NaN }), "ttl"],
  "publish: retain": [() => client.publish("t", 1, { retain: 1 }), "retain"],
  "publish: to": [() => client.publish("t", 1, { to: "client-7" }), "to"],
  "publish: an entry of to": [() => client.publish("t", 1, { to: ["client-7", 1] }), "to"],
  "publish: private": [() => client.publish("t", 1, { private: 1 }), "private"],
  "publish: offline": [() => client.publish("t", 1, { offline: true }), "offline"],
  "publishToId: clientId": [() => client.publishToId(1, 1), "clientId"],
  "publishToServer: address": [() => client.publishToServer(1, 1), "address"],
  "publishWithAck: timeoutMs": [() => client.publishWithAck("t", 1, "30"), "timeoutMs"],
  "publishToIdWithAck: clientId": [() => client.publishToIdWithAck(undefined, 1), "clientId"],
  "request: topic": [() => client.request([], 1), "topic"],
  "request: ttl": [() => client.request("t", 1, 5, { ttl: "1" }), "ttl"],
  "publishWithAck: to": [() => client.publishWithAck("t", 1, 5, { to: "b" }), "to"],
  "publishWithAck: retain": [() => client.publishWithAck("t", 1, 5, { retain: true }), "retain"],
  "publishToIdWithAck: to": [() => client.publishToIdWithAck("t", 1, 5, { to: ["b"] }), "to"],
  "on: handler": [() => client.on("state", 1), "handler"],
  "close: timeoutMs": [() => client.close("now"), "timeoutMs"],
  "Server.start: listen": [() => kps.Server.start({ listen: 9313 }), "listen"],
  "Server.start: allowedOrigins": [() => kps.Server.start({ allowedOrigins: "*" }), "allowedOrigins"],
  "countSubscribers: topic": [() => used.server.countSubscribers(1), "topic"],
  "onConnect: handler": [() => used.server.onConnect(1), "handler"],
};

test.each(Object.entries(wrong))("%s", async (_, [call, name]) => {
  const error = await (async () => call())().catch((error) => error);
  expect(error).toBeInstanceOf(TypeError);
  expect(error.message).toContain(name);
});

const refused = {
  "an audience of nobody": [() => client.publish("t", 1, { to: [] }), "invalid_argument"],
  "an offline policy that there is not": [() => client.publish("t", 1, { offline: "never" }), "invalid_argument"],
  "a url of another kind": [() => kps.connect("gopher://x"), "invalid_argument"],
  "an event that there is not": [() => client.on("nothing", () => {}), "invalid_argument"],
  "a negative timeout": [() => client.publishWithAck("t", 1, -1), "invalid_argument"],
  "no concurrency": [() => client.subscribe("t", null, { concurrency: 0 }), "invalid_argument"],
  "another start": [() => client.subscribe("t", null, { start: "yesterday" }), "invalid_argument"],
  "a pattern as topic": [() => client.publish("a.*", 1), "invalid_topic"],
  "a negative ttl": [() => client.publish("t", 1, { ttl: -1 }), "invalid_argument"],
  "a negative ttl of a request": [() => client.request("t", 1, 5, { ttl: -0.5 }), "invalid_argument"],
  "a negative ttl of an ack": [() => client.publishWithAck("t", 1, 5, { ttl: -1 }), "invalid_argument"],
  "a negative ackWait": [() => client.subscribe("t", null, { ackWait: -1 }), "invalid_argument"],
  "a negative pause": [() => kps.connect(used.url, { reconnectMin: -1 }), "invalid_argument"],
  "a negative timeout of connect": [() => kps.connect(used.url, { timeout: -1 }), "invalid_argument"],
  "a negative heartbeat": [() => kps.Server.start({ listen: "mem://", heartbeat: -1 }), "invalid_argument"],
  "a receipt that there is not": [() => client.publish("t", 1, { receipt: "soon" }), "invalid_argument"],
};

test.each(Object.entries(refused))("%s is refused", async (_, [call, code]) => {
  const error = await (async () => call())().catch((error) => error);
  expect(error).toBeInstanceOf(kps.KpsError);
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ code, name: "KpsError" });
});

test("a_huge_timeout_is_a_long_one", () => {
  const ack = client.publishWithAck("t", 1, Number.MAX_VALUE);
  ack.cancel();
});

test("null_means_not_given", async () => {
  const message = { headers: null, id: null, ttl: null, to: null, private: null, offline: null };
  await client.publish("t", 1, { ...message, receipt: null, retain: null });
  await client.publishWithAck("t", 1, 100, message).wait();
  const subscribe = { group: null, concurrency: null, overflow: null, capacity: null, start: null, durable: null, ackWait: null, maxAttempts: null };
  const subscription = await client.subscribe("t", () => {}, subscribe);
  await subscription.unsubscribe();
  const other = await kps.connect(used.url, { id: null, timeout: null, wait: null, reconnect: null, outbox: null, bigints: null });
  await other.close(0);
  const server = await kps.Server.start({ listen: "127.0.0.1:0", id: null, tokens: null, allowedOrigins: null, history: null, audit: null, heartbeat: null, onConnect: null });
  await server.close(0);
});

test("an_endless_timeout_is_no_short_one", async () => {
  const other = await kps.connect(used.url, { timeout: Infinity });
  expect(other.state).toBe("connected");
  await other.close(0);
});
