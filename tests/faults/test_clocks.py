"""A clock that is set back, and processes that stand still for a while."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import kps
from broker import PATIENCE, PROGRAMS, Broker, Child, News, connect, kept, running, verify
from kps.types import ReceiptLevel
from load import Ear
from rounds import SOAK, count

HOUR = 3600

TTL = 4 * HOUR
"""Longer than any change of the clock."""

EACH = 100
"""Messages of one life of a broker."""

STANDSTILL = 30.0 if SOAK else 3.0

pytestmark = pytest.mark.timeout(7200 if SOAK else 120)


class Clock:
    """The wall clock of the processes that have `env`."""

    def __init__(self, folder: Path) -> None:
        assert shutil.which("cc"), "these tests shift the clock of one process with a few lines of C: install cc"
        library = folder / "clock.so"
        source = str(PROGRAMS / "clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), source], check=True, timeout=60)
        self.file = folder / "shift"
        self.set(0)
        self.env = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self.file)}

    def set(self, seconds: int) -> None:
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(struct.pack("l", seconds))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def orders(numbers: Iterable[int]) -> dict[str, set[int]]:
    return {"orders.x": set(numbers)}


@asynccontextmanager
async def shifted(tmp_path: Path, clock: Clock) -> AsyncIterator[Broker]:
    async with running(tmp_path / "data", history=("orders.> age=2h",), env=clock.env) as broker:
        yield broker


async def publish(client: kps.Client, numbers: Iterable[int]) -> None:
    receipts = [
        client.publish("orders.x", number, id=f"order {number}", ttl=TTL if number % 2 else None, receipt="stored")
        for number in numbers
    ]
    for receipt in receipts:
        assert await asyncio.wait_for(receipt, PATIENCE) == "stored"


async def hear_from(url: str, start: str | float, wanted: Iterable[int]) -> list[kps.Message]:
    """What a new subscription gets, until it has what is wanted."""
    ear = Ear()
    messages: list[kps.Message] = []

    def hear(message: kps.Message) -> None:
        messages.append(message)
        ear.hear(message)

    async with await connect(url) as client:
        client.on("gap", lambda gap, _: ear.gaps.append(gap))
        await client.subscribe("orders.>", hear, start=start)
        await ear.until_all(orders(wanted))
    ear.check()
    return messages


@pytest.mark.parametrize("when", ["between two runs", "while it runs"])
def test_an_hour_back_loses_refuses_and_forgets_nothing(tmp_path: Path, clock: Clock, when: str) -> None:
    async def scene() -> None:
        async with (
            shifted(tmp_path, clock) as broker,
            await connect(broker.url, id="publisher") as publisher,
            await connect(broker.url, id="listener") as listener,
        ):
            plain, durable, late = Ear(), Ear(), Ear()
            listener.on("gap", lambda gap, _: plain.gaps.append(gap))
            await listener.subscribe("orders.>", plain.hear)
            await listener.subscribe("orders.>", durable.hear, durable="work", start="all")
            async with await connect(broker.url) as other:
                # Its messages wait over all the changes of the clock.
                await other.subscribe("orders.>", late.hear, durable="late", start="all")
            epochs = []
            published = 0
            cursor: str | None = None
            shifts = (0, -HOUR, -2 * HOUR, 0)
            for life, shift in enumerate(shifts):
                if life and when == "between two runs":
                    await broker.kill()
                    clock.set(shift)
                    await broker.start()
                elif life:
                    clock.set(shift)
                await publish(publisher, range(published, published + EACH))
                if published:
                    await publish(publisher, range(published - EACH, published))  # is not kept again
                published += EACH
                for ear in (plain, durable):
                    await ear.until_all(orders(range(published)))

                messages = await hear_from(broker.url, "all", range(published))
                assert [message.data for message in messages] == list(range(published))
                epochs.append(messages[-1].epoch)
                if cursor is not None:
                    wanted = range(published - EACH * 3 // 2, published)
                    messages = await hear_from(broker.url, cursor, wanted)
                    assert [message.data for message in messages] == list(wanted)
                cursor = messages[-EACH // 2 - 1].cursor
                assert cursor is not None
            if when == "while it runs":
                await broker.kill()
                clock.set(-HOUR)
                await broker.start()
                epochs = [epochs[-1], (await end_of_history(broker.url, publisher)).epoch]
                published += 1
            assert epochs == sorted(set(epochs)), "each start begins a larger epoch"
            await listener.subscribe("orders.>", late.hear, durable="late", start="all")
            await late.until_all(orders(range(published)))
            for ear in (plain, durable, late):
                ear.check()
            await broker.stop()
        assert kept(tmp_path / "data")["orders.x"] == list(range(published))
        verify(tmp_path / "data")
        count("clock set back", changes=len(shifts), messages=published, lost=0)

    async def end_of_history(url: str, publisher: kps.Client) -> kps.Message:
        number = EACH * 4
        await publish(publisher, [number])
        return (await hear_from(url, "last", [number]))[-1]

    asyncio.run(scene())


def test_a_time_from_before_the_clock_was_set_back_can_be_asked_for(tmp_path: Path, clock: Clock) -> None:
    async def scene() -> None:
        async with shifted(tmp_path, clock) as broker, await connect(broker.url) as publisher:
            await publish(publisher, range(EACH))
            middle = (await hear_from(broker.url, "all", range(EACH)))[EACH // 2]
            await broker.kill()
            clock.set(-HOUR)
            await broker.start()
            await publish(publisher, range(EACH, 2 * EACH))
            messages = await hear_from(broker.url, middle.time, range(middle.data, 2 * EACH))
            assert messages[0].time >= middle.time

    asyncio.run(scene())


def test_a_broker_without_a_disk_and_with_an_earlier_clock_says_what_is_lost(tmp_path: Path, clock: Clock) -> None:
    async def scene() -> None:
        async with (
            running(env=clock.env) as broker,
            await connect(broker.url) as publisher,
            await connect(broker.url) as listener,
        ):
            ear = Ear()

            def gap(gap: kps.Gap, _: kps.Subscription) -> None:
                ear.gaps.append(gap)
                ear.news.tell()

            listener.on("gap", gap)
            await listener.subscribe("orders.>", ear.hear)
            await listener.subscribe("plain.>", ear.hear)
            for number in range(EACH):
                receipt = publisher.publish(("plain.x", "orders.x")[number % 2], number, receipt="accepted")
            await receipt
            await ear.until_all({"plain.x": {EACH - 2}, "orders.x": {EACH - 1}})
            await broker.kill()
            clock.set(-HOUR)
            await broker.start()
            assert await ear.news.until(lambda: len(ear.gaps) == 2), ear.gaps
            assert {(gap.topic, gap.count, gap.reason) for gap in ear.gaps} == {
                ("plain.>", None, "new_epoch"),
                ("orders.>", None, "new_epoch"),
            }
            for topic in ("plain.x", "orders.x"):
                assert await publisher.publish(topic, EACH, receipt="accepted") == "accepted"
            await ear.until_all({"plain.x": {EACH}, "orders.x": {EACH}})

    asyncio.run(scene())


def test_a_broker_that_stands_still_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            running(tmp_path / "data") as broker,
            await connect(broker.url, id="publisher") as publisher,
            await connect(broker.url, id="listener") as listener,
        ):
            ear, durable = Ear(), Ear()
            listener.on("gap", lambda gap, _: ear.gaps.append(gap))
            await listener.subscribe("*.x", ear.hear)
            await listener.subscribe("orders.>", durable.hear, durable="work", start="all")
            receipts: list[tuple[ReceiptLevel, kps.Receipt]] = []
            levels: dict[str, ReceiptLevel] = {"plain.x": "accepted", "orders.x": "stored"}
            for life in range(3):
                if life == 1:
                    broker.pause()
                for number in range(life * EACH, (life + 1) * EACH):
                    for topic, level in levels.items():
                        receipts.append((level, publisher.publish(topic, number, receipt=level)))
                if life == 0:
                    await receipts[0][1]
                if life == 1:
                    await asyncio.sleep(STANDSTILL)
                    broker.go_on()
            for level, receipt in receipts:
                assert await asyncio.wait_for(receipt, PATIENCE) == level
            everything = set(range(3 * EACH))
            await ear.until_all({"plain.x": everything, "orders.x": everything})
            await durable.until_all({"orders.x": everything})
            ear.check()
            assert ear.again() == 0, "a session outlives it"
            await broker.stop()
        assert kept(tmp_path / "data")["orders.x"] == sorted(everything)
        verify(tmp_path / "data")
        count("standstill", processes=1, messages=len(receipts), lost=0)

    asyncio.run(scene())


def test_a_subscriber_that_stands_still_misses_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path / "data") as broker, await connect(broker.url) as publisher:
            news = News()
            plain = Child("subscriber.py", broker.url, "plain.>", "", news=news)
            late = Child("subscriber.py", broker.url, "orders.>", "", news=news)
            durable = Child("subscriber.py", broker.url, "orders.>", "work", news=news)
            children = {"plain.x": [plain], "orders.x": [late, durable]}
            everybody = [plain, late, durable]
            published = 0

            async def publish() -> None:
                nonlocal published
                for number in range(published, published + EACH):
                    receipts = [publisher.publish(topic, number, receipt="accepted") for topic in children]
                for receipt in receipts:
                    await asyncio.wait_for(receipt, PATIENCE)
                published += EACH

            def missing() -> dict[str, set[int]]:
                return {
                    f"{topic} {place}": set(range(published)) - {said[0] for said in ear.said if isinstance(said, list)}
                    for topic, ears in children.items()
                    for place, ear in enumerate(ears)
                }

            async def all_heard() -> None:
                assert await news.until(lambda: not any(missing().values())), missing()

            try:
                for child in everybody:
                    await child.start()
                    await child.until(1)
                await publish()
                await all_heard()
                for child in everybody:
                    child.process.send_signal(signal.SIGSTOP)
                await publish()
                await asyncio.sleep(STANDSTILL)
                await publish()
                for child in everybody:
                    child.process.send_signal(signal.SIGCONT)
                await all_heard()
                for child in everybody:
                    await child.finish()
            finally:
                for child in everybody:
                    await child.end()
            for child in (plain, late):
                said = [said for said in child.said if said != "ready" and "resumed" not in said]
                assert said == [[number, 1, False] for number in range(published)]
            firsts = [said[0] for said in durable.said if said != "ready" and said[1] == 1]
            assert firsts == list(range(published))
            verify(tmp_path / "data")
            count("standstill", processes=3, messages=2 * published, lost=0)

    asyncio.run(scene())
