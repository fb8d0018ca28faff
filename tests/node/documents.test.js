"use strict";
// Documents that several clients edit.

const { mkdtempSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const path = require("node:path");
const { setImmediate: turn } = require("node:timers/promises");
const kps = require("kps");
const { Link } = require("./link");
const { useServer, mailbox, program } = require("./support");

const used = useServer();

let last = 0;
/** A document of one's own, open at a client and at the server. */
async function pair(options = {}, theirs = options) {
  const id = `d${++last}`;
  const client = await used.connect();
  const ann = await client.openDocument(id, { author: "ann", ...options });
  const bob = await used.server.openDocument(id, { author: "bob", ...theirs });
  return { id, client, ann, bob };
}

/** Waits until `look()` is `wanted`. */
async function until(look, wanted = true) {
  for (const end = performance.now() + 15_000; ; await turn()) {
    // Not deeply strict: what native code makes has other prototypes in jest.
    if (JSON.stringify(look()) === JSON.stringify(wanted)) return;
    if (performance.now() > end) throw new Error(`it is ${JSON.stringify(look())}, not ${JSON.stringify(wanted)}`);
  }
}

/** What `call` throws, or what it returns rejects with. */
async function failure(call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error("nothing failed");
}

const code = async (call) => (await failure(call)).code;

test("what one edits all see", async () => {
  const { id, ann, bob } = await pair();
  const receipt = ann.edit({ type: "append", text: "Hello" });
  expect(ann.text).toBe("Hello");
  expect(await receipt).toEqual({ opId: receipt.opId, version: ann.version, level: "applied" });
  await until(() => bob.text, "Hello");
  await bob.insert(5, ", Ann");
  await until(() => ann.text, "Hello, Ann");
  expect([ann.author, bob.author, ann.kind, ann.id]).toEqual(["ann", "bob", "text", id]);
  expect(ann.isConnected).toBe(true);
  // Without a folder a checkpoint is no safer than memory.
  expect(ann.unsynced).toEqual([]);
  expect(JSON.parse(JSON.stringify(ann))).toEqual({ id, kind: "text", author: "ann", version: ann.version });
});

test("every way to edit text", async () => {
  const { ann } = await pair();
  ann.append("one three");
  ann.edit({ type: "insert", after: "one", text: " two" });
  ann.edit({ type: "insert", before: "one", text: "🦀 " });
  ann.replace(0, 1, "zero");
  ann.replaceText("three", "3");
  ann.delete(5, 4);
  const receipt = ann.edit([{ type: "append", text: "!" }, { type: "append", text: "?" }]);
  expect(ann.text).toBe("zero two 3!?");
  await receipt;
  const [first, second] = ann.editBatch([{ type: "append", text: "a" }, [{ type: "append", text: "b" }]]);
  const { version } = await first;
  expect((await second).version).toBe(ann.version);
  expect(await ann.at(version)).toBe("zero two 3!?a");
  expect(await ann.at(Number(version.match(/\d+/)[0]))).toBe("zero two 3!?a");
  expect(ann.text).toBe("zero two 3!?ab");
  // It may be awaited again.
  expect(await second).toEqual(await second);
  expect(ann.editBatch([])).toEqual([]);
});

test("positions are code points, whatever JavaScript counts", async () => {
  const { ann, bob } = await pair();
  ann.append("a🦀b");
  ann.insert(2, "👩‍🚀");
  await ann.delete(0, 2);
  await until(() => bob.text, "👩‍🚀b");
  expect(await code(() => ann.insert(5, "x"))).toBe("position_out_of_range");
});

test.each([
  ["edit", (document) => document.append("a\ud83d")],
  ["edit", (document) => document.edit({ type: "replace", anchor: "\udd80", text: "x" })],
  ["operations", (document) => document.editBatch([{ type: "append", text: "fits" }, { type: "append", text: "\ud83d " }])],
  ["token", (document) => document.stream().write("\ud83e")],
  ["before", (document) => document.stream({ before: "\ud83e" })],
  ["state", (document) => document.setPresence({ name: "\ud83e" })],
  ["id", () => used.server.openDocument("\ud83e")],
  ["author", () => used.server.openDocument("d", { author: "\ud83e" })],
])("half of a character is refused in %s", async (name, call) => {
  const { ann } = await pair();
  expect(await failure(() => call(ann))).toMatchObject({
    code: "invalid_argument",
    message: expect.stringMatching(new RegExp(`^${name} has half of a surrogate pair`)),
  });
  expect(ann.text).toBe("");
  // What only looks so is text.
  await ann.append("\\ud83d \\\ud83e\udd80");
  expect(ann.text).toBe("\\ud83d \\🦀");
});

test("json", async () => {
  const { id, client, ann, bob } = await pair({ kind: "json" });
  await ann.merge({ list: [1, 2], name: "ann", marked: { $int: "5" } });
  await bob.patch([{ op: "add", path: "/list/-", value: { deep: null } }]);
  await until(() => ann.value, { list: [1, 2, { deep: null }], marked: { $int: "5" }, name: "ann" });
  expect(await ann.at(1)).toEqual({ list: [1, 2], name: "ann", marked: { $int: "5" } });
  expect(await code(() => ann.append("text"))).toBe("wrong_kind");
  expect(await code(() => ann.text)).toBe("wrong_kind");
  expect(await code(() => client.openDocument(id))).toBe("conflict");
  expect(await code(() => ann.merge({ fn: () => 1 }))).toBe("invalid_operation");
  expect(await code(() => ann.merge({ bytes: Buffer.from("x") }))).toBe("invalid_operation");
});

test("integers are exact where they are asked to be", async () => {
  const { id, ann } = await pair({ kind: "json" });
  const exact = await (await used.connect({ bigints: true })).openDocument(id, { kind: "json" });
  const heard = mailbox();
  exact.on("change", heard.put);
  await ann.merge({ big: 2n ** 60n });
  expect((await heard.take()).changes).toEqual([{ merge: { big: 2n ** 60n } }]);
  expect(exact.value).toEqual({ big: 2n ** 60n });
  expect(ann.value).toEqual({ big: 2 ** 60 });
  expect(await code(() => exact.merge({ big: 2n ** 64n }))).toBe("invalid_operation");
});

test("what does not fit is refused and nothing is done", async () => {
  const { ann } = await pair();
  await ann.append("text text");
  for (const [edit, wanted] of [
    [{ type: "insert", position: 99, text: "x" }, "position_out_of_range"],
    [{ type: "delete", position: 5, length: 5 }, "position_out_of_range"],
    [{ type: "replace", anchor: "nowhere", text: "x" }, "anchor_not_found"],
    [{ type: "replace", anchor: "text", text: "x" }, "anchor_not_unique"],
    [{ type: "append", text: "x".repeat(20 << 20) }, "operation_too_large"],
    [{ type: "move" }, "invalid_operation"],
    [{ type: "append", text: "x", color: "red" }, "invalid_operation"],
    [{ type: "insert", position: 1.5, text: "x" }, "invalid_operation"],
    [[], "invalid_operation"],
  ]) {
    const error = await failure(() => ann.edit(edit));
    expect(error).toBeInstanceOf(kps.KpsError);
    expect([error.code, error.event]).toEqual([wanted, undefined]);
  }
  expect(() => ann.edit("text")).toThrow(TypeError);
  const operations = [{ type: "append", text: "x" }, { type: "delete", position: 0, length: 99 }];
  expect(await code(() => ann.editBatch(operations))).toBe("position_out_of_range");
  expect(ann.text).toBe("text text");
});

test("what only the server knows is told later, as an event too", async () => {
  const { ann } = await pair();
  const heard = mailbox();
  ann.on("rejected", heard.put);
  const receipt = ann.append("x".repeat(300 << 10));
  const error = await failure(() => receipt);
  expect(error.code).toBe("operation_too_large");
  expect(error.event).toEqual(await heard.take());
  expect(ann.text).toBe("");
});

test("without rebasing who is slower hears what it missed", async () => {
  const { ann, bob } = await pair({ rebase: false }, {});
  let conflict;
  let tries = 0;
  while (conflict === undefined && tries < 200) {
    tries += 1;
    const [slower] = await Promise.allSettled([ann.insert(0, "a"), bob.insert(0, "b")]);
    if (slower.status === "rejected") conflict = slower.reason;
    await until(() => ann.text === bob.text);
  }
  expect(conflict).toMatchObject({ code: "conflict", event: { event: "conflict", author: "ann" } });
  expect(conflict.event.missing_ops.some(({ author }) => author === "bob")).toBe(true);
  expect(ann.text.match(/a/g)?.length ?? 0).toBe(tries - 1);
  await ann.append("again");
  expect(ann.text).toMatch(/again$/);
});

test("events are the same for all, to the byte", async () => {
  const { id, client, ann } = await pair();
  const [own, theirs] = [await used.server.subscribe(`kps.document.${id}`), await client.subscribe(`kps.document.${id}`)];
  const heard = mailbox();
  const changes = mailbox();
  const off = ann.on("*", heard.put);
  ann.on("change", changes.put);
  await ann.append('ü🦀"');
  const stale = { id, op_id: "stale", base_version: 'W/"0"', edit: { type: "append", text: "?" } };
  await client.dispatch("document.edit", stale);
  const told = [];
  for (const event of ["change", "ack", "conflict"]) {
    const message = (await own[Symbol.asyncIterator]().next()).value;
    const other = (await theirs[Symbol.asyncIterator]().next()).value;
    expect(other.raw.equals(message.raw)).toBe(true);
    const one = await heard.take();
    expect(one.event).toBe(event);
    // The object comes from these bytes: its keys are in their order.
    expect(JSON.stringify(one)).toBe(message.raw.toString());
    told.push(one);
  }
  expect(told[2]).toMatchObject({ op_id: "stale", missing_ops: [{ splices: [[0, 0, 'ü🦀"']] }] });
  expect(await changes.take()).toEqual(told[0]);
  off();
  await ann.append("!");
  await changes.take();
  expect(heard.items).toEqual([]);
  expect(await code(() => ann.on("changed", () => {}))).toBe("invalid_argument");
});

test("undo, versions and compact", async () => {
  const { ann, bob } = await pair();
  await ann.append("one");
  await bob.append(" bob");
  await until(() => ann.text, "one bob");
  const two = await ann.append(" two");
  expect((await ann.undo(2)).version).toBe(ann.version);
  expect(ann.text).toBe(" bob");
  const page = await ann.versions({ limit: 3 });
  expect(page.version).toBe(ann.version);
  expect(page.versions.map(({ author }) => author)).toEqual(["ann", "ann", "bob"]);
  expect(page.versions[0].undoes).toHaveLength(2);
  expect(page.versions[1].opId).toBe(two.opId);
  expect((await ann.versions({ before: two.version })).versions).toHaveLength(2);
  expect(await code(() => ann.undo())).toBe("nothing_to_undo");
  await ann.compact();
  expect(await code(() => ann.at(two.version))).toBe("not_found");
  expect(await code(() => ann.at("soon"))).toBe("invalid_argument");
  expect(await code(() => ann.undo(0))).toBe("invalid_argument");
});

test("a stream stays in one piece", async () => {
  const { ann: agent, bob: person } = await pair();
  await person.append("Title.\n");
  await until(() => agent.text, "Title.\n");
  const tokens = Array.from({ length: 300 }, (_, n) => `${n} `);
  const write = async () => {
    const stream = agent.stream({ flushEvery: 1 });
    for (const token of tokens) {
      stream.write(token);
      await turn();
    }
    return await stream.close();
  };
  const disturb = async () => {
    for (let n = 0; n < 50; n++) {
      await person.append(".");
      await person.insert(n, ",");
    }
  };
  const [version] = await Promise.all([write(), disturb()]);
  expect(version).toMatch(/^W\/"\d+"$/);
  await until(() => person.text === agent.text);
  expect(agent.text).toContain(tokens.join(""));

  const before = agent.stream({ before: "Title", flushEvery: 10_000 });
  before.write("A ");
  before.write("Great ");
  await before[Symbol.asyncDispose]();
  expect(agent.text.replaceAll(",", "")).toContain("A Great Title");
  const empty = agent.stream();
  expect(await empty.close()).toBe(null);
  expect(await code(() => empty.write("x"))).toBe("closed");
  expect(await code(() => agent.stream({ after: "nowhere" }))).toBe("anchor_not_found");
  expect(await code(() => agent.stream({ after: "a", position: 1 }))).toBe("invalid_argument");
});

test("who is there, and where", async () => {
  const { client, ann, bob } = await pair();
  await ann.append("Hello");
  await until(() => bob.text, "Hello");
  ann.setPresence({ name: "Ann", cursor: 5, selection: [0, 5] });
  await until(() => bob.presence.length, 1);
  expect(bob.presence).toMatchObject([{ client: client.id, author: "ann", state: { name: "Ann", cursor: 5 } }]);
  bob.insert(0, ">> ");
  expect(bob.presence[0].state).toMatchObject({ cursor: 8, selection: [0, 8] });
  expect(ann.presence).toEqual([]);
  ann.setPresence(null);
  await until(() => bob.presence, []);
  expect(() => ann.setPresence([1])).toThrow(TypeError);
});

test("what is edited without a connection is sent later, by another process too", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "kps-"));
  const link = new Link(() => used.server.address);
  await link.open();
  const url = `ws://${link.address}`;
  const options = { id: "offline-ann", outbox: path.join(folder, "outbox") };
  try {
    const bob = await used.server.openDocument("offline");
    let client = await kps.connect(url, { ...options, reconnectMax: 100 });
    let ann = await client.openDocument("offline");
    await ann.append("one");
    link.cut();
    ann.append(" two");
    ann.insert(0, "zero ");
    expect(ann.unsynced).toHaveLength(2);
    await until(() => ann.isConnected, false);
    expect(await ann.close(10)).toHaveLength(2);
    await client.close(100);
    await bob.insert(3, "!");
    link.restore();
    client = await kps.connect(url, options);
    ann = await client.openDocument("offline");
    expect(ann.text).toBe("zero one! two");
    await ann.flush();
    await until(() => bob.text, "zero one! two");
    await client.close();
  } finally {
    link.close();
    rmSync(folder, { recursive: true });
  }
});

