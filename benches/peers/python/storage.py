"""`storage.py PEER storage URL OPTIONS`: saves and reads documents of 1 KB under a thousand keys.

kps dispatches to its own storage. `sqlite3` is called on the loop's thread, which stands still meanwhile; `aiosqlite`
is how programs with an event loop use it. Both encode with orjson, and answer a save when it is as durable as kps' is.
"""

import asyncio
import json
import sqlite3
import sys
import time

import orjson
import uvloop
from document import document
from worker import middle, say, told

KEYS = 1_000
WARMUP = 200


class Kps:
    async def open(self, path, durability):
        import kps

        kept = {} if path is None else {"storage": {"path": path, "durability": durability}}
        self.client = await kps.connect("mem://", **kept)
        self.dispatch = self.client.dispatch

    async def save(self, key, value):
        (await self.dispatch("storage.save", {"key": key, "value": value})).unwrap()

    async def get(self, key):
        return (await self.dispatch("storage.get", {"key": key})).unwrap()["value"]

    async def save_many(self, items):
        items = [{"key": key, "value": value} for key, value in items]
        for each in (await self.dispatch("storage.save_many", {"items": items})).unwrap()["results"]:
            assert each["status"] == "ok", each

    async def together(self, items):
        await asyncio.gather(*(self.save(key, value) for key, value in items))

    async def count(self):
        return (await self.dispatch("storage.stat")).unwrap()["keys"]

    async def close(self):
        await self.client.close()


TABLE = "CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID"
SAVE = "INSERT INTO entries VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
GET = "SELECT value FROM entries WHERE key = ?"


def pragmas(path, durability):
    return [] if path is None else ["PRAGMA journal_mode = WAL", f"PRAGMA synchronous = {durability}"]


class Sqlite3:
    async def open(self, path, durability):
        self.database = sqlite3.connect(path or ":memory:", isolation_level=None)
        for statement in [*pragmas(path, durability), TABLE]:
            self.database.execute(statement)

    async def save(self, key, value):
        self.database.execute(SAVE, (key, orjson.dumps(value)))

    async def get(self, key):
        return orjson.loads(self.database.execute(GET, (key,)).fetchone()[0])

    async def save_many(self, items):
        with self.database:
            self.database.execute("BEGIN")
            self.database.executemany(SAVE, [(key, orjson.dumps(value)) for key, value in items])

    async def together(self, items):
        for key, value in items:
            self.database.execute(SAVE, (key, orjson.dumps(value)))

    async def count(self):
        return self.database.execute("SELECT count(*) FROM entries").fetchone()[0]

    async def close(self):
        self.database.close()


class Aiosqlite:
    async def open(self, path, durability):
        import aiosqlite

        self.database = await aiosqlite.connect(path or ":memory:", isolation_level=None)
        for statement in [*pragmas(path, durability), TABLE]:
            await self.database.execute(statement)

    async def save(self, key, value):
        await self.database.execute(SAVE, (key, orjson.dumps(value)))

    async def get(self, key):
        (row,) = await self.database.execute_fetchall(GET, (key,))
        return orjson.loads(row[0])

    async def save_many(self, items):
        await self.database.execute("BEGIN")
        await self.database.executemany(SAVE, [(key, orjson.dumps(value)) for key, value in items])
        await self.database.commit()

    async def together(self, items):
        await asyncio.gather(*(self.save(key, value) for key, value in items))

    async def count(self):
        ((count,),) = await self.database.execute_fetchall("SELECT count(*) FROM entries")
        return count

    async def close(self):
        await self.database.close()


PEERS = {"kps": Kps, "sqlite3": Sqlite3, "aiosqlite": Aiosqlite}


async def storage(peer, options):
    calls, many = options["calls"], options["many"]
    await peer.open(options["path"], options["durability"])
    keys = [f"user/{number}" for number in range(KEYS)]
    await peer.save_many((key, document(number)) for number, key in enumerate(keys))

    async def each(call):
        """How long each of the calls takes, sorted."""
        took = []
        for number in range(-WARMUP, calls):
            start = time.perf_counter()
            await call(number)
            took.append(time.perf_counter() - start)
        return sorted(took[WARMUP:])

    async def save(number):
        await peer.save(keys[number * 7919 % KEYS], document(number))

    async def get(number):
        got = await peer.get(keys[number * 7919 % KEYS])
        assert got["name"] == "Ada Lovelace" and len(got["orders"]) == 5, "another value came back"

    async def hundreds(save):
        """What one of `many` saves takes that are made together."""
        took = []
        for number in range(-2, max(10, calls // many)):
            items = [(keys[(number + place) * 7919 % KEYS], document(place)) for place in range(many)]
            start = time.perf_counter()
            await save(items)
            took.append((time.perf_counter() - start) / many)
        return middle(sorted(took[2:]))

    saves, gets = await each(save), await each(get)
    many_each, together_each = await hundreds(peer.save_many), await hundreds(peer.together)
    # The last save of this key is what is there.
    await peer.save(keys[1], document(77))
    assert await peer.get(keys[1]) == document(77) and await peer.count() == KEYS, "something was lost"
    say(
        "end",
        save=middle(saves),
        save_p99=saves[len(saves) * 99 // 100],
        get=middle(gets),
        many=many_each,
        together=together_each,
    )
    await peer.close()
    await told()


def main():
    name, _, _, options = sys.argv[1:]
    uvloop.run(storage(PEERS[name](), json.loads(options)))


if __name__ == "__main__":
    main()
