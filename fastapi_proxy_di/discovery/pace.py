"""How long to wait until a source is asked again. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["SHORTEST_SECONDS", "USUAL_SECONDS", "backoff_seconds", "refresh_seconds"]

SHORTEST_SECONDS: Final = 1.0
"""A TTL of 0 asks once a second, and failed dials ask no more often."""
USUAL_SECONDS: Final = 30.0
"""A long TTL is cut to this, so that a change is seen in half a minute."""
JITTER: Final = 0.1
"""Share by which pauses vary, so that workers do not ask in step."""


def refresh_seconds(refresh: float | None, ttl: float, draw: float) -> float:
    """Give the seconds until the next look-up after one that succeeded.

    Args:
        refresh: The setting ``discovery.refresh``.
        ttl: Seconds for which the last list is valid.
        draw: A random number from 0 to 1.
    """
    seconds = min(max(ttl, SHORTEST_SECONDS), USUAL_SECONDS) if refresh is None else refresh
    return _varied(seconds, draw)


def backoff_seconds(failures: int, draw: float) -> float:
    """Give the seconds until the next look-up after failures: 1, 2, 4 and so on up to 30.

    Args:
        failures: Failures in a row, at least 1.
        draw: A random number from 0 to 1.
    """
    doubled = SHORTEST_SECONDS * 2.0 ** min(failures - 1, 10)
    return _varied(min(doubled, USUAL_SECONDS), draw)


def _varied(seconds: float, draw: float) -> float:
    return seconds * (1 + JITTER * (2 * draw - 1))
