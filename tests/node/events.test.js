"use strict";
// What clients and servers tell, beyond the conformance cases.

const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const kps = require("kps");
const api = require("../conformance/api.json");

/** A promise of the event's next arguments. */
const next = (client, event) => new Promise((resolve) => client.on(event, (...args) => resolve(args)));

async function withServer(options, act) {
  const server = await kps.Server.start({ listen: "127.0.0.1:0", ...options });
  try {
    return await act(server);
  } finally {
    await server.close();
  }
}

test("every_event_of_the_description_can_be_listened_to_where_it_happens", async () => {
  await withServer({}, async (server) => {
    const client = await kps.connect(server.url);
    for (const { name } of api.events.client) client.on(name, () => {})();
    for (const { name } of [...api.events.client, ...api.events.server]) server.on(name, () => {})();
    expect(() => client.on("node_started", () => {})).toThrow(/connection_opened/);
    expect(() => server.on("no_such_event", () => {})).toThrow(/node_started/);
    await client.close();
  });
});

test("a_servers_timeline_has_what_happened_before_anybody_listened", async () => {
  await withServer({}, async (server) => {
    const client = await kps.connect(server.url, { id: "ann" });
    await client.subscribe("t.*", () => {});
    const told = Object.fromEntries(server.timeline().map(({ event, detail }) => [event, detail]));
    expect(told.node_started).toBe(`address=${server.address}`);
    expect(told.subscription_opened).toBe("client_id=ann topic=t.*");
    expect(Math.abs(server.timeline()[0].time - Date.now())).toBeLessThan(60_000);
    await client.close();
  });
});

test("an_error_of_a_handler_that_nobody_listens_for_is_an_error", async () => {
  await withServer({}, async (server) => {
    const client = await kps.connect(server.url);
    const broken = ({ data }) => {
      throw new RangeError(data);
    };
    await client.subscribe("a", broken);
    await server.subscribe("b", broken);
    const [mine, theirs] = [next(client, "error"), next(server, "error")];
    client.publish("a", "client");
    client.publish("b", "server");
    expect((await mine)[0]).toBeInstanceOf(RangeError);
    const [error, clientId, remote] = await theirs;
    expect([error.message, clientId, remote]).toEqual(["server", null, null]);
    await client.close();
  });
});

test("a_refused_client_is_told_with_its_error", async () => {
  await withServer({ token: "secret" }, async (server) => {
    const told = next(server, "error");
    await expect(kps.connect(server.url, { id: "eve", token: "guess" })).rejects.toThrow();
    const [error, clientId] = await told;
    expect(error).toBeInstanceOf(kps.KpsError);
    expect([error.code, clientId]).toEqual(["unauthorized", "eve"]);
  });
});

test("a_server_tells_when_it_stops", async () => {
  const server = await kps.Server.start({ listen: "127.0.0.1:0" });
  const stopping = next(server, "node_stopping");
  await server.close();
  await stopping;
});

test("an_audit_log_is_kept_and_what_it_is_to_keep_is_checked", async () => {
  const data = fs.mkdtempSync(path.join(os.tmpdir(), "kps-audit-"));
  await expect(kps.Server.start({ listen: "127.0.0.1:0", data, audit: "payloads" })).rejects.toThrow(/payloads/);
  await expect(kps.Server.start({ listen: "127.0.0.1:0", data, audit: 1 })).rejects.toThrow(TypeError);
  await withServer({ data, audit: true }, async (server) => {
    await (await kps.connect(server.url, { id: "ann" })).close();
  });
  const bin = path.join(__dirname, "../../bindings-node/bin/kps.js");
  const printed = execFileSync(process.execPath, [bin, "audit", "--data", data, "--kind", "client_connected"], { encoding: "utf8" });
  expect(printed).toMatch(/client_connected client_id=ann\n$/);
  fs.rmSync(data, { recursive: true });
});
