"""Handlers: order, overlap, errors, and whom they may disturb."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import Any

import pytest

import kps
from local_server import pair, until

COUNT = 3000


def test_messages_reach_a_sync_handler_in_order(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            seen: list[int] = []
            await client.subscribe("t", lambda message: seen.append(message.data))
            for number in range(COUNT):
                client.publish("t", number)
            await until(lambda: len(seen), COUNT)
            assert seen == list(range(COUNT))

    run(main)


def test_async_handlers_run_one_at_a_time_and_in_order(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            seen: list[int] = []
            running = 0

            async def handle(message: kps.Message) -> None:
                nonlocal running
                running += 1
                assert running == 1
                if message.data % 7 == 0:
                    await asyncio.sleep(0)
                seen.append(message.data)
                running -= 1

            await client.subscribe("t", handle)
            for number in range(COUNT):
                client.publish("t", number)
            await until(lambda: len(seen), COUNT)
            assert seen == list(range(COUNT))

    run(main)


def test_concurrency_starts_in_order_and_overlaps(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            started: list[int] = []
            running = most = 0
            gate = asyncio.Event()

            async def handle(message: kps.Message) -> None:
                nonlocal running, most
                started.append(message.data)
                running += 1
                most = max(most, running)
                await gate.wait()
                running -= 1

            await client.subscribe("t", handle, concurrency=3)
            for number in range(10):
                client.publish("t", number)
            await until(lambda: len(started), 3)
            gate.set()
            await until(lambda: len(started), 10)
            assert started == list(range(10))
            assert most == 3

    run(main)


def test_what_handlers_return_and_raise_reaches_the_publisher(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):

            def sync(message: kps.Message) -> Any:
                if message.data == "raise":
                    raise ValueError("no")
                return {"got": message.data}

            async def asynchronous(message: kps.Message) -> Any:
                await asyncio.sleep(0)
                return sync(message)

            await client.subscribe("sync", sync)
            await client.subscribe("async", asynchronous)
            await client.subscribe("unsendable", lambda _: object())
            for topic in ("sync", "async"):
                row = (await server.publish_with_ack(topic, 1).wait())["a"]
                assert (row.status, row.success, row.data, row.error) == ("acked", True, {"got": 1}, None)
                assert row.latency >= 0
                row = (await server.publish_with_ack(topic, "raise").wait())["a"]
                assert (row.status, row.success, row.data) == ("failed", False, None)
                assert (row.error.type, row.error.text, str(row.error)) == ("ValueError", "no", "ValueError: no")
            row = (await server.publish_with_ack("unsendable", 1).wait())["a"]
            assert row.status == "failed"
            assert "what the handler returned" in row.error.text

    run(main)


def test_an_error_that_nobody_asked_for_is_told_to_the_program(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            contexts: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
            seen: list[int] = []

            def handle(message: kps.Message) -> None:
                seen.append(message.data)
                raise ValueError(message.data)

            await client.subscribe("t", handle)
            client.publish("t", 1)
            await until(lambda: len(contexts), 1)
            assert isinstance(contexts[0]["exception"], ValueError)

            heard: list[tuple[BaseException, kps.Message]] = []
            off = client.on("handler_error", lambda *args: heard.append(args))
            client.publish("t", 2)
            await until(lambda: len(heard), 1)
            assert (type(heard[0][0]), heard[0][1].data, len(contexts)) == (ValueError, 2, 1)
            off()
            client.publish("t", 3)
            await until(lambda: seen, [1, 2, 3])
            assert len(heard) == 1

    run(main)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_end_of_the_program_is_not_swallowed(error: type[BaseException], kind: str) -> None:
    async def main() -> None:
        async with pair() as (_, client):

            def sync(_: kps.Message) -> None:
                raise error

            async def asynchronous(message: kps.Message) -> None:
                await asyncio.sleep(0)
                sync(message)

            await client.subscribe("t", sync if kind == "sync" else asynchronous)
            for _ in range(10):
                client.publish("t", 1)
            await asyncio.sleep(10)

    with pytest.raises(error):
        asyncio.run(main())


def test_anything_callable_is_a_handler(run: Any) -> None:
    class Callable:
        async def __call__(self, message: kps.Message) -> Any:
            return message.data

        def method(self, message: kps.Message) -> Any:
            return message.data

    async def function(_: int, message: kps.Message) -> Any:
        return message.data

    def future(message: kps.Message) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.get_loop().call_soon(future.set_result, message.data)
        return future

    async def main() -> None:
        async with pair() as (_, client):
            partial = functools.partial(function, 1)
            for number, handler in enumerate([Callable(), Callable().method, partial, future]):
                await client.subscribe(f"t{number}", handler)
                for data in range(3):
                    assert await client.request(f"t{number}", data) == data

    run(main)


def test_an_async_handler_has_a_task_and_the_tools_that_need_one(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):

            async def handle(_: kps.Message) -> str:
                assert asyncio.current_task() is not None
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), 0.01)
                results = await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))
                await asyncio.shield(asyncio.sleep(0))
                return str(results)

            await client.subscribe("t", handle)
            assert await client.request("t", 1) == "[1, 2]"

    run(main)


def test_a_request_given_up_cancels_the_handler_and_nothing_else(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            started, cancelled = asyncio.Event(), asyncio.Event()
            served: list[str] = []

            async def handle(message: kps.Message) -> str:
                served.append(message.data)
                if message.data == "slow":
                    started.set()
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        cancelled.set()
                        raise
                return "done"

            await client.subscribe("t", handle)
            task = asyncio.ensure_future(server.request("t", "slow"))
            await started.wait()
            waiting = asyncio.ensure_future(server.request("t", "fast"))
            task.cancel()
            await cancelled.wait()
            assert await waiting == "done"
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(kps.TimeoutError):
                await server.request("t", "slow", timeout=0.05)
            assert await server.request("t", "again") == "done"
            assert served == ["slow", "fast", "slow", "again"]

    run(main)


def test_a_slow_handler_leaves_the_loop_to_others(run: Any) -> None:
    """A batch is bounded in time, too."""

    async def main() -> None:
        async with pair() as (_, client):
            seen = 0

            def handle(_: kps.Message) -> None:
                nonlocal seen
                seen += 1
                end = asyncio.get_running_loop().time() + 0.002
                while asyncio.get_running_loop().time() < end:
                    pass

            await client.subscribe("t", handle)
            for number in range(200):
                client.publish("t", number)
            await until(lambda: seen > 0)
            turns = 0
            while seen < 200:
                await asyncio.sleep(0)
                turns += 1
            assert turns > 5

    run(main)


def test_a_handler_may_publish_subscribe_and_unsubscribe(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            done = asyncio.Event()
            subscriptions: list[kps.Subscription] = []

            async def second(message: kps.Message) -> None:
                assert message.data == 2
                await subscriptions[0].unsubscribe()
                done.set()

            async def first(_: kps.Message) -> None:
                await client.subscribe("second", second)
                await client.publish("second", 2, receipt="accepted")

            subscriptions.append(await client.subscribe("first", first))
            client.publish("first", 1)
            await done.wait()

    run(main)


def test_a_handler_that_publishes_into_its_own_subscription(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            seen = 0

            def handle(message: kps.Message) -> None:
                nonlocal seen
                seen += 1
                if message.data:
                    client.publish("t", message.data - 1)

            await client.subscribe("t", handle)
            client.publish("t", COUNT)
            await until(lambda: seen, COUNT + 1)

    run(main)


def test_handlers_see_the_context_variables_of_their_subscriber(run: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def main() -> None:
        async with pair() as (_, client):

            def sync(_: kps.Message) -> str:
                return variable.get()

            async def asynchronous(message: kps.Message) -> str:
                seen = variable.get()
                variable.set(message.data)
                await asyncio.sleep(0)
                return seen + variable.get()

            async def subscribe(topic: str, handler: Any) -> None:
                variable.set("set by " + topic)
                await client.subscribe(topic, handler)

            await asyncio.create_task(subscribe("sync", sync))
            await asyncio.create_task(subscribe("async", asynchronous))
            assert await client.request("sync", 1) == "set by sync"
            for _ in range(2):
                assert await client.request("async", "!") == "set by async!"
            assert variable.get() == "unset"

    run(main)


def test_events_may_be_heard_by_coroutines(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            heard = asyncio.Event()

            async def hear(client_id: str) -> None:
                await asyncio.sleep(0)
                assert client_id == "b"
                heard.set()

            server.on("client_connected", hear)
            other = await kps.connect(server.url, id="b")
            await heard.wait()
            await other.close()
            with pytest.raises(ValueError, match="no event is called"):
                client.on("no_such_event", print)

    run(main)


def test_messages_to_an_id(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            others: list[Any] = []
            assert (await server.publish_to_id_with_ack("a", 1).wait())["a"].status == "no_handler"
            off = client.on("message_to_id", lambda message: message.data + 1)
            client.on("message_to_id", lambda message: others.append(message.data))
            row = (await server.publish_to_id_with_ack("a", 1).wait())["a"]
            assert (row.status, row.data, others) == ("acked", 2, [1])
            off()
            server.publish_to_id("a", 5)
            await until(lambda: others, [1, 5])

    run(main)
