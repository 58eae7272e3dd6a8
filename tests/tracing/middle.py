"""The second gateway of the chain: an upstream for each thing that can happen to a request."""

import asyncio
import os
from contextvars import Context
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI

from fastapi_proxy_di import (
    Balancer,
    RetrySettings,
    TimeoutSettings,
    Upstream,
    UpstreamSettings,
    proxy_router,
)

_ORIGIN: Final = os.environ["ORIGIN"]
_DEAD: Final = os.environ["DEAD"]


class Plain(UpstreamSettings, name="plain"):
    """One destination."""


class Dead(UpstreamSettings, name="dead"):
    """A destination that refuses connections."""


class Elsewhere(UpstreamSettings, name="elsewhere"):
    """Refuses connections, then responds 503, then responds."""


class Late(UpstreamSettings, name="late"):
    """Responds later than it may."""


class Hedged(UpstreamSettings, name="hedged"):
    """The first destination is slow."""


PLAIN: Final = Plain(destinations=[_ORIGIN])

app = FastAPI()
for upstream in (
    PLAIN,
    Dead(destinations=[_DEAD]),
    Elsewhere(
        destinations=[_DEAD, f"{_ORIGIN}/status/503", _ORIGIN],
        retries=RetrySettings(attempts=2, statuses=[503], backoff=0),
        policy="first",
    ),
    Late(
        destinations=[f"{_ORIGIN}/slow"],
        retries=RetrySettings(attempts=0),
        timeouts=TimeoutSettings(first_byte=0.3),
    ),
    Hedged(
        destinations=[f"{_ORIGIN}/slow", _ORIGIN],
        retries=RetrySettings(hedge_after=0.1),
        policy="first",
    ),
):
    app.include_router(proxy_router(upstream), prefix=f"/{upstream.name}")

Caller = Annotated[Balancer, Depends(Upstream(PLAIN))]


async def call(balancer: Balancer) -> Any:
    """Call with httpx; give the headers that the origin got."""
    return (await balancer.client.get("/echo")).json()


@app.get("/client")
async def client(plain: Caller) -> Any:
    """Call within the request."""
    return await call(plain)


@app.get("/httpx2")
async def httpx2(plain: Caller) -> Any:
    """Call with httpx2."""
    return (await plain.httpx2_client.get("/echo")).json()


@app.get("/lease")
async def lease(plain: Caller) -> str:
    """Lease a destination."""
    async with plain.lease() as held:
        return held.url


@app.get("/job")
async def job(plain: Caller) -> Any:
    """Call in a task that does not belong to the request."""
    return await asyncio.create_task(call(plain), name="job", context=Context())
