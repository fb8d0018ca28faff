"""What clients and servers tell, beyond the conformance cases."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kps


def run(main: Any) -> Any:
    return asyncio.run(asyncio.wait_for(main, 20))


def test_who_listens_before_the_start_hears_of_it() -> None:
    async def main() -> None:
        started: asyncio.Queue[str] = asyncio.Queue()
        server = kps.Server("127.0.0.1:0")
        server.on("node_started", started.put_nowait)
        async with server:
            assert await started.get() == server.address

    run(main())


def test_a_server_tells_when_it_stops() -> None:
    async def main() -> None:
        stopping = asyncio.Event()
        async with kps.Server("127.0.0.1:0") as server:
            server.on("node_stopping", stopping.set)
        await stopping.wait()

    run(main())


def test_an_unknown_event_is_refused_before_the_start_too() -> None:
    async def main() -> None:
        server = kps.Server("127.0.0.1:0")
        with pytest.raises(kps.InvalidArgumentError, match="node_started"):
            server.on("no_such_event", print)
        async with server:
            with pytest.raises(kps.InvalidArgumentError, match="node_started"):
                server.on("no_such_event", print)

    run(main())


def test_the_servers_timeline_has_what_happened_before_anybody_listened() -> None:
    async def main() -> None:
        async with kps.Server("127.0.0.1:0") as server:
            async with await kps.connect(server.url, id="ann") as client:
                await client.subscribe("t.*", print)
                told = {entry["event"]: entry["detail"] for entry in server.timeline()}
            assert told["node_started"] == f"address={server.address}"
            assert told["subscription_opened"] == "client_id=ann topic=t.*"
            assert told["connection_opened"].startswith("client_id=ann remote=127.0.0.1:")

    run(main())


def test_an_error_of_a_handler_that_nobody_listens_for_is_an_error() -> None:
    def broken(message: kps.Message) -> None:
        raise ValueError(message.data)

    async def main() -> None:
        errors: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        async with kps.Server("127.0.0.1:0") as server, await kps.connect(server.url) as client:
            client.on("error", lambda *args: errors.put_nowait(args))
            server.on("error", lambda *args: errors.put_nowait(args))
            await client.subscribe("a", broken)
            await server.subscribe("b", broken)
            client.publish("a", "client")
            (error,) = await errors.get()
            assert isinstance(error, ValueError)
            client.publish("b", "server")
            error, client_id, remote = await errors.get()
            assert isinstance(error, ValueError) and client_id is None and remote is None

    run(main())


def test_what_the_server_tells_hides_what_its_own_client_tells_under_the_same_name() -> None:
    async def main() -> None:
        opened: list[tuple[Any, ...]] = []
        server = kps.Server("127.0.0.1:0")
        server.on("connection_opened", lambda *args: opened.append(args))
        async with server, await kps.connect(server.url, id="ann") as client:
            await client.flush()
            while not opened:
                await asyncio.sleep(0)
            assert [args[0] for args in opened] == ["ann"]

    run(main())


def test_an_audit_log_is_kept_and_its_limits_are_checked(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(kps.InvalidArgumentError, match="payloads"):
            await kps.Server("127.0.0.1:0", data=tmp_path, audit="payloads").start()
        async with kps.Server("127.0.0.1:0", data=tmp_path, audit=True) as server:
            await (await kps.connect(server.url, id="ann")).close()

    run(main())
    command = [
        str(Path(sys.executable).with_name("kps")),
        "audit",
        "--data",
        str(tmp_path),
        "--kind",
        "client_connected",
    ]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert printed.endswith("client_connected client_id=ann\n")
