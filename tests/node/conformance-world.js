"use strict";
// The interpreter of conformance steps: what tests/conformance/README.md describes, over kps.

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const kps = require("kps");
const { Documents } = require("./conformance-documents.js");
const { camel, decode, expectMatch, matches, show } = require("./conformance-values.js");
const { Link } = require("./link.js");

const PATIENCE = 10_000;
const EVENTS = [
  "state", "connection_opened", "connection_closed", "closed", "goaway", "gap", "resumed", "subscription_closed",
  "publish_failed", "backpressure", "outbox_flushed", "handler_error", "error",
];
// A program that starts a server hears of it before it can ask to be told.
const SERVER_EVENTS = [
  "node_stopping", "connection_opened", "connection_closed", "client_connected", "client_disconnected",
  "subscription_opened", "subscription_closed", "backpressure", "messages_dropped", "dead_lettered",
  "store_failed", "error",
];
const DURATIONS = new Set([
  "timeout", "ttl", "reconnectMin", "reconnectMax", "heartbeat", "silence", "resumeWindow", "stallTimeout",
  "ackTimeout", "duplicateWindow", "documentCheckpointEvery", "documentIdle", "ackWait", "retryDelay",
]);

/** What came in and who waits for it. */
class Log {
  items = [];
  takers = [];
  put(item) {
    const taker = this.takers.shift();
    if (taker) taker(item);
    else this.items.push(item);
  }
  async take() {
    if (this.items.length) return this.items.shift();
    return await new Promise((resolve) => this.takers.push(resolve));
  }
}

class Gate {
  held = 0;
  changed = [];
  opened = new Promise((resolve) => (this.open = resolve));
  async hold() {
    this.held += 1;
    for (const wake of this.changed.splice(0)) wake();
    await this.opened;
  }
  async started(count) {
    while (this.held < count) await new Promise((resolve) => this.changed.push(resolve));
  }
}

