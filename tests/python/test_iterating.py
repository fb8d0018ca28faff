"""Subscriptions read by iterating."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import kps
from local_server import pair, until


def test_messages_come_in_order_and_batches_hand_over_what_waits(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            one = await client.subscribe("t")
            many = (await client.subscribe("t")).batches(max=100)
            for number in range(2000):
                client.publish("t", number)
            seen: list[int] = []
            async for message in one:
                assert isinstance(message, kps.Message)
                seen.append(message.data)
                if len(seen) == 2000:
                    break
            assert seen == list(range(2000))
            batched: list[int] = []
            async for batch in many:
                assert 1 <= len(batch) <= 100
                batched += [message.data for message in batch]
                if len(batched) == 2000:
                    break
            assert batched == seen

    run(main)


def test_asking_for_the_next_acks_and_respond_and_fail_answer(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            subscription = await client.subscribe("t")
            acks = [server.publish_with_ack("t", number, timeout=10) for number in range(3)]
            (await anext(subscription)).respond({"n": 0})
            (await anext(subscription)).fail(ValueError("no"))
            message = await anext(subscription)
            message.respond(1)
            message.respond(2)
            rows = [(await ack.wait())["a"] for ack in acks]
            assert [row.data for row in rows] == [{"n": 0}, None, 1]
            assert str(rows[1].error) == "ValueError: no"
            last = server.publish_with_ack("t", 3, timeout=10)
            await anext(subscription)
            waiting = asyncio.ensure_future(anext(subscription))
            assert (await last.wait())["a"].data is None
            waiting.cancel()
            with pytest.raises(TypeError, match="error must be"):
                message.fail(5)

    run(main)


def test_a_subscription_that_nobody_can_read_ends(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            subscription = await client.subscribe("t")
            assert server.count_subscribers("t") == 1
            del subscription
            gc.collect()
            await until(lambda: server.count_subscribers("t"), 0)
            kept = await client.subscribe("t", lambda _: None)
            del kept
            gc.collect()
            await client.flush()
            assert server.count_subscribers("t") == 1

    run(main)


def test_the_end_of_subscription_and_client_end_the_iteration(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            for end in (lambda: subscription.unsubscribe(), lambda: client.close()):
                subscription = await client.subscribe("t")
                client.publish("t", 1)
                await until(lambda: subscription.ledger()["pending"], 1)

                async def read() -> list[Any]:
                    return [message.data async for message in subscription]

                reader = asyncio.ensure_future(read())
                await asyncio.sleep(0)
                await end()
                assert await reader == [1]
            with pytest.raises(kps.ClosedError):
                client.publish("t", 1)
            assert client.state == "closed"
            assert server.state == "connected"

    run(main)


def test_a_subscription_with_a_handler_cannot_be_iterated(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            subscription = await client.subscribe("t", lambda _: None)
            with pytest.raises(kps.InvalidArgumentError, match="handler"):
                await anext(subscription)
            with pytest.raises(kps.InvalidArgumentError):
                subscription.batches()

    run(main)


def test_two_readers_share_the_messages(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            subscription = await client.subscribe("t")
            readers = [asyncio.ensure_future(anext(subscription)) for _ in range(10)]
            await asyncio.sleep(0)
            for number in range(10):
                client.publish("t", number)
            messages = await asyncio.gather(*readers)
            assert sorted(message.data for message in messages) == list(range(10))

    run(main)


def test_messages_outlive_their_subscription_and_client(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            subscription = await client.subscribe("t")
            client.publish("t", {"a": 1}, headers={"h": "v"}, id="mine")
            message = await anext(subscription)
            await client.close()
        assert (message.data, message.raw, message.headers, message.id) == ({"a": 1}, b'{"a":1}', {"h": "v"}, "mine")
        assert message.data is message.data
        assert (message.topic, message.sender, message.attempt, message.content_type) == ("t", "a", 1, "json")
        assert message.seq >= 1
        assert message.epoch > 0
        assert abs(message.time - __import__("time").time()) < 60
        message.respond(1)

    run(main)
