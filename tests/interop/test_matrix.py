"""Every client as publisher, subscriber and answerer with every other, on one broker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from agents import AGENTS, Agent, Serve

ROLES = ("publisher", "subscriber", "answerer")
DATA = [{"n": 1, "text": "grüße ✓", "list": [1, 2.5, None, True]}, "text", 0, [], {}, "", False, -1.5e-7]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def fleet(loop: asyncio.AbstractEventLoop) -> Iterator[dict[tuple[str, str], Agent]]:
    """One program of each kind in each role, all at one `kps serve`."""
    stack = AsyncExitStack()

    async def start() -> dict[tuple[str, str], Agent]:
        server = Serve()
        url = await server.start()
        stack.push_async_callback(server.stop)
        fleet = {(kind, role): AGENTS[kind](f"{kind}-{role}") for kind in AGENTS for role in ROLES}
        for agent in fleet.values():
            await agent.start(url)
            stack.push_async_callback(agent.stop)
        return fleet

    yield loop.run_until_complete(start())
    loop.run_until_complete(stack.aclose())


@pytest.mark.parametrize(("publisher", "subscriber"), list(itertools.product(AGENTS, AGENTS)))
def test_what_one_publishes_the_other_receives_in_order(loop, fleet, publisher: str, subscriber: str) -> None:
    async def scene() -> None:
        sender, receiver = fleet[publisher, "publisher"], fleet[subscriber, "subscriber"]
        topic = f"matrix.{publisher}.{subscriber}"
        await receiver.do("subscribe", topic=topic, answer=None)
        for data in DATA:
            await sender.do("publish", topic=topic, data=data)
        seen = [await receiver.message(topic) for _ in DATA]
        assert [message["data"] for message in seen] == DATA
        assert {message["sender"] for message in seen} <= {sender.name, None}

    loop.run_until_complete(scene())


@pytest.mark.parametrize(("publisher", "subscriber", "answerer"), list(itertools.product(AGENTS, AGENTS, AGENTS)))
def test_an_ack_has_a_row_for_each(loop, fleet, publisher: str, subscriber: str, answerer: str) -> None:
    async def scene() -> None:
        asks, hears, answers = (fleet[each] for each in zip((publisher, subscriber, answerer), ROLES, strict=True))
        topic = f"acks.{publisher}.{subscriber}.{answerer}"
        await hears.do("subscribe", topic=topic, answer=None)
        await answers.do("subscribe", topic=topic, answer={"by": answerer})
        rows = await asks.do("ack", topic=topic, data={"question": topic})
        assert {who: row["success"] for who, row in rows.items()} == {hears.name: True, answers.name: True}
        if answers.gives_data and asks.sees_data:
            assert rows[answers.name]["data"] == {"by": answerer}
        assert (await hears.message(topic))["data"] == (await answers.message(topic))["data"] == {"question": topic}

    loop.run_until_complete(scene())


@pytest.mark.parametrize(("publisher", "subscriber"), list(itertools.product(AGENTS, AGENTS)))
def test_direct_messages(loop, fleet, publisher: str, subscriber: str) -> None:
    async def scene() -> None:
        sender, receiver = fleet[publisher, "publisher"], fleet[subscriber, "subscriber"]
        if not receiver.hears_directs:
            return
        if receiver.name not in listening:
            await receiver.do("hear")
            listening.add(receiver.name)
        await sender.do("direct", to=receiver.name, data={"from": publisher})
        assert (await asyncio.wait_for(receiver.directs.get(), 20))["data"] == {"from": publisher}

    loop.run_until_complete(scene())


listening: set[str] = set()
