"""kps: the real-time bus that lives inside your program."""

import atexit as _atexit

from . import _kps
from ._kps import (
    Ack,
    AckRow,
    CallContext,
    CallError,
    CloseReport,
    ConnectRequest,
    EditReceipt,
    Gap,
    Message,
    Receipt,
    Response,
    Resumed,
    RowError,
    Subscription,
)
from .client import Client, connect
from .errors import (
    BindFailedError,
    CancelledError,
    ClosedError,
    ConflictError,
    ConnectFailedError,
    DisconnectedError,
    ForbiddenAddressError,
    ForbiddenOriginError,
    HandlerFailedError,
    IdInUseError,
    InternalError,
    InvalidArgumentError,
    InvalidPayloadError,
    InvalidTopicError,
    KpsError,
    LimitExceededError,
    NoRespondersError,
    NotConnectedError,
    NotFoundError,
    NotRegisteredError,
    OutboxFullError,
    PayloadTooLargeError,
    ProtocolError,
    QuotaExceededError,
    ReceiptUnavailableError,
    RejectedError,
    ReplacedError,
    SessionLostError,
    SlowConsumerError,
    StoreCorruptError,
    StoreFailedError,
    TimeoutError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnknownActionError,
    UnknownCapabilityError,
    UnknownOperationError,
    UnsupportedError,
    WouldDeadlockError,
)
from .retry import Retry
from .server import NewServer, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .classic import ClientSubscriber as ClientSubscriber
    from .documents import Document, DocumentStream, YjsDocument
    from .storage import Storage, StorageStream
    from .types import (
        ClientLedger,
        ContentType,
        DocumentEventName,
        DocumentKind,
        DocumentVersions,
        Edit,
        Edited,
        GapReason,
        Offline,
        OutboxOverflow,
        Overflow,
        Present,
        ReceiptLevel,
        RowStatus,
        State,
        StorageOptions,
        Stored,
        StoredPage,
        StoredValue,
        SubscriptionLedger,
        TimelineEntry,
    )

__version__: str = _kps.VERSION

__all__ = [
    "Ack",
    "AckRow",
    "BindFailedError",
    "CallContext",
    "CallError",
    "CancelledError",
    "Client",
    "ClientLedger",
    "CloseReport",
    "ClosedError",
    "ConflictError",
    "ConnectFailedError",
    "ConnectRequest",
    "ContentType",
    "DisconnectedError",
    "Document",
    "DocumentEventName",
    "DocumentKind",
    "DocumentStream",
    "DocumentVersions",
    "Edit",
    "EditReceipt",
    "Edited",
    "ForbiddenAddressError",
    "ForbiddenOriginError",
    "Gap",
    "GapReason",
    "HandlerFailedError",
    "IdInUseError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidPayloadError",
    "InvalidTopicError",
    "KpsError",
    "LimitExceededError",
    "Message",
    "NewServer",
    "NoRespondersError",
    "NotConnectedError",
    "NotFoundError",
    "NotRegisteredError",
    "Offline",
    "OutboxFullError",
    "OutboxOverflow",
    "Overflow",
    "PayloadTooLargeError",
    "Present",
    "ProtocolError",
    "QuotaExceededError",
    "Receipt",
    "ReceiptLevel",
    "ReceiptUnavailableError",
    "RejectedError",
    "ReplacedError",
    "Response",
    "Resumed",
    "Retry",
    "RowError",
    "RowStatus",
    "Server",
    "SessionLostError",
    "SlowConsumerError",
    "State",
    "Storage",
    "StorageOptions",
    "StorageStream",
    "StoreCorruptError",
    "StoreFailedError",
    "Stored",
    "StoredPage",
    "StoredValue",
    "Subscription",
    "SubscriptionLedger",
    "TimelineEntry",
    "TimeoutError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownActionError",
    "UnknownCapabilityError",
    "UnknownOperationError",
    "UnsupportedError",
    "WouldDeadlockError",
    "YjsDocument",
    "connect",
]

# Names that programs written for ksps import.
BusClient = Client
ClientAck = Ack
ClientSubscription = Subscription


def __getattr__(name: str) -> object:
    """Type names are loaded when somebody asks: `typing` takes longer to import than kps."""
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'kps' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(module), name)


_LAZY = {
    "ClientLedger": "kps.types",
    "ClientSubscriber": "kps.classic",
    "ContentType": "kps.types",
    "Document": "kps.documents",
    "YjsDocument": "kps.documents",
    "DocumentEventName": "kps.types",
    "DocumentKind": "kps.types",
    "DocumentStream": "kps.documents",
    "DocumentVersions": "kps.types",
    "Edit": "kps.types",
    "Edited": "kps.types",
    "GapReason": "kps.types",
    "Offline": "kps.types",
    "OutboxOverflow": "kps.types",
    "Overflow": "kps.types",
    "Present": "kps.types",
    "ReceiptLevel": "kps.types",
    "RowStatus": "kps.types",
    "State": "kps.types",
    "Storage": "kps.storage",
    "StorageOptions": "kps.types",
    "StorageStream": "kps.storage",
    "Stored": "kps.types",
    "StoredPage": "kps.types",
    "StoredValue": "kps.types",
    "SubscriptionLedger": "kps.types",
    "TimelineEntry": "kps.types",
}

_atexit.register(_kps.at_exit)