/** Everything a case names: servers, links, clients, subscriptions, acks, gates, background steps. */
class World extends Documents {
  servers = new Map();
  addresses = new Map();
  links = new Map();
  clients = new Map();
  subs = new Map();
  iterators = new Map();
  received = new Map();
  events = new Map();
  acks = new Map();
  gates = new Map();
  tasks = new Map();
  cursors = new Map();
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "kps-"));

  async take(step) {
    const work = "error" in step ? this.expectingError(step) : this.act(step);
    work.catch(() => {});
    if ("as" in step) this.tasks.set(step.as, work);
    else await patiently(work);
  }

  async act(step) {
    await this[camel(step.do)](step);
  }

  async expectingError(step) {
    try {
      await this.act(step);
    } catch (error) {
      if (!(error instanceof kps.KpsError)) throw error;
      if (error.code !== step.error) throw new Error(`${error.code}: ${error.message}; expected ${step.error}`);
      if ("refused" in step) expectMatch(step.refused, error.event);
      return;
    }
    throw new Error(`no error; expected ${step.error}`);
  }

  async join(step) {
    await patiently(this.tasks.get(step.name));
    this.tasks.delete(step.name);
  }

  async joinAll() {
    for (const task of this.tasks.values()) await patiently(task);
  }

  async end() {
    for (const gate of this.gates.values()) gate.open();
    const servers = new Set(this.servers.values());
    for (const client of this.clients.values()) if (!servers.has(client)) await client.close(0);
    for (const server of servers) await server.close(0);
    for (const link of this.links.values()) link.close();
    fs.rmSync(this.folder, { recursive: true });
  }

  // Servers and links.

  async startServer({ server: name = "server", options = {} }) {
    const { on_connect: script, listen = this.addresses.get(name) ?? "127.0.0.1:0", ...rest } = options;
    const server = await kps.Server.start({
      listen: this.address(listen),
      ...settings(rest),
      ...("data" in rest && { data: this.folder }),
      ...("storage" in rest && { storage: this.storageOptions(rest.storage) }),
      ...(script && { onConnect: (request) => decide(script, request) }),
    });
    server.onServerMessage((message) => this.log(name, "server_message", message));
    server.onMessageToId((message) => this.log(name, "message_to_id", message));
    this.log(name, "node_started", server.timeline().find(({ event }) => event === "node_started"));
    for (const event of SERVER_EVENTS) {
      server.on(event, (...args) => this.log(name, event, ...args));
    }
    this.servers.set(name, server);
    this.clients.set(name, server);
    this.addresses.set(name, server.address);
  }

  address(to) {
    return typeof to === "object" ? this.addresses.get(to.server) : to;
  }

  async stopServer({ server = "server" }) {
    await this.servers.get(server).close(1000);
    this.servers.delete(server);
  }

  async removeDurable(step) {
    this.servers.get(step.server ?? "server").removeDurable(step.name);
  }

  async count(step) {
    const server = this.servers.get(step.server ?? "server");
    if ("clients" in step) await until(() => server.countClients(), step.clients);
    else await until(() => server.countSubscribers(step.topic), step.subscribers);
  }

  async cut(step) {
    this.links.get(step.client).cut();
  }

  async restore(step) {
    this.links.get(step.client).restore();
  }

  async freeze(step) {
    this.links.get(step.client).freeze();
  }

  async thaw(step) {
    this.links.get(step.client).thaw();
  }

  async letPass(step) {
    await new Promise((resolve) => setTimeout(resolve, step.time * 1000));
  }

  // Clients.

  async connect(step) {
    const name = step.client;
    const link = this.links.get(name) ?? new Link(() => this.addresses.get(step.server ?? "server"));
    this.links.set(name, link);
    await link.open(step);
    const client = await kps.connect(step.url ?? `ws://${link.address}`, {
      id: name,
      reconnectMin: 10,
      reconnectMax: 50,
      ...settings(step.options),
      ...(step.options?.storage && { storage: this.storageOptions(step.options.storage) }),
      ...(step.options?.outbox && { outbox: path.join(this.folder, step.options.outbox.$file) }),
    });
    this.clients.set(name, client);
    for (const event of EVENTS) client.on(event, (...args) => this.log(name, event, ...args));
    if ("direct" in step) {
      client.on("message_to_id", this.handler(step.direct, (message) => this.log(name, "message_to_id", message)));
    }
  }

  log(client, event, ...args) {
    this.logOf(client, event).put(args);
  }

  logOf(client, event) {
    const key = `${client} ${event}`;
    if (!this.events.has(key)) this.events.set(key, new Log());
    return this.events.get(key);
  }

  async event({ client, name, args: wanted = [], skip = false }) {
    for (;;) {
      const args = await this.logOf(client, name).take();
      if (matches(wanted, args.slice(0, wanted.length))) return;
      if (!skip) throw new Error(`${name}: ${show(args)} is not ${show(wanted)}`);
    }
  }

  async on(step) {
    this.clients.get(step.client).on(step.name, (...args) => this.log(step.client, step.name, ...args));
  }

  async state(step) {
    await until(() => this.clients.get(step.client).state, step.is);
  }

  async flush(step) {
    await this.clients.get(step.client).flush();
  }

  async close(step) {
    const report = await this.clients.get(step.client).close((step.timeout ?? 5) * 1000);
    expectMatch(step.report ?? {}, report);
  }

  // Subscriptions.

  async subscribe(step) {
    const name = step.sub ?? "sub";
    const log = new Log();
    this.received.set(name, log);
    const handler = "handler" in step ? this.handler(step.handler, (message) => log.put(message)) : undefined;
    const options = settings(step.options);
    if (typeof options.start === "number") options.start *= 1000;
    if (options.start?.$cursor) options.start = this.cursors.get(options.start.$cursor);
    const sub = await this.clients.get(step.client).subscribe(decode(step.topic), handler, options);
    this.subs.set(name, sub);
    if (!handler) this.iterators.set(name, sub[Symbol.asyncIterator]());
  }

  handler(script, log) {
    const behaviours = [script].flat();
    let calls = 0;
    return async (message) => {
      const behaviour = behaviours[Math.min(calls, behaviours.length - 1)];
      calls += 1;
      log(message);
      if (behaviour === "never") await new Promise(() => {});
      if ("hold" in behaviour) await this.gate(behaviour.hold).hold();
      if ("retry" in behaviour) throw new kps.Retry({ delay: behaviour.retry * 1000 });
      if ("raise" in behaviour) throw new TypeError(behaviour.raise);
      return decode(behaviour.return);
    };
  }

  gate(name) {
    if (!this.gates.has(name)) this.gates.set(name, new Gate());
    return this.gates.get(name);
  }

  async started(step) {
    await this.gate(step.gate).started(step.count ?? 1);
  }

  async release(step) {
    this.gate(step.gate).open();
  }

  /** What a handler, a callback or a capability was called with. */
  receivedBy(name) {
    if (!this.received.has(name)) this.received.set(name, new Log());
    return this.received.get(name);
  }

  async expect(step) {
    for (const expected of step.messages) {
      const message = await this.receivedBy(step.sub ?? "sub").take();
      expectMatch(this.filled(expected), message);
      this.remember(step, message);
    }
  }

  remember(step, message) {
    if ("cursor" in step) this.cursors.set(step.cursor, message.cursor);
  }

  async expectLast(step) {
    const log = this.receivedBy(step.sub ?? "sub");
    for (const expected of step.messages.map((each) => this.filled(each))) {
      let message;
      do message = await log.take();
      while (!matches(expected, message));
      this.remember(step, message);
    }
  }

  async expectNothing(step) {
    const { items } = this.receivedBy(step.sub);
    if (items.length) throw new Error(`came nevertheless: ${show(items)}`);
  }

  async expectMany(step) {
    const seen = [];
    if (step.subs) {
      const logs = step.subs.map((name) => this.received.get(name));
      await until(() => logs.reduce((sum, log) => sum + log.items.length, 0), step.count);
      for (const { items } of logs) {
        const mine = items.map((message) => message.data);
        if (!mine.length || mine.some((number, i) => i && number < mine[i - 1])) throw new Error(show(mine));
        seen.push(...mine);
      }
      seen.sort((a, b) => a - b);
    } else {
      const log = this.received.get(step.sub ?? "sub");
      while (seen.length < step.count) seen.push((await log.take()).data);
    }
    expectNumbers(seen, step.count);
  }

  async next(step) {
    const { done, value } = await this.iterators.get(step.sub ?? "sub").next();
    if (done || step.message === null) {
      if (!done || step.message !== null) throw new Error(done ? "the iterator ended" : `not ended: ${show(value)}`);
      return;
    }
    if ("gap" in step) {
      if (!(value instanceof kps.Gap)) throw new Error(`not a gap: ${show(value)}`);
      return expectMatch(step.gap, value);
    }
    if (!(value instanceof kps.Message)) throw new Error(`not a message: ${show(value)}`);
    expectMatch(step.message ?? {}, value);
    this.remember(step, value);
    if (step.then && "respond" in step.then) value.respond(decode(step.then.respond));
    if (step.then && "fail" in step.then) {
      value.fail(new TypeError(step.then.fail), { delay: "delay" in step.then ? step.then.delay * 1000 : null });
    }
  }

  async nextMany(step) {
    const seen = [];
    for await (const batch of this.subs.get(step.sub ?? "sub").batches()) {
      seen.push(...batch.map((message) => message.data));
      if (seen.length >= step.count) break;
    }
    expectNumbers(seen, step.count);
  }

  async unsubscribe(step) {
    if ("topic" in step) await this.clients.get(step.client).unsubscribe(step.topic);
    else await this.subs.get(step.sub ?? "sub").unsubscribe();
  }

  async ledger(step) {
    const sub = this.subs.get(step.sub ?? "sub");
    await until(() => Object.fromEntries(Object.keys(step.is).map((key) => [key, sub.ledger()[key]])), step.is);
  }

  // Publishing.

  async publish(step) {
    const client = this.clients.get(step.client);
    await settled(client.publish(decode(step.topic), decode(step.data), settings(step.options)), step);
  }

  async publishMany(step) {
    for (let number = 0; number < step.count; number += 1) {
      await this.clients.get(step.client).publish(step.topic, number);
    }
  }

  async publishToId(step) {
    await settled(this.clients.get(step.client).publishToId(step.to, decode(step.data)), step);
  }

  async publishToServer(step) {
    await settled(this.clients.get(step.client).publishToServer(this.address(step.to), decode(step.data)), step);
  }

  async publishWithAck(step) {
    const client = this.clients.get(step.client);
    this.acks.set(step.ack ?? "ack", client.publishWithAck(decode(step.topic), decode(step.data), ...asking(step)));
  }

  async publishToIdWithAck(step) {
    const client = this.clients.get(step.client);
    this.acks.set(step.ack ?? "ack", client.publishToIdWithAck(step.to, decode(step.data), ...asking(step)));
  }

  async request(step) {
    const client = this.clients.get(step.client);
    const answer = await client.request(decode(step.topic), decode(step.data), ...asking(step));
    expectMatch(step.answer ?? { $any: true }, answer);
  }

  // Acks.

  async wait(step) {
    const rows = await this.acks.get(step.ack ?? "ack").wait();
    if (!step.rows) return;
    expectMatch(Object.keys(step.rows).sort(), Object.keys(rows).sort());
    expectMatch(step.rows, rows);
  }

  async waitAny(step) {
    expectMatch(step.row, await this.acks.get(step.ack ?? "ack").waitAny());
  }

  async nextRow(step) {
    const ack = step.ack ?? "ack";
    const key = `rows of ${ack}`;
    if (!this.iterators.has(key)) this.iterators.set(key, this.acks.get(ack)[Symbol.asyncIterator]());
    const { done, value } = await this.iterators.get(key).next();
    expectMatch(step.row, done ? null : value);
  }

  async status(step) {
    const ack = this.acks.get(step.ack ?? "ack");
    await until(() => ack.status(), step.is);
    if ("complete" in step) expectMatch(step.complete, ack.isComplete());
  }

  async cancelAck(step) {
    this.acks.get(step.ack ?? "ack").cancel();
  }
}

