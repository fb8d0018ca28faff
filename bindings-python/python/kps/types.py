"""Names for types; nothing here exists at run time but these names."""

from collections.abc import Awaitable, Sequence
from typing import Literal, TypeAlias, TypedDict

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
    """What the bearer of a token may do; topics left out or `None`: all."""

    name: str
    namespace: str
    publish: Sequence[str] | None
    subscribe: Sequence[str] | None


Verdict: TypeAlias = bool | TokenGrant | None
Grant: TypeAlias = Verdict | Awaitable[Verdict]
