"""The steps of documents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from conformance_values import decode, expect

import kps

Step = dict[str, Any]


class Documents:
    """What the world does with documents."""

    clients: dict[str, Any]
    received: dict[str, asyncio.Queue[Any]]
    kept: dict[str, Any]
    filled: Callable[[Any], Any]
    answered: Callable[[Step, Any], None]
    log_of: Callable[[str], asyncio.Queue[Any]]

    def __init__(self) -> None:
        self.documents: dict[str, kps.Document] = {}

    def document(self, step: Step) -> kps.Document:
        return self.documents[step.get("document", "document")]

    async def open_document(self, step: Step) -> None:
        name = step.get("document", "document")
        options = {**step.get("options", {})}
        client = self.clients[step["client"]]
        document = await client.open_document(step.get("id", "d"), **options)
        document.on("*", self.log_of(name).put_nowait)
        self.documents[name] = document

    async def edit(self, step: Step) -> None:
        receipt = self.document(step).edit(given(self.filled(step["edit"])))
        if step.get("wait", True):
            self.edited(step, await receipt)

    def edited(self, step: Step, edited: Any) -> None:
        expect(step.get("edited", {}), edited)
        if "keep_version" in step:
            self.kept[step["keep_version"]] = edited["version"]

    async def edit_batch(self, step: Step) -> None:
        await asyncio.gather(*self.document(step).edit_batch(given(self.filled(step["operations"]))))

    async def undo(self, step: Step) -> None:
        self.edited(step, await self.document(step).undo(step.get("count", 1)))

    async def reads(self, step: Step) -> None:
        """Waits until it reads so."""
        document = self.document(step)
        await until(lambda: content(document), self.filled(wanted(step)))

    async def read_at(self, step: Step) -> None:
        expect(self.filled(wanted(step)), await self.document(step).at(self.filled(step["version"])))

    async def versions(self, step: Step) -> None:
        before, limit = self.filled(step.get("before")), step.get("limit", 100)
        self.answered(step, await self.document(step).versions(before=before, limit=limit))

    async def compact(self, step: Step) -> None:
        await self.document(step).compact(step.get("keep", 0))

    async def stream(self, step: Step) -> None:
        """Writes all of it, and waits for the end."""
        async with self.document(step).stream(flush_every=0.001, **step.get("options", {})) as stream:
            for token in step["tokens"]:
                stream.write(decode(token))
                await asyncio.sleep(0)

    async def set_presence(self, step: Step) -> None:
        self.document(step).set_presence(step["state"])

    async def present(self, step: Step) -> None:
        """Waits until the others are these."""
        document = self.document(step)

        def others() -> Any:
            known = document.presence
            return [{**each, "state": {**each["state"], "version": None}} for each in known]

        expected = [{**each, "state": {**each["state"], "version": None}} for each in step["others"]]
        await until(others, expected)

    async def unsynced(self, step: Step) -> None:
        document = self.document(step)
        await until(lambda: len(document.unsynced), step["count"])

    async def flush_document(self, step: Step) -> None:
        await self.document(step).flush()

    async def close_document(self, step: Step) -> None:
        left = await self.document(step).close(timeout=step.get("timeout", 5.0))
        expect(step.get("unsynced", len(left)), len(left))

    async def same_bytes(self, step: Step) -> None:
        """Whether subscriptions were told the same bytes, which are these events."""
        for event in step["events"]:
            messages = [await self.log_of(sub).get() for sub in step["subs"]]
            assert {message.data["event"] for message in messages} == {event}, messages
            assert len({message.raw for message in messages}) == 1, [message.raw for message in messages]


def wanted(step: Step) -> Any:
    return step["text"] if "text" in step else step.get("value")


def content(document: kps.Document) -> Any:
    return document.text if document.kind == "text" else document.value


def given(value: Any) -> Any:
    """With long texts written out."""
    if isinstance(value, dict):
        return decode(value) if "$repeat" in value else {name: given(each) for name, each in value.items()}
    return [given(each) for each in value] if isinstance(value, list) else value


async def until(read: Callable[[], Any], wanted: Any) -> None:
    """Waits for a value that no event announces; the step's patience ends it."""
    while read() != wanted:
        await asyncio.sleep(0.002)
