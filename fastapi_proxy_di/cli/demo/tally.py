"""What became of the demo's own requests, and which breaks a killed upstream excuses.

Pure state and judgement: no clock, no I/O. A request may break only if it was under way
on a destination that was taken down just then, and if nobody may repeat it: an event stream
or a WebSocket that had begun, an upload partly sent, an answer whose head was out already.
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
# How long after a SIGTERM an exchange may still end: the upstream's own grace, and some.
_GRACE_SECONDS: Final = 8.0


class Kind(Enum):
    """The kinds of request the load sends; the value is what the summary calls it."""

    GET = "GET"
    POST = "POST"
    UPLOAD = "upload"
    EVENTS = "event stream"
    WEBSOCKET = "WebSocket"


@dataclass(frozen=True, slots=True)
class Break:
    """A request that did not come to its end.

    Attributes:
        kind: What it was.
        destination: Name of the upstream it was on, ``None`` if it never said.
        began: When it began, in seconds.
        at: When it broke, in seconds.
        under_way: It had begun to flow: an answer's or stream's first bytes came, or body
            was sent.
        reason: For the reader.
    """

    kind: Kind
    destination: str | None
    began: float
    at: float
    under_way: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Outage:
    """One time the demo took an upstream down.

    Attributes:
        destination: Name of the upstream.
        signal: How: ``SIGTERM`` or ``SIGKILL``.
        at: When, in seconds.
    """

    destination: str
    signal: signal.Signals
    at: float

    def excuses(self, broken: Break) -> bool:
        """Whether this outage is why the request broke, and no gateway could have helped."""
        if not broken.under_way:
            return False
        if broken.kind not in {Kind.EVENTS, Kind.WEBSOCKET}:
            # SIGTERM lets all of these finish. Of an upload without an answer nobody knows
            # where it was; a process may be killed between the head of an answer and its body.
            return (
                self.signal is signal.SIGKILL
                and (broken.kind is Kind.UPLOAD or broken.destination == self.destination)
                and broken.began <= self.at <= broken.at
            )
        return (
            broken.destination == self.destination
            and self.at <= broken.at <= self.at + _GRACE_SECONDS
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
        """Count one request that came to its end, and the time its answer took."""
        self.served[kind] += 1
        self._seconds[kind].append(seconds)

    def answered_by(self, destination: str, pid: int) -> None:
        """Note who answered."""
        self.by_destination[destination] += 1
        self.pids[destination] = pid

    def milliseconds(self, kind: Kind, quantile: float) -> float | None:
        """A quantile of the latencies, ``None`` before the first one."""
        return _quantile(self._seconds[kind], quantile)

    def failures(self, outages: Collection[Outage]) -> list[Break]:
        """The breaks that none of the outages excuses: each one is a fault."""
        return [
            broken
            for broken in self.breaks
            if not any(outage.excuses(broken) for outage in outages)
        ]

    def broken(self, *, under_way: bool) -> int:
        """How many broke: under way, or without ever having begun to flow."""
        return sum(broken.under_way is under_way for broken in self.breaks)


def _quantile(seconds: Iterable[float], quantile: float) -> float | None:
    """The nearest-rank quantile in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)] * 1000
