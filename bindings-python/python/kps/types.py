"""Names for types; nothing here exists at run time but these names."""

import os
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

State: TypeAlias = Literal["connecting", "connected", "reconnecting", "closed"]
ContentType: TypeAlias = Literal["json", "text", "bytes"]
Overflow: TypeAlias = Literal["block", "drop_oldest", "drop_newest", "latest", "disconnect", "spill"]
OutboxOverflow: TypeAlias = Literal["refuse", "drop_oldest"]
RowStatus: TypeAlias = Literal["acked", "failed", "no_handler", "disconnected", "dropped", "timeout", "cancelled"]
ReceiptLevel: TypeAlias = Literal["queued", "queued_on_disk", "accepted", "stored", "replicated"]
GapReason: TypeAlias = Literal[
    "overflow",
    "slow_consumer",
    "session_expired",
    "new_epoch",
    "history_expired",
    "expired",
    "private",
    "offline",
]
Offline: TypeAlias = Literal["keep", "drop", "latest"]


class SubscriptionLedger(TypedDict):
    """accepted = delivered + dropped + expired + cancelled + pending."""

    accepted: int
    delivered: int
    dropped: int
    expired: int
    cancelled: int
    pending: int


class ClientLedger(TypedDict):
    """What became of the publishes, and the sum over all subscriptions there ever were."""

    published: int
    accepted: int
    refused: int
    dropped: int
    pending: int
    abandoned: int
    subscriptions: SubscriptionLedger


class TimelineEntry(TypedDict):
    """`time` in seconds since the Unix epoch."""

    time: float
    event: str
    detail: str


class TokenGrant(TypedDict, total=False):
    """What the bearer of a token may do; topics left out or `None`: all.

    A document is its topic, `kps.document.<id>`: `subscribe` says which ones may be read, `publish` which ones may be
    changed, besides the calls themselves, `kps.server.document.>`.
    """

    name: str
    namespace: str
    publish: Sequence[str] | None
    subscribe: Sequence[str] | None


class StorageOptions(TypedDict, total=False):
    """How a storage is kept; `path` is a file or a folder, without one it is in memory."""

    path: str | os.PathLike[str] | None
    # 32 bytes, or a passphrase: encrypts values. Keys, sizes and times stay readable.
    key: bytes | str | None
    # Values of 512 bytes and more, where that helps.
    compress: bool
    # How many old versions of each key are kept; 0.
    versions: int
    # Bytes of keys and values in a namespace, old versions among them.
    quota: int | None
    # A save is answered when fsync has returned ("full"), or when the operating system has it.
    durability: Literal["full", "normal"]
    # Bytes: of a key (1 KiB), of a value (1 GiB), of what one get returns (16 MiB), of a value that stays here when a
    # cloud is configured (5 MB).
    max_key: int
    max_value: int
    max_inline: int
    max_local_size: int


class _Known(TypedDict):
    key: str
    etag: str
    size: int
    modified: float


class Stored(_Known, total=False):
    """What is known of a value. Times are seconds since the Unix epoch."""

    expires: float
    content_type: str
    location: Literal["local", "cloud"]
    # Nobody knows whether there is a newer one; `warning` says why.
    possibly_stale: bool
    warning: str
    # Of a stream: what its bytes are.
    kind: Literal["bytes", "text"]
    # Of a get with the ETag that is known: there is no `value` then.
    not_modified: bool


class StoredValue(Stored):
    """A value, and what is known of it."""

    value: Any


class StoredPage(TypedDict):
    """Some of the keys."""

    items: list[Stored]
    cursor: str | None


DocumentKind: TypeAlias = Literal["text", "json", "yjs"]
DocumentEventName: TypeAlias = Literal[
    "change",
    "ack",
    "conflict",
    "rejected",
    "checkpoint",
    "store_failed",
    "presence",
    "failed",
    "gap",
    "resumed",
    "closed",
    "update",
]


class _Insert(TypedDict):
    type: Literal["insert"]
    text: str


class InsertEdit(_Insert, total=False):
    """Text before a code point, or before or after a text that is there once: one of the three."""

    position: int
    before: str
    after: str


class _Delete(TypedDict):
    type: Literal["delete"]


class DeleteEdit(_Delete, total=False):
    """`length` code points from `position` on, or the text `anchor`, which is there once, go."""

    position: int
    length: int
    anchor: str


class _Replace(TypedDict):
    type: Literal["replace"]
    text: str


class ReplaceEdit(_Replace, total=False):
    """Text in the place of what a `delete` would remove."""

    position: int
    length: int
    anchor: str


class AppendEdit(TypedDict):
    """Text at the end."""

    type: Literal["append"]
    text: str


class PatchEdit(TypedDict):
    """JSON Patch, RFC 6902."""

    type: Literal["patch"]
    patch: Sequence[Mapping[str, Any]]


class MergeEdit(TypedDict):
    """JSON Merge Patch, RFC 7396."""

    type: Literal["merge"]
    merge: Any


Edit: TypeAlias = InsertEdit | DeleteEdit | ReplaceEdit | AppendEdit | PatchEdit | MergeEdit


class Edited(TypedDict):
    """An operation that is in its document. `checkpointed`: the server has stored it."""

    op_id: str
    version: str
    level: Literal["applied", "checkpointed"]


class _Operation(TypedDict):
    version: str
    op_id: str
    author: str
    time: int


class DocumentOperation(_Operation, total=False):
    """An operation of a document. `time` is in milliseconds since the Unix epoch."""

    undoes: list[str]


class DocumentVersions(TypedDict):
    """Operations of a document, the newest first; `oldest` is the earliest version that can be read."""

    id: str
    version: str
    oldest: str
    versions: list[DocumentOperation]


class Present(TypedDict):
    """Somebody who is at a document, and what it tells of itself."""

    client: str
    author: str
    state: dict[str, Any]


Verdict: TypeAlias = bool | TokenGrant | None
Grant: TypeAlias = Verdict | Awaitable[Verdict]
