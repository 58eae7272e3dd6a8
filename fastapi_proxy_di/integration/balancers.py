"""The balancers that requests of an app use: those of its upstreams, or their stand-ins."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from fastapi_proxy_di.integration.lifespan import runtime_of
from fastapi_proxy_di.integration.mentions import overridden_upstreams
from fastapi_proxy_di.upstream.balancer import Balancer

__all__ = ["GivesBalancer", "balancers_in_use"]


@runtime_checkable
class GivesBalancer(Protocol):
    """An override that gives its balancer without FastAPI, as stand-ins for tests do."""

    async def balancer(self) -> Balancer:
        """Give the balancer for the running event loop."""
        ...


async def balancers_in_use(app: Any) -> dict[str, Balancer]:
    """Give the balancers that requests of ``app`` use now, by upstream name.

    A stand-in takes the place of the upstream that it overrides. An upstream that another
    dependency overrides is left out.

    Raises:
        ProxyNotStarted: No lifespan ran.
    """
    overridden = overridden_upstreams(app)
    started = runtime_of(app, "the upstreams of this app are not started").balancers
    found = {name: balancer for name, balancer in started.items() if name not in overridden}
    for name, override in overridden.items():
        if isinstance(override, GivesBalancer):
            found[name] = await override.balancer()
    return found
