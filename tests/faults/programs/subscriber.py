"""Handles the messages of a subscription, says which, and acks them; ends with its input.

Arguments: the broker's URL, the pattern, and the durable's name (empty: none; then it also says what is missing and
when it resumed). It says `[number, attempt, maybe_duplicate]`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import kps


def say(what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")  # at once and whole, for the next moment may be the last


async def handle(message: kps.Message) -> None:
    say([message.data, message.attempt, message.maybe_duplicate])


async def main(url: str, pattern: str, durable: str) -> None:
    client = await kps.connect(url, timeout=20, reconnect_min=0.01, reconnect_max=0.05)
    if durable:
        await client.subscribe(pattern, handle, durable=durable, start="all", max_attempts=0)
    else:
        client.on("gap", lambda gap, _: say({"gap": gap.reason}))
        client.on("resumed", lambda resumed, _: say({"resumed": resumed.replayed}))
        await client.subscribe(pattern, handle)
    say("ready")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await client.close()


asyncio.run(main(*sys.argv[1:]))
