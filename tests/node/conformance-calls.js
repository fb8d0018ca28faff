"use strict";
// The steps of calls: dispatch, register, unregister, abandon, and what they remember.

const fs = require("node:fs");
const path = require("node:path");
const kps = require("kps");
const { camel, expectMatch, integer, mark, ramp, show, typedArray } = require("./conformance-values.js");

/** What the world does with calls. */
class Calls {
  kept = new Map();
  /** How to give up a step in the background. */
  controllers = new Map();

  /** An expected value with what the case remembers filled in. */
  filled(value) {
    if (Array.isArray(value)) return value.map((each) => this.filled(each));
    const marked = mark(value);
    if (marked === "$kept") return this.kept.get(value.$kept);
    if (marked === "$as_is" || typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.filled(each)]));
  }

  /** What a call is given. */
  given(value) {
    if (Array.isArray(value)) return value.map((each) => this.given(each));
    if (typeof value !== "object" || value === null) return value;
    const marked = mark(value);
    if (marked !== undefined) return this.marked(marked, value[marked]);
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.given(each)]));
  }

  marked(marked, value) {
    switch (marked) {
      case "$as_is":
        return value;
      case "$kept":
        return this.kept.get(value);
      case "$bytes":
        return Buffer.from(value, "base64");
      case "$int":
        return integer(value);
      case "$callback":
        return (heard) => this.receivedBy(value).put(heard);
      case "$repeat":
        return value[0].repeat(value[1]);
      case "$times":
        return Array(value[1]).fill(this.given(value[0]));
      case "$ramp":
        return ramp(value);
      case "$read":
        return fs.readFileSync(path.join(__dirname, "..", "..", value));
      case "$array":
        return typedArray(value);
      default:
        throw new Error(`a case cannot give ${marked}`);
    }
  }

  async dispatch(step) {
    const client = this.clients.get(step.client);
    const { timeout, retry, target, idempotency_key: idempotencyKey } = step.options ?? {};
    const options = {};
    if (timeout !== undefined) options.timeout = timeout * 1000;
    if (retry !== undefined) options.retry = retry;
    if (target !== undefined) options.target = target;
    if (idempotencyKey !== undefined) options.idempotencyKey = idempotencyKey;
    if (step.progress) options.onProgress = (news) => this.receivedBy(step.progress).put(news);
    if (step.as) {
      const controller = new AbortController();
      this.controllers.set(step.as, controller);
      options.signal = controller.signal;
    }
    const payload = "payload" in step ? this.given(step.payload) : undefined;
    const calls = Array.from({ length: step.times ?? 1 }, () => client.dispatch(step.action, payload, options));
    const responses = await Promise.all(calls);
    if (step.providers) {
      expectMatch(step.providers, [...new Set(responses.map(({ provider }) => provider))].sort());
    }
    for (const response of responses) this.check(step, response);
  }

  check(step, response) {
    if (step.response) expectMatch(this.filled(step.response), response);
    if (step.failure) {
      if (response.error === null) throw new Error(`no failure: ${show(response.data)}`);
      return expectMatch(this.filled(step.failure), response.error);
    }
    this.answered(step, response.unwrap());
  }

  /** Compares an answer, and remembers what the step wants to keep of it. */
  answered(step, data) {
    if ("data" in step) expectMatch(this.filled(step.data), data);
    for (const [name, path] of Object.entries(step.keep ?? {})) {
      this.kept.set(name, path.split(".").filter(Boolean).reduce((found, part) => found[part], data));
    }
  }

  async register(step) {
    const name = this.given(step.name);
    const { shared = false, concurrency } = step;
    const options = { shared, ...(concurrency === undefined ? {} : { concurrency }) };
    await this.clients.get(step.client).register(name, this.scripted(step, this.receivedBy(step.sub ?? name)), options);
  }

  async unregister({ client, name }) {
    await this.clients.get(client).unregister(name);
  }

  /** Options of a storage, as Node takes them; a path is a file of the case's. */
  storageOptions({ path: file, ...given }) {
    const options = Object.entries(given).map(([name, value]) => [camel(name), this.given(value)]);
    return { ...(file === undefined ? {} : { path: path.join(this.folder, file.$file) }), ...Object.fromEntries(options) };
  }

  /** Saves the pieces as one value. */
  async saveStream(step) {
    const { ttl, ...rest } = step.options ?? {};
    const options = Object.fromEntries(Object.entries(rest).map(([name, value]) => [camel(name), this.given(value)]));
    if (ttl !== undefined) options.ttl = ttl * 1000;
    const pieces = this.given(step.pieces)[Symbol.iterator]();
    this.answered(step, await this.clients.get(step.client).storage.save(this.given(step.key), pieces, options));
  }

  /** Reads a value piece by piece; the answer is all of it. */
  async readStream(step) {
    const pieces = [];
    for await (const piece of await this.clients.get(step.client).storage.stream(step.key, step.options ?? {})) pieces.push(piece);
    this.answered(step, Buffer.concat(pieces));
  }

  /** Gives up a step in the background, and with it the call that it makes. */
  async abandon({ name }) {
    const task = this.tasks.get(name);
    this.tasks.delete(name);
    this.controllers.get(name).abort();
    const error = await task.then(
      () => undefined,
      (why) => why,
    );
    if (error?.code !== "cancelled") throw new Error(`it was not given up: ${show(error)}`);
  }

  async registerTask({ client, name, does, sub = name, shared = false, concurrency }) {
    const behaviours = does.each ?? [does];
    const log = this.receivedBy(sub);
    let calls = 0;
    const task = (data, context) => {
      const behaviour = behaviours[Math.min(calls, behaviours.length - 1)];
      calls += 1;
      log.put({ task: name, data });
      context.signal.addEventListener("abort", () => log.put({ cancelled: name }));
      return this.work(behaviour, data);
    };
    await this.clients.get(client).registerTask(name, task, { shared, ...(concurrency === undefined ? {} : { concurrency }) });
  }

  async unregisterTask({ client, name }) {
    await this.clients.get(client).unregisterTask(name);
  }

  async shareTask({ client, name }) {
    await this.clients.get(client).shareTask(name);
  }

  async unshareTask({ client, name }) {
    await this.clients.get(client).unshareTask(name);
  }

  /** A capability that does what the case says. */
  scripted(step, log) {
    const capability = {};
    const schemas = Object.entries(step.operations).filter(([, script]) => "schema" in script);
    if (schemas.length) capability.operations = Object.fromEntries(schemas.map(([name, { schema }]) => [name, schema]));
    if (step.hooks) {
      capability.init = () => log.put({ hook: "init" });
      capability.close = () => log.put({ hook: "close" });
    }
    for (const [name, script] of Object.entries(step.operations)) {
      const behaviours = script.each ?? [script];
      let calls = 0;
      capability[name] = (payload, context) => {
        const behaviour = behaviours[Math.min(calls, behaviours.length - 1)];
        calls += 1;
        log.put({ operation: name, payload, caller: context.caller, attempt: context.attempt });
        context.signal.addEventListener("abort", () => log.put({ cancelled: name }));
        return this.work(behaviour, payload, context);
      };
    }
    return capability;
  }

  async work(behaviour, payload, context) {
    for (const news of behaviour.progress ?? []) context.progress(this.given(news));
    if (behaviour.hold) await this.gate(behaviour.hold).hold();
    if (behaviour.raise) throw new TypeError(behaviour.raise);
    if (behaviour.busy) throw new kps.Retry({ message: behaviour.busy });
    if (behaviour.fail) {
      const { code, message, ...more } = behaviour.fail;
      throw new kps.KpsError(code, message, more);
    }
    return behaviour.echo ? payload : this.given(behaviour.return ?? null);
  }
}

module.exports = { Calls };
