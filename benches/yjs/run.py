"""kps beside Hocuspocus and y-websocket's server, as servers of Yjs documents: `.venv/bin/python benches/yjs/run.py`.

    run.py                       every server and workload
    run.py --only kps            one server
    run.py --kps target/release/kps

`npm install --prefix benches/yjs` first. All keep documents in memory, except for `load`, which kps reads from its disk
and the others, that keep none without an extension, have in memory. Figures do not travel between machines; ratios do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import websockets
from pycrdt import Doc, Text

HERE = Path(__file__).parent
MARK = re.compile(rb"<(\d+)\.(\d+)>")
WINDOW = 16


def integer(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def buffer(content: bytes) -> bytes:
    return integer(len(content)) + content


class Server:
    """A server of its own process."""

    name: str
    in_path = True  # the document's name is in the path, not in every message

    def __init__(self, folder: str, kps: str) -> None:
        self.folder, self.kps = folder, kps
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def command(self) -> list[str]:
        raise NotImplementedError

    def url(self, document: str) -> str:
        return f"ws://127.0.0.1:{self.port}/{document}"

    async def start(self) -> None:
        env = {
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PATH": "/usr/bin:/bin:/usr/local/bin",
            "NODE_ENV": "production",
        }
        self.process = subprocess.Popen(self.command(), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1000):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
        raise TimeoutError(f"{self.name} does not listen")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10  # type: ignore[index]


class Kps(Server):
    name = "kps"

    def command(self) -> list[str]:
        return [self.kps, "serve", "--listen", f"127.0.0.1:{self.port}", "--data", self.folder]

    def url(self, document: str) -> str:
        return super().url(f"yjs/{document}")


class YWebsocket(Server):
    name = "y-websocket"

    def command(self) -> list[str]:
        return [node(), str(HERE / "node_modules/y-websocket/bin/server.cjs")]


class Hocuspocus(Server):
    name = "hocuspocus"
    in_path = False

    def command(self) -> list[str]:
        return [node(), str(HERE / "hocuspocus.mjs"), str(self.port)]


def node() -> str:
    return shutil.which("node") or "node"


class Line:
    """A connection to a document."""

    def __init__(self, server: Server, document: str) -> None:
        self.server, self.document = server, document
        self.prefix = b"" if server.in_path else buffer(document.encode())

    async def __aenter__(self) -> Line:
        self.socket = await websockets.connect(
            self.server.url(self.document), max_size=None, compression=None, ping_interval=None
        )
        if self.prefix:
            await self.socket.send(self.prefix + integer(2) + integer(0) + buffer(b"token") + buffer(b"4.7.0"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.transport.abort()

    async def sync(self) -> bytes:
        """Asks for everything, and waits for it."""
        await self.socket.send(self.prefix + bytes([0, 0]) + buffer(b"\0"))
        while True:
            message = await self.recv()
            if message[:2] == b"\0\1":
                return message

    async def send(self, update: bytes) -> None:
        await self.socket.send(self.prefix + bytes([0, 2]) + buffer(update))

    async def recv(self) -> bytes:
        message = await self.socket.recv()
        assert isinstance(message, bytes)
        return message[len(self.prefix) :]


class Writer:
    """Makes updates, each with a mark."""

    def __init__(self, number: int) -> None:
        self.number, self.count, self.length = number, 0, 0
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)

    def next(self) -> bytes:
        before = self.doc.get_state()
        mark = f"<{self.number}.{self.count}>"
        self.text.insert(self.length, mark)
        self.length += len(mark)
        self.count += 1
        return self.doc.get_update(before)


async def echoes(server: Server, writers: int, seconds: float, window: int) -> tuple[float, list[float]]:
    """Updates a second, and how long each took to another connection."""
    sent: dict[tuple[int, int], float] = {}
    times: list[float] = []
    free = [asyncio.Semaphore(window) for _ in range(writers)]
    document = f"echo-{writers}-{window}"
    async with Line(server, document) as reader:
        await reader.sync()

        async def read() -> None:
            while True:
                for writer, number in MARK.findall(await reader.recv()):
                    began = sent.pop((int(writer), int(number)), None)
                    if began is not None:
                        times.append(time.perf_counter() - began)
                        free[int(writer)].release()

        async def drain(line: Line) -> None:
            while True:
                await line.recv()

        async def write(number: int, until: float) -> None:
            writer = Writer(number)
            async with Line(server, document) as line:
                await line.sync()
                draining = asyncio.create_task(drain(line))
                while time.perf_counter() < until:
                    await free[number].acquire()
                    update = writer.next()
                    sent[number, writer.count - 1] = time.perf_counter()
                    await line.send(update)
                for _ in range(window):
                    await asyncio.wait_for(free[number].acquire(), 20)
                draining.cancel()

        reading = asyncio.create_task(read())
        began = time.perf_counter()
        await asyncio.gather(*(write(number, began + seconds) for number in range(writers)))
        took = time.perf_counter() - began
        reading.cancel()
    return len(times) / took, times


async def memory(server: Server, documents: int) -> float:
    """Bytes for each open document of 1 KiB with one connection."""
    writer = Writer(0)
    writer.text.insert(0, "x" * 1024)
    state = writer.doc.get_update()
    before = server.memory()
    lines = []
    for number in range(documents):
        line = await Line(server, f"memory-{number}").__aenter__()
        await line.sync()
        await line.send(state)
        await line.sync()
        lines.append(line)
    after = server.memory()
    for line in lines:
        await line.__aexit__()
    return (after - before) / documents


async def load(server: Server, operations: int) -> tuple[float, int]:
    """Seconds to get a document that was typed in so many operations, and its bytes."""
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    async with Line(server, "load") as line:
        await line.sync()
        for number in range(operations):
            before = doc.get_state()
            # Here and there, so that it does not become one piece.
            text.insert((number * 7919) % (number + 1), "x")
            await line.send(doc.get_update(before))
            if number % 200 == 0:
                await line.sync()
        await line.sync()
    if server.name == "kps":
        server.stop()
        await server.start()
    began = time.perf_counter()
    async with Line(server, "load") as line:
        state = await line.sync()
    return time.perf_counter() - began, len(state)


async def measure(server: Server, arguments: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for writers in (1, 10, 100):
        _, times = await echoes(server, writers, arguments.seconds, 1)
        times.sort()
        figures[f"echo, {writers} writers, p50 ms"] = statistics.median(times) * 1000
        figures[f"echo, {writers} writers, p99 ms"] = times[int(len(times) * 0.99)] * 1000
    for writers in (1, 10):
        figures[f"updates/s, {writers} writers"], _ = await echoes(server, writers, arguments.seconds, WINDOW)
    figures["KiB of each open document"] = await memory(server, 500) / 1024
    seconds, size = await load(server, arguments.operations)
    figures[f"load of {arguments.operations} operations, ms"] = seconds * 1000
    figures["its state, KiB"] = size / 1024
    return figures


@asynccontextmanager
async def running(kind: type[Server], kps: str) -> AsyncIterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = kind(folder, kps)
        await server.start()
        try:
            yield server
        finally:
            server.stop()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--kps", default=str(Path(sys.executable).parent / "kps"))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for kind in (Kps, YWebsocket, Hocuspocus):
        if arguments.only in ("", kind.name):
            async with running(kind, arguments.kps) as server:
                results[kind.name] = await measure(server, arguments)
    if arguments.json:
        print(json.dumps(results))
        return
    names = list(next(iter(results.values())))
    print(f"{'':40}" + "".join(f"{name:>14}" for name in results))
    for name in names:
        print(f"{name:40}" + "".join(f"{figures[name]:14.2f}" for figures in results.values()))


if __name__ == "__main__":
    asyncio.run(main())
