"""Processes that a test may kill, and what a broker keeps."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kps

KPS = str(Path(sys.executable).parent / "kps")
PROGRAMS = Path(__file__).parent / "programs"
PATIENCE = 30.0


async def connect(url: str, **options: Any) -> kps.Client:
    """A client that comes back quickly."""
    return await kps.connect(url, **{"reconnect_min": 0.01, "reconnect_max": 0.05, "timeout": PATIENCE, **options})


def free_port() -> int:
    """Below the ports that the system gives to outgoing connections: whoever looks for a broker that is away must
    not meet itself there."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class News:
    """Wakes whoever waits for something to become true."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def tell(self) -> None:
        self.event.set()

    async def until(self, is_so: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """False if it did not become true in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            self.event.clear()
            if is_so():
                return True
            try:
                await asyncio.wait_for(self.event.wait(), max(deadline - loop.time(), 0.001))
            except asyncio.TimeoutError:
                if loop.time() >= deadline:
                    return is_so()


class Broker:
    """`kps serve` in a process of its own, always at the same place."""

    def __init__(
        self,
        data: Path | None = None,
        *options: str,
        history: Iterable[str] = ("orders.>",),
        address: str | None = None,
        wrapper: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.data = data
        self.address = address or f"127.0.0.1:{free_port()}"
        self.url = f"ws://{self.address}"
        self.options = [*options]
        for rule in history:
            self.options += ["--history", rule]
        if data is not None:
            self.options += ["--data", str(data)]
        self.wrapper = wrapper
        self.env = env
        self.before = before
        self.process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self.wrapper, KPS, "serve", "--listen", self.address, "--json", *self.options,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=self.env, preexec_fn=self.before,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        if not line:
            raise RefusedToStart(await self.last_words())

    async def last_words(self) -> str:
        assert self.process is not None and self.process.stderr is not None
        words = (await asyncio.wait_for(self.process.stderr.read(), PATIENCE)).decode()
        await asyncio.wait_for(self.process.wait(), PATIENCE)
        return words

    async def kill(self) -> None:
        """Without a chance to do anything more."""
        assert self.process is not None
        self.process.kill()
        await asyncio.wait_for(self.process.wait(), PATIENCE)

    async def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        assert await asyncio.wait_for(self.process.wait(), PATIENCE) == 0, await self.last_words()

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    async def end(self) -> None:
        """However it is."""
        if self.process is not None and self.process.returncode is None:
            self.go_on()
            await self.kill()


class RefusedToStart(Exception):
    """What the broker said instead."""


@asynccontextmanager
async def running(data: Path | None = None, *options: str, **more: Any) -> AsyncIterator[Broker]:
    broker = Broker(data, *options, **more)
    try:
        await broker.start()
        yield broker
    finally:
        await broker.end()


class Child:
    """A program of this folder in a process of its own, which says what it did, one JSON value per line."""

    def __init__(self, program: str, *arguments: str, news: News | None = None, wrapper: tuple[str, ...] = ()) -> None:
        self.command = [*wrapper, sys.executable, str(PROGRAMS / program), *arguments]
        self.said: list[Any] = []
        self.news = news or News()
        self.has_ended = False

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self.listening = asyncio.create_task(self.listen())

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.endswith(b"\n"):  # the last one may have been cut short
                self.said.append(json.loads(line))
                self.news.tell()
        self.has_ended = True
        self.news.tell()

    async def until(self, count: int) -> None:
        """Until it has said so much."""
        await self.news.until(lambda: len(self.said) >= count or self.has_ended)
        assert len(self.said) >= count, f"{self.command[-1]} ends or hangs; it said {self.said[-3:]}"

    async def kill(self) -> None:
        self.process.kill()
        await self.wait()

    async def finish(self) -> None:
        """Tells it that it is time, and waits until it has ended well."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await self.wait() == 0

    async def wait(self) -> int:
        code = await asyncio.wait_for(self.process.wait(), PATIENCE)
        await asyncio.wait_for(self.listening, PATIENCE)
        return code

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            await self.kill()


def kept(data: Path, pattern: str = "orders.>") -> dict[str, list[Any]]:
    """The data of every message in the folder's history, by topic, oldest first."""
    found = subprocess.run(
        [KPS, "history", pattern, "--data", str(data), "--json"], capture_output=True, timeout=120, text=True
    )
    assert found.returncode == 0, found.stderr
    topics: dict[str, list[Any]] = defaultdict(list)
    for line in found.stdout.splitlines():
        message = json.loads(line)
        topics[message["topic"]].append(message["data"])
    return topics


def verify(data: Path) -> dict[str, Any]:
    """Asserts that `kps verify` finds nothing wrong; what it counted."""
    found = subprocess.run([KPS, "verify", str(data), "--json"], capture_output=True, timeout=120, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    verdict: dict[str, Any] = json.loads(found.stdout)
    assert verdict["findings"] == []
    return verdict
