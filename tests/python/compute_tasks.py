"""Tasks that workers import."""

from __future__ import annotations

import os
import time
from typing import Any


def process(_: Any) -> int:
    """The worker's process."""
    return os.getpid()


def echo(data: Any) -> Any:
    return data


async def later(data: Any) -> Any:
    return [data, os.getpid()]


def hang(data: Any) -> Any:
    """Hangs when it is told to; so does no thread end."""
    if data == "hang":
        while True:
            time.sleep(0.01)
    return os.getpid()


def crash(data: Any) -> Any:
    if data == "crash":
        os._exit(3)
    return os.getpid()


class Odd(Exception):
    """Can be pickled, but not read again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail(data: Any) -> Any:
    if data == "odd":
        raise Odd(1, 2)
    if data == "exit":
        raise SystemExit(7)
    if data == "unpicklable":
        return lambda: None
    raise ValueError(f"no {data}")


def flat(data: Any) -> Any:
    return [data.format, data.shape, data.tolist()]


def busy(count: int) -> int:
    """Work for one core."""
    total = 0
    for number in range(count):
        total = (total * 31 + number) & 0xFFFFFFFF
    return total
