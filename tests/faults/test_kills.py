"""`kill -9` at random moments under load: what was promised is kept."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import kps
from broker import Child, News, connect, kept, running, verify
from load import Ear, Load
from rounds import CHAPTER, CHAPTERS, chance, count

LONGEST = 0.3
"""Seconds between the first sign of life after a start and the kill."""


def repeated(numbers: list[int]) -> list[int]:
    return [number for number, times in Counter(numbers).items() if times > 1]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_killed_broker_has_what_it_said_was_stored(tmp_path: Path, chapter: int) -> None:
    async def scene(random: random.Random) -> None:
        data = tmp_path / "data"
        async with running(data) as broker, AsyncExitStack() as stack:

            async def client(name: str) -> kps.Client:
                return await stack.enter_async_context(await connect(broker.url, id=name))

            ear = Ear()
            listener = await client("listener")
            listener.on("gap", lambda gap, _: ear.gaps.append(gap))
            await listener.subscribe("orders.>", ear.hear, start="all")
            loads = [
                Load(await client("with ids"), ("orders.a.1", "orders.a.2"), True, random),
                Load(await client("without ids"), ("orders.b.1", "orders.b.2", "orders.b.3"), False, random),
            ]
            for _ in range(CHAPTER):
                for load in loads:
                    await load.until_stored(1)
                await asyncio.sleep(random.uniform(0, LONGEST))
                await broker.kill()
                if random.random() < 0.5:
                    promised = {topic: set(numbers) for load in loads for topic, numbers in load.stored.items()}
                    await asyncio.to_thread(check_history, data, promised)
                    await asyncio.to_thread(verify, data)
                await broker.start()
            for load in loads:
                await load.finish()
            promised = {topic: numbers for load in loads for topic, numbers in load.stored.items()}
            for load in loads:
                assert {topic: len(numbers) for topic, numbers in load.stored.items()} == load.published
            await ear.until_all(promised)
            ear.check()
            await broker.stop()
            history = check_history(data, promised)
            for topic, numbers in history.items():
                assert numbers == sorted(numbers), f"{topic} is out of order"
            verify(tmp_path / "data")
            stored = sum(map(len, promised.values()))
            count("broker killed", kills=CHAPTER, messages_stored=stored, heard_again_and_marked=ear.again(), lost=0)

    with chance("broker", chapter) as random:
        asyncio.run(scene(random))


def check_history(data: Path, promised: dict[str, set[int]]) -> dict[str, list[Any]]:
    history = kept(data)
    for topic, numbers in promised.items():
        lost = numbers - set(history[topic])
        assert not lost, f"{topic}: {len(lost)} stored messages are lost, the first of them {min(lost)}"
        assert not repeated(history[topic]), f"{topic} has {repeated(history[topic])[:10]} more than once"
    return history


@pytest.mark.parametrize("identity", ["one id", "an id of the broker's"])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_killed_publisher_is_as_good_as_its_outbox(tmp_path: Path, chapter: int, identity: str) -> None:
    topics = ("orders.x", "plain.x", "orders.y")

    async def scene(random: random.Random) -> None:
        async with running(tmp_path / "data") as broker, await connect(broker.url) as listener:
            ear = Ear()
            listener.on("gap", lambda gap, _: ear.gaps.append(gap))
            for topic in topics:
                await listener.subscribe(topic, ear.hear)
            promised: dict[str, set[int]] = defaultdict(set)
            client_id = "publisher" if identity == "one id" else ""

            def publisher(url: str, first: int) -> Child:
                return Child("publisher.py", url, str(tmp_path / "outbox"), str(first), client_id, *topics)

            def note(child: Child) -> None:
                for topic, number in child.said:
                    promised[topic].add(number)

            offline = 0
            for round in range(CHAPTER):
                is_offline = random.random() < 0.3
                offline += is_offline
                child = publisher("ws://127.0.0.1:1" if is_offline else broker.url, round * 1_000_000)
                await child.start()
                try:
                    await child.until(1)
                    await asyncio.sleep(random.uniform(0, LONGEST))
                finally:
                    await child.end()
                note(child)
            last = publisher(broker.url, CHAPTER * 1_000_000)
            await last.start()
            try:
                await last.until(1)
                await last.finish()
            finally:
                await last.end()
            assert last.said.pop() == {"kept": 0, "abandoned": []}
            note(last)

            await ear.until_all(promised)
            await broker.stop()
            ear.check()
            history = kept(tmp_path / "data")
            for topic in ("orders.x", "orders.y"):
                lost = promised[topic] - set(history[topic])
                assert not lost, f"{topic}: {len(lost)} messages kept on disk were never stored, like {min(lost)}"
                again = repeated(history[topic])
                assert not again, f"{topic} has {len(again)} messages more than once, like {again[0]}"
            verify(tmp_path / "data")
            count(
                "publisher killed",
                kills=CHAPTER,
                of_them_without_a_broker=offline,
                messages_queued_on_disk=sum(map(len, promised.values())),
                heard_again_and_marked=ear.again(),
                lost=0,
            )

    with chance("publisher", chapter, identity) as random:
        asyncio.run(scene(random))


@pytest.mark.parametrize("victims", ["subscribers", "subscribers and the broker"])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_a_killed_subscriber_had_is_handled_by_somebody(tmp_path: Path, chapter: int, victims: str) -> None:
    async def scene(random: random.Random) -> None:
        options = ("--resume-window", "300ms")
        async with (
            running(tmp_path / "data", *options) as broker,
            await connect(broker.url, id="publisher") as client,
        ):
            lives: list[Child] = []
            news = News()

            async def subscriber() -> Child:
                child = Child("subscriber.py", broker.url, "orders.>", "work", news=news)
                lives.append(child)
                await child.start()
                await child.until(1)
                return child

            try:
                fleet = [await subscriber(), await subscriber()]
                load = Load(client, ("orders.a",), False, random)
                brokers_killed = 0
                for _ in range(CHAPTER):
                    await load.until_stored(1)
                    victim = random.randrange(len(fleet))
                    before = len(fleet[victim].said)
                    await fleet[victim].until(before + 1)
                    await asyncio.sleep(random.uniform(0, LONGEST))
                    if victims != "subscribers" and random.random() < 0.5:
                        brokers_killed += 1
                        await broker.kill()
                        await broker.start()
                    if victims == "subscribers" or random.random() < 0.7:
                        await fleet[victim].kill()
                        fleet[victim] = await subscriber()
                await load.finish()
                stored = load.stored["orders.a"]
                await all_handled(stored, lives, news)
                for child in fleet:
                    await child.finish()
            finally:
                for child in lives:
                    await child.end()

            handled = [entry for child in lives for entry in child.said if entry != "ready"]
            unmarked = Counter(number for number, attempt, doubtful in handled if attempt == 1 and not doubtful)
            unmarked_twice = [number for number, times in unmarked.items() if times > 1]
            assert not unmarked_twice, (
                f"{len(unmarked_twice)} were handled twice and do not say so: {unmarked_twice[:5]}"
            )
            verify(tmp_path / "data")
            count(
                "durable subscriber killed",
                kills=len(lives) - len(fleet),
                kills_of_the_broker=brokers_killed,
                messages_handled=len(stored),
                handled_again_and_marked=len(handled) - len({number for number, *_ in handled}),
                lost=0,
            )

    with chance("subscriber", chapter, victims) as random:
        asyncio.run(scene(random))


async def all_handled(numbers: set[int], children: list[Child], news: News) -> None:
    """Waits until each of `numbers` was handled by one of `children`."""

    def missing() -> set[int]:
        return numbers - {entry[0] for child in children for entry in child.said if entry != "ready"}

    assert await news.until(lambda: not missing()), f"{len(missing())} were handled by nobody, like {min(missing())}"
