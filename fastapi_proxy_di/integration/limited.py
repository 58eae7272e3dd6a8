"""Finds out whether an app has a ``rate_limit`` among its dependencies and guards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi_proxy_di.integration.compat import dependant_of
from fastapi_proxy_di.integration.mounts import MountedUpstream
from fastapi_proxy_di.limiting.limiter import CountsRequests

__all__ = ["is_limited"]


def is_limited(routes: Iterable[Any], mounted: Iterable[MountedUpstream]) -> bool:
    """Whether a dependency of a route, at any level, or a guard is a ``rate_limit``.

    Args:
        routes: Routes as `routes_of` yields them.
        mounted: The applications made by ``proxy_app``.
    """
    if any(one.counts_requests for one in mounted):
        return True
    waiting = [dependant_of(route) for route in routes]
    while waiting:
        dependant = waiting.pop()
        if dependant is not None:
            if isinstance(dependant.call, CountsRequests):
                return True
            waiting += dependant.dependencies
    return False
