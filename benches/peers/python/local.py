"""`local.py kps local URL OPTIONS`: what one call costs in one process, and what awaiting a coroutine would."""

import asyncio
import json
import sys
import time

import uvloop
from worker import middle, say, told

import kps

WARMUP = 500


class Noop:
    def plain(self, payload):
        return payload

    async def coroutine(self, payload):
        return payload


async def coroutine(payload):
    return payload


async def local(options):
    client = await kps.connect("mem://")
    await client.register("noop", Noop())
    dispatch = client.dispatch
    heard = asyncio.Event()
    await dispatch("sync.subscribe", {"channel": "room", "callback": lambda record: heard.set()})

    async def fibonacci():
        assert (await dispatch("compute.execute", {"task": "fibonacci", "data": {"n": 1000}})).data["result"] > 10**208

    async def broadcast():
        heard.clear()
        await dispatch("sync.broadcast", {"channel": "room", "event": "tick", "data": 1})
        await heard.wait()

    async def p50(call):
        took = []
        for _ in range(WARMUP + options["calls"]):
            start = time.perf_counter()
            await call()
            took.append(time.perf_counter() - start)
        return middle(sorted(took[WARMUP:]))

    figures = {
        "await": await p50(lambda: coroutine(None)),
        "task": await p50(lambda: asyncio.create_task(coroutine(None))),
        "noop": await p50(lambda: dispatch("noop.plain", None)),
        "noop_async": await p50(lambda: dispatch("noop.coroutine", None)),
        "fibonacci": await p50(fibonacci),
        "broadcast": await p50(broadcast),
    }
    await client.close()
    say("end", p50=figures)
    await told()


def main():
    uvloop.run(local(json.loads(sys.argv[4])))


if __name__ == "__main__":
    main()
