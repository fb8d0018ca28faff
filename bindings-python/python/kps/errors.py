"""What kps raises: one class for each code."""

from __future__ import annotations

import builtins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class KpsError(Exception):
    """Base of them all. `code` is the same in every language."""

    code = "internal"

    @property
    def message(self) -> str:
        """What happened and what to do, in a sentence."""
        return str(self)


class InternalError(KpsError):
    """Something inside kps failed that should not have."""

    code = "internal"


class TimeoutError(KpsError, builtins.TimeoutError):
    """No answer within the time given."""

    code = "timeout"


class NotConnectedError(KpsError, ConnectionError):
    """The operation needs a connection and there is none."""

    code = "not_connected"


class ClosedError(KpsError, ConnectionError):
    """The client, subscription or server was closed."""

    code = "closed"


class ConnectFailedError(KpsError, ConnectionError):
    """The server could not be reached."""

    code = "connect_failed"


class UnauthorizedError(KpsError, PermissionError):
    """The principal may not do this, or the token is wrong."""

    code = "unauthorized"


class PayloadTooLargeError(KpsError, ValueError):
    """The payload is over the server's limit."""

    code = "payload_too_large"


class InvalidTopicError(KpsError, ValueError):
    """The topic is empty, over-long, reserved, or a pattern where a name is needed."""

    code = "invalid_topic"


class InvalidArgumentError(KpsError, ValueError):
    """An argument has the wrong value."""

    code = "invalid_argument"


class InvalidPayloadError(KpsError, ValueError):
    """The payload cannot be encoded or decoded."""

    code = "invalid_payload"


class OutboxFullError(KpsError):
    """The outbox is at its hard bound; nothing was queued."""

    code = "outbox_full"


class IdInUseError(KpsError, ConnectionError):
    """The client id belongs to a live client."""

    code = "id_in_use"


class ReplacedError(KpsError, ConnectionError):
    """Another connection took over this client's id."""

    code = "replaced"


class ReceiptUnavailableError(KpsError, ValueError):
    """The topic cannot reach this receipt level."""

    code = "receipt_unavailable"


class NoRespondersError(KpsError):
    """Nobody subscribes to the request's topic."""

    code = "no_responders"


class SlowConsumerError(KpsError):
    """The subscription did not take its messages in time and was closed."""

    code = "slow_consumer"


class WouldDeadlockError(KpsError):
    """The publisher's own subscription is full and does not move: waiting would never end."""

    code = "would_deadlock"


class LimitExceededError(KpsError):
    """A limit of the server was reached."""

    code = "limit_exceeded"


class ProtocolError(KpsError, ConnectionError):
    """Bytes from the peer are not the protocol."""

    code = "protocol"


class UnsupportedError(KpsError):
    """The peer speaks no common protocol version or lacks a feature."""

    code = "unsupported"


class CancelledError(KpsError):
    """The operation was cancelled."""

    code = "cancelled"


class HandlerFailedError(KpsError):
    """The handler that answered failed."""

    code = "handler_failed"


class DisconnectedError(KpsError, ConnectionError):
    """The recipient disconnected before it answered."""

    code = "disconnected"


class NotFoundError(KpsError, LookupError):
    """No such ack, subscription or client."""

    code = "not_found"


class NotRegisteredError(KpsError, ConnectionError):
    """An action before the handshake."""

    code = "not_registered"


class UnknownActionError(KpsError):
    """The action or frame is unknown."""

    code = "unknown_action"


class ForbiddenOriginError(KpsError, PermissionError):
    """The `Origin` or `Host` is not allowed."""

    code = "forbidden_origin"


class ForbiddenAddressError(KpsError, PermissionError):
    """The address may not be reached from this server."""

    code = "forbidden_address"


class BindFailedError(KpsError, OSError):
    """The listening address cannot be used."""

    code = "bind_failed"


class SessionLostError(KpsError, ConnectionError):
    """The session is unknown to this server: it expired or the server restarted."""

    code = "session_lost"


class StoreFailedError(KpsError, OSError):
    """The store cannot write or read: full disk, no permission, in use by another process."""

    code = "store_failed"


class StoreCorruptError(KpsError, OSError):
    """The store's file is damaged: what it says cannot be trusted."""

    code = "store_corrupt"


class UnknownCapabilityError(KpsError, LookupError):
    """Nobody offers the capability."""

    code = "unknown_capability"


class UnknownOperationError(KpsError, LookupError):
    """The capability has no such operation."""

    code = "unknown_operation"


class UnavailableError(KpsError, ConnectionError):
    """Who should do it is not there or went away; trying again may help."""

    code = "unavailable"


class ConflictError(KpsError):
    """The state is not the one that was asked for: another ETag, a name that is taken."""

    code = "conflict"
    # Of an operation on a document: what the server told, with what was missed.
    event: dict[str, Any] | None = None


class TooLargeError(KpsError, ValueError):
    """A value, key or number is over its limit."""

    code = "too_large"


class QuotaExceededError(KpsError):
    """There is no more room of what was granted."""

    code = "quota_exceeded"


BY_CODE = {
    error.code: error
    for error in list(globals().values())
    if isinstance(error, type) and issubclass(error, KpsError) and error is not KpsError
}


class RejectedError(KpsError, ValueError):
    """An operation is not in its document: `code` says why, `event` is what the server told of it, if it did."""

    def __init__(self, message: str, code: str = "invalid_operation", event: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.event = event
