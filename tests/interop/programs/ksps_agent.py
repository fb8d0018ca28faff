"""The existing KPS client doing what lines of JSON on its input say; see ../agents.py.

It is used as its own documentation shows. What it waits for goes by events on the wire, which it hands to OnDataWs.
"""

import asyncio
import json
import sys
from urllib.parse import urlsplit

from ksps import Client


async def main(url, name):
    seen = {action: asyncio.Queue() for action in ("pong", "subscribed", "published")}

    async def on_data(frame, _conn):
        if frame["action"] in seen:
            seen[frame["action"]].put_nowait(frame)

    async def on_id(data, _subscriber):
        # Version 1.0.0 hands the server's pong to this handler too.
        if data.get("action") != "pong":
            say(event="direct", data=data["data"])

    client = await Client.NewClient(Id=name, Address=urlsplit(url).netloc, OnDataWs=on_data, OnId=on_id)
    await seen["pong"].get()

    async def subscribe(topic, answer):
        async def handle(data, _unsubscribe):
            say(event="message", topic=topic, data=data, sender=None)

        await client.Subscribe(topic, handle)
        await seen["subscribed"].get()

    async def publish(topic, data):
        await client.Publish(topic, data)
        await seen["published"].get()

    async def ack(topic, data):
        rows = await (await client.PublishWithAck(topic, data, 10.0)).Wait()
        return {who: {"success": row["success"], "data": None} for who, row in rows.items()}

    async def direct(to, data):
        await client.PublishToID(to, data)

    async def hear():
        pass

    does = {"subscribe": subscribe, "publish": publish, "ack": ack, "direct": direct, "hear": hear}
    say(ready=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        say(result=await does[command.pop("do")](**command))
    await client.Close()


def say(**line):
    print(json.dumps(line), flush=True)


asyncio.run(main(*sys.argv[1:]))
