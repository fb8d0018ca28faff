"""A server that says its URL when it listens, and ends with its input.

Arguments: where it listens, its data folder, after how many seconds of silence it takes a connection for dead, and for
how many it keeps such a one's session. It keeps `orders.>`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import kps


async def main(listen: str, data: str, silence: str, resume_window: str) -> None:
    server = kps.Server(
        listen,
        insecure=True,
        history=["orders.>"],
        data=data,
        heartbeat=float(silence) * 0.4,
        silence=float(silence),
        resume_window=float(resume_window),
    )
    async with server:
        os.write(1, json.dumps(server.url).encode() + b"\n")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main(*sys.argv[1:]))
