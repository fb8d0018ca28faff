"""kps: a handler that reads `message.data`; now and then a receipt is awaited, for back-pressure."""

import asyncio
import collections
import contextlib

from payload import PAYLOAD

import kps


class Echo:
    def echo(self, payload):
        return payload


class Peer:
    def __init__(self, url):
        self.url = url

    async def open(self):
        self.client = await kps.connect(self.url)

    async def publish(self, topic, first, last):
        publish, payload = self.client.publish, dict(PAYLOAD)
        for n in range(first, last):
            payload["n"] = n
            receipt = publish(topic, payload)
            if n % 256 == 0:
                await receipt
        await self.client.flush()

    async def subscribe(self, topic, check, start="new"):
        def handle(message):
            check(message.data)

        await self.client.subscribe(topic, handle, start=start)

    async def answer(self, topic):
        await self.client.subscribe(topic, lambda message: message.data)

    async def request(self, topic, payload):
        (row,) = (await self.client.publish_with_ack(topic, payload).wait()).values()
        return row.data

    async def offer(self, name):
        await self.client.register(name, Echo(), shared=True)

    async def call(self, name, payload):
        return (await self.client.dispatch(f"{name}.echo", payload)).unwrap()

    async def keep(self, _topic, receipt):
        """The server keeps the topic; `receipt` is what is waited for."""
        self.receipt = receipt

    async def publish_kept(self, topic, numbers, window):
        publish, payload, receipt = self.client.publish, dict(PAYLOAD), self.receipt
        waiting = collections.deque()
        for payload["n"] in numbers:
            if len(waiting) == window:
                await waiting.popleft()
            waiting.append(publish(topic, payload, receipt=receipt))
        for each in waiting:
            await each

    async def count_kept(self, topic, expected):
        count, done = 0, asyncio.Event()

        def handle(_):
            nonlocal count
            count += 1
            if count == expected:
                done.set()

        await self.client.subscribe(topic, handle, start="all")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(done.wait(), 30)
        return count
