"""The native half of kps."""

import datetime
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, Literal, final, overload

from typing_extensions import Self, disjoint_base

from .types import (
    ClientLedger,
    ContentType,
    DocumentEventName,
    DocumentKind,
    DocumentVersions,
    Edit,
    Edited,
    GapReason,
    Grant,
    Offline,
    Overflow,
    Present,
    ReceiptLevel,
    RowStatus,
    State,
    StorageOptions,
    Stored,
    SubscriptionLedger,
    TimelineEntry,
)

__all__ = [
    "VERSION",
    "Ack",
    "AckRow",
    "Broker",
    "CallContext",
    "CallError",
    "Client",
    "CloseReport",
    "ConnectRequest",
    "EditReceipt",
    "Gap",
    "Live",
    "LivePlain",
    "LiveStream",
    "LiveYjs",
    "Message",
    "Receipt",
    "Response",
    "Resumed",
    "RowError",
    "StorageReader",
    "StorageWriter",
    "Subscription",
    "at_exit",
    "check_event",
    "command_line",
    "dumps",
    "error_codes",
    "loads",
]

VERSION: str

def at_exit() -> None: ...
def check_event(event: str, server: bool) -> None: ...
def command_line(arguments: list[str]) -> int: ...
def dumps(data: Any) -> bytes: ...
def error_codes() -> list[str]: ...
def loads(raw: bytes) -> Any: ...

@final
class StorageWriter:
    async def write(self, data: Any) -> None: ...
    async def finish(self) -> Stored: ...
    def cancel(self) -> None: ...

@final
class StorageReader:
    def about(self) -> Stored: ...
    async def next(self) -> bytes | None: ...
    def close(self) -> None: ...

@final
class EditReceipt:
    """An operation on its way. Ignoring it is fine."""

    @property
    def op_id(self) -> str: ...
    def __await__(self) -> Generator[Any, None, Edited]:
        """What the server says of it."""

