"""Publish and subscribe."""

import asyncio
import sys

import kps


async def main():
    async with await kps.connect(*sys.argv[1:]) as client:
        greetings = await client.subscribe("greetings.*")
        client.publish("greetings.english", {"text": "Hello, world"})
        client.publish("greetings.french", {"text": "Bonjour, le monde"})
        async for message in greetings:
            print(message.topic, message.data["text"])
            if message.topic == "greetings.french":
                break


asyncio.run(main())
