"""Runs the language-neutral cases of tests/conformance against the Python package."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from conformance_world import World

FOLDER = Path(__file__).parent.parent / "conformance" / "cases"
FILES = sorted(FOLDER.glob("*.json"))
CASES = [
    pytest.param(case, id=f"{file.stem}: {case['name']}")
    for file in FILES
    for case in json.loads(file.read_text())["cases"]
]


@pytest.mark.parametrize("case", CASES)
def test_case(case: dict[str, Any]) -> None:
    asyncio.run(run(case))


async def run(case: dict[str, Any]) -> None:
    world = World()
    step: dict[str, Any] = {}
    try:
        await world.start_server({"options": case.get("server", {})})
        for step in case["steps"]:
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
        "wait_any", "status", "rows", "on", "close", "server",
    }  # fmt: skip
