"""Finds the applications made by ``proxy_app`` in the ``Mount`` and ``Host`` routes of an app."""

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
    from fastapi_proxy_di.integration.mentions import UpstreamMention
    from fastapi_proxy_di.upstream.balancer import Balancer

__all__ = ["MountedUpstream", "application_in", "claimed", "mounted_upstreams"]


class MountedUpstream(ABC):
    """An ASGI application that forwards to one upstream and is started by the app around it.

    Attributes:
        upstream: The upstream that requests are forwarded to.
        counts_requests: Whether a guard is a ``rate_limit``.
    """

    upstream: UpstreamMention
    counts_requests: bool = False

    @abstractmethod
    def claim(self, app: Starlette) -> bool:
        """Let the lifespan of ``app`` start the upstream.

        Returns:
            ``False`` if the upstream was started by hand.

        Raises:
            SettingsError: The application cannot be mounted in ``app``.
        """

    @abstractmethod
    def bind(self, balancer: Balancer | None) -> None:
        """Forward with ``balancer`` from now on; ``None`` if the upstream is overridden."""

    @abstractmethod
    def release(self) -> None:
        """Stop forwarding; called at the end of the lifespan that started the upstream."""


@contextmanager
def claimed(app: Starlette) -> Iterator[list[MountedUpstream]]:
    """Claim the applications mounted in ``app``, and release them at the end of the block.

    Raises:
        SettingsError: One of them cannot be mounted in ``app``.
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
    """Yield the applications in a ``Mount`` or ``Host`` among ``routes``, at any depth.

    Searches mounted Starlette apps and routers, and middlewares that keep the wrapped
    application as ``app``. A mounted FastAPI app is left out: it has its own lifespan.
    """
    for context in routes_of(routes):
        route: BaseRoute = context.original_route
        if isinstance(route, Mount | Host):
            yield from _within(route.app)


def application_in(app: Any) -> Any:
    """Return the application inside middlewares that keep the wrapped application as ``app``.

    Returns:
        A `MountedUpstream`, or an app or a router with a list of ``routes``; ``None`` if there
        is none.
    """
    seen: list[Any] = []
    while app is not None and not any(app is one for one in seen):
        if isinstance(app, MountedUpstream) or isinstance(getattr(app, "routes", None), list):
            return app
        seen.append(app)
        app = getattr(app, "app", None)
    return None


def _within(app: Any) -> Iterator[MountedUpstream]:
    inner = application_in(app)
    if isinstance(inner, MountedUpstream):
        yield inner
    elif inner is not None and not isinstance(inner, FastAPI):
        yield from mounted_upstreams(inner.routes)
