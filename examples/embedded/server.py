"""The broker inside this program; a Node program (client.mjs) asks it and is heard by it."""

import asyncio
import pathlib

import kps


async def main():
    async with kps.Server("127.0.0.1:0") as server:
        await server.subscribe("weather.request", lambda message: {"celsius": 21, "place": message.data["place"]})
        reports = await server.subscribe("report")
        client = pathlib.Path(__file__).with_name("client.mjs")
        process = await asyncio.create_subprocess_exec("node", client, f"ws://{server.address}")
        report = await anext(reports)
        print(f"{report.sender} says: {report.data}")
        print("clients:", server.count_clients())
        report.respond("thank you")
        await process.wait()


asyncio.run(main())
