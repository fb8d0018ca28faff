"""Everything that is awaited: without a future when it is there, cancelled at any point, on any loop."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

import kps
from local_server import pair, until


def test_what_is_there_already_is_awaited_without_a_future(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            await client.subscribe("t", lambda _: 1)
            ack = server.publish_with_ack("t", 1)
            await ack.wait()
            subscription = await client.subscribe("u")
            for number in range(3):
                client.publish("u", number)
            await client.publish("u", 3, receipt="accepted")
            await anext(subscription)
            await until(lambda: subscription.ledger()["pending"], 3)
            await asyncio.sleep(0.05)
            loop = asyncio.get_running_loop()
            made = 0

            def create_future() -> Any:
                nonlocal made
                made += 1
                return asyncio.Future(loop=loop)

            try:
                loop.create_future = create_future  # type: ignore[method-assign]
            except AttributeError:
                return  # uvloop's cannot be watched
            assert (await ack.wait())["a"].success
            assert await ack.wait_any()
            assert [row.data async for row in ack] == [1]
            assert [(await anext(subscription)).data for _ in range(3)] == [1, 2, 3]
            assert await client.publish("u", 1) == "queued"
            del loop.create_future
            assert made == 0

    run(main)


def test_awaitables_are_coroutines_to_asyncio(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            await client.subscribe("t", lambda message: message.data)
            answers = await asyncio.gather(*(server.request("t", number) for number in range(100)))
            assert answers == list(range(100))
            task = asyncio.create_task(server.publish_with_ack("t", 1).wait())
            assert (await task)["a"].data == 1
            with pytest.warns(RuntimeWarning, match="'flush' was never awaited"):
                assert asyncio.iscoroutine(client.flush())
            await asyncio.wait_for(client.flush(), 1)
            done, _ = await asyncio.wait([asyncio.ensure_future(client.publish("t", 1, receipt="accepted"))])
            assert [task.result() for task in done] == ["accepted"]
            waiting = server.request("t", 1)
            await waiting
            with pytest.raises(RuntimeError, match="again"):
                await waiting

    run(main)


def test_a_cancelled_call_never_gets_anothers_answer(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):

            async def echo(message: kps.Message) -> Any:
                if message.data % 3 == 0:
                    await asyncio.sleep(0)
                return message.data

            await client.subscribe("t", echo, concurrency=8)
            random.seed(5)

            async def ask(number: int) -> int:
                answer = await server.request("t", number)
                assert answer == number
                return 1

            for _ in range(30):
                tasks = [asyncio.create_task(ask(number)) for number in range(64)]
                for _ in range(random.randrange(6)):
                    await asyncio.sleep(0)
                for task in random.sample(tasks, 20):
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(result == 1 or isinstance(result, asyncio.CancelledError) for result in results)
            assert await server.request("t", 7) == 7

    run(main)


def test_every_await_can_be_cancelled(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            hanging = asyncio.Event()

            async def hang(_: kps.Message) -> None:
                await hanging.wait()

            await client.subscribe("hang", hang, concurrency=100)
            subscription = await client.subscribe("quiet")
            ack = server.publish_with_ack("hang", 1)
            for make in (
                lambda: subscription.__anext__(),
                lambda: subscription.batches().__anext__(),
                lambda: ack.wait(),
                lambda: ack.wait_any(),
                lambda: ack.__aiter__().__anext__(),
                lambda: server.request("hang", 1),
                lambda: client.subscribe("other"),
                lambda: client.flush(),
                lambda: client.publish("quiet", 1, receipt="accepted"),
                lambda: subscription.unsubscribe(),
                lambda: kps.connect(server.url),
                lambda: client.close(),
            ):
                for turns in range(3):
                    task = asyncio.ensure_future(make())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    try:
                        await task
                    except (asyncio.CancelledError, StopAsyncIteration, kps.KpsError):
                        pass
            hanging.set()

    run(main)


def test_cancelling_the_iterators_next_loses_no_message(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            subscription = await client.subscribe("t")
            random.seed(9)
            seen: list[int] = []
            sent = 0
            while len(seen) < 300:
                if sent < 300 and random.random() < 0.6:
                    client.publish("t", sent)
                    sent += 1
                task = asyncio.ensure_future(anext(subscription))
                for _ in range(random.randrange(8)):
                    await asyncio.sleep(0)
                if sent < 300 or random.random() < 0.5:
                    task.cancel()
                try:
                    seen.append((await task).data)
                except asyncio.CancelledError:
                    continue
            assert seen == list(range(300))

    run(main)


def test_an_ack_can_be_awaited_on_another_loop() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            gate = asyncio.Event()

            async def handle(_: kps.Message) -> str:
                await gate.wait()
                return "done"

            await client.subscribe("t", handle)
            ack = server.publish_with_ack("t", 1)
            loop = asyncio.get_running_loop()
            results: list[Any] = []

            async def wait() -> None:
                loop.call_soon_threadsafe(gate.set)
                results.append((await ack.wait())["a"].data)

            thread = threading.Thread(target=asyncio.run, args=[wait()])
            thread.start()
            await loop.run_in_executor(None, thread.join)
            assert results == ["done"]

    asyncio.run(main())


def test_publishing_from_any_thread(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            seen: dict[int, list[int]] = {}
            await client.subscribe("t", lambda message: seen.setdefault(message.data[0], []).append(message.data[1]))

            def publish(thread: int) -> None:
                for number in range(500):
                    client.publish("t", [thread, number])

            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(None, publish, thread) for thread in range(4)))
            await until(
                lambda: {thread: len(numbers) for thread, numbers in seen.items()}, dict.fromkeys(range(4), 500)
            )
            assert all(numbers == list(range(500)) for numbers in seen.values())

    run(main)


def test_acks_from_a_thread_without_a_loop_are_awaited_on_the_clients_own(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            await client.subscribe("t", lambda message: message.data)
            loop = asyncio.get_running_loop()
            ack = await loop.run_in_executor(None, client.publish_with_ack, "t", 5)
            assert (await ack.wait())["a"].data == 5

    run(main)


def test_awaiting_a_receipt_above_the_soft_bound_waits_for_room() -> None:
    async def main() -> None:
        async with kps.Server("127.0.0.1:0") as server:
            client = await kps.connect(server.url, outbox_soft=1000)
            assert await client.publish("t", "x") == "queued"
            for _ in range(100):
                client.publish("t", "x" * 900)
            assert await client.publish("t", "x") == "queued"
            await client.close()

    asyncio.run(main())


def test_iterating_an_ack_twice_gives_its_rows_twice(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            await client.subscribe("t", lambda _: 1)
            ack = server.publish_with_ack("t", 1)
            first = [row.client_id async for row in ack]
            assert first == [row.client_id async for row in ack] == ["a"]
            assert (await anext(ack)).client_id == "a"
            with pytest.raises(StopAsyncIteration):
                await anext(ack)

    run(main)