@disjoint_base
class Live:
    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> DocumentKind: ...
    @property
    def author(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def checkpointed(self) -> str: ...
    @property
    def is_connected(self) -> bool: ...
    @property
    def unsynced(self) -> list[str]: ...
    async def flush(self) -> None: ...
    async def close(self, timeout: float) -> list[str]: ...
    def on(self, event: DocumentEventName | Literal["*"], handler: Callable[[dict[str, Any]], Any]) -> int: ...
    def off(self, number: int) -> None: ...
    def presence(self) -> list[Present]: ...
    def set_presence(self, state: Mapping[str, Any] | None) -> None: ...

@final
class LivePlain(Live):
    def content(self) -> Any: ...
    def edit(self, edit: Edit | Sequence[Edit]) -> EditReceipt: ...
    def edit_batch(self, operations: Sequence[Edit | Sequence[Edit]]) -> list[EditReceipt]: ...
    async def undo(self, times: int) -> Edited: ...
    async def at(self, version: str | int) -> Any: ...
    async def versions(self, before: str | int | None, limit: int) -> DocumentVersions: ...
    async def compact(self, keep: int) -> None: ...
    def stream(
        self,
        position: int | None,
        before: str | None,
        after: str | None,
        flush_every: float,
        flush_bytes: int,
    ) -> LiveStream: ...

@final
class LiveStream:
    def write(self, token: str) -> None: ...
    async def close(self) -> str | None: ...

@final
class LiveYjs(Live):
    def text(self, root: str) -> str: ...
    def value(self) -> Any: ...
    def state(self, state_vector: bytes | None) -> bytes: ...
    def state_vector(self) -> bytes: ...
    def apply_update(self, update: bytes) -> None: ...
    def edit(self, root: str, edit: Edit | Sequence[Edit]) -> None: ...

@disjoint_base
class Client:
    def __new__(cls, *_arguments: Any, **_options: Any) -> Self: ...
    def _start(
        self,
        url: str,
        *,
        id: str | None = None,
        token: str | None = None,
        namespace: str | None = None,
        timeout: float | None = None,
        reconnect: bool | None = None,
        reconnect_min: float | None = None,
        reconnect_max: float | None = None,
        outbox: str | os.PathLike[str] | None = None,
        outbox_soft: int | None = None,
        outbox_hard: int | None = None,
        outbox_overflow: str | None = None,
        storage: str | os.PathLike[str] | StorageOptions | None = None,
        ca: str | os.PathLike[str] | None = None,
    ) -> None: ...
    async def _ready(self) -> None: ...
    def _give_up(self) -> None: ...
    def _register_task(self, name: str, task: Any, concurrency: int, summary: str) -> None: ...
    def _unregister_task(self, name: str) -> None: ...
    async def _open_document(
        self,
        id: str,
        kind: DocumentKind,
        author: str | None = None,
        rebase: bool = True,
        rebases: int | None = None,
        timeout: float | None = None,
    ) -> LivePlain | LiveYjs: ...
    async def _upload(self, fields: dict[str, Any], target: str | None = None) -> StorageWriter: ...
    async def _download(self, key: str, target: str | None = None) -> StorageReader: ...
    @property
    def id(self) -> str:
        """This client's id; empty before the first handshake if the server makes it."""

    @property
    def url(self) -> str: ...
    @property
    def state(self) -> State: ...
    async def subscribe(
        self,
        topic: str,
        handler: Callable[[Message], Any] | None = None,
        *,
        group: str | None = None,
        concurrency: int = 1,
        overflow: Overflow = "block",
        capacity: int | None = None,
        start: str | float | datetime.datetime = "new",
        durable: str | None = None,
        ack_wait: float = 30.0,
        retry_delay: float = 1.0,
        max_attempts: int = 5,
    ) -> Subscription:
        """Resolves when the broker has confirmed it.

        `start` is `"new"`, `"last"` (each topic's retained message, or its newest in history), `"all"`, a message's
        `cursor`, or a time. A `durable` name keeps its progress at
        the broker: what is not acked in `ack_wait` seconds, or failed, is handed out again, `max_attempts` times.

        `handler(message)`, sync or async, is called in order on this loop; what it returns, or raises, goes to a
        publisher who asked for an ack. Without a handler, iterate: `async for message in subscription`.
        """

    async def unsubscribe(self, topic: str) -> None:
        """Ends every subscription of this client to `topic`."""

    async def share_task(self, name: str) -> None:
        """Has this client do the task for others: theirs is `dispatch("compute.map", {...}, target="any")`, and
        `compute.batch` and `compute.execute`."""

    async def unshare_task(self, name: str) -> None:
        """Ends that; what others wait for is done elsewhere."""

    def publish(
        self,
        topic: str,
        data: Any,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        ttl: float | None = None,
        receipt: ReceiptLevel | None = None,
        to: Sequence[str] | None = None,
        private: bool = False,
        offline: Offline = "keep",
        retain: bool = False,
    ) -> Receipt:
        """Sends at once, from any thread. `bytes` travel as they are, `str` as text, everything else as JSON.

        `to` names who may have it: client ids, and `principal:NAME` for authenticated ones. A `private` message is
        never written to disk and quoted nowhere. `offline` says what becomes of it where a party is offline: it waits
        (`"keep"`), it is for those who are there (`"drop"`), or the newest of the topic waits (`"latest"`).
        With `retain` the server keeps it as the topic's last value, for subscriptions that begin with `start="last"`;
        an empty payload (`b""`) removes the one there is.
        """

    def publish_to_id(self, client_id: str, data: Any) -> Receipt:
        """To the client with this id."""

    def publish_to_server(self, address: str, data: Any, *, secure: bool = False) -> Receipt:
        """Through this client's server to the one at `host:port[/path]`."""

    def publish_with_ack(
        self,
        topic: str,
        data: Any,
        timeout: float = 30.0,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        ttl: float | None = None,
        to: Sequence[str] | None = None,
        private: bool = False,
        offline: Offline = "keep",
    ) -> Ack:
        """Asks every recipient for an answer. The options are those of `publish`; who may not have the message is no
        recipient, and a row is `timeout` when its message was not handed over in `ttl` seconds."""

    def publish_to_id_with_ack(
        self,
        client_id: str,
        data: Any,
        timeout: float = 30.0,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        ttl: float | None = None,
        private: bool = False,
        offline: Offline = "keep",
    ) -> Ack:
        """Asks the client with this id for an answer."""

    async def request(
        self,
        topic: str,
        data: Any,
        timeout: float = 30.0,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        ttl: float | None = None,
        to: Sequence[str] | None = None,
        private: bool = False,
        offline: Offline = "keep",
    ) -> Any:
        """The first successful answer. Raises `NoRespondersError` at once if nobody subscribes who may have it."""

    async def dispatch(
        self,
        action: str,
        payload: Any = None,
        *,
        timeout: float = 5.0,
        retry: int = 0,
        target: str | None = None,
        idempotency_key: str | None = None,
        on_progress: Callable[[Any], Any] | None = None,
    ) -> Response:
        """Calls `capability.operation`: here if this process has it, else at a client that offers it; `target` says
        `"local"`, `"server"`, `"any"` or a client's id. A call that failed is a `Response` too.

        `retry` is how often a call is tried again that failed with an error marked for that, within `timeout` seconds.
        Calls of one operation with one `idempotency_key` are done once. Cancelling the call cancels the work."""

    async def register(
        self, name: str, capability: Any, *, shared: bool = False, concurrency: int = 256, debug: bool | None = None
    ) -> None:
        """Makes the public methods of an object (or of an instance of a class) callable as `name.method`.

        They take the payload and, if they name it, `context` (`CallContext`); `init` and `close` are hooks. With
        `shared` other clients may call them, `concurrency` at a time. With `debug`, or KPS_DEBUG=1, what they raise
        carries its traceback."""

    async def unregister(self, name: str) -> None:
        """Takes a capability away; calls that run are ended."""

    @overload
    def on(self, event: Literal["state"], handler: Callable[[State], Any]) -> Callable[[], None]: ...
    @overload
    def on(
        self, event: Literal["connection_opened", "backpressure"], handler: Callable[[bool], Any]
    ) -> Callable[[], None]: ...
    @overload
    def on(
        self, event: Literal["connection_closed", "closed"], handler: Callable[[Exception | None], Any]
    ) -> Callable[[], None]: ...
    @overload
    def on(
        self, event: Literal["message_received", "message_to_id"], handler: Callable[[Message], Any]
    ) -> Callable[[], None]: ...
    @overload
    def on(
        self, event: Literal["message_published", "goaway"], handler: Callable[[str], Any]
    ) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["error"], handler: Callable[[BaseException], Any]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["gap"], handler: Callable[[Gap, Subscription], Any]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["resumed"], handler: Callable[[Resumed, Subscription], Any]) -> Callable[[], None]: ...
    @overload
    def on(
        self, event: Literal["subscription_closed"], handler: Callable[[Exception, Subscription], Any]
    ) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["publish_failed"], handler: Callable[[str, Exception], Any]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["outbox_flushed"], handler: Callable[[int], Any]) -> Callable[[], None]: ...
    @overload
    def on(
        self, event: Literal["handler_error"], handler: Callable[[BaseException, Message], Any]
    ) -> Callable[[], None]: ...
    @overload
    def on(self, event: str, handler: Callable[..., Any]) -> Callable[[], None]:
        """Calls `handler` on every `event` from now on; the function returned ends that."""

    def ledger(self) -> ClientLedger:
        """What became of everything published and received, counted."""

    def timeline(self) -> list[TimelineEntry]:
        """The last things that happened to the connection, oldest first."""

    async def flush(self) -> None:
        """Resolves when everything published so far was accepted or refused."""

    async def close(self, timeout: float = 5.0) -> CloseReport:
        """Flushes, says goodbye, and reports, within `timeout` seconds."""

