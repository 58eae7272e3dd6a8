"""Finds the routes of an app that get no request, because an upstream is mounted before them.

Starlette and FastAPI give a request to the first route that matches its path and method. A
route is found only if it is certain that a mount takes all of its paths: routes with a
matching of their own, and path convertors of the app, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.routing import BaseRoute, Host, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from fastapi_proxy_di.integration.compat import routes_of
from fastapi_proxy_di.integration.mounts import MountedUpstream, application_in
from fastapi_proxy_di.integration.path_templates import equal_paths, lies_below
from fastapi_proxy_di.integration.proxied import proxied_by

_KNOWN_MATCHING: Final = frozenset(
    kind.matches for kind in (APIRoute, APIWebSocketRoute, Host, Mount, Route, WebSocketRoute)
)
_WEBSOCKET: Final = "WebSocket"
_EVERY: Final = "HTTP"
"""Stands for every HTTP method in a set of requests."""
_ALL: Final = frozenset({_EVERY, _WEBSOCKET})
_STATIC: Final = frozenset({"GET", "HEAD"})


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


def shadowed_routes(routes: Iterable[BaseRoute]) -> list[ShadowedRoute]:
    """Find the routes that get no request, because an upstream is mounted before them.

    Of a route that takes several methods, only those are named that a mount takes. Another
    mount or a mounted application is found only if all of its requests are taken. Mounted
    FastAPI apps are not searched, since they have a lifespan of their own.

    Args:
        routes: The routes of an app, in the order of matching.
    """
    return list(_shadowed(routes, "", []))


@dataclass(frozen=True, slots=True)
class _Place:
    """What one route takes, or all adjacent routes of one mount.

    Attributes:
        path: The path template; without the tail if everything below is taken.
        requests: The methods, or ``HTTP`` for all, and ``WebSocket``.
        shown: The path or the host, for the message.
        below: Whether all paths below ``path`` are taken.
        bare: Whether ``path`` itself is taken; Starlette's ``Mount`` does not take its own.
        upstream: The upstream that is mounted there, ``None`` for none.
        inside: The routes of a mounted application, or of a host.
        of_host: Whether only the requests for one host are taken.
    """

    path: str
    requests: frozenset[str]
    shown: str
    below: bool = False
    bare: bool = True
    upstream: str | None = None
    inside: Sequence[BaseRoute] = ()
    of_host: bool = False

    def same_mount(self, other: _Place) -> bool:
        return self.upstream == other.upstream is not None and self.path == other.path

    def takes_from(self, behind: _Place, requests: frozenset[str]) -> frozenset[str]:
        """Return those of ``requests`` for the place ``behind`` that this place takes first."""
        if not self._has_paths_of(behind):
            return frozenset()
        if _EVERY in self.requests:
            return requests - {"CONNECT"} - ({_WEBSOCKET} - self.requests)
        return requests & self.requests

    def _has_paths_of(self, behind: _Place) -> bool:
        if not self.below:
            return not behind.below and equal_paths(behind.path, self.path)
        same_depth = behind.path.count("/") == self.path.count("/")
        if same_depth and behind.bare and not self.bare:
            return False
        return lies_below(behind.path, self.path)


def _shadowed(
    routes: Iterable[BaseRoute], prefix: str, before: list[_Place]
) -> Iterator[ShadowedRoute]:
    """Search ``routes``, and add their places to ``before``, the places matched before them."""
    for place in _places(routes, prefix):
        found = _taken(place, before)
        yield from found
        if not found:
            # What a host contains takes nothing from other hosts.
            inside = before.copy() if place.of_host else before
            yield from _shadowed(place.inside, place.path, inside)
        if not place.of_host:
            before.append(place)


def _taken(place: _Place, before: Iterable[_Place]) -> list[ShadowedRoute]:
    """Say which upstreams take the requests of ``place``."""
    rest, found = place.requests, []
    for front in before:
        taken = front.takes_from(place, rest)
        rest -= taken
        if taken and front.upstream is not None:
            requests = () if place.below else tuple(sorted(taken))
            found.append(ShadowedRoute(requests, place.shown, front.path, front.upstream))
    if place.below:
        # Only if all is taken: a mount for GET may well be before one for the other methods.
        return [] if rest else found[:1]
    return found


def _places(routes: Iterable[BaseRoute], prefix: str) -> Iterator[_Place]:
    """Give the places of ``routes``; the adjacent routes of one mount are one place."""
    last: _Place | None = None
    for route in routes_of(routes):
        if type(route.original_route).matches not in _KNOWN_MATCHING:
            continue
        place = _place(route, prefix)
        if last is not None and place.same_mount(last):
            last = replace(last, requests=last.requests | place.requests)
            continue
        if last is not None:
            yield last
        last = place
    if last is not None:
        yield last


def _place(route: Any, prefix: str) -> _Place:
    original: BaseRoute = route.original_route
    if isinstance(original, Host):
        return _Place(prefix, _ALL, route.host, below=True, inside=_inside(route), of_host=True)
    path = prefix + route.path
    if isinstance(original, Mount):
        app = application_in(route.app)
        upstream = app.upstream.name if isinstance(app, MountedUpstream) else None
        requests = _STATIC if isinstance(route.app, StaticFiles) else _ALL
        return _Place(path, requests, path or "/", True, False, upstream, _inside(route))
    requests, proxied = _requests(route), proxied_by(route.endpoint)
    if proxied is None:
        return _Place(path, requests, path)
    path = path[: path.rindex("{path:")].removesuffix("/")
    return _Place(path, requests, path or "/", below=True, upstream=proxied.upstream.name)


def _requests(route: Any) -> frozenset[str]:
    if isinstance(route.original_route, WebSocketRoute):
        return frozenset({_WEBSOCKET})
    proxied = proxied_by(route.endpoint)
    every = not route.methods or (proxied is not None and proxied.any_method)
    return frozenset({_EVERY} if every else route.methods)


def _inside(route: Any) -> Sequence[BaseRoute]:
    searched = not isinstance(application_in(route.app), FastAPI)
    return route.routes or () if searched else ()
