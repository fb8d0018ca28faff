// Yjs editors of a benchmark: `yjs.mjs PEER ROLE URL OPTIONS`. Every peer is reached by its own, unmodified provider;
// kps by that of y-websocket.
import WebSocket from "ws";
import * as Y from "yjs";
import { HocuspocusProvider, HocuspocusProviderWebsocket } from "@hocuspocus/provider";
import { WebsocketProvider } from "y-websocket";

import { middle, say, sorted, told } from "./process.mjs";

const [peer, role, url, json] = process.argv.slice(2);
const options = JSON.parse(json);

/** A document of its own and its connection; resolves when it has what the server has. */
function open(name) {
  const doc = new Y.Doc();
  const { promise, resolve } = deferred();
  let close;
  if (peer === "hocuspocus") {
    const websocketProvider = new HocuspocusProviderWebsocket({ url, WebSocketPolyfill: WebSocket });
    const provider = new HocuspocusProvider({ websocketProvider, name, document: doc });
    provider.on("synced", resolve);
    provider.attach();
    close = () => [provider.destroy(), websocketProvider.destroy()];
  } else {
    const base = peer === "kps" ? `${url}/yjs` : url;
    const provider = new WebsocketProvider(base, name, doc, { WebSocketPolyfill: WebSocket, disableBc: true });
    provider.on("sync", (synced) => synced && resolve());
    close = () => provider.destroy();
  }
  return promise.then(() => ({ doc, text: doc.getText("text"), close }));
}

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

/** Tells who waits for it that a writer's n-th edit has come to this editor. */
function watch(edits) {
  const waiting = new Map();
  edits.observe(({ keysChanged }) => {
    for (const number of keysChanged) {
      const { n, seen } = waiting.get(number) ?? {};
      if (edits.get(number) !== n) continue;
      waiting.delete(number);
      seen();
    }
  });
  return (number, n) => new Promise((seen) => waiting.set(number, { n, seen }));
}

const anywhere = (text) => Math.floor(Math.random() * (text.length + 1));
const seconds = (since) => Number(process.hrtime.bigint() - since) / 1e9;

const roles = {
  /** Each writer puts a word somewhere, and the next one when another editor has it. */
  async edit() {
    const reader = await open("bench");
    const arrived = watch(reader.doc.getMap("edits"));
    const writers = await Promise.all(Array.from({ length: options.writers }, () => open("bench")));
    const write = async ({ doc, text }, number, from, count, took) => {
      for (let n = from; n < from + count; n += 1) {
        const began = process.hrtime.bigint();
        const seen = arrived(`${number}`, n);
        doc.transact(() => {
          text.insert(anywhere(text), `word ${n} `);
          doc.getMap("edits").set(`${number}`, n);
        });
        await seen;
        took.push(seconds(began));
      }
    };
    const each = Math.ceil(options.operations / options.writers);
    const warm = Math.ceil(each / 10);
    await Promise.all(writers.map((writer, number) => write(writer, number, 0, warm, [])));
    const took = [];
    const began = process.hrtime.bigint();
    await Promise.all(writers.map((writer, number) => write(writer, number, warm, each, took)));
    const lasted = seconds(began);
    const order = sorted(took);
    const p99 = order[Math.floor(order.length * 0.99)];
    say("end", { rate: took.length / lasted, p50: middle(order), p99 });
  },

  /** How long a newcomer waits for a document that was written by many small operations. */
  async load() {
    const reader = await open("bench");
    const writer = await open("bench");
    const all = new Promise((resolve) => {
      reader.text.observe(() => reader.text.length === options.operations && resolve());
    });
    for (let n = 0; n < options.operations; n += 1) {
      writer.text.insert(anywhere(writer.text), "x");
      // The sockets get their turn.
      if (n % 100 === 0) await new Promise(setImmediate);
    }
    await all;
    const took = [];
    for (let n = 0; n < options.loads; n += 1) {
      const began = process.hrtime.bigint();
      const { text } = await open("bench");
      if (text.length !== options.operations) say("broken", { expected: options.operations, got: text.length });
      took.push(seconds(began));
    }
    say("end", { p50: middle(sorted(took)) });
  },

  /** Keeps many documents open, one editor at each. */
  async memory() {
    const warm = await open("warm");
    warm.text.insert(0, "x".repeat(options.size));
    say("begin");
    await told();
    for (let n = 0; n < options.documents; n += 1) {
      const { text } = await open(`bench${n}`);
      text.insert(0, "x".repeat(options.size));
    }
    const last = await open(`bench${options.documents - 1}`);
    if (last.text.length !== options.size) say("broken", { expected: options.size, got: last.text.length });
    say("ready");
    await told();
  },
};

await roles[role]();
process.exit();
