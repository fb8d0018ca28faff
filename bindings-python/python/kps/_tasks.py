"""Tasks that the native module starts and nobody awaits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

_running: "set[asyncio.Task[None]]" = set()


def keep(awaitable: Awaitable[Any]) -> None:
    """Runs an event handler's coroutine; what it raises goes to the loop's exception handler."""
    _start(_run(awaitable))


def tell(awaitable: Awaitable[Any], verdict: Callable[..., None]) -> None:
    """Runs it and hands its result, or its error, to `verdict`."""
    _start(_judge(awaitable, verdict))


def start(event_loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any]) -> "asyncio.Task[Any]":
    """Runs a capability's coroutine; who starts it hears of its end."""
    coroutine = awaitable if asyncio.iscoroutine(awaitable) else _result(awaitable)
    return event_loop.create_task(coroutine)


async def _result(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _start(coroutine: Any) -> None:
    task = asyncio.get_running_loop().create_task(coroutine)
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _run(awaitable: Awaitable[Any]) -> None:
    try:
        await awaitable
    except Exception as error:
        context = {"message": "a kps event handler raised", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


async def _judge(awaitable: Awaitable[Any], verdict: Callable[..., None]) -> None:
    try:
        result = await awaitable
    except BaseException as error:
        verdict(None, error)
        if not isinstance(error, Exception):
            raise
    else:
        verdict(result)
