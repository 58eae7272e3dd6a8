"""Logs what failed at an upstream: requests without a response, responses and tunnels cut short.

The first failure of a kind is logged at once. Further failures of the kind are counted, and one
line per ten seconds gives their number and where they were, so that an outage does not fill the
log. Faults of clients are not logged. Requests that a limit refuses are counted in the same way,
but the record of the first one is that of the event `fastapi_proxy_di.LimitHit`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Final, NamedTuple

from fastapi_proxy_di.errors import Attempt, Failure, LimitExceeded, ProxyError, Side

__all__ = ["FailureLog"]

SECONDS: Final = 10.0
"""Seconds for which failures of one kind are counted before their number is logged."""
MAX_DESTINATIONS: Final = 64
"""Destinations that are counted apart for each kind; further ones are counted together."""
SHOWN_DESTINATIONS: Final = 3
"""Destinations that a line with a number names."""

_requests = logging.getLogger("fastapi_proxy_di.forwarding")
_websockets = logging.getLogger("fastapi_proxy_di.websocket")
_limits = logging.getLogger("fastapi_proxy_di.limits")

_REFUSED: Final = "connect refused by"
_TEXTS: Final = {
    Failure.NO_AVAILABLE_DESTINATION: "no destination available",
    Failure.LOCAL_RESOURCES: "no socket, port or memory left for",
    Failure.REFUSED_ADDRESS: "refused address",
    Failure.RESOLVE: "name not resolved of",
    Failure.CONNECT: "connect failed to",
    Failure.CONNECT_TIMEOUT: "connect timed out to",
    Failure.TLS: "TLS failed with",
    Failure.REQUEST_WRITE: "request not taken by",
    Failure.NOT_PROCESSED: "request not processed by",
    Failure.RESPONSE_HEAD: "no response from",
    Failure.RESPONSE_MALFORMED: "malformed response from",
    Failure.FIRST_BYTE_TIMEOUT: "no response in time from",
    Failure.FIRST_EVENT: "stream broke off before its first event at",
    Failure.FIRST_EVENT_TIMEOUT: "no first event in time from",
    Failure.ACTIVITY_TIMEOUT: "nothing sent in time by",
    Failure.TOTAL_TIMEOUT: "total time ran out at",
}
"""What a line with a number says of requests that got no response."""


class _Kind(NamedTuple):
    """What is counted together; there are less than 64 texts, none of them from outside.

    Attributes:
        text: What happened, by which repeats are found; the destinations follow.
        failure: The value of the ``Failure``.
        logger: Where it is logged.
    """

    text: str
    failure: str
    logger: logging.Logger


class FailureLog:
    """Logs the failures of the exchanges of one upstream.

    Args:
        name: Name of the upstream.
    """

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._loop: Final = asyncio.get_running_loop()
        self._counted: Final[dict[str, _Repeats]] = {}
        self._closed = False

    def failed(self, error: ProxyError) -> None:
        """Note that an exchange has failed before there was a response for the client.

        Args:
            error: Its error, with the last destination and all attempts.
        """
        failure = error.failure
        # The app itself has closed an upstream that is closed; its clients must not fill the log.
        if failure.side is Side.CLIENT or failure is Failure.UPSTREAM_CLOSED:
            return
        if isinstance(error, LimitExceeded):
            self._refused(error)
            return
        text = _TEXTS.get(failure, failure.value.replace("_", " "))
        if failure is Failure.CONNECT and isinstance(error.__cause__, ConnectionRefusedError):
            text = _REFUSED
        kind = _Kind(text, failure.value, _requests)
        if self._is_repeat(kind, error.destination):
            return
        where = _where(failure.value, error.destination, error.attempts)
        text = f"a request failed: {error} ({where})"
        self._log(kind, error.destination, text, {"attempts": error.attempts})

    def broke_off(
        self, destination: str, error: ProxyError, attempts: Sequence[Attempt] = ()
    ) -> None:
        """Note that a response ended early, whose head the client has.

        Args:
            destination: Address of the destination that responded.
            error: What ended the response; if it is the client's fault, the record is DEBUG.
            attempts: The attempts before the one that responded.
        """
        of_client = error.failure.side is Side.CLIENT
        if of_client and not _requests.isEnabledFor(logging.DEBUG):
            return
        failure = error.failure.value
        kind = _Kind(f"response broken off ({failure}) by", failure, _requests)
        if not of_client and self._is_repeat(kind, destination):
            return
        attempts = (*attempts, Attempt(destination, error.failure))
        where = _where(failure, None, attempts)
        text = f"the response of {destination} broke off: {error} ({where})"
        if of_client:
            fields = self._fields(failure, destination) | {"attempts": attempts}
            _requests.debug("%s: %s", self._name, text, extra=fields)
            return
        self._log(kind, destination, text, {"attempts": attempts})

    def tunnel_ended(self, destination: str, error: ProxyError, reason: str, code: int) -> None:
        """Note that the upstream has ended a tunnel with an error.

        Args:
            destination: Address of the destination.
            error: The error.
            reason: The value of the ``WebSocketEnd``.
            code: The close code of the tunnel's end.
        """
        kind = _Kind(f"tunnel ended ({reason}) by", error.failure.value, _websockets)
        if self._is_repeat(kind, destination):
            return
        text = f"the tunnel to {destination} ended: {error} ({reason}, {code})"
        self._log(kind, destination, text, {"reason": reason, "code": code})

    def close(self) -> None:
        """Log the numbers counted so far; of later failures only the first of a kind is logged."""
        self._closed = True
        for repeats in tuple(self._counted.values()):
            repeats.stop()
            self._log_repeats(repeats)

    def _refused(self, error: LimitExceeded) -> None:
        """Count a request that a limit refused, unless the event just made a record of it."""
        limit = error.limit
        by = "the limits of all destinations" if limit == "destinations" else limit
        kind = _Kind(f"refused by {by}", error.failure.value, _limits)
        repeats = self._counted.get(kind.text) or self._count(kind)
        if not error.announced:
            repeats.add(None)

    def _is_repeat(self, kind: _Kind, destination: str | None) -> bool:
        """Count a failure; return whether it is not logged, because its kind was seen before."""
        repeats = self._counted.get(kind.text)
        if repeats is None:
            self._count(kind)
            return False
        repeats.add(destination)
        return True

    def _log(
        self, kind: _Kind, destination: str | None, text: str, further: dict[str, object]
    ) -> None:
        fields = self._fields(kind.failure, destination) | further
        kind.logger.warning("%s: %s", self._name, text, extra=fields)

    def _count(self, kind: _Kind) -> _Repeats:
        """Count a kind from now on; after ``close`` its number is never logged."""
        repeats = self._counted[kind.text] = _Repeats(kind, self._loop.time())
        if not self._closed:
            repeats.start(self._loop, self._log_repeats)
        return repeats

    def _log_repeats(self, repeats: _Repeats) -> None:
        """Log the number of failures of a kind that was seen again, else forget the kind."""
        kind = repeats.kind
        del self._counted[kind.text]
        if not repeats.count:
            return
        self._count(kind)
        destination, where = repeats.destinations()
        kind.logger.warning(
            "%s: %d × %s%s in %d s",
            self._name,
            repeats.count,
            kind.text,
            where,
            max(1, round(self._loop.time() - repeats.since)),
            extra=self._fields(kind.failure, destination) | {"count": repeats.count},
        )

    def _fields(self, failure: str, destination: str | None) -> dict[str, object]:
        return {"upstream": self._name, "destination": destination, "failure": failure}


class _Repeats:
    """Counts the further failures of one kind, by destination, until their number is logged."""

    def __init__(self, kind: _Kind, since: float) -> None:
        self.kind: Final = kind
        self.since: Final = since
        self.count = 0
        self._known: Final[Counter[str]] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, log: Callable[[_Repeats], None]) -> None:
        """Call ``log`` when the seconds are over."""
        # In a context of its own: the first failure's has the span and the id of one request.
        self._timer = loop.call_later(SECONDS, log, self, context=Context())

    def stop(self) -> None:
        """Call nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def add(self, destination: str | None) -> None:
        """Count one more failure."""
        self.count += 1
        known = self._known
        if destination is not None and (destination in known or len(known) < MAX_DESTINATIONS):
            known[destination] += 1

    def destinations(self) -> tuple[str | None, str]:
        """Give the destination if there was but one, and a text that names those with most."""
        most = self._known.most_common(SHOWN_DESTINATIONS)
        if len(self._known) == 1 and most[0][1] == self.count:
            return most[0][0], f" {most[0][0]}"
        shown = [f"{destination} ({count})" for destination, count in most]
        rest = self.count - sum(count for _, count in most)
        if shown and rest:
            shown.append(f"others ({rest})")
        return None, " " + ", ".join(shown) if shown else ""


def _where(failure: str, destination: str | None, attempts: Sequence[Attempt]) -> str:
    """Say what failed, where, and after how many attempts: ``connect, 2 attempts``."""
    at = "" if destination is None else f" at {destination}"
    number = len(attempts)
    return f"{failure}{at}, {number} attempt{'' if number == 1 else 's'}"
