"""A Python agent, a Node client and a reader of server-sent events hear the same bytes of one document."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import kps
from agents import HERE, PATIENCE, Serve

END = "the end"


@asynccontextmanager
async def node(url: str, id: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("node", HERE / "document_node.mjs", url, id, stdin=pipe, stdout=pipe)
    try:
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"ready\n"
        yield process
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    finally:
        if process.returncode is None:
            process.kill()


def is_last(line: str) -> bool:
    event = json.loads(line)
    return event["event"] == "ack" and event["op_id"] == END


async def lines_of(process: asyncio.subprocess.Process) -> list[str]:
    lines: list[str] = []
    while not lines or not is_last(lines[-1]):
        lines.append((await process.stdout.readline()).decode().rstrip("\n"))
    return lines


def data_of(stream: Any) -> list[str]:
    lines: list[str] = []
    while not lines or not is_last(lines[-1]):
        line = stream.readline().decode().rstrip("\n")
        if line.startswith("data: "):
            lines.append(line.removeprefix("data: "))
    return lines


def operation(op_id: str, base: str, text: str) -> dict[str, Any]:
    edit = {"type": "append", "text": text}
    return {"id": "doc", "op_id": op_id, "base_version": base, "edit": edit}


def test_everybody_hears_the_same_bytes_and_nobody_writes_past_a_conflict() -> None:
    async def scene() -> None:
        server = Serve()
        url = await server.start()
        client = await kps.connect(url, id="python")
        document = await client.open_document("doc", rebase=False)
        heard: list[str] = []
        ended = asyncio.Event()

        def hear(event: dict[str, Any]) -> None:
            if event["event"] == "failed":
                return  # this client's own word
            heard.append(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
            if is_last(heard[-1]):
                ended.set()

        document.on("*", hear)
        address = url.replace("ws://", "http://").removesuffix("/ws/bus")
        open_stream = urllib.request.urlopen
        stream = await asyncio.to_thread(open_stream, f"{address}/v1/documents/doc/events", None, PATIENCE)
        async with node(url, "doc") as process:

            def tell(payload: dict[str, Any]) -> None:
                process.stdin.write(json.dumps({"action": "document.edit", "payload": payload}).encode() + b"\n")

            first = await document.append("grüße 🙂 \"'\n")
            # Both send the same operation for a version that is gone: each is told the same.
            for op_id in ("stale", "stale"):
                await client.dispatch("document.edit", operation(op_id, 'W/"0"', "python"))
                tell(operation(op_id, 'W/"0"', "node"))
            await client.dispatch("document.edit", operation("far", first["version"], "y" * 300_000))
            while len(document_events(heard, "conflict")) < 4:
                await asyncio.sleep(0.001)
            # An edit that was made before another one was heard of is not written, either.
            ours = document.edit({"type": "append", "text": "ours"})
            theirs = await client.dispatch("document.edit", operation("theirs", first["version"], "theirs"))
            kinds = {await outcome(ours), theirs.unwrap()["results"][0]["event"]}
            assert kinds == {"ack", "conflict"}
            while (version := document.version) == first["version"]:
                await asyncio.sleep(0.001)
            tell(operation(END, version, "."))
            lines, data = await asyncio.wait_for(
                asyncio.gather(lines_of(process), asyncio.to_thread(data_of, stream)), PATIENCE
            )
            await asyncio.wait_for(ended.wait(), PATIENCE)
        assert heard == data
        # Node came a moment later than the others, and missed nothing since.
        assert lines == heard
        conflicts = [json.loads(line) for line in document_events(heard, "conflict")]
        assert {it["base_version"] for it in conflicts if it["op_id"] == "stale"} == {'W/"0"'}
        assert all(it["missing_ops"][0]["op_id"] == first["op_id"] for it in conflicts if it["op_id"] == "stale")
        assert [json.loads(line)["code"] for line in document_events(heard, "rejected")] == ["operation_too_large"]
        assert ("ours" in document.text) != ("theirs" in document.text)
        assert "python" not in document.text and "node" not in document.text
        stream.close()
        await client.close()
        await server.stop()

    async def outcome(edited: Any) -> str:
        try:
            await edited
        except kps.ConflictError as error:
            return str(error.event["event"])
        return "ack"

    asyncio.run(scene())


def document_events(lines: list[str], name: str) -> list[str]:
    return [line for line in lines if json.loads(line)["event"] == name]
