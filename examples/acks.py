"""Who received it, and what came of it: one row for each client that was subscribed."""

import asyncio
import sys

import kps


def refuse(message):
    raise ValueError(f"no shelf for {message.data['item']}")


async def main():
    url = sys.argv[1:]
    async with (
        await kps.connect(*url, id="shop") as shop,
        await kps.connect(*url, id="warehouse") as warehouse,
        await kps.connect(*url, id="archive") as archive,
    ):
        await warehouse.subscribe("orders.>", lambda message: {"shelf": 12})
        await archive.subscribe("orders.>", refuse)
        ack = shop.publish_with_ack("orders.new", {"item": "lamp"}, timeout=5)
        rows = await ack.wait()
        for client_id, row in sorted(rows.items()):
            print(client_id, row.status, row.data["shelf"] if row.success else row.error.text)
        print("everybody answered" if ack.is_complete() else "somebody did not answer")


asyncio.run(main())
