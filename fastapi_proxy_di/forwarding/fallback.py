"""Decides whether a request goes to a second upstream, after the first one failed.

```text
what happened                                                  goes there if
no destination is available                                    ``unavailable`` is listed
no valid response, or none in time                             the status of the failure is
a response                                                     its status is listed
a limit, the caller's own timeout, or a fault of the client    never
```

Nothing that a destination may have got goes there unless the request may be sent twice, because
of its method, an ``Idempotency-Key``, or a status that means "not done". All of it needs a body
that is kept whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from fastapi_proxy_di.errors import Failure, ProxyError, Side
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.settings import StatusCodes

__all__ = ["FALLBACK_FROM", "FallbackRule"]

FALLBACK_FROM: Final = "fastapi_proxy_di.fallback_from"
"""Key of the scope for the name of the upstream that a request came from."""

_UNAVAILABLE: Final = "unavailable"


@dataclass(frozen=True, slots=True)
class FallbackRule:
    """What makes a request go to a second upstream.

    Attributes:
        unavailable: Whether an upstream without an available destination does.
        statuses: The statuses of responses, and of failures, that do.
    """

    unavailable: bool
    statuses: StatusCodes

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a rule, such as ``"unavailable,502-504"``.

        Raises:
            ValueError: A part is neither ``unavailable`` nor a status of an error.
        """
        parts = [part.strip() for part in text.split(",")]
        statuses = StatusCodes([part for part in parts if part != _UNAVAILABLE])
        if any(status < 400 for status in statuses):
            raise ValueError("a status below 400 is no failure")
        return cls(_UNAVAILABLE in parts, statuses)

    def takes_failure(self, failure: ProxyError, exchange: Exchange) -> bool:
        """Whether a request that got no response goes to the second upstream."""
        kind = failure.failure
        if kind is Failure.NOT_PROCESSED:
            return failure.status in self.statuses
        if kind is Failure.NO_AVAILABLE_DESTINATION:
            listed = self.unavailable
        else:
            listed = kind.side is Side.DESTINATION and failure.status in self.statuses
        return listed and (exchange.repeatable or not failure.request_sent)

    def takes_response(self, exchange: Exchange, refused: StatusCodes) -> bool:
        """Whether a request that got a response goes to the second upstream.

        Args:
            exchange: The exchange, with its response.
            refused: The statuses that mean that nothing was done.
        """
        status, body = exchange.response.status, exchange.body
        if status not in self.statuses:
            return False
        if not exchange.repeatable and status not in refused:
            return False
        return body is None or (body.ended and body.kept)
