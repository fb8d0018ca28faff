"""A cable that is cut, stalls, half-closes, drips and delays: nothing is lost, and every reconnect is reported."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest

import kps
from broker import PATIENCE, News, connect
from cable import Cable, Fault, Kind, Way
from rounds import SOAK, chance, count

EACH = 8
"""Messages on each topic of a conversation."""

SAMPLE = 30
"""Offsets in the short form, of each kind, way and end."""

ABREAST = 12
"""Conversations at the same time."""

BURST = 10_000

HANDSHAKE = 21.0
"""Seconds in which a silent server is noticed, and one more."""

pytestmark = pytest.mark.timeout(7200 if SOAK else 120)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[kps.Server]:
    """A server that soon finds out that nobody is there any more."""
    server = kps.Server("127.0.0.1:0", history=["orders.>"], data=folder, heartbeat=0.3, silence=0.75)
    async with server:
        yield server


@dataclass
class Stream:
    """What one subscription got."""

    heard: list[tuple[Any, bool]] = field(default_factory=list)
    reported: int = 0
    """The last reconnect after which it said how it goes on."""
    gaps: list[kps.Gap] = field(default_factory=list)
    news: News = field(default_factory=News)

    def hear(self, message: kps.Message) -> None:
        self.heard.append((message.data, message.attempt > 1 or message.maybe_duplicate))
        self.news.tell()

    def numbers(self) -> set[Any]:
        return {number for number, _ in self.heard}

    def check(self, wanted: int, again: bool) -> None:
        """All numbers in order; `again`: a repeat is allowed if it says so."""
        assert not self.gaps, [(gap.count, gap.reason) for gap in self.gaps]
        repeats = Counter(number for number, _ in self.heard) - Counter(range(wanted))
        assert not repeats or again, f"{dict(repeats)} came more than once"
        unmarked = [number for number, marked in self.heard if not marked]
        assert unmarked == sorted(set(unmarked)), f"out of order, or repeated without saying so: {self.heard}"
        assert self.numbers() == set(range(wanted))


async def until(news: News, is_so: Callable[[], bool], say: Callable[[], object]) -> None:
    assert await news.until(is_so), say()


async def converse(
    server: kps.Server,
    name: str,
    speaks: Cable,
    hears: Cable,
    each: int = EACH,
    payload: Callable[[int], Any] = lambda number: number,
) -> None:
    """One publisher, three subscriptions, each behind its cable; and the server itself as a witness."""
    plain, orders = f"plain.{name}", f"orders.{name}"
    streams: dict[str, Stream] = defaultdict(Stream)
    news = News()
    for who in ("plain", "orders", "durable", "witness plain", "witness orders"):
        streams[who].news = news
    subscriptions: dict[kps.Subscription, Stream] = {}
    connects = 0

    def connected(_: bool) -> None:
        nonlocal connects
        connects += 1
        news.tell()

    def report(what: kps.Resumed | kps.Gap, subscription: kps.Subscription) -> None:
        stream = subscriptions.get(subscription)
        if stream is not None:
            stream.reported = connects
            if isinstance(what, kps.Gap):
                stream.gaps.append(what)
            news.tell()

    await speaks.open()
    await hears.open()
    witnesses = [
        await server.subscribe(plain, streams["witness plain"].hear),
        await server.subscribe(orders, streams["witness orders"].hear),
    ]
    listener = await connect(hears.url, id=f"listener {name}", wait=False, timeout=1.0)
    speaker = await connect(speaks.url, id=f"speaker {name}", wait=False, timeout=1.0)
    try:
        listener.on("connection_opened", connected)
        listener.on("resumed", report)
        listener.on("gap", report)
        subscriptions[await listener.subscribe(plain, streams["plain"].hear)] = streams["plain"]
        subscriptions[await listener.subscribe(orders, streams["orders"].hear)] = streams["orders"]
        durable = await listener.subscribe(orders, streams["durable"].hear, durable=name, start="all")
        subscriptions[durable] = streams["durable"]
        connects = 0
        for stream in streams.values():
            stream.reported = 0

        receipts: list[tuple[str, kps.Receipt]] = []
        for number in range(each):
            receipts.append(("accepted", speaker.publish(plain, payload(number), receipt="accepted")))
            receipts.append(("stored", speaker.publish(orders, payload(number), receipt="stored")))
        for level, receipt in receipts:
            assert await asyncio.wait_for(receipt, PATIENCE) == level

        everything = set(range(each))
        await until(
            news,
            lambda: all(stream.numbers() >= everything for stream in streams.values()),
            lambda: {who: sorted(everything - stream.numbers())[:10] for who, stream in streams.items()},
        )
        for who, stream in streams.items():
            stream.check(each, again=who == "durable")
        await until(
            news,
            lambda: all(stream.reported == connects for stream in subscriptions.values()),
            lambda: f"{connects} reconnects, reports: {[stream.reported for stream in subscriptions.values()]}",
        )
        ledger = speaker.ledger()
        assert (ledger["published"], ledger["accepted"], ledger["pending"]) == (2 * each, 2 * each, 0), ledger
        assert ledger["refused"] == ledger["abandoned"] == 0
        await balanced(listener, sum(len(stream.heard) for stream in subscriptions.values()))
    finally:
        await speaker.close(1)
        await listener.close(1)
        for witness in witnesses:
            await witness.unsubscribe()
        await speaks.close()
        await hears.close()
    server.remove_durable(name)


async def balanced(listener: kps.Client, heard: int) -> None:
    """What the handlers got is what the ledger says; the last one is counted when its handler has returned."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        ledger = listener.ledger()["subscriptions"]
        ends = ledger["delivered"] + ledger["dropped"] + ledger["expired"] + ledger["cancelled"] + ledger["pending"]
        assert ledger["accepted"] == ends, ledger
        if ledger["delivered"] == heard and ledger["pending"] == 0:
            return
        assert asyncio.get_running_loop().time() < deadline, f"{heard} were heard: {ledger}"
        await asyncio.sleep(0.001)


