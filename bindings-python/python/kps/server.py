"""The broker inside a program."""

from __future__ import annotations

from . import _kps
from .client import Client
from .errors import InvalidArgumentError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Literal, TypeVar, overload

    from typing_extensions import Self

    from .types import GapReason, Grant, StorageOptions, TimelineEntry, TokenGrant

    _Handler = TypeVar("_Handler", bound=Callable[..., Any])


class Server(Client):
    """A bus with a listener, and a client of it: every method of `Client` works on it.

    Use it with `async with`, or `await server.start()`. It listens on 127.0.0.1 unless told otherwise; any other
    address needs `token`, `tokens`, `on_connect` or `insecure=True`.

    `history` names the topics whose messages are kept, with limits: `["orders.> age=7d bytes=10G"]`; in the folder
    `data`, or else in memory. `audit` keeps the server's events in that folder as well: `True`, or
    `"messages age=7d count=100000"`; `kps audit` prints them. `storage` says how the server keeps the values of
    `storage.save`: a path or a dict of `StorageOptions`; without a path in `data`, or else in memory.

    Documents are kept where the storage is. One that was changed is stored within `document_checkpoint_every` seconds
    (10), or after `document_checkpoint_operations` (50), and leaves memory when nobody asked for it for `document_idle`
    seconds (30 minutes). It has at most `document_max_size` bytes (4 MiB), an operation `document_max_operation` bytes
    (256 KiB); `document_history` operations of each (10,000) are kept, so that versions can be read, and all documents
    in memory take `document_memory` bytes (512 MiB).
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:9313",
        *,
        id: str | None = None,
        token: str | None = None,
        tokens: Mapping[str, TokenGrant] | None = None,
        insecure: bool = False,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        allowed_origins: Sequence[str] = (),
        allowed_hosts: Sequence[str] = (),
        server_addresses: Sequence[str] = (),
        on_connect: Callable[[_kps.ConnectRequest], Grant] | None = None,
        history: Sequence[str] = (),
        data: str | os.PathLike[str] | None = None,
        storage: str | os.PathLike[str] | StorageOptions | None = None,
        audit: bool | str = False,
        document_checkpoint_every: float | None = None,
        document_checkpoint_operations: int | None = None,
        document_idle: float | None = None,
        document_max_size: int | None = None,
        document_max_operation: int | None = None,
        document_history: int | None = None,
        document_memory: int | None = None,
        duplicate_window: float | None = None,
        forbid_block: bool = False,
        max_payload: int | None = None,
        queue_bytes: int | None = None,
        server_bytes: int | None = None,
        heartbeat: float | None = None,
        silence: float | None = None,
        resume_window: float | None = None,
        stall_timeout: float | None = None,
        ack_timeout: float | None = None,
    ) -> None:
        self._listen = listen
        self._on_connect = on_connect
        self._options = {
            "id": id,
            "token": token,
            "tokens": tokens,
            "insecure": insecure,
            "tls_cert": tls_cert,
            "tls_key": tls_key,
            "allowed_origins": allowed_origins,
            "allowed_hosts": allowed_hosts,
            "server_addresses": server_addresses,
            "history": history,
            "data": data,
            "storage": storage,
            "audit": audit,
            "document_checkpoint_every": document_checkpoint_every,
            "document_checkpoint_operations": document_checkpoint_operations,
            "document_idle": document_idle,
            "document_max_size": document_max_size,
            "document_max_operation": document_max_operation,
            "document_history": document_history,
            "document_memory": document_memory,
            "duplicate_window": duplicate_window,
            "forbid_block": forbid_block,
            "max_payload": max_payload,
            "queue_bytes": queue_bytes,
            "server_bytes": server_bytes,
            "heartbeat": heartbeat,
            "silence": silence,
            "resume_window": resume_window,
            "stall_timeout": stall_timeout,
            "ack_timeout": ack_timeout,
        }
        self._broker: _kps.Broker | None = None
        self._waiting: list[tuple[str, Callable[..., Any]]] = []

    async def start(self) -> Self:
        """Binds and listens. Raises `BindFailedError` when the address cannot be used."""
        if self._broker is None:
            ask = None if self._on_connect is None else self._ask
            self._broker = _kps.Broker(self, self._listen, self._options, ask)
            for event, handler in self._waiting:
                super().on(event, handler)
            self._waiting.clear()
            await self._ready()
        return self

    async def __aenter__(self) -> Self:
        return await self.start()

    def _ask(self, request: _kps.ConnectRequest) -> Grant:
        assert self._on_connect is not None
        return self._on_connect(request)

    @property
    def address(self) -> str:
        """`host:port` as bound."""
        return self._listen if self._broker is None else self._broker.address

    @property
    def url(self) -> str:
        """Where clients on this machine reach it."""
        return f"ws://{self._listen}" if self._broker is None else self._broker.url

    if TYPE_CHECKING:
        # What a server tells has other arguments than what a client tells under the same name.
        @overload  # type: ignore[override]
        def on(self, event: Literal["node_started"], handler: Callable[[str], Any]) -> Callable[[], None]: ...
        @overload
        def on(self, event: Literal["node_stopping"], handler: Callable[[], Any]) -> Callable[[], None]: ...
        @overload
        def on(
            self, event: Literal["connection_opened"], handler: Callable[[str, str | None, str, str, bool], Any]
        ) -> Callable[[], None]: ...
        @overload
        def on(
            self,
            event: Literal["connection_closed", "subscription_opened", "subscription_closed"],
            handler: Callable[[str, str], Any],
        ) -> Callable[[], None]: ...
        @overload
        def on(
            self, event: Literal["client_connected", "client_disconnected"], handler: Callable[[str], Any]
        ) -> Callable[[], None]: ...
        @overload
        def on(
            self, event: Literal["message_published"], handler: Callable[[str, str, str, int], Any]
        ) -> Callable[[], None]: ...
        @overload
        def on(
            self, event: Literal["backpressure"], handler: Callable[[str, str, bool], Any]
        ) -> Callable[[], None]: ...
        @overload
        def on(
            self, event: Literal["messages_dropped"], handler: Callable[[str, str, int, GapReason], Any]
        ) -> Callable[[], None]: ...
        @overload
        def on(
            self, event: Literal["dead_lettered"], handler: Callable[[str, str, str, str], Any]
        ) -> Callable[[], None]: ...
        @overload
        def on(self, event: Literal["store_failed"], handler: Callable[[Exception], Any]) -> Callable[[], None]: ...
        @overload
        def on(
            self, event: Literal["error"], handler: Callable[[BaseException, str | None, str | None], Any]
        ) -> Callable[[], None]: ...
        @overload
        def on(self, event: Literal["events_dropped"], handler: Callable[[int], Any]) -> Callable[[], None]: ...
        @overload
        def on(self, event: str, handler: Callable[..., Any]) -> Callable[[], None]: ...
        def on(self, event: str, handler: Callable[..., Any]) -> Callable[[], None]:
            """Calls `handler` on every `event` of the server, or of its own client; the function returned ends that."""
            raise NotImplementedError

    else:

        def on(self, event, handler):
            if self._broker is not None:
                return super().on(event, handler)
            _kps.check_event(event, True)
            _callable(handler)
            entry = (event, handler)
            self._waiting.append(entry)
            return lambda: self._waiting.remove(entry) if entry in self._waiting else None

    async def close(self, timeout: float = 5.0) -> _kps.CloseReport:
        """Flushes what the server's own client published, tells clients to come back later, and stops listening."""
        if self._broker is not None:
            self._broker.announce_stop()
        report = await super().close(timeout)
        if self._broker is not None:
            await self._broker.close(timeout)
        return report

    def timeline(self) -> list[TimelineEntry]:
        """The server's last 256 events, oldest first. Messages are not among them."""
        return [] if self._broker is None else self._broker.timeline()

    def count_clients(self) -> int:
        """Connected clients, the server's own left out."""
        return 0 if self._broker is None else self._broker.count_clients()

    def count_subscribers(self, topic: str) -> int:
        """Subscriptions that a message on `topic` would reach."""
        return 0 if self._broker is None else self._broker.count_subscribers(topic)

    def remove_durable(self, name: str) -> None:
        """Forgets a durable subscription and its progress; its clients' streams end.

        Raises `NotFoundError` if there is none of this name.
        """
        if self._broker is None:
            raise NotFoundError("remove_durable: the server does not run yet")
        self._broker.remove_durable(name)

    def on_connect(self, handler: _Handler) -> _Handler:
        """Asks `handler` about every connection; see `ConnectRequest`. Works as a decorator.

        The first one has to be there before the server starts.
        """
        if self._broker is not None and self._on_connect is None:
            raise InvalidArgumentError("on_connect: the server runs already; give the handler before it starts")
        self._on_connect = _callable(handler)
        return handler

    def on_message_to_id(self, handler: _Handler) -> _Handler:
        """Calls `handler` with every message sent to the server's own id."""
        self.on("message_to_id", _callable(handler))
        return handler

    def on_server_message(self, handler: _Handler) -> _Handler:
        """Calls `handler` with every message that another server sent to this one."""
        self.on("server_message", _callable(handler))
        return handler

    # The names of KPS.

    def Run(self, *args: Any) -> None:
        """Listens at `args[0]` (`host:port`) and closes on Ctrl-C and SIGTERM.

        Inside a coroutine it returns at once; elsewhere it returns when the server was closed.
        """
        from . import classic

        if args and self._broker is None:
            host, _, port = str(args[0]).rpartition(":")
            self._listen = f"{host or '127.0.0.1'}:{port}"
        classic.run_server(self)

    def CountClients(self) -> int:
        return self.count_clients()

    def CountSubscribers(self, topic: str) -> int:
        return self.count_subscribers(topic)

    def OnUpgradeWS(self, fn: Callable[[_kps.ConnectRequest], Any]) -> None:
        self.on_connect(fn)

    def OnID(self, fn: Callable[[Any], Any]) -> None:
        _callable(fn, "fn")
        self.on_message_to_id(lambda message: fn(message.data))

    def OnServerData(self, fn: Callable[[Any], Any]) -> None:
        _callable(fn, "fn")
        self.on_server_message(lambda message: fn(message.data))


def NewServer() -> Server:
    """KPS' way to make one; `await server.start()` or `Run(address)` starts it."""
    return Server()


def _callable(handler: _Handler, name: str = "handler") -> _Handler:
    if not callable(handler):
        raise TypeError(f"{name} must be callable, not {type(handler).__name__}")
    return handler
