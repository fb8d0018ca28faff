"""Everything that a document can do, with curl alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")

PATIENCE = "20"


def curl(address: str, *options: str, status: int = 200) -> Any:
    """The JSON that is answered."""
    command = ["curl", "-s", "--max-time", PATIENCE, "-w", "\n%{http_code}", address, *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    body, _, told = done.stdout.rpartition("\n")
    assert int(told) == status, done.stdout
    return json.loads(body) if body else None


@contextmanager
def listening(address: str) -> Iterator[Iterator[tuple[str, Any]]]:
    """Names and data of the events of a stream; it is there once its first line is."""
    command = ["curl", "-sN", "--max-time", PATIENCE, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "retry: 1000\n"
        yield events(process.stdout)
        process.kill()


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in lines:
        field, _, value = line.rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def until(told: Iterator[tuple[str, Any]], name: str) -> Any:
    return next(data for its, data in told if its == name)


def moved(position: int, splices: list[Any]) -> int:
    """Where what was at a position is, now that others wrote."""
    for at, deleted, inserted in splices:
        if at <= position:
            position += len(inserted) - min(deleted, position - at)
    return position


def test_a_document_from_its_first_word_to_its_last_undo(address: str) -> None:
    document = f"{address}/v1/documents/from-curl"
    made = curl(document, "-X", "PUT", "-d", '{"kind": "text"}', status=201)
    assert (made["text"], made["version"]) == ("", 'W/"0"')

    def edit(op_id: str, base: str, position: int, text: str) -> None:
        body = {"op_id": op_id, "author": "curl", "edit": {"type": "insert", "position": position, "text": text}}
        told = curl(f"{document}/operations", "-H", f"If-Match: {base}", "-d", json.dumps(body), status=202)
        assert told == {"accepted": 1, "op_ids": [op_id]}

    with listening(f"{document}/events") as told:
        edit("1", made["version"], 0, "hello")
        ack = until(told, "ack")
        assert (ack["op_id"], ack["author"], ack["level"]) == ("1", "curl", "applied")

        # It does not know of the first, is told what it missed, and sends the same again where it belongs now.
        edit("2", made["version"], 0, ", world")
        conflict = until(told, "conflict")
        missing = conflict["missing_ops"]
        assert (conflict["op_id"], conflict["base_version"]) == ("2", made["version"])
        assert [operation["op_id"] for operation in missing] == ["1"]
        assert conflict["server_version"] == ack["version"]
        place = moved(0, [splice for operation in missing for splice in operation["splices"]])
        edit("2", conflict["server_version"], place, ", world")
        ack = until(told, "ack")
        assert ack["op_id"] == "2"
        # Once more changes nothing: it is told that it is done.
        edit("2", conflict["server_version"], place, ", world")
        assert until(told, "ack") == ack

        read = curl(document)
        assert (read["text"], read["version"]) == ("hello, world", ack["version"])
        head = subprocess.run(["curl", "-sI", document], check=True, capture_output=True, text=True).stdout
        assert f"etag: {ack['version']}" in head.lower().replace("w/", "W/")
        curl(document, "-H", f"If-None-Match: {ack['version']}", status=304)
        assert curl(f"{document}?version={conflict['server_version']}".replace('"', "%22"))["text"] == "hello"
        versions = curl(f"{document}/versions?limit=10")["versions"]
        assert [version["op_id"] for version in versions] == ["2", "1"]

        curl(f"{document}/undo", "-d", '{"op_id": "3", "author": "curl"}', status=202)
        assert until(told, "change")["undoes"] == ["2"]
        assert until(told, "ack")["op_id"] == "3"
    assert curl(document)["text"] == "hello"
    refused = curl(f"{document}/operations", "-d", "{oops", status=400)
    assert refused["error"]["code"] == "invalid_payload"
