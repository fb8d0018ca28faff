"""`client.storage`: values from and into files, iterators and streams; local, through a server, at another client."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import kps

PIECE = 512 << 10
LARGE = random.Random(7).randbytes(2 * PIECE + 12_345)


@asynccontextmanager
async def place(target: str | None, **storage: Any) -> AsyncIterator[tuple[kps.Client, dict[str, Any]]]:
    """A client, and how it names the storage."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(kps.Server("127.0.0.1:0", storage=storage or None))  # type: ignore[arg-type]
        client = await stack.enter_async_context(await kps.connect(server.url, storage=storage or None))  # type: ignore[arg-type]
        yield client, {} if target is None else {"target": target}


@pytest.fixture(params=[None, "server"], ids=["local", "server"])
def target(request: pytest.FixtureRequest) -> str | None:
    given: str | None = request.param
    return given


async def whole(client: kps.Client, key: str, where: dict[str, Any]) -> bytes:
    return b"".join([piece async for piece in await client.storage.stream(key, **where)])


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return iter([data[at : at + size] for at in range(0, len(data), size)])


async def later(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


class Slow(io.BytesIO):
    """A file whose `read` is to be awaited."""

    async def read(self, size: int | None = -1, /) -> bytes:  # type: ignore[override]
        return super().read(size)


def sources(folder: Path) -> dict[str, Callable[[], Any]]:
    file = folder / "large.bin"
    file.write_bytes(LARGE)
    return {
        "path": lambda: file,
        "file": lambda: file.open("rb"),
        "memory": lambda: io.BytesIO(LARGE),
        "awaited file": lambda: Slow(LARGE),
        "bytes": lambda: LARGE,
        "bytearray": lambda: bytearray(LARGE),
        "every other byte": lambda: memoryview(bytes(byte for each in LARGE for byte in (each, 0)))[::2],
        "iterator": lambda: cut(LARGE, 70_001),
        "async iterator": lambda: later(cut(LARGE, PIECE)),
        "long pieces": lambda: cut(LARGE, 2_000_000),
    }


def test_every_source_comes_back_whole(run: Callable[[Any], Any], target: str | None, tmp_path: Path) -> None:
    async def main() -> None:
        async with place(target) as (client, where):
            for name, source in sources(tmp_path).items():
                saved = await client.storage.save("k", source(), content_type="film", **where)
                assert (saved["size"], saved["content_type"]) == (len(LARGE), "film"), name
                assert await whole(client, "k", where) == LARGE, name
                stream = await client.storage.stream("k", **where)
                assert (stream.etag, stream.size) == (saved["etag"], len(LARGE))
                assert (stream.info["kind"], stream.info["key"]) == ("bytes", "k")
            assert (await client.dispatch("storage.stat", **where)).unwrap()["uploads"] == 0

    run(main)


def test_values_are_saved_as_they_are(run: Callable[[Any], Any], target: str | None) -> None:
    async def main() -> None:
        async with place(target) as (client, where):
            for value in ({"a": [1, 2.5, None]}, "text", 2**100, b"", b"bytes", None, [b"x"]):
                saved = await client.storage.save("k", value, **where)
                got = await client.storage.get("k", **where)
                assert (got["value"], got["etag"]) == (value, saved["etag"])
            known = await client.storage.get("k", if_none_match=saved["etag"], **where)
            assert known["not_modified"] is True
            assert await client.storage.exists("k", **where)
            assert [item["key"] for item in (await client.storage.list("k", **where))["items"]] == ["k"]
            with pytest.raises(kps.ConflictError):
                await client.storage.save("k", 1, if_none_match="*", **where)
            with pytest.raises(kps.ConflictError):
                await client.storage.save("k", iter([b"1"]), if_match="1-0000000000000000", **where)
            assert await client.storage.delete("k", **where)
            assert not await client.storage.delete("k", **where)
            with pytest.raises(kps.NotFoundError):
                await client.storage.get("k", **where)
            with pytest.raises(kps.NotFoundError):
                await client.storage.stream("k", **where)

    run(main)


def test_an_empty_source_is_an_empty_value(run: Callable[[Any], Any], target: str | None) -> None:
    async def main() -> None:
        async with place(target) as (client, where):
            assert (await client.storage.save("k", iter([]), **where))["size"] == 0
            assert await whole(client, "k", where) == b""

    run(main)


def test_text_streams_and_other_values_do_not(run: Callable[[Any], Any], target: str | None) -> None:
    async def main() -> None:
        async with place(target) as (client, where):
            await client.storage.save("k", "ä" * 1000, **where)
            stream = await client.storage.stream("k", **where)
            assert stream.info["kind"] == "text"
            assert b"".join([piece async for piece in stream]).decode() == "ä" * 1000
            await client.storage.save("k", [1], **where)
            with pytest.raises(kps.UnsupportedError):
                await client.storage.stream("k", **where)

    run(main)


def test_progress_is_told(run: Callable[[Any], Any], target: str | None, tmp_path: Path) -> None:
    async def main() -> None:
        async with place(target) as (client, where):
            file = tmp_path / "in.bin"
            file.write_bytes(LARGE)
            for source, total in ((file, len(LARGE)), (LARGE, len(LARGE)), (cut(LARGE, PIECE), None), (b"12", 2)):
                told: list[Any] = []
                await client.storage.save("k", source, on_progress=lambda *step, to=told: to.append(step), **where)
                size = 2 if source == b"12" else len(LARGE)
                assert told[-1] == (size, total)
                assert [done for done, _ in told] == sorted({done for done, _ in told})
            await client.storage.save("k", LARGE, **where)
            told = []
            await client.storage.get_to("k", tmp_path / "out", on_progress=lambda *step: told.append(step), **where)
            assert told[-1] == (len(LARGE), len(LARGE)) and len(told) == 3

    run(main)


def test_a_value_goes_into_a_file(run: Callable[[Any], Any], target: str | None, tmp_path: Path) -> None:
    async def main() -> None:
        async with place(target) as (client, where):
            saved = await client.storage.save("k", LARGE, **where)
            got = await client.storage.get_to("k", tmp_path / "out", **where)
            assert got["etag"] == saved["etag"]
            assert (tmp_path / "out").read_bytes() == LARGE
            with (tmp_path / "file").open("wb") as file:
                await client.storage.get_to("k", file, **where)
            assert (tmp_path / "file").read_bytes() == LARGE
            # What was there stays, and nothing else is left.
            with pytest.raises(kps.NotFoundError):
                await client.storage.get_to("missing", tmp_path / "out", **where)

            def fail(*_: Any) -> None:
                raise RuntimeError("no more")

            with pytest.raises(RuntimeError, match="no more"):
                await client.storage.get_to("k", tmp_path / "out", on_progress=fail, **where)
            assert (tmp_path / "out").read_bytes() == LARGE
            assert {path.name for path in tmp_path.iterdir()} == {"out", "file"}

    run(main)


async def settled(client: kps.Client, where: dict[str, Any]) -> None:
    """No upload is under way."""
    while (await client.dispatch("storage.stat", **where)).unwrap()["uploads"]:
        await asyncio.sleep(0.001)


def test_a_source_that_fails_leaves_the_old_value(run: Callable[[Any], Any], target: str | None) -> None:
    async def failing(error: BaseException | None) -> AsyncIterator[Any]:
        for piece in cut(LARGE, PIECE):
            yield piece
        if error is not None:
            raise error
        yield "text"

    async def main() -> None:
        async with place(target) as (client, where):
            saved = await client.storage.save("k", b"old", **where)
            with pytest.raises(RuntimeError, match="the disk is gone"):
                await client.storage.save("k", failing(RuntimeError("the disk is gone")), **where)
            with pytest.raises(TypeError, match="bytes"):
                await client.storage.save("k", failing(None), **where)
            got = await client.storage.get("k", **where)
            assert (got["value"], got["etag"]) == (b"old", saved["etag"])
            await settled(client, where)

    run(main)


def test_a_cancelled_save_leaves_the_old_value(run: Callable[[Any], Any], target: str | None) -> None:
    async def main() -> None:
        async with place(target) as (client, where):
            await client.storage.save("k", b"old", **where)
            under_way = asyncio.Event()

            async def endless() -> AsyncIterator[bytes]:
                for at in range(1 << 40):
                    if at == 5:
                        under_way.set()
                    yield bytes(PIECE)

            saving = asyncio.create_task(client.storage.save("k", endless(), **where))
            await under_way.wait()
            saving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await saving
            assert (await client.storage.get("k", **where))["value"] == b"old"
            await settled(client, where)
            # And the client works as before.
            await client.storage.save("k", LARGE, **where)
            assert await whole(client, "k", where) == LARGE

    run(main)


def test_a_save_cancelled_at_any_moment_is_all_or_nothing(run: Callable[[Any], Any], target: str | None) -> None:
    old, new = LARGE[:1000], LARGE[: PIECE + 1000]

    async def main() -> None:
        async with place(target) as (client, where):
            await client.storage.save("k", old, **where)
            done = 0
            for moment in range(25):
                saving = asyncio.create_task(client.storage.save("k", later(cut(new, PIECE)), **where))
                for _ in range(moment):
                    await asyncio.sleep(0.0005)
                saving.cancel()
                try:
                    await saving
                    done += 1
                except asyncio.CancelledError:
                    pass
                await settled(client, where)
                assert await whole(client, "k", where) in (old, new)
                if done == 3:
                    break

    run(main)


def test_a_reader_never_gets_a_mix(run: Callable[[Any], Any], target: str | None) -> None:
    async def main() -> None:
        async with place(target) as (client, where):
            for change in ("save", "delete"):
                await client.storage.save("k", bytes(12 * PIECE), **where)
                stream = await client.storage.stream("k", **where)
                pieces = [await anext(stream)]
                if change == "save":
                    await client.storage.save("k", b"\1" * (12 * PIECE), **where)
                else:
                    await client.storage.delete("k", **where)
                with pytest.raises(kps.ConflictError):
                    async for piece in stream:
                        pieces.append(piece)
                assert not any(b"\1" in piece for piece in pieces)
                # It is over then.
                assert [piece async for piece in stream] == []

    run(main)


def test_a_stream_may_be_left(run: Callable[[Any], Any], target: str | None) -> None:
    async def main() -> None:
        async with place(target) as (client, where):
            await client.storage.save("k", LARGE, **where)
            async for _ in await client.storage.stream("k", **where):
                break
            stream = await client.storage.stream("k", **where)
            stream.close()
            assert await whole(client, "k", where) == LARGE

    run(main)


def test_limits_are_told(run: Callable[[Any], Any], target: str | None) -> None:
    async def main() -> None:
        async with place(target, quota=PIECE, max_value=PIECE // 2) as (client, where):
            with pytest.raises(kps.TooLargeError):
                await client.storage.save("k", cut(LARGE, PIECE), **where)
            half = LARGE[: PIECE // 2]
            await client.storage.save("a", iter([half]), **where)
            with pytest.raises(kps.QuotaExceededError):
                await client.storage.save("b", iter([half]), **where)
            with pytest.raises(kps.InvalidPayloadError, match="ttl"):
                await client.storage.save("k", cut(LARGE, PIECE), ttl=-1, **where)
            await settled(client, where)

    run(main)


def test_a_client_that_offers_no_storage(run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        async with kps.Server("127.0.0.1:0") as server, await kps.connect(server.url) as client:
            for source in (1, LARGE):
                with pytest.raises(kps.UnavailableError, match="storage"):
                    await client.storage.save("k", source, target="nobody")
            with pytest.raises(kps.UnavailableError, match="storage"):
                await client.storage.stream("k", target="nobody")

    run(main)


def test_a_server_with_small_messages(run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        async with (
            kps.Server("127.0.0.1:0", max_payload=20_000) as server,
            await kps.connect(server.url) as client,
        ):
            await client.storage.save("k", LARGE[:200_000], target="server", on_progress=lambda *_: None)
            assert await whole(client, "k", {"target": "server"}) == LARGE[:200_000]

    run(main)


def test_streams_at_the_same_time(run: Callable[[Any], Any], target: str | None) -> None:
    async def main() -> None:
        async with place(target) as (client, where):
            values = {f"k{n}": LARGE[n:] for n in range(8)}
            saving = (client.storage.save(key, cut(value, 99_999), **where) for key, value in values.items())
            await asyncio.gather(*saving)
            read = await asyncio.gather(*(whole(client, key, where) for key in values))
            assert read == list(values.values())

    run(main)
