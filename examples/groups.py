"""Members of a group share the messages: each goes to one of them."""

import asyncio
import sys

import kps


async def main():
    url = sys.argv[1:]
    async with (
        await kps.connect(*url) as boss,
        await kps.connect(*url) as first,
        await kps.connect(*url) as second,
    ):
        for worker in (first, second):
            await worker.subscribe("jobs", lambda message: message.data * message.data, group="workers")
        done = []
        for number in range(1, 7):
            (row,) = (await boss.publish_with_ack("jobs", number).wait()).values()
            done.append(row)
        print("squares:", *(row.data for row in done))
        print("workers:", len({row.client_id for row in done}))


asyncio.run(main())