@final
class Subscription:
    @property
    def topic(self) -> str: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Message | Gap:
        """Acks the message before, unless it was answered."""

    def batches(self, max: int = 1024) -> AsyncIterator[list[Message | Gap]]:
        """Lists of all that is there, at most `max` at once."""

    def ledger(self) -> SubscriptionLedger: ...
    async def unsubscribe(self) -> None: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Message:
    @property
    def topic(self) -> str: ...
    @property
    def data(self) -> Any:
        """The payload, decoded when it is first read."""

    @property
    def raw(self) -> bytes:
        """The payload's bytes."""

    @property
    def content_type(self) -> ContentType: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def id(self) -> str: ...
    @property
    def sender(self) -> str:
        """The publisher's client id, set by the broker."""

    @property
    def seq(self) -> int:
        """Consecutive within a topic and an epoch."""

    @property
    def epoch(self) -> int:
        """The broker's run."""

    @property
    def time(self) -> float:
        """When the broker accepted it, in seconds since the Unix epoch."""

    @property
    def attempt(self) -> int: ...
    @property
    def maybe_duplicate(self) -> bool:
        """Sent again after the broker lost the publisher's session."""

    @property
    def retained(self) -> bool:
        """Delivered because it was retained: the topic's last value before the subscription began."""

    @property
    def cursor(self) -> str | None:
        """The place behind it, to start from again; `None` if its topic has no history."""

    @property
    def _wants_ack(self) -> bool: ...
    def respond(self, data: Any = None) -> None:
        """Answers a publisher who asked for an ack; the first answer counts."""

    def fail(self, error: BaseException | str, *, delay: float | None = None) -> None:
        """Answers that it went wrong. A durable's message comes again after `delay` seconds if they are given, at most
        a day, else after its `retry_delay`."""

