"""The embedded server: who is let in, its own client, its events, KPS' names for it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import Any

import pytest

import kps
from local_server import pair, until


def test_on_connect_decides_sync_or_async(run: Any) -> None:
    async def main() -> None:
        requests: list[kps.ConnectRequest] = []

        def decide(request: kps.ConnectRequest) -> Any:
            requests.append(request)
            if request.client_id == "broken":
                raise ValueError("no such door")
            return {"refused": False, "reader": {"publish": []}, "wrong": {"colour": 1}}.get(request.client_id)

        async def think(request: kps.ConnectRequest) -> Any:
            await asyncio.sleep(0)
            return decide(request)

        for hook in (decide, think):
            async with kps.Server("127.0.0.1:0", on_connect=hook) as server:
                async with (
                    await kps.connect(server.url, id="guest"),
                    await kps.connect(server.url, id="reader") as reader,
                ):
                    with pytest.raises(kps.UnauthorizedError):
                        await reader.publish("t", 1, receipt="accepted")
                for client_id, why in (("refused", "does not let"), ("broken", "no such door"), ("wrong", "colour")):
                    with pytest.raises(kps.UnauthorizedError, match=why):
                        await kps.connect(server.url, id=client_id)
        guest = requests[0]
        assert (guest.client_id, guest.name, guest.namespace, guest.path) == ("guest", None, "", "/ws/bus")
        assert guest.remote is not None
        assert guest.remote.startswith("127.0.0.1:")
        assert guest.headers["upgrade"] == "websocket"

    run(main)


def test_a_hook_whose_loop_has_ended_lets_nobody_in() -> None:
    server = kps.Server("127.0.0.1:0")
    server.on_connect(lambda _: True)
    asyncio.run(server.start())

    async def main() -> None:
        with pytest.raises(kps.KpsError):
            await kps.connect(server.url, timeout=1)
        await server.close()

    asyncio.run(main())


def test_decorators_and_events(run: Any) -> None:
    async def main() -> None:
        server = kps.Server("127.0.0.1:0", id="hub")
        heard: list[Any] = []

        @server.on_message_to_id
        def answer(message: kps.Message) -> str:
            heard.append(message.data)
            return "from the hub"

        server.on("client_connected", lambda client_id: heard.append(client_id))
        off = server.on("client_disconnected", heard.append)
        off()
        assert callable(answer)
        assert server.state == "closed"
        async with server:
            assert server.id == "hub"
            async with await kps.connect(server.url, id="a") as client:
                rows = await client.publish_to_id_with_ack("hub", "hello").wait()
                assert rows["hub"].data == "from the hub"
            await until(server.count_clients, 0)
            assert heard == ["a", "hello"]
            with pytest.raises(kps.InvalidArgumentError, match="before it starts"):
                server.on_connect(print)
        assert server.state == "closed"

    run(main)


def test_wrong_options_are_refused() -> None:
    async def main() -> None:
        with pytest.raises(kps.InvalidArgumentError, match="belong together"):
            await kps.Server("127.0.0.1:0", tls_cert="x").start()
        with pytest.raises(TypeError, match="tokens"):
            await kps.Server("127.0.0.1:0", tokens=["x"]).start()
        with pytest.raises(kps.InvalidArgumentError, match="colour"):
            await kps.Server("127.0.0.1:0", tokens={"x": {"colour": 1}}).start()
        with pytest.raises(OSError, match="listen"):
            await kps.Server("192.0.2.1:0", insecure=True).start()

    asyncio.run(main())


def test_the_names_of_kps(run: Any) -> None:
    async def main() -> None:
        server = kps.NewServer()
        heard: list[Any] = []
        server.OnUpgradeWS(lambda request: request.client_id != "banned")
        server.OnID(heard.append)
        server.OnServerData(heard.append)
        server.Run("127.0.0.1:0")
        await until(lambda: server.state, "connected")
        client = await kps.Client.NewClient(Address=server.address, Id="a")
        with pytest.raises(kps.UnauthorizedError):
            await kps.Client.NewClient(Address=server.address, Id="banned")
        unsub = await client.Subscribe("t", lambda data, unsub: None)
        assert (server.CountClients(), server.CountSubscribers("t")) == (1, 1)
        await client.PublishToID(server.Id, "direct")
        await until(lambda: heard, ["direct"])
        async with pair() as (other, _):
            await other.PublishToServer(server.address, {"any": 1})
            await until(lambda: heard, ["direct", {"any": 1}])
        await unsub()
        await until(lambda: server.CountSubscribers("t"), 0)
        await client.Close()
        await server.Close()

    run(main)


def test_run_serves_until_it_is_interrupted() -> None:
    source = """
import asyncio, threading, time, kps

def join():
    while server.state != "connected":
        time.sleep(0.01)
    asyncio.run(kps.connect(server.url))

server = kps.NewServer()
server.on("client_connected", lambda _: print(server.url, flush=True))
threading.Thread(target=join, daemon=True).start()
server.Run(":0")
print("over")
"""
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ws://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert (out, process.returncode) == ("over\n", 0)
