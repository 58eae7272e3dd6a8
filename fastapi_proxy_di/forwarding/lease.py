"""A destination on loan, for SDKs that bring a client of their own.

What is done with it counts like a request of ours: against the limits, in flight, and in
what health and the policy learn. The lease sends nothing and knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.types import Message

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.balancing.selection import select
from fastapi_proxy_di.errors import ProxyError, Side
from fastapi_proxy_di.forwarding.watch import Deadlines, Grace, Watch
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.pools.destination import Destination

if TYPE_CHECKING:
    # It is public, so importing it must not load what only a running upstream needs.
    from fastapi_proxy_di.forwarding.dispatch import Dispatcher

_NO_DEADLINES = Deadlines(None, None, None)


class Lease:
    """One destination, held until the end of its ``async with``.

    Attributes:
        destination: The destination that the policy picked.
        url: Its address, without a slash at its end.
    """

    __slots__ = ("_dispatcher", "_loop", "_observed", "_started", "_told", "destination", "url")

    def __init__(self, dispatcher: Dispatcher, destination: Destination) -> None:
        self.destination: Destination = destination
        self.url: str = destination.url
        self._dispatcher = dispatcher
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._observed = False
        self._told = False

    def answered(self) -> None:
        """Say that the first of the answer is there; the time until now is the latency.

        Without it the time to the end of the lease counts, which is too long for streams.
        """
        self._observe(failed=False)

    def failed(self, error: BaseException | str = "lease") -> None:
        """Say that the destination failed: it counts towards its ejection, once a lease.

        Args:
            error: What happened, for events and records. A ``ProxyError`` that is not the
                destination's fault counts for nothing.
        """
        if self._told:
            return
        self._told = True
        if isinstance(error, ProxyError):
            if error.failure.side is not Side.DESTINATION:
                self._observed = True
                return
            error = error.failure.value
        reason = error if isinstance(error, str) else type(error).__name__
        self._dispatcher.keeper.failed(self.destination, reason)
        self._observe(failed=True)

    def succeeded(self) -> None:
        """What the end of the lease says, if nobody said otherwise."""
        if not self._told:
            self._told = True
            Ejector.succeeded(self.destination)
            self._observe(failed=False)

    def _observe(self, *, failed: bool) -> None:
        if not self._observed:
            self._observed = True
            now = self._loop.time()
            self._dispatcher.observe(self.destination, now - self._started, failed, now)


@asynccontextmanager
async def lease(
    dispatcher: Dispatcher, key: PickRequest | None, label: str
) -> AsyncIterator[Lease]:
    """Pick a destination and count it as in use.

    An exception that is raised inside counts for nothing: it may well be the caller's own.
    ``Lease.failed`` says that it is not.

    Args:
        dispatcher: Of the upstream.
        key: What the policy may see.
        label: Upstream's name.

    Raises:
        NoAvailableDestination: There is none; ``LimitExceeded`` if all are full.
    """
    admission = dispatcher.admission
    if admission is not None:
        loop = asyncio.get_running_loop()
        watch = Watch(loop, _NO_DEADLINES, Grace(loop, _NO_DEADLINES.grace), _never, label)
        try:
            await admission.enter(watch)
        finally:
            rest = watch.close()
            if rest is not None:
                await rest
    try:
        destination = select(dispatcher.policy, dispatcher.keeper.pool, key)
        if destination is None:
            raise dispatcher.unavailable([])
        destination.begin()
        try:
            held = Lease(dispatcher, destination)
            yield held
            held.succeeded()
        finally:
            destination.end()
    finally:
        if admission is not None:
            admission.leave()


async def _never() -> Message:
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await never
