"""Orders that must not get lost: kept by the broker, handed to a packer until it acks, found again by a late reader."""

import asyncio
import tempfile

import kps


async def main():
    with tempfile.TemporaryDirectory() as folder:
        async with kps.Server("127.0.0.1:0", history=["orders.>"], data=folder) as server:
            shop = await kps.connect(server.url)
            for number, item in enumerate(["tea", "milk", "sugar"]):
                level = await shop.publish("orders.new", {"item": item}, id=f"order-{number}", receipt="stored")
                print("order", number, "is", level)
            await shop.publish("orders.new", {"item": "tea"}, id="order-0", receipt="stored")
            print("sent again, kept once")

            packed = asyncio.Queue()

            async def pack(message):
                if message.data["item"] == "milk" and message.attempt == 1:
                    raise RuntimeError("out of milk")
                await packed.put(f"packed {message.data['item']}, attempt {message.attempt}")

            packer = await kps.connect(server.url)
            await packer.subscribe("orders.>", pack, durable="packing", start="all", retry_delay=0.05)
            for _ in range(3):
                print(await packed.get())
            await packer.close()

            late = await shop.subscribe("orders.>", start="all")
            items = [(await anext(late)).data["item"] for _ in range(3)]
            print("a late reader finds", *items)
            await shop.close()


asyncio.run(main())
