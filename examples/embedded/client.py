"""Asks the program that embeds the broker, and tells it what it heard."""

import asyncio
import sys

import kps


async def main():
    async with await kps.connect(sys.argv[1], id="visitor") as client:
        weather = await client.request("weather.request", {"place": "Lyon"})
        text = f"{weather['celsius']} °C in {weather['place']}"
        rows = await client.publish_with_ack("report", text).wait()
        print("visitor hears:", *(row.data for row in rows.values()), flush=True)


asyncio.run(main())
