"""zenoh without a router: the publisher listens, the subscriber connects; `BLOCK`, so that nothing is dropped."""

import asyncio

import orjson
import zenoh
from payload import PAYLOAD


class Peer:
    def __init__(self, url):
        self.url = url

    async def open(self):
        config = zenoh.Config()
        config.insert_json5("scouting/multicast/enabled", "false")
        key = "listen/endpoints" if self.url.startswith("listen:") else "connect/endpoints"
        config.insert_json5(key, f'["{self.url.removeprefix("listen:")}"]')
        self.session = await asyncio.to_thread(zenoh.open, config)

    async def publish(self, topic, first, last):
        publisher = self.session.declare_publisher(topic, congestion_control=zenoh.CongestionControl.BLOCK)
        while not publisher.matching_status.matching:
            await asyncio.sleep(0.01)
        put, payload = publisher.put, dict(PAYLOAD)
        for n in range(first, last):
            payload["n"] = n
            put(orjson.dumps(payload))

    async def subscribe(self, topic, check):
        def handle(sample):
            check(orjson.loads(bytes(sample.payload)))

        self.subscriber = self.session.declare_subscriber(topic, handle)
