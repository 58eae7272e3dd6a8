"""Compares the mounts of an app with its routes: who gets which request.

Starlette and FastAPI give a request to the first route that matches its path and method. So a
route before a mount is local, and a route behind a mount gets no request. A route is found only
if it is certain that all of its paths lie in the mount: routes with a matching of their own, and
path convertors of the app, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from starlette.routing import BaseRoute

from fastapi_proxy_di.integration.places import Place, places

__all__ = ["LocalRoute", "MountPaths", "ShadowedRoute", "mount_paths"]


class LocalRoute(NamedTuple):
    """A route that the app serves itself, because it stands before a mount.

    Attributes:
        requests: The methods of the route that the mount would take, or ``HTTP`` for all, and
            ``WebSocket``; empty for a mounted application.
        path: The path of the route.
    """

    requests: tuple[str, ...]
    path: str


class ShadowedRoute(NamedTuple):
    """A route that gets none of the named requests, because a mount takes them first.

    Attributes:
        requests: The methods that the mount takes, or ``HTTP`` for all, and ``WebSocket``;
            empty for a mount or a mounted application, of which everything is taken.
        path: The path of the route, or the host of a ``Host``.
        mount: The path of the mount.
        upstream: The name of the mounted upstream.
    """

    requests: tuple[str, ...]
    path: str
    mount: str
    upstream: str

    def __str__(self) -> str:
        route = " ".join(filter(None, ("/".join(self.requests), self.path)))
        return f"{route} (behind {self.upstream!r} at {self.mount or '/'})"


class MountPaths(NamedTuple):
    """A mount, and the routes of the app that have paths in it.

    Attributes:
        upstream: The name of the mounted upstream.
        path: The path of the mount.
        host: The only host that it has requests for, as a ``Host`` route has it; ``None`` for
            all hosts.
        proxied: The methods that are forwarded, or ``HTTP`` for all, and ``WebSocket``; empty if
            what stands before it takes everything.
        local: The routes before the mount.
        shadowed: The routes behind the mount.
    """

    upstream: str
    path: str
    host: str | None
    proxied: tuple[str, ...]
    local: tuple[LocalRoute, ...]
    shadowed: tuple[ShadowedRoute, ...]


def mount_paths(routes: Iterable[BaseRoute]) -> list[MountPaths]:
    """Give the mounts of an app, each with its local and its shadowed routes.

    Of a route that takes several methods, only those are named that the mount takes. Another
    mount or a mounted application is shadowed only if all of its requests are taken. Mounted
    FastAPI apps are not searched, since they have a lifespan and upstreams of their own.

    Args:
        routes: The routes of an app, in the order of matching.
    """
    search = _Search()
    search.search(routes, None, [])
    return [
        MountPaths(
            mount.upstream or "",
            mount.path or "/",
            next((one.shown for one in mount.with_enclosing() if one.of_host), None),
            tuple(sorted(mount.requests)),
            local,
            tuple(route for front, route in search.shadowed if front is mount),
        )
        for mount, local in search.mounts
    ]


class _Search:
    """What one pass over the routes of an app has found.

    Attributes:
        mounts: Each mount, with the methods that reach it, and its local routes.
        shadowed: Each shadowed route, with the mount that takes its requests.
    """

    def __init__(self) -> None:
        self.mounts: list[tuple[Place, tuple[LocalRoute, ...]]] = []
        self.shadowed: list[tuple[Place, ShadowedRoute]] = []

    def search(
        self, routes: Iterable[BaseRoute], around: Place | None, before: list[Place]
    ) -> None:
        """Search ``routes``, and add their places to ``before``, the places matched before them."""
        for place in places(routes, around):
            rest, taken = _taken(place, before)
            self.shadowed += taken
            reached = replace(place, requests=rest)
            if place.upstream is not None:
                self.mounts.append((reached, tuple(_local(place, before))))
            if not taken:
                # What a host contains takes nothing from other hosts.
                inside = before.copy() if place.of_host else before
                self.search(place.inside, place, inside)
            if not place.of_host:
                before.append(reached)


def _taken(
    place: Place, before: Iterable[Place]
) -> tuple[frozenset[str], list[tuple[Place, ShadowedRoute]]]:
    """Give the requests that reach ``place``; and the mounts that take others, with what."""
    rest, found = place.requests, []
    for front in before:
        taken = front.takes_from(place, rest)
        rest -= taken
        if taken and front.upstream is not None:
            requests = place.named(taken)
            route = ShadowedRoute(requests, place.shown, front.path, front.upstream)
            found.append((front, route))
    if place.below:
        # Only if all is taken: a mount for GET may well be before one for the other methods.
        found = [] if rest else found[:1]
    return rest, found


def _local(mount: Place, before: Iterable[Place]) -> Iterator[LocalRoute]:
    """Give the routes before ``mount`` that have paths in it, without those of other mounts."""
    enclosing = list(mount.with_enclosing())
    for front in before:
        # Of an application that is mounted before, only the mount is named.
        inner = front.around is not None and not any(front.around is one for one in enclosing)
        requests = mount.shares_with(front)
        if requests and front.upstream is None and not inner:
            yield LocalRoute(front.named(requests), front.shown)
