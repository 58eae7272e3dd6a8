"""How a destination is lent: picked, counted as in use, and given back.

It counts like a request of ours, against the limits and in flight, and goes the same journey;
only nothing is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.client.lease import Lease
from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.journey import Journey
from fastapi_proxy_di.forwarding.watcher import Watcher

_NO_DEADLINES = Deadlines(None, None, None)


@asynccontextmanager
async def lease(journey: Journey, key: PickRequest | None) -> AsyncIterator[Lease]:
    """Pick a destination and count it as in use.

    An exception that is raised inside counts for nothing: it may well be the caller's own.
    ``Lease.failed`` says that it is not.

    Args:
        journey: Of the upstream's exchanges.
        key: What the policy may see.

    Raises:
        NoAvailableDestination: There is none; ``LimitExceeded`` if all are full.
    """
    exchange = Exchange({"type": "lease"}, None, None, b"", b"", key=key)
    exchange.begin(Watcher(journey.name, _NO_DEADLINES), journey.observers)
    try:
        await journey.hold(exchange)
        held = Lease(journey.outcomes, exchange.destination)
        yield held
        held.succeeded()
    finally:
        _ = journey.end(exchange, None)
