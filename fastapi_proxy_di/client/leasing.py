"""How a destination is lent: picked, counted as in use, and given back.

It counts like a request of ours, against the limits and in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Message

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.balancing.selection import select
from fastapi_proxy_di.client.lease import Lease
from fastapi_proxy_di.forwarding.deadlines import Deadlines, Grace, Watch
from fastapi_proxy_di.forwarding.dispatch import Dispatcher

_NO_DEADLINES = Deadlines(None, None, None)


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
        destination, full = select(dispatcher.policy, dispatcher.supervisor.pool, key)
        dispatcher.supervisor.limits_reached(full)
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
