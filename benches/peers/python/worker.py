"""One process of a benchmark: `worker.py PEER ROLE URL OPTIONS`, driven by lines on stdin.

Everything that must be the same for every peer is here: payload, counting, clocks. What differs
is in `peer_PEER.py`, each client used the way its own documentation shows.
"""

import asyncio
import importlib
import json
import resource
import sys
import time

import uvloop
from payload import FIRST, PAYLOAD


def cpu_seconds():
    """CPU that all threads of this process have used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def say(event, **values):
    print(json.dumps({"event": event, "at": time.monotonic(), "cpu": cpu_seconds(), **values}), flush=True)


def middle(ordered):
    """The median of what is in order."""
    return ordered[len(ordered) // 2]


async def told():
    """Waits for the runner's next line."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def checker(marks, reached):
    """A function for every decoded payload: insists on 1, 2, 3, … and calls `reached` at each mark."""
    expected = FIRST
    marks = [FIRST + mark - 1 for mark in marks]
    mark = marks.pop(0)

    def check(data):
        nonlocal expected, mark
        n = data["n"]
        if n != expected:
            say("broken", expected=expected - FIRST, got=n - FIRST)
            expected = n
        expected += 1
        if n == mark:
            mark = marks.pop(0) if marks else None
            reached()

    return check


async def publish(peer, options):
    """Sends the warm-up, then the measured messages."""
    topic = options["topic"]
    await peer.open()
    say("ready")
    await told()
    await peer.publish(topic, FIRST, FIRST + options["warmup"])
    say("warm")
    await told()
    say("start")
    await peer.publish(topic, FIRST + options["warmup"], FIRST + options["warmup"] + options["count"])
    await told()
    say("end")


async def subscribe(peer, options):
    """Counts on `connections` connections; speaks when all of them are warm, and when all are done."""
    loop = asyncio.get_running_loop()
    waiting = {"warm": options["connections"], "end": options["connections"]}
    done = asyncio.Event()

    def reached(stage):
        waiting[stage] -= 1
        if waiting[stage] == 0:
            say(stage)
            if stage == "end":
                loop.call_soon_threadsafe(done.set)

    peers = [peer] + [type(peer)(peer.url) for _ in range(options["connections"] - 1)]
    for each in peers:
        stages = iter(("warm", "end"))
        await each.open()
        marks = [options["warmup"], options["warmup"] + options["count"]]
        how = {"start": options["start"]} if "start" in options else {}
        await each.subscribe(options["topic"], checker(marks, lambda stages=stages: reached(next(stages))), **how)
    say("ready")
    await done.wait()
    await told()


async def load(peer, options):
    """Publishes at a steady pace until told to end."""
    await peer.open()
    say("ready")
    ended = asyncio.ensure_future(told())
    first, pause = FIRST, options["batch"] / options["rate"]
    while not ended.done():
        due = time.perf_counter() + pause
        await peer.publish(options["topic"], first, first + options["batch"])
        first += options["batch"]
        await asyncio.sleep(due - time.perf_counter())
    say("end", count=first - FIRST)


class Numbers:
    """Numbers of messages, until the time is up."""

    def __init__(self, first, seconds):
        self.next, self.until = first, time.perf_counter() + seconds

    def __iter__(self):
        while some := self.take(50):
            yield from some

    def take(self, count):
        """The next `count`; none when the time is up."""
        if time.perf_counter() >= self.until:
            return range(0)
        self.next += count
        return range(self.next - count, self.next)


async def publish_kept(peer, options):
    """Publishes for some seconds and waits until every message is confirmed, as the topic promises."""
    topic, window = options["topic"], options["window"]
    await peer.open()
    await peer.keep(topic, options["receipt"])
    await peer.publish_kept(topic, warmup := Numbers(FIRST, options["seconds"] / 5), window)
    say("start")
    await peer.publish_kept(topic, measured := Numbers(warmup.next, options["seconds"]), window)
    say("end", count=measured.next - warmup.next)
    say("kept", expected=(expected := measured.next - FIRST), count=await peer.count_kept(topic, expected))
    await told()


async def answer(peer, _options):
    await peer.open()
    await peer.answer("bench")
    say("ready")
    await told()


async def request(peer, options):
    """One request at a time, then 64 at once."""
    await ask_all(peer, peer.request, options, 64)


async def offer(peer, _options):
    await peer.open()
    await peer.offer("bench")
    say("ready")
    await told()


async def call(peer, options):
    """One call at a time, then many at once."""
    await ask_all(peer, peer.call, options, options["together"])


async def ask_all(peer, request, options, together):
    await peer.open()
    say("ready")
    await told()

    async def ask(n):
        payload = {**PAYLOAD, "n": n}
        assert (await request("bench", payload))["n"] == n, "an answer went to the wrong request"

    async def worker(numbers, took):
        for n in numbers:
            start = time.perf_counter()
            await ask(n)
            took.append(time.perf_counter() - start)

    async def volley(count):
        numbers, took = iter(range(count)), []
        await asyncio.gather(*(worker(numbers, took) for _ in range(together)))
        return sorted(took)

    await volley(options["warmup"])
    latencies = []
    for n in range(options["alone"]):
        start = time.perf_counter()
        await ask(n)
        latencies.append(time.perf_counter() - start)
    latencies.sort()
    start, cpu = time.perf_counter(), cpu_seconds()
    volley_latencies = await volley(options["count"])
    took = time.perf_counter() - start
    say(
        "end",
        p50=middle(latencies),
        p99=latencies[len(latencies) * 99 // 100],
        together_p50=middle(volley_latencies),
        together_p99=volley_latencies[len(volley_latencies) * 99 // 100],
        rate=options["count"] / took,
        cpu_each=(cpu_seconds() - cpu) / options["count"],
    )
    await told()


async def idle(peer, options):
    """Holds connections that do nothing."""
    peers = [peer] + [type(peer)(peer.url) for _ in range(options["connections"] - 1)]
    say("begin")
    for each in peers:
        await each.open()
        await each.subscribe(f"idle.{id(each)}", lambda _: None)
    say("ready")
    await told()


def main():
    name, role, url, options = sys.argv[1:]
    peer = importlib.import_module(f"peer_{name}").Peer(url)
    roles = (publish, publish_kept, load, subscribe, answer, request, offer, call, idle)
    uvloop.run({each.__name__: each for each in roles}[role](peer, json.loads(options)))


if __name__ == "__main__":
    main()
