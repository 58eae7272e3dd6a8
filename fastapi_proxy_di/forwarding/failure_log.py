"""Logs the requests of an upstream that got no response, without a line for each of them.

The first failure of a kind is logged at once. Further failures are counted, and one line per ten
seconds gives their number, so that an outage does not fill the log. Faults of clients are not
logged. A limit that is reached is an event (`fastapi_proxy_di.LimitHit`) with a record of its own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from fastapi_proxy_di.errors import Failure, ProxyError, Side

__all__ = ["FailureLog"]

SECONDS: Final = 10.0
"""Seconds for which failures of one kind are counted before their number is logged."""
MAX_KINDS: Final = 64
"""Kinds that are counted apart; with more of them, further destinations count as one."""

_logger = logging.getLogger("fastapi_proxy_di.forwarding")

_Kind = tuple[Failure, str | None]


class FailureLog:
    """Logs the failures of the exchanges of one upstream.

    Args:
        name: Name of the upstream.
    """

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._loop: Final = asyncio.get_running_loop()
        self._repeats: dict[_Kind, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def failed(self, error: ProxyError) -> None:
        """Note that an exchange has failed before there was a response for the client.

        Args:
            error: Its error, with the last destination.
        """
        failure, destination = error.failure, error.destination
        if failure.side is Side.CLIENT or failure is Failure.LIMIT_EXCEEDED:
            return
        kind = (failure, destination)
        if len(self._repeats) >= MAX_KINDS and kind not in self._repeats:
            kind = (failure, None)
        if kind in self._repeats:
            self._repeats[kind] += 1
            return
        self._repeats[kind] = 0
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(SECONDS, self._log_repeats)
        _logger.warning(
            "%s: a request failed: %s (%s)",
            self._name,
            error,
            failure.value,
            extra=self._fields(failure, destination) | {"attempts": error.attempts},
        )

    def close(self) -> None:
        """Log the number of failures counted so far; the number of later ones is not logged."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._log_repeats()

    def _log_repeats(self) -> None:
        """Log one line for each kind that has been seen again, and forget the others."""
        counted = {kind: count for kind, count in self._repeats.items() if count}
        for (failure, destination), count in counted.items():
            _logger.warning(
                "%s: %d more failed so within %g s: %s%s",
                self._name,
                count,
                SECONDS,
                failure.value,
                f" at {destination}" if destination else "",
                extra=self._fields(failure, destination),
            )
        self._repeats = dict.fromkeys(counted, 0)
        again = bool(counted) and not self._closed
        self._timer = self._loop.call_later(SECONDS, self._log_repeats) if again else None

    def _fields(self, failure: Failure, destination: str | None) -> dict[str, object]:
        return {"upstream": self._name, "destination": destination, "failure": failure.value}
