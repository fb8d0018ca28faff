"""Offers a capability that a Node program (call.mjs) calls."""

import asyncio
import pathlib
import sys

import kps


class Text:
    """Works on words."""

    def count(self, payload):
        """Counts words."""
        return {"words": len(payload["text"].split())}

    async def factorial(self, payload):
        """An exact integer, however large."""
        product = 1
        for n in range(2, payload["n"] + 1):
            product *= n
        return product

    def shout(self, payload):
        raise ValueError("too loud")


async def main():
    client = await kps.connect(sys.argv[1])
    await client.register("text", Text, shared=True)
    caller = pathlib.Path(__file__).with_name("call.mjs")
    process = await asyncio.create_subprocess_exec("node", caller, sys.argv[1])
    await process.wait()
    await client.close()


asyncio.run(main())
