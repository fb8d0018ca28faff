"""Every name of the API used with its types. Checked by `mypy --strict` and `pyright`; never run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import kps

if sys.version_info >= (3, 11):
    from typing import assert_type
else:
    from typing_extensions import assert_type


async def connecting() -> None:
    client = await kps.connect(
        "ws://127.0.0.1:9313", id="a", token="t", namespace="n", timeout=1, wait=True, reconnect=True,
        reconnect_min=0.1, reconnect_max=5.0, outbox_soft=1, outbox_hard=2, outbox_overflow="drop_oldest", ca="ca.pem",
    )  # fmt: skip
    assert_type(client, kps.Client)
    assert_type(client.id, str)
    assert_type(client.url, str)
    state: kps.State = client.state
    print(state)
    async with await kps.connect() as other:
        assert_type(other, kps.Client)


async def subscribing(client: kps.Client) -> None:
    async def answer(message: kps.Message) -> dict[str, int]:
        return {"n": len(message.raw)}

    subscription = await client.subscribe(
        "t.*", answer, group="g", concurrency=2, overflow="drop_oldest", capacity=10, start="new", durable=None
    )
    assert_type(subscription, kps.Subscription)
    await client.subscribe("t", lambda message: message.topic)
    async for item in subscription:
        assert_type(item, kps.Message | kps.Gap)
        if isinstance(item, kps.Gap):
            assert_type(item.topic, str)
            assert_type(item.count, int | None)
            assert_type(item.first, int | None)
            assert_type(item.last, int | None)
            reason: kps.GapReason = item.reason
            print(reason)
        else:
            assert_type(item.content_type, kps.ContentType)
            assert_type(item.headers, dict[str, str])
            assert_type(item.id, str)
            assert_type(item.sender, str)
            assert_type(item.seq, int)
            assert_type(item.epoch, int)
            assert_type(item.time, float)
            assert_type(item.attempt, int)
            assert_type(item.maybe_duplicate, bool)
            assert_type(item.retained, bool)
            item.respond({"ok": True})
            item.fail(ValueError("no"))
    async for batch in subscription.batches():
        print(len(batch))
    print(subscription.topic, subscription.ledger()["delivered"])
    await subscription.unsubscribe()
    await client.unsubscribe("t")


async def publishing(client: kps.Client) -> None:
    receipt = client.publish("t", {"n": 1}, headers={"a": "b"}, id="x", ttl=1.5, receipt="accepted", retain=True)
    client.publish("t", 1, to=["client-7", "principal:alice"], private=True, offline="latest")
    assert_type(receipt, kps.Receipt)
    assert_type(receipt.id, str)
    level: kps.ReceiptLevel = await receipt
    print(level)
    await client.publish_to_id("b", b"bytes")
    await client.publish_to_server("127.0.0.1:9313", "text", secure=False)
    ack = client.publish_with_ack("t", None, timeout=1)
    client.publish_with_ack("t", 1, headers={"n": "1"}, id="i", ttl=1.5, to=["b"], private=True, offline="drop")
    client.publish_to_id_with_ack("b", 1, 2, headers={"n": "1"}, id="i", ttl=1.5, private=True, offline="latest")
    assert_type(ack, kps.Ack)
    assert_type(await ack.wait(), dict[str, kps.AckRow])
    assert_type(await ack.wait_any(), kps.AckRow | None)
    assert_type(ack.status(), dict[str, bool])
    assert_type(ack.is_complete(), bool)
    async for row in ack:
        assert_type(row, kps.AckRow)
        status: kps.RowStatus = row.status
        assert_type(row.success, bool)
        assert_type(row.latency, float)
        if row.error is not None:
            print(status, row.error.type, row.error.text)
    ack.cancel()
    assert_type(client.publish_to_id_with_ack("b", 1), kps.Ack)
    print(await client.request("t", [1, 2], 0.5, to=("principal:ann",), ttl=1))


async def ending(client: kps.Client) -> None:
    def failed(message_id: str, error: kps.KpsError) -> None:
        print(message_id, error.code)

    remove = client.on("publish_failed", failed)
    remove()

    def pressed(on: bool) -> None:
        print(on)

    client.on("backpressure", pressed)
    print(client.ledger()["published"], client.timeline()[0]["event"])
    await client.flush()
    report = await client.close(timeout=1)
    assert_type(report, kps.CloseReport)
    assert_type(report.flushed, int)
    assert_type(report.abandoned, list[str])


async def serving() -> None:
    async with kps.Server("127.0.0.1:0", id="hub", token="t", stall_timeout=1) as server:
        assert_type(server.address, str)
        assert_type(server.count_clients(), int)
        assert_type(server.count_subscribers("t"), int)

        @server.on_connect
        def admit(request: kps.ConnectRequest) -> bool:
            return request.client_id != "mallory"

        @server.on_message_to_id
        async def hear(message: kps.Message) -> None:
            print(message.data)

        @server.on_server_message
        def relayed(message: kps.Message) -> None:
            print(message.data)

        print(admit, hear, relayed)

        def opened(client_id: str, name: str | None, remote: str, protocol: str, resumed: bool) -> None:
            print(client_id, name, remote, protocol, resumed)

        def pressed(client_id: str, topic: str, on: bool) -> None:
            print(client_id, topic, on)

        server.on("connection_opened", opened)
        server.on("backpressure", pressed)
        print(server.timeline()[0]["detail"])
        server.publish("t", 1)


async def as_kps() -> None:
    client = await kps.Client.NewClient(Id="a", Address="localhost:9313")
    unsubscribe = await client.Subscribe("t", lambda data, unsub: print(data))
    await client.Publish("t", 1)
    ack = await client.PublishWithAck("t", 1, 5.0)
    rows = await ack.Wait()
    response, ok = await ack.WaitAny()
    assert_type(ok, bool)
    print(rows, response, await ack.GetStatus(), await ack.IsComplete())
    await ack.Cancel()
    await unsubscribe()
    await client.Close()


async def keeping(folder: Path) -> None:
    options: kps.StorageOptions = {
        "path": folder / "values.db",
        "key": b"k" * 32,
        "versions": 3,
        "durability": "normal",
    }
    client = await kps.connect(storage=options)
    kps.Server(storage=folder)
    storage: kps.Storage = client.storage
    saved = await storage.save(
        "k", folder / "film", ttl=5, if_match="*", content_type="film", target="server",
        on_progress=lambda done, total: print(done, total),
    )  # fmt: skip
    assert_type(saved, kps.Stored)
    assert_type(saved["etag"], str)
    got = await storage.get("k", if_none_match=saved["etag"], version=None, target="client:b")
    assert_type(got["modified"], float)
    stream = await storage.stream("k")
    assert_type(stream, kps.StorageStream)
    assert_type((stream.etag, stream.size, stream.info), tuple[str, int, kps.Stored])
    async for piece in stream:
        assert_type(piece, bytes)
    stream.close()
    assert_type(await storage.get_to("k", folder / "copy"), kps.Stored)
    assert_type((await storage.exists("k"), await storage.delete("k", if_match=saved["etag"])), tuple[bool, bool])
    page = await storage.list("k", limit=5, cursor=None)
    assert_type(page, kps.StoredPage)
    assert_type(page["cursor"], str | None)


async def writing(client: kps.Client) -> None:
    document = await client.open_document("notes", kind="text", author="ann", rebase=False, rebases=3, timeout=2.0)
    assert_type(document, kps.Document)
    assert_type((document.text, document.version, document.unsynced), tuple[str, str, list[str]])
    receipt = document.edit({"type": "insert", "position": 3, "text": "x"})
    assert_type(receipt, kps.EditReceipt)
    edited = await receipt
    assert_type(edited, kps.Edited)
    assert_type(edited["version"], str)
    edits: list[kps.Edit] = [{"type": "delete", "anchor": "x"}, {"type": "append", "text": "y"}]
    document.edit(edits)
    assert_type(document.edit_batch([edits, edits[0]]), list[kps.EditReceipt])
    await document.undo(2)
    versions = await document.versions(before=edited["version"], limit=5)
    assert_type(versions["versions"][0]["time"], int)
    async with document.stream(after="x", flush_every=0.1) as stream:
        assert_type(stream, kps.DocumentStream)
        stream.write("token")
    off = document.on("conflict", lambda event: print(event["missing_ops"]))
    off()
    document.set_presence({"cursor": 3})
    assert_type(document.presence[0]["state"], dict[str, Any])
    try:
        await document.append("z")
    except kps.ConflictError as error:
        print(error.event)
    except kps.RejectedError as error:
        print(error.code, error.event)
    assert_type(await document.close(timeout=1.0), list[str])
