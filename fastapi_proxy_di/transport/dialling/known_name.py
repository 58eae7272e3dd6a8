"""Decides how long the result of a look-up serves: fresh, failed, or stale.

A pure decision: the caller passes the time. ``Resolver`` does the look-ups.
"""

from __future__ import annotations

import socket
from math import inf
from typing import Any, Final

__all__ = ["FAILED_SECONDS", "FRESH_SECONDS", "STALE_SECONDS", "AddressInfo", "KnownName"]

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""One result of ``socket.getaddrinfo``: family, type, protocol, canonical name, address."""

FRESH_SECONDS: Final = 5.0
"""How long addresses serve without another look-up. ``getaddrinfo`` tells no TTL; 5 seconds
spare a busy upstream the look-ups, and a name that moves is followed within that time."""
FAILED_SECONDS: Final = 1.0
"""How long a failure serves, so that a failing name is not looked up for each request."""
STALE_SECONDS: Final = 60.0
"""How old addresses may be that serve while look-ups time out or fail for a time."""

_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)})


class KnownName:
    """The last results of the look-ups of one name."""

    __slots__ = ("_addresses", "_failed_at", "_failure", "_resolved_at")

    def __init__(self) -> None:
        self._addresses: tuple[AddressInfo, ...] = ()
        self._resolved_at = -inf
        self._failure: OSError | None = None
        self._failed_at = -inf

    def resolved(self, addresses: tuple[AddressInfo, ...], now: float) -> None:
        """Keep the addresses of a look-up that succeeded at ``now`` (monotonic seconds)."""
        self._addresses = addresses
        self._resolved_at = now
        self._failure = None

    def failed(self, failure: OSError, now: float) -> None:
        """Keep the failure of a look-up; "no such name" forgets the addresses too."""
        self._failure = failure
        self._failed_at = now
        if is_no_such_name(failure):
            self._addresses = ()

    def fresh(self, now: float) -> tuple[AddressInfo, ...]:
        """Give the addresses that serve without another look-up; empty for none."""
        return self._addresses if now - self._resolved_at < FRESH_SECONDS else ()

    def failure(self, now: float) -> OSError | None:
        """Give the failure that serves without another look-up, or ``None``."""
        return self._failure if now - self._failed_at < FAILED_SECONDS else None

    def stale(self, now: float) -> tuple[AddressInfo, ...]:
        """Give the addresses that serve while look-ups time out or fail; empty for none."""
        return self._addresses if now - self._resolved_at < STALE_SECONDS else ()


def is_no_such_name(failure: OSError) -> bool:
    """Whether a look-up ended with "this name does not exist, or has no address"."""
    return isinstance(failure, socket.gaierror) and failure.errno in _NO_SUCH_NAME
