"""The interpreter of conformance steps: what tests/conformance/README.md describes, over kps."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from conformance_calls import Calls
from conformance_documents import Documents
from conformance_values import decode, expect, matches

import kps
from link import Link

PATIENCE = 10.0
EVENTS = [
    "state", "connection_opened", "connection_closed", "closed", "goaway", "gap", "resumed", "subscription_closed",
    "publish_failed", "backpressure", "outbox_flushed", "handler_error", "error",
]  # fmt: skip
SERVER_EVENTS = [
    "node_started", "node_stopping", "connection_opened", "connection_closed", "client_connected",
    "client_disconnected", "subscription_opened", "subscription_closed", "backpressure", "messages_dropped",
    "dead_lettered", "store_failed", "error",
]  # fmt: skip
Step = dict[str, Any]


class Gate:
    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.held = 0
        self.changed = asyncio.Condition()


class World(Calls, Documents):
    """Everything a case names: servers, links, clients, subscriptions, acks, gates, background steps."""

    def __init__(self) -> None:
        Calls.__init__(self)
        Documents.__init__(self)
        self.servers: dict[str, kps.Server] = {}
        self.addresses: dict[str, str] = {}
        self.links: dict[str, Link] = {}
        self.clients: dict[str, Any] = {}
        self.subs: dict[str, Any] = {}
        self.received: dict[str, asyncio.Queue[Any]] = {}
        self.events: dict[tuple[str, str], asyncio.Queue[tuple[Any, ...]]] = {}
        self.acks: dict[str, Any] = {}
        self.gates: dict[str, Gate] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.cursors: dict[str, str | None] = {}
        self.folder = tempfile.TemporaryDirectory()

    async def take(self, step: Step) -> None:
        work = self.expecting_error(step) if "error" in step else self.act(step)
        if "as" in step:
            self.tasks[step["as"]] = asyncio.create_task(work)
        else:
            await asyncio.wait_for(work, PATIENCE)

    async def act(self, step: Step) -> None:
        method = cast(Callable[[Step], Awaitable[None]], getattr(self, step["do"]))
        await method(step)

    async def expecting_error(self, step: Step) -> None:
        try:
            await self.act(step)
        except kps.KpsError as error:
            assert error.code == step["error"], f"{error.code}: {error}"
            if "refused" in step:
                expect(step["refused"], getattr(error, "event", None))
        else:
            raise AssertionError(f"no error; expected {step['error']}")

    async def join(self, step: Step) -> None:
        await self.tasks.pop(step["name"])

    async def join_all(self) -> None:
        for task in self.tasks.values():
            await asyncio.wait_for(task, PATIENCE)

    async def end(self) -> None:
        for gate in self.gates.values():
            gate.open.set()
        for task in self.tasks.values():
            task.cancel()
        for client in self.clients.values():
            if client not in self.servers.values():
                await client.close(timeout=0)
        for server in self.servers.values():
            await server.close(timeout=0)
        for link in self.links.values():
            await link.close()
        self.folder.cleanup()

    # Servers and links.

    async def start_server(self, step: Step) -> None:
        name = step.get("server", "server")
        options = {**step.get("options", {})}
        script = options.pop("on_connect", None)
        listen = options.pop("listen", self.addresses.get(name, "127.0.0.1:0"))
        listen = self.address(listen)
        if "data" in options:
            options["data"] = self.folder.name
        if "storage" in options:
            options["storage"] = self.storage_options(options["storage"])
        server = kps.Server(listen, **options)
        if script is not None:
            server.on_connect(lambda request: decide(script, request))
        server.on_server_message(lambda message: self.log(name, "server_message", message))
        server.on_message_to_id(lambda message: self.log(name, "message_to_id", message))
        for event in SERVER_EVENTS:
            server.on(event, lambda *args, event=event: self.log(name, event, *args))
        await server.start()
        self.servers[name] = self.clients[name] = server
        self.addresses[name] = server.address

    def address(self, to: Any) -> str:
        return self.addresses[to["server"]] if isinstance(to, dict) else to

    async def stop_server(self, step: Step) -> None:
        await self.servers.pop(step.get("server", "server")).close(timeout=1)

    async def remove_durable(self, step: Step) -> None:
        self.servers[step.get("server", "server")].remove_durable(step["name"])

    async def count(self, step: Step) -> None:
        server = self.servers[step.get("server", "server")]
        if "clients" in step:
            await until(lambda: server.count_clients(), step["clients"])
        else:
            await until(lambda: server.count_subscribers(step["topic"]), step["subscribers"])

    async def cut(self, step: Step) -> None:
        self.links[step["client"]].cut()

    async def restore(self, step: Step) -> None:
        self.links[step["client"]].restore()

    async def freeze(self, step: Step) -> None:
        self.links[step["client"]].freeze()

    async def thaw(self, step: Step) -> None:
        self.links[step["client"]].thaw()

    async def let_pass(self, step: Step) -> None:
        await asyncio.sleep(step["time"])

    # Clients.

    async def connect(self, step: Step) -> None:
        name = step["client"]
        address = self.addresses[step.get("server", "server")]
        link = self.links.get(name) or Link(address)
        self.links[name] = link
        await link.open(cut=step.get("cut", False), frozen=step.get("frozen", False))
        options = {"id": name, "reconnect_min": 0.01, "reconnect_max": 0.05}
        options |= step.get("options", {})
        if "outbox" in options:
            options["outbox"] = os.path.join(self.folder.name, options["outbox"]["$file"])
        if "storage" in options:
            options["storage"] = self.storage_options(options["storage"])
        client = await kps.connect(step.get("url", f"ws://{link.address}"), **options)
        self.clients[name] = client
        for event in EVENTS:
            client.on(event, lambda *args, event=event: self.log(name, event, *args))
        if "direct" in step:
            handle = self.handler(step["direct"], lambda m: self.log(name, "message_to_id", m))
            client.on("message_to_id", handle)

    def log(self, client: str, event: str, *args: Any) -> None:
        self.events.setdefault((client, event), asyncio.Queue()).put_nowait(args)

    async def event(self, step: Step) -> None:
        queue = self.events.setdefault((step["client"], step["name"]), asyncio.Queue())
        while True:
            args = await asyncio.wait_for(queue.get(), PATIENCE)
            if matches(step.get("args", []), args[: len(step.get("args", []))]):
                return
            assert step.get("skip"), f"{step['name']}: {args!r}"

    async def on(self, step: Step) -> None:
        client, name = step["client"], step["name"]
        self.clients[client].on(name, lambda *args: self.log(client, name, *args))

    async def state(self, step: Step) -> None:
        await until(lambda: self.clients[step["client"]].state, step["is"])

    async def flush(self, step: Step) -> None:
        await self.clients[step["client"]].flush()

    async def close(self, step: Step) -> None:
        report = await self.clients[step["client"]].close(timeout=step.get("timeout", 5.0))
        expect(step.get("report", {}), report)

    # Subscriptions.

    async def subscribe(self, step: Step) -> None:
        client, name = self.clients[step["client"]], step.get("sub", "sub")
        queue: asyncio.Queue[Any] = asyncio.Queue()
        handler = None
        if "handler" in step:
            handler = self.handler(step["handler"], queue.put_nowait)
        self.received[name] = queue
        options = {**step.get("options", {})}
        if isinstance(options.get("start"), dict):
            options["start"] = self.cursors[options["start"]["$cursor"]]
        self.subs[name] = await client.subscribe(decode(step["topic"]), handler, **options)

    def remember(self, step: Step, message: kps.Message) -> None:
        if "cursor" in step:
            self.cursors[step["cursor"]] = message.cursor

    def handler(self, script: Any, log: Callable[[Any], None]) -> Callable[[Any], Any]:
        behaviours = script if isinstance(script, list) else [script]
        calls = 0

        async def handle(message: Any) -> Any:
            nonlocal calls
            behaviour = behaviours[min(calls, len(behaviours) - 1)]
            calls += 1
            log(message)
            if behaviour == "never":
                await asyncio.Event().wait()
            if "hold" in behaviour:
                await self.hold(behaviour["hold"])
            if "retry" in behaviour:
                raise kps.Retry(delay=behaviour["retry"])
            if "raise" in behaviour:
                raise ValueError(behaviour["raise"])
            return decode(behaviour.get("return"))

        return handle

    def gate(self, name: str) -> Gate:
        return self.gates.setdefault(name, Gate())

    async def hold(self, name: str) -> None:
        gate = self.gate(name)
        async with gate.changed:
            gate.held += 1
            gate.changed.notify_all()
        await gate.open.wait()

    async def started(self, step: Step) -> None:
        gate = self.gate(step["gate"])
        async with gate.changed:
            await gate.changed.wait_for(lambda: gate.held >= step.get("count", 1))

    async def release(self, step: Step) -> None:
        self.gate(step["gate"]).open.set()

    async def expect(self, step: Step) -> None:
        for expected in step["messages"]:
            message = await self.log_of(step.get("sub", "sub")).get()
            expect(self.filled(expected), message)
            self.remember(step, message)

    async def expect_last(self, step: Step) -> None:
        """Skips messages until the last expected one; those before it may come in any number."""
        for expected in step["messages"]:
            expected = self.filled(expected)
            while not matches(expected, message := await self.log_of(step.get("sub", "sub")).get()):
                pass
            self.remember(step, message)

    async def expect_nothing(self, step: Step) -> None:
        assert self.log_of(step["sub"]).empty()

    async def expect_many(self, step: Step) -> None:
        seen: list[int] = []
        if "subs" not in step:
            queue = self.received[step.get("sub", "sub")]
            seen = [(await queue.get()).data for _ in range(step["count"])]
            assert seen == list(range(step["count"]))
            return
        await until(lambda: sum(self.received[s].qsize() for s in step["subs"]), step["count"])
        for sub in step["subs"]:
            mine = [self.received[sub].get_nowait().data for _ in range(self.received[sub].qsize())]
            assert mine and mine == sorted(mine), f"{sub}: {mine}"
            seen += mine
        assert sorted(seen) == list(range(step["count"]))

    async def next(self, step: Step) -> None:
        try:
            item = await anext(self.subs[step.get("sub", "sub")])
        except StopAsyncIteration:
            assert step.get("message", 0) is None, "the iterator ended"
            return
        if "gap" in step:
            assert isinstance(item, kps.Gap), repr(item)
            expect(step["gap"], item)
            return
        assert isinstance(item, kps.Message), repr(item)
        assert step.get("message", 0) is not None, f"not ended: {item!r}"
        expect(step.get("message", {}), item)
        self.remember(step, item)
        then = step.get("then", {})
        if "respond" in then:
            item.respond(decode(then["respond"]))
        if "fail" in then:
            item.fail(ValueError(then["fail"]), delay=then.get("delay"))

    async def next_many(self, step: Step) -> None:
        seen: list[int] = []
        async for batch in self.subs[step.get("sub", "sub")].batches():
            seen += [message.data for message in batch]
            if len(seen) >= step["count"]:
                break
        assert seen == list(range(step["count"]))

    async def unsubscribe(self, step: Step) -> None:
        if "topic" in step:
            await self.clients[step["client"]].unsubscribe(step["topic"])
        else:
            await self.subs[step.get("sub", "sub")].unsubscribe()

    async def ledger(self, step: Step) -> None:
        sub = self.subs[step.get("sub", "sub")]
        await until(lambda: {key: sub.ledger()[key] for key in step["is"]}, step["is"])

    # Publishing.

    async def publish(self, step: Step) -> None:
        client = self.clients[step["client"]]
        receipt = client.publish(decode(step["topic"]), decode(step.get("data")), **step.get("options", {}))
        await settled(receipt, step)

    async def publish_many(self, step: Step) -> None:
        for number in range(step["count"]):
            await self.clients[step["client"]].publish(step["topic"], number)

    async def publish_to_id(self, step: Step) -> None:
        client = self.clients[step["client"]]
        await settled(client.publish_to_id(step["to"], decode(step.get("data"))), step)

    async def publish_to_server(self, step: Step) -> None:
        client = self.clients[step["client"]]
        receipt = client.publish_to_server(self.address(step["to"]), decode(step.get("data")))
        await settled(receipt, step)

    async def publish_with_ack(self, step: Step) -> None:
        client = self.clients[step["client"]]
        ack = client.publish_with_ack(decode(step["topic"]), decode(step.get("data")), **asking(step))
        self.acks[step.get("ack", "ack")] = ack

    async def publish_to_id_with_ack(self, step: Step) -> None:
        client = self.clients[step["client"]]
        ack = client.publish_to_id_with_ack(step["to"], decode(step.get("data")), **asking(step))
        self.acks[step.get("ack", "ack")] = ack

    async def request(self, step: Step) -> None:
        client = self.clients[step["client"]]
        answer = await client.request(decode(step["topic"]), decode(step.get("data")), **asking(step))
        expect(step.get("answer", {"$any": True}), answer)

    # Acks.

    async def wait(self, step: Step) -> None:
        rows = await self.acks[step.get("ack", "ack")].wait()
        if "rows" in step:
            assert set(rows) == set(step["rows"]), rows
            expect(step["rows"], rows)

    async def wait_any(self, step: Step) -> None:
        row = await self.acks[step.get("ack", "ack")].wait_any()
        expect(step["row"], row)

    async def next_row(self, step: Step) -> None:
        expect(step["row"], await anext(self.acks[step.get("ack", "ack")], None))

    async def status(self, step: Step) -> None:
        ack = self.acks[step.get("ack", "ack")]
        await until(lambda: ack.status(), step["is"])
        if "complete" in step:
            assert ack.is_complete() is step["complete"]

    async def cancel_ack(self, step: Step) -> None:
        self.acks[step.get("ack", "ack")].cancel()


def timeout(step: Step) -> Step:
    return {"timeout": step["timeout"]} if "timeout" in step else {}


def asking(step: Step) -> Step:
    options: Step = step.get("options", {})
    return {**timeout(step), **options}


async def settled(receipt: Any, step: Step) -> None:
    if "level" in step:
        expect(step["level"], await receipt)
    elif "error" in step:
        await receipt


def decide(script: Step, request: Any) -> Any:
    if request.client_id in script.get("refuse", []):
        return False
    return script.get("grant", {}).get(request.client_id, True)


async def until(read: Callable[[], Any], wanted: Any) -> None:
    """Waits for a value that no event announces; fails with the last one seen."""
    end = time.monotonic() + PATIENCE
    while (seen := read()) != wanted:
        assert time.monotonic() < end, f"still {seen!r}, not {wanted!r}"
        await asyncio.sleep(0.002)
