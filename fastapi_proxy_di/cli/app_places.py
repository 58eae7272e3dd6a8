"""Finds the upstreams that an app mentions, and the places where it does, without starting it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.routing import APIWebSocketRoute
from starlette.applications import Starlette

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.integration.app import ProxyApp
from fastapi_proxy_di.integration.compat import dependant_of
from fastapi_proxy_di.integration.lifespan import SETTINGS
from fastapi_proxy_di.integration.mentions import mentions_in, mentions_of, reached_routes
from fastapi_proxy_di.integration.mounts import application_in, claimed
from fastapi_proxy_di.integration.proxied import proxied_by
from fastapi_proxy_di.integration.shadowed import mount_paths
from fastapi_proxy_di.settings import Mention, ProxySettings

__all__ = ["AppFindings", "Place", "is_app", "read_app"]


@dataclass(frozen=True, slots=True)
class Place:
    """A place of an app that uses an upstream.

    Attributes:
        upstream: Name of the upstream.
        path: Path of the mount, or of the route that injects the upstream.
        requests: The methods, or ``HTTP`` for all of them, and ``WebSocket``.
        kind: ``"mount"`` or ``"injected"``.
    """

    upstream: str
    path: str
    requests: str
    kind: str


@dataclass(frozen=True, slots=True)
class AppFindings:
    """What an app says of its upstreams.

    Attributes:
        mentions: The upstreams, by name.
        places: Where they are used.
        shadowed: Routes that get no requests, because a mount stands before them.
        settings: The `ProxySettings` that code has given to the app, ``None`` for none.
    """

    mentions: Mapping[str, Mention]
    places: tuple[Place, ...]
    shadowed: tuple[str, ...]
    settings: ProxySettings | None


def is_app(found: object) -> bool:
    """Whether an object is an app of FastAPI or Starlette, or made by ``proxy_app``.

    It may be inside middlewares that keep the wrapped application as ``app``.
    """
    return not isinstance(found, type) and isinstance(application_in(found), Starlette | ProxyApp)


def read_app(found: object) -> AppFindings:
    """Read an app, which is not started.

    Args:
        found: An object for which `is_app` is true.

    Raises:
        SettingsError: The app would not start, or it uses no upstream.
    """
    app = application_in(found)
    if isinstance(app, ProxyApp):
        upstream = app.upstream
        place = Place(upstream.name, "/", "HTTP, WebSocket", "mount")
        return AppFindings({upstream.name: upstream.source}, (place,), (), None)
    with claimed(app) as mounted:
        mentions = mentions_of(app, mounted)
    if not mentions:
        raise SettingsError("the app neither mounts nor injects an upstream")
    mounts = mount_paths(app.routes)
    places = [
        Place(
            one.upstream,
            one.path if one.host is None else f"{one.host}{one.path}",
            ", ".join(one.proxied) or "none, because routes before it take all",
            "mount",
        )
        for one in mounts
    ]
    shadowed = tuple(str(route) for one in mounts for route in one.shadowed)
    return AppFindings(
        mentions,
        (*places, *dict.fromkeys(_injections(app))),
        shadowed,
        getattr(app, SETTINGS, None),
    )


def _injections(app: Starlette) -> Iterator[Place]:
    for route in reached_routes(app.routes):
        dependant = dependant_of(route)
        proxied = proxied_by(getattr(route, "endpoint", None))
        for mention in () if dependant is None else mentions_in(dependant):
            if proxied is None or proxied.upstream.name != mention.name:
                yield Place(mention.name, route.path, _requests(route), "injected")


def _requests(route: Any) -> str:
    if isinstance(route.original_route, APIWebSocketRoute):
        return "WebSocket"
    return ", ".join(sorted(route.methods or ()))
