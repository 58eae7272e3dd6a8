"""Runs an upstream outside any app, for tests of its client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi_proxy_di import (
    Balancer,
)
from tests.support.gateways import billing
from tests.support.origins import Connection


def running(*urls: str, **settings: Any) -> contextlib.AbstractAsyncContextManager[Balancer]:
    """Run the upstream outside any app."""
    return Balancer.from_settings(billing(*urls, **settings))


def in_flight(balancer: Balancer) -> int:
    """Requests in flight at all destinations."""
    return sum(one.in_flight for one in balancer.destinations)


async def silent(connection: Connection) -> None:
    """Read a request and never respond."""
    await connection.read_request()
    await connection.peer_left()


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A streamed body."""
    for part in parts:
        yield part
