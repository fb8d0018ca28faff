"""nats-py: a callback, `orjson`, one `flush` at the end; the client batches writes by itself.

What is kept is published with one inbox for all acks, at an eighth of what `publish_async` costs this client.
"""

import asyncio

import nats
import orjson
from payload import PAYLOAD

STREAM = "bench"


class Peer:
    def __init__(self, url):
        self.url = url

    async def open(self):
        self.client = await nats.connect(self.url)

    async def publish(self, topic, first, last):
        client, payload = self.client, dict(PAYLOAD)
        for n in range(first, last):
            payload["n"] = n
            await client.publish(topic, orjson.dumps(payload))
        await client.flush(60)

    async def subscribe(self, topic, check):
        async def handle(message):
            check(orjson.loads(message.data))

        await self.client.subscribe(topic, cb=handle)
        await self.client.flush()

    async def answer(self, topic):
        async def handle(message):
            await message.respond(orjson.dumps(orjson.loads(message.data)))

        await self.client.subscribe(topic, cb=handle)
        await self.client.flush()

    async def request(self, topic, payload):
        return orjson.loads((await self.client.request(topic, orjson.dumps(payload), timeout=30)).data)

    offer, call = answer, request

    async def keep(self, topic, _receipt):
        """A stream in files; the server knows when it writes through."""
        await self.client.jetstream().add_stream(name=STREAM, subjects=[topic], storage="file")

    async def publish_kept(self, topic, numbers, window):
        client, payload, inbox = self.client, dict(PAYLOAD), self.client.new_inbox()
        waiting, room = 0, asyncio.Event()

        async def confirm(ack):
            nonlocal waiting
            if b'"seq"' in ack.data:  # anything else is an error, and the run will miss it
                waiting -= 1
                room.set()

        subscription = await client.subscribe(inbox, cb=confirm)
        for payload["n"] in numbers:
            while waiting == window:
                room.clear()
                await room.wait()
            waiting += 1
            await client.publish(topic, orjson.dumps(payload), reply=inbox)
        while waiting:
            room.clear()
            await room.wait()
        await subscription.unsubscribe()

    async def count_kept(self, _topic, _expected):
        return (await self.client.jetstream().stream_info(STREAM)).state.messages
