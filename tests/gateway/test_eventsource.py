"""An unmodified `EventSource` finds its way back by itself, and is told what it missed."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import httpx
import pytest

from over_http import serving

HERE = Path(__file__).parent
PATIENCE = 20
DOCUMENT, PLAIN, KEPT = range(3)


@pytest.fixture(autouse=True, scope="module")
def packages() -> None:
    if not (HERE.parent / "yjs/node_modules/eventsource").exists():
        pytest.fail(
            "the package eventsource is not installed: npm ci --prefix tests/yjs, which `make test-python` does"
        )


class Reader:
    """What the streams of one process tell, each on its own."""

    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self.queues: list[Queue[Any]] = [Queue() for _ in range(count)]
        Thread(target=self._read, args=(process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            self.queues[said["stream"]].put(said)

    def next(self, stream: int) -> Any:
        """The next event; that the server cannot be reached is none."""
        while (said := self.queues[stream].get(timeout=PATIENCE))["event"] == "error":
            pass
        return said

    def expect(self, stream: int, *names: str) -> list[Any]:
        said = [self.next(stream) for _ in names]
        assert [each["event"] for each in said] == list(names), said
        return said


@contextmanager
def reading(*addresses: str) -> Iterator[Reader]:
    process = subprocess.Popen(["node", str(HERE / "reader.mjs"), *addresses], stdout=subprocess.PIPE, text=True)
    try:
        yield Reader(process, len(addresses))
    finally:
        process.kill()
        process.wait()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def append(web: httpx.Client, op_id: str) -> None:
    """Appends to the text what the operation is called."""
    version = web.get("/v1/documents/notes").headers["etag"]
    body = {"op_id": op_id, "edit": {"type": "append", "text": op_id}}
    answer = web.post("/v1/documents/notes/operations", json=body, headers={"if-match": version})
    assert answer.status_code == 202


def publish(web: httpx.Client, topic: str, number: int) -> None:
    assert web.post(f"/v1/publish/{topic}", json=number).status_code == 202


def test_it_comes_back_after_a_restart_and_is_told_what_it_missed(tmp_path: Path) -> None:
    address = free_address()
    base = f"http://{address}"
    server = partial(serving, "--history", "kept.>", "--data", str(tmp_path), listen=address)
    streams = ["/v1/documents/notes/events", "/v1/events?topic=plain", "/v1/events?topic=kept.a"]
    with httpx.Client(base_url=base, timeout=PATIENCE) as web, reading(*(base + path for path in streams)) as reader:
        # It is there before the server is, and keeps asking.
        with server():
            for stream in (DOCUMENT, PLAIN, KEPT):
                reader.expect(stream, "open")
            assert web.put("/v1/documents/notes", json={"kind": "text"}).status_code == 201
            append(web, "a")
            change, ack = reader.expect(DOCUMENT, "change", "ack")
            assert change["data"]["splices"] == [[0, 0, "a"]]
            assert (ack["data"]["op_id"], ack["data"]["level"]) == ("a", "applied")
            for stream, topic in ((PLAIN, "plain"), (KEPT, "kept.a")):
                publish(web, topic, 1)
                assert reader.next(stream)["data"]["data"] == 1
        # What the server says as it ends: that all is stored now, and that it ends.
        for stream in (DOCUMENT, PLAIN, KEPT):
            told = [reader.next(stream)]
            while told[-1]["event"] != "closed":
                told.append(reader.next(stream))
            levels = [each["data"]["level"] for each in told[:-1]]
            assert levels == (["checkpointed"] if stream == DOCUMENT else [])
        with server():
            # Nobody may say which of them comes first: these, or the reader.
            publish(web, "kept.a", 2)
            for stream in (DOCUMENT, PLAIN, KEPT):
                reader.expect(stream, "open")
            for stream in (DOCUMENT, PLAIN):
                (gap,) = reader.expect(stream, "gap")
                assert (gap["data"]["reason"], gap["data"]["count"]) == ("session_expired", None)
            told = sorted((reader.next(KEPT) for _ in range(2)), key=lambda each: str(each["event"]))
            assert [each["event"] for each in told] == ["message", "resumed"]
            assert (told[0]["data"]["data"], told[1]["data"]["replayed"]) in ((2, 0), (2, 1))
            append(web, "b")
            change, ack = reader.expect(DOCUMENT, "change", "ack")
            assert (change["data"]["op_id"], ack["data"]["op_id"]) == ("b", "b")
            for stream, topic in ((PLAIN, "plain"), (KEPT, "kept.a")):
                publish(web, topic, 3)
                assert reader.next(stream)["data"]["data"] == 3
            assert web.get("/v1/documents/notes").json()["text"] == "ab"


def test_a_stream_that_is_refused_is_not_asked_for_again(address: str) -> None:
    with reading(f"{address}/v1/events") as reader:
        error = reader.queues[0].get(timeout=PATIENCE)
        assert (error["event"], error["data"]) == ("error", {"code": 400, "state": 2})