test("a closed document says so", async () => {
  const { id, client, ann } = await pair();
  const heard = mailbox();
  ann.on("closed", heard.put);
  ann.append("text");
  await ann[Symbol.asyncDispose]();
  expect(await heard.take()).toMatchObject({ event: "closed", id, code: "closed" });
  expect(await code(() => ann.append("more"))).toBe("closed");
  expect(await code(() => ann.flush())).toBe("closed");
  expect(ann.text).toBe("text");
  expect((await client.openDocument(id)).text).toBe("text");
  expect(await code(() => client.openDocument(""))).toBe("invalid_payload");
  expect(await code(() => client.openDocument("d", { kind: "book" }))).toBe("invalid_argument");
  await expect(client.openDocument("d", { color: "red" })).rejects.toThrow(TypeError);
});

test("an edit that waits when its client is closed is rejected", async () => {
  const link = new Link(() => used.server.address);
  await link.open();
  const client = await kps.connect(`ws://${link.address}`);
  const document = await client.openDocument("waits");
  link.cut();
  const receipt = document.append("text");
  const outcome = code(() => receipt);
  await client.close(0);
  expect(await outcome).toBe("closed");
  link.close();
});

test("a private bus has documents too", async () => {
  const client = await kps.connect("mem://");
  const [first, second] = [await client.openDocument("d"), await client.openDocument("d", { author: "other" })];
  await first.append("text");
  await until(() => second.text, "text");
  await client.close();
});

