"use strict";
// How programs end: with and without closing, alive as long as they must and no longer.

const { program, mailbox, useServer } = require("./support.js");

const used = useServer();

test("an_idle_connection_lets_the_process_end", async () => {
  const { code, stderr } = await program("idle.js", used.url).ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
});

test("short_processes_end_by_themselves_and_lose_nothing_that_was_flushed", async () => {
  const PROCESSES = 24;
  const EACH = 50;
  const counts = new Map();
  const done = mailbox();
  let total = 0;
  const subscription = await used.server.subscribe("programs.idle", ({ data: { pid, n } }) => {
    expect(n).toBe(counts.get(pid) ?? 0);
    counts.set(pid, n + 1);
    if (++total === PROCESSES * EACH) done.put();
  });
  for (let batch = 0; batch < PROCESSES / 4; batch++) {
    const runs = Array.from({ length: 4 }, () => program("idle.js", used.url, String(EACH), "flush").ended);
    for (const { code, stderr } of await Promise.all(runs)) expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  }
  await done.take();
  expect([...counts.values()]).toEqual(Array(PROCESSES).fill(EACH));
  await subscription.unsubscribe();
}, 60_000);

test("what_was_published_without_flush_is_flushed_at_exit", async () => {
  const got = mailbox();
  const subscription = await used.server.subscribe("programs.idle", ({ data }) => got.put(data.n));
  const { code } = await program("idle.js", used.url, "3").ended;
  expect(code).toBe(0);
  expect([await got.take(), await got.take(), await got.take()]).toEqual([0, 1, 2]);
  await subscription.unsubscribe();
});

test("what_cannot_be_flushed_at_exit_is_counted_aloud_within_its_deadline", async () => {
  const { code, stderr, ms } = await program("offline.js").ended;
  expect(code).toBe(0);
  expect(stderr).toMatch(/\b3\b.*abandoned/);
  expect(ms).toBeLessThan(3000);
});

test("an_active_subscription_keeps_the_process_alive_until_it_ends", async () => {
  const { line, ended } = program("subscriber.js", used.url);
  expect(await line()).toBe("ready");
  used.server.publish("programs.subscriber", 1);
  expect(await line()).toBe("got 1");
  used.server.publish("programs.subscriber", "stop");
  expect(await line()).toBe("got stop");
  expect((await ended).code).toBe(0);
});

test.each(["unref", "unref client"])("%s_lets_the_process_end_in_spite_of_a_subscription", async (how) => {
  const { code, lines } = await program("subscriber.js", used.url, how).ended;
  expect({ code, lines }).toEqual({ code: 0, lines: ["ready"] });
});

test("a_pending_ack_keeps_the_process_alive_and_unref_opts_out", async () => {
  const subscription = await used.server.subscribe("programs.silent", () => new Promise(() => {}));
  expect(await program("waiter.js", used.url).ended).toMatchObject({ code: 0, lines: ["timeout"] });
  expect(await program("waiter.js", used.url, "unref").ended).toMatchObject({ code: 0, lines: [] });
  await subscription.unsubscribe();
});

test("a_server_keeps_the_process_alive_unless_unref", async () => {
  expect((await program("server.js", "unref").ended).code).toBe(0);
  const { line, kill, ended } = program("server.js", "run");
  expect(await line()).toMatch(/^ws:/);
  kill("SIGINT");
  expect((await ended).code).toBe(0);
});

test("a_program_killed_by_ctrl_c_ends_at_once", async () => {
  const { line, kill, ended } = program("subscriber.js", used.url);
  await line();
  kill("SIGINT");
  const { code, signal } = await ended;
  expect(signal ?? code).toBe("SIGINT");
});

test("workers_start_end_and_are_terminated_cleanly", async () => {
  const names = mailbox();
  const subscription = await used.server.subscribe("programs.worker", ({ data }) => names.put(data));
  const { code, stderr, lines } = await program("worker.js", used.url).ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(JSON.parse(lines[0])).toEqual([0, 1, 0, 1, 0, 1, 0, 1]);
  for (let n = 0; n < 4; n++) expect(await names.take()).toBe(`short-${n}`);
  await subscription.unsubscribe();
}, 60_000);