const timeout = (step) => ("timeout" in step ? [step.timeout * 1000] : []);
const asking = (step) => ("options" in step ? [timeout(step)[0], settings(step.options)] : timeout(step));

/** Options in Python's names and seconds, as Node takes them. */
function settings(options = {}) {
  const entries = Object.entries(options).map(([name, value]) => {
    const key = camel(name);
    return [key, DURATIONS.has(key) ? value * 1000 : value];
  });
  return Object.fromEntries(entries);
}

function decide(script, request) {
  if (script.refuse?.includes(request.clientId)) return false;
  return script.grant?.[request.clientId] ?? true;
}

async function settled(receipt, step) {
  if ("level" in step) expectMatch(step.level, await receipt);
  else if ("error" in step) await receipt;
}

async function patiently(work) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("took too long")), PATIENCE);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits for a value that no event announces; fails with the last one seen. */
async function until(read, wanted) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const seen = read();
    if (show(sorted(seen)) === show(sorted(wanted))) return;
    if (Date.now() > end) throw new Error(`still ${show(seen)}, not ${show(wanted)}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const sorted = (value) =>
  value && typeof value === "object" ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) : value;

function expectNumbers(seen, count) {
  if (seen.length !== count || seen.some((number, i) => number !== i)) throw new Error(`not 0 … ${count - 1}: ${seen}`);
}

module.exports = { World };
