"""How a handler says when it wants a message again."""

from .errors import InvalidArgumentError

_LONGEST = 86_400.0


class Retry(Exception):
    """Raised by a durable's handler: the message fails and comes again after `delay` seconds.

    Without `delay` it comes as after any other error: after `retry_delay`, doubled with each failure. At most a day.
    """

    delay: float | None

    def __init__(self, text: str = "to be handled again", *, delay: float | None = None) -> None:
        super().__init__(text)
        if delay is not None and not 0 <= delay <= _LONGEST:
            raise InvalidArgumentError(f"delay is {delay}; it must be between 0 and {_LONGEST:.0f} seconds")
        self.delay = delay
