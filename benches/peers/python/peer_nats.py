"""nats-py: a callback, `orjson`, one `flush` at the end; the client batches writes by itself."""

import nats
import orjson
from payload import PAYLOAD


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
