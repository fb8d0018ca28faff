"use strict";
// The steps of documents.

const { setImmediate: turn } = require("node:timers/promises");
const { Calls } = require("./conformance-calls.js");
const { camel, decode, expectMatch } = require("./conformance-values.js");

/** What the world does with documents. */
class Documents extends Calls {
  documents = new Map();

  document({ document = "document" }) {
    return this.documents.get(document);
  }

  async openDocument({ client, document: name = "document", id = "d", options = {} }) {
    const document = await this.clients.get(client).openDocument(id, timed(options));
    document.on("*", (event) => this.receivedBy(name).put(event));
    this.documents.set(name, document);
  }

  async edit(step) {
    const receipt = this.document(step).edit(long(this.filled(step.edit)));
    if (step.wait !== false) this.edited(step, await receipt);
  }

  edited(step, edited) {
    expectMatch(step.edited ?? {}, edited);
    if (step.keep_version) this.kept.set(step.keep_version, edited.version);
  }

  async editBatch(step) {
    await Promise.all(this.document(step).editBatch(long(this.filled(step.operations))));
  }

  async undo(step) {
    this.edited(step, await this.document(step).undo(step.count));
  }

  /** Waits until it reads so. */
  async reads(step) {
    const document = this.document(step);
    await until(() => (document.kind === "text" ? document.text : document.value), this.filled(wanted(step)));
  }

  async readAt(step) {
    expectMatch(this.filled(wanted(step)), await this.document(step).at(this.filled(step.version)));
  }

  async versions(step) {
    this.answered(step, await this.document(step).versions({ before: this.filled(step.before), limit: step.limit }));
  }

  async compact(step) {
    await this.document(step).compact(step.keep);
  }

  /** Writes all of it, and waits for the end. */
  async stream(step) {
    const stream = this.document(step).stream({ flushEvery: 1, ...step.options });
    for (const token of step.tokens) {
      stream.write(decode(token));
      await turn();
    }
    await stream.close();
  }

  async setPresence(step) {
    this.document(step).setPresence(step.state);
  }

  /** Waits until the others are these. */
  async present(step) {
    const document = this.document(step);
    const others = () => document.presence.map(({ state: { version, ...state }, ...who }) => ({ ...who, state }));
    await until(others, step.others);
  }

  /** Waits until so many own operations are not safe. */
  async unsynced(step) {
    const document = this.document(step);
    await until(() => document.unsynced.length, step.count);
  }

  async flushDocument(step) {
    await this.document(step).flush();
  }

  async closeDocument(step) {
    const left = await this.document(step).close(step.timeout === undefined ? undefined : step.timeout * 1000);
    expectMatch(step.unsynced ?? left.length, left.length);
  }

  /** Whether subscriptions were told the same bytes, which are these events. */
  async sameBytes({ subs, events }) {
    for (const event of events) {
      const messages = [];
      for (const sub of subs) messages.push(await this.receivedBy(sub).take());
      for (const { data, raw } of messages) {
        expectMatch(event, data.event);
        expectMatch(messages[0].raw.toString("base64"), raw.toString("base64"));
      }
    }
  }
}

const wanted = (step) => ("text" in step ? step.text : step.value);

function timed({ timeout, ...rest }) {
  const options = Object.fromEntries(Object.entries(rest).map(([name, value]) => [camel(name), value]));
  return timeout === undefined ? options : { ...options, timeout: timeout * 1000 };
}

/** With long texts written out. */
function long(value) {
  if (Array.isArray(value)) return value.map(long);
  if (typeof value !== "object" || value === null) return value;
  if ("$repeat" in value) return decode(value);
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, long(each)]));
}

/** JSON with the names in order. */
function ordered(value) {
  const sort = (_, each) => (Object(each) === each && !Array.isArray(each) ? Object.fromEntries(Object.entries(each).sort()) : each);
  return JSON.stringify(value, sort);
}

/** Waits for a value that no event announces; fails with the last one seen. */
async function until(read, value) {
  for (const end = performance.now() + PATIENCE; ordered(read()) !== ordered(value); await turn()) {
    if (performance.now() > end) throw new Error(`still ${ordered(read())}, not ${ordered(value)}`);
  }
}

const PATIENCE = 9_000;

module.exports = { Documents };
