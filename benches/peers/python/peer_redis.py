"""redis-py: streams; four pipelines take turns, so that one is encoded while the server works on others."""

import asyncio

import orjson
import redis.asyncio
from payload import PAYLOAD

PIPELINES = 4


class Peer:
    def __init__(self, url):
        self.url = url

    async def open(self):
        self.client = redis.asyncio.from_url(self.url)
        await self.client.ping()

    async def keep(self, _topic, _receipt):
        """XADD makes the stream; the server knows what its answers mean."""

    async def publish_kept(self, topic, numbers, window):
        payload = dict(PAYLOAD)

        async def publish():
            while True:
                pipeline = self.client.pipeline(transaction=False)
                for payload["n"] in numbers.take(window // PIPELINES):
                    pipeline.xadd(topic, {"data": orjson.dumps(payload)})
                if not len(pipeline):
                    return
                await pipeline.execute()

        await asyncio.gather(*(publish() for _ in range(PIPELINES)))

    async def count_kept(self, topic, _expected):
        return await self.client.xlen(topic)
