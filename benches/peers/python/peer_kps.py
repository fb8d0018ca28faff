"""kps: a handler that reads `message.data`; now and then a receipt is awaited, for back-pressure."""

from payload import PAYLOAD

import kps


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

    async def subscribe(self, topic, check):
        def handle(message):
            check(message.data)

        await self.client.subscribe(topic, handle)

    async def answer(self, topic):
        await self.client.subscribe(topic, lambda message: message.data)

    async def request(self, topic, payload):
        (row,) = (await self.client.publish_with_ack(topic, payload).wait()).values()
        return row.data
