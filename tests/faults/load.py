"""Publishers and subscribers of the test's own, which know what they were promised and what they heard."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterable

import kps
from broker import PATIENCE, News

IN_FLIGHT = 200
LAST = -1
"""What a publisher says before it ends."""


class Load:
    """Publishes numbers on its topics without a pause; knows which are stored."""

    def __init__(self, client: kps.Client, topics: Iterable[str], own_ids: bool, random: random.Random) -> None:
        self.client = client
        self.topics = list(topics)
        self.own_ids = own_ids
        self.random = random
        self.published: Counter[str] = Counter()
        self.stored: dict[str, set[int]] = {topic: set() for topic in self.topics}
        self.waiting: deque[tuple[str, int, kps.Receipt]] = deque()
        self.news = News()
        self.stopping = False
        self.work = asyncio.create_task(self.run())
        self.work.add_done_callback(lambda _: self.news.tell())

    async def run(self) -> None:
        while not self.stopping or self.waiting:
            while not self.stopping and len(self.waiting) < IN_FLIGHT:
                topic = self.random.choice(self.topics)
                number = self.published[topic]
                self.published[topic] += 1
                message_id = f"{topic}-{number}" if self.own_ids else None
                receipt = self.client.publish(topic, number, id=message_id, receipt="stored")
                self.waiting.append((topic, number, receipt))
            topic, number, receipt = self.waiting.popleft()
            assert await receipt == "stored"
            self.stored[topic].add(number)
            self.news.tell()

    def done(self) -> int:
        return sum(map(len, self.stored.values()))

    async def until_stored(self, more: int) -> None:
        wanted = self.done() + more
        await self.news.until(lambda: self.done() >= wanted or self.work.done())
        if self.work.done():
            self.work.result()
        assert self.done() >= wanted, f"nothing is stored any more after {self.done()} messages"

    async def finish(self) -> None:
        self.stopping = True
        await asyncio.wait_for(self.work, PATIENCE)


class Ear:
    """What a subscriber heard, and whether it makes sense."""

    def __init__(self) -> None:
        self.heard: dict[str, list[tuple[int, bool]]] = defaultdict(list)
        self.seen: dict[str, set[int]] = defaultdict(set)
        self.news = News()
        self.gaps: list[kps.Gap] = []

    def hear(self, message: kps.Message) -> None:
        self.heard[message.topic].append((message.data, message.maybe_duplicate))
        self.seen[message.topic].add(message.data)
        self.news.tell()

    async def until_all(self, wanted: dict[str, set[int]]) -> None:
        if not await self.news.until(lambda: all(wanted[topic] <= self.seen[topic] for topic in wanted)):
            missing = {topic: sorted(wanted[topic] - self.seen[topic])[:10] for topic in wanted}
            raise AssertionError(f"never heard: {missing}")

    def check(self) -> None:
        assert not self.gaps, [(gap.topic, gap.count, gap.reason) for gap in self.gaps]
        for topic, heard in self.heard.items():
            seen: set[int] = set()
            highest = -1
            for number, maybe_duplicate in heard:
                if number in seen:
                    assert maybe_duplicate, f"{topic} {number} came again and does not say so"
                elif number != LAST:
                    assert number > highest, f"{topic} {number} came for the first time behind {highest}"
                    highest = number
                seen.add(number)

    def again(self) -> int:
        return sum(len(heard) - len(self.seen[topic]) for topic, heard in self.heard.items())
