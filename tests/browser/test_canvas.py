"""The example canvas: two windows and an agent write one document at once, and all end with one text."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kps
from devtools import CONTROL, Window, browser

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "canvas"
PATIENCE = 60.0
READY = """new Promise((done) => {
  const look = () => globalThis.canvas && done(true);
  new MutationObserver(look).observe(document, { attributes: true, childList: true, subtree: true });
  look();
})"""


class Canvas:
    """The example as a process of its own."""

    def __init__(self, data: Path | None) -> None:
        self.data = [] if data is None else ["--data", data]
        self.listen = self.page = "127.0.0.1:0"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str) -> None:
        assert (EXAMPLE / "page" / "dist" / "page.js").exists(), "make examples/canvas/page/dist/page.js"
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            EXAMPLE / "serve.py",
            *("--listen", self.listen, "--page", self.page, *self.data, *arguments),
            stdout=asyncio.subprocess.PIPE,
        )
        # Started again it is where it was.
        self.listen = (await self.says(r"kps listens on ws://(\S+)"))[1]
        self.page = (await self.says(r"open http://([^/]+)/"))[1]

    async def says(self, pattern: str) -> re.Match[str]:
        async def find() -> re.Match[str]:
            async for line in self.process.stdout:
                if found := re.search(pattern, line.decode()):
                    return found
            raise AssertionError(f"it ended before it said {pattern}")

        return await asyncio.wait_for(find(), PATIENCE)

    async def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        await asyncio.wait_for(self.process.communicate(), PATIENCE)
        return self.process.returncode

    async def call(self, method: str, path: str) -> Any:
        body = b"{}" if method == "POST" else None
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self.listen}/v1/{path}", body, headers, method=method)

        def send() -> Any:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)

        return await asyncio.to_thread(send)


@asynccontextmanager
async def canvas(data: Path | None, *arguments: str) -> AsyncIterator[Canvas]:
    it = Canvas(data)
    await it.start(*arguments)
    try:
        yield it
    finally:
        if it.process.returncode is None:
            await it.end(signal.SIGTERM)


@asynccontextmanager
async def two_windows(it: Canvas) -> AsyncIterator[tuple[Window, Window]]:
    async with browser() as tools:
        ada = await tools.open(f"http://{it.page}/?name=Ada")
        bob = await tools.open(f"http://{it.page}/?name=Bob")
        for window in (ada, bob):
            assert await window.evaluate(READY)
        yield ada, bob


async def until(window: Window, condition: str) -> None:
    """Waits for what is true after some event."""
    await window.evaluate(f"canvas.shared.until(() => {condition})")


async def texts(it: Canvas, *windows: Window) -> list[str]:
    """What the windows show, once they have everything that the server has."""
    for window in windows:
        await until(window, "!canvas.shared.isPending")
    version = json.dumps((await it.call("GET", "documents/canvas"))["version"])
    for window in windows:
        await until(window, f"canvas.shared.version === {version}")
    return [await window.evaluate("canvas.view.state.doc.toString()") for window in windows]


async def agents_text(it: Canvas, version: str) -> str:
    """What the agent has, once it has that version."""
    while (answer := await it.call("POST", "request/canvas.text"))["version"] != version:
        pass
    return answer["text"]


async def write_until_conflicts(window: Window, name: str) -> str:
    """Words, one after the other, until some of them came too late, and were moved and sent again."""
    written = ""
    for count in range(500):
        word = f"{name}{count}😀 "
        await window.type(word)
        written += word
        if count >= 10 and await window.evaluate("canvas.shared.counts.conflict") > 0:
            return written
    raise AssertionError(f"nobody came too late in {len(written)} characters")


def test_two_windows_and_an_agent_write_at_once_and_all_have_the_stores_text(tmp_path: Path) -> None:
    async def scene() -> None:
        async with canvas(tmp_path) as it, two_windows(it) as (ada, bob):
            await it.says("the agent waits")
            await ada.evaluate("document.getElementById('start').click()")
            ours = await asyncio.gather(
                write_until_conflicts(ada, "ada"), write_until_conflicts(bob, "bob"), it.says("the agent is done")
            )
            first, second = await texts(it, ada, bob)
            found = await it.call("GET", "documents/canvas")
            assert first == second == found["text"] == await agents_text(it, found["version"])
            # A conflict moves what somebody writes, and takes nothing out of it.
            for part in (*ours[:2], "Beautiful is better than ugly.", "let's do more of those!"):
                assert part in first, part
            # Each sees where the others write.
            names = "[...document.querySelectorAll('.caret')].map((it) => it.textContent.split(' ')[0]).join()"
            await until(bob, f"{names}.includes('Ada')")
            await until(ada, f"{names}.includes('Bob')")
            log = await ada.evaluate("document.getElementById('log').textContent")
            assert "conflict mine was for" in log

            assert await it.end(signal.SIGTERM) == 0
            async with kps.Server("127.0.0.1:0", data=tmp_path) as server:
                stored = (await server.dispatch("document.read", {"id": "canvas"})).unwrap()
            assert stored["text"] == first
            assert stored["version"] == found["version"]

    asyncio.run(scene())


def test_what_is_typed_without_a_network_and_after_the_server_was_killed_arrives(tmp_path: Path) -> None:
    async def scene() -> None:
        async with canvas(tmp_path, "--no-agent") as it, two_windows(it) as (ada, bob):
            await ada.type("before ")
            await texts(it, ada, bob)
            await bob.go_offline(True)
            await bob.type("bob without network ")
            await ada.type("ada with it ")
            await bob.go_offline(False)
            first, second = await texts(it, ada, bob)
            assert first == second

            # The server forgets what it has not stored yet; the windows know it, and send it again.
            await it.end(signal.SIGKILL)
            await until(ada, "canvas.shared.status === 'offline'")
            await ada.type("ada without server 👩‍👩‍👧 ")
            await bob.type("bob as well ")
            await it.start("--no-agent")
            for window in (ada, bob):
                await until(window, "canvas.shared.status === 'live' && !canvas.shared.isPending")
            first, second = await texts(it, ada, bob)
            assert first == second
            for part in ("before ada with it ada without server 👩‍👩‍👧 ", "bob without network bob as well "):
                assert part in first

    asyncio.run(scene())


def test_undo_takes_back_ones_own_and_leaves_the_others(tmp_path: Path) -> None:
    async def scene() -> None:
        async with canvas(tmp_path, "--no-agent") as it, two_windows(it) as (ada, bob):
            for window, text in ((ada, "one "), (ada, "two "), (bob, "three ")):
                await window.call("Input.insertText", text=text)
                await texts(it, ada, bob)
            assert await texts(it, ada, bob) == ["three one two "] * 2
            await ada.press("z", CONTROL)
            await until(bob, "canvas.shared.text === 'three one '")
            await until(ada, "canvas.shared.text === 'three one '")
            await bob.press("z", CONTROL)
            await until(ada, "canvas.shared.text === 'one '")
            # There is nothing left of Bob's: that is said, and nothing happens.
            await bob.press("z", CONTROL)
            await until(bob, "canvas.shared.counts.rejected === 1")
            assert await texts(it, ada, bob) == ["one "] * 2

    asyncio.run(scene())


def test_a_server_that_keeps_nothing_and_comes_back_has_the_last_word() -> None:
    async def scene() -> None:
        async with canvas(None, "--no-agent") as it, two_windows(it) as (ada, bob):
            await ada.type("all of this is gone ")
            await texts(it, ada, bob)
            await it.end(signal.SIGKILL)
            await until(bob, "canvas.shared.status === 'offline'")
            await it.start("--no-agent")
            for window in (ada, bob):
                await until(window, "canvas.shared.status === 'live' && canvas.shared.text === ''")
            await ada.type("a new beginning ")
            assert await texts(it, ada, bob) == ["a new beginning "] * 2

    asyncio.run(scene())


def test_what_is_too_large_is_rejected_and_taken_back(tmp_path: Path) -> None:
    async def scene() -> None:
        async with canvas(tmp_path, "--no-agent") as it, two_windows(it) as (ada, bob):
            await ada.type("before ")
            # What is typed while another operation is on its way is one operation.
            await texts(it, ada, bob)
            await ada.call("Input.insertText", text="x" * 400_000)
            await until(ada, "canvas.shared.counts.rejected === 1")
            assert "operation_too_large" in await ada.evaluate("document.getElementById('log').textContent")
            await ada.type("after")
            assert await texts(it, ada, bob) == ["before after"] * 2

    asyncio.run(scene())
