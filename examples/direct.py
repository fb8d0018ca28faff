"""A message to one client by its id; what its handler returns is the answer."""

import asyncio
import sys

import kps


def hear(message):
    print(f"bob hears: {message.data}, from {message.sender}")
    return "I am"


async def main():
    url = sys.argv[1:]
    async with await kps.connect(*url, id="ada") as ada, await kps.connect(*url, id="bob") as bob:
        bob.on("message_to_id", hear)
        ada.publish_to_id("bob", "good morning")
        rows = await ada.publish_to_id_with_ack("bob", "are you there?", timeout=5).wait()
        print(f"ada hears: {rows['bob'].data}, from bob")


asyncio.run(main())
