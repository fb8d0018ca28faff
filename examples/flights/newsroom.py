"""When the year is over, asks the Node service for the worst routes and spreads the news."""

import asyncio
import sys

import kps


async def main():
    async with await kps.connect(sys.argv[1], id="newsroom") as client:
        year_over = await client.subscribe("demo.replayed")
        client.publish("demo.ready", client.id)
        await anext(year_over)
        worst = await client.request("delays.worst", {"routes": 10, "landed": 300})
        totals = await client.request("delays.totals", None)
        await client.publish("news", {"worst": worst, **totals}, receipt="accepted")


asyncio.run(main())