async def measure(server: kps.Server) -> dict[str, Counter[Way]]:
    """Bytes that pass in a conversation, by whose cable and way."""
    speaks, hears = Cable(server.address), Cable(server.address)
    await converse(server, "whole", speaks, hears)
    return {"speaker": speaks.passed, "listener": hears.passed}


async def abreast(conversations: Iterable[Callable[[], Awaitable[None]]]) -> int:
    """Has some of them at the same time; how many there were."""
    waiting = list(conversations)
    total = len(waiting)

    async def work() -> None:
        while waiting:
            await waiting.pop()()

    workers = [asyncio.create_task(work()) for _ in range(ABREAST)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return total


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("end", ["speaker", "listener"])
@pytest.mark.parametrize("way", get_args(Way))
def test_a_connection_may_break_at_any_byte(tmp_path: Path, kind: Kind, end: str, way: Way) -> None:
    async def scene(random: random.Random) -> None:
        async with serving(tmp_path) as server:
            length = (await measure(server))[end][way]
            offsets = range(1, length) if SOAK else random.sample(range(1, length), SAMPLE)
            struck = 0

            async def conversation(offset: int) -> None:
                nonlocal struck
                broken = Cable(server.address, [Fault(kind, way, offset)])
                whole = Cable(server.address)
                speaks, hears = (broken, whole) if end == "speaker" else (whole, broken)
                try:
                    await converse(server, f"{kind}-{offset}", speaks, hears)
                except BaseException:
                    print(f"{kind} of the {end}'s cable after {offset} of {length} bytes {way}")
                    raise
                struck += broken.struck

            total = await abreast(lambda offset=offset: conversation(offset) for offset in offsets)  # type: ignore[misc]
            count(f"cable: {kind}", conversations=total, faults=struck, messages=total * 2 * EACH, lost=0)

    with chance("cable", kind, end, way) as random:
        asyncio.run(scene(random))


@pytest.mark.parametrize("how", ["one byte at a time", "with delays"])
def test_a_slow_cable_is_only_slow(tmp_path: Path, how: str) -> None:
    async def scene(chance: random.Random) -> None:
        async with serving(tmp_path) as server:

            def cable() -> Cable:
                if how == "one byte at a time":
                    return Cable(server.address, drip=True)
                return Cable(server.address, delays=random.Random(chance.random()))

            def conversation(place: int) -> Callable[[], Awaitable[None]]:
                return lambda: converse(server, f"slow-{place}", cable(), cable(), 30)

            total = await abreast(map(conversation, range(SOAK or 5)))
            count(f"cable: {how}", conversations=total, messages=total * 60, lost=0)

    with chance("slow", how) as chosen:
        asyncio.run(scene(chosen))


def test_a_handshake_that_stalls_is_tried_again_by_who_waits_for_ever(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server:
            cable = Cable(server.address, [Fault("stall", "down", 1)])
            await cable.open()
            try:
                client = await asyncio.wait_for(connect(cable.url, timeout=float("inf")), HANDSHAKE)
                await client.close()
            finally:
                await cable.close()
            count("cable: stall", conversations=1, faults=1)

    asyncio.run(scene())


def test_a_cable_that_breaks_again_and_again(tmp_path: Path) -> None:
    async def scene(random: random.Random) -> None:
        async with serving(tmp_path) as server:

            def faults() -> Iterable[Fault]:
                while True:
                    kind = random.choices(get_args(Kind), (8, 4, 1))[0]
                    yield Fault(kind, random.choice(get_args(Way)), random.randrange(200, 20_000))

            struck = 0
            rounds = max(SOAK // 10, 1)
            for round in range(rounds):
                speaks, hears = Cable(server.address, faults()), Cable(server.address, faults())
                await converse(server, f"again-{round}", speaks, hears, BURST)
                struck += speaks.struck + hears.struck
            assert struck > rounds
            count("cable: again and again", faults=struck, messages=rounds * 2 * BURST, lost=0)

    with chance("again") as chosen:
        asyncio.run(scene(chosen))
