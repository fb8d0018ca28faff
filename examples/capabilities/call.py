"""Calls a capability, and a task, that a program in another language offers, as if they were here."""

import asyncio
import sys

import kps


async def main():
    client = await kps.connect(sys.argv[1])
    counted = await client.dispatch("text.count", {"text": "to be or not to be"}, retry=3, timeout=10)
    print("words:", counted.unwrap()["words"])
    print("30! =", (await client.dispatch("text.factorial", {"n": 30})).data)
    failed = await client.dispatch("text.shout", {"text": "hey"})
    print("failed:", failed.error.code, failed.error.message)
    print("unknown:", (await client.dispatch("text.whisper")).error.code)
    asked = {"task": "steps", "items": [6, 7, 27]}
    mapped = await client.dispatch("compute.map", asked, target="any", timeout=10)
    print("steps:", *mapped.unwrap()["results"])
    await client.close()


asyncio.run(main())
