"""What may be published, and how it arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

import kps
from local_server import pair


class Text(str): ...


@pytest.mark.parametrize(
    ("data", "raw", "content_type", "arrives"),
    [
        (b"\x00\xff", b"\x00\xff", "bytes", b"\x00\xff"),
        (bytearray(b"ab"), b"ab", "bytes", b"ab"),
        (memoryview(b"abcd")[::2], b"ac", "bytes", b"ac"),
        (b"", b"", "bytes", b""),
        ("grüße", "grüße".encode(), "text", "grüße"),
        ("", b"", "text", ""),
        (Text("x"), b'"x"', "json", "x"),
        (None, b"null", "json", None),
        (1 << 63, b"9223372036854775808", "json", 1 << 63),
        ({"a": (1, 2.5)}, b'{"a":[1,2.5]}', "json", {"a": [1, 2.5]}),
        (float("nan"), b"null", "json", None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_payloads(data: Any, raw: bytes, content_type: str, arrives: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            subscription = await client.subscribe("t")
            server.publish("t", data)
            message = await anext(subscription)
            assert (message.raw, message.content_type, message.data) == (raw, content_type, arrives)
            if content_type == "json":
                assert raw == orjson.dumps(data)

    asyncio.run(main())


def test_what_cannot_be_encoded_is_a_type_error_and_queues_nothing() -> None:
    async def main() -> None:
        async with pair() as (_, client):
            before = client.ledger()["published"]
            for data in ({1, 2}, object(), "\ud800", {1: 2}, 1 << 64, [b"x"]):
                for publish in (client.publish, client.publish_to_id, client.publish_with_ack):
                    with pytest.raises(TypeError, match=r"^data"):
                        publish("t", data)
                with pytest.raises(TypeError, match=r"^data"):
                    await client.request("t", data)
            assert client.ledger()["published"] == before

    asyncio.run(main())


def test_payloads_over_the_limit_are_refused_with_the_limit() -> None:
    async def main() -> None:
        async with pair(max_payload=1000) as (_, client):
            with pytest.raises(kps.PayloadTooLargeError, match="1000"):
                client.publish("t", b"x" * 1001)
            await client.publish("t", b"x" * 1000, receipt="accepted")

    asyncio.run(main())


def test_a_payload_that_is_no_json_raises_when_it_is_read_and_raw_still_works() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            from websockets.asyncio.client import connect

            subscription = await client.subscribe("t")
            async with connect(f"ws://{server.address}/ws/bus") as socket:
                await socket.send('{"action":"ping","from":"old"}')
                await socket.recv()
                await socket.send('{"action":"publish","topic":"t","data":1e999}')
                message = await anext(subscription)
            assert message.raw == b"1e999"
            with pytest.raises(kps.InvalidPayloadError, match="raw"):
                print(message.data)

    asyncio.run(main())
