"""Calls of capabilities: values of every kind, errors with codes, cancellation, providers in Python."""

import asyncio
import math
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import kps


class Echoing:
    """A capability for tests."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.hooks: list[str] = []

    def init(self) -> None:
        self.hooks.append("init")

    async def close(self) -> None:
        self.hooks.append("close")

    def echo(self, payload: Any) -> Any:
        """Gives back what it was given."""
        self.calls += 1
        return payload

    async def later(self, payload: Any) -> Any:
        await asyncio.sleep(0)
        return payload

    async def who(self, payload: Any, context: kps.CallContext) -> Any:
        assert context.remaining is not None and context.remaining > 0
        return {"caller": context.caller, "attempt": context.attempt, "operation": context.operation}

    async def hang(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def broken(self, payload: str) -> None:
        raise ValueError(payload)

    def missing(self) -> None:
        raise kps.NotFoundError("there is none")

    def busy(self) -> None:
        raise kps.Retry("not now")

    async def steps(self, context: kps.CallContext) -> str:
        context.progress({"done": 1, "total": 2})
        return "done"

    def _hidden(self) -> None: ...


class World:
    """A server and two clients of it."""

    def __init__(self, server: kps.Server, a: kps.Client, b: kps.Client, folder: Path) -> None:
        self.server, self.a, self.b, self.folder = server, a, b, folder


def live(test: Callable[[World], Awaitable[None]]) -> Callable[[Any, Path], None]:
    """Runs the test in a world of its own, on each kind of loop."""

    def wrapped(run: Any, tmp_path: Path) -> None:
        async def main() -> None:
            async with (
                kps.Server(listen="127.0.0.1:0") as server,
                await kps.connect(server.url, id="a") as a,
                await kps.connect(server.url, id="b") as b,
            ):
                await test(World(server, a, b, tmp_path))

        run(main)

    wrapped.__name__ = test.__name__
    return wrapped


VALUES = [
    None,
    True,
    0,
    -(2**53) - 1,
    2**63 - 1,
    -(2**63),
    2**64,
    7**300,
    0.5,
    "",
    "grüße\x00",
    b"",
    b"\x00\xff" * 3000,
    [],
    [1, [2, {"three": [b"4"]}]],
    {"$int": "1"},
    {"$bytes": 5},
    {"": {"$": {}}},
]


@live
async def test_values_of_every_kind_come_back_as_they_were(world: World) -> None:
    a, b = world.a, world.b
    await a.register("test", Echoing(), shared=True)
    for value in VALUES:
        for client in (a, b):
            for operation in ("echo", "later"):
                response = await client.dispatch(f"test.{operation}", value)
                assert response.unwrap() == value, response
                assert type(response.data) is type(value)
    assert (await b.dispatch("test.echo", (1, bytearray(b"x")))).data == [1, b"x"]


@live
async def test_arrays_travel_with_their_type_and_shape(world: World) -> None:
    a, b = world.a, world.b
    await a.register("test", Echoing(), shared=True)
    numbers = memoryview(struct.pack("6d", *range(6))).cast("d", (2, 3))
    for client in (a, b):
        back = (await client.dispatch("test.echo", numbers)).unwrap()
        assert (back.format, back.shape, back.tolist()) == ("d", (2, 3), [[0, 1, 2], [3, 4, 5]])


@live
async def test_who_calls_is_told_where_a_failure_comes_from(world: World) -> None:
    a, b = world.a, world.b
    await a.register("test", Echoing(), shared=True, debug=True)
    for client in (a, b):
        error = (await client.dispatch("test.broken", "as asked")).error
        assert (error.code, error.type, error.message, error.retry) == ("internal", "ValueError", "as asked", False)
        assert error["code"] == "internal" and "in broken" in error.traceback
        with pytest.raises(kps.NotFoundError, match="there is none"):
            (await client.dispatch("test.missing")).unwrap()
        error = (await client.dispatch("test.busy")).error
        assert (error.code, error.retry) == ("unavailable", True)
        for operation in ("_hidden", "init", "close", "nothing", "calls"):
            assert (await client.dispatch(f"test.{operation}")).error.code == "unknown_operation"
    for action in ("nobody.has", "undotted", ""):
        assert (await a.dispatch(action)).error.code == "unknown_capability"
    with pytest.raises(TypeError):
        await a.dispatch(5)


@live
async def test_what_cannot_travel_names_its_field_and_changes_nothing(world: World) -> None:
    a = world.a
    tester = Echoing()
    await a.register("test", tester)
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    for payload, field in [({"deep": {"set": {1}}}, "deep"), (cyclic, "self"), ({"k": {5: 1}}, "k"), ({1, 2}, None)]:
        response = await a.dispatch("test.echo", payload)
        assert (response.error.code, response.error.field) == ("invalid_payload", field)
    response = await a.dispatch("test.echo", {"f": print}, target="any")
    assert response.error.code in ("invalid_payload", "unknown_capability")
    assert tester.calls == 0


@live
async def test_a_deadline_and_a_cancellation_end_the_work(world: World) -> None:
    a, b = world.a, world.b
    for client in (a, b):
        tester = Echoing()
        await a.register("test", tester, shared=True)
        response = await client.dispatch("test.hang", timeout=0.05)
        assert response.error.code == "timeout"
        await asyncio.wait_for(tester.cancelled.wait(), 5)
        tester.cancelled.clear()
        tester.started.clear()
        call = asyncio.ensure_future(client.dispatch("test.hang", timeout=60))
        await asyncio.wait_for(tester.started.wait(), 5)
        call.cancel()
        await asyncio.wait_for(tester.cancelled.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await call
        await a.unregister("test")
        assert tester.hooks == ["init", "close"]


@live
async def test_a_context_says_who_calls_and_progress_is_heard(world: World) -> None:
    a, b = world.a, world.b
    await a.register("test", Echoing, shared=True)
    assert (await b.dispatch("test.who")).data == {"caller": "b", "attempt": 1, "operation": "who"}
    assert (await a.dispatch("test.who")).data["caller"] is None
    for client in (a, b):
        heard: asyncio.Queue[Any] = asyncio.Queue()
        assert (await client.dispatch("test.steps", on_progress=heard.put_nowait)).data == "done"
        assert await asyncio.wait_for(heard.get(), 5) == {"done": 1, "total": 2}


@live
async def test_names_are_taken_once(world: World) -> None:
    a = world.a
    await a.register("test", Echoing())
    for name, error in [("test", kps.ConflictError), ("storage", kps.ConflictError), ("a.b", kps.InvalidPayloadError)]:
        with pytest.raises(error):
            await a.register(name, Echoing())
    await a.unregister("test")
    with pytest.raises(kps.NotFoundError):
        await a.unregister("test")


@live
async def test_ten_thousand_calls_at_once(world: World) -> None:
    a, b = world.a, world.b
    await a.register("test", Echoing(), shared=True)
    for client in (a, b):
        calls = [client.dispatch("test.later", n, timeout=60) for n in range(10_000)]
        assert [response.data for response in await asyncio.gather(*calls)] == list(range(10_000))


@live
async def test_without_a_server_the_same_calls_work(world: World) -> None:
    async with await kps.connect("mem://") as client:
        assert (await client.dispatch("storage.save", {"key": "k", "value": {"a": b"1"}})).ok
        assert (await client.dispatch("storage.get", {"key": "k"})).unwrap()["value"] == {"a": b"1"}
        result = (await client.dispatch("compute.execute", {"task": "factorial", "data": {"n": 30}})).unwrap()
        assert result["result"] == math.factorial(30)
        heard: asyncio.Queue[Any] = asyncio.Queue()
        await client.dispatch("sync.subscribe", {"channel": "room", "callback": heard.put_nowait})
        await client.dispatch("sync.broadcast", {"channel": "room", "event": "hi", "data": 1})
        record = await asyncio.wait_for(heard.get(), 5)
        assert (record["event"], record["data"], record["from"]) == ("hi", 1, client.id)


@live
async def test_a_server_has_its_own_storage_and_answers_for_it(world: World) -> None:
    a, b = world.a, world.b
    saved = await a.dispatch("storage.save", {"key": "k", "value": 1}, target="server")
    assert saved.ok, saved
    assert (await b.dispatch("storage.get", {"key": "k"}, target="server")).unwrap()["value"] == 1
    assert (await world.server.dispatch("storage.get", {"key": "k"})).unwrap()["value"] == 1
    assert (await b.dispatch("storage.get", {"key": "k"})).error.code == "not_found"


PROVIDER = """
import asyncio, sys, kps
class Slow:
    async def work(self, payload):
        print("started", flush=True)
        await asyncio.Event().wait()
async def main():
    client = await kps.connect(sys.argv[1])
    await client.register("slow", Slow(), shared=True)
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@live
async def test_a_provider_killed_mid_call_is_unavailable(world: World) -> None:
    program = world.folder / "provider.py"
    program.write_text(PROVIDER)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), world.server.url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).strip() == b"ready"
    call = asyncio.ensure_future(world.a.dispatch("slow.work", 1, timeout=60))
    assert (await process.stdout.readline()).strip() == b"started"
    process.kill()
    await process.wait()
    error = (await call).error
    assert (error.code, error.retry) == ("unavailable", True)
