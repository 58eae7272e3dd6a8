"""Rules of shared probes: which destinations go together, what is believed, what is published.

Pure: the times are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi_proxy_di.pools.destination import Destination

__all__ = [
    "SHARD",
    "Found",
    "Successes",
    "body_of",
    "found_in",
    "is_named",
    "shards",
    "suspicious",
]

SHARD: Final = 100
"""Destinations that one process probes by one lease."""

_REASON_CHARACTERS: Final = 80
_ADDRESS_CHARACTERS: Final = 24_000
"""With a shard's reasons that is less than the longest record (``signing.MAX_BYTES``)."""


class Found(NamedTuple):
    """What probes have found of one destination.

    Attributes:
        healthy: Whether it is healthy.
        reason: Why not, ``""`` if it is.
        latency_ms: Milliseconds of the last good probe, ``None`` if not known.
    """

    healthy: bool
    reason: str = ""
    latency_ms: float | None = None


class Successes:
    """When each destination last served a request of this process, as far as ``mark`` saw it."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[Destination, tuple[int, float]] = {}

    def mark(self, destinations: Iterable[Destination], now: float) -> None:
        """Look at the counts at ``now``, in monotonic seconds; forget all other destinations."""
        seen = self._seen
        self._seen = {}
        for one in destinations:
            count, at = seen.get(one, (0, -1e9))
            if one.successes > count:
                at = now
            self._seen[one] = one.successes, at

    def within(self, destination: Destination, seconds: float, now: float) -> bool:
        """Whether a request succeeded in the last ``seconds`` before ``now``."""
        count, at = self._seen.get(destination, (0, -1e9))
        return destination.successes > count or now - at < seconds


def shards(destinations: Sequence[Destination]) -> list[list[Destination]]:
    """Divide destinations into parts of at most ``SHARD``, in the order of their addresses.

    Parts with long addresses are smaller, so that the record of each is not too long.
    """
    parts: list[list[Destination]] = []
    characters = 0
    for one in sorted(destinations, key=lambda one: one.url):
        characters += len(one.url)
        if not parts or len(parts[-1]) == SHARD or characters > _ADDRESS_CHARACTERS:
            parts.append([])
            characters = len(one.url)
        parts[-1].append(one)
    return parts


def suspicious(began: Iterable[float], total: int, seconds: float, now: float) -> bool:
    """Tell whether a process should not trust its probes, because so many began to fail at once.

    Args:
        began: When the failures of each failing destination began, in monotonic seconds.
        total: Number of all destinations.
        seconds: How long ago a failure may have begun to be one of those at once.
        now: Monotonic seconds.

    Returns:
        Whether more than half of all began to fail in that time.
    """
    return 2 * sum([now - one < seconds for one in began]) > total


def body_of(found: Mapping[str, Found], at: int) -> dict[str, Any]:
    """Give the fields of the record that publishes ``found`` at ``at``, milliseconds of the store.

    The reason is cut, so that the records of a whole shard fit into one.
    """
    return {
        "at": at,
        "of": {
            url: [int(one.healthy), _short(one.reason), one.latency_ms]
            for url, one in found.items()
        },
    }


def found_in(body: Mapping[str, Any], seconds: float, now: int) -> dict[str, Found]:
    """Read a record, ``{}`` if it is older than ``seconds``.

    Args:
        body: The fields of the record.
        seconds: How long it is believed.
        now: The store's time in milliseconds.
    """
    if now - body["at"] > seconds * 1000:
        return {}
    return {
        url: Found(bool(healthy), reason, latency_ms)
        for url, (healthy, reason, latency_ms) in body["of"].items()
    }


def is_named(url: str, records: Mapping[int, Mapping[str, Any]], parts: int, since: float) -> bool:
    """Tell whether a process that has a lease probes an address, by what is published.

    A process with other destinations may have the lease, or divide them into other parts. The
    record of a part that this process has too is current at any age: the lease is taken, by this
    process if by no other, and the record comes anew only when its addresses or health change.

    Args:
        url: The address.
        records: The fields of the newest record of each part.
        parts: Number of parts that this process has.
        since: From when on a record of any other part is believed, in milliseconds of the store.
    """
    return any(
        url in body["of"] and (number < parts or body["at"] >= since)
        for number, body in records.items()
    )


def _short(reason: str) -> str:
    return reason[:_REASON_CHARACTERS].encode("ascii", "replace").decode()
