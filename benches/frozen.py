"""What a frozen subscriber costs: `.venv/bin/python benches/frozen.py`.

First it is stopped for 3 s while 100,000 messages are published and must lose none. Then it is
stopped for good, once under each overflow policy, beside a healthy subscriber whose rate is
compared with a run without the frozen one. What the frozen one missed must be what its gaps say.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time

from processes import Broker, Worker, program

import kps

MESSAGES = 100_000
CAPACITY = 1_000
PAIRS = 3  # runs with and without the frozen subscriber; their median ratio counts
PAYLOAD = {"sensor": "house-17", "zone": "bed-3", "at": 1763690000, "celsius": 21.375, "humidity": 0.625}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscriber", nargs=2, metavar=("URL", "OPTIONS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.subscriber:
        url, options = arguments.subscriber
        asyncio.run(subscriber(url, json.loads(options)))
        return
    serve = Broker("ws", lambda port: [program("kps", sys.executable), "serve", "--listen", f"127.0.0.1:{port}"])
    with serve.running():
        lost = asyncio.run(thawed_in_time(serve.url))
    print(f"stopped for 3 s while {MESSAGES:,} were published: {lost:,} lost")
    unexplained = [
        freeze_for_good(serve, policy) for policy in ("drop_oldest", "drop_newest", "latest", "disconnect", "block")
    ]
    sys.exit(1 if lost or any(unexplained) else 0)


async def subscriber(url, options):
    """Counts messages and what gaps report, until both make up all messages or the subscription ends."""
    client = await kps.connect(url)
    received = missed = 0
    reason = "all accounted for"
    subscription = await client.subscribe("frozen", **options)
    print(json.dumps({"event": "ready"}), flush=True)
    try:
        async for message in subscription:
            if isinstance(message, kps.Gap):
                missed += message.count or 0
            else:
                received += 1
            if received + missed == MESSAGES:
                break
        else:
            reason = "subscription ended"
    except kps.KpsError as error:
        reason = error.code
    values = {"at": time.monotonic(), "received": received, "missed": missed, "reason": reason}
    print(json.dumps({"event": "end", **values}), flush=True)
    sys.stdin.readline()


def start(url, **options):
    worker = Worker([sys.executable, __file__, "--subscriber", url, json.dumps(options)])
    worker.wait("ready")
    return worker


async def publish(url):
    """Publishes all messages and gives the time when it began."""
    client = await kps.connect(url)
    began = time.monotonic()
    for n in range(MESSAGES):
        receipt = client.publish("frozen", {**PAYLOAD, "n": n})
        if n % 256 == 0:
            await receipt
    await client.flush()
    await client.close()
    return began


async def thawed_in_time(url):
    with start(url) as frozen:
        os.kill(frozen.pid, signal.SIGSTOP)
        thaw = asyncio.get_running_loop().call_later(3, os.kill, frozen.pid, signal.SIGCONT)
        await publish(url)
        await asyncio.sleep(max(0, thaw.when() - asyncio.get_running_loop().time()) + 0.1)
        return MESSAGES - (await asyncio.to_thread(frozen.wait, "end"))["received"]


def freeze_for_good(serve, policy):
    """Prints one line; true if a message neither arrived nor was reported."""
    ratios = []
    for _ in range(1 if policy == "block" else PAIRS):
        alone = paired_rate(serve)[0]
        beside, end = paired_rate(serve, {"overflow": policy, "capacity": CAPACITY})
        ratios.append(beside / alone)
    print(
        f"frozen under {policy:12} healthy subscriber at {statistics.median(ratios):.2f} × its rate alone; "
        f"when thawed: {end['received']:,} received, gaps report {end['missed']:,}, {end['reason']}"
    )
    ends = {"block": "slow_consumer", "disconnect": "slow_consumer"}
    return end["reason"] != ends.get(policy, "all accounted for")


def paired_rate(serve, frozen_options=None):
    """A healthy subscriber's rate, and what the frozen one beside it saw after all."""
    with serve.running(), start(serve.url) as healthy:
        if not frozen_options:
            return rate(serve, healthy), None
        with start(serve.url, **frozen_options) as frozen:
            os.kill(frozen.pid, signal.SIGSTOP)
            measured = rate(serve, healthy)
            os.kill(frozen.pid, signal.SIGCONT)
            return measured, frozen.wait("end")


def rate(serve, healthy):
    began = asyncio.run(publish(serve.url))
    return MESSAGES / (healthy.wait("end")["at"] - began)


if __name__ == "__main__":
    main()
