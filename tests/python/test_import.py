"""Importing kps is cheap, and brings in nothing that it does not need yet."""

from __future__ import annotations

import subprocess
import sys

import kps

HEAVY = ["asyncio", "typing", "concurrent.futures", "datetime", "uuid", "inspect", "logging", "ssl", "socket"]


def python(source: str) -> str:
    return subprocess.run(
        [sys.executable, "-S", "-c", source], capture_output=True, text=True, check=True, env=env()
    ).stdout


def env() -> dict[str, str]:
    import os

    path = os.path.dirname(os.path.dirname(kps.__file__))
    return {**os.environ, "PYTHONPATH": path}


def test_nothing_heavy_is_imported() -> None:
    loaded = python("import sys; before = set(sys.modules); import kps; print(*(set(sys.modules) - before))").split()
    assert [name for name in HEAVY if name in loaded] == []


def test_a_client_takes_at_most_4_mb_and_10_with_the_librarys_pages() -> None:
    """Above an interpreter with asyncio. Pages of the library's file are shared by all processes and never written to,
    but they count as resident: with them it is 9 MB, over kps' target of 8. Debug builds take 4 MB more."""
    source = """
import asyncio, sys
def memory():
    with open("/proc/self/status") as status:
        found = dict(line.split(":", 1) for line in status)
    return [int(found[name].split()[0]) for name in ("RssAnon", "VmRSS")]
async def main():
    before = memory()
    import kps
    server = await kps.connect(sys.argv[1])
    seen = []
    await server.subscribe("t", seen.append)
    for number in range(1000):
        server.publish("t", number)
    while len(seen) < 1000:
        await asyncio.sleep(0.001)
    seen.clear()
    print(*(now - then for now, then in zip(memory(), before)))
asyncio.run(main())
"""
    if sys.platform != "linux":
        return
    import asyncio

    async def main() -> list[int]:
        async with kps.Server("127.0.0.1:0") as server:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", source, server.url, stdout=subprocess.PIPE, env=env()
            )
            out, _ = await process.communicate()
            return [int(number) for number in out.split()]

    own, resident = asyncio.run(main())
    assert own < 4 * 1024
    assert resident < 10 * 1024
