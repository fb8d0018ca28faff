"""A Python program that does what lines of JSON on its input say; see ../agents.py."""

import asyncio
import json
import sys

import kps


async def main(url, name):
    client = await kps.connect(url, id=name)

    async def subscribe(topic, answer):
        def handle(message):
            say(event="message", topic=message.topic, data=message.data, sender=message.sender)
            return answer

        await client.subscribe(topic, handle)

    async def publish(topic, data):
        await client.publish(topic, data, receipt="accepted")

    async def ack(topic, data):
        rows = await client.publish_with_ack(topic, data, timeout=10).wait()
        return {who: {"success": row.success, "data": row.data} for who, row in rows.items()}

    async def request(topic, data):
        return await client.request(topic, data, timeout=10)

    async def direct(to, data):
        await client.publish_to_id(to, data)

    async def hear():
        client.on("message_to_id", lambda message: say(event="direct", data=message.data))

    does = {"subscribe": subscribe, "publish": publish, "ack": ack, "request": request, "direct": direct, "hear": hear}
    say(ready=True)
    async for command in lines():
        say(result=await does[command.pop("do")](**command))
    await client.close()


def say(**line):
    print(json.dumps(line), flush=True)


async def lines():
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        yield json.loads(line)


asyncio.run(main(*sys.argv[1:]))