@final
class Gap:
    """Messages are missing here."""

    @property
    def topic(self) -> str: ...
    @property
    def count(self) -> int | None:
        """`None` when nobody can know."""

    @property
    def first(self) -> int | None:
        """`seq` of the first one missing, where known."""

    @property
    def last(self) -> int | None: ...
    @property
    def reason(self) -> GapReason: ...

@final
class Resumed:
    """After a reconnect the subscription goes on where it stopped."""

    @property
    def topic(self) -> str: ...
    @property
    def replayed(self) -> int:
        """Messages that were sent meanwhile and follow."""

@final
class Receipt:
    @property
    def id(self) -> str:
        """The message's id."""

    def __await__(self) -> Generator[Any, None, ReceiptLevel]: ...

@final
class Ack:
    """The table of an acknowledged publish: one row per recipient."""

    @property
    def id(self) -> str:
        """The message's id."""

    async def wait(self) -> dict[str, AckRow]:
        """All rows by client id, once all are final."""

    async def wait_any(self) -> AckRow | None:
        """The first row, whatever it says; `None` without recipients."""

    def status(self) -> dict[str, bool]:
        """For each recipient whether it has acked."""

    def is_complete(self) -> bool:
        """Whether all rows are final."""

    def cancel(self) -> None:
        """Stops waiting: rows that are open become `cancelled`."""

    def __aiter__(self) -> AsyncIterator[AckRow]: ...
    async def __anext__(self) -> AckRow: ...
    @property
    def ID(self) -> str: ...
    async def Wait(self) -> dict[str, dict[str, Any]]: ...
    async def WaitAny(self) -> tuple[dict[str, Any], bool]: ...
    async def GetStatus(self) -> dict[str, bool]: ...
    async def IsComplete(self) -> bool: ...
    async def Cancel(self) -> None: ...

