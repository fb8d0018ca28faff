"""Two hosts lose the link between them for a while: nothing is lost, and who missed something is told."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from broker import Child, News, kept, verify
from hosts import HERE, two_hosts
from rounds import SOAK, chance, count

PORT = 9400

OUTAGES = max(SOAK // 20, 1)

pytestmark = pytest.mark.timeout(7200 if SOAK else 120)


@pytest.mark.parametrize(
    ("outage", "silence", "resume_window"),
    [
        pytest.param(1.0, 20.0, 30.0, id="shorter than anybody notices"),
        pytest.param(2.0, 0.75, 30.0, id="longer than a connection lives"),
        pytest.param(3.0, 0.75, 1.0, id="longer than a session lives"),
    ],
)
def test_hosts_that_lose_their_link_lose_no_message(
    tmp_path: Path, outage: float, silence: float, resume_window: float
) -> None:
    async def scene(random: random.Random, end: int) -> None:
        folder = tmp_path / str(end)
        folder.mkdir()
        news = News()
        with two_hosts(end) as hosts:
            timings = (str(silence), str(resume_window))
            server = Child("server.py", f"{HERE}:{PORT}", str(folder / "data"), *timings, wrapper=hosts.here)
            children = [server]

            async def start(child: Child, lines: int = 1) -> Child:
                children.append(child)
                await child.start()
                await child.until(lines)
                return child

            try:
                await server.start()
                await server.until(1)
                url = server.said[0]

                def subscriber(pattern: str, durable: str) -> Child:
                    return Child("subscriber.py", url, pattern, durable, news=news, wrapper=hosts.there)

                plain = await start(subscriber("plain.>", ""))
                orders = await start(subscriber("orders.>", ""))
                durable = await start(subscriber("orders.>", "work"))
                arguments = (url, str(folder / "outbox"), "0", "publisher", "orders.x", "plain.x")
                publisher = await start(Child("publisher.py", *arguments, news=news, wrapper=hosts.there))

                async def all_heard(topics: dict[str, list[Child]]) -> None:
                    """Waits until they have what was promised until now."""
                    for topic, ears in topics.items():
                        wanted = promised(publisher, topic)
                        for ear in ears:
                            assert await news.until(lambda: not wanted - numbers(ear)), missing(topic, wanted, ear)

                keeps_sessions = outage < resume_window
                for _ in range(OUTAGES):
                    await publisher.until(len(publisher.said) + 100)
                    hosts.unplug(end)
                    await asyncio.sleep(outage * random.uniform(0.8, 1.2))
                    hosts.plug(end)
                    await all_heard({"orders.x": [orders, durable], "plain.x": [plain] if keeps_sessions else []})
                await publisher.finish()
                assert publisher.said.pop() == {"kept": 0, "abandoned": []}
                await all_heard({"orders.x": [orders, durable], "plain.x": [plain] if keeps_sessions else []})
                for child in (plain, orders, durable, server):
                    await child.finish()
            finally:
                for child in children:
                    await child.end()

        assert not gaps(orders)
        if silence < outage:
            reports = [said for said in orders.said if isinstance(said, dict)]
            assert len(reports) >= OUTAGES, f"{OUTAGES} outages, and it heard {reports}"
        assert bool(gaps(plain)) == (not keeps_sessions)
        for ear in (plain, orders, durable):
            check_order(ear)
        history = kept(folder / "data")["orders.x"]
        order = promised(publisher, "orders.x")
        assert order <= set(history) and len(history) == len(set(history))
        verify(folder / "data")
        count("hosts", outages=OUTAGES, messages=len(publisher.said), gaps_told=len(gaps(plain)), lost=0)

    async def both() -> None:
        with chance("hosts", outage) as chosen:
            await asyncio.gather(*(scene(random.Random(chosen.random()), end) for end in (0, 1)))

    asyncio.run(both())


def promised(publisher: Child, topic: str) -> set[int]:
    return {said[1] for said in publisher.said if isinstance(said, list) and said[0] == topic}


def numbers(ear: Child) -> set[int]:
    return {said[0] for said in ear.said if isinstance(said, list)}


def gaps(ear: Child) -> list[str]:
    return [said["gap"] for said in ear.said if isinstance(said, dict) and "gap" in said]


def check_order(ear: Child) -> None:
    """The last one, -1, says only that it is the last."""
    once = [number for number, attempt, doubtful in filter(is_message, ear.said) if attempt == 1 and not doubtful]
    once = [number for number in once if number >= 0]
    assert once == sorted(set(once)), "out of order, or repeated without saying so"


def is_message(said: object) -> bool:
    return isinstance(said, list)


def missing(topic: str, wanted: set[int], ear: Child) -> str:
    lost = sorted(wanted - numbers(ear))
    return f"{topic}: {len(lost)} of {len(wanted)} were never heard, the first of them {lost[:5]}"
