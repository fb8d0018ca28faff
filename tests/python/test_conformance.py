"""Runs the language-neutral cases of tests/conformance against the Python package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance_world import World

FOLDER = Path(__file__).parent.parent / "conformance" / "cases"
FILES = sorted(FOLDER.glob("*.json"))
Step = dict[str, Any]


def cases() -> Iterator[Any]:
    for file in FILES:
        content = json.loads(file.read_text())
        for case in content["cases"]:
            ways = case.get("ways", content.get("ways")) or {"": {}}
            for way, defaults in ways.items():
                yield pytest.param(case, defaults, id=f"{file.stem}: {case['name']} {way}".strip())


@pytest.mark.parametrize(("case", "defaults"), list(cases()))
def test_case(case: Step, defaults: Step) -> None:
    asyncio.run(run(case, defaults))


def in_way(step: Step, defaults: Step) -> Step:
    """The step, with what its way adds."""
    step = dict(step)
    for name, value in defaults.get(step["do"], {}).items():
        own = step.setdefault(name, value)
        if isinstance(own, dict) and isinstance(value, dict):
            step[name] = {**value, **own}
    return step


async def run(case: Step, defaults: Step) -> None:
    world = World()
    step: Step = {}
    try:
        await world.start_server({"options": case.get("server", {})})
        for step in case["steps"]:
            step = in_way(step, defaults)
            await world.take(step)
        await world.join_all()
    except BaseException as error:
        error.add_note(f"in step {json.dumps(step)}") if hasattr(error, "add_note") else None
        raise
    finally:
        await world.end()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_row_has_its_plain_case_its_error_its_timeout_and_its_disconnect(file: Path) -> None:
    content = json.loads(file.read_text())
    have = {case["kind"] for case in content["cases"]} | set(content.get("none", {}))
    assert have == {"plain", "error", "timeout", "disconnect"}


def test_there_is_a_file_for_every_row_of_the_table() -> None:
    rows = {json.loads(file.read_text())["row"] for file in FILES}
    assert rows >= {
        "connect", "subscribe", "iterate", "unsubscribe", "publish", "publish_to_id",
        "publish_to_server", "publish_with_ack", "publish_to_id_with_ack", "request", "wait",
        "wait_any", "status", "rows", "on", "close", "server", "dispatch", "register",
        "storage", "compute", "tasks", "sync",
    }  # fmt: skip
