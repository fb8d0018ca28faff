"use strict";
// What the suites share: a server per test file, clients that are closed, programs of their own.

const { spawn } = require("node:child_process");
const path = require("node:path");
const kps = require("kps");

/** A server for this file's tests; `connect` makes clients that are closed after each test. */
function useServer(options = {}) {
  const used = { server: undefined, url: undefined, connect: undefined };
  const clients = [];
  beforeAll(async () => {
    used.server = await kps.Server.start({ listen: "127.0.0.1:0", ...options });
    used.url = used.server.url;
  });
  used.connect = async (more) => {
    const client = await kps.connect(used.url, more);
    clients.push(client);
    return client;
  };
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.close(0);
  });
  afterAll(() => used.server.close(0));
  return used;
}

/** Resolves to the next arguments of a callback, in order. */
function mailbox() {
  const items = [];
  const takers = [];
  const put = (item) => {
    const taker = takers.shift();
    if (taker) taker(item);
    else items.push(item);
  };
  const take = () => (items.length ? Promise.resolve(items.shift()) : new Promise((resolve) => takers.push(resolve)));
  return { put, take, items };
}

/** A promise with its resolver. */
function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { open, opened };
}

/** Runs a program of `programs/`; `line()` is its next line, `ended` its end. */
function program(name, ...args) {
  const child = spawn(process.execPath, [path.join(__dirname, "programs", name), ...args]);
  const lines = mailbox();
  let rest = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    const parts = (rest + text).split("\n");
    rest = parts.pop();
    parts.forEach(lines.put);
  });
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
  const started = performance.now();
  const ended = new Promise((resolve) => {
    child.on("close", (code, signal) => resolve({ code, signal, stderr, lines: lines.items, ms: performance.now() - started }));
  });
  return { child, line: lines.take, ended, kill: (signal) => child.kill(signal) };
}

module.exports = { useServer, mailbox, gate, program };
