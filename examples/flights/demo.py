"""A year of departures from New York over kps, three times over: `make demo`.

This program embeds the broker and publishes every flight on `flights.<origin>.<destination>`. A Node
service (delays.mjs) hears them all; two more (desk.mjs) share them as a group. Every one of the million
publishes is acknowledged by whoever received it. At the end a second Python program (newsroom.py) asks
the Node service which routes were the worst.
"""

import argparse
import asyncio
import json
import pathlib
import sys
import time
from collections import Counter, deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from data import departures

import kps

HERE = pathlib.Path(__file__).parent
IN_FLIGHT = 1024  # publishes that wait for their acks at any time
RECIPIENTS = 2  # of each flight: the delays service, and one of the desks


@dataclass
class Tally:
    sent: int = 0
    acknowledged: int = 0
    late: int = 0
    by: Counter = field(default_factory=Counter)
    latencies: list = field(default_factory=list)

    def settle(self, rows):
        """Counts the rows of one publish's ack."""
        acked = [row for row in rows.values() if row.success]
        self.acknowledged += len(acked) == RECIPIENTS
        self.late += any(row.data and row.data["late"] for row in acked)
        self.by.update(row.client_id for row in acked)
        self.latencies.append(max((row.latency for row in acked), default=0.0))


async def main():
    arguments = parse_arguments()
    flights = departures()
    tally = Tally()
    async with kps.Server("127.0.0.1:0") as server, services(server) as programs:
        progress = asyncio.create_task(show_progress(tally, len(flights) * arguments.passes))
        began = time.perf_counter()
        for _ in range(arguments.passes):
            await replay(server, flights, tally)
        seconds = time.perf_counter() - began
        progress.cancel()
        news = await hear_the_news(server)
        received = {name: await server.request(f"report.{name}", None) for name in ("delays", "desk-1", "desk-2")}
        await server.publish("demo.over", None)
        codes = [await program.wait() for program in programs]
    figures = summarize(tally, seconds, flights, received, news)
    if arguments.json:
        print(json.dumps(figures))
    else:
        print_summary(figures, tally)
    return 1 if figures["lost"] or any(codes) else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=3, help="how often the year is replayed")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    return parser.parse_args()


@asynccontextmanager
async def services(server):
    """The four other programs, once all of them have subscribed."""
    url = f"ws://{server.address}"
    ready = await server.subscribe("demo.ready")
    programs = [
        await asyncio.create_subprocess_exec(*map(str, command))
        for command in [
            ("node", HERE / "delays.mjs", url),
            ("node", HERE / "desk.mjs", url, "desk-1"),
            ("node", HERE / "desk.mjs", url, "desk-2"),
            (sys.executable, HERE / "newsroom.py", url),
        ]
    ]
    try:
        for _ in programs:
            await anext(ready)
        yield programs
    finally:
        for program in programs:
            if program.returncode is None:
                program.terminate()


async def replay(server, flights, tally):
    """Publishes every flight, at most IN_FLIGHT ahead of the acks."""
    waiting = deque()
    for topic, flight in flights:
        if len(waiting) == IN_FLIGHT:
            tally.settle(await waiting.popleft().wait())
        waiting.append(server.publish_with_ack(topic, flight))
        tally.sent += 1
    for ack in waiting:
        tally.settle(await ack.wait())


async def hear_the_news(server):
    news = await server.subscribe("news")
    await server.publish("demo.replayed", None)
    return (await anext(news)).data


async def show_progress(tally, total):
    if not sys.stderr.isatty():
        return
    began = time.perf_counter()
    while True:
        rate = tally.sent / (time.perf_counter() - began)
        print(
            f"\r{tally.sent:>10,} of {total:,} sent   {tally.acknowledged:>10,} acknowledged   {rate:>8,.0f}/s ",
            end="",
            file=sys.stderr,
            flush=True,
        )
        await asyncio.sleep(0.1)


def summarize(tally, seconds, flights, received, news):
    latencies = sorted(tally.latencies)
    return {
        "topics": len({topic for topic, _ in flights}),
        "sent": tally.sent,
        "received": received,
        "acknowledged": tally.acknowledged,
        "acknowledged_by": dict(tally.by),
        "lost": tally.sent - tally.acknowledged,
        "late": tally.late,
        "seconds": seconds,
        "rate": tally.sent / seconds,
        "ack_p50_ms": latencies[len(latencies) // 2] * 1e3,
        "ack_p99_ms": latencies[len(latencies) * 99 // 100] * 1e3,
        **news,
    }


def print_summary(figures, tally):
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(f"  {'':16}{'received':>12}{'acknowledged':>15}")
    for name, count in figures["received"].items():
        print(f"  {name + ' (Node)':16}{count:>12,}{tally.by[name]:>15,}")
    print(
        f"\n  sent {figures['sent']:,} on {figures['topics']} topics · acknowledged {figures['acknowledged']:,} · "
        f"lost {figures['lost']:,}\n"
        f"  {figures['seconds']:.1f} s: {figures['rate']:,.0f} messages/s, each answered by {RECIPIENTS} · "
        f"ack p50 {figures['ack_p50_ms']:.1f} ms, p99 {figures['ack_p99_ms']:.1f} ms with {IN_FLIGHT:,} in flight\n"
        f"  {figures['late']:,} left more than an hour late, say the desks in their acks\n\n"
        f"  {'the ten worst routes':20}{'flights':>10}{'mean delay':>14}"
    )
    for route in figures["worst"]:
        print(f"  {route['route']:20}{route['flights']:>10,}{route['mean']:>10.1f} min")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
