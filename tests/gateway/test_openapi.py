"""The server does what its OpenAPI document says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

HERE = Path(__file__).parent
JSON = {"content-type": "application/json"}
EDIT = {"op_id": "1", "base_version": 'W/"0"', "edit": {"type": "append", "text": "a"}}

# Of each path: a request of each status that can be had without another participant. Those of one path come one after
# the other.
REQUESTS: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/v1/publish/{topic}", {"json": 1}, 202),
    ("POST", "/v1/publish/{topic}", {"content": b"{oops", "headers": JSON}, 400),
    ("POST", "/v1/publish/{topic}", {"json": 1, "params": {"receipt": "stored"}}, 409),
    ("POST", "/v1/publish/{topic}", {"content": b"x" * (2 << 20)}, 413),
    ("POST", "/v1/publish/{topic}", {"content": b"x", "headers": {"content-type": "image/png"}}, 415),
    ("GET", "/v1/publish/{topic}", {}, 405),
    ("POST", "/v1/request/{topic}", {"json": 1}, 503),
    ("POST", "/v1/request/{topic}", {"json": 1, "params": {"timeout": "never"}}, 400),
    ("POST", "/v1/dispatch/{action}", {"json": None}, 200),
    ("POST", "/v1/dispatch/{action}", {"json": None, "params": {"target": "local"}}, 400),
    ("POST", "/v1/dispatch/{action}", {"json": None, "params": {"target": "client:nobody"}}, 503),
    ("GET", "/v1/events", {}, 400),
    ("GET", "/v1/events", {"params": {"topic": "a", "start": "all"}}, 501),
    ("GET", "/v1/documents/{id}", {}, 404),
    ("PUT", "/v1/documents/{id}", {"json": {"kind": "text"}}, 201),
    ("PUT", "/v1/documents/{id}", {"json": {"kind": "text"}}, 200),
    ("PUT", "/v1/documents/{id}", {"json": {"kind": "json"}}, 409),
    ("PUT", "/v1/documents/{id}", {"json": {}}, 400),
    ("GET", "/v1/documents/{id}", {}, 200),
    ("GET", "/v1/documents/{id}", {"headers": {"if-none-match": 'W/"0"'}}, 304),
    ("POST", "/v1/documents/{id}/operations", {"json": EDIT}, 202),
    ("POST", "/v1/documents/{id}/operations", {"json": [EDIT]}, 202),
    ("POST", "/v1/documents/{id}/operations", {"json": {"operations": [EDIT]}, "headers": {"if-match": 'W/"0"'}}, 202),
    ("POST", "/v1/documents/{id}/operations", {"json": EDIT, "headers": {"if-match": 'W/"1"'}}, 400),
    ("POST", "/v1/documents/{id}/operations", {"json": []}, 400),
    ("GET", "/v1/documents/{id}", {"params": {"version": 'W/"0"'}}, 200),
    ("GET", "/v1/documents/{id}/versions", {}, 200),
    ("GET", "/v1/documents/{id}/versions", {"params": {"limit": 0}}, 400),
    ("POST", "/v1/documents/{id}/undo", {"json": {"op_id": "2"}}, 202),
    ("POST", "/v1/documents/{id}/undo", {"json": {}}, 400),
    ("POST", "/v1/documents/{id}/presence", {"json": {"state": {"at": 1}}}, 202),
    ("POST", "/v1/documents/{id}/presence", {"json": {"state": 1}}, 400),
    ("POST", "/v1/documents/{id}/compact", {"json": {"keep": 0}}, 200),
    ("POST", "/v1/documents/{id}/compact", {"json": {"keep": "all"}}, 400),
    ("POST", "/v1/documents/{id}/close", {}, 200),
    ("DELETE", "/v1/documents/{id}", {}, 405),
    ("POST", "/v1/documents/{id}/events", {}, 405),
    ("GET", "/openapi.json", {}, 200),
    ("GET", "/healthz", {}, 200),
    ("GET", "/readyz", {}, 200),
    ("GET", "/metrics", {}, 200),
]
NAMES = {"topic": "walk", "action": "kps.ping", "id": "walk"}


@pytest.fixture(scope="module")
def document(address: str) -> Any:
    return httpx.get(f"{address}/openapi.json").json()


def check(document: Any, method: str, path: str, answer: httpx.Response) -> None:
    """The answer is one that the document names for the path."""
    item = document["paths"][path]
    operation = item.get(method.lower())
    # A method that the document does not have is answered as others that it does.
    operation = operation or next(item[name] for name in ("get", "post", "put") if name in item)
    described = operation["responses"][str(answer.status_code)]
    registry = Registry().with_resource("", Resource.from_contents(document, default_specification=DRAFT202012))
    if "$ref" in described:
        described = registry.resolver("").lookup(described["$ref"]).contents
    if not answer.content:
        assert "content" not in described
        return
    kind = answer.headers["content-type"].split(";")[0]
    schema = described["content"][kind]["schema"]
    body = answer.json() if kind == "application/json" else answer.text
    Draft202012Validator(schema, registry=registry, _resolver=registry.resolver("")).validate(body)


def test_the_document_is_valid(document: Any) -> None:
    validate(document)


@pytest.mark.parametrize(("method", "path", "request_", "status"), REQUESTS)
def test_every_path_answers_as_it_says(
    document: Any, web: httpx.Client, method: str, path: str, request_: dict[str, Any], status: int
) -> None:
    answer = web.request(method, path.format(**NAMES), **request_)
    assert answer.status_code == status, answer.text
    check(document, method, path, answer)
    if status >= 400:
        assert {"code", "message"} <= answer.json()["error"].keys()


def test_every_path_is_among_them(document: Any) -> None:
    streams = {"/v1/documents/{id}/events"}
    assert {path for _, path, _, _ in REQUESTS} | streams == document["paths"].keys()


def test_what_is_made_up_is_answered_as_the_document_says(address: str) -> None:
    """Requests that its schemas allow, and requests that they do not."""
    command = [str(Path(sys.executable).parent / "st"), "--config-file", str(HERE / "schemathesis.toml"), "run"]
    options = ["--exclude-path-regex", "events$", "--max-examples", "15", "--phases", "coverage,fuzzing"]
    options += ["--seed", "9313", "--no-color"]
    run = subprocess.run([*command, f"{address}/openapi.json", *options], capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
