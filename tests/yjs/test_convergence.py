"""Yjs editors and our clients, each in two languages, come to one content, whoever was away while others wrote."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from editors import serving
from sides import SIDES, Side, Wanted

import kps

# One of them is deleted with each mark.
LETTERS = "abcdefghijklmnopqrstuvwx"


@pytest.fixture(autouse=True, scope="module")
def packages() -> None:
    if not (Path(__file__).parent / "node_modules").exists():
        pytest.fail("Yjs' own editors are not installed: npm ci --prefix tests/yjs, which `make test-python` does")


class Writing:
    """What was written so far, by whom."""

    def __init__(self, sides: list[Side]) -> None:
        self.sides = sides
        self.marks: list[str] = []

    async def all_write(self) -> list[str]:
        """Each writes something of its own; returns the marks, one for each side."""
        new = [str(len(self.marks) + 10 + at) for at in range(len(self.sides))]
        for side, mark in zip(self.sides, new, strict=True):
            letter = LETTERS[len(self.marks)]
            self.marks.append(mark)
            await side.write(mark, letter, {"by": type(side).__name__, "n": [1, True, None, "🙂"]})
        return new

    def wanted(self, *, just: str | None = None, without: str | None = None) -> Wanted:
        pairs = zip(self.marks, LETTERS, strict=False)
        chosen = [(mark, letter) for mark, letter in pairs if mark != without and just in (None, mark)]
        return Wanted([mark for mark, _ in chosen], "".join(letter for _, letter in chosen))

    async def agree(self) -> dict[str, Any]:
        """Waits until all have all of it: the content is one."""
        await asyncio.gather(*(side.holds(self.wanted()) for side in self.sides))
        first, *others = [await side.value() for side in self.sides]
        assert others == [first] * len(others)
        return first


def test_four_kinds_of_writers_converge_offline_edits_included(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server, AsyncExitStack() as stack:
            client = await kps.connect(f"ws://{server.address}/ws/bus")
            async with await client.open_document("doc", kind="yjs") as page:
                await page.append(LETTERS)
            await client.close()
            sides: list[Side] = [side() for side in SIDES]
            for side in sides:
                await side.start(server, "doc")
                stack.push_async_callback(side.close)
            writing = Writing(sides)
            await writing.all_write()
            await writing.agree()
            # One after the other is away while all write.
            for away in sides:
                await away.offline()
                own = (await writing.all_write())[sides.index(away)]
                there = [side for side in sides if side is not away]
                await asyncio.gather(*(side.holds(writing.wanted(without=own)) for side in there))
                assert own not in [mark for side in there for mark in (await side.value())["list"]]
                await away.holds(writing.wanted(just=own))
                assert set(writing.marks[-len(sides) :]) & set((await away.value())["list"]) == {own}, "it was away"
                await away.online()
                await writing.agree()
            # All are away, and come back to what was stored.
            for side in sides:
                await side.offline()
            await server.stop()
            await writing.all_write()
            await server.start()
            for side in sides:
                await side.online()
            content = await writing.agree()
            assert content["text"].count("<") == len(LETTERS), "each mark is there once"
            assert sorted(content["list"]) == writing.marks
            assert set(content["map"]) == {*writing.marks, "last"}
            assert content["map"]["last"] in writing.marks[-len(sides) :]

    asyncio.run(asyncio.wait_for(scene(), 120))