@final
class AckRow:
    """How one recipient ended."""

    @property
    def client_id(self) -> str: ...
    @property
    def status(self) -> RowStatus: ...
    @property
    def success(self) -> bool: ...
    @property
    def error(self) -> RowError | None: ...
    @property
    def data(self) -> Any:
        """What the handler returned, decoded when it is first read."""

    @property
    def latency(self) -> float:
        """Seconds from the broker's acceptance to its receipt of the answer."""

@final
class RowError:
    """A handler's error."""

    @property
    def type(self) -> str: ...
    @property
    def text(self) -> str: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Response:
    """What became of a call."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> Literal["ok", "error"]: ...
    @property
    def ok(self) -> bool: ...
    @property
    def data(self) -> Any:
        """The answer; `None` if the call failed. Arrays of numbers are memory views."""

    @property
    def error(self) -> CallError | None: ...
    @property
    def duration(self) -> float:
        """Milliseconds from the call to its end."""

    @property
    def attempts(self) -> int: ...
    @property
    def provider(self) -> str | None:
        """The client that answered; `None`: this process."""

    def unwrap(self) -> Any:
        """The answer; raises why there is none, as the exception of its code with `retry` and `field`."""

    def to_dict(self) -> dict[str, Any]:
        """The envelope."""

@final
class CallError:
    """Why a call failed."""

    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def retry(self) -> bool:
        """Whether the same call may succeed later."""

    @property
    def field(self) -> str | None:
        """The field of the payload that is wrong."""

    @property
    def type(self) -> str | None:
        """The type of what the provider's own code raised."""

    @property
    def traceback(self) -> str | None: ...
    def to_dict(self) -> dict[str, Any]: ...
    def __getitem__(self, name: str, /) -> Any: ...

@final
class CallContext:
    """What a capability's method may want to know of a call."""

    @property
    def id(self) -> str:
        """The call's id, the same over all attempts."""

    @property
    def operation(self) -> str: ...
    @property
    def caller(self) -> str | None:
        """The client that calls; `None`: this process itself."""

    @property
    def attempt(self) -> int: ...
    @property
    def remaining(self) -> float | None:
        """Seconds left."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""

    def progress(self, value: Any) -> None:
        """Tells the caller how far it is, if it wants to know."""

@final
class CloseReport:
    """What became of what was published."""

    @property
    def flushed(self) -> int: ...
    @property
    def kept(self) -> int: ...
    @property
    def abandoned(self) -> list[str]:
        """Ids of the messages given up."""

@final
class ConnectRequest:
    """A client that asks to be let in.

    `on_connect` answers `True` or nothing (let it in), `False` (refuse it), or a dict with any of `name`, `namespace`,
    `publish`, `subscribe`. Raising refuses it with the error's text.
    """

    @property
    def client_id(self) -> str: ...
    @property
    def name(self) -> str | None:
        """Who its token stands for."""

    @property
    def namespace(self) -> str: ...
    @property
    def remote(self) -> str | None:
        """`host:port`; `None` inside the process."""

    @property
    def headers(self) -> dict[str, str]:
        """Of the HTTP upgrade, names in lower case, without secrets."""

    @property
    def path(self) -> str: ...

@final
class Broker:
    def __new__(
        cls,
        client: Client,
        listen: str,
        options: Mapping[str, Any],
        on_connect: Callable[[ConnectRequest], Grant] | None = None,
    ) -> Self: ...
    @property
    def address(self) -> str: ...
    @property
    def url(self) -> str: ...
    def timeline(self) -> list[TimelineEntry]: ...
    def announce_stop(self) -> None: ...
    def count_clients(self) -> int: ...
    def count_subscribers(self, topic: str) -> int: ...
    def remove_durable(self, name: str) -> None: ...
    def close(self, timeout: float) -> Awaitable[None]: ...
