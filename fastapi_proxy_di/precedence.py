"""Lets a request find its proxied route past all routes that stand before it.

FastAPI asks one route after the other, its own documentation first, and each costs a regular
expression. Which of them could match a path that a mount takes is known at start. So one route
is put in front of all others; it takes the requests that none before their mount could have
matched, and leaves all others to the usual order, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute, RouteContext, iter_route_contexts
from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Match, Mount, NoMatchFound, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

_INCLUDE: Final = "fastapi_proxy_di.include"
_FULL: Final = Match.FULL
_NONE: Final = Match.NONE
"""Looking a member up in its enum takes 0.15 µs on CPython 3.11."""

_BY_PATH: Final = frozenset(
    route.matches for route in (APIRoute, APIWebSocketRoute, Mount, Route, WebSocketRoute)
)
"""Ways to match that look at nothing but the path, before they look at anything else."""


@dataclass(frozen=True, slots=True)
class _Mounts:
    """The mounts of one included router, and what stands before them.

    Attributes:
        include: As it stands among the app's routes.
        starts: What every path below the mounts starts with.
        exact: Paths that a route before it matches.
        prefixes: What the paths of further routes before it start with.
    """

    include: BaseRoute
    starts: tuple[str, ...]
    exact: frozenset[str]
    prefixes: tuple[str, ...]


class EarlyRoute(BaseRoute):
    """Stands first among an app's routes, in no schema and with no path of its own.

    Args:
        routes: The app's, looked at again when there are more or fewer.
        router_class: Of the routers whose requests are taken.
        route_class: Of their routes.
    """

    def __init__(
        self,
        routes: list[BaseRoute],
        router_class: type[APIRouter],
        route_class: type[APIRoute],
    ) -> None:
        self._routes = routes
        self._router_class = router_class
        self._known = _BY_PATH | {route_class.matches}
        self._mounts: list[_Mounts] = []
        self._watched: list[list[BaseRoute]] = []
        self._count = 0
        self._survey()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if sum(map(len, self._watched)) != self._count:
            self._survey()
        path: str = scope["path"]
        if scope.get("root_path"):
            return _NONE, {}
        for mounts in self._mounts:
            if (
                path.startswith(mounts.starts)
                and path not in mounts.exact
                and not path.startswith(mounts.prefixes)
            ):
                match, child_scope = mounts.include.matches(scope)
                if match is _FULL:
                    child_scope[_INCLUDE] = mounts.include
                    return match, child_scope
        return _NONE, {}

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        include: BaseRoute = scope.pop(_INCLUDE)
        return include.handle(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        raise NoMatchFound(name, path_params)

    def _survey(self) -> None:
        """Note for each proxy what stands before it, up to the first route of unknown ways."""
        exact: set[str] = set()
        prefixes: list[str] = []
        self._mounts = []
        self._watched = [self._routes]
        for route in self._routes:
            if route is self:
                continue
            router = getattr(route, "original_router", None)
            if isinstance(router, APIRouter) and not self._watch(router):
                break
            leaves = list(iter_route_contexts([route]))
            if isinstance(router, self._router_class):
                starts = tuple({_static(leaf) for leaf in leaves})
                ahead = _overlapping(exact, prefixes, starts)
                self._mounts.append(_Mounts(route, starts, *ahead))
            if any(
                getattr(type(leaf.original_route), "matches", None) not in self._known
                for leaf in leaves
            ):
                break
            for leaf in leaves:
                if "{" in (leaf.path or "{") or isinstance(leaf.original_route, Mount):
                    prefixes.append(_static(leaf))
                else:
                    # A regular expression's end is also before a last line end.
                    exact |= {_static(leaf), _static(leaf) + "\n"}
        self._count = sum(map(len, self._watched))

    def _watch(self, router: APIRouter) -> bool:
        """Notice routes that join a router later; false if it has its own way of matching."""
        self._watched.append(router.routes)
        inner = (getattr(route, "original_router", None) for route in router.routes)
        return type(router).matches in (APIRouter.matches, self._router_class.matches) and all(
            self._watch(one) for one in inner if isinstance(one, APIRouter)
        )


@contextmanager
def in_front_of(
    routes: list[BaseRoute], router_class: type[APIRouter], route_class: type[APIRoute]
) -> Iterator[None]:
    """Have an `EarlyRoute` stand before ``routes`` meanwhile, unless there is one."""
    if any(isinstance(route, EarlyRoute) for route in routes):
        yield
        return
    early = EarlyRoute(routes, router_class, route_class)
    routes.insert(0, early)
    try:
        yield
    finally:
        routes[:] = [route for route in routes if route is not early]


def _static(leaf: RouteContext) -> str:
    return (leaf.path or "").partition("{")[0]


def _overlapping(
    exact: Iterable[str], prefixes: Iterable[str], starts: tuple[str, ...]
) -> tuple[frozenset[str], tuple[str, ...]]:
    """What of the routes before could match a path that starts so."""
    return (
        frozenset(path for path in exact if path.startswith(starts)),
        tuple(
            prefix
            for prefix in prefixes
            if prefix.startswith(starts) or any(start.startswith(prefix) for start in starts)
        ),
    )
