"""ASGI applications of ours that stand in a ``Mount`` or ``Host`` of an app: found at start.

Knows how routes are nested, and nothing of what such an application does with a request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount

from fastapi_proxy_di.integration.compat import routes_of

if TYPE_CHECKING:
    from fastapi_proxy_di.integration.lifespan import UpstreamMention
    from fastapi_proxy_di.upstream.balancer import Balancer

__all__ = ["MountedUpstream", "claimed", "mounted_upstreams"]


class MountedUpstream(ABC):
    """An ASGI application that forwards to one upstream and is started by the app around it.

    Attributes:
        upstream: Where it forwards to.
    """

    upstream: UpstreamMention

    @abstractmethod
    def claim(self, app: Starlette) -> bool:
        """Let the lifespan of ``app`` start the upstream.

        Returns:
            ``False`` where it has been started by hand.

        Raises:
            SettingsError: It may not stand in this app.
        """

    @abstractmethod
    def bind(self, balancer: Balancer | None) -> None:
        """Forward by ``balancer`` from now on; ``None`` where the upstream is overridden."""

    @abstractmethod
    def release(self) -> None:
        """Release the upstream at the end of its lifespan; nothing is forwarded any more."""


@contextmanager
def claimed(app: Starlette) -> Iterator[list[MountedUpstream]]:
    """Claim what stands in ``app`` until the end of the block.

    Raises:
        SettingsError: One of them may not stand there.
    """
    found: list[MountedUpstream] = []
    try:
        for one in mounted_upstreams(app.routes):
            if not any(one is known for known in found) and one.claim(app):
                found.append(one)
        yield found
    finally:
        for one in found:
            one.release()


def mounted_upstreams(routes: Iterable[BaseRoute]) -> Iterator[MountedUpstream]:
    """Yield the upstreams in a ``Mount`` or ``Host`` among ``routes``, at any depth.

    Looks through wrappers that keep what they wrap as ``app``, as middlewares do, and through
    mounted Starlette apps and routers. A mounted FastAPI app has a lifespan of its own.
    """
    for context in routes_of(routes):
        route: BaseRoute = context.original_route
        if isinstance(route, Mount | Host):
            yield from _within(route.app)


def _within(app: Any) -> Iterator[MountedUpstream]:
    seen: list[Any] = []
    while app is not None and not any(app is one for one in seen):
        if isinstance(app, MountedUpstream):
            yield app
            return
        if isinstance(app, FastAPI):
            return
        routes = getattr(app, "routes", None)
        if isinstance(routes, list):
            yield from mounted_upstreams(routes)
            return
        seen.append(app)
        app = getattr(app, "app", None)
