"""Subscribers that stand still while somebody publishes as fast as he can: the broker's memory has a cap."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import kps
from broker import PATIENCE, Broker, Child, connect, running
from rounds import SOAK, count

MIB = 1 << 20
CAP = 48 * MIB
STALLED = 10
PUBLISHED = (1 << 30) if SOAK else 4 * CAP
"""Bytes; each of them is for every subscriber."""

AT_A_TIME = 4 * MIB
"""Bytes that wait for the broker, twice."""

AROUND = 32 * MIB
"""What a broker may need besides: its code and the sockets' buffers."""

DISK = 80 * MIB
"""What it may need for history on disk: what waits to be stored (8 MiB), the newest messages, SQLite's caches."""


def peak(broker: Broker) -> int:
    """The most memory it ever had, in bytes."""
    for line in Path(f"/proc/{broker.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this system does not say")


@pytest.mark.parametrize("size", [64, 16_000])
@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest", "spill"])
def test_a_broker_stays_under_its_cap_with_ten_stalled_subscribers(tmp_path: Path, overflow: str, size: int) -> None:
    async def scene() -> None:
        options = ("--server-bytes", str(CAP), "--queue-bytes", str(CAP))
        async with AsyncExitStack() as stack:
            # Only what goes to the disk spills; what others lose is kept nowhere.
            data, topic = (tmp_path / "data", "orders.x") if overflow == "spill" else (None, "plain.x")
            broker = await stack.enter_async_context(running(data, *options))
            stalled = [Child("stalled.py", broker.url, topic, overflow) for _ in range(STALLED)]
            for child in stalled:
                await child.start()
                stack.push_async_callback(child.end)
            for child in stalled:
                await child.until(1)
                child.process.send_signal(signal.SIGSTOP)
            publisher = await stack.enter_async_context(await connect(broker.url))
            payload = bytes(size)
            published = 0
            waiting: deque[kps.Receipt] = deque()
            while published * size < PUBLISHED:
                receipts = [publisher.publish(topic, payload, receipt="accepted") for _ in range(AT_A_TIME // size)]
                published += len(receipts)
                waiting.append(receipts[-1])
                if len(waiting) > 1:
                    assert await asyncio.wait_for(waiting.popleft(), PATIENCE) == "accepted"
            assert await asyncio.wait_for(waiting.popleft(), PATIENCE) == "accepted"
            most, bound = peak(broker), CAP + AROUND + (DISK if data else 0)
            assert most < bound, f"{most / MIB:.0f} MiB with a cap of {CAP / MIB:.0f} MiB"
            count("memory", messages_published=published)
            count(f"memory, {overflow}, {size} bytes", peak_MiB=most // MIB, cap_MiB=CAP // MIB)

    asyncio.run(scene())
