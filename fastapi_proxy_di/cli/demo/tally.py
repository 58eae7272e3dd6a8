"""Counts the demo's requests, and decides which breaks an outage excuses.

Pure: no clock, no I/O. An outage excuses a break if the request was under way on that
destination and cannot be retried: an event stream or a WebSocket that had begun, an upload
partly sent, a response whose head had been sent.
"""

from __future__ import annotations

import math
import signal
from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

# Latencies kept for each kind: the newest, so that a demo left running stays small.
_KEPT: Final = 10_000
# How long after the signal a stream may break: the upstream's shutdown timeout, and some.
_AFTER_SIGTERM_SECONDS: Final = 8.0


class Kind(Enum):
    """The kinds of request that the load sends; the value is the name in the summary."""

    GET = "GET"
    POST = "POST"
    UPLOAD = "upload"
    EVENTS = "event stream"
    WEBSOCKET = "WebSocket"


@dataclass(frozen=True, slots=True)
class Break:
    """A request that broke.

    Attributes:
        kind: Kind of the request.
        destination: Name of the upstream, ``None`` if no response named one.
        began: Start of the request, in seconds.
        at: Time of the break, in seconds.
        under_way: Whether the response had begun, or a part of the body was sent.
        reason: Text for the summary.
    """

    kind: Kind
    destination: str | None
    began: float
    at: float
    under_way: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Outage:
    """One signal by which the demo ended an upstream.

    Attributes:
        destination: Name of the upstream.
        signal: ``SIGTERM`` or ``SIGKILL``.
        at: Time of the signal, in seconds.
    """

    destination: str
    signal: signal.Signals
    at: float

    def excuses(self, broken: Break) -> bool:
        """Whether this outage broke the request, and no gateway could have retried it."""
        if not broken.under_way:
            return False
        if broken.kind not in {Kind.EVENTS, Kind.WEBSOCKET}:
            # SIGTERM lets all of these finish. The destination of an upload without a response is
            # unknown; a process may be killed between the head of a response and its body.
            return (
                self.signal is signal.SIGKILL
                and (broken.kind is Kind.UPLOAD or broken.destination == self.destination)
                and broken.began <= self.at <= broken.at
            )
        return (
            broken.destination == self.destination
            and self.at <= broken.at <= self.at + _AFTER_SIGTERM_SECONDS
        )


class Tally:
    """Counts of everything sent so far."""

    def __init__(self) -> None:
        self.served: Counter[Kind] = Counter()
        self.by_destination: Counter[str] = Counter()
        self.pids: dict[str, int] = {}
        self.breaks: list[Break] = []
        self._seconds = {kind: deque[float](maxlen=_KEPT) for kind in Kind}

    def add(self, kind: Kind, seconds: float) -> None:
        """Count one served request, and the time its response took."""
        self.served[kind] += 1
        self._seconds[kind].append(seconds)

    def served_by(self, destination: str, pid: int) -> None:
        """Count the upstream that served a request, and note its process id."""
        self.by_destination[destination] += 1
        self.pids[destination] = pid

    def milliseconds(self, kind: Kind, quantile: float) -> float | None:
        """Give a quantile of the latencies, ``None`` before the first one."""
        return _quantile(self._seconds[kind], quantile)

    def failures(self, outages: Collection[Outage]) -> list[Break]:
        """Give the breaks that no outage excuses."""
        return [
            broken
            for broken in self.breaks
            if not any(outage.excuses(broken) for outage in outages)
        ]

    def broken(self, *, under_way: bool) -> int:
        """Count the breaks whose request was ``under_way``, or was not."""
        return sum(broken.under_way is under_way for broken in self.breaks)


def _quantile(seconds: Iterable[float], quantile: float) -> float | None:
    """Give the nearest-rank quantile in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)] * 1000
