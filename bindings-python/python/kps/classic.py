"""How KPS' names call back: programs written for `ksps` run after changing only their import.

There, sync callbacks run on threads, so that they may block, or wait for the loop. Here too, but those of one
subscription one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from . import _tasks
from .errors import ClosedError, NotFoundError

if TYPE_CHECKING:
    from . import Client, Message, Server

Callback = Callable[..., Any]
Handler = Callable[["Message"], Coroutine[Any, Any, None]]

_subscriptions: weakref.WeakKeyDictionary[Client, dict[str, list[Callback]]] = weakref.WeakKeyDictionary()
_threads: ThreadPoolExecutor | None = None


class ClientSubscriber:
    """What `OnId` gets beside the message."""

    def __init__(self, client: Client, topic: str = "") -> None:
        self.client = client
        self.Id = client.id
        self.Topic = topic

    def Unsubscribe(self) -> None:
        _tasks.keep(self.client.Unsubscribe(self.Topic))


async def subscribe(client: Client, topic: str, callback: Callback) -> Callable[[], Awaitable[None]]:
    if not callable(callback):
        raise TypeError(f"callback must be callable, not {type(callback).__name__}")

    async def unsub() -> None:
        await unsubscribe(client, topic)

    # As in ksps, a second callback for a topic replaces the first.
    callbacks = _subscriptions.setdefault(client, {})
    if topic in callbacks:
        callbacks[topic][0] = callback
        return unsub
    current = callbacks[topic] = [callback]

    async def handle(message: Message) -> None:
        await call(current[0], message.data, unsub)

    try:
        await client.subscribe(topic, handle)
    except BaseException:
        del callbacks[topic]
        raise
    return unsub


async def unsubscribe(client: Client, topic: str) -> None:
    _subscriptions.get(client, {}).pop(topic, None)
    with contextlib.suppress(NotFoundError, ClosedError):
        await client.unsubscribe(topic)


def direct_handler(callback: Callback, client: Client) -> Handler:
    async def handle(message: Message) -> None:
        await call(callback, {"data": message.data, "from": message.sender}, ClientSubscriber(client, message.topic))

    return handle


def frame_handler(callback: Callback, client: Client) -> Handler:
    async def handle(message: Message) -> None:
        frame = {"data": message.data, "from": message.sender}
        if message._wants_ack:
            frame = {"action": "publish_ack", "topic": message.topic, "ack_id": message.id, **frame}
        elif message.topic.startswith("kps.id."):
            frame = {"action": "direct_message", **frame}
        else:
            frame = {"action": "publish", "topic": message.topic, **frame}
        await call(callback, frame, client)

    return handle


def close_handler(callback: Callback) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def handle(_error: Any) -> None:
        await call(callback)

    return handle


async def call(callback: Callback, *args: Any) -> None:
    """Awaits an async callback, runs a sync one on a thread. What either returns is nobody's."""
    global _threads
    if inspect.iscoroutinefunction(callback):
        await callback(*args)
        return
    if _threads is None:
        _threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="kps-callback")
    result = await asyncio.get_running_loop().run_in_executor(_threads, callback, *args)
    if inspect.isawaitable(result):
        await result


def close_on_signals(client: Client) -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, lambda: _tasks.keep(client.Close()))


def run_server(server: Server) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(_serve(server))
    else:
        _tasks.keep(server.start())
        close_on_signals(server)


async def _serve(server: Server) -> None:
    closed = asyncio.Event()
    await server.start()
    server.on("closed", lambda _: closed.set())
    close_on_signals(server)
    await closed.wait()
