"""Which requests each route of an app takes, by path and method.

Starlette and FastAPI give a request to the first route that matches its path and method. All
comparisons are cautious: what a route with a matching of its own takes is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.routing import BaseRoute, Host, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from fastapi_proxy_di.integration.compat import routes_of
from fastapi_proxy_di.integration.mounts import MountedUpstream, application_in
from fastapi_proxy_di.integration.path_templates import equal_paths, lies_below
from fastapi_proxy_di.integration.proxied import proxied_by

__all__ = ["Place", "places"]

_KNOWN_MATCHING: Final = frozenset(
    kind.matches for kind in (APIRoute, APIWebSocketRoute, Host, Mount, Route, WebSocketRoute)
)
_WEBSOCKET: Final = "WebSocket"
_EVERY: Final = "HTTP"
"""Stands for every HTTP method in a set of requests."""
_ALL: Final = frozenset({_EVERY, _WEBSOCKET})
_STATIC: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Place:
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
        around: The mounted application or the host that the place is in, ``None`` for the app.
    """

    path: str
    requests: frozenset[str]
    shown: str
    below: bool = False
    bare: bool = True
    upstream: str | None = None
    inside: Sequence[BaseRoute] = ()
    of_host: bool = False
    around: Place | None = None

    def with_enclosing(self) -> Iterator[Place]:
        place: Place | None = self
        while place is not None:
            yield place
            place = place.around

    def same_mount(self, other: Place) -> bool:
        return (self.upstream, self.path, self.shown) == (other.upstream, other.path, other.shown)

    def named(self, requests: frozenset[str]) -> tuple[str, ...]:
        return () if self.below else tuple(sorted(requests))

    def takes_from(self, behind: Place, requests: frozenset[str]) -> frozenset[str]:
        """Return those of ``requests`` for the place ``behind`` that this place takes first."""
        return _common(self.requests, requests) if self._has_paths_of(behind) else frozenset()

    def shares_with(self, front: Place) -> frozenset[str]:
        """Return the requests for the place ``front`` that both places take."""
        if not self._has_paths_of(front):
            return frozenset()
        one, other = self.requests, front.requests
        return _common(one, other) | _common(other, one)

    def _has_paths_of(self, behind: Place) -> bool:
        if not self.below:
            return not behind.below and equal_paths(behind.path, self.path)
        same_depth = behind.path.count("/") == self.path.count("/")
        if same_depth and behind.bare and not self.bare:
            return False
        return lies_below(behind.path, self.path)


def _common(taken: frozenset[str], requests: frozenset[str]) -> frozenset[str]:
    """Return those of ``requests`` that a place takes which takes the methods ``taken``."""
    if _EVERY in taken:
        return requests - {"CONNECT"} - ({_WEBSOCKET} - taken)
    return requests & taken


def places(routes: Iterable[BaseRoute], around: Place | None) -> Iterator[Place]:
    """Give the places of ``routes``; the adjacent routes of one mount are one place."""
    last: Place | None = None
    for route in routes_of(routes):
        if type(route.original_route).matches not in _KNOWN_MATCHING:
            continue
        place = replace(_place(route, "" if around is None else around.path), around=around)
        if last is not None and last.upstream is not None and place.same_mount(last):
            last = replace(last, requests=last.requests | place.requests)
            continue
        if last is not None:
            yield last
        last = place
    if last is not None:
        yield last


def _place(route: Any, prefix: str) -> Place:
    original: BaseRoute = route.original_route
    if isinstance(original, Host):
        upstream, inside = _application(route)
        return Place(prefix, _ALL, route.host, True, True, upstream, inside, of_host=True)
    path = prefix + route.path
    if isinstance(original, Mount):
        upstream, inside = _application(route)
        requests = _STATIC if isinstance(route.app, StaticFiles) else _ALL
        return Place(path, requests, path or "/", True, False, upstream, inside)
    requests, proxied = _requests(route), proxied_by(route.endpoint)
    if proxied is None:
        return Place(path, requests, path)
    path = path[: path.rindex("{path:")].removesuffix("/")
    return Place(path, requests, path or "/", below=True, upstream=proxied.upstream.name)


def _requests(route: Any) -> frozenset[str]:
    if isinstance(route.original_route, WebSocketRoute):
        return frozenset({_WEBSOCKET})
    proxied = proxied_by(route.endpoint)
    every = not route.methods or (proxied is not None and proxied.any_method)
    return frozenset({_EVERY} if every else route.methods)


def _application(route: Any) -> tuple[str | None, Sequence[BaseRoute]]:
    """Give the upstream of a mounted application, and the routes that are searched in it."""
    app = application_in(route.app)
    if isinstance(app, MountedUpstream):
        return app.upstream.name, ()
    return None, () if isinstance(app, FastAPI) else route.routes or ()
