"""A server, and Yjs editors of it: `y-websocket` in Node, `pycrdt` here."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import websockets
from pycrdt import Awareness, Doc, Provider, Text

HERE = Path(__file__).parent
KPS = os.environ.get("KPS_BIN") or str(Path(sys.executable).parent / "kps")
PATIENCE = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Serve:
    """A `kps serve` that can be ended, killed and started again at the same address."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.options = ["--data", str(folder), *options]

    @property
    def url(self) -> str:
        return f"ws://{self.address}/yjs"

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            KPS, "serve", "--listen", self.address, *self.options, stdout=asyncio.subprocess.DEVNULL
        )
        host, port = self.address.split(":")
        for _ in range(2000):
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
        raise TimeoutError("the server does not listen")

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            await asyncio.wait_for(self.process.wait(), PATIENCE)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def serving(folder: Path, *options: str) -> AsyncIterator[Serve]:
    server = Serve(folder, *options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Editor:
    """A program with an unmodified `y-websocket`, or another one that is told what to do in the same way."""

    def __init__(self, program: str = "editor.mjs") -> None:
        self.program = program

    async def start(self, url: str, room: str, params: dict[str, str]) -> None:
        node = shutil.which("node")
        assert node is not None
        self.process = await asyncio.create_subprocess_exec(
            node,
            str(HERE / self.program),
            url,
            room,
            json.dumps(params),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        assert await self.answer() == "ready"

    async def answer(self) -> Any:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        assert line, "the editor ended"
        return json.loads(line)["result"]

    async def do(self, what: str, **how: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **how}).encode() + b"\n")
        return await self.answer()

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), PATIENCE)


@asynccontextmanager
async def editing(url: str, room: str, **params: str) -> AsyncIterator[Editor]:
    editor = Editor()
    await editor.start(url, room, params)
    try:
        yield editor
    finally:
        await editor.stop()


class Channel:
    """A WebSocket, as pycrdt's provider wants it."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self.connection = connection
        self.path = ""

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.recv()
        except websockets.ConnectionClosed:
            raise StopAsyncIteration from None

    async def send(self, message: bytes) -> None:
        await self.connection.send(message)

    async def recv(self) -> bytes:
        message = await self.connection.recv()
        assert isinstance(message, bytes)
        return message


class PyEditor:
    """A document of pycrdt, with the provider that comes with it."""

    def __init__(self) -> None:
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.awareness = Awareness(self.doc)

    @asynccontextmanager
    async def online(self, url: str, room: str) -> AsyncIterator[PyEditor]:
        async with (
            websockets.connect(f"{url}/{room}", max_size=None) as connection,
            Provider(self.doc, Channel(connection)) as provider,
        ):
            await asyncio.wait_for(provider.synced.wait(), PATIENCE)
            yield self

    async def until(self, is_so: Callable[[str], bool]) -> None:
        async def look() -> None:
            while not is_so(str(self.text)):
                await asyncio.sleep(0.005)

        await asyncio.wait_for(look(), PATIENCE)
