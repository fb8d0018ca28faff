"""The steps of calls: dispatch, register, unregister, abandon, and what they remember."""

from __future__ import annotations

import array
import asyncio
import base64
import contextlib
import math
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from conformance_values import expect, number_format, ramp

import kps

Step = dict[str, Any]
ROOT = Path(__file__).parent.parent.parent


class Calls:
    """What the world does with calls."""

    clients: dict[str, Any]
    received: dict[str, asyncio.Queue[Any]]
    tasks: dict[str, asyncio.Task[None]]
    folder: tempfile.TemporaryDirectory[str]
    hold: Callable[[str], Awaitable[None]]

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def log_of(self, name: str) -> asyncio.Queue[Any]:
        return self.received.setdefault(name, asyncio.Queue())

    def filled(self, value: Any) -> Any:
        """An expected value with what the case remembers filled in."""
        if isinstance(value, dict) and "$kept" in value:
            return self.kept[value["$kept"]]
        if isinstance(value, dict) and "$as_is" not in value:
            return {name: self.filled(each) for name, each in value.items()}
        return [self.filled(each) for each in value] if isinstance(value, list) else value

    def given(self, value: Any) -> Any:
        """What a call is given."""
        if isinstance(value, list):
            return [self.given(each) for each in value]
        if not isinstance(value, dict):
            return value
        mark = next(iter(value), "")
        if not mark.startswith("$"):
            return {name: self.given(each) for name, each in value.items()}
        return self.marked(mark, value[mark])

    def marked(self, mark: str, value: Any) -> Any:
        if mark == "$as_is":
            return value
        if mark == "$kept":
            return self.kept[value]
        if mark == "$bytes":
            return base64.b64decode(value)
        if mark == "$int":
            return int(value)
        if mark == "$callback":
            return self.log_of(value).put_nowait
        if mark == "$repeat":
            return value[0] * value[1]
        if mark == "$times":
            return [self.given(value[0])] * value[1]
        if mark == "$ramp":
            return ramp(value)
        if mark == "$read":
            return (ROOT / value).read_bytes()
        assert mark == "$array", mark
        code = number_format(value["type"])
        numbers = memoryview(array.array(code, value["numbers"]))
        shape = value.get("shape", [len(value["numbers"])])
        return numbers.cast("B").cast(code, shape) if math.prod(shape) else numbers

    async def dispatch(self, step: Step) -> None:
        client = self.clients[step["client"]]
        payload = [self.given(step["payload"])] if "payload" in step else []
        options: Step = dict(step.get("options", {}))
        if "progress" in step:
            options["on_progress"] = self.log_of(step["progress"]).put_nowait
        calls = [client.dispatch(step["action"], *payload, **options) for _ in range(step.get("times", 1))]
        responses = await asyncio.gather(*calls)
        if "providers" in step:
            assert sorted({response.provider for response in responses}) == step["providers"]
        for response in responses:
            self.check(step, response)

    def check(self, step: Step, response: Any) -> None:
        expect(self.filled(step.get("response", {})), response)
        if "failure" in step:
            assert response.error is not None, f"no failure: {response.data!r}"
            expect(self.filled(step["failure"]), response.error)
            return
        self.answered(step, response.unwrap())

    def answered(self, step: Step, data: Any) -> None:
        """Compares an answer, and remembers what the step wants to keep of it."""
        if "data" in step:
            expect(self.filled(step["data"]), data)
        for name, path in step.get("keep", {}).items():
            found = data
            for part in filter(None, path.split(".")):
                found = found[int(part)] if isinstance(found, list) else found[part]
            self.kept[name] = found

    async def register(self, step: Step) -> None:
        name = self.given(step["name"])
        capability = Scripted(step, self, self.log_of(step.get("sub", name)))
        options = {key: step[key] for key in ("shared", "concurrency") if key in step}
        await self.clients[step["client"]].register(name, capability, **options)

    async def unregister(self, step: Step) -> None:
        await self.clients[step["client"]].unregister(step["name"])

    async def register_task(self, step: Step) -> None:
        name: str = step["name"]
        behaviours = step["does"].get("each", [step["does"]])
        log, calls = self.log_of(str(step.get("sub", name))), 0

        async def task(data: Any) -> Any:
            nonlocal calls
            behaviour = behaviours[min(calls, len(behaviours) - 1)]
            calls += 1
            log.put_nowait({"task": name, "data": data})
            try:
                return await self.behave(behaviour, data)
            except asyncio.CancelledError:
                log.put_nowait({"cancelled": name})
                raise

        options = {key: step[key] for key in ("shared", "concurrency") if key in step}
        await self.clients[step["client"]].register_task(name, task, **options)

    async def unregister_task(self, step: Step) -> None:
        await self.clients[step["client"]].unregister_task(step["name"])

    async def share_task(self, step: Step) -> None:
        await self.clients[step["client"]].share_task(step["name"])

    async def unshare_task(self, step: Step) -> None:
        await self.clients[step["client"]].unshare_task(step["name"])

    async def behave(self, behaviour: Step, payload: Any) -> Any:
        """What a capability or a task does."""
        if "hold" in behaviour:
            await self.hold(behaviour["hold"])
        if "raise" in behaviour:
            raise ValueError(behaviour["raise"])
        if "busy" in behaviour:
            raise kps.Retry(behaviour["busy"])
        if "fail" in behaviour:
            raise failure(**behaviour["fail"])
        return payload if behaviour.get("echo") else self.given(behaviour.get("return"))

    def storage_options(self, given: Step) -> Step:
        """Options of a storage; a path is a file of the case's."""
        options: Step = {name: value if name == "path" else self.given(value) for name, value in given.items()}
        if isinstance(options.get("path"), dict):
            options["path"] = os.path.join(self.folder.name, options["path"]["$file"])
        return options

    async def save_stream(self, step: Step) -> None:
        """Saves the pieces as one value."""
        pieces = iter(self.given(step["pieces"]))
        options: Step = {name: self.given(value) for name, value in step.get("options", {}).items()}
        stored = await self.clients[step["client"]].storage.save(self.given(step["key"]), pieces, **options)
        self.answered(step, stored)

    async def read_stream(self, step: Step) -> None:
        """Reads a value piece by piece; the answer is all of it."""
        stream = await self.clients[step["client"]].storage.stream(step["key"], **step.get("options", {}))
        self.answered(step, b"".join([piece async for piece in stream]))

    async def abandon(self, step: Step) -> None:
        """Gives up a step in the background, and with it the call that it makes."""
        task = self.tasks.pop(step["name"])
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Scripted:
    """A capability that does what the case says."""

    def __init__(self, step: Step, calls: Calls, log: asyncio.Queue[Any]) -> None:
        self._log = log
        self._calls = calls
        self.operations = {name: script["schema"] for name, script in step["operations"].items() if "schema" in script}
        if step.get("hooks"):
            self.init = lambda: log.put_nowait({"hook": "init"})
            self.close = lambda: log.put_nowait({"hook": "close"})
        for name, script in step["operations"].items():
            setattr(self, name, self._operation(name, script))

    def _operation(self, name: str, script: Step) -> Callable[..., Awaitable[Any]]:
        behaviours = script.get("each", [script])
        calls = 0

        async def operation(payload: Any, context: kps.CallContext) -> Any:
            nonlocal calls
            behaviour = behaviours[min(calls, len(behaviours) - 1)]
            calls += 1
            self._log.put_nowait(
                {"operation": name, "payload": payload, "caller": context.caller, "attempt": context.attempt}
            )
            try:
                return await self._work(behaviour, payload, context)
            except asyncio.CancelledError:
                self._log.put_nowait({"cancelled": name})
                raise

        return operation

    async def _work(self, behaviour: Step, payload: Any, context: kps.CallContext) -> Any:
        for news in behaviour.get("progress", []):
            context.progress(self._calls.given(news))
        return await self._calls.behave(behaviour, payload)


def failure(code: str, message: str, **more: Any) -> kps.KpsError:
    kinds = [kind for kind in vars(kps).values() if isinstance(kind, type) and issubclass(kind, kps.KpsError)]
    error = next(kind for kind in kinds if kind.code == code)(message)
    for name, value in more.items():
        setattr(error, name, value)
    return error
