"""Documents under faults: kills, an end in order, a store that fails, readers that do not read, many writers."""

from __future__ import annotations

import asyncio
import random
import resource
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import kps
from broker import KPS, PATIENCE, Broker, News, connect, running
from rounds import CHAPTER, CHAPTERS, SOAK, chance, count

WRITERS = 10
IN_FLIGHT = 20
"""Operations of a writer that the server need not have."""

LOST = 50
"""Operations that a crash may lose at most, and how old they may be, in seconds."""
LATE = 10 + 1.0
LONGEST = 1.5
"""Seconds between the first sign of life after a start and the kill."""

pytestmark = pytest.mark.timeout(7200 if SOAK else 120)


class Observer:
    """Hears what is told about a document, in order."""

    def __init__(self) -> None:
        self.applied: dict[str, float] = {}
        self.checkpointed: set[str] = set()
        self.failed: list[str] = []
        self.rejected: list[dict[str, Any]] = []
        self.acks: Counter[str] = Counter()
        self.conflicts = 0
        self.again = 0
        self.news = News()

    def hear(self, message: kps.Message) -> None:
        event = message.data
        match event["event"]:
            case "change":
                self.applied[event["op_id"]] = time.monotonic()
            case "ack" if event["level"] == "checkpointed":
                self.again += event["op_id"] in self.checkpointed
                self.checkpointed.add(event["op_id"])
            case "ack":
                self.acks[event["op_id"]] += 1
            case "conflict":
                self.conflicts += 1
            # One that was moved before it was sent again, and was there as it had been.
            case "rejected" if event["code"] not in ("skipped", "op_id_reused"):
                self.rejected.append(event)
            case "store_failed":
                self.failed.append(event["code"])
            case _:
                pass
        self.news.tell()


class Writer:
    """Writes bits of text at random places, without looking back."""

    def __init__(self, document: kps.Document, number: int, random: random.Random) -> None:
        self.document = document
        self.number = number
        self.random = random
        self.written: dict[str, str] = {}
        self.receipts: deque[Any] = deque()
        self.stopping = False
        self.work = asyncio.create_task(self.run())

    async def run(self) -> None:
        while not self.stopping:
            token = f"<{self.number}.{len(self.written)}>"
            length = len(self.document.text)
            place = self.random.choice([length, self.random.randint(0, length)])
            try:
                receipt = self.document.insert(place, token)
            except kps.RejectedError as refused:
                # The text changes beside the program: it got shorter between the two.
                assert refused.code == "position_out_of_range"
                continue
            self.written[receipt.op_id] = token
            self.receipts.append(receipt)
            await asyncio.sleep(self.random.uniform(0, 0.06))
            if len(self.receipts) > IN_FLIGHT:
                await self.receipts.popleft()

    async def finish(self) -> None:
        self.stopping = True
        try:
            await asyncio.wait_for(self.work, PATIENCE)
            await asyncio.wait_for(self.document.flush(), PATIENCE)
        except asyncio.TimeoutError:
            raise AssertionError(f"it is not all sent: {self.document}, {self.document.unsynced[:3]}") from None


@asynccontextmanager
async def writers(broker: Broker, id: str, random: random.Random, many: int = WRITERS) -> AsyncIterator[list[Writer]]:
    async with AsyncExitStack() as stack:
        team: list[Writer] = []
        for number in range(many):
            client = await stack.enter_async_context(await connect(broker.url, id=f"writer {number}"))
            document = await stack.enter_async_context(await client.open_document(id, rebases=1000, timeout=PATIENCE))
            team.append(Writer(document, number, random))
        try:
            yield team
        finally:
            for writer in team:
                writer.stopping = True


@asynccontextmanager
async def observing(broker: Broker, id: str) -> AsyncIterator[Observer]:
    async with await connect(broker.url, id="observer") as client:
        observer = Observer()
        await client.subscribe(f"kps.document.{id}", observer.hear)
        yield observer


