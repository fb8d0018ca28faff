"""Values of any size under keys: the face of the capability `storage`."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import IO, Any

    from typing_extensions import Self

    from . import _kps
    from .types import Stored, StoredPage, StoredValue

    _Progress = Callable[[int, int | None], Any]

# Bytes that are read from a file at once, and up to which bytes are saved in one call.
_PIECE = 512 << 10
# Seconds that a call may take.
_TIMEOUT = 60.0


class Storage:
    """A client's way to values: its own ones, or with `target` the server's or another client's.

    `client.storage` makes one. What fails raises the `KpsError` of its code.
    """

    __slots__ = ("_client",)

    def __init__(self, client: _kps.Client) -> None:
        self._client = client

    async def save(
        self,
        key: str,
        source: Any,
        *,
        ttl: float | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        content_type: str | None = None,
        target: str | None = None,
        on_progress: _Progress | None = None,
    ) -> Stored:
        """Saves a value and returns what is known of it.

        `source` is anything that JSON knows, an integer of any size, an array or bytes; or it is where bytes come from:
        a `Path`, a file opened for reading in binary, an iterator or an async iterator of bytes. Those are never in
        memory as a whole, and become the value all at once, at the end: if the source raises, or this is cancelled,
        the old value stays. `on_progress(done, total)` is called with bytes, `total` being `None` if nobody knows.
        """
        fields = _given(key=key, ttl=ttl, if_match=if_match, if_none_match=if_none_match, content_type=content_type)
        if isinstance(source, os.PathLike):
            file = await asyncio.to_thread(open, source, "rb")
            try:
                return await self._upload(fields, _read(file), _size(file), target, on_progress)
            finally:
                await asyncio.to_thread(file.close)
        pieces, total = _pieces(source, on_progress is not None)
        if pieces is None:
            saved: Stored = await self._call("save", {**fields, "value": source}, target)
            return saved
        return await self._upload(fields, pieces, total, target, on_progress)

    async def get(
        self, key: str, *, if_none_match: str | None = None, version: str | None = None, target: str | None = None
    ) -> StoredValue:
        """The value, in `value`, and what is known of it; raises `NotFoundError` if there is none.

        With the ETag that is known as `if_none_match` it is `not_modified` instead while nothing has changed.
        """
        fields = _given(key=key, if_none_match=if_none_match, version=version)
        value: StoredValue = await self._call("get", fields, target)
        return value

    async def stream(self, key: str, *, target: str | None = None) -> StorageStream:
        """A value of bytes or text, a piece at a time: `async for piece in await client.storage.stream(key)`."""
        return StorageStream(await self._client._download(key, target))

    async def get_to(
        self, key: str, to: Any, *, target: str | None = None, on_progress: _Progress | None = None
    ) -> Stored:
        """Writes a value of bytes or text to a path or to a file opened for writing in binary.

        At a path there is the whole value, or what was there before.
        """
        stream = await self.stream(key, target=target)
        try:
            if isinstance(to, (str, os.PathLike)):
                await _replace(os.fspath(to), stream, on_progress)
            else:
                await _copy(stream, to, on_progress)
        finally:
            stream.close()
        return stream.info

    async def exists(self, key: str, *, target: str | None = None) -> bool:
        """Whether there is a value."""
        answer: dict[str, bool] = await self._call("exists", {"key": key}, target)
        return answer["exists"]

    async def delete(self, key: str, *, if_match: str | None = None, target: str | None = None) -> bool:
        """Deletes a key; whether there was a value."""
        answer: dict[str, bool] = await self._call("delete", _given(key=key, if_match=if_match), target)
        return answer["deleted"]

    async def list(
        self, prefix: str = "", *, limit: int = 100, cursor: str | None = None, target: str | None = None
    ) -> StoredPage:
        """Keys in the order of their bytes, and the `cursor` of the next page, if there is one."""
        page: StoredPage = await self._call("list", _given(prefix=prefix, limit=limit, cursor=cursor), target)
        return page

    async def _call(self, operation: str, fields: dict[str, Any], target: str | None) -> Any:
        response = await self._client.dispatch(f"storage.{operation}", fields, timeout=_TIMEOUT, target=target)
        return response.unwrap()

    async def _upload(
        self,
        fields: dict[str, Any],
        pieces: AsyncIterator[Any],
        total: int | None,
        target: str | None,
        on_progress: _Progress | None,
    ) -> Stored:
        writer = await self._client._upload(fields, target)
        done = 0
        try:
            async for piece in pieces:
                await writer.write(piece)
                done += piece.nbytes if isinstance(piece, memoryview) else len(piece)
                if on_progress is not None:
                    on_progress(done, total)
            return await writer.finish()
        except BaseException:
            writer.cancel()
            raise


class StorageStream:
    """A value that is being read: an async iterator of bytes.

    All of them are of one value: if it is replaced or deleted meanwhile, the next piece raises `ConflictError`.
    """

    __slots__ = ("_reader", "info")

    # What is known of the value.
    info: Stored

    def __init__(self, reader: _kps.StorageReader) -> None:
        self._reader = reader
        self.info = reader.about()

    @property
    def etag(self) -> str:
        """Another one after every save."""
        return self.info["etag"]

    @property
    def size(self) -> int:
        """Bytes of the whole value."""
        return self.info["size"]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._reader.next()
        if piece is None:
            raise StopAsyncIteration
        return piece

    def close(self) -> None:
        """Reads no more."""
        self._reader.close()

    def __repr__(self) -> str:
        return f"StorageStream(key={self.info['key']!r}, size={self.size})"


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _pieces(source: Any, in_pieces: bool) -> tuple[AsyncIterator[Any] | None, int | None]:
    """Where the bytes of `source` come from, and how many there are; `None` if it is a value as it is."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source)
        if view.nbytes <= _PIECE and not in_pieces:
            return None, None
        view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        return _slices(view), view.nbytes
    if hasattr(source, "read"):
        return _read(source), _size(source)
    if hasattr(source, "__aiter__"):
        return source.__aiter__(), None
    if hasattr(source, "__next__"):
        return _each(source), None
    return None, None


async def _slices(view: memoryview) -> AsyncIterator[memoryview]:
    for start in range(0, len(view), _PIECE):
        yield view[start : start + _PIECE]


async def _each(iterator: Any) -> AsyncIterator[Any]:
    for piece in iterator:
        yield piece


async def _read(file: Any) -> AsyncIterator[Any]:
    """Of a file, in threads; also of one whose `read` is to be awaited."""
    while piece := await _done(await asyncio.to_thread(file.read, _PIECE)):
        yield piece


async def _done(result: Any) -> Any:
    return await result if hasattr(result, "__await__") else result


def _size(file: Any) -> int | None:
    """Bytes from where it is to its end, of a file that has an end."""
    try:
        size: int = os.fstat(file.fileno()).st_size - file.tell()
        return max(0, size)
    except (AttributeError, OSError, TypeError, ValueError):
        return None


async def _copy(stream: StorageStream, file: Any, on_progress: _Progress | None) -> None:
    done = 0
    async for piece in stream:
        await _done(await asyncio.to_thread(file.write, piece))
        done += len(piece)
        if on_progress is not None:
            on_progress(done, stream.size)


async def _replace(path: str, stream: StorageStream, on_progress: _Progress | None) -> None:
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{os.getpid()}-{id(stream):x}.part")
    file: IO[bytes] = await asyncio.to_thread(open, beside, "xb")
    try:
        try:
            await _copy(stream, file, on_progress)
        finally:
            await asyncio.to_thread(file.close)
        await asyncio.to_thread(os.replace, beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
