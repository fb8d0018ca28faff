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
    gives_data = True  # its answers carry what its handler returned
    sees_data = True  # it sees what others' answers carry
    hears_directs = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.results: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.directs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def start(self, url: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *map(str, self.command), url, self.name, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self.reader = asyncio.create_task(self.listen())
        assert "ready" in await self.result()

    async def listen(self) -> None:
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

    async def message(self, topic: str) -> dict[str, Any]:
        """The next message on `topic`."""
        while (said := await asyncio.wait_for(self.messages.get(), PATIENCE))["topic"] != topic:
            pass
        return said

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
    gives_data = sees_data = False


class Cli(Agent):
    """The Rust program: one `kps` process for each command, and one that goes on for the subscription."""

    gives_data = hears_directs = False

    async def start(self, url: str) -> None:
        self.url = url
        self.subscription: asyncio.subprocess.Process | None = None

    def kps(self, command: str, *words: str, flags: tuple[str, ...] = (), **pipes: int) -> Any:
        options = ("--url", self.url, "--id", self.name, *flags)
        return asyncio.create_subprocess_exec(
            KPS, command, *options, "--", *words, stdout=asyncio.subprocess.PIPE, **pipes
        )

    async def do(self, what: str, topic: str = "", data: Any = None, to: str = "", answer: Any = None) -> Any:
        if what == "subscribe":
            return await self.subscribe(topic)
        flags = {"publish": (), "ack": ("--ack", "--json"), "direct": ("--to-id",)}[what]
        process = await self.kps("pub", to or topic, json.dumps(data), flags=flags)
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0
        rows = [json.loads(line) for line in said.splitlines()]
        return {row["client_id"]: {"success": row["status"] == "acked", "data": row["data"]} for row in rows}

    async def subscribe(self, topic: str) -> None:
        await self.stop()
        self.subscription = await self.kps("sub", topic, flags=("--json",), stderr=asyncio.subprocess.PIPE)
        while b"subscribed" not in (line := await self.subscription.stderr.readline()):
            assert line, "kps sub ended"
        self.reader = asyncio.create_task(self.read(self.subscription))

    async def read(self, process: asyncio.subprocess.Process) -> None:
        async for line in process.stdout:
            self.messages.put_nowait(json.loads(line))

    async def stop(self) -> None:
        if self.subscription is not None:
            self.subscription.terminate()
            await asyncio.wait_for(self.subscription.wait(), PATIENCE)
            self.subscription = None


AGENTS = {"python": Python, "node": Node, "ksps": Ksps, "cli": Cli}


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
