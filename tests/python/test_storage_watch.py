"""`storage.watch`: changes of this process' storage, and of the server's as messages of the bus."""

import asyncio
from typing import Any

import kps
from link import Link
from local_server import pair


class Watch:
    """A watch whose changes can be awaited."""

    def __init__(self, client: kps.Client, target: str | None) -> None:
        self.client, self.target = client, target
        self.changes: asyncio.Queue[Any] = asyncio.Queue()
        self.name = ""

    async def begin(self, prefix: str) -> None:
        payload = {"prefix": prefix, "callback": self.changes.put_nowait}
        response = await self.client.dispatch("storage.watch", payload, target=self.target)
        self.name = response.unwrap()["watch"]

    async def end(self) -> bool:
        response = await self.client.dispatch("storage.unwatch", {"watch": self.name}, target=self.target)
        ended: bool = response.unwrap()["unwatched"]
        return ended

    async def next(self) -> Any:
        return await asyncio.wait_for(self.changes.get(), 15)

    async def told(self) -> tuple[str, str | None]:
        change = await self.next()
        return change["event"], change.get("key")


async def save(client: Any, key: str, target: str | None = "server") -> Any:
    return (await client.dispatch("storage.save", {"key": key, "value": 1}, target=target)).unwrap()


def test_here_and_at_the_server_every_change_is_told_in_order_until_the_watch_ends(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client), await kps.connect(server.url, id="b") as other:
            for target, writer in [("server", other), (None, client)]:
                watch = Watch(client, target)
                await watch.begin("w/")
                saved = await save(writer, "w/1", target)
                await save(writer, "elsewhere", target)
                await save(writer, "w/2", target)
                (await writer.dispatch("storage.delete", {"key": "w/1"}, target=target)).unwrap()
                change = await watch.next()
                assert change == {"event": "saved", **{key: saved[key] for key in ("key", "etag", "size", "modified")}}
                assert await watch.told() == ("saved", "w/2")
                assert await watch.told() == ("deleted", "w/1")
                assert await watch.end() is True
                assert await watch.end() is False
                await save(writer, "w/3", target)
                again = Watch(client, target)
                await again.begin("")
                await save(writer, "w/4", target)
                # What was saved just before may have been told only now.
                while await again.told() != ("saved", "w/4"):
                    pass
                assert watch.changes.empty()

    run(main)


def test_the_servers_own_program_and_its_clients_hear_of_each_other(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            there = Watch(client, "server")
            await there.begin("")
            here = Watch(server, None)
            await here.begin("")
            await save(server, "k", None)
            await save(client, "l")
            for watch in (there, here):
                assert [await watch.told(), await watch.told()] == [("saved", "k"), ("saved", "l")]

    run(main)


def test_a_connection_that_comes_back_misses_nothing(run: Any) -> None:
    async def main() -> None:
        async with pair() as (server, other):
            link = Link(server.address)
            await link.open()
            async with await kps.connect(f"ws://{link.address}", id="far") as client:
                watch = Watch(client, "server")
                await watch.begin("")
                link.cut()
                for key in ("a", "b"):
                    await save(other, key)
                link.restore()
                assert [await watch.told(), await watch.told()] == [("saved", "a"), ("saved", "b")]
            await link.close()

    run(main)


def test_after_a_restart_the_watch_goes_on_and_says_that_changes_may_be_missing(run: Any) -> None:
    async def main() -> None:
        async with kps.Server("127.0.0.1:0") as server:
            address = server.address
            client = await kps.connect(server.url, id="a")
            watch = Watch(client, "server")
            await watch.begin("w/")
        async with kps.Server(address) as server:
            gap = await watch.next()
            assert gap == {"event": "gap", "reason": "new_epoch", "count": None}
            await save(server, "w/k", None)
            assert await watch.told() == ("saved", "w/k")
            await client.close()

    run(main)


def test_wrong_watches_are_refused_by_the_name_of_the_field(run: Any) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            for operation, payload, field in [
                ("watch", {}, "callback"),
                ("watch", {"callback": 1}, "callback"),
                ("watch", {"callback": print, "prefix": 1}, "prefix"),
                ("unwatch", {}, "watch"),
                ("unwatch", {"watch": 1}, "watch"),
            ]:
                for target in ("server", None):
                    response = await client.dispatch(f"storage.{operation}", payload, target=target)
                    assert (response.error.code, response.error.field) == ("invalid_payload", field)

    run(main)
