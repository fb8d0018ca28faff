"""Windows of a headless Chromium, driven as its developer tools do: keys go in, what a page says comes out."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from chromium import FLAGS, INSTALL

PATIENCE = 60.0
CONTROL = 2
KEYS = {"Enter": ("Enter", 13, "\r"), "Backspace": ("Backspace", 8, ""), "End": ("End", 35, ""), "z": ("KeyZ", 90, "")}


class DevTools:
    """The connection to a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.waiting: dict[int, asyncio.Future[Any]] = {}

    async def listen(self) -> None:
        with suppress(ConnectionClosed):
            async for text in self.socket:
                answer = json.loads(text)
                future = self.waiting.pop(answer.get("id"), None)
                if future is None or future.done():
                    continue
                if "error" in answer:
                    future.set_exception(RuntimeError(answer["error"]["message"]))
                else:
                    future.set_result(answer["result"])

    async def call(self, method: str, session: str = "", **parameters: Any) -> Any:
        number = next(self.numbers)
        future = self.waiting[number] = asyncio.get_running_loop().create_future()
        where = {"sessionId": session} if session else {}
        await self.socket.send(json.dumps({"id": number, "method": method, "params": parameters, **where}))
        return await asyncio.wait_for(future, PATIENCE)

    async def open(self, url: str) -> Window:
        target = await self.call("Target.createTarget", url="about:blank", newWindow=True)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        window = Window(self, attached["sessionId"])
        # Each takes keys as if it were in front.
        await window.call("Emulation.setFocusEmulationEnabled", enabled=True)
        await window.call("Network.enable")
        # Answered when the page is there: what is evaluated from now on is evaluated in it.
        await window.call("Page.navigate", url=url)
        return window


class Window:
    """One window."""

    def __init__(self, tools: DevTools, session: str) -> None:
        self.tools = tools
        self.session = session

    async def call(self, method: str, **parameters: Any) -> Any:
        return await self.tools.call(method, self.session, **parameters)

    async def evaluate(self, expression: str) -> Any:
        """What JavaScript gives; promises are awaited."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"].get("description", answer))
        return answer["result"].get("value")

    async def type(self, text: str) -> None:
        """Text, character by character."""
        for character in text:
            if character == "\n":
                await self.press("Enter")
            else:
                await self.call("Input.insertText", text=character)

    async def press(self, key: str, modifiers: int = 0) -> None:
        code, number, text = KEYS[key]
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def go_offline(self, offline: bool) -> None:
        limits = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.call("Network.emulateNetworkConditions", offline=offline, **limits)


@asynccontextmanager
async def browser() -> AsyncIterator[DevTools]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, INSTALL
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            chromium,
            *FLAGS,
            "--disable-background-timer-throttling",
            "--disable-renderer-backgrounding",
            f"--user-data-dir={profile}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        chatter = None
        try:
            address = await asyncio.wait_for(found(process.stderr), PATIENCE)
            # Whatever else it says is read, or it would stop saying it.
            chatter = asyncio.create_task(process.stderr.read())
            async with connect(address, max_size=None) as socket:
                tools = DevTools(socket)
                listening = asyncio.create_task(tools.listen())
                yield tools
                listening.cancel()
        finally:
            process.terminate()
            await process.wait()
            if chatter:
                await chatter


async def found(stderr: asyncio.StreamReader) -> str:
    """The address that it prints."""
    async for line in stderr:
        _, is_it, address = line.decode(errors="replace").partition("DevTools listening on ")
        if is_it:
            return address.strip()
    raise AssertionError("Chromium ended before it said where it listens")
