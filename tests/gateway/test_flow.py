"""Participants that have HTTP and a parser of server-sent events, and nothing of kps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, connect_sse

from over_http import serving


@contextmanager
def listening(web: httpx.Client, path: str, last: str = "", **parameters: Any) -> Iterator[Iterator[ServerSentEvent]]:
    headers = {"Last-Event-ID": last} if last else {}
    with connect_sse(web, "GET", path, params=parameters, headers=headers) as source:
        assert isinstance(source, EventSource)
        source.response.raise_for_status()
        yield source.iter_sse()


def until(events: Iterator[ServerSentEvent], name: str) -> Any:
    return next(event.json() for event in events if event.event == name)


def told(events: Iterator[ServerSentEvent]) -> ServerSentEvent:
    """The next one that says something."""
    return next(event for event in events if event.data)


def test_a_stream_is_read_by_a_parser_of_others(web: httpx.Client, address: str) -> None:
    with listening(web, "/v1/events", topic=["news.*", "jobs"]) as events, httpx.Client(base_url=address) as other:
        for number in range(3):
            assert other.post("/v1/publish/news.one", json={"n": number}).status_code == 202
        other.post("/v1/publish/jobs", content="two\nlines", headers={"content-type": "text/plain"})
        other.post("/v1/publish/jobs", content=b"\0\1", headers={"content-type": "application/octet-stream"})
        messages = [told(events).json() for _ in range(5)]
    assert [message["data"] for message in messages[:3]] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert [message["data"] for message in messages[3:]] == ["two\nlines", {"$bytes": "AAE="}]
    assert [message["content_type"] for message in messages] == ["json", "json", "json", "text", "bytes"]


def test_a_reader_that_connects_again_misses_nothing(web: httpx.Client, address: str) -> None:
    with httpx.Client(base_url=address) as other:
        seen: list[int] = []
        last, published = "", 0
        for round_ in range(5):
            with listening(web, "/v1/events", last, topic="counted") as events:
                if last:
                    assert told(events).event == "resumed"
                while published < (round_ + 1) * 20:
                    assert other.post("/v1/publish/counted", json=published).status_code == 202
                    published += 1
                # It goes while half of it is on its way.
                while len(seen) < (round_ + 1) * 20 - 10:
                    event = told(events)
                    seen.append(event.json()["data"])
                    last = event.id
        assert seen == list(range(90))


def test_a_restart_is_a_gap_without_history_and_none_with_it(tmp_path: Any) -> None:
    options = ("--history", "kept.>", "--data", str(tmp_path))
    last = {}
    with serving(*options) as address, httpx.Client(base_url=address, timeout=20) as web:
        for topic in ("kept.a", "plain.a"):
            with listening(web, "/v1/events", topic=topic) as events, httpx.Client(base_url=address) as other:
                other.post(f"/v1/publish/{topic}", json=1)
                last[topic] = told(events).id
                other.post(f"/v1/publish/{topic}", json=2)
    with serving(*options) as address, httpx.Client(base_url=address, timeout=20) as web:
        with listening(web, "/v1/events", last["kept.a"], topic="kept.a") as events:
            # In whichever order they are told.
            told_ = {event.event: event.json() for event in (told(events), told(events))}
            assert told_["message"]["data"] == 2
            assert told_["resumed"] == {"topic": "kept.a", "replayed": 1}
        with listening(web, "/v1/events", last["plain.a"], topic="plain.a") as events:
            assert told(events).event == "gap"


def test_a_conflict_is_told_and_overcome_with_http_alone(web: httpx.Client, address: str) -> None:
    path = "/v1/documents/flow"
    assert web.put(path, json={"kind": "text"}).status_code == 201
    with listening(web, f"{path}/events") as events, httpx.Client(base_url=address) as other:

        def edit(op_id: str, base: str, position: int, text: str) -> None:
            body = {"op_id": op_id, "base_version": base, "author": "curl"}
            body["edit"] = {"type": "insert", "position": position, "text": text}  # type: ignore[assignment]
            assert other.post(f"{path}/operations", json=body).status_code == 202

        edit("1", 'W/"0"', 0, "hello")
        assert until(events, "ack")["op_id"] == "1"
        # It does not know of the other one.
        edit("2", 'W/"0"', 0, "!")
        conflict = until(events, "conflict")
        assert conflict["op_id"] == "2"
        missing = sum(len(text) for operation in conflict["missing_ops"] for _, _, text in operation["splices"])
        edit("2", conflict["server_version"], missing, "!")
        assert until(events, "ack")["op_id"] == "2"
        read = other.get(path)
        assert read.json()["text"] == "hello!"
        assert other.get(path, headers={"if-none-match": read.headers["etag"]}).status_code == 304


@pytest.mark.parametrize(
    "edit", [{"type": "append", "text": "x" * 20_000_000}, {"type": "fly"}, None, {"type": "delete"}]
)
def test_what_is_wrong_with_an_edit_is_an_event(web: httpx.Client, address: str, edit: Any) -> None:
    path = "/v1/documents/wrong"
    web.put(path, json={"kind": "text"})
    with listening(web, f"{path}/events") as events, httpx.Client(base_url=address, timeout=20) as other:
        op_id = json.dumps(edit)[:50]
        body = {"op_id": op_id, "base_version": 'W/"0"', "edit": edit}
        assert other.post(f"{path}/operations", json=body).status_code == 202
        rejected = until(events, "rejected")
        assert (rejected["op_id"], bool(rejected["code"])) == (op_id, True)
        assert other.get(path).json()["text"] == ""
