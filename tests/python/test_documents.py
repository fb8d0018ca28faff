"""Documents that several clients edit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kps
from link import Link
from local_server import pair, until

Run = Callable[[Any], Any]


def test_what_one_edits_all_see(run: Run) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            ann = await client.open_document("notes")
            bob = await server.open_document("notes", author="bob")
            edited = ann.edit({"type": "append", "text": "Hello"})
            assert ann.text == "Hello", "it is here at once"
            edited = await edited
            assert edited == {"op_id": edited["op_id"], "version": ann.version, "level": "applied"}
            await until(lambda: bob.text, "Hello")
            await bob.insert(5, ", Ann")
            await until(lambda: ann.text, "Hello, Ann")
            assert (ann.author, bob.author, ann.kind, ann.id) == ("a", "bob", "text", "notes")
            assert ann.is_connected and ann.unsynced == []
            assert repr(ann) == 'Document(id="notes", kind="text")'

    run(main)


def test_every_way_to_edit_text(run: Run) -> None:
    async def main() -> None:
        async with pair() as (_, client), await client.open_document("d") as document:
            document.append("one three")
            document.edit({"type": "insert", "after": "one", "text": " two"})
            document.edit({"type": "insert", "before": "one", "text": "🦀 "})
            document.replace(0, 1, "zero")
            document.replace_text("three", "3")
            document.delete(5, 4)
            receipt = document.edit([{"type": "append", "text": "!"}, {"type": "append", "text": "?"}])
            assert document.text == "zero two 3!?"
            await receipt
            first, second = document.edit_batch([{"type": "append", "text": "a"}, [{"type": "append", "text": "b"}]])
            assert (await first)["version"] < (await second)["version"]
            assert await document.at((await first)["version"]) == "zero two 3!?a"
            assert document.text == "zero two 3!?ab"
            assert await second == await second, "it may be awaited again"

    run(main)


def test_json(run: Run) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            ann = await client.open_document("j", kind="json")
            bob = await server.open_document("j", kind="json")
            await ann.merge({"list": [1, 2], "name": "ann", "big": 12345678901234567})
            await bob.patch([{"op": "add", "path": "/list/-", "value": {"deep": None}}])
            wanted = {"list": [1, 2, {"deep": None}], "name": "ann", "big": 12345678901234567}
            await until(lambda: ann.value, wanted)
            with pytest.raises(kps.RejectedError) as raised:
                ann.append("text")
            assert raised.value.code == "wrong_kind"
            with pytest.raises(kps.RejectedError):
                ann.text  # noqa: B018
            with pytest.raises(kps.ConflictError):
                await client.open_document("j", kind="text")

    run(main)


def test_what_does_not_fit_is_refused_and_nothing_is_done(run: Run) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            document = await client.open_document("d")
            await document.append("text text")
            for edit, code in [
                ({"type": "insert", "position": 99, "text": "x"}, "position_out_of_range"),
                ({"type": "delete", "position": 5, "length": 5}, "position_out_of_range"),
                ({"type": "replace", "anchor": "nowhere", "text": "x"}, "anchor_not_found"),
                ({"type": "replace", "anchor": "text", "text": "x"}, "anchor_not_unique"),
                ({"type": "append", "text": "x" * (20 << 20)}, "operation_too_large"),
                ({"type": "move"}, "invalid_operation"),
                ({"type": "append", "text": "x", "color": "red"}, "invalid_operation"),
                ([], "invalid_operation"),
            ]:
                with pytest.raises(kps.RejectedError) as raised:
                    document.edit(edit)
                assert raised.value.code == code, edit
                assert raised.value.event is None
            with pytest.raises(kps.RejectedError):
                document.edit_batch([{"type": "append", "text": "x"}, {"type": "delete", "position": 0, "length": 99}])
            assert document.text == "text text"
            # What only the server knows comes later, as an event too.
            heard: list[Any] = []
            document.on("rejected", heard.append)
            receipt = document.append("x" * (300 << 10))
            with pytest.raises(kps.RejectedError) as raised:
                await receipt
            assert raised.value.code == "operation_too_large"
            await until(lambda: heard, [raised.value.event])
            assert document.text == "text text"

    run(main)


def test_without_rebasing_who_is_slower_hears_what_it_missed(run: Run) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            ann = await client.open_document("d", rebase=False)
            bob = await server.open_document("d")
            tries, conflict = 0, None
            while conflict is None and tries < 200:
                tries += 1
                slower, faster = ann.insert(0, "a"), bob.insert(0, "b")
                outcomes = await asyncio.gather(slower, faster, return_exceptions=True)
                conflict = outcomes[0] if isinstance(outcomes[0], kps.ConflictError) else None
                await until(lambda: ann.text == bob.text)
            assert conflict is not None, f"no conflict in {tries} tries"
            event = conflict.event
            assert event is not None and event["event"] == "conflict" and event["author"] == "a"
            assert any(missing["author"] != "a" for missing in event["missing_ops"])
            await until(lambda: ann.text == bob.text)
            assert ann.text.count("a") == tries - 1 and ann.text.count("b") == tries
            await ann.append("again")
            assert ann.text.endswith("again")

    run(main)


def test_events_are_the_same_for_all_to_the_byte(run: Run) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            own = await server.subscribe("kps.document.d")
            theirs = await client.subscribe("kps.document.d")
            ann = await client.open_document("d")
            heard: list[Any] = []
            off = ann.on("*", heard.append)
            changes: list[Any] = []

            async def slowly(event: Any) -> None:
                await asyncio.sleep(0)
                changes.append(event)

            ann.on("change", slowly)
            await ann.append("ü")
            first = [await own.__anext__() for _ in range(2)]
            second = [await theirs.__anext__() for _ in range(2)]
            assert [message.raw for message in first] == [message.raw for message in second]
            await until(lambda: len(heard), 2)
            assert heard == [json.loads(message.raw) for message in first]
            assert [event["event"] for event in heard] == ["change", "ack"]
            await until(lambda: len(changes), 1)
            off()
            await ann.append("!")
            await until(lambda: len(changes), 2)
            assert len(heard) == 2
            with pytest.raises(kps.InvalidArgumentError):
                ann.on("changed", print)

    run(main)


def test_undo_versions_and_compact(run: Run) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            ann, bob = await client.open_document("d"), await server.open_document("d")
            await ann.append("one")
            await bob.append(" bob")
            await until(lambda: ann.text, "one bob")
            two = await ann.append(" two")
            assert (await ann.undo(2))["version"] == ann.version
            assert ann.text == " bob"
            page = await ann.versions(limit=3)
            assert page["version"] == ann.version
            assert [it["author"] for it in page["versions"]][:2] == ["a", "a"] and len(page["versions"]) == 3
            assert len(page["versions"][0]["undoes"]) == 2
            older = await ann.versions(before=two["version"])
            assert len(older["versions"]) == 2
            with pytest.raises(kps.RejectedError) as raised:
                await ann.undo()
            assert raised.value.code == "nothing_to_undo"
            await ann.compact()
            with pytest.raises(kps.NotFoundError):
                await ann.at(two["version"])
            with pytest.raises(kps.InvalidArgumentError):
                await ann.at("soon")

    run(main)


def test_a_stream_stays_in_one_piece(run: Run) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            agent = await client.open_document("story")
            person = await server.open_document("story")
            await person.append("Title.\n")
            await until(lambda: agent.text, "Title.\n")
            tokens = [f"{n} " for n in range(300)]

            async def write() -> None:
                async with agent.stream(flush_every=0.001) as stream:
                    for token in tokens:
                        stream.write(token)
                        await asyncio.sleep(0)

            async def disturb() -> None:
                for n in range(50):
                    await person.append(".")
                    await person.insert(n, ",")

            await asyncio.gather(write(), disturb())
            await until(lambda: person.text == agent.text)
            assert "".join(tokens) in agent.text
            async with agent.stream(before="Title", flush_every=10.0) as stream:
                stream.write("A ")
                stream.write("Great ")
            assert "A Great Title" in agent.text.replace(",", "")
            empty = agent.stream()
            assert await empty.close() is None
            with pytest.raises(kps.ClosedError):
                empty.write("x")
            with pytest.raises(kps.RejectedError):
                agent.stream(after="nowhere")

    run(main)


def test_who_is_there_and_where(run: Run) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            ann, bob = await client.open_document("d"), await server.open_document("d")
            await ann.append("Hello")
            await until(lambda: bob.text, "Hello")
            ann.set_presence({"name": "Ann", "cursor": 5, "selection": [0, 5]})
            await until(lambda: len(bob.presence), 1)
            (seen,) = bob.presence
            assert (seen["client"], seen["author"]) == ("a", "a")
            assert (seen["state"]["name"], seen["state"]["cursor"]) == ("Ann", 5)
            bob.insert(0, ">> ")
            (seen,) = bob.presence
            assert (seen["state"]["cursor"], seen["state"]["selection"]) == (8, [0, 8])
            assert ann.presence == []
            ann.set_presence(None)
            await until(lambda: bob.presence, [])
            with pytest.raises(kps.InvalidArgumentError):
                ann.set_presence([1])

    run(main)


def test_what_is_edited_without_a_connection_is_sent_later(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with kps.Server("127.0.0.1:0") as server:
            link = Link(server.address)
            await link.open()
            outbox = tmp_path / "outbox"
            url = f"ws://{link.address}"
            bob = await server.open_document("d")
            client = await kps.connect(url, id="ann", outbox=outbox, reconnect_max=0.1)
            ann = await client.open_document("d")
            await ann.append("one")
            link.refusing = True
            link.cut()
            ann.append(" two")
            ann.insert(0, "zero ")
            assert len(ann.unsynced) == 2
            await until(lambda: ann.is_connected, False)
            assert len(await ann.close(timeout=0.01)) == 2
            await client.close(timeout=0.1)
            await bob.insert(3, "!")
            link.refusing = False
            async with await kps.connect(url, id="ann", outbox=outbox) as client:
                ann = await client.open_document("d")
                assert ann.text == "zero one! two"
                await ann.flush()
                await until(lambda: bob.text, "zero one! two")
            await link.close()

    run(main)


def test_a_closed_document_says_so(run: Run) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            document = await client.open_document("d")
            heard: list[Any] = []
            document.on("closed", heard.append)
            async with document:
                document.append("text")
            await until(lambda: len(heard), 1)
            assert heard[0]["code"] == "closed"
            with pytest.raises(kps.ClosedError):
                document.append("more")
            with pytest.raises(kps.ClosedError):
                await document.flush()
            assert document.text == "text"
            again = await client.open_document("d")
            assert again.text == "text"
            with pytest.raises(kps.InvalidPayloadError):
                await client.open_document("")
            with pytest.raises(kps.InvalidArgumentError):
                await client.open_document("d", kind="book")

    run(main)


def test_a_private_bus_has_documents_too(run: Run) -> None:
    async def main() -> None:
        async with await kps.connect("mem://") as client:
            first, second = await client.open_document("d"), await client.open_document("d", author="other")
            await first.append("text")
            await until(lambda: second.text, "text")

    run(main)
