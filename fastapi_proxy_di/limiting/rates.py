"""Reads a rate such as ``100/minute``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["Rate", "read_rate", "read_rates"]

_RATE: Final = re.compile(r"\s*(\d+)\s*/\s*(?:(\d+)\s*)?(second|minute|hour|day)s?\s*", re.ASCII)
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_MAX_LIMIT: Final = 10**9
"""Counts and times in microseconds stay whole numbers in Lua, which has only doubles."""
_MAX_SECONDS: Final = 366 * 86400


class Rate(NamedTuple):
    """How much is allowed within a window.

    Attributes:
        limit: How much, in requests that cost 1.
        window: Length of the window in microseconds.
        text: The rate as it is shown, e.g. ``100/minute`` or ``100/15 minutes``.
    """

    limit: int
    window: int
    text: str

    @property
    def seconds(self) -> int:
        """Length of the window in seconds."""
        return self.window // 1_000_000

    def share(self, processes: int) -> int:
        """Give the part of the limit that one of several processes may use, at least 1."""
        return max(1, self.limit // max(1, processes))


def read_rate(text: str) -> Rate:
    """Read one rate.

    Args:
        text: A number, a slash and a window: ``100/minute``, ``100/15 minutes``. Units are second,
            minute, hour and day.

    Raises:
        ValueError: It is no rate.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no rate; give e.g. '100/minute' or '100/15 minutes', in seconds, "
            "minutes, hours or days"
        )
    limit, count, unit = int(found[1]), int(found[2] or 1), found[3]
    seconds = count * _SECONDS[unit]
    if not 1 <= limit <= _MAX_LIMIT:
        raise ValueError(f"{text!r} allows {limit}; give a number from 1 to {_MAX_LIMIT}")
    if not 1 <= seconds <= _MAX_SECONDS:
        raise ValueError(f"{text!r} has a window of {seconds} s; give one from 1 s to 366 days")
    window = unit if count == 1 else f"{count} {unit}s"
    return Rate(limit, seconds * 1_000_000, f"{limit}/{window}")


def read_rates(texts: Iterable[str]) -> tuple[Rate, ...]:
    """Read several rates.

    Raises:
        ValueError: One of them is no rate, there is none, or two have the same window.
    """
    rates = tuple(read_rate(text) for text in texts)
    if not rates:
        raise ValueError("there is no rate; give e.g. '100/minute'")
    if len({rate.window for rate in rates}) < len(rates):
        raise ValueError(
            f"{', '.join(rate.text for rate in rates)}: two rates have the same window; keep the "
            "lower one"
        )
    return rates
