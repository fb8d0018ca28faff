"""Offers a capability, and a task in worker processes, that a Node program (call.mjs) calls."""

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


def steps(n):
    """How many steps of 3n + 1 lead to 1."""
    count = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        count += 1
    return count


async def main():
    client = await kps.connect(sys.argv[1])
    await client.register("text", Text, shared=True)
    await client.register_task("steps", steps, isolated=True, shared=True)
    caller = pathlib.Path(__file__).with_name("call.mjs")
    process = await asyncio.create_subprocess_exec("node", caller, sys.argv[1])
    await process.wait()
    await client.close()


# Workers import this file, too.
if __name__ == "__main__":
    asyncio.run(main())
