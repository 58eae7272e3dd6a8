"""Lets a request find its proxied route past all routes that stand before it.

FastAPI asks one route after the other, its own documentation first, and each costs a regular
expression; what it then found in an included router, it matches once more. Which routes could
match a path that a mount takes is known at start. So one route is put in front of all others;
it takes the requests that none before their mount could have matched, and leaves all others to
the usual order, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute, RouteContext, iter_route_contexts
from starlette.datastructures import URLPath
from starlette.routing import (
    BaseRoute,
    Match,
    Mount,
    NoMatchFound,
    Route,
    Router,
    WebSocketRoute,
    compile_path,
)
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.integration.fastpath import FastPath, Shortcut

_SHORTCUT: Final = "fastapi_proxy_di.shortcut"
_FULL: Final = Match.FULL
_NONE: Final = Match.NONE
"""Looking a member up in its enum takes 0.15 µs on CPython 3.11."""

_NEVER_HTTP: Final = frozenset(route.matches for route in (APIWebSocketRoute, WebSocketRoute))
_BY_PATH: Final = frozenset(route.matches for route in (APIRoute, Mount, Route))
"""Ways to match that look at the path before they look at anything else."""

Forward = Callable[[Shortcut, Scope, Receive, Send], Coroutine[Any, Any, None]]


class _Entry(NamedTuple):
    """One shortcut, and what stands before it.

    Attributes:
        shortcut: Where the requests go.
        below: What every path below the mount starts with.
        exact: Paths that a route before it may match.
        prefixes: What the paths of further routes before it start with.
    """

    shortcut: Shortcut
    below: str
    exact: frozenset[str]
    prefixes: tuple[str, ...]


class EarlyRoute(BaseRoute):
    """Stands first among an app's routes, in no schema and with no path of its own.

    Args:
        router: The app's.
        shortcut_of: The short way of a route, ``None`` if it has none.
        forward: Goes it.
        matches_by_path: The ``matches`` of further route classes that go by the path.
    """

    def __init__(
        self,
        router: Router,
        shortcut_of: Callable[[RouteContext], Shortcut | None],
        forward: Forward,
        matches_by_path: Callable[..., Any],
    ) -> None:
        self._router = router
        self._shortcut_of = shortcut_of
        self._forward = forward
        self._by_path = _BY_PATH | {matches_by_path}
        self._entries: list[_Entry] = []
        # What the entries were made from: every router, and its routes as they were then.
        self._seen: list[tuple[Router, list[BaseRoute]]] = [(router, [])]

    def shortcut(self, scope: Scope) -> Shortcut | None:
        """The short way for a request, ``None`` if it takes the usual one."""
        for router, routes in self._seen:
            # Lists compare what is in them by identity first: 10 ns a route.
            if router.routes != routes:
                self._survey()
                break
        if (
            scope["type"] != "http"
            or not FastPath.proved
            or scope.get("root_path")
            or scope.get("fastapi.telemetry") is not None
            or scope["method"] == "CONNECT"
        ):
            return None
        path: str = scope["path"]
        for entry in self._entries:
            if (
                (path.startswith(entry.below) or path == entry.shortcut.mount)
                and path not in entry.exact
                and not path.startswith(entry.prefixes)
            ):
                return entry.shortcut
        return None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        shortcut = self.shortcut(scope)
        return (_NONE, {}) if shortcut is None else (_FULL, {_SHORTCUT: shortcut})

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        # Not a coroutine itself: each frame that waits is work for the collector.
        return self._forward(scope.pop(_SHORTCUT), scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        raise NoMatchFound(name, path_params)

    def _survey(self) -> None:
        """Note for each shortcut what stands before it, up to the first of unknown ways."""
        exact: set[str] = set()
        prefixes: list[str] = []
        self._entries = []
        self._seen = []
        self._see(self._router)
        for route in self._router.routes:
            if route is self:
                continue
            if not _is_ordinary(route):
                return
            for leaf in iter_route_contexts([route]):
                way = getattr(type(leaf.original_route), "matches", None)
                if way in _NEVER_HTTP:
                    continue
                if way not in self._by_path or not _has_its_own_pattern(leaf):
                    return
                shortcut = self._shortcut_of(leaf)
                if shortcut is not None:
                    ahead = _overlapping(exact, prefixes, shortcut.mount)
                    self._entries.append(_Entry(shortcut, shortcut.mount + "/", *ahead))
                static, parameter, _ = (leaf.path or "").partition("{")
                if parameter or isinstance(leaf.original_route, Mount):
                    prefixes.append(static)
                else:
                    # A regular expression's end is also before a last line end.
                    exact |= {static, static + "\n"}

    def _see(self, router: Router) -> None:
        """Remember the routes of a router and of those that it includes."""
        self._seen.append((router, [*router.routes]))
        for route in router.routes:
            included = getattr(route, "original_router", None)
            if isinstance(included, APIRouter):
                self._see(included)


@contextmanager
def in_front_of(
    router: Router,
    shortcut_of: Callable[[RouteContext], Shortcut | None],
    forward: Forward,
    matches_by_path: Callable[..., Any],
) -> Iterator[EarlyRoute | None]:
    """Have an `EarlyRoute` stand before the routes of ``router`` meanwhile, if none does."""
    if any(isinstance(route, EarlyRoute) for route in router.routes):
        yield None
        return
    early = EarlyRoute(router, shortcut_of, forward, matches_by_path)
    router.routes.insert(0, early)
    try:
        yield early
    finally:
        router.routes[:] = [route for route in router.routes if route is not early]


def _is_ordinary(route: BaseRoute) -> bool:
    """Whether a router that is included, if it is one, does nothing but lead to its routes."""
    router = getattr(route, "original_router", None)
    if not isinstance(router, APIRouter):
        return True
    include = getattr(route, "include_context", None)
    return (
        type(router) is APIRouter
        and not {"matches", "handle"} & vars(router).keys()
        and not any(getattr(one, "form_limits", None) for one in (router, include))
        and all(map(_is_ordinary, router.routes))
    )


def _has_its_own_pattern(leaf: RouteContext) -> bool:
    """Whether it matches what its path says: patterns can be replaced, to ignore case say."""
    path = leaf.path
    if path is None:
        return False
    whole = path + "/{path:path}" if isinstance(leaf.original_route, Mount) else path
    return bool(getattr(leaf, "path_regex", None) == compile_path(whole)[0])


def _overlapping(
    exact: Iterable[str], prefixes: Iterable[str], mount: str
) -> tuple[frozenset[str], tuple[str, ...]]:
    """What of the routes before could match a path that starts so."""
    return (
        frozenset(path for path in exact if path.startswith(mount)),
        tuple(one for one in prefixes if one.startswith(mount) or mount.startswith(one)),
    )
