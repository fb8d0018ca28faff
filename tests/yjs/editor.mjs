// A Yjs editor that a test tells what to do, one JSON line at a time: `y-websocket` as it is.
import { createInterface } from "node:readline";

import WebSocket from "ws";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

const [url, room, params] = process.argv.slice(2);
const doc = new Y.Doc();
const text = doc.getText("text");
const provider = new WebsocketProvider(url, room, doc, {
  WebSocketPolyfill: WebSocket,
  disableBc: true,
  maxBackoffTime: 200,
  params: JSON.parse(params ?? "{}"),
});

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

// A provider says `closed` when it will not come back by itself.
let closed = null;
provider.on("closed", (event) => {
  closed = { code: event.code, reason: event.reason };
});

const until = (isSo) =>
  new Promise((resolve) => {
    const look = () => (isSo() ? resolve(true) : setTimeout(look, 5));
    look();
  });

/** Whether the text and the list have these marks, and the text none of these letters. */
const holds = (marks, letters) => {
  const [written, list] = [text.toString(), doc.getArray("list").toArray()];
  const isThere = (mark) => written.includes(`<${mark}>`) && written.includes(` ${mark} 🙂`) && list.includes(mark);
  return marks.every(isThere) && ![...letters].some((letter) => written.includes(letter));
};

const deeds = {
  insert: ({ at, insert }) => text.insert(at < 0 ? text.length : at, insert),
  delete: ({ at, count }) => text.delete(at, count),
  format: ({ at, count, format }) => text.format(at, count, format),
  set: ({ key, value }) => doc.getMap("map").set(key, value),
  many: ({ count, insert }) => {
    for (let i = 0; i < count; i += 1) text.insert(text.length, insert);
  },
  write: ({ mark, letter, entry }) => {
    text.insert(0, `<${mark}>`);
    text.delete(text.toString().indexOf(letter), 1);
    text.insert(text.length, ` ${mark} 🙂`);
    doc.getMap("map").set(mark, entry);
    doc.getMap("map").set("last", mark);
    doc.getArray("list").push([mark]);
  },
  holds: ({ marks, letters }) =>
    new Promise((resolve) => {
      const look = () => {
        if (!holds(marks, letters)) return;
        doc.off("update", look);
        resolve();
      };
      doc.on("update", look);
      look();
    }),
  value: () => ({ text, map: doc.getMap("map"), list: doc.getArray("list") }),
  text: () => text.toString(),
  map: () => doc.getMap("map").toJSON(),
  state: () => Buffer.from(Y.encodeStateAsUpdate(doc)).toString("base64"),
  synced: () => until(() => provider.synced),
  offline: () => provider.disconnect(),
  online: () => provider.connect(),
  me: () => doc.clientID,
  show: ({ state }) => provider.awareness.setLocalState(state),
  there: () => Object.fromEntries(provider.awareness.getStates()),
  closed: () => until(() => closed !== null).then(() => closed),
  // Waits until the text is this, or has this.
  reads: ({ wanted }) => until(() => text.toString() === wanted),
  has: ({ wanted }) => until(() => text.toString().includes(wanted)),
  sees: ({ client, state }) =>
    until(() => JSON.stringify(provider.awareness.getStates().get(client) ?? null) === JSON.stringify(state)),
};

say({ result: "ready" });
for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, ...how } = JSON.parse(line);
  say({ result: (await deeds[what](how)) ?? null });
}
process.exit(0);
