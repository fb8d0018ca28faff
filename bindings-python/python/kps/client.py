"""The client, with the names of KPS beside its own."""

from __future__ import annotations

from . import _kps
from .errors import NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Any, Literal, overload

    from typing_extensions import Self

    from .documents import Document, YjsDocument
    from .storage import Storage
    from .types import DocumentKind, OutboxOverflow, StorageOptions
else:

    def overload(function):  # `typing` takes as long to import as all of kps; linters know its own alone.
        return function


async def connect(
    url: str = "ws://127.0.0.1:9313",
    *,
    id: str | None = None,
    token: str | None = None,
    namespace: str | None = None,
    timeout: float = 5.0,
    wait: bool = True,
    reconnect: bool = True,
    reconnect_min: float | None = None,
    reconnect_max: float | None = None,
    outbox: str | os.PathLike[str] | None = None,
    outbox_soft: int | None = None,
    outbox_hard: int | None = None,
    outbox_overflow: OutboxOverflow = "refuse",
    storage: str | os.PathLike[str] | StorageOptions | None = None,
    ca: str | os.PathLike[str] | None = None,
) -> Client:
    """Connects; raises if no handshake completes within `timeout` seconds.

    `wait=False` returns at once, perhaps offline: what is published waits in the outbox. `outbox` is a file that
    keeps it over the end of the process (one process at a time; publishes that wait for answers are not kept).
    When it is full, `publish` raises `OutboxFullError`, or with `outbox_overflow="drop_oldest"` the oldest messages
    that are not on their way make room, each named by `publish_failed`.
    `storage` is where the client's own storage keeps its values: a file, a folder that is there, or a dict of
    `StorageOptions`; it is in memory unless told. One process has such a file at a time.
    `ca` is a PEM file trusted instead of the system's certificates.
    """
    client = Client()
    client._start(
        url,
        id=id,
        token=token,
        namespace=namespace,
        timeout=timeout,
        reconnect=reconnect,
        reconnect_min=reconnect_min,
        reconnect_max=reconnect_max,
        outbox=outbox,
        outbox_soft=outbox_soft,
        outbox_hard=outbox_hard,
        outbox_overflow=outbox_overflow,
        storage=storage,
        ca=ca,
    )
    if wait:
        try:
            await client._ready()
        except BaseException:
            client._give_up()
            raise
    return client


