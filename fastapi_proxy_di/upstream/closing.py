"""Closes one upstream while its app runs: refuses, waits, breaks off, closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.upstream.running import RunningUpstream

__all__ = ["close_in_order"]

_LOOK_SECONDS: Final = 0.05
"""Seconds between two checks whether requests are under way."""

_PLACE_TURNS: Final = 2
"""Turns of the loop until a request that has just begun is counted: a hedged one takes its place
at a destination in a task of a task."""


async def close_in_order(running: RunningUpstream, seconds: float) -> None:
    """Refuse new requests, wait for open ones, break off the rest, and close the upstream.

    If this is cancelled, the upstream is closed at once.

    Args:
        running: An upstream that has started.
        seconds: How long requests, tunnels and leases that are open may go on.
    """
    running.refuse()
    try:
        for _ in range(_PLACE_TURNS):
            await asyncio.sleep(0)
        # The app may end meanwhile, which closes the upstream at once.
        await _wait_until(lambda: running.closed or not _is_busy(running), seconds)
    finally:
        await running.aclose()


def _is_busy(running: RunningUpstream) -> bool:
    # Admitted requests that are hedged have no place at a destination for a moment.
    admitted = any(one.waiting or one.in_flight for one in _admissions(running))
    return admitted or running.waiting > 0 or any(one.in_flight for one in _destinations(running))


def _admissions(running: RunningUpstream) -> list[Admission]:
    dynamic = running.dynamic
    return [running.admission, *(() if dynamic is None else (dynamic.admission,))]


def _destinations(running: RunningUpstream) -> list[Destination]:
    """Give all destinations, those too that have left the pool and finish their requests."""
    found = list(running.transports.by_destination)
    if running.dynamic is not None:
        found += running.dynamic.destinations.by_destination
    return found


async def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition is true, or for ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  # no event tells that a count is 0
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        pass
