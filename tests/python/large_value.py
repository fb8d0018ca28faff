"""Saves a value that is larger than the memory it may take, and reads it again: `large_value.py URL FOLDER TARGET MIB`.

Prints what it took, as JSON; times are seconds, memory is MiB beyond what was there before.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kps

MIB = 1 << 20
BLOCK = bytes(range(256)) * 4096
"""A piece is it from another place on, so that no two pieces in a row are the same."""


def piece(number: int) -> bytes:
    at = number * 7919 % MIB
    return (
        BLOCK[at:] + number.to_bytes(8, "big") + BLOCK[: at - 8] if at >= 8 else number.to_bytes(8, "big") + BLOCK[8:]
    )


async def pieces(mib: int) -> AsyncIterator[bytes]:
    for number in range(mib):
        yield piece(number)


def memory(name: str) -> float:
    """`VmHWM` is the most there ever was, `VmRSS` what there is."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("this system does not say")


async def main(url: str, folder: str, target: str, mib: int) -> None:
    storage: Any = {"path": folder, "durability": "normal"}
    where: Any = {"target": target} if target != "local" else {}
    async with await kps.connect(url, storage=storage) as client:
        # Whatever is loaded when it is first used.
        await client.storage.save("k", b"x" * MIB, **where)
        await client.storage.get_to("k", f"{folder}/copy", **where)
        before, told = memory("VmRSS"), []
        Path("/proc/self/clear_refs").write_text("5")
        started = time.monotonic()
        await client.storage.save("k", pieces(mib), on_progress=lambda done, _: told.append(done), **where)
        saved = time.monotonic()
        assert told == [number * MIB for number in range(1, mib + 1)]
        stream = await client.storage.stream("k", **where)
        assert stream.size == mib * MIB
        rest, number = b"", 0
        async for part in stream:
            rest += part
            while len(rest) >= MIB:
                assert rest[:MIB] == piece(number), f"MiB {number}"
                rest, number = rest[MIB:], number + 1
        assert number == mib and not rest
        read = time.monotonic()
        took = {"save": saved - started, "read": read - saved, "extra": memory("VmHWM") - before}
        print(json.dumps({name: round(value, 1) for name, value in took.items()}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
