"""`text.py kps propose URL OPTIONS`: clients that edit one text document, each when its last edit was acknowledged."""

import asyncio
import json
import random
import sys
import time

import uvloop
from worker import middle, say

import kps


async def write(document, count, took):
    for number in range(count):
        edit = {"type": "insert", "position": random.randint(0, len(document.text)), "text": f"word {number} "}
        began = time.perf_counter()
        await document.edit(edit)
        took.append(time.perf_counter() - began)


async def propose(url, writers, operations):
    clients = [await kps.connect(url) for _ in range(writers)]
    documents = [await client.open_document("bench") for client in clients]
    each = -(-operations // writers)
    await asyncio.gather(*(write(document, -(-each // 10), []) for document in documents))
    took = []
    began = time.perf_counter()
    await asyncio.gather(*(write(document, each, took) for document in documents))
    lasted = time.perf_counter() - began
    took.sort()
    say("end", rate=len(took) / lasted, p50=middle(took), p99=took[int(len(took) * 0.99)])


if __name__ == "__main__":
    _peer, _role, url, options = sys.argv[1:]
    uvloop.run(propose(url, **json.loads(options)))
