"""`outbox.py kps ROLE URL OPTIONS`: a backlog on disk, its way to the broker, and live messages meanwhile."""

import asyncio
import json
import sys
import time

import uvloop
from payload import PAYLOAD
from worker import say, told

import kps

PACE = 0.001  # seconds between two live messages


async def fill(_url, options):
    """Publishes to nobody, and ends when everything is on disk."""
    client = await kps.connect("ws://127.0.0.1:1", wait=False, outbox=options["path"])
    for n in range(options["count"]):
        receipt = client.publish(options["topic"], {**PAYLOAD, "n": n}, receipt="queued_on_disk")
    await receipt
    say("kept", count=(await client.close(0)).kept)
    await told()


async def drain(url, options):
    """Opens the same file, and ends when the broker has everything."""
    flushed = asyncio.get_running_loop().create_future()
    say("ready")
    await told()
    say("start")
    client = await kps.connect(url, wait=False, outbox=options["path"])
    client.on("outbox_flushed", flushed.set_result)
    say("end", count=await flushed)
    await client.close()


async def live(url, options):
    """A message each millisecond; tells when each was published and how long it took to come back."""
    client = await kps.connect(url)
    samples = []

    def handle(message):
        sent = message.data["at"]
        samples.append((sent, time.monotonic() - sent))

    await client.subscribe(options["topic"], handle)

    async def publish():
        while True:
            client.publish(options["topic"], {**PAYLOAD, "at": time.monotonic()})
            await asyncio.sleep(PACE)

    publishing = asyncio.create_task(publish())
    say("ready")
    await told()
    publishing.cancel()
    say("end", samples=samples)


def main():
    _, role, url, options = sys.argv[1:]
    uvloop.run({each.__name__: each for each in (fill, drain, live)}[role](url, json.loads(options)))


main()
