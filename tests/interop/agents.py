"""Programs in each language that a test tells what to do, one JSON line at a time."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "programs"
KPS = Path(sys.executable).parent / "kps"
PATIENCE = 20.0


class Agent:
    """A process that reads commands and writes `{"result"}` for each, and `{"event"}` when something comes."""

    command: tuple[str | Path, ...]
    answers_with_data = True
    hears_directs = True
    sends_directs = True

    @property
    def sender(self) -> str:
        """What the broker calls it."""
        return self.name

    def __init__(self, name: str) -> None:
        self.name = name
        self.results: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.directs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def start(self, url: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *map(str, self.command), url, self.name, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self.reader = asyncio.create_task(self.read())
        assert "ready" in await self.result()

    async def read(self) -> None:
        async for line in self.process.stdout:
            if not line.startswith(b"{"):
                continue  # some clients greet
            said = json.loads(line)
            where = {"message": self.messages, "direct": self.directs}.get(said.get("event"), self.results)
            where.put_nowait(said)
        self.results.put_nowait({"ended": await self.process.wait()})

    async def result(self) -> dict[str, Any]:
        said = await asyncio.wait_for(self.results.get(), PATIENCE)
        assert "ended" not in said, f"{self.name} ended with {said['ended']}"
        return said

    async def do(self, what: str, **arguments: Any) -> Any:
        self.process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        return (await self.result())["result"]

    async def message(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.messages.get(), PATIENCE)

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.stdin.close()
            await asyncio.wait_for(self.process.wait(), PATIENCE)
        self.reader.cancel()
        assert self.process.returncode == 0


class Python(Agent):
    command = (sys.executable, HERE / "python_agent.py")


class Node(Agent):
    command = ("node", HERE / "node_agent.mjs")


class Ksps(Agent):
    command = (sys.executable, HERE / "ksps_agent.py")
    answers_with_data = False


AGENTS = {"python": Python, "node": Node, "ksps": Ksps}


class Serve:
    """`kps serve` on a free port."""

    def __init__(self, *options: str) -> None:
        self.options = options

    async def start(self) -> str:
        self.process = await asyncio.create_subprocess_exec(
            KPS, "serve", "--listen", "127.0.0.1:0", "--json", *self.options, stdout=asyncio.subprocess.PIPE
        )
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        return json.loads(line)["url"]

    async def stop(self) -> None:
        self.process.terminate()
        assert await asyncio.wait_for(self.process.wait(), PATIENCE) == 0
