"""A program written for KPS, in the way its documentation shows, that runs on `ksps` and on `kps`.

The test gives it `Client`; nothing else in it knows which package that is.
"""

from __future__ import annotations

import asyncio
from typing import Any

PROBES = ("ready?", "anybody left?")


async def run(Client: Any, address: str) -> dict[str, Any]:
    """Uses the whole API and returns what it saw, for the test to judge."""
    seen: dict[str, Any] = {}
    topic_messages: asyncio.Queue[Any] = asyncio.Queue()
    direct_messages: asyncio.Queue[Any] = asyncio.Queue()
    frames: asyncio.Queue[Any] = asyncio.Queue()
    closed = asyncio.Event()

    async def on_close() -> None:
        closed.set()

    async def on_id(data: Any, _subscriber: Any) -> None:
        if data.get("action") != "pong":
            direct_messages.put_nowait(data["data"])

    async def on_data(data: Any, _conn: Any) -> None:
        frames.put_nowait(data)

    async def on_topic(data: Any, _unsub: Any) -> None:
        if data not in PROBES:
            topic_messages.put_nowait(data)

    async def on_hard_topic(data: Any, _unsub: Any) -> None:
        if data not in PROBES:
            topic_messages.put_nowait(data)
            await silence.wait()

    silence = asyncio.Event()
    listener = await Client.NewClient(
        Id="listener", Address=address, OnId=on_id, OnDataWs=on_data, OnClose=on_close, Autorestart=False
    )
    speaker = await Client.NewClient(Id="speaker", Address=address)
    seen["ids"] = [listener.Id, speaker.Id]

    unsubscribe = await listener.Subscribe("events", on_topic)
    await confirmed(speaker, "events")
    await speaker.Publish("events", {"n": 1})
    await speaker.Publish("events", "two")
    seen["published"] = [await topic_messages.get(), await topic_messages.get()]

    await speaker.PublishToID("listener", {"type": "direct"})
    seen["direct"] = await direct_messages.get()

    ack = await speaker.PublishWithAck("events", "important", 5.0)
    seen["wait"] = await ack.Wait()
    ack = await speaker.PublishWithAck("events", "any", 5.0)
    seen["wait_any"] = await ack.WaitAny()
    ack = await speaker.PublishWithAck("nobody", "hello?", 5.0)
    seen["wait_nobody"] = await ack.Wait()
    ack = await speaker.PublishToIDWithAck("nobody", "hello?", 5.0)
    seen["wait_any_nobody"] = await ack.WaitAny()

    await listener.Subscribe("hard", on_hard_topic)
    await confirmed(speaker, "hard")
    ack = await speaker.PublishWithAck("hard", "think", 20.0)
    while (await topic_messages.get()) != "think":
        pass
    seen["status"] = await ack.GetStatus()
    seen["complete"] = await ack.IsComplete()
    waiting = asyncio.ensure_future(ack.Wait())
    await asyncio.sleep(0)  # `Wait` must have begun when `Cancel` comes
    await ack.Cancel()
    seen["wait_cancelled"] = await waiting
    seen["status_cancelled"] = await ack.GetStatus()
    silence.set()

    ack = await speaker.PublishWithAck("hard", "again", 5.0)
    seen["after_cancel"] = await ack.Wait()

    await unsubscribe()
    await listener.Unsubscribe("hard")
    ack = await gone(speaker, "events")
    seen["after_unsubscribe"] = await ack.Wait()
    seen["actions"] = sorted({frames.get_nowait()["action"] for _ in range(frames.qsize())})

    await listener.Close()
    await speaker.Close()
    seen["closed"] = closed.is_set()
    return seen


async def confirmed(speaker: Any, topic: str) -> None:
    """Returns once a subscription to `topic` is in force; KPS has no confirmation that a program could await."""
    while not await (await speaker.PublishWithAck(topic, "ready?", 5.0)).Wait():
        pass


async def gone(speaker: Any, topic: str) -> Any:
    """Returns an ack of `topic` once nobody subscribes to it any more."""
    while await (await speaker.PublishWithAck(topic, "anybody left?", 5.0)).Wait():
        pass
    return await speaker.PublishWithAck(topic, "nobody", 5.0)