async def operations(url: str, id: str) -> list[str]:
    """The operations that are in a document, oldest first."""
    found: list[str] = []
    async with await connect(url) as client:
        before = None
        while True:
            page = await asked(client, "versions", id=id, before=before, limit=1000)
            found += [version["op_id"] for version in page["versions"]]
            if len(page["versions"]) < 1000:
                return found[::-1]
            before = page["versions"][-1]["version"]


async def asked(client: kps.Client, operation: str, **payload: Any) -> Any:
    return (await client.dispatch(f"document.{operation}", payload, timeout=PATIENCE)).unwrap()


async def stored(data: Path, id: str, copy: Path) -> list[str]:
    """What a folder has of a document, looked at in a copy: nobody else knows of it."""
    await asyncio.to_thread(shutil.copytree, data, copy)
    async with running(copy) as broker:
        found = await operations(broker.url, id)
    await asyncio.to_thread(shutil.rmtree, copy)
    return found


async def alike(broker: Broker, id: str, team: list[Writer]) -> None:
    """Everybody stops, and has the same text with every letter that was written."""
    for writer in team:
        await writer.finish()
    async with await connect(broker.url) as client, await client.open_document(id, timeout=PATIENCE) as document:
        text = document.text
        for _ in range(int(PATIENCE / 0.01)):
            if all(writer.document.text == text for writer in team):
                break
            await asyncio.sleep(0.01)
        for writer in team:
            assert writer.document.text == text, f"writer {writer.number} has another text"
    wanted = [op_id for writer in team for op_id in writer.written]
    there = await operations(broker.url, id)
    assert Counter(there) == Counter(wanted), "an operation is missing, or there twice"
    assert len(text) == sum(len(token) for writer in team for token in writer.written.values())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_killed_server_has_what_was_checkpointed_and_is_sent_the_rest_again(tmp_path: Path, chapter: int) -> None:
    async def scene(random: random.Random) -> None:
        data, id = tmp_path / "data", "d"
        async with (
            running(data, history=()) as broker,
            observing(broker, id) as observer,
            writers(broker, id, random) as team,
        ):
            most, oldest, all_lost = 0, 0.0, 0
            for round in range(CHAPTER):
                before = len(observer.applied)
                assert await observer.news.until(lambda: len(observer.applied) > before), "nobody writes any more"
                await asyncio.sleep(random.uniform(0, LONGEST))
                await broker.kill()
                killed = time.monotonic()
                await asyncio.sleep(0.05)  # what it sent is heard
                there = set(await stored(data, id, tmp_path / f"copy {round}"))
                missing = observer.checkpointed - there
                assert not missing, f"{len(missing)} checkpointed operations are lost"
                lost = observer.applied.keys() - there
                age = max((killed - observer.applied[op_id] for op_id in lost), default=0.0)
                assert len(lost) <= LOST, f"{len(lost)} operations are lost"
                assert age <= LATE, f"an operation of {age:.1f} s ago is lost"
                unsynced = {op_id for writer in team for op_id in writer.document.unsynced}
                assert lost <= unsynced, "nobody sends it again"
                for op_id in lost:
                    del observer.applied[op_id]
                most, oldest, all_lost = max(most, len(lost)), max(oldest, age), all_lost + len(lost)
                await broker.start()
            await alike(broker, id, team)
            assert not observer.rejected, [event["code"] for event in observer.rejected]
            count(
                "documents, server killed",
                kills=CHAPTER, operations=sum(len(writer.written) for writer in team), conflicts=observer.conflicts,
                checkpointed_lost=0, applied_lost_and_sent_again=all_lost,
            )  # fmt: skip
            print(f"\nat most {most} operations were lost at once, {oldest:.2f} s old at most")

    with chance("documents killed", chapter) as random:
        asyncio.run(scene(random))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_server_that_is_told_to_end_loses_nothing(tmp_path: Path, chapter: int) -> None:
    rounds = CHAPTER if SOAK else 3

    async def scene(random: random.Random) -> None:
        data, id = tmp_path / "data", "d"
        async with (
            running(data, history=()) as broker,
            observing(broker, id) as observer,
            writers(broker, id, random) as team,
        ):
            for round in range(rounds):
                before = len(observer.applied)
                assert await observer.news.until(lambda: len(observer.applied) > before)
                await asyncio.sleep(random.uniform(0, LONGEST))
                await broker.stop()
                await asyncio.sleep(0.05)
                there = set(await stored(data, id, tmp_path / f"copy {round}"))
                lost = observer.applied.keys() - there
                assert not lost, f"{len(lost)} operations are lost"
                await broker.start()
            await alike(broker, id, team)
            count("documents, server ended", ends=rounds, operations=len(observer.applied), lost=0)

    with chance("documents ended", chapter) as random:
        asyncio.run(scene(random))


