"""Publishes numbers through an outbox on disk until its input ends, and says which of them it was promised.

Arguments: the broker's URL, the outbox, the first number, the client's id (empty: none), and the topics. It says
`[topic, number]` when a message is on disk, and at last what `close` reports.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import threading
from collections import deque

import kps

IN_FLIGHT = 64


def say(what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")  # at once and whole, for the next moment may be the last


async def main(url: str, outbox: str, first: str, client_id: str, *topics: str) -> None:
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    client = await kps.connect(
        url, id=client_id or None, wait=False, outbox=outbox, reconnect_min=0.01, reconnect_max=0.05
    )
    waiting: deque[tuple[str, int, kps.Receipt]] = deque()

    async def confirm() -> None:
        topic, number, receipt = waiting.popleft()
        assert await receipt == "queued_on_disk"
        say([topic, number])

    for number in itertools.count(int(first)):
        if ended.is_set():
            break
        topic = topics[number % len(topics)]
        waiting.append((topic, number, client.publish(topic, number, receipt="queued_on_disk")))
        if len(waiting) >= IN_FLIGHT:
            await confirm()
    while waiting:
        await confirm()
    for topic in topics:
        # Everything before it has come as far.
        await client.publish(topic, -1, receipt="stored" if topic.startswith("orders.") else "accepted")
    report = await client.close()
    say({"kept": report.kept, "abandoned": report.abandoned})


asyncio.run(main(*sys.argv[1:]))
