"""Subscribes, says so, and takes nothing: its event loop stands still until its input ends.

Arguments: the broker's URL, the pattern, and the overflow policy.
"""

from __future__ import annotations

import asyncio
import os
import sys

import kps


async def main(url: str, pattern: str, overflow: str) -> None:
    client = await kps.connect(url)
    await client.subscribe(pattern, lambda message: None, overflow=overflow)  # type: ignore[arg-type]
    os.write(1, b"true\n")
    sys.stdin.read()


asyncio.run(main(*sys.argv[1:]))
