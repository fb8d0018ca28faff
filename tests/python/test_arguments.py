"""A wrong type is a TypeError that names the argument; a wrong value an error with a code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import kps
from local_server import pair


def test_wrong_types_name_the_argument() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            wrong: list[tuple[str, Any]] = [
                ("topic", lambda: client.publish(1, 1)),
                ("topic", lambda: client.publish(None, 1)),
                ("topic", lambda: client.subscribe(b"t")),
                ("topic", lambda: client.unsubscribe(1)),
                ("topic", lambda: client.request(1, 1)),
                ("topic", lambda: server.count_subscribers(1)),
                ("headers", lambda: client.publish("t", 1, headers=[("a", "b")])),
                ("header", lambda: client.publish("t", 1, headers={"a": 1})),
                ("id", lambda: client.publish("t", 1, id=1)),
                ("ttl", lambda: client.publish("t", 1, ttl="1")),
                ("receipt", lambda: client.publish("t", 1, receipt=1)),
                ("retain", lambda: client.publish("t", 1, retain=1)),
                ("to", lambda: client.publish("t", 1, to="client-7")),
                ("to", lambda: client.publish("t", 1, to=["client-7", 1])),
                ("private", lambda: client.publish("t", 1, private=1)),
                ("offline", lambda: client.publish("t", 1, offline=True)),
                ("client_id", lambda: client.publish_to_id(1, 1)),
                ("address", lambda: client.publish_to_server(1, 1)),
                ("timeout", lambda: client.publish_with_ack("t", 1, timeout="1")),
                ("timeout", lambda: client.publish_with_ack("t", 1, timeout=True)),
                ("timeout", lambda: client.publish_to_id_with_ack("t", 1, "1")),
                ("timeout", lambda: client.request("t", 1, timeout=[])),
                ("to", lambda: client.publish_with_ack("t", 1, to="b")),
                ("headers", lambda: client.publish_to_id_with_ack("t", 1, headers=[])),
                ("'to'", lambda: client.publish_to_id_with_ack("t", 1, to=["b"])),
                ("'retain'", lambda: client.publish_with_ack("t", 1, retain=True)),
                ("ttl", lambda: client.request("t", 1, ttl="1")),
                ("handler", lambda: client.subscribe("t", 1)),
                ("group", lambda: client.subscribe("t", group=1)),
                ("concurrency", lambda: client.subscribe("t", concurrency=1.5)),
                ("overflow", lambda: client.subscribe("t", overflow=1)),
                ("capacity", lambda: client.subscribe("t", capacity="1")),
                ("start", lambda: client.subscribe("t", start=[])),
                ("ack_wait", lambda: client.subscribe("t", ack_wait="1")),
                ("max_attempts", lambda: client.subscribe("t", max_attempts=1.5)),
                ("history", lambda: kps.Server("127.0.0.1:0", history="x").start()),
                ("durable", lambda: client.subscribe("t", durable=1)),
                ("event", lambda: client.on(1, print)),
                ("handler", lambda: client.on("state", 1)),
                ("timeout", lambda: client.close("1")),
                ("url", lambda: kps.connect(1)),
                ("id", lambda: kps.connect(server.url, id=1)),
                ("token", lambda: kps.connect(server.url, token=1)),
                ("timeout", lambda: kps.connect(server.url, timeout="5")),
                ("outbox_soft", lambda: kps.connect(server.url, outbox_soft="5")),
                ("listen", lambda: kps.Server(1).start()),
                ("token", lambda: kps.Server("127.0.0.1:0", token=1).start()),
                ("heartbeat", lambda: kps.Server("127.0.0.1:0", heartbeat="1").start()),
                ("allowed_origins", lambda: kps.Server("127.0.0.1:0", allowed_origins="x").start()),
                ("handler", lambda: server.on_message_to_id(1)),
            ]
            for argument, call in wrong:
                with pytest.raises(TypeError, match=argument):
                    result = call()
                    if hasattr(result, "__await__"):
                        await result

    asyncio.run(main())


def test_wrong_values_are_errors_with_a_code() -> None:
    async def main() -> None:
        async with pair() as (_, client):
            wrong: list[tuple[str, Any]] = [
                ("invalid_argument", lambda: client.publish("t", 1, ttl=-1)),
                ("invalid_argument", lambda: client.publish("t", 1, to=[])),
                ("invalid_argument", lambda: client.publish("t", 1, to=["x" * 257])),
                ("invalid_argument", lambda: client.publish("t", 1, to=["x"] * 65)),
                ("invalid_argument", lambda: client.publish("t", 1, offline="never")),
                ("invalid_argument", lambda: client.publish("t", 1, ttl=float("nan"))),
                ("invalid_argument", lambda: client.publish("t", 1, receipt="soon")),
                ("receipt_unavailable", lambda: client.publish("t", 1, receipt="stored")),
                ("invalid_argument", lambda: client.publish_with_ack("t", 1, timeout=-0.1)),
                ("invalid_argument", lambda: client.subscribe("t", concurrency=0)),
                ("invalid_argument", lambda: client.subscribe("t", capacity=-1)),
                ("invalid_argument", lambda: client.subscribe("t", overflow="x")),
                ("invalid_argument", lambda: client.subscribe("t", start="x")),
                ("unsupported", lambda: client.subscribe("t", start="all")),
                ("unsupported", lambda: client.subscribe("t", durable="x")),
                ("invalid_topic", lambda: client.publish("", 1)),
                ("invalid_topic", lambda: client.publish("a.*", 1)),
                ("not_found", lambda: client.unsubscribe("nothing")),
                ("invalid_argument", lambda: client.on("x", print)),
                ("invalid_argument", lambda: kps.connect("gopher://x")),
            ]
            for code, call in wrong:
                with pytest.raises(kps.KpsError) as caught:
                    result = call()
                    if hasattr(result, "__await__"):
                        await result
                assert caught.value.code == code
                assert caught.value.message == str(caught.value) != ""

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**400, 0, 0.0])
def test_huge_and_zero_timeouts(timeout: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            await client.subscribe("t", lambda _: 1)
            rows = await client.publish_with_ack("t", 1, timeout=timeout).wait()
            assert rows["a"].status in (("acked",) if timeout else ("acked", "timeout"))

    if timeout == 10**400:
        with pytest.raises(OverflowError):
            asyncio.run(main())
    else:
        asyncio.run(main())


def test_without_a_loop_or_a_started_server_there_is_a_sentence() -> None:
    with pytest.raises(kps.NotConnectedError, match="start"):
        kps.Server().publish("t", 1)
    client = asyncio.run(kps.connect("ws://127.0.0.1:1", wait=False))
    with pytest.raises(RuntimeError, match="no running event loop"):
        client.on("state", print)
    client.publish("t", 1)
