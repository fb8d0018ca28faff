// `storage.mjs PEER storage URL OPTIONS`: saves and reads documents of 1 KB under a thousand keys; the twin of
// ../python/storage.py. better-sqlite3 is synchronous: the loop stands still while it works, and while it waits for a disk.
import assert from "node:assert";
import { document } from "./document.mjs";
import { middle, say, sorted, told } from "./process.mjs";

const KEYS = 1_000;
const WARMUP = 500;

class Kps {
  async open(path, durability) {
    const { connect } = await import("kps");
    this.client = await connect("mem://", path === null ? {} : { storage: { path, durability } });
  }

  async save(key, value) {
    (await this.client.dispatch("storage.save", { key, value })).unwrap();
  }

  async get(key) {
    return (await this.client.dispatch("storage.get", { key })).unwrap().value;
  }

  async saveMany(items) {
    const given = { items: items.map(([key, value]) => ({ key, value })) };
    for (const { status } of (await this.client.dispatch("storage.save_many", given)).unwrap().results) {
      assert(status === "ok");
    }
  }

  async together(items) {
    await Promise.all(items.map(([key, value]) => this.save(key, value)));
  }

  async count() {
    return (await this.client.dispatch("storage.stat")).unwrap().keys;
  }

  async close() {
    await this.client.close();
  }
}

class BetterSqlite3 {
  async open(path, durability) {
    const { default: Database } = await import("better-sqlite3");
    this.database = new Database(path ?? ":memory:");
    if (path !== null) {
      this.database.pragma("journal_mode = WAL");
      this.database.pragma(`synchronous = ${durability}`);
    }
    this.database.exec("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID");
    const save = "INSERT INTO entries VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    this.saving = this.database.prepare(save);
    this.getting = this.database.prepare("SELECT value FROM entries WHERE key = ?").pluck();
    this.savingMany = this.database.transaction((items) => {
      for (const [key, value] of items) this.saving.run(key, JSON.stringify(value));
    });
  }

  async save(key, value) {
    this.saving.run(key, JSON.stringify(value));
  }

  async get(key) {
    return JSON.parse(this.getting.get(key));
  }

  async saveMany(items) {
    this.savingMany(items);
  }

  async together(items) {
    for (const [key, value] of items) this.saving.run(key, JSON.stringify(value));
  }

  async count() {
    return this.database.prepare("SELECT count(*) FROM entries").pluck().get();
  }

  async close() {
    this.database.close();
  }
}

const [name, , , json] = process.argv.slice(2);
const { path, durability, calls, many } = JSON.parse(json);
const peer = new { kps: Kps, better_sqlite3: BetterSqlite3 }[name]();
await peer.open(path, durability);
const keys = Array.from({ length: KEYS }, (_, number) => `user/${number}`);
const key = (number) => keys[((number % KEYS) * 7919) % KEYS];
await peer.saveMany(keys.map((key, number) => [key, document(number)]));

/** How long each of the calls takes, in order. */
async function each(call) {
  const took = [];
  for (let number = 0; number < WARMUP + calls; number++) {
    const start = performance.now();
    await call(number);
    if (number >= WARMUP) took.push((performance.now() - start) / 1e3);
  }
  return sorted(took);
}

/** What one of `many` saves takes that are made together. */
async function hundreds(save) {
  const took = [];
  for (let number = 0; number < Math.max(10, calls / many) + 5; number++) {
    const items = Array.from({ length: many }, (_, place) => [key(number + place), document(place)]);
    const start = performance.now();
    await save(items);
    took.push((performance.now() - start) / 1e3 / many);
  }
  return middle(sorted(took.slice(5)));
}

const saves = await each((number) => peer.save(key(number), document(number)));
const gets = await each(async (number) => {
  const got = await peer.get(key(number));
  if (got.name !== "Ada Lovelace" || got.orders.length !== 5) throw new Error("another value came back");
});
const manyEach = await hundreds((items) => peer.saveMany(items));
const togetherEach = await hundreds((items) => peer.together(items));
// The last save of this key is what is there.
await peer.save(keys[1], document(77));
assert.deepStrictEqual(await peer.get(keys[1]), document(77));
assert.strictEqual(await peer.count(), KEYS);
const p99 = saves[Math.floor(saves.length * 0.99)];
say("end", { save: middle(saves), save_p99: p99, get: middle(gets), many: manyEach, together: togetherEach });
await peer.close();
await told();
process.exit(0);
