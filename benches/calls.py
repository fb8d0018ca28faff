"""What one call costs the event loop's thread, in µs: `.venv/bin/python benches/calls.py`; calls.mjs is its twin.

The broker is another process, the loop is uvloop when that is installed. Medians of many batches.
"""

import asyncio
import json
import pathlib
import statistics
import sys
import threading
import time

from processes import Broker, program

import kps

sys.path.append(str(pathlib.Path(__file__).parent / "peers/python"))
from payload import PAYLOAD

BATCHES, BATCH = 200, 256
RAW = json.dumps(PAYLOAD, separators=(",", ":")).encode()


async def main(url):
    client = await kps.connect(url)
    start_answering(url)
    costs = {
        "publish a dict": await publish(client, PAYLOAD),
        "publish bytes": await publish(client, RAW),
        "hand a message to a handler": await deliver(client, lambda message: None),
        "the same, reading message.data": await deliver(client, lambda message: message.data),
        "publish_with_ack and wait": await ack(client),
        "resolve and await a bare future": await future(),
    }
    costs["an ack beyond publish and future"] = (
        costs["publish_with_ack and wait"] - costs["publish a dict"] - costs["resolve and await a bare future"]
    )
    for name, seconds in costs.items():
        print(f"{name:34}{seconds * 1e6:8.2f} µs{1 / seconds:14,.0f} /s")


async def batches(run):
    """Median of the thread's CPU seconds for one of BATCH calls."""
    return statistics.median([await run() for _ in range(BATCHES)]) / BATCH


async def publish(client, data):
    async def run():
        start = time.thread_time()
        for _ in range(BATCH):
            client.publish("nobody", data)
        took = time.thread_time() - start
        await client.flush()
        return took

    return await batches(run)


async def deliver(client, handler):
    arrived = asyncio.Event()
    left = 0

    def handle(message):
        nonlocal left
        handler(message)
        left -= 1
        if not left:
            arrived.set()

    subscription = await client.subscribe("calls", handle)

    async def run():
        nonlocal left
        left = BATCH
        arrived.clear()
        for _ in range(BATCH):
            client.publish("calls", PAYLOAD)
        start = time.thread_time()  # handlers cannot run before the loop gets its turn
        await arrived.wait()
        return time.thread_time() - start

    cost = await batches(run)
    await subscription.unsubscribe()
    return cost


def start_answering(url):
    """Another client answers on another thread's loop, whose CPU is not counted."""
    ready = threading.Event()

    async def answer():
        client = await kps.connect(url)
        await client.subscribe("acks", lambda message: None)
        ready.set()
        await asyncio.Event().wait()

    threading.Thread(target=asyncio.run, args=[answer()], daemon=True).start()
    ready.wait()


async def ack(client):
    async def run():
        start = time.thread_time()
        for waiting in [client.publish_with_ack("acks", PAYLOAD) for _ in range(BATCH)]:
            assert len(await waiting.wait()) == 1
        return time.thread_time() - start

    return await batches(run)


async def future():
    loop = asyncio.get_running_loop()

    async def run():
        start = time.thread_time()
        futures = [loop.create_future() for _ in range(BATCH)]
        for each in futures:
            loop.call_soon(each.set_result, None)
        for each in futures:
            await each
        return time.thread_time() - start

    return await batches(run)


if __name__ == "__main__":
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    broker = Broker("ws", lambda port: [program("kps", sys.executable), "serve", "--listen", f"127.0.0.1:{port}"])
    with broker.running():
        run(main(broker.url))