def test_a_store_that_cannot_be_opened_is_an_error_and_no_empty_document(tmp_path: Path) -> None:
    async def scene() -> None:
        data = tmp_path / "data"
        async with running(data, history=()) as broker, await connect(broker.url) as client:
            async with await client.open_document("d") as document:
                await document.append("precious")
            await broker.stop()
            (data / "values.db").rename(tmp_path / "values.db")
            for other in data.glob("values.db-*"):
                other.unlink()
            (data / "values.db").write_bytes(b"no database" * 1000)
            await broker.start()
            for _ in range(3):
                with pytest.raises(kps.KpsError) as raised:
                    await client.open_document("d", timeout=PATIENCE)
                assert raised.value.code in ("store_failed", "store_corrupt"), raised.value
            assert (data / "values.db").read_bytes() == b"no database" * 1000, "it is left as it is"
            (tmp_path / "values.db").rename(data / "values.db")
            async with await client.open_document("d", timeout=PATIENCE) as document:
                assert document.text == "precious"
            count("documents, store not opened", refused=3, lost=0)

    asyncio.run(scene())


def test_while_the_disk_is_full_documents_stay_in_memory_and_are_stored_once_there_is_room(tmp_path: Path) -> None:
    def limit(pid: int, size: int) -> None:
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size if size >= 0 else most, most))

    async def scene(random: random.Random) -> None:
        data, id = tmp_path / "data", "d"

        def ignore() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error, not the end of the process

        options = ("--document-checkpoint-every", "200ms")
        async with (
            running(data, *options, history=(), before=ignore) as broker,
            observing(broker, id) as observer,
            writers(broker, id, random, 3) as team,
        ):
            assert await observer.news.until(lambda: len(observer.checkpointed) > 0)
            limit(broker.pid, 4096)
            assert await observer.news.until(lambda: len(observer.failed) > 0), "nobody was told"
            before = len(observer.applied)
            assert await observer.news.until(lambda: len(observer.applied) > before + 100), "it is not edited any more"
            stale = set(observer.applied) - observer.checkpointed
            assert len(observer.failed) == 1, "it is said once"
            limit(broker.pid, -1)
            assert await observer.news.until(lambda: stale <= observer.checkpointed), "it was not stored afterwards"
            await alike(broker, id, team)
            await broker.stop()
            there = set(await stored(data, id, tmp_path / "copy"))
            assert there == set(observer.applied)
            count("documents, disk full", operations=len(there), while_it_was_full=len(stale), lost=0)

    with chance("documents full") as random:
        asyncio.run(scene(random))


