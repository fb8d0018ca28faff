// Our Node client that a test tells what to do, one JSON line at a time: its document, and a `Y.Doc` bound to that.
import { createInterface } from "node:readline";

import { connect } from "kps";
import * as Y from "yjs";

const [url, room] = process.argv.slice(2);
const client = await connect(url, { id: "node", reconnectMax: 200 });
const page = await client.openDocument(room, { kind: "yjs" });

// As the manual binds them.
const doc = new Y.Doc();
page.on("update", ({ origin, update }) => {
  if (origin !== "program") Y.applyUpdate(doc, Buffer.from(update, "base64"), page);
});
Y.applyUpdate(doc, page.state(), page);
doc.on("update", (update, origin) => {
  if (origin !== page) page.applyUpdate(update);
});

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

/** Looks again whenever the document or the connection has changed. */
const until = (isSo) =>
  new Promise((resolve) => {
    const ends = [];
    const look = () => {
      if (!isSo()) return;
      for (const end of ends) end();
      resolve();
    };
    ends.push(page.on("*", look), client.on("state", look));
    look();
  });

const bound = () => {
  const all = { text: doc.getText("text"), map: doc.getMap("map"), list: doc.getArray("list") };
  return JSON.parse(JSON.stringify(all));
};

/** Whether the text and the list have these marks, and the text none of these letters. */
const has = ({ text = "", list = [] }, marks, letters) => {
  const isThere = (mark) => text.includes(`<${mark}>`) && text.includes(` ${mark} 🙂`) && list.includes(mark);
  return marks.every(isThere) && ![...letters].some((letter) => text.includes(letter));
};

const deeds = {
  // The text by our client, the rest by the bound document.
  write: ({ mark, letter, entry }) => {
    page.insert(0, `<${mark}>`);
    page.edit({ type: "delete", anchor: letter });
    page.append(` ${mark} 🙂`);
    doc.getMap("map").set(mark, entry);
    doc.getMap("map").set("last", mark);
    doc.getArray("list").push([mark]);
  },
  gone: () => until(() => client.state !== "connected"),
  holds: ({ marks, letters }) => until(() => has(page.value, marks, letters) && has(bound(), marks, letters)),
  value: () => page.value,
  bound,
  close: () => page.close(),
};

say({ result: "ready" });
for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, ...how } = JSON.parse(line);
  say({ result: (await deeds[what](how)) ?? null });
}
await client.close();