test("a server's options say when documents are stored, and how large they are", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "kps-"));
  const server = await kps.Server.start({
    listen: "127.0.0.1:0",
    data: folder,
    documentCheckpointEvery: 3_600_000,
    documentCheckpointOperations: 2,
    documentMaxSize: 100,
  });
  try {
    const document = await server.openDocument("d");
    const heard = mailbox();
    document.on("checkpoint", heard.put);
    const first = document.append("one");
    await first;
    expect(document.unsynced).toEqual([first.opId]);
    await document.append("two");
    expect((await heard.take()).version).toBe('W/"2"');
    await until(() => document.unsynced, []);
    expect(document.checkpointed).toBe('W/"2"');
    expect(await code(() => document.append("x".repeat(100)))).toBe("document_too_large");
  } finally {
    await server.close();
    rmSync(folder, { recursive: true });
  }
});

test("a handler keeps the process until it is taken away or the document is closed", async () => {
  const document = await used.server.openDocument("programs");
  for (const how of ["off", "close"]) {
    const { line, ended } = program("document.js", used.url, how);
    expect(await line()).toBe("ready");
    await document.append(" stop");
    expect(await line()).toMatch(/ stop$/);
    expect(await ended).toMatchObject({ code: 0, stderr: "" });
  }
  expect(await program("document.js", used.url, "unref").ended).toMatchObject({ code: 0, lines: ["ready"], stderr: "" });
});

test("what was edited just before the end of a process is sent", async () => {
  const document = await used.server.openDocument("programs");
  const { text } = document;
  expect(await program("document.js", used.url, "edit").ended).toMatchObject({ code: 0, stderr: "" });
  await until(() => document.text, `${text}edited`);
  const { code, lines } = await program("document.js", used.url, "await").ended;
  expect({ code, lines }).toEqual({ code: 0, lines: [document.version] });
});
