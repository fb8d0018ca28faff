"""Live documents: text, JSON or Yjs that many edit at once."""

from __future__ import annotations

from contextlib import suppress

from .errors import KpsError, RejectedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Literal

    from typing_extensions import Self

    from . import _kps
    from .types import DocumentEventName, DocumentKind, DocumentVersions, Edit, Edited, Present


class LiveDocument:
    """What every open document has."""

    __slots__ = ("__weakref__", "_native")
    _native: _kps.Live

    @property
    def id(self) -> str:
        """Its name."""
        return self._native.id

    @property
    def kind(self) -> DocumentKind:
        """What it is made of."""
        return self._native.kind

    @property
    def author(self) -> str:
        """Who edits here."""
        return self._native.author

    @property
    def version(self) -> str:
        """The server's version, as far as it was heard of: a weak ETag, `W/"17"`."""
        return self._native.version

    @property
    def checkpointed(self) -> str:
        """Up to which version everything is in the server's store."""
        return self._native.checkpointed

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, and everything that happened so far is here."""
        return self._native.is_connected

    @property
    def unsynced(self) -> list[str]:
        """Own operations that a crash of the server now would lose, oldest first: they are sent again then."""
        return self._native.unsynced

    @property
    def presence(self) -> list[Present]:
        """Everybody else who is there and said so: `{"client", "author", "state"}`.

        An editor of a Yjs document is the client `yjs:` and its number.
        """
        return self._native.presence()

    def set_presence(self, state: Mapping[str, Any] | None) -> None:
        """Tells everybody about this client: a name, a colour, what is useful; `None`: it is not there any more.

        `cursor`, and `selection` with its two ends, are code points in `text`; in a text document they move with what
        is edited. Yjs editors see the name and the colour.
        """
        self._native.set_presence(state)

    def on(
        self, event: DocumentEventName | Literal["*"], handler: Callable[[dict[str, Any]], Any]
    ) -> Callable[[], None]:
        """Calls `handler(event)` whenever it happens; the function returned ends that. `"*"` is every event.

        What the server tells, to all alike: `change`, `ack`, `conflict`, `rejected`, `checkpoint`, `store_failed`,
        `presence`. What this client tells: `failed` (an own operation was given up), `gap` (events were missed; the
        content is right again), `resumed` (none were, though the connection was lost), `closed`; and of a Yjs document
        `update`, what changed: `{"origin", "update"}`, where `origin` is `server`, `client` (an edit of this handle)
        or `program` (`apply_update`), and the update is in base64.
        """
        number = self._native.on(event, handler)
        native = self._native
        return lambda: native.off(number)

    async def flush(self) -> None:
        """Waits until the server has everything that was edited here, or refused it."""
        await self._native.flush()

    async def close(self, timeout: float = 5.0) -> list[str]:
        """Sends what is not sent, has the server store it, and leaves, within `timeout` seconds.

        Returns the operations that a crash of the server now would lose.
        """
        return await self._native.close(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._native)


class Document(LiveDocument):
    """An open document. `await client.open_document(id)` makes one.

    What is edited is in `text`, or `value`, at once, also without a connection, and goes to the server in this order.
    What others do comes in by itself; `on` tells of it. Positions count Unicode code points. It is left when it is
    closed, `async with` does that, or when nobody holds it.
    """

    __slots__ = ()
    _native: _kps.LivePlain

    def __init__(self, native: _kps.LivePlain) -> None:
        self._native = native

    @property
    def text(self) -> str:
        """The text, with what was edited here."""
        if self.kind != "text":
            raise RejectedError("the document is JSON: it has a value and no text", "wrong_kind")
        text: str = self._native.content()
        return text

    @property
    def value(self) -> Any:
        """The JSON, with what was edited here."""
        if self.kind != "json":
            raise RejectedError("the document is text: it has a text and no value", "wrong_kind")
        return self._native.content()

    def edit(self, edit: Edit | Sequence[Edit]) -> _kps.EditReceipt:
        """Edits, here at once; a list of edits is done together, wholly or not at all.

        Positions are those of the text at this moment. What others do comes in beside this thread, between any two
        lines and in handlers too: a position that was read before, such as `len(document.text)`, may be another place
        by now, or raise `position_out_of_range`. `append`, a stream, and edits with `before`, `after` or `anchor` are
        looked up and done in one step.

        Raises if it does not fit what is here: `RejectedError`, whose `code` says why. Awaiting what is returned gives
        `{"op_id", "version", "level"}`, or raises why it is not in the document: `ConflictError` if others were faster
        and it is not to be rebased, with what was missed in `event`; it may be left out.
        """
        return self._native.edit(edit)

    def insert(self, position: int, text: str) -> _kps.EditReceipt:
        """`text` before this code point of the text as it is now; `edit` says how to be sure of the place."""
        return self._native.edit({"type": "insert", "position": position, "text": text})

    def delete(self, position: int, length: int) -> _kps.EditReceipt:
        """Removes `length` code points from `position` on."""
        return self._native.edit({"type": "delete", "position": position, "length": length})

    def replace(self, position: int, length: int, text: str) -> _kps.EditReceipt:
        """`text` in the place of `length` code points from `position` on."""
        return self._native.edit({"type": "replace", "position": position, "length": length, "text": text})

    def replace_text(self, anchor: str, text: str) -> _kps.EditReceipt:
        """`text` in the place of `anchor`, which is in the document once."""
        return self._native.edit({"type": "replace", "anchor": anchor, "text": text})

    def append(self, text: str) -> _kps.EditReceipt:
        """`text` at the end."""
        return self._native.edit({"type": "append", "text": text})

    def patch(self, patch: Sequence[Mapping[str, Any]]) -> _kps.EditReceipt:
        """Changes JSON as RFC 6902 says."""
        return self._native.edit({"type": "patch", "patch": patch})

    def merge(self, merge: Any) -> _kps.EditReceipt:
        """Changes JSON as RFC 7396 says."""
        return self._native.edit({"type": "merge", "merge": merge})

    def edit_batch(self, operations: Iterable[Edit | Sequence[Edit]]) -> list[_kps.EditReceipt]:
        """Several operations, one after the other: all of them fit what is here, or none is done."""
        return self._native.edit_batch(list(operations))

    async def undo(self, count: int = 1) -> Edited:
        """Takes back one's own last operations, up to 100, in one; what others wrote stays.

        Raises `RejectedError`: `nothing_to_undo`, `undo_conflict`.
        """
        return await self._native.undo(count)

    async def at(self, version: str | int) -> Any:
        """The text, or the value, that a version had; raises `NotFoundError` if that is not kept any more."""
        return await self._native.at(version)

    async def versions(self, *, before: str | int | None = None, limit: int = 100) -> DocumentVersions:
        """The operations that are kept, the newest first."""
        return await self._native.versions(before, limit)

    async def compact(self, keep: int = 0) -> None:
        """Has the server forget all operations but the last `keep`, not what they did."""
        await self._native.compact(keep)

    def stream(
        self,
        *,
        position: int | None = None,
        before: str | None = None,
        after: str | None = None,
        flush_every: float = 0.05,
        flush_bytes: int = 8192,
    ) -> DocumentStream:
        """Writes text bit by bit: `async with document.stream() as stream: stream.write(token)`.

        It begins at the end, or where it is told; what is written comes after what was written before, in one piece,
        whatever others do. What is written within `flush_every` seconds, or until the server has what was written
        before, becomes one operation; and so does what has `flush_bytes`.
        """
        return DocumentStream(self._native.stream(position, before, after, flush_every, flush_bytes))


class DocumentStream:
    """A text that is written bit by bit. `document.stream()` makes one."""

    __slots__ = ("_native",)

    def __init__(self, native: _kps.LiveStream) -> None:
        self._native = native

    def write(self, token: str) -> None:
        """Writes more; raises why something that was written before is not in the document."""
        self._native.write(token)

    async def close(self) -> str | None:
        """Sends what is left and returns the version that has all of it; `None` if nothing was written."""
        return await self._native.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
            return
        # What was raised inside is what matters.
        with suppress(KpsError):
            await self.close()


class YjsDocument(LiveDocument):
    """An open Yjs document. `await client.open_document(id, kind="yjs")` makes one.

    What is edited is in sight at once, also without a connection, and merges with what others do meanwhile, in other
    clients and in Yjs editors. Positions count Unicode code points; `root` names the text. It is left when it is
    closed, `async with` does that, or when nobody holds it.

    A document of `pycrdt` is bound to it by `state`, `apply_update` and the event `update`, which is how to edit maps,
    lists and formatted text. It changes only when the program applies an update: positions in it hold until then.
    """

    __slots__ = ()
    _native: _kps.LiveYjs

    def __init__(self, native: _kps.LiveYjs) -> None:
        self._native = native

    @property
    def text(self) -> str:
        """The text of the root `text`."""
        return self._native.text("text")

    def root_text(self, root: str) -> str:
        """The text of a root; empty if there is none."""
        return self._native.text(root)

    @property
    def value(self) -> Any:
        """All roots, as JSON has them."""
        return self._native.value()

    def state(self, state_vector: bytes | None = None) -> bytes:
        """All of it, or what one with this state vector misses: an update in version 1 of Yjs' encoding."""
        return self._native.state(state_vector)

    @property
    def state_vector(self) -> bytes:
        """What it has of whom, as Yjs encodes it."""
        return self._native.state_vector()

    def apply_update(self, update: bytes) -> None:
        """Takes an update from elsewhere, such as a document of `pycrdt`: it goes to the server and to others."""
        self._native.apply_update(update)

    def edit(self, edit: Edit | Sequence[Edit], *, root: str = "text") -> YjsReceipt:
        """Edits the text of a root, here at once; a list of edits is done together.

        Positions are those of the text at this moment. What others do comes in beside this thread, between any two
        lines: a position that was read before may be another place by now, or raise `position_out_of_range`. `append`,
        and edits with `before`, `after` or `anchor`, are looked up and done in one step.

        Raises `RejectedError` if it does not fit what is here. Awaiting what is returned waits until the server has it;
        it may be left out.
        """
        self._native.edit(root, edit)
        return YjsReceipt(self._native)

    def insert(self, position: int, text: str, *, root: str = "text") -> YjsReceipt:
        """`text` before this code point of the text as it is now; `edit` says how to be sure of the place."""
        return self.edit({"type": "insert", "position": position, "text": text}, root=root)

    def delete(self, position: int, length: int, *, root: str = "text") -> YjsReceipt:
        """Removes `length` code points from `position` on."""
        return self.edit({"type": "delete", "position": position, "length": length}, root=root)

    def replace(self, position: int, length: int, text: str, *, root: str = "text") -> YjsReceipt:
        """`text` in the place of `length` code points from `position` on."""
        return self.edit({"type": "replace", "position": position, "length": length, "text": text}, root=root)

    def append(self, text: str, *, root: str = "text") -> YjsReceipt:
        """`text` at the end."""
        return self.edit({"type": "append", "text": text}, root=root)


class YjsReceipt:
    """Awaiting it waits until the server has what was edited, or refused it."""

    __slots__ = ("_native",)

    def __init__(self, native: _kps.LiveYjs) -> None:
        self._native = native

    def __await__(self) -> Generator[Any, None, None]:
        return self._native.flush().__await__()