def test_a_client_that_never_reads_its_events_holds_up_nobody(tmp_path: Path) -> None:
    async def scene(random: random.Random) -> None:
        async with running(tmp_path / "data", "--queue-bytes", "1M", history=()) as broker:
            deaf = await asyncio.create_subprocess_exec(
                KPS, "sub", "kps.document.>", "--url", broker.url, "--json",
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            try:
                async with observing(broker, "d") as observer, writers(broker, "d", random) as team:
                    assert deaf.stdout is not None
                    await asyncio.wait_for(deaf.stdout.readline(), PATIENCE)
                    deaf.send_signal(signal.SIGSTOP)  # it is there, and takes nothing
                    before = memory(broker.pid)
                    for writer in team:
                        writer.document.append("x" * 5_000)
                    for wanted in range(500, 2_001, 500):
                        assert await observer.news.until(lambda wanted=wanted: len(observer.applied) >= wanted), (  # type: ignore[misc]
                            "writers are held up"
                        )
                    grown = memory(broker.pid) - before
                    assert grown < 64 << 20, f"{grown >> 20} MiB are kept for it"
                    for writer in team:
                        writer.stopping = True
                    count("documents, deaf reader", operations=len(observer.applied), MiB_grown=grown >> 20)
            finally:
                deaf.kill()
                await deaf.communicate()  # with what it wrote: nobody waits for a pipe that is full

    with chance("documents deaf") as random:
        asyncio.run(scene(random))


def memory(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_two_clients_with_one_id_do_not_mix_up_what_they_write(tmp_path: Path) -> None:
    async def scene(random: random.Random) -> None:
        async with running(tmp_path / "data", history=()) as broker, await connect(broker.url, id="twin") as one:
            first = await one.open_document("d")
            mine = [first.append("a").op_id for _ in range(50)]
            try:
                other = await connect(broker.url, id="twin", timeout=3)
            except kps.KpsError as refused:
                # The id is taken: nothing happened to who has it.
                assert refused.code in ("id_in_use", "timeout"), refused
                theirs: list[str] = []
            else:
                async with other:
                    second = await other.open_document("d", timeout=PATIENCE)
                    theirs = [second.append("b").op_id for _ in range(50)]
                    await asyncio.wait_for(second.flush(), PATIENCE)
            assert not set(mine) & set(theirs), "they gave the same ids"
            with_id = await operations(broker.url, "d")
            if not theirs:
                await asyncio.wait_for(first.flush(), PATIENCE)
                with_id = await operations(broker.url, "d")
                assert set(mine) == set(with_id)
            assert set(theirs) <= set(with_id)
            assert len(with_id) == len(set(with_id))

    with chance("documents twins") as random:
        asyncio.run(scene(random))


def test_nothing_is_lost_of_a_document_that_somebody_closes_all_the_time(tmp_path: Path) -> None:
    async def scene(random: random.Random) -> None:
        id = "d"
        async with (
            running(tmp_path / "data", history=()) as broker,
            observing(broker, id) as observer,
            writers(broker, id, random) as team,
            await connect(broker.url) as closer,
        ):
            closed = 0
            until = time.monotonic() + 3
            while time.monotonic() < until:
                await asked(closer, "close", id=id)
                closed += 1
            await alike(broker, id, team)
            assert not observer.rejected, [event["code"] for event in observer.rejected]
            count("documents, closed all the time", closes=closed, operations=len(observer.applied), lost=0)

    with chance("documents closed") as random:
        asyncio.run(scene(random))


@pytest.mark.parametrize("chapter", CHAPTERS[:1])
def test_one_who_streams_gets_its_text_in_among_ten_writers(tmp_path: Path, chapter: int) -> None:
    async def scene(random: random.Random) -> None:
        id = "d"
        async with (
            running(tmp_path / "data", history=()) as broker,
            observing(broker, id) as observer,
            writers(broker, id, random) as team,
            await connect(broker.url, id="agent") as client,
            await client.open_document(id) as document,
        ):
            conflicts: Counter[str] = Counter()
            document.on("conflict", lambda event: conflicts.update([event["op_id"]] * (event["author"] == "agent")))
            tokens = [f"[{number}]" for number in range(300)]
            async with document.stream() as stream:
                for token in tokens:
                    stream.write(token)
                    await asyncio.sleep(0.01)
            for writer in team:
                await writer.finish()
            text = document.text
            assert all(text.count(token) <= 1 for token in tokens)
            assert sum(map(text.count, tokens)) >= len(tokens) * 0.5, "others wrote inside of some, not of all"
            most = max(conflicts.values(), default=0)
            assert most <= 50, f"an operation was moved {most} times"
            count("documents, streamed", tokens=len(tokens), conflicts=sum(conflicts.values()))
            print(f"\none operation was moved {most} times at most; {len(observer.applied)} operations in all")

    with chance("documents streamed", chapter) as random:
        asyncio.run(scene(random))
