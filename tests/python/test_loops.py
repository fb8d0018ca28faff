"""Loops that come and go, threads, and clients that nobody closes. None may hang or leak a connection."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from typing import Any

import pytest

import kps
from local_server import RUNNERS, until


@pytest.fixture
def server() -> Any:
    """A server on a loop of another thread."""
    ready, end = threading.Event(), threading.Event()
    made: list[kps.Server] = []

    async def serve() -> None:
        async with kps.Server("127.0.0.1:0") as server:
            made.append(server)
            ready.set()
            while not end.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    ready.wait()
    yield made[0]
    end.set()
    thread.join()


def wait_for_clients(server: kps.Server, count: int) -> None:
    asyncio.run(asyncio.wait_for(until(server.count_clients, count), 10))


async def round_trip(url: str, close: bool) -> None:
    client = await kps.connect(url)

    async def answer(message: kps.Message) -> Any:
        await asyncio.sleep(0)
        return message.data

    await client.subscribe("t", answer)
    subscription = await client.subscribe("u")
    assert await client.request("t", 1) == 1
    client.publish("u", 1)
    assert (await anext(subscription)).data == 1
    if close:
        await client.close()


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("runner", list(RUNNERS))
def test_ten_runs_in_a_row_leave_nothing_behind(server: kps.Server, runner: str, close: bool) -> None:
    def descriptors() -> int:
        gc.collect()
        wait_for_clients(server, 0)
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    RUNNERS[runner](round_trip(server.url, close))
    before = descriptors()
    for _ in range(10):
        RUNNERS[runner](round_trip(server.url, close))
    assert descriptors() <= before + 1


def test_a_loop_closed_by_hand_without_closing_its_client(server: kps.Server) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(round_trip(server.url, close=False))
    loop.close()
    gc.collect()
    wait_for_clients(server, 0)


def test_a_client_held_by_its_own_handlers(server: kps.Server) -> None:
    async def main() -> None:
        client = await kps.connect(server.url)
        client.on("state", lambda _: print(client))
        client.on("message_to_id", lambda _: client.id)
        await client.subscribe("t", lambda _: client.id)

    for _ in range(3):
        asyncio.run(main())
    wait_for_clients(server, 0)


def test_a_client_used_by_one_run_after_another(server: kps.Server) -> None:
    client = asyncio.run(kps.connect(server.url, id="lasting"))

    async def use(number: int) -> None:
        subscription = await client.subscribe("t")
        await client.publish("t", number, receipt="accepted")
        assert (await anext(subscription)).data == number
        assert (await client.publish_with_ack("nobody", 1).wait()) == {}
        await client.flush()

    for number in range(5):
        asyncio.run(use(number))
    wait_for_clients(server, 1)
    client.publish("t", "between loops")
    asyncio.run(client.close())
    wait_for_clients(server, 0)


def test_several_loops_in_threads_while_the_first_is_idle(server: kps.Server) -> None:
    """The client's home loop sleeps; every other loop subscribes, publishes and waits by itself."""
    idle, end = threading.Event(), threading.Event()
    clients: list[kps.Client] = []
    failed: list[BaseException] = []

    async def connect_and_block() -> None:
        clients.append(await kps.connect(server.url, id="shared"))
        idle.set()
        end.wait()

    async def work(thread: int) -> None:
        (client,) = clients
        seen: list[int] = []
        await client.subscribe(f"t{thread}", lambda message: seen.append(message.data))
        await client.subscribe(f"ask{thread}", lambda message: [thread, message.data])
        for number in range(500):
            client.publish(f"t{thread}", number)
        await client.flush()
        await until(lambda: len(seen), 500)
        assert seen == list(range(500))
        for number in range(50):
            assert await client.request(f"ask{thread}", number) == [thread, number]
            assert (await client.publish_with_ack(f"ask{thread}", number).wait())["shared"].data == [thread, number]

    def run(thread: int) -> None:
        try:
            asyncio.run(asyncio.wait_for(work(thread), 15))
        except BaseException as error:
            failed.append(error)

    first = threading.Thread(target=asyncio.run, args=[connect_and_block()])
    first.start()
    idle.wait()
    threads = [threading.Thread(target=run, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end.set()
    first.join()
    assert not failed


def test_a_dropped_client_disconnects_and_delivers_what_it_published(server: kps.Server) -> None:
    async def main() -> None:
        reader = await kps.connect(server.url)
        subscription = await reader.subscribe("t")
        client = await kps.connect(server.url)
        for number in range(1000):
            client.publish("t", number)
        del client
        gc.collect()
        assert [(await anext(subscription)).data for _ in range(1000)] == list(range(1000))
        await until(server.count_clients, 1)

    asyncio.run(asyncio.wait_for(main(), 15))


def test_a_failed_connect_leaves_no_connection(server: kps.Server) -> None:
    async def main() -> None:
        for _ in range(3):
            with pytest.raises(kps.KpsError):
                await kps.connect("ws://127.0.0.1:1", timeout=0.2)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(kps.connect("ws://127.0.0.1:1", timeout=10), 0.01)

    asyncio.run(main())
    assert server.count_clients() == 0
