"""The disk fails: who published hears it, plain topics go on, and nothing is called stored that is not."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest

import kps
from broker import KPS, PATIENCE, Broker, News, RefusedToStart, connect, kept, running, verify
from disks import Disk, Kind, disk, read_only
from rounds import SOAK, chance, count

TEXT = "x" * 2000
"""Goes with each number, so that a disk is full soon."""

AT_A_TIME = 20

FAULTS = SOAK or 15

pytestmark = pytest.mark.timeout(7200 if SOAK else 120)


@dataclass
class Ear:
    heard: list[int] = field(default_factory=list)
    news: News = field(default_factory=News)

    def hear(self, message: kps.Message) -> None:
        self.heard.append(message.data["number"])
        self.news.tell()

    async def until(self, number: int) -> None:
        assert await self.news.until(lambda: number in self.heard), f"{number} was never heard"


@dataclass
class Failed:
    """A broker whose disk has failed, and what its publisher was told of each number."""

    disk: Disk
    broker: Broker
    publisher: kps.Client
    plain: Ear
    durable: Ear
    stored: list[int]
    refused: dict[int, kps.KpsError]
    events: dict[str, Exception] = field(default_factory=dict)
    news: News = field(default_factory=News)

    def failed(self, id: str, error: Exception) -> None:
        self.events[id] = error
        self.news.tell()

    @property
    def data(self) -> Path:
        return self.disk.folder / "data"

    def publish(self, topic: str, number: int, receipt: Any, id: str | None = None) -> kps.Receipt:
        return self.publisher.publish(topic, {"number": number, "text": TEXT}, receipt=receipt, id=id)

    async def is_refused(self, number: int, receipt: Any) -> kps.KpsError:
        with pytest.raises(kps.KpsError) as raised:
            await asyncio.wait_for(self.publish("orders.x", number, receipt, id=f"order {number}"), PATIENCE)
        return raised.value


@asynccontextmanager
async def failed(tmp_path: Path, kind: Kind) -> AsyncIterator[Failed]:
    """Publishes until the disk is full."""
    with disk(kind, tmp_path / "disk") as place:
        async with (
            running(place.folder / "data", before=place.limit()) as broker,
            await connect(broker.url, id="publisher") as publisher,
            await connect(broker.url, id="listener") as listener,
        ):
            it = Failed(place, broker, publisher, Ear(), Ear(), [], {})
            publisher.on("publish_failed", it.failed)
            await listener.subscribe("plain.>", it.plain.hear)
            await listener.subscribe("orders.>", it.durable.hear, durable="work", start="all", max_attempts=0)
            for first in itertools.count(0, AT_A_TIME):
                numbers = range(first, first + AT_A_TIME)
                receipts = [it.publish("orders.x", number, "stored", id=f"order {number}") for number in numbers]
                for number, receipt in zip(numbers, receipts, strict=True):
                    try:
                        assert await asyncio.wait_for(receipt, PATIENCE) == "stored"
                        it.stored.append(number)
                    except kps.KpsError as error:
                        it.refused[number] = error
                if it.refused:
                    break
            yield it


KINDS = pytest.mark.parametrize("kind", get_args(Kind))


@KINDS
def test_publishers_hear_that_the_disk_is_full(tmp_path: Path, kind: Kind) -> None:
    async def scene() -> None:
        async with failed(tmp_path, kind) as it:
            assert it.stored, "there was room at first"
            for error in it.refused.values():
                assert isinstance(error, kps.StoreFailedError), error
                assert str(it.data / "kps.db") in error.message
            if kind == "a small disk":
                assert "the disk is full" in next(iter(it.refused.values())).message
            assert len(it.events) == len(it.refused)

            # From now on at once, whatever was asked for.
            for level in ("stored", "accepted"):
                error = await it.is_refused(max(it.refused) + 1, level)
                assert error.code == "store_failed" and "restart" in error.message
            it.publish("orders.x", -1, None, id="nobody waits")
            assert await it.news.until(lambda: "nobody waits" in it.events), "nobody was told"
            assert isinstance(it.events["nobody waits"], kps.StoreFailedError)
            count("disk is full", refused=len(it.refused) + 3)

    asyncio.run(scene())


@KINDS
def test_what_is_published_again_after_the_disk_failed_is_refused_again(tmp_path: Path, kind: Kind) -> None:
    async def scene() -> None:
        async with failed(tmp_path, kind) as it:
            for number in it.refused:
                error = await it.is_refused(number, "stored")
                assert error.code == "store_failed"

    asyncio.run(scene())


@KINDS
def test_plain_topics_go_on_when_the_disk_is_full(tmp_path: Path, kind: Kind) -> None:
    async def scene() -> None:
        async with failed(tmp_path, kind) as it:
            before = len(it.events)
            receipts = []
            for number in range(1000):
                receipts.append(it.publish("plain.x", number, "accepted"))
                if number % 10 == 0:
                    it.publish("orders.x", 1_000_000 + number, None)
            for receipt in receipts:
                assert await asyncio.wait_for(receipt, PATIENCE) == "accepted"
            await it.plain.until(999)
            assert it.plain.heard == list(range(1000))
            assert len(it.events) == before + 100, "a failure for each that was not plain"
            count("disk is full", plain_messages=1000, lost=0)

    asyncio.run(scene())


@KINDS
@pytest.mark.parametrize("end", ["killed", "told to stop"])
def test_nothing_is_called_stored_that_a_full_disk_does_not_have(tmp_path: Path, kind: Kind, end: str) -> None:
    async def scene() -> None:
        async with failed(tmp_path, kind) as it:
            await (it.broker.kill() if end == "killed" else it.broker.stop())
            check(it, "as the broker left it")
            it.disk.make_room()
            it.broker.before = it.disk.limit()
            await it.broker.start()
            check(it, "after the restart")

            again = [it.publish("orders.x", number, "stored", id=f"order {number}") for number in it.refused]
            for receipt in again:
                assert await asyncio.wait_for(receipt, PATIENCE) == "stored"
            everything = [*it.stored, *it.refused]
            for number in everything:
                await it.durable.until(number)
            await it.broker.stop()
            assert numbers(kept(it.data)) == everything
            verify(it.data)
            count("disk is full", messages_stored=len(everything), lost=0)

    def check(it: Failed, when: str) -> None:
        verify(it.data)
        there = numbers(kept(it.data))
        assert there[: len(it.stored)] == it.stored, when
        assert set(it.durable.heard) <= set(there), "a durable subscription hears what is committed only"

    asyncio.run(scene())


def numbers(history: dict[str, list[Any]]) -> list[int]:
    return [data["number"] for data in history.get("orders.x", [])]


@KINDS
@pytest.mark.parametrize("data", ["new", "used"])
def test_a_broker_does_not_start_on_a_full_disk_and_does_when_there_is_room(
    tmp_path: Path, kind: Kind, data: str
) -> None:
    async def scene() -> None:
        with disk(kind, tmp_path / "disk") as place:
            folder = place.folder / "data"
            expected = []
            if data == "used":
                expected = await fill(folder, 50)
            place.fill()
            with pytest.raises(RefusedToStart, match="store_failed") as refused:
                async with running(folder, before=place.limit()):
                    pass
            assert str(folder) in str(refused.value)
            place.make_room()
            async with running(folder, before=place.limit()) as broker, await connect(broker.url) as client:
                await client.publish("orders.x", {"number": 50}, receipt="stored")
            assert numbers(kept(folder)) == [*expected, 50]
            verify(folder)

    asyncio.run(scene())


async def fill(folder: Path, messages: int, kill: bool = False) -> list[int]:
    """Leaves a sound store, whose log is not empty if its broker was killed; a durable called `work` has handled the
    first half."""
    async with running(folder) as broker, await connect(broker.url) as client:
        for number in range(messages // 2):
            client.publish("orders.x", {"number": number, "text": TEXT[: number * 7 % 900]})
        ear = Ear()
        await client.subscribe("orders.>", ear.hear, durable="work", start="all")
        await ear.until(messages // 2 - 1)
        await client.unsubscribe("orders.>")
        for number in range(messages // 2, messages):
            receipt = client.publish("orders.x", {"number": number, "text": TEXT[: number * 7 % 900]}, receipt="stored")
        assert await receipt == "stored"
        await (broker.kill() if kill else broker.stop())
    return list(range(messages))


def test_an_outbox_on_a_full_disk_says_what_it_does_not_keep(tmp_path: Path) -> None:
    async def scene() -> None:
        with disk("a small disk", tmp_path / "disk") as place:
            outbox = place.folder / "outbox"
            promised: list[int] = []
            client = await connect("ws://127.0.0.1:1", wait=False, outbox=outbox)
            doubtful: list[str] = []
            receipts: dict[int, kps.Receipt] = {}
            with pytest.raises(kps.StoreFailedError, match="the disk is full"):
                for number in itertools.count():
                    receipts[number] = client.publish(
                        "plain.x", {"number": number, "text": TEXT}, receipt="queued_on_disk"
                    )
                    if number % AT_A_TIME == 0:
                        await asyncio.wait_for(receipts[number], PATIENCE)
            for number, receipt in receipts.items():
                try:
                    assert await asyncio.wait_for(receipt, PATIENCE) == "queued_on_disk"
                    promised.append(number)
                except kps.StoreFailedError as error:
                    assert "the disk is full" in error.message
                    doubtful.append(receipt.id)
            assert promised and doubtful
            report = await client.close()
            assert report.kept == len(promised)
            assert report.abandoned == doubtful

            place.make_room()
            ear = Ear()
            async with running() as broker, await connect(broker.url) as listener:
                await listener.subscribe("plain.x", ear.hear)
                async with await connect(broker.url, outbox=outbox) as client:
                    await ear.until(promised[-1])
            assert ear.heard == promised
            count("disk is full", messages_queued_on_disk=len(promised), lost=0)

    asyncio.run(scene())


@pytest.mark.parametrize("data", ["new", "used", "used by a killed broker"])
def test_a_folder_that_may_not_be_written_is_refused_and_left_alone(tmp_path: Path, data: str) -> None:
    async def scene() -> None:
        folder = tmp_path / "data"
        folder.mkdir()
        expected = await fill(folder, 50) if data != "new" else []
        if data == "used by a killed broker":
            async with running(folder) as broker, await connect(broker.url) as client:
                await client.publish("orders.x", {"number": 50}, receipt="stored")
                await broker.kill()
            expected.append(50)
        before = contents(folder)
        with read_only(folder):
            with pytest.raises(RefusedToStart, match="store_failed"):
                async with running(folder):
                    pass
            for command in (("verify",), ("history", "orders.>", "--data")):
                done = run(*command, str(folder), "--json")
                if done.returncode == 0:
                    assert data != "new"
                    said = [json.loads(line) for line in done.stdout.splitlines()]
                    if command[0] == "history":
                        assert [message["data"]["number"] for message in said] == expected
                    else:
                        assert said[0]["messages"] == len(expected) and not said[0]["findings"]
                else:
                    assert "store_failed" in done.stderr, done.stderr
            assert contents(folder) == before
        if data != "new":
            assert numbers(kept(folder)) == expected
        async with running(folder) as broker:
            await broker.stop()
        verify(folder)

    asyncio.run(scene())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([KPS, *command], capture_output=True, timeout=PATIENCE, text=True)


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        file = tmp_path / "file"
        file.write_text("not a folder")
        for folder in (file, file / "data"):
            with pytest.raises(RefusedToStart, match="store_failed") as refused:
                async with running(folder):
                    pass
            assert str(file) in str(refused.value)
            for command in (("verify", str(folder)), ("history", "--data", str(folder))):
                done = run(*command)
                # A file is verified as a storage's.
                code = "store_corrupt" if command == ("verify", str(file)) else "store_failed"
                assert done.returncode == 1 and code in done.stderr, done.stderr
        assert file.read_text() == "not a folder"

    asyncio.run(scene())


def test_a_second_server_on_a_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        folder = tmp_path / "data"
        async with running(folder) as first, await connect(first.url) as client:
            await client.publish("orders.x", {"number": 0}, receipt="stored")
            second = Broker(folder)
            with pytest.raises(RefusedToStart, match=r"store_failed.* is in use by another process"):
                await second.start()
            with pytest.raises(kps.StoreFailedError, match="is in use by another process"):
                async with kps.Server("127.0.0.1:0", history=["orders.>"], data=folder):
                    pass
            assert await client.publish("orders.x", {"number": 1}, receipt="stored") == "stored"
            assert numbers(kept(folder)) == [0, 1], "others may read"
            verify(folder)
            await first.kill()
            await second.start()
            await second.stop()
        assert numbers(kept(folder)) == [0, 1]

    asyncio.run(scene())


@pytest.mark.parametrize("what", ["a letter", "another database", "nothing"])
def test_a_file_that_is_not_of_kps_is_refused_and_left_alone(tmp_path: Path, what: str) -> None:
    async def scene() -> None:
        file = tmp_path / "kps.db"
        if what == "another database":
            with sqlite3.connect(file) as database:
                database.execute("CREATE TABLE people (name TEXT)")
            database.close()
        else:
            file.write_text("Dear friend, " * 1000 if what == "a letter" else "")
        before = file.read_bytes()
        with pytest.raises(RefusedToStart, match="store_corrupt") as refused:
            async with running(tmp_path):
                pass
        assert str(file) in str(refused.value)
        for command in (("verify", str(tmp_path)), ("history", "--data", str(tmp_path))):
            done = run(*command)
            assert done.returncode == 1 and "store_corrupt" in done.stderr, done.stderr
        assert file.read_bytes() == before

    asyncio.run(scene())


@pytest.mark.parametrize("name", ["kps.db", "kps.db-wal"])
@pytest.mark.parametrize("damage", ["a bit is flipped", "it is cut short"])
def test_a_damaged_file_is_told_or_does_not_matter(tmp_path: Path, name: str, damage: str) -> None:
    async def scene(random: random.Random) -> None:
        sound = tmp_path / "sound"
        expected = await fill(sound, 200, kill=name == "kps.db-wal")
        whole = (sound / name).read_bytes()
        told = 0
        for fault in range(FAULTS):
            place = random.randrange(len(whole)) if fault else 0
            bytes = bytearray(whole)
            if damage == "a bit is flipped":
                bytes[place] ^= 1 << random.randrange(8)
            else:
                del bytes[place:]
            folder = tmp_path / str(fault)
            shutil.copytree(sound, folder, ignore=shutil.ignore_patterns("*-shm"))
            (folder / name).write_bytes(bytes)
            try:
                told += await is_told(folder, expected)
            except BaseException:
                print(f"{damage} at {place} of {len(whole)}")
                raise
            shutil.rmtree(folder)
        assert told == FAULTS or damage == "a bit is flipped"
        assert told > 0
        count("damaged file", faults=FAULTS, of_them_without_an_effect=FAULTS - told, wrong_answers=0)

    with chance("damage", name, damage) as chosen:
        asyncio.run(scene(chosen))


async def is_told(folder: Path, expected: list[int]) -> bool:
    """Whether anybody hears that the store is damaged; who does not, hears the truth."""
    told = False
    found = run("verify", str(folder), "--json")
    if found.returncode != 0:
        assert "store_corrupt" in found.stderr or "store_failed" in found.stderr, found.stderr
        told = True
    else:
        assert json.loads(found.stdout)["messages"] == len(expected)
    history = run("history", "orders.>", "--data", str(folder), "--json")
    read = [json.loads(line)["data"]["number"] for line in history.stdout.splitlines()]
    if history.returncode == 0:
        assert read == expected
    else:
        assert "store_corrupt" in history.stderr or "store_failed" in history.stderr, history.stderr
        assert read == expected[: len(read)]
        assert told, "verify had nothing to say"
    try:
        async with kps.Server("127.0.0.1:0", history=["orders.>"], data=folder) as server:
            for durable, start in ((None, 0), ("work", len(expected) // 2)):
                assert await reads(server, expected, durable, start) or told, "verify had nothing to say"
    except (kps.StoreCorruptError, kps.StoreFailedError):
        assert told, "verify had nothing to say"
    return told


async def reads(server: kps.Server, expected: list[int], durable: str | None, start: int) -> bool:
    """Whether a subscription gets all that it should; if not, it ends with an error, and not with a hole."""
    heard: list[int] = []
    end = f"end for {durable}"
    subscription = await server.subscribe("orders.>", durable=durable, start="all")
    try:
        receipt = server.publish("orders.end", end, receipt="stored")

        async def listen() -> None:
            async for message in subscription:
                assert isinstance(message, kps.Message), "a hole without an error"
                if message.data == end:
                    return
                if message.topic == "orders.x":
                    heard.append(message.data["number"])

        await asyncio.wait_for(listen(), PATIENCE)
        await receipt
    except (kps.StoreCorruptError, kps.StoreFailedError):
        assert heard == expected[start:][: len(heard)]
        return False
    assert heard == expected[start:]
    return True
