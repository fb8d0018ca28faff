"""A service answers requests; without one, asking fails at once."""

import asyncio
import sys

import kps


def divide(message):
    return {"quotient": message.data["a"] / message.data["b"]}


async def main():
    async with await kps.connect(*sys.argv[1:]) as service, await kps.connect(*sys.argv[1:]) as client:
        await service.subscribe("math.divide", divide)
        answer = await client.request("math.divide", {"a": 7, "b": 2})
        print("7 / 2 =", answer["quotient"])
        try:
            await client.request("math.multiply", {"a": 7, "b": 2})
        except kps.NoRespondersError as error:
            print("math.multiply:", error.code)


asyncio.run(main())
