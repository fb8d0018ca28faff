"""Unmodified Yjs editors at `/yjs/{id}`: they converge through the server, whatever happens to it or to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import websockets
from editors import PATIENCE, PyEditor, Serve, editing, serving

import kps
from kps.types import Grant, TokenGrant


@pytest.fixture(autouse=True, scope="module")
def packages() -> None:
    if not (Path(__file__).parent / "node_modules").exists():
        pytest.fail("Yjs' own editors are not installed: npm ci --prefix tests/yjs, which `make test-python` does")


STEP_1_OF_NOTHING = bytes([0, 0, 1, 0])


def run(scene: Any) -> None:
    asyncio.run(asyncio.wait_for(scene, 120))


async def say(url: str, message: bytes) -> tuple[int, str]:
    """Says something nobody understands; returns the code and reason of the close."""
    async with websockets.connect(url) as connection:
        # It may be closed already.
        with suppress(websockets.ConnectionClosed):
            await connection.send(message)
        return await ended(connection)


async def ended(connection: websockets.ClientConnection) -> tuple[int, str]:
    async def read() -> None:
        while True:
            await connection.recv()

    with pytest.raises(websockets.ConnectionClosed) as caught:
        await asyncio.wait_for(read(), PATIENCE)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def test_editors_of_two_languages_converge_and_merge_what_they_did_offline(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            serving(tmp_path) as server,
            editing(server.url, "doc") as ann,
            editing(server.url, "doc") as bob,
        ):
            cy = PyEditor()
            async with cy.online(server.url, "doc"):
                await ann.do("insert", at=0, insert="grüße 🙂")
                await bob.do("reads", wanted="grüße 🙂")
                await cy.until(lambda text: text == "grüße 🙂")
                cy.text += " cy"
                await ann.do("reads", wanted="grüße 🙂 cy")
            # Each on its own.
            await ann.do("offline")
            await bob.do("offline")
            await ann.do("insert", at=0, insert="A1 ")
            await bob.do("insert", at=0, insert="B1 ")
            await bob.do("delete", at=3, count=6)
            cy.text += " C1"
            await ann.do("online")
            await bob.do("online")
            async with cy.online(server.url, "doc"):
                for piece in ("A1 ", "B1 ", " C1"):
                    await ann.do("has", wanted=piece)
                    await bob.do("has", wanted=piece)
                await cy.until(lambda text: all(piece in text for piece in ("A1 ", "B1 ", " C1")))
                one = await ann.do("text")
                assert (await bob.do("text"), str(cy.text)) == (one, one)
                assert "grüße" not in one, "what bob deleted is gone"

    run(scene())


def test_many_editors_who_write_at_once_converge(tmp_path: Path) -> None:
    """They are told after pauses, several edits as one; one who hears is told all of it as well."""
    words = [f"<{number}.{n}>" for number in range(14) for n in range(10)]

    async def write(editor: PyEditor, number: int) -> None:
        for n in range(10):
            editor.text.insert(random.randint(0, len(str(editor.text))), f"<{number}.{n}>")
            await asyncio.sleep(random.random() / 200)

    async def scene() -> None:
        async with serving(tmp_path) as server, editing(server.url, "doc") as ann, AsyncExitStack() as stack:
            editors = [await stack.enter_async_context(PyEditor().online(server.url, "doc")) for _ in range(14)]
            await asyncio.gather(*(write(editor, number) for number, editor in enumerate(editors)))
            length = sum(len(word) for word in words)
            for editor in editors:
                await editor.until(lambda text: len(text) == length)
            texts = {str(editor.text) for editor in editors}
            assert len(texts) == 1
            await ann.do("reads", wanted=texts.pop())

    run(scene())


def test_cursors_are_seen_by_others_and_gone_with_their_editor(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server, editing(server.url, "doc") as ann:
            state = {"user": {"name": "Bob", "color": "#f00"}, "cursor": 3}
            async with editing(server.url, "doc") as bob:
                client = await bob.do("me")
                await bob.do("show", state=state)
                await ann.do("sees", client=client, state=state)
                # One who comes later sees it as well.
                async with editing(server.url, "doc") as late:
                    await late.do("sees", client=client, state=state)
                await bob.do("offline")
                await ann.do("sees", client=client, state=None)
                await bob.do("online")
                await bob.do("show", state=state)
                await ann.do("sees", client=client, state=state)
            await ann.do("sees", client=client, state=None)

    run(scene())


def test_a_client_of_the_bus_and_editors_see_each_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server, editing(server.url, "doc") as ann:
            await ann.do("synced")
            client = await kps.connect(f"ws://{server.address}/ws/bus", id="bob")
            events = await client.subscribe("kps.document.doc")
            opened = await call(client, "document.open", {"id": "doc", "kind": "yjs"})
            me = await ann.do("me")
            await ann.do("show", state={"user": {"name": "Ann"}})
            told = await event(events, "presence", lambda it: it["state"] is not None and "user" in it["state"])
            assert (told["client"], told["state"]) == (f"yjs:{me}", {"user": {"name": "Ann"}})
            await call(client, "document.presence", {"id": "doc", "state": {"name": "Bob", "cursor": 4}})
            shown = {"user": {"name": "Bob"}, "kps": {"name": "Bob", "cursor": 4}}
            await seen(ann, shown)
            # Text, both ways.
            await ann.do("insert", at=0, insert="hello")
            told = await event(events, "change", lambda it: True)
            assert told["update"] and told["previous"] == opened["version"]
            read = await call(client, "document.read", {"id": "doc", "root": "text"})
            assert read["text"] == "hello"
            bob = PyEditor()
            bob.doc.apply_update(opened["update"])
            synced = await call(client, "document.sync", {"id": "doc", "state_vector": bob.doc.get_state()})
            bob.doc.apply_update(synced["update"])
            before = bob.doc.get_state()
            bob.text += " world"
            update = {"id": "doc", "op_id": "one", "update": bob.doc.get_update(before)}
            answer = await call(client, "document.update", update)
            assert answer["results"][0]["event"] == "ack"
            await ann.do("reads", wanted="hello world")
            again = await call(client, "document.update", update)
            assert again["results"][0]["version"] == answer["results"][0]["version"]
            await client.close()
            await seen(ann, shown, gone=True)

    run(scene())


def test_our_client_and_yjs_editors_converge_offline_edits_included(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server, editing(server.url, "doc") as ann:
            client = await kps.connect(f"ws://{server.address}/ws/bus", id="dan", reconnect_max=0.2)
            page = await client.open_document("doc", kind="yjs")
            cy = PyEditor()
            cy.doc.apply_update(page.state())
            updates: list[Any] = []
            page.on("update", updates.append)
            await page.append("grüße 🙂")
            assert page.text == "grüße 🙂"
            await ann.do("reads", wanted="grüße 🙂")
            await ann.do("insert", at=0, insert="> ")
            await until(lambda: page.text == "> grüße 🙂")
            # A document of pycrdt that the program binds to it.
            cy.doc.apply_update(page.state(cy.doc.get_state()))
            before = cy.doc.get_state()
            cy.text += " cy"
            page.apply_update(cy.doc.get_update(before))
            await ann.do("reads", wanted="> grüße 🙂 cy")
            await until(lambda: {it["origin"] for it in updates} == {"client", "server", "program"})
            # Nobody has a connection: the server is gone, and comes back as it was stored.
            await page.flush()
            await server.stop()
            page.insert(0, "P1 ")
            page.delete(len(page.text) - 3, 3)
            await ann.do("insert", at=0, insert="A1 ")
            cy.text += " C1"
            await server.start()
            async with cy.online(server.url, "doc"):
                for piece in ("P1 ", "A1 ", " C1"):
                    await ann.do("has", wanted=piece)
                    await until(lambda piece=piece: piece in page.text)
                await cy.until(lambda text: all(piece in text for piece in ("P1 ", "A1 ", " C1")))
                # What was deleted may come after that.
                await until(lambda: page.text == str(cy.text) and " cy" not in page.text)
                await ann.do("reads", wanted=page.text)
            page.set_presence({"name": "Dan", "color": "#0f0"})
            await seen(ann, {"user": {"name": "Dan", "color": "#0f0"}, "kps": {"name": "Dan", "color": "#0f0"}})
            me = await ann.do("me")
            await ann.do("show", state={"user": {"name": "Ann"}})
            await until(lambda: any(it["client"] == f"yjs:{me}" for it in page.presence))
            with pytest.raises(kps.RejectedError):
                page.insert(1000, "x")
            with pytest.raises(kps.RejectedError):
                page.apply_update(b"\x01\x02")
            assert await page.close() == []
            await client.close()

    run(scene())


async def until(is_so: Callable[[], bool]) -> None:
    async def look() -> None:
        while not is_so():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(look(), PATIENCE)


async def call(client: kps.Client, action: str, payload: dict[str, Any]) -> Any:
    return (await client.dispatch(action, payload)).unwrap()


async def event(events: Any, name: str, wanted: Any) -> Any:
    async def read() -> Any:
        async for message in events:
            if message.data["event"] == name and wanted(message.data):
                return message.data
        raise AssertionError("the subscription ended")

    return await asyncio.wait_for(read(), PATIENCE)


async def seen(editor: Any, state: Any, gone: bool = False) -> None:
    async def look() -> None:
        while (state in (await editor.do("there")).values()) is gone:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), PATIENCE)


def test_a_server_that_stops_keeps_everything(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server, editing(server.url, "a/b c") as ann:
            await ann.do("insert", at=0, insert="kept")
            async with editing(server.url, "a/b%20c") as bob:
                await bob.do("reads", wanted="kept")
            await ann.do("offline")
            await server.stop()
            await server.start()
            async with editing(server.url, "a/b c") as late:
                await late.do("reads", wanted="kept")

    run(scene())


def test_what_a_killed_server_had_not_stored_comes_back_from_the_editors(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server, editing(server.url, "doc") as ann:
            await ann.do("synced")
            # More than fifty operations are stored at once.
            await ann.do("many", count=60, insert="x")
            await checkpointed(server)
            await ann.do("insert", at=-1, insert=" late")
            await server.kill()
            await ann.do("insert", at=-1, insert=" later")
            await server.start()
            async with editing(server.url, "doc") as bob:
                await bob.do("reads", wanted="x" * 60 + " late later")
            await ann.do("offline")
            await server.kill()
            await server.start()
            # The editor is away: what was stored is there.
            async with editing(server.url, "doc") as bob:
                await bob.do("has", wanted="x" * 60)

    run(scene())


async def checkpointed(server: Serve) -> None:
    client = await kps.connect(f"ws://{server.address}/ws/bus")

    async def look() -> None:
        while True:
            read = await call(client, "document.open", {"id": "doc", "kind": "yjs"})
            number = int(read["checkpointed"].strip('W/"'))
            if number >= 60:
                return
            await asyncio.sleep(0.02)

    await asyncio.wait_for(look(), PATIENCE)
    await client.close()


def test_an_editor_hears_something_before_it_takes_the_connection_for_lost(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server, websockets.connect(f"{server.url}/doc", ping_interval=None) as quiet:
            assert (await quiet.recv()) == STEP_1_OF_NOTHING
            # Nothing happens, and yet there is a message: y-websocket gives up after 30 s.
            assert (await asyncio.wait_for(quiet.recv(), 29)) == bytes([1, 1, 0])

    run(scene())


def test_who_may_not_come_in_is_told_so_and_stays_away(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path, "--token", "s3cret") as server:
            async with editing(server.url, "doc") as stranger:
                assert (await stranger.do("closed"))["code"] == 4403
            async with editing(server.url, "doc", token="s3cret") as ann:
                await ann.do("synced")
                await ann.do("insert", at=0, insert="in")
                header = {"Authorization": "Bearer s3cret"}
                async with websockets.connect(f"{server.url}/doc", additional_headers=header) as bearer:
                    assert (await bearer.recv())[:2] == bytes([0, 0])
            with pytest.raises(websockets.InvalidStatus):
                await websockets.connect(
                    f"{server.url}/doc?token=s3cret", origin=websockets.Origin("https://evil.example")
                )

    run(scene())


def test_a_hook_decides_for_each_document_who_reads_it_and_who_writes_it() -> None:
    def on_connect(request: kps.ConnectRequest) -> Grant:
        room = request.path.removeprefix("/yjs/").partition("?")[0]
        may = {"name": request.name, "subscribe": ["kps.document.page"], "publish": ["kps.server.document.>"]}
        if request.name == "ann":
            may["publish"].append(f"kps.document.{room}")
        return may

    async def scene() -> None:
        tokens: dict[str, TokenGrant] = {"a": {"name": "ann"}, "b": {"name": "bob"}}
        async with kps.Server("127.0.0.1:0", tokens=tokens, on_connect=on_connect) as server:
            url = f"ws://{server.address}/yjs"
            # Who may only read comes first and makes nothing: it comes back until there is something.
            async with editing(url, "page", token="b") as bob, editing(url, "page", token="a") as ann:
                await ann.do("insert", at=0, insert="read me")
                await bob.do("reads", wanted="read me")
                await bob.do("show", state={"user": {"name": "bob"}})
                await seen(ann, {"user": {"name": "bob"}})
                await bob.do("insert", at=0, insert="do not ")
                closed = await bob.do("closed")
                assert closed["code"] == 4403
                assert "not change it" in closed["reason"]
                assert await ann.do("text") == "read me"
            async with editing(url, "other", token="b") as bob:
                closed = await bob.do("closed")
                assert closed["code"] == 4403
                assert "kps.document.other" in closed["reason"]

    run(scene())


def test_a_document_of_another_kind_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server:
            client = await kps.connect(f"ws://{server.address}/ws/bus")
            await call(client, "document.open", {"id": "plain", "kind": "text"})
            await call(
                client,
                "document.edit",
                {"id": "plain", "op_id": "1", "base_version": 'W/"0"', "edit": {"type": "append", "text": "x"}},
            )
            code, reason = await say(f"{server.url}/plain", STEP_1_OF_NOTHING)
            assert (code, reason.split(":")[0]) == (4409, "conflict")
            await client.close()

    run(scene())


def test_hostile_bytes_end_their_connection_and_nothing_else(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server, editing(server.url, "doc") as ann:
            await ann.do("insert", at=0, insert="safe")
            state = await ann.do("state")
            url = f"{server.url}/doc"
            for update in (
                b"",
                b"\xff" * 40,
                bytes([1, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1, 0]),
                bytes([1, 1, 7, 0, 8, 1, 1, ord("r"), 1]) + bytes([117, 1]) * 50_000,
                bytes([1, 1, 7, 0, 8, 1, 1, ord("r"), 1, 118, 0xFF, 0xFF, 0xFF, 0x7A]),
            ):
                code, _ = await say(url, bytes([0, 2]) + length(update) + update)
                assert code == 4400, update[:10]
            assert (await say(url, b""))[0] == 1002
            assert (await say(url, bytes([0, 0, 5, 9])))[0] == 1002
            assert (await say(url, bytes([0, 0, 5, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F])))[0] == 4400
            dice = random.Random(7)
            for _ in range(50):
                noise = dice.randbytes(dice.randrange(60))
                async with websockets.connect(url) as connection:
                    await connection.send(bytes([dice.randrange(4), dice.randrange(3)]) + noise)
            # Unknown messages are skipped.
            async with websockets.connect(url) as connection:
                await connection.send(bytes([77, 1, 2, 3]))
                await connection.send(STEP_1_OF_NOTHING)
                answers = [await connection.recv() for _ in range(2)]
                assert [bytes(answer)[:2] for answer in answers if bytes(answer)[:1] == b"\0"][:1] == [bytes([0, 0])]
            await ann.do("insert", at=-1, insert=" and sound")
            async with editing(server.url, "doc") as bob:
                await bob.do("reads", wanted="safe and sound")
            assert state

    run(scene())


def length(update: bytes) -> bytes:
    out, rest = bytearray(), len(update)
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def test_large_documents_travel_whole(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server, editing(server.url, "doc") as ann:
            await ann.do("insert", at=0, insert="x" * 3_000_000)
            async with editing(server.url, "doc") as bob:
                await bob.do("has", wanted="x" * 3_000_000)
            cy = PyEditor()
            async with cy.online(server.url, "doc"):
                await cy.until(lambda text: len(text) == 3_000_000)

    run(scene())


def test_many_editors_at_once_converge(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path) as server:
            editors = [PyEditor() for _ in range(8)]

            async def edit(number: int, editor: PyEditor) -> None:
                async with editor.online(server.url, "doc"):
                    for round in range(30):
                        editor.text.insert(len(str(editor.text)) // 2, f"<{number}.{round}>")
                        await asyncio.sleep(0)
                    whole = [f"<{n}.{r}>" for n in range(8) for r in range(30)]
                    length = sum(map(len, whole))
                    await editor.until(lambda text: len(text) == length)

            await asyncio.gather(*(edit(number, editor) for number, editor in enumerate(editors)))
            assert len({str(editor.text) for editor in editors}) == 1

    run(scene())
