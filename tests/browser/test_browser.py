"""Web pages and the bus: a hostile one stays out, an allowed one takes part."""

from __future__ import annotations

import asyncio
import base64
import json
import os

import pytest

import kps
from chromium import site, visit


def test_a_hostile_page_can_neither_open_the_bus_nor_publish_to_it() -> None:
    async def scene() -> None:
        async with kps.Server("127.0.0.1:0") as server, site() as pages:
            heard = await server.subscribe(">")
            report = await visit(pages, "hostile", server.address)
            assert report["kpsJson"] == report["kpsV1"] == "closed 1006"
            # A foreign page may not even read the refusal; blind posts are answered, and do nothing.
            assert report["post"] == "TypeError"
            assert report["blindPost"] in ("opaque 0", "TypeError")
            await server.publish("end", "nothing came before")
            assert (await anext(heard)).data == "nothing came before"
            assert server.count_clients() == 0

    asyncio.run(scene())


def test_a_page_of_an_allowed_origin_speaks_kps_json_with_the_browsers_own_websocket() -> None:
    async def scene() -> None:
        async with site() as pages, kps.Server("127.0.0.1:0", allowed_origins=[pages.origin]) as server:
            await server.subscribe("desk", lambda _message: "yes")
            both = asyncio.Event()

            async def ask(message: kps.Message) -> None:
                if message.sender == "page" and not both.is_set():
                    both.set()
                    asked.append(server.publish_with_ack("room", "still there?", timeout=20))

            asked: list[kps.Ack] = []
            await server.subscribe("room", ask)
            report = await visit(pages, "friendly", server.address)
            assert report["id"] == "page"
            assert report["own"] == {"text": "from the page"}
            assert report["asked"] == "still there?"
            assert [row["success"] for row in report["responses"].values()] == [True]
            assert (await asked[0].wait())["page"].success

    asyncio.run(scene())


def upgrade(address: str, **headers: str) -> bytes:
    fields = {
        "Host": address,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET /ws/bus HTTP/1.1\r\n{lines}\r\n".encode()


async def status(address: str, request: bytes) -> int:
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    return int(line.split()[1])


REQUESTS = [
    pytest.param({}, 101, id="no Origin: a program"),
    pytest.param({"Origin": "http://{address}"}, 101, id="its own origin"),
    pytest.param({"Origin": "http://evil.example"}, 403, id="a foreign origin"),
    pytest.param({"Origin": "http://127.0.0.1:1"}, 403, id="another port of this machine"),
    pytest.param({"Origin": "null"}, 403, id="a sandboxed page or a file"),
    pytest.param({"Origin": "http://{address}.evil.example"}, 403, id="a name that starts alike"),
    pytest.param({"Host": "evil.example"}, 403, id="a rebound name"),
    pytest.param({"Host": "evil.example", "Origin": "http://evil.example"}, 403, id="a rebound name with its origin"),
    pytest.param({"Host": ""}, 403, id="an empty host"),
]


@pytest.mark.parametrize(("headers", "expected"), REQUESTS)
@pytest.mark.parametrize("protocol", ["", "kps.v1"])
def test_upgrades_by_their_exact_requests(headers: dict[str, str], expected: int, protocol: str) -> None:
    async def scene() -> None:
        async with kps.Server("127.0.0.1:0") as server:
            fields = {name: value.format(address=server.address) for name, value in headers.items()}
            if protocol:
                fields["Sec_WebSocket_Protocol"] = protocol
            answer = await status(server.address, upgrade(server.address, **fields))
            assert answer == expected or (expected == 403 and answer in (400, 403) and not fields.get("Host", "x"))

    asyncio.run(scene())


def test_posts_do_nothing() -> None:
    async def scene() -> None:
        async with kps.Server("127.0.0.1:0") as server:
            heard = await server.subscribe(">")
            body = json.dumps({"action": "publish", "topic": "t", "data": 1})
            head = f"POST /ws/bus HTTP/1.1\r\nHost: {server.address}\r\nContent-Length: {len(body)}\r\n"
            for origin in ("", "Origin: http://evil.example\r\n"):
                assert await status(server.address, f"{head}{origin}\r\n{body}".encode()) in (400, 403, 404, 405, 426)
            await server.publish("end", "nothing came before")
            assert (await anext(heard)).data == "nothing came before"

    asyncio.run(scene())
