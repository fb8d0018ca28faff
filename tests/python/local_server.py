"""A server of this process, and asyncio.run on every kind of loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import kps

LIMIT = 20.0
Main = Callable[[], Awaitable[Any]]


def uvloop_run(main: Any) -> Any:
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class NoReaderLoop(asyncio.SelectorEventLoop):
    """Like Windows' Proactor: no descriptors to watch."""

    def add_reader(self, *_: Any) -> None:
        raise NotImplementedError


def no_reader_run(main: Any) -> Any:
    loop = NoReaderLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


RUNNERS = {"asyncio": asyncio.run, "uvloop": uvloop_run, "call_soon_threadsafe": no_reader_run}


async def limited(main: Main) -> Any:
    return await asyncio.wait_for(main(), LIMIT)


@asynccontextmanager
async def pair(**options: Any) -> Any:
    """A server and a client of it."""
    async with kps.Server("127.0.0.1:0", **options) as server, await kps.connect(server.url, id="a") as client:
        yield server, client


async def until(read: Callable[[], Any], wanted: Any = True) -> None:
    """Waits for a value that no event announces."""
    while read() != wanted:
        await asyncio.sleep(0.001)
