"""Four ways to write one document: Yjs editors in two languages, and our clients in the same two."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, Protocol

from editors import PATIENCE, Editor, PyEditor, Serve
from pycrdt import Array, Doc, Map, Text

import kps
from link import Link


class Wanted(NamedTuple):
    """Marks that were written, and letters that were deleted."""

    marks: list[str]
    letters: str

    def is_in(self, value: dict[str, Any]) -> bool:
        text, there = value.get("text", ""), value.get("list", [])
        return all(f"<{mark}>" in text and f" {mark} 🙂" in text and mark in there for mark in self.marks) and not any(
            letter in text for letter in self.letters
        )


class Side(Protocol):
    async def write(self, mark: str, letter: str, entry: Any) -> None:
        """Puts a mark at both ends of the text, into the map and the list, and deletes a letter."""

    async def offline(self) -> None: ...
    async def online(self) -> None: ...
    async def holds(self, wanted: Wanted) -> None:
        """Waits until it has all of that."""

    async def value(self) -> dict[str, Any]: ...
    async def close(self) -> None: ...


class Changing:
    """Something that a test waits for."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def change(self, *_: Any) -> None:
        self.changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async def look() -> None:
            while not is_so():
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(look(), PATIENCE)


class YWebsocket:
    """An unmodified `y-websocket`, in Node."""

    async def start(self, server: Serve, room: str) -> None:
        self.program = Editor()
        await self.program.start(server.url, room, {})
        await self.program.do("synced")

    async def write(self, mark: str, letter: str, entry: Any) -> None:
        await self.program.do("write", mark=mark, letter=letter, entry=entry)

    async def offline(self) -> None:
        await self.program.do("offline")

    async def online(self) -> None:
        await self.program.do("online")

    async def holds(self, wanted: Wanted) -> None:
        await self.program.do("holds", **wanted._asdict())

    async def value(self) -> dict[str, Any]:
        value: dict[str, Any] = await self.program.do("value")
        return value

    async def close(self) -> None:
        await self.program.stop()


class OurNode(YWebsocket):
    """Our Node client, with a `Y.Doc` that is bound to it."""

    async def start(self, server: Serve, room: str) -> None:
        self.link = Link(server.address)
        await self.link.open()
        self.program = Editor("client.mjs")
        await self.program.start(f"ws://{self.link.address}/ws/bus", room, {})

    async def offline(self) -> None:
        self.link.cut()
        await self.program.do("gone")

    async def online(self) -> None:
        self.link.restore()

    async def value(self) -> dict[str, Any]:
        value = await super().value()
        assert await self.program.do("bound") == value, "what is bound is the same"
        return value

    async def close(self) -> None:
        assert await self.program.do("close") == []
        await super().close()
        await self.link.close()


class Pycrdt(Changing):
    """A document of `pycrdt`, with the provider that comes with it."""

    async def start(self, server: Serve, room: str) -> None:
        self.address = (server.url, room)
        self.editor = PyEditor()
        self.doc = self.editor.doc
        self.roots = roots(self.doc)
        self.doc.observe(self.change)
        await self.online()

    async def write(self, mark: str, letter: str, entry: Any) -> None:
        text = self.roots["text"]
        text.insert(0, f"<{mark}>")
        del text[str(text).index(letter)]
        text += f" {mark} 🙂"
        put(self.roots, mark, entry)

    async def offline(self) -> None:
        await self.connection.aclose()

    async def online(self) -> None:
        self.connection = AsyncExitStack()
        await self.connection.enter_async_context(self.editor.online(*self.address))

    async def holds(self, wanted: Wanted) -> None:
        await self.until(lambda: wanted.is_in(value_of(self.roots)))

    async def value(self) -> dict[str, Any]:
        return value_of(self.roots)

    async def close(self) -> None:
        await self.connection.aclose()


class OurPython(Changing):
    """Our Python client, with a document of `pycrdt` that is bound to it."""

    async def start(self, server: Serve, room: str) -> None:
        self.link = Link(server.address)
        await self.link.open()
        self.client = await kps.connect(f"ws://{self.link.address}/ws/bus", id="python", reconnect_max=0.2)
        self.client.on("state", self.change)
        self.page = await self.client.open_document(room, kind="yjs")
        self.doc: Doc[Any] = Doc()
        self.roots = roots(self.doc)
        # As the manual binds them.
        self.page.on("update", self.take)
        self.doc.apply_update(self.page.state())
        self.doc.observe(lambda event: self.page.apply_update(event.update))

    def take(self, event: dict[str, Any]) -> None:
        if event["origin"] != "program":
            self.doc.apply_update(base64.b64decode(event["update"]))
        self.change()

    async def write(self, mark: str, letter: str, entry: Any) -> None:
        self.page.insert(0, f"<{mark}>")
        self.page.edit({"type": "delete", "anchor": letter})
        self.page.append(f" {mark} 🙂")
        put(self.roots, mark, entry)

    async def offline(self) -> None:
        self.link.cut()
        await self.until(lambda: self.client.state != "connected")

    async def online(self) -> None:
        self.link.restore()

    async def holds(self, wanted: Wanted) -> None:
        await self.until(lambda: wanted.is_in(self.page.value))
        # What is bound hears of it by an event.
        await self.until(lambda: wanted.is_in(value_of(self.roots)))

    async def value(self) -> dict[str, Any]:
        value: dict[str, Any] = self.page.value
        assert value_of(self.roots) == value, "what is bound is the same"
        return value

    async def close(self) -> None:
        assert await self.page.close() == []
        await self.client.close()
        await self.link.close()


def roots(doc: Doc[Any]) -> dict[str, Any]:
    return {name: doc.get(name, type=kind) for name, kind in {"text": Text, "map": Map, "list": Array}.items()}


def put(roots: dict[str, Any], mark: str, entry: Any) -> None:
    roots["map"][mark] = entry
    roots["map"]["last"] = mark
    roots["list"].append(mark)


def value_of(roots: dict[str, Any]) -> dict[str, Any]:
    return {"text": str(roots["text"]), "map": roots["map"].to_py(), "list": roots["list"].to_py()}


SIDES: list[Callable[[], Any]] = [YWebsocket, Pycrdt, OurPython, OurNode]