class Client(_kps.Client):
    """A participant with an id: it publishes and subscribes. `connect` makes one."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def storage(self) -> Storage:
        """Values under keys: `await client.storage.save("film", Path("film.mp4"))`."""
        from .storage import Storage

        return Storage(self)

    @overload
    async def open_document(
        self,
        id: str,
        *,
        kind: Literal["text", "json"] = "text",
        author: str | None = None,
        rebase: bool = True,
        rebases: int = 100,
        timeout: float = 5.0,
    ) -> Document: ...

    @overload
    async def open_document(  # noqa: F811
        self,
        id: str,
        *,
        kind: Literal["yjs"],
        author: str | None = None,
        rebase: bool = True,
        rebases: int = 100,
        timeout: float = 5.0,
    ) -> YjsDocument: ...

    async def open_document(  # noqa: F811
        self,
        id: str,
        *,
        kind: DocumentKind = "text",
        author: str | None = None,
        rebase: bool = True,
        rebases: int = 100,
        timeout: float = 5.0,
    ) -> Document | YjsDocument:
        """Opens a live document, or makes it if there is none.

        `kind` is what it is made of: `text`, `json` (an empty object at first) or `yjs`; a document that there is
        already and that is of another kind raises `ConflictError`. `author` is who edits: this client's id, unless
        told. `timeout` is for opening, and for each question to the server.

        An edit that others were faster than is moved over theirs and sent again, `rebases` times at most; with
        `rebase=False` it raises `ConflictError` instead. What is edited without a connection, and what the server might
        lose, is kept in the client's `outbox`, if that is a file, and sent when the document is opened again by a
        client with this author.

        Documents of the kind `yjs` merge instead, also what was edited offline: `rebase` and `rebases` say nothing
        there. Yjs editors find them at `ws://…/yjs/{id}`, by `y-websocket` for example.
        """
        from .documents import Document, YjsDocument

        opened = await self._open_document(id, kind, author, rebase, rebases, timeout)
        return YjsDocument(opened) if isinstance(opened, _kps.LiveYjs) else Document(opened)

    async def register_task(
        self,
        name: str,
        function: Callable[[Any], Any] | str,
        *,
        isolated: bool = False,
        concurrency: int | None = None,
        shared: bool = False,
    ) -> None:
        """Makes `function(data)` a task of `compute`; what it returns is the result.

        An async function runs on this loop, 256 at a time; a sync one in threads, as many as there are cores.
        `isolated` ones run in processes of their own, which are killed when nobody waits for the answer any more,
        and replaced then, or when they crash: such a function stands at the top level of a module, or is named
        `"module:function"`, and a program that registers it has `if __name__ == "__main__":`. `concurrency` is how
        many may run at once. `shared` is `share_task`, too.
        """
        from . import _workers

        task, count = await _workers.prepare(function, isolated, concurrency)
        summary = "" if isinstance(function, str) else (getattr(function, "__doc__", None) or "")
        self._register_task(name, task, count, summary.strip().partition("\n")[0])
        if shared:
            try:
                await self.share_task(name)
            except BaseException:
                self._unregister_task(name)
                raise

    async def unregister_task(self, name: str) -> None:
        """Takes a task of this program away; what was called before in this process goes on."""
        from contextlib import suppress

        self._unregister_task(name)
        with suppress(NotFoundError):
            await self.unshare_task(name)

    # The names of KPS.

    @staticmethod
    async def NewClient(
        Address: str = "localhost:9313",
        Id: str = "",
        Path: str = "/ws/bus",
        Secure: bool = False,
        Autorestart: bool = False,
        RestartEvery: float = 10.0,
        OnId: Callable[[Any, Any], Any] | None = None,
        OnDataWs: Callable[[Any, Any], Any] | None = None,
        OnClose: Callable[[], Any] | None = None,
    ) -> Client:
        """With `Autorestart` it waits for the server and comes back to it, every `RestartEvery` seconds."""
        from . import classic

        pause = (RestartEvery or 10.0) if Autorestart else None
        client = await connect(
            f"{'wss' if Secure else 'ws'}://{Address}{Path}",
            id=Id or None,
            timeout=float("inf") if Autorestart else 5.0,
            reconnect=Autorestart,
            reconnect_min=pause,
            reconnect_max=pause,
        )
        if OnId is not None:
            client.on("message_to_id", classic.direct_handler(OnId, client))
        if OnDataWs is not None:
            client.on("message_received", classic.frame_handler(OnDataWs, client))
        if OnClose is not None:
            client.OnClose(OnClose)
        return client

    @property
    def Id(self) -> str:
        return self.id

    async def Subscribe(self, topic: str, callback: Callable[[Any, Any], Any]) -> Callable[[], Awaitable[None]]:
        """Calls `callback(data, unsubscribe)`; sync callbacks run in a thread, in order."""
        from . import classic

        return await classic.subscribe(self, topic, callback)

    async def Unsubscribe(self, topic: str) -> None:
        from . import classic

        await classic.unsubscribe(self, topic)

    async def Publish(self, topic: str, data: Any) -> None:
        await self.publish(topic, data)

    async def PublishToID(self, target_id: str, data: Any) -> None:
        await self.publish_to_id(target_id, data)

    async def PublishToServer(self, addr: str, data: Any, secure: bool = False) -> None:
        await self.publish_to_server(addr, data, secure=secure)

    async def PublishWithAck(self, topic: str, data: Any, timeout: float = 30.0) -> _kps.Ack:
        return self.publish_with_ack(topic, data, timeout)

    async def PublishToIDWithAck(self, target_id: str, data: Any, timeout: float = 30.0) -> _kps.Ack:
        return self.publish_to_id_with_ack(target_id, data, timeout)

    def OnClose(self, fn: Callable[[], Any]) -> None:
        from . import classic

        self.on("closed", classic.close_handler(fn))

    async def Close(self) -> None:
        await self.close()

    def Run(self, *args: Any) -> None:
        """Closes on Ctrl-C and on SIGTERM."""
        from . import classic

        classic.close_on_signals(self)
