"use strict";
// Yjs documents that several clients edit.

const { setImmediate: turn } = require("node:timers/promises");
const { useServer, mailbox } = require("./support");

const used = useServer();

let last = 0;
async function pair() {
  const id = `y${++last}`;
  const client = await used.connect();
  const [ann, bob] = [await client.openDocument(id, { kind: "yjs", author: "ann" }), await used.server.openDocument(id, { kind: "yjs", author: "bob" })];
  return { id, client, ann, bob };
}

/** Waits until `look()` is `wanted`. */
async function until(look, wanted) {
  for (const end = performance.now() + 15_000; JSON.stringify(look()) !== JSON.stringify(wanted); await turn()) {
    if (performance.now() > end) throw new Error(`it is ${JSON.stringify(look())}, not ${JSON.stringify(wanted)}`);
  }
}

function code(call) {
  try {
    call();
  } catch (error) {
    return error.code;
  }
  throw new Error("nothing failed");
}

test("what both edit at once merges", async () => {
  const { id, ann, bob } = await pair();
  await ann.append("one 🦀");
  bob.insert(0, "two ");
  await Promise.all([ann.flush(), bob.flush()]);
  await until(() => ann.text === bob.text, true);
  expect(ann.text).toContain("one 🦀");
  expect(ann.text).toContain("two ");
  ann.edit([{ type: "append", text: "!" }, { type: "append", text: "?" }]);
  ann.append("beside", { root: "other" });
  await until(() => bob.rootText("other"), "beside");
  expect(bob.value).toEqual({ other: "beside", text: ann.text });
  ann.delete(0, [...ann.text].length);
  ann.append("ab🦀");
  ann.replace(1, 1, "B");
  await until(() => bob.text, "aB🦀");
  expect([ann.id, ann.author, ann.isConnected]).toEqual([id, "ann", true]);
  expect(code(() => ann.insert(99, "x"))).toBe("position_out_of_range");
  expect(code(() => ann.append("\ud83e"))).toBe("invalid_argument");
});

test("updates go in and out as bytes", async () => {
  const { id, ann, bob } = await pair();
  const elsewhere = await used.server.openDocument(`${id}-copy`, { kind: "yjs" });
  const heard = mailbox();
  elsewhere.on("update", heard.put);
  ann.append("text");
  elsewhere.applyUpdate(ann.state());
  expect(elsewhere.text).toBe("text");
  expect(await heard.take()).toMatchObject({ event: "update", id: `${id}-copy`, origin: "program" });
  // What one with this state vector misses is less than all of it.
  const { stateVector } = elsewhere;
  expect(stateVector).toBeInstanceOf(Uint8Array);
  ann.append(" and more");
  const news = ann.state(stateVector);
  expect(news.length).toBeLessThan(ann.state().length);
  elsewhere.applyUpdate(news);
  expect(elsewhere.text).toBe("text and more");
  await until(() => bob.text, "text and more");
  expect(code(() => ann.applyUpdate(Buffer.from("no update")))).toBe("invalid_operation");
  expect(code(() => ann.state(Buffer.from([255])))).toBe("invalid_argument");
  expect(() => ann.applyUpdate("text")).toThrow(TypeError);
});

test("who is there, and the end of it", async () => {
  const { client, ann, bob } = await pair();
  ann.setPresence({ name: "Ann" });
  await until(() => bob.presence.map(({ client, state }) => [client, state.name]), [[client.id, "Ann"]]);
  ann.setPresence(null);
  await until(() => bob.presence, []);
  const heard = mailbox();
  ann.on("closed", heard.put);
  ann.append("last");
  expect(await ann.close()).toEqual([]);
  expect((await heard.take()).code).toBe("closed");
  expect(code(() => ann.append("more"))).toBe("closed");
  await until(() => bob.text, "last");
  await expect(client.openDocument("", { kind: "yjs" })).rejects.toMatchObject({ code: "invalid_payload" });
});
