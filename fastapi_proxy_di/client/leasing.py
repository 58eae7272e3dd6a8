"""Leases destinations: picks one, counts it as in use, and ends its lease.

A lease counts against the limits and as in flight like a request, through the same journey,
but sends nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.client.lease import Lease
from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.journey import Journey
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.forwarding.watcher import Watcher

_NO_DEADLINES = Deadlines(None, None, None)


@asynccontextmanager
async def lease(
    journey: Journey, key: PickRequest | None, overrides: Overrides | None = None
) -> AsyncIterator[Lease]:
    """Pick a destination and count it as in use.

    An exception inside the block is not counted as a failure, because it may be the caller's
    own. A failure of the destination is reported by ``Lease.failed``, and is that of the attempt.

    Args:
        journey: The journey of the upstream's exchanges.
        key: The part of a request that the policy may see.
        overrides: Has the address to lease instead of a destination of the pool.

    Raises:
        NoAvailableDestination: No destination is available; ``LimitExceeded`` if all are full.
    """
    scope = {"type": "lease", "headers": ()}
    exchange = Exchange(scope, None, None, b"", b"", overrides, key)
    reported: list[BaseException] = []
    exchange.begin(Watcher(journey.name, _NO_DEADLINES), journey.observers)
    try:
        await journey.hold(exchange)
        held = Lease(journey.outcomes, exchange.destination, reported.append)
        yield held
        held.succeeded()
    finally:
        # Taken out of the list, because frames of its traceback may have the lease.
        _ = journey.end(exchange, reported.pop() if reported else None)
