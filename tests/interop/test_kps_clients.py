"""Existing KPS clients against our server, and programs written for them on our package."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

import kps
import kps_program
from agents import Serve
from link import Link

ROW = {"client_id": "listener", "success": True}


@pytest.fixture(params=["ksps", "kps"])
def client_class(request: pytest.FixtureRequest) -> Any:
    return package_client(request.param)


def package_client(package: str) -> Any:
    if package == "kps":
        return kps.Client
    if importlib.util.find_spec("ksps") is None:
        pytest.fail("ksps is missing: make .venv/.tools installs it; it needs Python 3.11")
    import ksps

    return ksps.Client


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """The address of a `kps serve`."""
    server = Serve()
    url = await server.start()
    try:
        yield url.removeprefix("ws://").removesuffix("/ws/bus")
    finally:
        await server.stop()


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 60))


def test_the_whole_api_in_one_program(client_class: Any) -> None:
    async def scene() -> None:
        async with serving() as address:
            seen = await kps_program.run(client_class, address)
        assert seen["ids"] == ["listener", "speaker"]
        assert seen["published"] == [{"n": 1}, "two"]
        assert seen["direct"] == {"type": "direct"}
        for rows in (seen["wait"], seen["after_cancel"]):
            assert {who: {key: row[key] for key in ROW} for who, row in rows.items()} == {"listener": ROW}
            assert isinstance(rows["listener"]["ack_id"], str)
        response, ok = seen["wait_any"]
        assert ok is True
        assert response["client_id"] == "listener"
        assert seen["wait_nobody"] == seen["after_unsubscribe"] == {}
        assert seen["wait_any_nobody"] == ({}, False)
        assert seen["status"] == {"listener": False}
        assert seen["complete"] is False
        assert seen["wait_cancelled"] == seen["status_cancelled"] == {}
        assert {"direct_message", "publish", "publish_ack"} <= set(seen["actions"])
        assert seen["closed"] is True

    run(scene)


def test_a_handler_that_raises_fails_its_row(client_class: Any) -> None:
    """`ksps` swallows what handlers raise; programs on `kps` gain a truthful row."""

    async def scene() -> None:
        async with serving() as address:
            client = await client_class.NewClient(Id="a", Address=address)

            async def handle(_data: Any, _unsub: Any) -> None:
                raise ValueError("boom")

            await client.Subscribe("t", handle)
            while not (rows := await (await client.PublishWithAck("t", 1, 5.0)).Wait()):
                pass
            assert set(rows) == {"a"}
            if client_class is kps.Client:
                assert rows["a"]["success"] is False
                assert "boom" in rows["a"]["error"]
            await client.Close()

    run(scene)


@pytest.mark.parametrize("package", ["ksps", "kps"])
def test_it_reconnects_and_subscribes_again(package: str) -> None:
    async def scene() -> None:
        async with serving() as address:
            link = Link(address)
            await link.open()
            came: asyncio.Queue[Any] = asyncio.Queue()

            async def handle(data: Any, _unsub: Any) -> None:
                came.put_nowait(data)

            client = await package_client(package).NewClient(
                Id="a", Address=link.address, Autorestart=True, RestartEvery=0.05
            )
            await client.Subscribe("t", handle)
            speaker = await kps.connect(f"ws://{address}", id="speaker")
            await heard(speaker, "t", "before")
            assert await came.get() == "before"
            link.cut()
            link.restore()
            await heard(speaker, "t", "after")
            while await came.get() != "after":
                pass
            await client.Close()
            await speaker.close()
            await link.close()

    run(scene)


async def heard(speaker: kps.Client, topic: str, data: Any) -> None:
    """Publishes until a recipient acknowledged."""
    while not any(row.success for row in (await speaker.publish_with_ack(topic, data, 5).wait()).values()):
        pass


@pytest.mark.parametrize("package", ["ksps", "kps"])
def test_publish_to_server_reaches_another_kps_server(package: str) -> None:
    async def scene() -> None:
        async with serving() as address, kps.Server("127.0.0.1:0") as other:
            messages: asyncio.Queue[kps.Message] = asyncio.Queue()
            other.on_server_message(messages.put_nowait)
            topic = await other.subscribe("t")
            client = await package_client(package).NewClient(Id="a", Address=address)
            await client.PublishToServer(other.address, {"topic": "t", "data": {"relay": True}})
            assert (await messages.get()).data == {"topic": "t", "data": {"relay": True}}
            assert (await anext(topic)).data == {"relay": True}
            await client.Close()

    run(scene)


def test_a_client_frozen_for_a_while_loses_nothing() -> None:
    """The original server drops tens of thousands in silence here."""

    async def scene() -> None:
        async with serving() as address:
            link = Link(address)
            await link.open()
            numbers: list[int] = []
            complete = asyncio.Event()

            async def handle(number: Any, _unsub: Any) -> None:
                if number >= 0:
                    numbers.append(number)
                if number == 19_999:
                    complete.set()

            client = await package_client("ksps").NewClient(Id="a", Address=link.address)
            await client.Subscribe("t", handle)
            speaker = await kps.connect(f"ws://{address}", id="speaker")
            await heard(speaker, "t", -1)
            link.freeze()
            for number in range(20_000):
                await speaker.publish("t", number)
            link.thaw()
            await complete.wait()
            assert sorted(numbers) == list(range(20_000))
            await client.Close()
            await speaker.close()
            await link.close()

    run(scene)
