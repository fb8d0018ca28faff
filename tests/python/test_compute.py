"""Tasks: built in, written in Python, made of WebAssembly."""

from __future__ import annotations

import array
import asyncio
import hashlib
import math
import os
import random
import signal
import statistics
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import compute_tasks
import kps
from local_server import pair, until

WASM = Path(__file__).parents[2] / "examples/wasm"


async def execute(client: kps.Client, task: str, data: Any = None, **options: Any) -> Any:
    response = await client.dispatch("compute.execute", {"task": task, "data": data}, **options)
    return response.unwrap()["result"]


def fibonacci(n: int) -> int:
    this, after = 0, 1
    for _ in range(n):
        this, after = after, this + after
    return this


def test_builtin_tasks_are_exact(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            for n in (0, 1, 2, 92, 93, 1_000, 30_000):
                assert await execute(client, "fibonacci", n) == fibonacci(n)
            for n in (0, 1, 20, 21, 500, 3_000):
                assert await execute(client, "factorial", {"n": n}) == math.factorial(n)
            for n in (0, 1, 2, 91, 97, 2**61 - 1, 2**61 + 1, 3_215_031_751):
                answer = await execute(client, "is_prime", n)
                assert answer == {"prime": n in (2, 97, 2**61 - 1), "probable": False}
            assert await execute(client, "is_prime", 2**127 - 1) == {"prime": True, "probable": True}
            assert (await execute(client, "is_prime", 2**127 + 1))["prime"] is False
            for data in ("", "häslich", b"\x00\xff" * 100_000):
                plain = data.encode() if isinstance(data, str) else data
                assert await execute(client, "hash_sha256", data) == hashlib.sha256(plain).hexdigest()

    run(main)


def test_work_on_arrays_is_what_python_computes(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            chance = random.Random(1)
            numbers = [chance.uniform(-100, 100) for _ in range(10_001)]
            for data in (numbers, array.array("d", numbers), memoryview(array.array("d", numbers))):
                assert await execute(client, "sum", data) == pytest.approx(math.fsum(numbers), rel=1e-12)
                assert await execute(client, "mean", data) == pytest.approx(statistics.fmean(numbers), rel=1e-12)
                assert await execute(client, "std", data) == pytest.approx(statistics.pstdev(numbers), rel=1e-12)
                assert await execute(client, "min", data) == min(numbers)
                assert await execute(client, "max", data) == max(numbers)
                assert list(await execute(client, "sort", data)) == sorted(numbers)
            tenths = [number / 10 for number in range(11)]
            deciles = await execute(client, "quantiles", {"array": numbers, "q": tenths})
            inner = statistics.quantiles(numbers, n=10, method="inclusive")
            assert list(deciles)[1:-1] == pytest.approx(inner, rel=1e-9)
            whole = array.array("q", [2**62, 2**62, 2**62, -5])
            assert await execute(client, "sum", whole) == 3 * 2**62 - 5
            bins = await execute(client, "histogram", {"array": [0, 1, 1, 2, 4], "bins": 4})
            assert list(bins["counts"]) == [1, 2, 1, 1] and list(bins["edges"]) == [0, 1, 2, 3, 4]
            assert await execute(client, "dot", {"a": [1, 2, 3], "b": [4, 5, 6]}) == 32
            a = memoryview(struct.pack("6d", *range(6))).cast("d", (2, 3))
            b = memoryview(struct.pack("6d", *range(6))).cast("d", (3, 2))
            assert (await execute(client, "matmul", {"a": a, "b": b})).tolist() == [[10.0, 13.0], [28.0, 40.0]]

    run(main)


def test_bad_input_is_refused_with_the_limit_named(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            for task, data, error, text in [
                ("fibonacci", 10**9, kps.TooLargeError, "10000000"),
                ("fibonacci", -1, kps.InvalidPayloadError, "-1"),
                ("factorial", "five", kps.InvalidPayloadError, "n is a string"),
                ("factorial", 2**80, kps.TooLargeError, "1000000"),
                ("mean", ["a"], kps.InvalidPayloadError, "array"),
                ("nothing", 1, kps.NotFoundError, "fibonacci"),
            ]:
                with pytest.raises(error, match=text):
                    await execute(client, task, data)
            assert await execute(client, "fibonacci", 10) == 55

    run(main)


def test_a_batch_fails_in_parts_and_tells_how_far_it_is(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            heard: list[dict[str, int]] = []
            tasks = [{"task": "fibonacci", "data": n} for n in (10, -1, 20)] + [{"task": "nothing"}]
            answer = (await client.dispatch("compute.batch", {"tasks": tasks}, on_progress=heard.append)).unwrap()
            statuses = [each["status"] for each in answer["results"]]
            assert statuses == ["ok", "error", "ok", "error"]
            assert answer["results"][2]["data"] == {"result": 6765}
            codes = [each["error"]["code"] for each in answer["results"] if each["status"] == "error"]
            assert codes == ["invalid_payload", "not_found"]
            await until(lambda: bool(heard) and heard[-1], {"done": 4, "total": 4})
            items = list(range(2_000))
            answer = (await client.dispatch("compute.map", {"task": "is_prime", "items": items})).unwrap()
            assert sum(each["prime"] for each in answer["results"]) == 303
            failed = await client.dispatch("compute.map", {"task": "fibonacci", "items": [1, -1]})
            assert failed.error and failed.error.field == "items[1].n"

    run(main)


def test_webassembly_runs_in_a_sandbox_and_is_stopped(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):

            async def load(name: str, wasm: bytes, **limits: int) -> Any:
                return await client.dispatch("compute.load", {"name": name, "wasm": wasm, **limits})

            (await load("distance", (WASM / "levenshtein.wasm").read_bytes())).unwrap()
            assert await execute(client, "distance", "kitten\nsitting") == b"3"
            (await load("mandelbrot", (WASM / "mandelbrot.wasm").read_bytes(), memory_limit=2 << 20)).unwrap()
            picture = {"width": 40, "height": 30, "steps": 50}
            answer = await execute(client, "mandelbrot", picture)
            assert sum(answer["leave"]) + answer["stay"] == 40 * 30
            endless = {"width": 10_000, "height": 10_000, "steps": 10_000}
            begun = time.perf_counter()
            with pytest.raises(kps.TimeoutError):
                await execute(client, "mandelbrot", endless, timeout=0.2)
            hung = asyncio.create_task(execute(client, "mandelbrot", endless, timeout=60))
            await asyncio.sleep(0.05)
            hung.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hung
            assert await execute(client, "mandelbrot", picture) == answer
            assert time.perf_counter() - begun < 5
            with pytest.raises(kps.ConflictError):
                (await load("distance", b"")).unwrap()
            with pytest.raises(kps.InvalidPayloadError):
                (await load("garbage", b"\0asm nonsense")).unwrap()
            (await client.dispatch("compute.unload", {"name": "distance"})).unwrap()
            with pytest.raises(kps.NotFoundError):
                await execute(client, "distance", "a\nb")

    run(main)


def test_functions_are_tasks(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):

            async def double(data: int) -> int:
                """Twice as much. It is little."""
                await asyncio.sleep(0)
                return 2 * data

            def where(_: Any) -> int:
                return threading.get_ident()

            await client.register_task("double", double)
            await client.register_task("where", where, concurrency=2)
            await client.register_task("echo", "compute_tasks:echo")
            assert await execute(client, "double", 21) == 42
            assert await execute(client, "where") != threading.get_ident()
            data = {"big": 7**100, "bytes": b"\xff", "list": [1, 0.5, None, True, "ü"]}
            assert await execute(client, "echo", data) == data
            answer = (await client.dispatch("compute.map", {"task": "double", "items": list(range(500))})).unwrap()
            assert answer["results"] == list(range(0, 1_000, 2))
            tasks = (await client.dispatch("compute.tasks")).unwrap()["tasks"]
            listed = {task["name"]: task for task in tasks}
            assert listed["double"]["kind"] == "host" and listed["double"]["summary"] == "Twice as much. It is little."
            assert listed["where"]["concurrency"] == 2

            with pytest.raises(kps.ConflictError):
                await client.register_task("double", double)
            for wrong, options in [(5, {}), (double, {"concurrency": 0}), ("nothing", {})]:
                with pytest.raises(kps.InvalidArgumentError):
                    await client.register_task("wrong", wrong, **options)  # type: ignore[arg-type]
            await client.unregister_task("double")
            with pytest.raises(kps.NotFoundError):
                await client.unregister_task("double")
            with pytest.raises(kps.NotFoundError):
                await execute(client, "double", 1)

    run(main)


def test_what_a_function_raises_is_its_callers(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):

            def refuse(_: Any) -> None:
                raise kps.QuotaExceededError("enough")

            def stop(_: Any) -> None:
                raise StopIteration(5)

            def end(_: Any) -> None:
                raise SystemExit(1)

            await client.register_task("refuse", refuse)
            await client.register_task("stop", stop)
            await client.register_task("end", end)
            await client.register_task("fail", compute_tasks.fail, isolated=True)
            with pytest.raises(kps.QuotaExceededError, match="enough"):
                await execute(client, "refuse")
            for task, data, kind, text in [
                ("stop", None, "RuntimeError", "StopIteration: 5"),
                ("end", None, "RuntimeError", "SystemExit: 1"),
                ("fail", "luck", "ValueError", "no luck"),
                ("fail", "odd", "RuntimeError", "Odd: 1 and 2"),
                ("fail", "exit", "RuntimeError", "SystemExit: 7"),
            ]:
                response = await client.dispatch("compute.execute", {"task": task, "data": data})
                assert response.error and (response.error.code, response.error.type) == ("internal", kind)
                assert text in response.error.message
            with pytest.raises(kps.InternalError, match="pickle"):
                await execute(client, "fail", "unpicklable")

    run(main)


def test_a_thread_that_nobody_waits_for_keeps_nobody_waiting(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            gate = threading.Event()

            def wait(data: Any) -> Any:
                if data == "hang":
                    gate.wait()
                return data

            await client.register_task("wait", wait, concurrency=1)
            try:
                for _ in range(3):
                    with pytest.raises(kps.TimeoutError):
                        await execute(client, "wait", "hang", timeout=0.05)
                    assert await execute(client, "wait", 1) == 1
            finally:
                gate.set()

    run(main)


def test_isolated_tasks_run_in_workers(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            await client.register_task("process", compute_tasks.process, isolated=True, concurrency=1)
            await client.register_task("echo", "compute_tasks:echo", isolated=True, concurrency=1)
            await client.register_task("later", compute_tasks.later, isolated=True, concurrency=1)
            await client.register_task("flat", compute_tasks.flat, isolated=True, concurrency=1)
            first = await execute(client, "process")
            assert first != os.getpid() and await execute(client, "process") == first
            data = {"big": 7**100, "bytes": b"\xff" * 300_000, "list": [1, 0.5, None, True, "ü"]}
            assert await execute(client, "echo", data) == data
            assert (await execute(client, "later", 1))[0] == 1
            numbers = memoryview(array.array("d", [1.5, 2.5])).cast("B").cast("d", (1, 2))
            assert await execute(client, "flat", numbers) == ["d", [1, 2], [[1.5, 2.5]]]
            assert (await execute(client, "echo", numbers)).tolist() == [[1.5, 2.5]]
            for wrong in (lambda data: data, "compute_tasks:nothing", "no_such_module:it"):
                with pytest.raises(kps.InvalidArgumentError):
                    await client.register_task("wrong", wrong, isolated=True)
            await client.unregister_task("process")
            # Its worker goes with it.
            await until(lambda: is_running(first), False)

    run(main)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def has_ended(child: int) -> bool:
    """With all its threads."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_is_killed_at_the_deadline_and_replaced(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            await client.register_task("hang", compute_tasks.hang, isolated=True, concurrency=1)
            worker = await execute(client, "hang")
            with pytest.raises(kps.TimeoutError):
                await execute(client, "hang", "hang", timeout=0.1)
            await until(lambda: is_running(worker), False)
            second = await execute(client, "hang")
            assert second != worker
            hung = asyncio.create_task(execute(client, "hang", "hang", timeout=60))
            await asyncio.sleep(0.05)
            hung.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hung
            third = await execute(client, "hang")
            assert third not in (worker, second)
            assert await execute(client, "hang") == third

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_crashes_is_replaced(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            await client.register_task("crash", compute_tasks.crash, isolated=True, concurrency=1)
            worker = await execute(client, "crash")
            with pytest.raises(kps.InternalError, match="exit code 3"):
                await execute(client, "crash", "crash")
            second = await execute(client, "crash")
            assert second != worker and not is_running(worker)
            # One that dies while it has nothing to do is noticed, too.
            os.kill(second, signal.SIGKILL)
            await until(lambda: has_ended(second))
            third = await execute(client, "crash")
            assert third not in (worker, second)
        await until(lambda: is_running(third), False)

    run(main)


def test_isolated_tasks_run_in_parallel(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            await client.register_task("busy", compute_tasks.busy, isolated=True, concurrency=2)
            await client.register_task("process", compute_tasks.process, isolated=True, concurrency=2)
            answer = (
                await client.dispatch("compute.map", {"task": "busy", "items": [200_000] * 8}, timeout=15)
            ).unwrap()
            assert answer["results"] == [compute_tasks.busy(200_000)] * 8

    run(main)


def test_clients_do_tasks_for_each_other(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, a), await kps.connect(server.url, id="b") as b:
            done: dict[str, int] = {"a": 0, "b": 0}

            def doubling(name: str) -> Any:
                async def double(data: int) -> int:
                    done[name] += 1
                    return 2 * data

                return double

            await a.register_task("double", doubling("a"), shared=True)
            await b.register_task("double", doubling("b"), shared=True)
            async with await kps.connect(server.url, id="c") as c:
                heard: list[dict[str, int]] = []
                asked = {"task": "double", "items": list(range(1_000)), "chunk": 10}
                answer = await c.dispatch("compute.map", asked, target="any", on_progress=heard.append)
                assert answer.unwrap()["results"] == list(range(0, 2_000, 2))
                assert sum(done.values()) == 1_000 and all(done.values())
                await until(lambda: bool(heard) and heard[-1], {"done": 1_000, "total": 1_000})
                await a.unregister_task("double")
                assert await execute(c, "double", 4, target="any") == 8
                await b.unshare_task("double")
                with pytest.raises(kps.NotFoundError, match="shares"):
                    await execute(c, "double", 4, target="any")
                await b.share_task("factorial")
                assert await execute(c, "factorial", 5, target="b") == 120

    run(main)


def test_a_servers_own_tasks_are_for_who_calls_the_server(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):

            async def mine(data: Any) -> Any:
                return ["mine", data]

            await server.register_task("mine", mine)
            assert await execute(client, "mine", 1, target="server") == ["mine", 1]
            await server.unregister_task("mine")
            with pytest.raises(kps.NotFoundError):
                await execute(client, "mine", 1, target="server")

    run(main)
